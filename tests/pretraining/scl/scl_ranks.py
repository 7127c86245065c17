"""What each of two ranks does: SCL on half of every batch, beside one rank's on the whole of it."""

from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from tests.pretraining.scl.made_pairs import (
    ALONE,
    SETTINGS,
    Contents,
    Float32,
    LinearEncoder,
    Pairs,
)
from torchrec_mm.parallel.process_group import Worker, gather_rows
from torchrec_mm.pretraining.scl.scl import SCL

PAIRS, STEPS = 12, 100


def global_batch(seed: int) -> Pairs:
    """The first rank's half has everything, the other's lacks most, in the second batch all."""
    generator = torch.Generator().manual_seed(seed)
    share = 0.0 if seed == 1 else 0.4

    def uneven(rows: int) -> Contents:
        full = Contents.draw(rows // 2, generator, present=1.0)
        sparse = Contents.draw(rows // 2, generator, present=share)
        return Contents(torch.cat([full.image, sparse.image]), torch.cat([full.text, sparse.text]))

    return Pairs(uneven(PAIRS), uneven(PAIRS), uneven(2 * PAIRS))


def half(seed: int, worker: Worker):
    size = PAIRS // worker.world_size
    return global_batch(seed).batch(worker.rank * size, (worker.rank + 1) * size)


def make(gather) -> SCL:
    return SCL(LinearEncoder(), ALONE, SETTINGS, gather, Float32())


def parallel(module: SCL) -> DistributedDataParallel:
    return DistributedDataParallel(module, forward_sync_buffers=False, static_graph=True)


def gradients(module: SCL) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}
    module.zero_grad()
    return found


def banks(module: SCL) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if ".bank." in name}


def compare_with_one_rank(worker: Worker) -> dict:
    """Several steps with the same weights, until the banks have gone round."""
    shared, alone = make(gather_rows), make(lambda rows: rows)
    distributed, steps = parallel(shared), []
    for seed in range(4):
        loss, figures = distributed(half(seed, worker))
        loss.backward()
        whole, whole_figures = alone(global_batch(seed).batch())
        whole.backward()
        steps.append(
            {
                "losses": (gather_rows(loss.detach()[None]).mean(), whole.detach()),
                "figures": (gather_rows(figures[None]).sum(dim=0), whole_figures),
                "gradients": (gradients(shared), gradients(alone)),
            }
        )
    return {"steps": steps, "banks": (banks(shared), banks(alone))}


def train(worker: Worker) -> dict:
    """Train for 100 steps, then take the next loss, and that of a module restored in place."""
    module = make(gather_rows)
    distributed = parallel(module)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        distributed(half(step, worker))[0].backward()
        optimizer.step()
        module.after_step()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    restored = make(gather_rows)
    for name, tensor in restored.state_dict().items():
        tensor.copy_(state[name])
    losses = [each(half(STEPS, worker))[0].item() for each in (module, restored)]
    return {"state": state, "next_losses": losses}


def on_each_rank(worker: Worker, folder: Path) -> None:
    result = {"compared": compare_with_one_rank(worker), "trained": train(worker)}
    torch.save(result, folder / f"{worker.rank}.pt")
