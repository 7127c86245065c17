"""The gate weighs what is present, and its vectors have unit length."""

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.pretraining.encoder.gate import ModalityGate

BOTH, FIRST, SECOND, NONE = [True, True], [True, False], [False, True], [False, False]


def unit_vectors(rows: int, mask: list[list[bool]], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(rows, 2, 8, generator=generator), dim=2)
    return vectors * torch.tensor(mask)[:, :, None]


@pytest.fixture
def trained():
    torch.manual_seed(0)
    gate = ModalityGate([8, 8])
    torch.nn.init.normal_(gate.weigh[-1].weight)
    return gate


def test_untrained_the_cosine_of_complete_rows_is_the_mean_of_their_cosines():
    mask = [BOTH] * 5
    vectors = unit_vectors(5, mask)
    fused = ModalityGate([8, 8])(vectors.unbind(1), torch.tensor(mask))
    mean = (vectors[:, 0] @ vectors[:, 0].T + vectors[:, 1] @ vectors[:, 1].T) / 2
    torch.testing.assert_close(fused @ fused.T, mean)


def test_a_row_that_lacks_a_modality_is_the_other_one_whole(trained):
    mask = [FIRST, SECOND, NONE]
    vectors = unit_vectors(3, mask)
    fused = trained(vectors.unbind(1), torch.tensor(mask))
    assert torch.equal(fused[0], torch.cat([vectors[0, 0], torch.zeros(8)]))
    assert torch.equal(fused[1], torch.cat([torch.zeros(8), vectors[1, 1]]))
    assert not fused[2].any()


def test_trained_weights_depend_on_the_row_and_keep_unit_length(trained):
    mask = [BOTH] * 6
    fused = trained(unit_vectors(6, mask).unbind(1), torch.tensor(mask))
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(6))
    shares = fused[:, :8].norm(dim=1).square()
    assert shares.std() > 0.01


def test_gradients_are_finite_whatever_is_missing_and_reach_the_gate(trained):
    mask = [BOTH, FIRST, SECOND, NONE]
    vectors = unit_vectors(4, mask).requires_grad_()
    trained(vectors.unbind(1), torch.tensor(mask))[:, :5].sum().backward()
    assert vectors.grad.isfinite().all()
    for parameter in trained.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any()


def test_modalities_may_be_of_different_widths():
    first, second = torch.eye(3)[:2], torch.eye(5)[:2]
    fused = ModalityGate([3, 5])([first, second], torch.tensor([BOTH, SECOND]))
    expected = torch.cat([first[:1] * 0.5**0.5, second[:1] * 0.5**0.5], dim=1)
    torch.testing.assert_close(fused[:1], expected)
    assert torch.equal(fused[1], torch.cat([torch.zeros(3), second[1]]))
