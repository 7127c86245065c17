"""What a retrieval.json says, and which ones are refused."""

import json

import pytest

from tests.reporting.made_up import put_pretraining
from torchrec_mm.errors import InputError
from torchrec_mm.reporting.runs import find_runs


def test_retrieval_is_read_with_its_spaces_titles_and_categories(tmp_path):
    put_pretraining(
        tmp_path / "scl",
        seed=7,
        searches=90,
        uniformity=-2.5,
        spaces={"image": {"recall@1": 0.1}},
        title_to_picture={"recall@10": 0.8, "mrr": None},
        categories={"brand": {"12": {"recall@10": 0.5, "searches": 4}}},
    )
    (run,) = find_runs(tmp_path).pretraining
    assert (run.encoder, run.seed, run.searches, run.items) == ("scl", 7, 90, None)
    assert run.metrics["recall@1"] == 0.2 and run.metrics["uniformity"] == -2.5
    assert run.spaces["image"]["recall@1"] == 0.1 and run.spaces["image"]["mrr"] is None
    assert run.title_to_picture == {"recall@1": None, "recall@10": 0.8, "mrr": None}
    assert run.categories == {"brand": {"12": {"recall@10": 0.5, "searches": 4}}}


def test_a_run_without_a_config_has_no_seed(tmp_path):
    put_pretraining(tmp_path / "a")
    put_pretraining(tmp_path / "b")
    (tmp_path / "b" / "config.yaml").write_text("data: market\n")
    assert [run.seed for run in find_runs(tmp_path).pretraining] == [None, None]


def test_the_encoder_that_several_runs_of_a_seed_began_as_is_one_row(tmp_path):
    before = {"recall@1": 0.05, "spaces": {"text": {"recall@1": 0.04}}}
    put_pretraining(tmp_path / "a", "scl", 0.2, 0, **{"off-the-shelf": before})
    rounded_otherwise = {"recall@1": 0.05 + 1e-12, "spaces": {"text": {"recall@1": 0.04 - 1e-12}}}
    put_pretraining(tmp_path / "b", "scl-no-bank", 0.1, 0, **{"off-the-shelf": rounded_otherwise})
    put_pretraining(tmp_path / "c", "scl", 0.1, 1, **{"off-the-shelf": before})
    put_pretraining(tmp_path / "d", "off-the-shelf", 0.3, 0, **{"off-the-shelf": {"mrr": 0.4}})
    runs = find_runs(tmp_path).pretraining
    assert [(run.encoder, run.seed, run.metrics["recall@1"]) for run in runs] == [
        ("scl", 0, 0.2),
        ("off-the-shelf", 0, 0.05),
        ("scl-no-bank", 0, 0.1),
        ("scl", 1, 0.1),
        ("off-the-shelf", 1, 0.05),
        ("off-the-shelf", 0, 0.3),
    ]
    assert runs[1].spaces["text"]["recall@1"] == 0.04


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"encoder": 3}, "encoder must be str, got 3"),
        ({"mrr": "high"}, "mrr must be a number or null, got 'high'"),
        ({"spaces": [1]}, "spaces must be an object of objects"),
        ({"spaces": {"text": {"mrr": "low"}}}, "mrr must be a number or null, got 'low'"),
        ({"title_to_picture": 0.8}, "title_to_picture must be an object, got 0.8"),
        ({"categories": {"brand": 3}}, "categories must be an object of objects"),
        ({"categories": {"brand": {"7": 0.5}}}, "brand must be an object of objects"),
        ({"off-the-shelf": {"spaces": 1}}, "spaces must be an object of objects, got 1"),
    ],
)
def test_a_garbled_retrieval_file_is_refused_by_name(tmp_path, changes, complaint):
    put_pretraining(tmp_path / "scl")
    file = tmp_path / "scl" / "retrieval.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=f"scl/retrieval.json {complaint}"):
        find_runs(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"), [("seed: [", "must be YAML"), ("seed: one", "seed must be int")]
)
def test_a_garbled_config_is_refused_by_name(tmp_path, text, complaint):
    put_pretraining(tmp_path / "scl")
    (tmp_path / "scl" / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=f"scl/config.yaml {complaint}"):
        find_runs(tmp_path)
