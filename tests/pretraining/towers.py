"""Train one tiny tower; also a script that every rank of a test runs."""

import sys
from pathlib import Path
from typing import Any

import torch

from torchrec_mm.data.item_content import read_item_content
from torchrec_mm.data.searches import read_searches
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.pretraining.encoder import EncoderSpec, build_encoder
from torchrec_mm.pretraining.modality import ModalityTask
from torchrec_mm.pretraining.tower import LossSettings
from torchrec_mm.pretraining.training import TowerTrainer, TrainSettings


def train_tower(
    data: Path, backbone: Path, modality: str, trainable_layers: int, worker: Worker
) -> dict[str, Any]:
    """Two epochs in global batches of 16: {"losses": a float a step, "tower": its state}."""
    items = read_item_content(data, (modality,), 32)
    searches = read_searches(data, items, 32)
    train, _ = searches.split(0.1)
    encoder = build_encoder(EncoderSpec(modality, str(backbone), trainable_layers, 32))
    task = ModalityTask(modality, encoder, items, searches, train, 16, worker)
    loss = LossSettings(momentum=0.9, bank_slots=50, triplet_weight=1.0, margin=0.2)
    trainer = TowerTrainer(task, TrainSettings(2, 16, 1e-3, 1e-4, 1e-4, 0, loss), worker)
    losses = [step["loss"] for epoch in (1, 2) for step in trainer.epoch(epoch)]
    return {"losses": losses, "tower": trainer.tower.state_dict()}


def main(data: str, image_encoder: str, text_encoder: str, out: str) -> None:
    """An image tower with a frozen backbone and a text tower that trains all layers."""
    with process_group() as worker:
        for modality, backbone, layers in (("image", image_encoder, 0), ("text", text_encoder, -1)):
            result = train_tower(Path(data), Path(backbone), modality, layers, worker)
            torch.save(result, f"{out}/{modality}-{worker.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
