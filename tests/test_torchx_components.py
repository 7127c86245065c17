"""What `torchx run` can launch: its --help parses, and it names the right app."""

import inspect

import pytest
from torchx.components.component_test_base import ComponentTestCase
from torchx.specs.builders import parse_args

from torchx_components import pipeline, pretraining, ranking

TRAINING = [(pretraining, "pretrain"), (ranking, "train_make"), (ranking, "train_ranker")]
SCORING = [(ranking, "evaluate"), (ranking, "predict")]
COMPONENTS = [*TRAINING, (pretraining, "embed_items"), *SCORING]
# Where processes start again.
AGAIN = {name: "from the last checkpoint" for _, name in TRAINING}
AGAIN |= {name: "from the beginning" for _, name in SCORING}
AGAIN["embed_items"] = "at the unfinished parts"


def command_of(app):
    (role,) = app.roles
    return " ".join([role.entrypoint, *role.args])


@pytest.mark.parametrize(("module", "name"), [*COMPONENTS, (pipeline, "pipeline")])
def test_the_component_is_valid_and_its_docstring_is_its_help(module, name):
    case = ComponentTestCase()
    case.setUp()
    case.validate(module, name)
    case.tearDown()


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_its_help_tells_whose_flags_it_takes_and_where_processes_start_again(module, name, capsys):
    with pytest.raises(SystemExit):
        parse_args(getattr(module, name), ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    resumes = "; --resume is among them" if (module, name) in TRAINING else ""
    assert f"Phase {'one' if module is pretraining else 'two'}" in told
    assert f"flags of apps.{name}, written after a bare --{resumes} (required)" in told
    assert f"again {AGAIN[name]} when one dies (default: 3)" in told


@pytest.mark.parametrize(
    ("helper", "modules"),
    [
        ("_of_ranks", (pretraining, ranking)),
        ("_for_torchrun", (pretraining, ranking)),
        ("_devices", (pretraining, ranking, pipeline)),
    ],
)
def test_what_files_cannot_share_is_the_same_text_in_each(helper, modules):
    assert len({inspect.getsource(getattr(module, helper)) for module in modules}) == 1


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_it_launches_the_app_of_its_name_with_the_flags_after_the_dashes(module, name):
    app = getattr(module, name)("--seed", "7", j="1x2")
    assert f"-m apps.{name} " in command_of(app)
    assert command_of(app).endswith(" --seed 7")
    assert "--nproc_per_node 2" in command_of(app)


@pytest.mark.parametrize(("module", "name"), TRAINING)
def test_what_is_started_again_goes_on(module, name):
    told = command_of(getattr(module, name)("--seed", "7"))
    assert f"-m apps.{name} --resume true --seed 7" in told


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_restarts_logs_and_environment_reach_the_launcher(module, name):
    (role,) = getattr(module, name)(env={"A": "b"}, max_restarts=5, log_dir="logs").roles
    wanted = {"A": "b", "PET_MAX_RESTARTS": "5", "PET_LOG_DIR": "logs"}
    assert role.env.items() >= wanted.items()
    assert "PET_LOG_DIR" not in getattr(module, name)().roles[0].env


@pytest.mark.parametrize(("module", "name"), [*COMPONENTS, (pipeline, "pipeline")])
def test_a_node_is_asked_for_as_it_is_described_and_its_environment_wins(module, name):
    node = {"cpu": 3, "gpu": 2, "memMB": 99}
    given = {"image": "some:image", "max_retries": 4, "env": {"PET_LOG_DIR": "mine"}}
    (role,) = getattr(module, name)(j="1x2", log_dir="logs", **node, **given).roles
    assert vars(role.resource).items() >= node.items()
    assert (role.image, role.max_retries, role.env["PET_LOG_DIR"]) == ("some:image", 4, "mine")


@pytest.mark.parametrize(("module", "name"), COMPONENTS)
def test_ranks_that_start_again_meet_at_a_new_store(module, name):
    """The old one still names those that died (pytorch/pytorch#135712)."""
    (role,) = getattr(module, name)().roles
    assert role.env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


EVERY = [*COMPONENTS, (pipeline, "pipeline")]


@pytest.mark.parametrize(("module", "name"), EVERY)
def test_without_gpus_asked_for_processes_see_none(module, name):
    component = getattr(module, name)
    assert component().roles[0].env["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in component(gpu=1).roles[0].env
    assert component(env={"CUDA_VISIBLE_DEVICES": "3"}).roles[0].env["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(("module", "name"), EVERY)
def test_processes_share_the_threads_of_their_node(module, name, monkeypatch):
    def threads(**given) -> str:
        return getattr(module, name)(**given).roles[0].env["OMP_NUM_THREADS"]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads(), threads(j="1x2"), threads(j="2x8", cpu=16), threads(j="1x4")] == list("2121")
    assert threads(env={"OMP_NUM_THREADS": "5"}) == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's shell has said so
    assert threads(j="2x8", cpu=16) == "3"


@pytest.mark.parametrize(("module", "name"), EVERY)
def test_more_processes_than_gpus_asked_for_are_refused(module, name):
    with pytest.raises(ValueError, match="j must have at most 4 processes per node, .* got 2x8"):
        getattr(module, name)(j="2x8", gpu=4)
    getattr(module, name)(j="2x4", gpu=8)


def test_every_node_runs_the_pipeline_and_knows_the_first_one():
    flags = ("--pretrain", "{epochs: 3}")
    app = pipeline.pipeline(*flags, j="2x4", gpu=4, max_restarts=5, max_retries=1)
    (role,) = app.roles
    assert (role.num_replicas, role.min_replicas, role.max_retries) == (2, 2, 1)
    assert role.resource.gpu == 4
    assert command_of(app) == (
        "bash -c python -u -m apps.pipeline --nodes 2 --processes 4 --max_restarts 5 "
        "--rdzv_endpoint $${${rank0_env}:=localhost}:29500 --pretrain '{epochs: 3}'"
    )


def test_logs_and_environment_reach_the_launcher_of_each_stage():
    (role,) = pipeline.pipeline(env={"A": "b"}, log_dir="logs").roles
    assert role.env.items() >= {"A": "b", "PET_LOG_DIR": "logs", "PET_TEE": "3"}.items()
    assert "PET_LOG_DIR" not in pipeline.pipeline().roles[0].env


def test_a_pipeline_that_would_start_on_fewer_nodes_is_refused():
    with pytest.raises(ValueError, match="j must name one number of nodes, got 1:2x4"):
        pipeline.pipeline(j="1:2x4")
