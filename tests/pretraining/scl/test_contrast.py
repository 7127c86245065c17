"""How contrasts are named, and a rank alone; what their losses are is tested with SCL."""

import torch
from torch.nn.functional import normalize

from torchrec_mm.losses.info_nce import Negatives
from torchrec_mm.pretraining.scl.contrast import Contrast, ContrastLoss


def test_a_contrast_is_named_by_its_space_or_by_both():
    assert Contrast("fused", "fused").name == "fused"
    assert Contrast("text", "image").name == "text_to_image"


def test_a_rank_alone_need_not_say_what_all_ranks_have():
    torch.manual_seed(0)
    query, key = normalize(torch.randn(2, 5, 4), dim=-1)
    ids = torch.tensor([[1, 9], [2, 8], [-1, 7], [1, 6], [4, -1]])
    gathered = Negatives(key, ids, torch.tensor([True, True, False, True, True]))
    alone, told = ContrastLoss(4, bank_slots=3), ContrastLoss(4, bank_slots=3)
    for _ in range(2):  # the second time against the bank, too
        assert torch.equal(alone(query, key, ids)[0], told(query, key, ids, None, gathered)[0])
    assert torch.equal(alone.bank.keys, told.bank.keys)
    assert alone.bank.keys.any()


def test_what_is_relevant_to_a_query_is_no_negative_of_it_in_batch_bank_or_hard():
    torch.manual_seed(0)
    query, key = normalize(torch.randn(2, 2, 4), dim=-1)
    ids, others = torch.tensor([[1, 9], [2, 8]]), torch.tensor([[5, 7], [6, 7]])
    hard = normalize(torch.randn(2, 2, 4), dim=-1), torch.tensor([[5, -1], [6, 3]])
    in_bank = normalize(torch.randn(2, 4), dim=-1)

    def losses(relevant):
        contrast = ContrastLoss(4, bank_slots=2, triplet_weight=1.0, margin=2.0)
        contrast.bank.enqueue(in_bank, others, torch.tensor([True, True]))
        return contrast(query, key, ids, hard, relevant=relevant)[1]

    relevant = torch.tensor([[0, 2], [0, 5], [0, 6], [1, 1], [1, 5], [1, 6], [1, 3]])
    assert losses(relevant)[0] == 0 and losses(None)[0] > 0
    assert losses(relevant)[1] == 0 and losses(None)[1] > 0
    few = torch.tensor([[0, 5]])
    assert 0 < losses(few)[0] < losses(None)[0] and 0 < losses(few)[1] < losses(None)[1]
