"""What the page shows: a question as a browser asks it, to a request, to words and numbers.

Shape letters: I candidates, N tiers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined

from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.items import ITEM_ID, open_items
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.errors import InputError
from torchrec_mm.serving import wire
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.histories import BEHAVIOURS, Histories
from torchrec_mm.serving.page.explain import Explained, explain
from torchrec_mm.serving.page.pictures import Pictures

CANDIDATES = "candidate_item_ids"
FIELDS = ("user", "behaviours", "candidates", "columns")
TYPED = (USER_ID, BEHAVIOURS, CANDIDATES, "timestamp")  # the last is read, and says nothing
USERS = 20  # that are offered
DRAWN = 24  # candidates, if none are asked for
MOST = 100  # candidates of a page
SHOWN = 60  # of the past


@dataclass(frozen=True)
class Candidate:
    """A row of the answer.

    terms, without: (name, value) in the order of the model. share: of the highest probability.
    tiers: (lowest cosine, behaviours, share of the fullest tier), the most alike first.
    """

    item_id: int
    title: str
    probability: float
    share: float
    terms: list[tuple[str, float]]
    without: list[tuple[str, float, float]]
    tiers: list[tuple[float, int, float]]


@dataclass(frozen=True)
class Answer:
    """Of one user: the newest of the past first, candidates by probability."""

    user: int
    checkpoint: str
    past: list[tuple[int, str]]
    past_length: int
    candidates: list[Candidate]


@dataclass(frozen=True)
class Page:
    """Asks what scores now.

    limits: of a request. users: that are offered. drawn: items that are ranked if none are named.
    """

    current: Current
    limits: wire.Limits
    histories: Histories
    pictures: Pictures
    users: list[int]
    drawn: list[int]
    template: Any = field(default_factory=lambda: templates().get_template("page.html"))

    @classmethod
    def open(
        cls,
        current: Current,
        limits: wire.Limits,
        histories: Histories,
        items: Path,
        folder: Path | None,
    ) -> "Page":
        """``items``: as of the scorer. ``folder``: of the histories, None without."""
        known = np.sort(to_numpy(open_items(items).read(ITEM_ID)["item_id"]))
        some = np.random.default_rng(0).permutation(len(known))[:DRAWN]
        users = [] if folder is None else _first_users(folder)
        return cls(current, limits, histories, Pictures(items), users, known[some].tolist())

    def asked(self, said: Mapping[str, str]) -> Answer:
        """``said``: FIELDS as they were typed.

        Raises:
            InputError: what cannot be read, with the field's name first.
        """
        requests = self._request(said)
        with self.current.held() as scorer:
            arrays, items = scorer.encoder(requests)
            explained = explain(scorer.model, arrays, items)
            checkpoint = scorer.checkpoint.name
        if not np.isfinite(explained.logits).all():
            raise InputError(f"candidates must have scores, but {checkpoint} scores NaN")
        past = requests.behaviours.values[::-1]
        shown = requests.candidates.values
        titles = self.pictures.titles(np.concatenate([past[:SHOWN], shown]))
        return Answer(
            user=int(requests.user_ids[0]),
            checkpoint=checkpoint,
            past=[(item, titles.get(item, "")) for item in past[:SHOWN].tolist()],
            past_length=len(past),
            candidates=candidates(explained, shown, titles),
        )

    def render(self, said: Mapping[str, str], answer: Answer | None, error: str) -> str:
        """HTML in which every text from outside is escaped."""
        return self.template.render(
            said={name: said.get(name, "") for name in FIELDS},
            answer=answer,
            error=error,
            users=self.users,
            drawn=len(self.drawn),
            columns=[name for name in self._names() if name not in TYPED],
        )

    def _names(self) -> list[str]:
        columns = self.current.scorer.encoder.columns
        return [*columns.required, *columns.nullable]

    def _request(self, said: Mapping[str, str]) -> Requests:
        scorer = self.current.scorer
        columns = scorer.encoder.columns
        (user,) = ids_of("user", said.get("user", ""), least=1, most=1)
        shown = ids_of("candidates", said.get("candidates", ""), least=0, most=MOST)
        row: dict[str, Any] = {
            **_object("columns", said.get("columns", "")),
            USER_ID: user,
            CANDIDATES: shown or self.drawn,
        }
        past = said.get("behaviours", "")
        if past.strip():
            row[BEHAVIOURS] = ids_of("behaviours", past, least=0, most=self.limits.behaviours)
        table = wire.read_json(orjson.dumps(row), columns)
        most = scorer.encoder.max_behaviours
        return wire.parse(table, columns, self.limits, most, self.histories).requests


def candidates(
    explained: Explained, shown: np.ndarray, titles: Mapping[int, str]
) -> list[Candidate]:
    """By probability, the highest first."""
    probabilities = explained.probabilities
    highest = max(float(probabilities.max()), 1e-9)
    return [
        Candidate(
            item_id=int(shown[at]),
            title=titles.get(int(shown[at]), ""),
            probability=float(probabilities[at]),
            share=float(probabilities[at]) / highest,
            terms=[(name, float(each[at])) for name, each in explained.terms.items()],
            without=[
                (name, float(each[at]), float(probabilities[at] - each[at]))
                for name, each in explained.without.items()
            ],
            tiers=tiers_of(explained.tiers, int(at)),
        )
        for at in np.argsort(-probabilities, kind="stable")
    ]


def tiers_of(tiers: np.ndarray | None, at: int) -> list[tuple[float, int, float]]:
    """The fullest and all between the first and last that are not empty."""
    if tiers is None or not tiers[at].any():
        return []
    counts, width = tiers[at], 2 / tiers.shape[1]
    filled = np.flatnonzero(counts)
    return [
        (-1 + place * width, int(counts[place]), float(counts[place] / counts.max()))
        for place in range(filled[-1], filled[0] - 1, -1)
    ]


def ids_of(name: str, said: str, *, least: int, most: int) -> list[int]:
    """Whole numbers between spaces or commas.

    Raises:
        InputError: another word, beyond 64 bits, fewer or more of them.
    """
    words = re.split(r"[\s,]+", said.strip()) if said.strip() else []
    if not least <= len(words) <= most:
        raise InputError(f"{name} must be {least} to {most} ids, got {len(words)}")
    for word in words:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", word) or not -(2**63) <= int(word) < 2**63:
            raise InputError(f"{name} must be ids, whole numbers of 64 bits, got {word[:40]!r}")
    return [int(word) for word in words]


def _object(name: str, said: str) -> dict[str, Any]:
    """A JSON object, none if nothing was typed; InputError for anything else."""
    if not said.strip():
        return {}
    try:
        found = orjson.loads(said)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{name} must be JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f'{name} must be an object, such as {{"hour": 8}}')
    return found


def _first_users(folder: Path) -> list[int]:
    """The first ones of a folder of histories."""
    for table, _ in ParquetFolder(folder).chunks({USER_ID: INT64}):
        return table[USER_ID][:USERS].to_pylist()
    return []


def templates() -> Environment:
    """The page's; a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("torchrec_mm.serving.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "signed": _signed}
    return environment


def style() -> str:
    """The page's own, as it stands between its tags."""
    return templates().get_template("page.css").render()


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
