"""Which encoders are compared with SCL, and for how many epochs each is trained."""

from torchrec_mm.pretraining.judge.ablation import ENCODERS, plan

SCL = {"method": "scl", "epochs": 10, "batch_size": 100, "bank_slots": 500, "triplet_weight": 1.0}
PAIRS = {"scl": 1990, "clip-e": 730, "co-click": 1430}


def planned(*encoders, scl=SCL, pairs=PAIRS, has_hard=True):
    return plan(encoders or tuple(ENCODERS), scl, pairs, has_hard)


def test_every_encoder_is_what_sets_it_apart_from_scl():
    flags, _ = planned()
    assert list(flags) == list(ENCODERS)
    assert flags["off-the-shelf"] == {"epochs": 0} and flags["scl"] == {}
    assert flags["scl-no-bank"] == {"bank_slots": 0}
    assert flags["scl-no-triplet"] == {"triplet_weight": 0.0}


def test_other_pairs_are_trained_for_the_epochs_closest_to_as_many_steps():
    flags, notes = planned("clip-e", "co-click")
    assert flags["clip-e"] == {**ENCODERS["clip-e"], "epochs": 27}  # 27 * 7 = 189, scl: 10 * 19
    assert flags["co-click"] == {"method": "co-click", "epochs": 14}  # 14 * 14 = 196
    assert notes[0] == "clip-e is trained for 27 epochs of 7 steps, 189 in all, scl for 190."
    assert "14 epochs of 14 steps, 196 in all" in notes[1]


def test_an_encoder_of_many_more_pairs_is_trained_for_one_epoch():
    flags, _ = planned("clip-e", pairs=PAIRS | {"clip-e": 1_000_000})
    assert flags["clip-e"]["epochs"] == 1


def test_without_hard_negatives_the_triplet_loss_is_not_left_out_once_more():
    flags, notes = planned("scl", "scl-no-triplet", has_hard=False)
    assert list(flags) == ["scl"]
    assert notes == ["scl-no-triplet is scl here: no search has an item clicked and not bought."]


def test_what_the_flags_make_scl_already_is_not_run_twice():
    flags, notes = planned("scl-no-bank", "scl-no-triplet", scl=SCL | {"bank_slots": 0})
    assert list(flags) == ["scl-no-triplet"]
    assert notes == ["scl-no-bank is scl here, by the flags given."]


def test_an_encoder_without_a_batch_of_pairs_is_left_out_and_said_so():
    flags, notes = planned("clip-e", "co-click", pairs={"scl": 1990, "co-click": 99})
    assert flags == {}
    assert notes == [
        "clip-e is left out: it has 0 pairs, fewer than a batch of 100.",
        "co-click is left out: it has 99 pairs, fewer than a batch of 100.",
    ]
