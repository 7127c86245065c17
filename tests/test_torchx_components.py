"""What `torchx run` can launch: its --help parses, and it names the right app."""

import pytest
from torchx.components.component_test_base import ComponentTestCase

from torchx_components import pretraining, ranking

COMPONENTS = [(pretraining, "pretrain"), (ranking, "train_ranker")]


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_the_component_is_valid_and_its_docstring_is_its_help(module, name):
    case = ComponentTestCase()
    case.setUp()
    case.validate(module, name)
    case.tearDown()


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_it_launches_the_app_of_its_name_with_the_flags_after_the_dashes(module, name):
    app = getattr(module, name)("--seed", "7", j="1x2")
    (role,) = app.roles
    command = " ".join([role.entrypoint, *role.args])
    assert f"-m apps.{name} --seed 7" in command
    assert "--nproc_per_node 2" in command
