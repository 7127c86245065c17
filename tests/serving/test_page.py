"""The page for people: what it shows is what is scored, and nothing from outside becomes markup."""

import base64
import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from tests.apps.serving.test_serve import served
from tests.helpers.browser import Browser, browser
from tests.helpers.kinds_market import add_columns
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import ITEM_IDS, USER_IDS, SmallMarket, write_small_market
from tests.serving.served import MOST, parsed, scorer_of
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.page import pictures
from torchrec_mm.serving.page.page import DRAWN, Page, ids_of, style, tiers_of
from torchrec_mm.serving.page.routes import page_routes

EVIL = "<script>alert(1)</script>\"'&"
USER, NOBODY = int(USER_IDS[0]), 999
BROKEN, HUGE, BY_PATH, EVIL_ITEM = ITEM_IDS[:4].tolist()


def picture(shade: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 20), (shade, 200 - shade, 90)).save(out, kind)
    return out.getvalue()


def huge() -> bytes:
    """The head of a PNG of 10^10 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk


def of_items(count: int, rng: np.random.Generator) -> dict:
    images = [picture(number * 5) for number in range(count)]
    paths: list[str | None] = [None] * count
    images[0], images[1], images[2], paths[2] = b"no picture", huge(), None, "two.webp"
    titles = [f"thing {number}" for number in range(count)]
    titles[3] = EVIL
    return {
        "image": pa.array(images, pa.binary()),
        "image_path": pa.array(paths, pa.string()),
        "title": pa.array(titles),
    }


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    """With pictures, one of them garbled, one huge, one in a file of its own."""
    market = write_small_market(tmp_path_factory.mktemp("market"))
    add_columns(market.data / "items", of_items)
    (market.data / "items" / "two.webp").write_bytes(picture(7, "WEBP"))
    return market


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("runs") / "run", "simtier")


@pytest.fixture(scope="module")
def histories(market, tmp_path_factory) -> Path:
    """Of the first four users; stars and actions are columns of behaviours."""
    folder = tmp_path_factory.mktemp("histories")
    past = [ITEM_IDS[4 : 4 + n].tolist() for n in (3, 0, 5, 2)]
    lists = {"stars": [[1] * len(p) for p in past], "action": [[0] * len(p) for p in past]}
    table = {"user_id": USER_IDS[:4].tolist(), "behaviour_item_ids": past, **lists}
    types = {name: pa.list_(pa.int64()) for name in ("behaviour_item_ids", *lists)}
    columns = {name: pa.array(values, types.get(name)) for name, values in table.items()}
    pq.write_table(pa.table(columns), folder / "part.parquet")
    return folder


@pytest.fixture(scope="module")
def page(market, run_dir, histories) -> Page:
    trained, scorer = TrainedRun.open(run_dir, "latest"), scorer_of(run_dir)
    current = Current(trained, lambda run: scorer, Measures())
    known = Histories.open(histories, scorer.encoder.columns)
    return Page.open(current, MOST, known, market.data / "items", histories)


@pytest.fixture
def client(page):
    app = FastAPI()
    app.include_router(page_routes(page))
    return TestClient(app)


def test_candidates_come_by_their_scores_and_with_the_past_of_the_user(page):
    shown = ITEM_IDS[5:12].tolist()
    answer = page.asked({"user": str(USER), "candidates": " ".join(map(str, shown))})
    assert [item for item, _ in answer.past] == ITEM_IDS[[6, 5, 4]].tolist()
    row = {
        "user_id": USER,
        "behaviour_item_ids": ITEM_IDS[4:7].tolist(),
        "candidate_item_ids": shown,
        "stars": [1] * 3,
        "action": [0] * 3,
    }
    scorer = page.current.scorer
    columns = scorer.encoder.columns
    kinds = {**columns.required, **columns.nullable}
    table = pa.table({name: pa.array([row.get(name)], kind) for name, kind in kinds.items()})
    wanted = dict(zip(shown, scorer.probabilities(parsed(scorer, table)).tolist(), strict=True))
    found = {item.item_id: item.probability for item in answer.candidates}
    assert found == pytest.approx(wanted, abs=1e-6)
    assert [*found.values()] == sorted(found.values(), reverse=True)
    assert answer.candidates[0].share == 1
    for item in answer.candidates:
        logit = sum(value for _, value in item.terms)
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(item.probability, abs=1e-5)


def test_a_past_that_is_typed_is_taken_and_items_are_drawn_where_none_are_named(page):
    said = {"user": str(NOBODY), "behaviours": f"{ITEM_IDS[9]}, {ITEM_IDS[8]}"}
    typed = {"columns": '{"stars": [1, 2], "action": [0, 0], "city": 1}'}
    answer = page.asked({**said, **typed})
    assert [item for item, _ in answer.past] == ITEM_IDS[[8, 9]].tolist()
    assert len(answer.candidates) == min(DRAWN, len(ITEM_IDS))
    assert page.asked({"user": str(NOBODY)}).past == []


def test_what_is_from_outside_is_no_markup(client):
    names = ("user", "candidates", "behaviours", "columns")
    said = client.get("/page", params=dict.fromkeys(names, EVIL))
    assert said.status_code == 422 and "<script" not in said.text
    assert said.text.count("&lt;script&gt;") >= 4
    said = client.get("/page", params={"user": USER, "candidates": EVIL_ITEM})
    assert said.status_code == 200
    assert "<script" not in said.text and "&lt;script&gt;" in said.text


def test_the_policy_lets_nothing_in_but_its_own_style_and_pictures(client):
    said = client.get("/page")
    policy = said.headers["content-security-policy"]
    (own,) = re.findall(r"<style>(.*?)</style>", said.text, re.S)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert own == style() and f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src 'self'; form-action 'self'")
    assert not re.search(r"<script|https?:|style=|onclick", said.text)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"user": "7 8"}, "user must be 1 to 1 ids, got 2"),
        ({"user": "x"}, "user must be ids, whole numbers of 64 bits, got &#39;x&#39;"),
        ({"user": str(2**63)}, "user must be ids, whole numbers of 64 bits"),
        ({"user": "7", "candidates": "1 " * 101}, "candidates must be 0 to 100 ids, got 101"),
        ({"user": "7", "columns": "{"}, "columns must be JSON"),
        ({"user": "7", "columns": "[]"}, "columns must be an object"),
        ({"user": "7", "columns": '{"colour": 1}'}, "must have columns that the ranker reads"),
        ({"user": "7", "behaviours": "1 2", "columns": '{"stars": [1]}'}, "stars"),
    ],
)
def test_what_cannot_be_ranked_is_told_on_the_page(client, said, line):
    found = client.get("/page", params=said)
    assert found.status_code == 422 and line in found.text and 'role="alert"' in found.text


def test_pictures_are_small_jpegs_by_id_alone(client):
    for item in (BY_PATH, int(ITEM_IDS[5])):
        said = client.get(f"/page/pictures/{item}")
        assert said.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(said.content)).size) == pictures.SIZE
    for item in (BROKEN, HUGE, 31, 2**70):
        assert client.get(f"/page/pictures/{item}").status_code == 404
    for path in ("two.webp", "..%2f..%2fetc%2fpasswd", "1e3"):
        assert client.get(f"/page/pictures/{path}").status_code in (404, 422)


def test_a_picture_of_too_many_bytes_is_not_opened(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BYTES", 50)
    with pytest.raises(ValueError, match="picture must have at most 50 bytes, got"):
        pictures.small(picture(3))


def test_tiers_are_told_from_the_most_alike_to_the_least():
    tiers = np.array([[0, 2, 0, 1], [0, 0, 0, 0]])
    assert tiers_of(tiers, 0) == [(0.5, 1, 0.5), (0.0, 0, 0.0), (-0.5, 2, 1.0)]
    assert tiers_of(tiers, 1) == tiers_of(None, 0) == []


def test_ids_are_read_between_spaces_and_commas():
    assert ids_of("user", " 1,-2\n3 , 4 ", least=0, most=9) == [1, -2, 3, 4]
    assert ids_of("user", "  ", least=0, most=9) == []


def loaded(tab: Browser, selector: str) -> list[int]:
    """Widths of pictures, once the browser has tried them all."""
    tab.ask("[...document.images].forEach(i => i.loading = 'eager')")
    every = "Promise.all([...document.images].map(i => i.decode().catch(() => 0)))"
    tab.ask(every)
    return tab.ask(f"[...document.querySelectorAll({selector!r})].map(i => i.naturalWidth)")


@pytest.mark.slow
@pytest.mark.browser
def test_people_click_and_type_their_way_through(market, run_dir, histories, tmp_path):
    flags = ("--page", "true", "--histories", str(histories))
    with served(run_dir, *flags) as (_, where), browser(tmp_path) as tab:
        tab.resize(1100)
        tab.open(f"{where}/page")
        assert tab.ask("document.activeElement.name") == "user"
        tab.type(str(USER))
        tab.press("Enter")
        tab.wait_for("Page.loadEventFired")
        assert tab.ask("document.title") == f"User {USER}"
        assert tab.ask("document.querySelectorAll('ol.ranked > li').length") == 24
        assert tab.ask("document.querySelectorAll('details[open]').length") == 1
        assert loaded(tab, "ul.past img") == [160] * 3
        assert sum(width == 0 for width in loaded(tab, "ol.ranked img")) == 2

        for _ in range(60):  # by keyboard to the second candidate
            tab.press("Tab")
            if tab.ask("document.activeElement.parentElement.id") == "item-2":
                break
        tab.press("Enter")
        assert tab.ask("document.querySelector('#item-2').open")
        assert "log-odds" in tab.ask("document.querySelector('#item-2').innerText")

        tab.click(f"nav a[href='/page?user={USER_IDS[1]}']")
        tab.wait_for("Page.loadEventFired")
        assert tab.ask("document.title") == f"User {USER_IDS[1]}"
        assert "Nothing is known" in tab.ask("document.querySelector('main').innerText")

        tab.resize(390)  # on a phone
        assert tab.ask("document.documentElement.scrollWidth") == 390
        light = tab.ask("getComputedStyle(document.body).backgroundColor")
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        tab.send("Emulation.setEmulatedMedia", features=dark)
        assert tab.ask("getComputedStyle(document.body).backgroundColor") != light
        assert not [line for line in tab.said if "Refused" in line or "violates" in line]


@pytest.mark.slow
def test_without_the_flag_there_is_no_page(run_dir):
    with served(run_dir) as (_, where):
        assert httpx.get(f"{where}/page").status_code == 404
