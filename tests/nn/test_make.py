"""MAKE over plain tensors; over batches of requests it is in tests/ranking/test_make.py."""

import pytest
import torch
from torch import Tensor

from torchrec_mm.nn.make import Make

R, C, L, D = 3, 2, 4, 6


def make() -> Make:
    torch.manual_seed(0)
    return Make(vector_width=D, width=5, hidden=(4, 3))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    targets, behaviours = (torch.randn(R, n, D, generator=generator) for n in (C, L))
    masks = (torch.rand(R, n, generator=generator) < 0.5 for n in (C, L))
    return targets, behaviours, *masks


def test_only_the_direction_of_a_vector_matters():
    targets, behaviours, *masks = inputs()
    torch.testing.assert_close(
        make()(targets * 3, behaviours / 7, *masks), make()(targets, behaviours, *masks)
    )


def test_what_a_masked_vector_holds_is_invisible():
    targets, behaviours, known, real = inputs()
    assert not known.all() and not real.all()
    changed = (
        targets.masked_fill(~known[..., None], 9),
        behaviours.masked_fill(~real[..., None], 9),
    )
    before, after = make()(targets, behaviours, known, real), make()(*changed, known, real)
    torch.testing.assert_close(after, before)
    for part in (after.interest, *after.hidden, after.logit[..., None]):
        assert not part[~known].any()


def test_requests_do_not_see_each_other():
    together = make()(*inputs())
    alone = make()(*(part[1:2] for part in inputs()))
    torch.testing.assert_close(alone.logit[0], together.logit[1])


def test_vectors_projected_once_an_item_give_the_same():
    targets, behaviours, known, real = inputs()
    units = [torch.nn.functional.normalize(part, dim=-1) for part in (targets, behaviours)]
    projected = [make().project(part) for part in units]
    scored = make().score(*projected, units[0] @ units[1].mT, known, real)
    torch.testing.assert_close(scored, make()(targets, behaviours, known, real))


def with_further() -> tuple[Make, tuple[Tensor, Tensor]]:
    """MAKE that looks at one further sequence, and such a sequence of 3 slots."""
    torch.manual_seed(0)
    module = Make(vector_width=D, width=5, hidden=(4, 3), sequences=1)
    generator = torch.Generator().manual_seed(2)
    return module, (
        torch.randn(R, 3, D, generator=generator),
        torch.tensor([[True, True, False]] * R),
    )


def test_what_a_masked_slot_of_a_further_sequence_holds_is_invisible_and_the_rest_is_not():
    module, (past, mask) = with_further()
    before = module(*inputs(), [(past, mask)])
    after = module(*inputs(), [(past.masked_fill(~mask[..., None], 9), mask)])
    torch.testing.assert_close(after, before)
    known = inputs()[2]
    other = module(*inputs(), [(past.flip(-1), mask)])
    assert (other.logit != before.logit)[known].all() and not other.logit[~known].any()
    assert torch.equal(other.interest, before.interest)  # is of the behaviours


def test_a_further_sequence_is_attended_to_as_the_behaviours_are():
    module, _ = with_further()
    module.further_attention[0].load_state_dict(module.attention.state_dict())
    _, behaviours, known, mask = inputs()
    seen = []
    module.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(*inputs(), [(behaviours, mask)])
    _, first, second, _ = seen[0][known].split([10, 1, 1, 5], dim=-1)
    assert torch.equal(first, second) and first.any()


def test_further_sequences_must_be_as_many_as_make_was_built_for():
    module, further = with_further()
    for given in ([], [further, further]):
        with pytest.raises(ValueError):
            module(*inputs(), given)


def test_a_mask_of_targets_of_the_wrong_shape_is_refused_by_name():
    targets, behaviours, _, real = inputs()
    with pytest.raises(ValueError, match=r"target_mask must be bool \(3, 2\), got torch.bool \(3,"):
        make()(targets, behaviours, torch.ones(R, dtype=torch.bool), real)
