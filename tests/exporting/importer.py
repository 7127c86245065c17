"""Whoever imports an exported ranker, with all kinds of columns: NumPy, and the files' own words.

Nothing here comes from the library: what it would take from there, program.json has to say.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file

import apps.export_tables
from tests.helpers.small_market import SmallMarket
from torchrec_mm.exporting.described import described
from torchrec_mm.exporting.export import Trial
from torchrec_mm.scoring.trained_run import TrainedRun


@dataclass
class Importer:
    """about: program.json. known: vocabularies.safetensors. tables: by file."""

    about: dict
    known: dict
    tables: dict
    centres: np.ndarray | None
    catalogue: dict
    vectors: dict

    @classmethod
    def of(cls, trained: TrainedRun, trial: Trial, market: SmallMarket, folder: Path) -> "Importer":
        run_dir = trained.path
        flags = ["--run_dir", str(run_dir), "--output", str(folder / "tables")]
        apps.export_tables.main([*flags, "--format", "safetensors"])
        files = (folder / "tables").rglob("*.safetensors")
        tables = {str(f.relative_to(folder / "tables"))[:-12]: load_file(f) for f in files}
        spec = trial.model.ranker.network.spec
        about = described(spec, trained.vocabularies, dict(trial.wanted), trained.behaviours_read)
        about = json.loads(json.dumps(about))
        books = run_dir / "codebooks.safetensors"
        centres = load_file(books)["centres/item/vector_codes"] if books.exists() else None
        items = pq.read_table(market.data / "items").to_pylist()
        vectors = dict(
            zip(
                np.load(market.vectors / "item_ids.npy").tolist(),
                np.load(market.vectors / "vectors.npy"),
                strict=True,
            )
        )
        known = load_file(run_dir / "vocabularies.safetensors")
        return cls(
            about, known, tables, centres, {item["item_id"]: item for item in items}, vectors
        )

    def score(self, program, requests: Path) -> np.ndarray:
        """Of all candidates, request after request."""
        rows = pq.read_table(requests).to_pylist()
        with torch.no_grad():
            found = program(**self.inputs(rows))
        shown = [len(row["candidate_item_ids"]) for row in rows]
        return np.concatenate([f[:n] for f, n in zip(found.numpy(), shown, strict=True)])

    def inputs(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """All that program.json asks for."""
        about, most = self.about, self.about["most_behaviours"]
        lists = {"candidates": [row["candidate_item_ids"] for row in rows]}
        for name in ("behaviour", *about["sequences"]):
            lists[name] = [row[f"{name}_item_ids"][-most:] for row in rows]
        ids = sorted({item for each in lists.values() for items in each for item in items})
        slot = {item: place for place, item in enumerate(ids)}
        slots = {n: padded([[slot[i] for i in e] for e in each]) for n, each in lists.items()}
        given = {"candidates": slots["candidates"], "behaviours": slots["behaviour"]}
        if about["sequences"]:
            further = [
                [[slot[i] for i in lists[event][place]] for event in about["sequences"]]
                for place in range(len(rows))
            ]
            flat = padded([each for of_request in further for each in of_request])
            given["sequences"] = flat.view(len(rows), len(about["sequences"]), -1)
        items = [self.catalogue.get(item, {"item_id": item}) for item in ids]
        given["requests"] = self.embedded("request_features", rows)
        given["items"] = self.embedded("item_features", items)
        given["effects"] = self.effects(rows)
        of_candidates = [
            {k: v[at] for k, v in row.items() if k.startswith("candidate_")} | self.catalogue[item]
            for row in rows
            for at, item in enumerate(row["candidate_item_ids"])
        ]
        shown = [len(row["candidate_item_ids"]) for row in rows]
        given["impressions"] = blocks(self.embedded("impression_features", of_candidates), shown)
        past = [
            {f["name"]: row[f["name"]][-most:][at] for f in about["behaviour_features"]}
            for row, items in zip(rows, lists["behaviour"], strict=True)
            for at in range(len(items))
        ]
        lengths = [len(items) for items in lists["behaviour"]]
        given["behaviour_attributes"] = blocks(self.embedded("behaviour_features", past), lengths)
        given["request_numbers"] = self.numbers("request_numbers", rows)
        given["target_numbers"] = blocks(self.numbers("target_numbers", of_candidates), shown)
        width = len(next(iter(self.vectors.values())))
        nothing = np.zeros(width, np.float32)
        given["vectors"] = torch.from_numpy(np.stack([self.vectors.get(i, nothing) for i in ids]))
        given["has_vector"] = torch.tensor([i in self.vectors for i in ids])
        return {name: given[name] for name in about["inputs"]}

    def effects(self, rows: list[dict]) -> torch.Tensor:
        if "effects" not in self.about:
            return torch.zeros(0)
        table = self.tables[self.about["effects"]["table"]]["weights"]
        of_users = [self.row("request/user_id", False, row["user_id"]) for row in rows]
        return torch.from_numpy(table[of_users])

    def embedded(self, group: str, things: list[dict]) -> torch.Tensor:
        """(n, width), the features of a group beside each other."""
        parts = [
            np.stack([self.one(feature, thing) for thing in things])
            for feature in self.about[group]
        ]
        return torch.from_numpy(np.concatenate(parts, axis=1)) if parts else torch.zeros(0, 0)

    def one(self, feature: dict, thing: dict) -> np.ndarray:
        table, value = self.tables[feature["table"]], thing.get(feature["name"])
        if feature["kind"] == "raw_id":
            return table["weights"][raw_row(feature, table["owner_ids"], value)]
        if feature["kind"] == "code":
            return table["weights"][self.code(feature["name"], thing["item_id"])]
        if feature["kind"] == "bag":
            rows = [self.row(feature["ids"], feature["is_text"], each) for each in value or ()]
            found = table["weights"][rows].sum(0)
            return found / max(len(rows), 1) if feature["pooling"] == "mean" else found
        if feature["name"] not in thing:  # of an item that no catalogue knows
            return table["weights"][0]
        return table["weights"][self.row(feature["ids"], feature["is_text"], value)]

    def row(self, ids: str, is_text: bool, value: object) -> int:
        if is_text:
            ends = self.known[f"text_ends/{ids}"].tolist()
            whole = self.known[f"text_bytes/{ids}"].tobytes()
            texts = [whole[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
            every = [*self.known[f"known_ids/{ids}"], *self.known[f"rare_ids/{ids}"]]
            is_null = [number == self.about["null_id"] for number in every]
            texts = [None if n else text for n, text in zip(is_null, texts, strict=True)]
            place = texts.index(value) if value in texts else None
            known = len(self.known[f"known_ids/{ids}"])
            return 0 if place is None else place + 2 if place < known else 1
        number = self.about["null_id"] if value is None else int(value)
        known = self.known[f"known_ids/{ids}"].tolist()
        if number in known:
            return known.index(number) + 2
        return int(number in self.known[f"rare_ids/{ids}"].tolist())

    def code(self, name: str, item: int) -> int:
        if item not in self.vectors:
            return 0
        rest = self.vectors[item] / np.linalg.norm(self.vectors[item])
        for level, centres in enumerate(self.centres, start=1):
            nearest = int(((rest - centres) ** 2).sum(1).argmin())
            if name.endswith(f"_{level}"):
                return nearest + 2
            rest = rest - centres[nearest]
        raise AssertionError(name)

    def numbers(self, group: str, things: list[dict]) -> torch.Tensor:
        """(n, 2 P): normalised values, then flags."""
        features = self.about[group]
        values = [[normalised(f, thing.get(f["name"])) for f in features] for thing in things]
        found = np.array(values, np.float32).reshape(len(things), len(features))
        flags = np.isnan(found).astype(np.float32)
        return torch.from_numpy(np.concatenate([np.nan_to_num(found), flags], axis=1))


def normalised(feature: dict, value: object) -> float:
    if value is None:
        return np.nan
    number = np.log1p(float(value)) if feature["log1p"] else float(value)
    return np.clip(
        (number - feature["centre"]) / feature["scale"], -feature["clip"], feature["clip"]
    )


def raw_row(feature: dict, owners: np.ndarray, value: int) -> int:
    found = np.flatnonzero(owners == value)
    if len(found):
        return int(found[0])
    x, wrap = value % 2**64, 2**64
    for factor in (*feature["mix"], 1):
        x = (x ^ ((x >> 33) % 2**31)) * factor % wrap
    size = len(owners) // feature["partitions"]
    return (x % feature["partitions"] + 1) * size - 1


def padded(lists: list[list[int]]) -> torch.Tensor:
    most = max(map(len, lists))
    return torch.tensor([[*each, *[-1] * (most - len(each))] for each in lists], dtype=torch.int64)


def blocks(values: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """(n, width) to (lists, longest, width), zeros behind; of no feature at all as it is."""
    if not len(values):
        return values
    return torch.nn.utils.rnn.pad_sequence(values.split(lengths), batch_first=True)
