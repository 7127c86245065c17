"""Made-up vectors to judge; also a script that every rank of a test runs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.pretraining.judge.evaluation import retrieval_report, title_to_picture

ITEMS, SEARCHES, WIDTHS = 60, 45, {"image": 6, "text": 6, "fused": 12}


def made_up(seed: int = 0) -> dict[str, Any]:
    """Arguments of ``retrieval_report`` without the worker; a third of the vectors is missing."""
    generator = torch.Generator().manual_seed(seed)

    def vectors(rows: int, width: int) -> torch.Tensor:
        return F.normalize(torch.randn(rows, width, generator=generator), dim=-1)

    def masks(rows: int) -> dict[str, torch.Tensor]:
        one, other = (torch.rand(rows, generator=generator) < 0.67 for _ in range(2))
        return {"image": one, "text": other, "fused": one | other}

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    items = {space: vectors(ITEMS, width) for space, width in WIDTHS.items()}
    for space in items:
        items[space][40:50] = items[space][:10].clone()
    return {
        "items": items,
        "item_mask": masks(ITEMS),
        "queries": {space: vectors(SEARCHES, width) for space, width in WIDTHS.items()},
        "query_mask": masks(SEARCHES),
        "purchased": integers(0, ITEMS, SEARCHES).numpy(),
        "hard": integers(-1, ITEMS, SEARCHES, 3).numpy(),
        "categories": {
            "brand": integers(-5, 4, ITEMS).numpy(),
            "id": np.arange(ITEMS, dtype=np.int64) * 2**40,
        },
    }


def titles_and_pictures(seed: int = 1) -> dict[str, Any]:
    """Arguments of ``title_to_picture`` without the worker; some titles and pictures repeat."""
    generator = torch.Generator().manual_seed(seed)
    text, image = (F.normalize(torch.randn(50, 6, generator=generator), dim=-1) for _ in range(2))
    text_mask, image_mask, among = (torch.rand(50, generator=generator) < 0.8 for _ in range(3))
    title = torch.randint(0, 25, (50,), generator=generator)
    image[30:40], title[30:35] = image[:10].clone(), title[:5].clone()
    title[~text_mask] = -1
    return {
        "text": text[title],
        "image": image,
        "text_mask": text_mask,
        "image_mask": image_mask,
        "among": among.numpy(),
        "title_content": title.numpy(),
    }


def judge(worker: Worker) -> dict[str, Any]:
    """Both reports on the made-up vectors."""
    return retrieval_report(**made_up(), worker=worker) | {
        "title_to_picture": title_to_picture(**titles_and_pictures(), worker=worker)
    }


def main(folder: str) -> None:
    """Each rank writes what it found."""
    with process_group() as worker:
        (Path(folder) / f"{worker.rank}.json").write_text(json.dumps(judge(worker)))


if __name__ == "__main__":
    main(sys.argv[1])
