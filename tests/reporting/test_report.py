"""apps.report: what the two files hold, and that the page needs nothing but itself."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps import report
from tests.reporting.made_up import (
    picture,
    put_data,
    put_epochs,
    put_pretraining,
    put_ranker,
    put_vectors,
)
from torchrec_mm.errors import InputError

EVIL = "<script>alert(1)</script> $x^{$ & \"quoted\" 'title'"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def written(tmp_path, *flags):
    out = tmp_path / "out"
    report.main(["--runs", str(tmp_path / "runs"), "--run_dir", str(out), *flags])
    return json.loads((out / "report.json").read_text()), (out / "report.html").read_text()


def put_everything(tmp_path, title="ball"):
    runs = tmp_path / "runs"
    for seed in (0, 1):
        put_ranker(runs / f"id{seed}", seed=seed, gauc=0.6 + 0.01 * seed)
        put_ranker(runs / f"best{seed}", method="simtier+make", seed=seed, gauc=0.7, encoder="scl")
        put_ranker(runs / f"r{seed}", method="simtier+make", seed=seed, gauc=0.62, encoder="random")
    put_epochs(runs / "make", [(0.7, 0.6), (0.8, 0.7)])
    put_pretraining(runs / "scl", "scl", 0.4)
    put_pretraining(runs / "off", "off-the-shelf", 0.1)
    put_data(tmp_path / "data", [title] * 12, [picture()] * 12)
    generator = np.random.default_rng(0)
    put_vectors(tmp_path / "v1", generator.normal(size=(12, 4)), "off-the-shelf")
    put_vectors(tmp_path / "v2", generator.normal(size=(12, 4)))
    flags = ["--data", "data", "--off_the_shelf_vectors", "v1", "--scl_vectors", "v2"]
    return [flag if flag.startswith("--") else str(tmp_path / flag) for flag in flags]


def test_item_vectors_are_shown_as_what_the_flag_says_they_are(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(report, "write_report", lambda inputs, folder: seen.append(inputs.vectors))
    flags = ["--off_the_shelf_vectors", "v1", "--scl_vectors", "v2"]
    report.main(["--runs", "runs", "--run_dir", str(tmp_path), *flags])
    assert seen == [{"off the shelf": Path("v1"), "SCL": Path("v2")}]


class Outline(HTMLParser):
    """Tags, texts, and whatever a browser would go and fetch."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.references = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def test_report_json_has_a_row_a_run_and_says_where_it_was_measured(tmp_path):
    flags = put_everything(tmp_path)
    found, _ = written(tmp_path, *flags, "--seconds", "12.5")
    rows = {(row["method"], row["seed"]): row for row in found["rows"]}
    methods = ("id", "simtier+make", "simtier+make/random")
    assert set(rows) == {(method, seed) for method in methods for seed in (0, 1)}
    assert rows["simtier+make", 1]["gauc"] == 0.7
    assert rows["simtier+make", 1]["vectors"] == {"encoder": "scl", "modality": "fused"}
    assert rows["id", 1]["slices"]["item_frequency/0"]["gauc"] == 0.61
    assert rows["id", 0]["log_loss"] == 0.4
    recall = {row["encoder"]: row["recall@10"] for row in found["pretraining"]}
    assert recall == {"scl": 0.8, "off-the-shelf": 0.2}
    assert found["seconds"] == 12.5
    assert found["machine"]["cores"] >= 1
    assert found["simulated"] is False


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    _, page = written(tmp_path, *put_everything(tmp_path))
    outline = Outline(page)
    assert outline.tags.count("svg") == 4
    assert outline.tags.count("img") == 8 + 2 * 8 * 5
    assert all(reference.startswith(("data:image/", "#")) for reference in outline.references)
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert "script" not in outline.tags
    assert 'class="missing"' not in page


def test_texts_from_outside_are_escaped(tmp_path):
    flags = put_everything(tmp_path, title=EVIL)
    put_ranker(tmp_path / "runs" / "evil", method=EVIL, encoder=EVIL)
    put_epochs(tmp_path / "runs" / "$x^{$ <b>", [(0.7, 0.6), (0.8, 0.7)])
    put_pretraining(tmp_path / "runs" / "evil-encoder", encoder=EVIL)
    _, page = written(tmp_path, *flags, "--title", EVIL * 20)
    outline = Outline(page)
    assert "script" not in outline.tags and "b" not in outline.tags
    assert "<script" not in page
    assert EVIL * 20 in outline.text


def test_the_table_says_mean_spread_and_gain(tmp_path):
    _, page = written(tmp_path, *put_everything(tmp_path))
    text = " ".join(Outline(page).text.split())
    assert "id 0, 1 0.7050 ±0.0050 0.6050 ±0.0050 0.3950 ±0.0050 – –" in text
    assert "simtier+make 0, 1 0.8000 ±0.0000 0.7000 ±0.0000 0.3000 ±0.0000 +0.0950" in text
    assert "Here 70 of 80 users have both, in 1,234 impressions." in text
    assert text.count("The data are simulated.") == 0


def test_encoders_come_in_the_papers_order_with_mean_and_interval_over_seeds(tmp_path):
    for seed, recall in enumerate([0.2, 0.25, 0.3]):
        put_pretraining(
            tmp_path / "runs" / f"a{seed}",
            "scl",
            recall,
            seed,
            uniformity=-2.5,
            title_to_picture={"recall@10": 0.75},
            spaces={"image": {"recall@1": recall / 2}, "fused": {"recall@1": recall}},
            categories={"brand": {"7": {"recall@10": recall, "searches": 90}}},
        )
    put_pretraining(tmp_path / "runs" / "b", "clip-e", 0.1, seed=1)
    found, page = written(tmp_path)
    rows = [(row["encoder"], row["seed"], row["recall@1"]) for row in found["pretraining"]]
    assert rows == [("clip-e", 1, 0.1), ("scl", 0, 0.2), ("scl", 1, 0.25), ("scl", 2, 0.3)]
    assert found["pretraining"][1]["run"] == "a0"
    text = " ".join(Outline(page).text.split())
    assert "clip-e 1 0.100 0.200 – 0.300 –" in text
    interval = f"±{4.303 * 0.05 / 3**0.5:.3f}"
    assert f"scl 0, 1, 2 0.250 {interval} 0.500 ±0.248 – 0.300 ±0.000" in text
    assert "image 0.125 ±0.062 –" in text and "fused" not in text
    assert "clip-e – – – – – – scl – −2.500 ±0.000 – – 0.750 ±0.000 –" in text
    assert "brand searches clip-e scl 7 90 – 0.250 ±0.124" in text
    assert "SCL, Recall@10 0.500" in text


def test_rankers_of_several_epochs_are_drawn_before_trainings_that_were_not_evaluated(tmp_path):
    for number in range(7):
        put_epochs(tmp_path / "runs" / f"make{number}", [(0.7, 0.6), (0.8, 0.7)])
    put_ranker(tmp_path / "runs" / "z", method="id", epochs=[(0.7, 0.6), (0.8, 0.5)])
    _, page = written(tmp_path)
    figure = Outline(page[page.index("More epochs") :]).text
    titles = re.findall(r"\bid\b|make\d", figure[: figure.index("AUC on the training")])
    assert titles == ["id", "make0", "make1", "make2", "make3", "make4"]


def test_simulated_data_are_called_simulated(tmp_path):
    flags = put_everything(tmp_path)
    (tmp_path / "data" / "market.json").write_text('{"simulated": true}')
    found, page = written(tmp_path, *flags)
    assert found["simulated"] is True
    assert "The data are simulated." in page


def test_what_is_missing_is_said_and_nothing_fails(tmp_path):
    put_ranker(tmp_path / "runs" / "bias", method="bias", auc=None, slices={}, users=None)
    found, page = written(tmp_path)
    assert page.count('class="missing"') == 7
    assert found["pretraining"] == [] and found["simulated"] is None and found["seconds"] is None


def test_pretraining_alone_makes_a_report(tmp_path):
    put_pretraining(tmp_path / "runs" / "scl", spaces={"image": {"recall@1": 0.125}})
    found, page = written(tmp_path)
    assert found["rows"] == []
    assert found["pretraining"][0]["spaces"]["image"]["recall@1"] == 0.125
    assert "No evaluated ranker was found" in page


def test_the_report_may_lie_beside_its_runs_but_never_replaces_one(tmp_path):
    put_ranker(tmp_path / "out" / "id")
    flags = ["--runs", str(tmp_path / "out"), "--run_dir", str(tmp_path / "out")]
    report.main(flags)
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(InputError, match="report.json exists already"):
        report.main(flags)


def test_bad_input_leaves_nothing_behind(tmp_path):
    flags = put_everything(tmp_path)
    (tmp_path / "data" / "market.json").write_text("{")
    with pytest.raises(InputError, match="market.json must be JSON"):
        written(tmp_path, *flags)
    with pytest.raises(InputError, match="no such folder"):
        written(tmp_path, "--scl_vectors", str(tmp_path / "nowhere"))
    (tmp_path / "runs" / "id0" / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="id0/metrics.json must be JSON"):
        written(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_the_page(tmp_path, width):
    written(tmp_path, *put_everything(tmp_path))
    shot = tmp_path / "page.png"
    subprocess.run(
        [
            CHROMIUM,
            *"--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars".split(),
            *"--disable-background-networking --disable-component-update --disable-sync".split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},2000",
            f"--screenshot={shot}",
            (tmp_path / "out" / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (2000, width, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
