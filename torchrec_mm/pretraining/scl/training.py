"""SCL and its optimizer: one update, and all that has to be kept of them.

A checkpoint holds what training changes: heads, gate, trained layers, their momentum copies, memory
banks, temperatures, AdamW's state. Frozen weights are built again.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import PairBatch
from torchrec_mm.pretraining.scl.optimizer import (
    learning_rate_share,
    parameter_groups,
    set_learning_rates,
)
from torchrec_mm.pretraining.scl.scl import SCL
from torchrec_mm.pretraining.scl.settings import OptimizerSettings
from torchrec_mm.runs.tensor_shards import TensorShards

SCALING = ("scale", "_growth_tracker")  # of the gradients in half precision


class Trainer:
    """SCL, its optimizer, and a step of both."""

    def __init__(
        self, scl: SCL, settings: OptimizerSettings, precision: Precision, worker: Worker
    ) -> None:
        """All ranks build it with equal arguments."""
        self.scl, self.settings, self.precision, self.worker = scl, settings, precision, worker
        scl.to(worker.device).train()  # synchronised norms by the batch, in the momentum copy too
        self._frozen = {id(p) for p in scl.encoder.parameters() if not p.requires_grad}
        self._scaling = torch.zeros(len(SCALING), dtype=torch.float64)
        self._parallel: nn.Module = scl
        if worker.world_size > 1:
            self._parallel = DistributedDataParallel(
                scl,
                device_ids=[worker.device] if worker.device.type == "cuda" else None,
                forward_sync_buffers=False,  # every rank's bank gets the same keys already
                static_graph=True,  # allows for weights no loss depends on, such as a text pooler
                gradient_as_bucket_view=True,
            )
        # One kernel for all parameters, which scales and leaves steps out without the host.
        self._fused = worker.device.type == "cuda"
        self.parameters = [p for p in scl.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(
                scl,
                learning_rate=settings.learning_rate,
                backbone_learning_rate=settings.backbone_learning_rate,
                layer_decay=settings.layer_decay,
                weight_decay=settings.weight_decay,
            ),
            foreach=not self._fused,
            fused=self._fused,
        )
        self._create_optimizer_state()

    def step(self, batch: PairBatch, step: int, total_steps: int) -> tuple[Tensor, Tensor]:
        """One update.

        Args:
            batch: on the worker's device. step: done before. total_steps: of the run.

        Returns:
            figures, as ``SCL.forward`` has them; and the norm of the gradient, a scalar.
        """
        share = learning_rate_share(
            step, total=total_steps, warmup_steps=self.settings.warmup_steps
        )
        set_learning_rates(self.optimizer, share)
        loss, figures = self._parallel(batch)
        self.optimizer.zero_grad()
        self.precision.backward(loss)
        most = self.settings.clip_norm or math.inf
        norm = self.precision.step(self.optimizer, self.parameters, most)
        self.scl.after_step()
        return figures, norm

    @property
    def learning_rate(self) -> float:
        """Step size of heads, gate and temperatures as it is now; trained backbones have theirs."""
        temperature = next(iter(self.scl.losses.values())).log_temperature
        groups = self.optimizer.param_groups
        return next(g["lr"] for g in groups if any(p is temperature for p in g["params"]))

    def shards(self) -> dict[str, TensorShards]:
        """Everything that training changes and the next step depends on; filling it restores."""
        named = self.scl.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in named if id(parameter) in self._frozen}
        state = {
            f"model.{name}": tensor
            for name, tensor in self.scl.state_dict().items()
            if name not in frozen
        }
        names = {id(parameter): name for name, parameter in self.scl.named_parameters()}
        state |= {
            f"optimizer.{names[id(parameter)]}.{name}": tensor
            for parameter, entries in self.optimizer.state.items()
            for name, tensor in entries.items()
        }
        scaling = self.precision.state_dict()
        self._scaling[:] = torch.tensor([scaling.get(name, 0) for name in SCALING])
        state["scaling"] = self._scaling
        return {name: TensorShards.of(tensor) for name, tensor in state.items()}

    def restored(self) -> None:
        """To be called when what ``shards`` gave has been filled."""
        scaling = self.precision.state_dict()
        if scaling:
            scale, steps = self._scaling.tolist()
            self.precision.load_state_dict(scaling | {SCALING[0]: scale, SCALING[1]: int(steps)})

    def _create_optimizer_state(self) -> None:
        """AdamW's own, before the first step: a checkpoint holds and finds the same keys always."""
        for parameter in self.parameters:
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if self._fused else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
