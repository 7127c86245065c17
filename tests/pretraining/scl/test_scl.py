"""A training step of SCL against plain Python, and what it treats as negatives."""

import math
from dataclasses import replace

import pytest
import torch

from tests.pretraining.scl.made_pairs import (
    ALONE,
    SETTINGS,
    Contents,
    Float32,
    LinearEncoder,
    Pairs,
)
from torchrec_mm.pretraining.scl.contrast import (
    INITIAL_TEMPERATURE,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Contrast,
)
from torchrec_mm.pretraining.scl.scl import SCL

CROSSED = (Contrast("text", "image"), Contrast("image", "text"))


def scl(settings=SETTINGS, contrasts=ALONE, precision=None) -> SCL:
    return SCL(LinearEncoder(), contrasts, settings, lambda rows: rows, precision or Float32())


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def rows_of(vectors, *ids) -> list[tuple]:
    return list(zip(vectors.tolist(), *(each.tolist() for each in ids), strict=True))


def by_hand(module, batch, contrast, past) -> tuple[list[float], list[float]]:
    """InfoNCE and triplet loss of each valid pair; past: what the bank held before."""
    space, settings = contrast.key_space, module.settings
    query_ids, item_ids = batch.query.ids[contrast.query_space], batch.key.ids[space]
    queries = rows_of(module.encoder(batch.query)[contrast.query_space], query_ids)
    keys = rows_of(module.momentum_encoder(batch.key)[space], item_ids, query_ids)
    hard = rows_of(module.momentum_encoder(batch.hard)[space], batch.hard.ids[space])
    candidates = past + (keys if settings.in_batch else [])
    losses, violations = [], []
    for i, ((q, asked), (k, item, _)) in enumerate(zip(queries, keys, strict=True)):
        if -1 in (asked, item):
            continue
        wrong = [
            math.exp(dot(q, other) / INITIAL_TEMPERATURE)
            for other, other_item, other_asked in candidates
            if other_item not in (-1, item) and other_asked != asked
        ]
        own = math.exp(dot(q, k) / INITIAL_TEMPERATURE)
        losses.append(-math.log(own / (own + sum(wrong))))
        slots = hard[i * batch.num_hard : (i + 1) * batch.num_hard]
        over = [
            max(0.0, dot(q, other) - dot(q, k) + settings.margin)
            for other, other_item in slots
            if other_item not in (-1, item)
        ]
        violations.append(sum(over) / len(over) if over else 0.0)
    return losses, violations


@pytest.mark.parametrize("contrasts", [ALONE, CROSSED, ALONE[:1]])
@pytest.mark.parametrize(
    "change",
    [{}, {"in_batch": False}, {"bank_slots": 0}, {"triplet_weight": 0.0}, {"bank_slots": 100}],
    ids=str,
)
def test_the_loss_is_the_formula_over_batch_and_bank(contrasts, change):
    settings = replace(SETTINGS, **change)
    module = scl(settings, contrasts)
    for step in range(4):
        batch = Pairs.draw(8, seed=step).batch()
        total, figures = 0.0, []
        for contrast in contrasts:
            bank = module.losses[contrast.name].bank.contents()
            losses, over = by_hand(module, batch, contrast, rows_of(bank.keys, *bank.ids.T))
            over = over if settings.triplet_weight else [0.0]
            total += (sum(losses) + settings.triplet_weight * sum(over)) / len(losses)
            figures.append([pytest.approx(sum(losses), 1e-5), pytest.approx(sum(over), 1e-5)])
            figures[-1].append(len(losses))
        loss, found = module(batch)
        assert loss.item() == pytest.approx(total, rel=1e-5)
        assert found.tolist() == figures
        assert len(losses) > 1


def test_every_key_that_is_there_enters_the_bank_once_with_its_ids():
    module = scl(replace(SETTINGS, bank_slots=100), CROSSED[:1])
    batch = Pairs.draw(30, seed=5).batch()
    module(batch)
    bank = module.losses["text_to_image"].bank.contents()
    there = batch.key.mask["image"]
    assert 0 < there.sum() < 30
    keys = module.momentum_encoder(batch.key)["image"]
    assert torch.equal(bank.keys, keys[there].half())
    assert torch.equal(bank.ids[:, 0], batch.key.ids["image"][there])
    assert torch.equal(bank.ids[:, 1], batch.query.ids["text"][there])


def test_keys_come_from_the_momentum_encoder_and_take_no_gradient():
    module = scl()
    module(Pairs.draw(8, 1).batch())[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in module.encoder.parameters())
    assert all(p.grad is None for p in module.momentum_encoder.parameters())


def test_hard_negatives_are_not_encoded_without_a_triplet_loss():
    module = scl(replace(SETTINGS, triplet_weight=0.0))
    seen = []
    module.momentum_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = Pairs.draw(8, 1).batch()
    module(batch)
    assert len(seen) == 1 and seen[0] is batch.key


def test_a_hard_negative_with_the_content_of_the_key_is_passed_over():
    pairs = Pairs.draw(6, 3)
    same = Contents(*(x.repeat_interleave(2) for x in (pairs.key.image, pairs.key.text)))
    assert (scl()(replace(pairs, hard=same).batch())[1][:, 1] == 0).all()


def test_without_slots_for_hard_negatives_there_is_no_triplet_loss():
    pairs = Pairs.draw(6, 3)
    none = replace(pairs, hard=pairs.hard.part(slice(0)), num_hard=0)
    loss, figures = scl()(none.batch())
    assert loss > 0 and (figures[:, 1] == 0).all()


def test_a_batch_without_a_valid_pair_costs_nothing_and_teaches_nothing():
    module, pairs = scl(), Pairs.draw(8, 1)
    module(pairs.batch())
    nothing = torch.full((8,), -1)
    loss, figures = module(replace(pairs, query=Contents(nothing, nothing)).batch())
    loss.backward()
    assert loss == 0 and (figures == 0).all()
    assert all((p.grad == 0).all() for p in module.parameters() if p.requires_grad)


def test_after_a_step_temperatures_are_within_bounds_and_keys_move_slowly():
    for extreme, bound in ((-50.0, MIN_TEMPERATURE), (50.0, MAX_TEMPERATURE)):
        module = scl()
        before = module.momentum_encoder.text.weight.clone()
        with torch.no_grad():
            module.losses["text"].log_temperature.fill_(extreme)
            module.encoder.text.weight.add_(1.0)
        module.after_step()
        named = module.named_figures(torch.ones(3, 3))
        assert named["text/temperature"] == pytest.approx(bound)
        assert named["image/temperature"] == pytest.approx(INITIAL_TEMPERATURE)
        torch.testing.assert_close(module.momentum_encoder.text.weight, before + 0.1)


def test_every_contrast_learns_a_temperature_of_its_own():
    module = scl()
    module(Pairs.draw(8, 1).batch())[0].backward()
    gradients = [loss.log_temperature.grad.item() for loss in module.losses.values()]
    assert len({*gradients, 0.0}) == 4


def test_summed_figures_are_read_as_means_over_pairs():
    figures = torch.tensor([[6.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    named = scl(contrasts=CROSSED).named_figures(figures)
    means = [named[f"text_to_image/{name}"] for name in ("info_nce", "triplet", "pairs")]
    assert means == [1.5, 0.75, 4]
    assert named["image_to_text/info_nce"] == 0


def test_encoders_run_in_the_precision_and_losses_in_float32():
    class Half:
        @staticmethod
        def autocast():
            return torch.autocast("cpu", torch.bfloat16)

    seen = []
    module = scl(precision=Half())
    for encoder in (module.encoder, module.momentum_encoder):
        encoder.text.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    loss, _ = module(Pairs.draw(8, 1).batch())
    assert seen == [torch.bfloat16] * 3 and loss.dtype == torch.float32


def test_a_restored_module_gives_the_same_next_loss():
    module, restored = scl(), scl()
    for seed in range(3):
        module(Pairs.draw(8, seed).batch())[0].backward()
        with torch.no_grad():
            for parameter in module.encoder.parameters():
                parameter -= 0.1
        module.after_step()
    for name, tensor in restored.state_dict().items():  # in place, as checkpoints are restored
        tensor.copy_(module.state_dict()[name])
    batch = Pairs.draw(8, 9).batch()
    assert restored(batch)[0].item() == module(batch)[0].item() != scl()(batch)[0].item()
