"""python -m apps.make_taobao_mm: the published shape, any size, clicks that can be learned."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps import encode
from apps.make_taobao_mm import main
from torchrec_mm.errors import InputError
from torchrec_mm.metrics.auc import auc
from torchrec_mm.simulation.taobao_mm import simulate as taobao_mm_made

INT64S, INT8S = pa.list_(pa.int64()), pa.list_(pa.int8())
PROFILE = [f"130_{number}" for number in range(1, 6)]
SAMPLES = {"label_0": INT8S, "129_1": pa.int64(), "205": pa.int64()}
USERS = dict.fromkeys(["129_1", *PROFILE], pa.int64()) | {"150_2_180": INT64S, "151_2_180": INT64S}
SCHEMAS = {
    "train_samples": SAMPLES,
    "test_samples": SAMPLES,
    "train_user_features": USERS,
    "test_user_features": USERS,
    "item_features": dict.fromkeys(["205", "206", "213", "214"], pa.int64()),
    "scl_embedding_int8_p90": {"205": pa.int64(), "205_c": INT8S},
}
SIZES = {"users": 1500, "items": 20_000, "behaviours": 300, "candidates": 11}


def flags(run_dir, **sizes) -> list[str]:
    return [f"--{name}={value}" for name, value in (sizes | {"run_dir": run_dir}).items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("made") / "data"
    main(flags(run_dir, **SIZES))
    return run_dir


@pytest.fixture(scope="module")
def tables(made) -> dict[str, pa.Table]:
    return {name: pq.read_table(made / f"{name}.parquet") for name in SCHEMAS}


def lists(table: pa.Table, name: str) -> list[np.ndarray]:
    return [np.array(values) for values in table[name].to_pylist()]


def test_tables_have_the_published_names_and_types(tables):
    for name, schema in SCHEMAS.items():
        assert tables[name].schema == pa.schema(list(schema.items())), name


def test_sizes_are_those_asked_for_and_a_quarter_of_the_users_are_in_the_test(tables):
    train, test = (tables[f"{split}_user_features"] for split in ("train", "test"))
    assert (train.num_rows, test.num_rows) == (1500, 375)
    assert set(test["129_1"].to_pylist()) <= set(train["129_1"].to_pylist())
    for split, users in (("train", train), ("test", test)):
        samples = tables[f"{split}_samples"]
        shown = samples["129_1"].to_numpy()
        assert shown.tolist() == np.repeat(users["129_1"].to_numpy(), 11).tolist()
        assert {tuple(pair) for pair in samples["label_0"].to_pylist()} == {(0, 1), (1, 0)}
    lengths = np.array([len(items) for items in lists(train, "150_2_180")])
    assert (lengths.max(), lengths.min() >= 100) == (300, True)
    assert 0.95 < lengths.mean() / 300 < 0.995
    assert [len(c) for c in lists(train, "151_2_180")] == lengths.tolist()


def test_ids_are_distinct_signed_hashes_and_an_item_has_one_category(tables):
    items = tables["item_features"]
    ids = items["205"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    assert 0.4 < (ids < 0).mean() < 0.6 and np.abs(ids).max() > 2**62
    category = dict(zip(ids.tolist(), items["206"].to_pylist(), strict=True))
    users = tables["train_user_features"]
    for past in zip(lists(users, "150_2_180"), lists(users, "151_2_180"), strict=True):
        for item, its_category in zip(*past, strict=True):
            assert category.setdefault(item, its_category) == its_category
    kinds = [set(items[name].to_pylist()) for name in ("205", "206", "213", "214")]
    kinds.append(set(users["129_1"].to_pylist()))
    assert len(set().union(*kinds)) == sum(map(len, kinds)), "no id is of two kinds"
    assert 0 in users["130_5"].to_pylist() and 0 not in users["130_1"].to_pylist()
    assert [len(set(users[name].to_pylist())) for name in PROFILE[:3]] == [11, 3, 49]


def test_skew_and_repeats_are_like_the_published_ones(tables):
    histories = lists(tables["train_user_features"], "150_2_180")
    distinct = np.mean([len(set(items)) / len(items) for items in histories])
    assert 0.5 < distinct < 0.68
    counts = np.sort(np.unique(np.concatenate(histories), return_counts=True)[1])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()


def test_every_candidate_has_a_vector_and_a_tenth_of_the_events_has_none(tables):
    ids = tables["scl_embedding_int8_p90"]["205"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    shown = [tables[f"{split}_samples"]["205"].to_numpy() for split in ("train", "test")]
    assert np.isin(np.concatenate(shown), ids).all()
    assert np.isin(np.concatenate(shown), tables["item_features"]["205"].to_numpy()).all()
    events = np.concatenate(lists(tables["train_user_features"], "150_2_180"))
    assert 0.08 < 1 - np.isin(events, ids).mean() < 0.12


def test_cosines_of_random_pairs_spread_like_the_published_ones(tables):
    """Ten published vectors: -0.16 to 0.35, mean 0.06, standard deviation 0.11."""
    vectors = unit_vectors(tables)[1]
    cosines = np.random.default_rng(0).choice(vectors, 1000, replace=False)
    cosines = (cosines @ cosines.T)[np.triu_indices(1000, 1)]
    assert 0.04 < cosines.mean() < 0.16 and 0.09 < cosines.std() < 0.16
    low, high = np.percentile(cosines, [2, 98])
    assert -0.25 < low < -0.05 and 0.3 < high < 0.6


def unit_vectors(tables) -> tuple[np.ndarray, np.ndarray]:
    table = tables["scl_embedding_int8_p90"]
    values = np.array(table["205_c"].to_pylist(), dtype=np.float32)
    assert values.shape[1] == 128
    return table["205"].to_numpy(), values / np.linalg.norm(values, axis=1, keepdims=True)


def test_similarity_to_the_history_tells_clicks_and_the_truth_tells_them_best(made, tables):
    truth = json.loads((made / "made.json").read_text())
    ids, vectors = unit_vectors(tables)
    row = {item: vector for item, vector in zip(ids.tolist(), vectors, strict=True)}
    samples = tables["test_samples"]
    shown = samples["205"].to_numpy().reshape(-1, 11)
    clicks = np.array(samples["label_0"].to_pylist())[:, 1]
    similar = []
    for items, past in zip(shown, lists(tables["test_user_features"], "150_2_180"), strict=True):
        known = np.stack([row[item] for item in past if item in row])
        similar += [*((known @ np.stack([row[item] for item in items]).T) > 0.5).mean(axis=0)]
    assert 0.55 < auc(clicks, np.array(similar)) < truth["test_auc"]
    assert 0.7 < truth["test_auc"] < 0.85
    assert clicks.mean() == pytest.approx(truth["test_click_rate"])
    assert 0.12 < clicks.mean() < 0.155


def test_a_history_goes_on_from_training_to_the_test(tables):
    train, test = (
        dict(zip(table["129_1"].to_pylist(), lists(table, "150_2_180"), strict=True))
        for table in (tables["train_user_features"], tables["test_user_features"])
    )
    for user, later in test.items():
        if len(later) == 300:
            assert later[:-50].tolist() == train[user][50:].tolist()
            break
    else:
        raise AssertionError("no user has a whole history")


def test_the_same_flags_give_the_same_bytes_and_another_seed_other_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(taobao_mm_made, "BLOCK_USERS", 8)
    small = {"users": 20, "items": 500, "behaviours": 20, "candidates": 3}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(flags(tmp_path / name, seed=seed, **small))
    for file in (tmp_path / "a").iterdir():
        one, same, other = ((tmp_path / name / file.name).read_bytes() for name in "abc")
        assert one == same != other
    histories = lists(pq.read_table(tmp_path / "a" / "train_user_features.parquet"), "150_2_180")
    assert len({items.tobytes() for items in histories}) == 20, "blocks draw for themselves"


@pytest.mark.parametrize("size", [1, 2, 9])
def test_what_is_made_can_be_encoded_however_small(tmp_path, size):
    small = {"users": size, "items": 100 + size, "behaviours": size, "candidates": size}
    main(flags(tmp_path / "made", **small))
    folders = [f"--data={tmp_path / 'made'}", f"--run_dir={tmp_path / 'encoded'}"]
    encode.main(["--source=taobao_mm", *folders])
    meta = json.loads((tmp_path / "encoded" / "meta.json").read_text())
    assert meta["splits"]["train"]["requests"] == size
    assert meta["splits"]["train"]["impressions"] == size**2
    assert meta["attribute_disagreements"] == {"category": 0}


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--users=0", "users must be at least 1, got 0"),
        ("--items=99", "items must be at least 100, got 99"),
        ("--behaviours=0", "behaviours must be at least 1, got 0"),
        ("--candidates=0", "candidates must be at least 1, got 0"),
        ("--seed=-1", "seed must be at least 0, got -1"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(tmp_path, flag, words):
    with pytest.raises(InputError, match=words):
        main([f"--run_dir={tmp_path / 'out'}", flag])
