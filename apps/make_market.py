"""Simulate a market: items with pictures and titles, searches, requests with clicks.

python -m apps.make_market --run_dir DATA
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import le
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.slices import age_slices, finite_or_none, frequency_slices
from torchrec_mm.simulation.market.catalogue import draw_catalogue, read_catalogue
from torchrec_mm.simulation.market.market import Market, simulate
from torchrec_mm.simulation.market.studio import Studio
from torchrec_mm.simulation.market.write import write
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True, kw_only=True)
class MakeMarketConfig:
    """Simulate a market and write items/, searches/, requests/{train,test} and market.json.

    Everything about users is simulated. The same flags give the same files, byte for byte.
    market.json holds what can be reached: AUC and GAUC of the rule that made the clicks, in parts.
    """

    run_dir: Path
    """folder to create"""
    data: Path | None = None
    """folder with an items/ catalogue to simulate users for; not given: items are drawn"""
    category_column: str = ""
    """with --data: the column of the catalogue whose ids stay an attribute column; empty: the
    first. Tastes are over all of them, the others can be seen only in pictures and titles"""
    items: int = 20_000
    """items to draw, without --data"""
    users: int = 3_000
    """users"""
    impressions: int = 300_000
    """impressions in all, training and test; a request has 6 to 14"""
    searches: int = 60_000
    """searches, all in the training days"""
    days: int = 12
    """simulated days; a fifth of the items is born during them"""
    test_days: int = 2
    """last days, which become requests/test"""
    behaviours: int = 50
    """behaviours of a request at most, the latest"""
    image_size: int = 64
    """pixels a side of drawn pictures and of query photos"""
    features: Literal["few", "full"] = "few"
    """full: items also have a price and tags, users a budget, impressions a position and a
    discount, all of which matter for clicks"""
    passed: bool = False
    """requests also hold passed_item_ids: what their user was shown earlier and did not click, the
    latest, behaviours at most"""
    processes: int = os.cpu_count() or 1
    """processes that make pictures; does not change the result"""
    seed: int = 0
    """of everything random, not negative"""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            check_fields(self, partial(le, least), f"at least {least}", name)
        if self.category_column and self.data is None:
            raise InputError(f"category_column needs --data, got {self.category_column} alone")
        if self.test_days >= self.days:
            raise InputError(f"test_days must be below days = {self.days}, got {self.test_days}")


LEAST = {
    "items": 100,
    "users": 1,
    "impressions": 1,
    "searches": 1,
    "days": 2,
    "test_days": 1,
    "behaviours": 1,
    "image_size": 16,
    "processes": 1,
    "seed": 0,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, then write."""
    config = parse(MakeMarketConfig, argv)
    reads = [config.data / "items"] if config.data else []
    check_new_folder(config.run_dir, "run_dir", reads)
    if config.data is None:
        catalogue = draw_catalogue(num_items=config.items, days=config.days, seed=config.seed)
    else:
        catalogue = read_catalogue(
            config.data, config.category_column, days=config.days, seed=config.seed
        )
    market = simulate(
        catalogue,
        num_users=config.users,
        num_impressions=config.impressions,
        num_searches=config.searches,
        days=config.days,
        test_days=config.test_days,
        seed=config.seed,
        with_extras=config.features == "full",
    )
    pictures = len(catalogue) + config.searches
    with (
        new_folder(config.run_dir) as folder,
        tqdm(total=pictures, desc="simulated pictures", unit="picture") as progress,
        Studio(
            catalogue,
            image_size=config.image_size,
            seed=config.seed,
            processes=config.processes,
            tick=progress.update,
        ) as studio,
    ):
        write(folder, market, config.behaviours, studio, config.passed)
        write_json(folder / "market.json", figures(market, config.seed))


def figures(market: Market, seed: int) -> dict[str, Any]:
    """Sizes, shares and, on the test days, how well each part of the click rule ranks."""
    requests, catalogue = market.requests, market.catalogue
    time = requests.timestamp[requests.request]
    test = time >= market.test_start
    frequency = np.bincount(requests.item[~test], minlength=len(catalogue))[requests.item[test]]
    born = catalogue.created_at[requests.item[test]]
    ages = age_slices(time[test], born, np.ones(len(born), dtype=bool))
    slices = frequency_slices(frequency) | ages
    user, label = requests.user[requests.request][test], requests.label[test]
    return {
        "simulated": True,
        "seed": seed,
        "items": len(catalogue),
        "users": len(market.user_ids),
        "searches": len(market.searches.user),
        "requests": len(requests.user),
        "impressions": len(requests.label),
        "test_impressions": int(test.sum()),
        "click_rate": float(requests.label.mean()),
        "test_shares": {name: finite_or_none(mask.mean()) for name, mask in slices.items()},
        "test_ceilings": {
            name: {
                "auc": finite_or_none(auc(label, part[test])),
                "gauc": finite_or_none(gauc(user, label, part[test]).gauc),
            }
            for name, part in requests.ceilings().items()
        },
    }


if __name__ == "__main__":
    sys.exit(run(main))
