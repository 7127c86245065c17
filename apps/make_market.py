"""python -m apps.make_market --run_dir DATA

Simulate a market: items with pictures and titles, searches, requests with clicks.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from torchrec_mm.config import parse, run
from torchrec_mm.data.market.catalogue import draw_catalogue
from torchrec_mm.data.market.given import read_catalogue
from torchrec_mm.data.market.market import simulate, write
from torchrec_mm.data.market.studio import Studio
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, refuse_existing


@dataclass(frozen=True)
class MakeMarketConfig:
    """Simulate a market and write items/, searches/ and requests/{train,test}.

    Everything about users is simulated. The same flags give the same files, byte for byte.
    """

    run_dir: Path
    """folder to create"""
    data: Path | None = None
    """folder with an items/ catalogue to simulate users for; not given: items are drawn"""
    category_column: str = ""
    """with --data: the integer column of the catalogue that stays an attribute column; empty: the
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
    processes: int = os.cpu_count() or 1
    """processes that make pictures; does not change the result"""
    seed: int = 0
    """of everything random, not negative"""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
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
    refuse_existing(config.run_dir)
    if config.data is None:
        catalogue = draw_catalogue(config.items, config.days, config.seed)
    else:
        catalogue = read_catalogue(config.data, config.category_column, config.days, config.seed)
    market = simulate(
        catalogue,
        num_users=config.users,
        num_impressions=config.impressions,
        num_searches=config.searches,
        days=config.days,
        test_days=config.test_days,
        seed=config.seed,
    )
    pictures = len(catalogue) + config.searches
    with (
        new_folder(config.run_dir) as folder,
        tqdm(total=pictures, desc="simulated pictures", unit="picture") as progress,
        Studio(
            catalogue, config.image_size, config.seed, config.processes, progress.update
        ) as studio,
    ):
        write(folder, market, config.behaviours, studio)


if __name__ == "__main__":
    sys.exit(run(main))
