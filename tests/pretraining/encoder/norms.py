"""Pictures through synchronised norms; also what each of two ranks runs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.batch_norm import counted_rows, synchronise_batch_norms
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec, build_encoder

# Rows of both ranks, step by step: unequal numbers, and none at all on the second rank.
SHARES = ((5, 2), (7, 0))
FILLER = 200


def activations() -> list[Tensor]:
    """(7, 3, 4, 4) float by step, far from zero: what cancels in float32 if summed as it is."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(7, 3, 4, 4, generator=generator) * 3 + 500 for _ in SHARES]


def pictures() -> list[Tensor]:
    """(7, 3, 32, 32) uint8 by step."""
    generator = torch.Generator().manual_seed(2)
    shape = (7, 3, 32, 32)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in SHARES]


def share(rows: Tensor, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """This rank's rows of a step and a filler after them, and which of them are real."""
    mine = rows.split(SHARES[step])[rank]
    filler = torch.full_like(rows[:1], FILLER)
    return torch.cat([mine, filler]), torch.tensor([True] * len(mine) + [False])


def norm() -> nn.Module:
    """A BatchNorm2d with weights and statistics of its own."""
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.running_mean, 490, 510)
    return layer


def loss_of(outputs: Tensor, step: int, rows: slice) -> Tensor:
    """A sum over rows, each with factors of its own."""
    generator = torch.Generator().manual_seed(step)
    factors = torch.randn(7, *outputs.shape[1:], generator=generator)[rows]
    return (outputs[: len(factors)] * factors).sum()


def rows_of(step: int, rank: int) -> slice:
    """Which of the 7 rows a rank has."""
    first = SHARES[step][0]
    return slice(0, first) if rank == 0 else slice(first, 7)


def through_layer(rank: int) -> dict:
    """Two steps of one layer on this rank."""
    torch.manual_seed(0)
    model = nn.Sequential(norm())
    synchronise_batch_norms(model)
    model.train()
    outputs, gradients = [], []
    for step, rows in enumerate(activations()):
        inputs, real = share(rows, step, rank)
        inputs.requires_grad_()
        with counted_rows(real):
            output = model(inputs)
        loss_of(output, step, rows_of(step, rank)).backward()
        outputs.append(output.detach()[:-1])
        gradients.append(inputs.grad)
    weights = {name: p.grad for name, p in model.named_parameters()}
    learned = {"of_inputs": gradients, "of_weights": weights, "state": model.state_dict()}
    return {"outputs": outputs} | learned


def through_encoder(image_encoder: Path, rank: int | None, checkpointed: bool) -> dict:
    """Two steps of a whole encoder; ``rank`` None: all rows here, no filler."""
    how = {"trainable_layers": -1, "image_size": 32, "batch_norm": "synchronised"}
    encoder = build_encoder(EncoderSpec("image", str(image_encoder), **how))
    if checkpointed:
        encoder.backbone.checkpoint_gradients()
    encoder.train()
    for step, rows in enumerate(pictures()):
        if rank is None:
            loss_of(encoder(rows), step, slice(0, 7)).backward()
        else:
            vectors = encoder(*share(rows, step, rank))
            loss_of(vectors, step, rows_of(step, rank)).backward()
    gradients = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    return {"gradients": gradients, "state": dict(encoder.state_dict())}


def on_each_rank(worker: Worker, folder: Path) -> None:
    """Write what came out on this rank."""
    results = {"layer": through_layer(worker.rank)}
    for name, checkpointed in (("plain", False), ("checkpointed", True)):
        results[name] = through_encoder(folder / "image", worker.rank, checkpointed)
    torch.save(results, folder / f"{worker.rank}.pt")
