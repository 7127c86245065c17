"""Make up data of any size with the tables of TAOBAO-MM.

python -m apps.make_taobao_mm --run_dir DATA
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.simulation.taobao_mm.shop import ITEMS_PER_CATEGORY
from torchrec_mm.simulation.taobao_mm.simulate import make_tables
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True, kw_only=True)
class MakeTaobaoMMConfig:
    """Make up {train,test}_samples, {train,test}_user_features, item_features and vectors.

    Everything is simulated: names, types, list lengths, skew and click rate are like those of
    TAOBAO-MM, and clicks follow the vectors. made.json holds AUC and GAUC of the true click
    probabilities on the test split. The same flags give the same data.
    """

    run_dir: Path
    """folder to create"""
    users: int = 10_000
    """users of the training split; every fourth is in the test split too"""
    items: int = 300_000
    """items of histories; a seventh of them may be candidates"""
    behaviours: int = 1000
    """behaviours of a user at most; most users have as many"""
    candidates: int = 11
    """candidates of a user in each split"""
    seed: int = 0
    """of everything random, not negative"""

    def __post_init__(self) -> None:
        least = ITEMS_PER_CATEGORY
        check_fields(self, lambda number: number >= least, f"at least {least}", "items")
        names = ("users", "behaviours", "candidates")
        check_fields(self, lambda number: number >= 1, "at least 1", *names)
        check_fields(self, lambda number: number >= 0, "at least 0", "seed")


def main(argv: Sequence[str] | None = None) -> None:
    """Write all tables block by block."""
    config = parse(MakeTaobaoMMConfig, argv)
    check_new_folder(config.run_dir, "run_dir")
    settings = asdict(config)
    del settings["run_dir"]
    with new_folder(config.run_dir) as folder:
        user, click, logit = make_tables(folder, **settings)
        truth = {
            "simulated": True,
            **settings,
            "test_click_rate": float(click.mean()),
            "test_auc": finite_or_none(auc(click, logit)),
            "test_gauc": finite_or_none(gauc(user, click, logit).gauc),
        }
        write_json(folder / "made.json", truth)
    print(f"best test AUC: {truth['test_auc']}, GAUC: {truth['test_gauc']}")


if __name__ == "__main__":
    sys.exit(run(main))
