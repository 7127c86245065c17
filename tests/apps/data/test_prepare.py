"""python -m apps.prepare: from files of the user to folders of the contract."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from subprocess import PIPE

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.prepare import PrepareConfig, main
from tests.helpers.event_logs import NAMES, requests_in, write_csv, write_log
from tests.helpers.request_folders import read_requests
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.errors import InputError


@pytest.fixture
def ratings(tmp_path):
    folder = tmp_path / "ratings"
    folder.mkdir()
    lines = [f"1,{film},{film % 5 + 1},{film * 60}" for film in range(30)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines]))
    films = [f"{film},Film {film} (1990),Drama" for film in range(30)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,3,slow,5\n")
    return folder


@pytest.fixture
def impressions(tmp_path):
    folder = tmp_path / "impressions"
    folder.mkdir()
    columns = {"user_id": [1] * 10, "item_id": list(range(10)), "label": [0, 1] * 5}
    pq.write_table(pa.table(columns | {"timestamp": list(range(10))}), folder / "a.parquet")
    return folder


@pytest.fixture
def events(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    lines = [f"1,{n},{n},impression\n1,{n},{n},click" for n in range(10)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,event", *lines]))
    return folder


@pytest.mark.parametrize("source", ["impressions", "events"])
def test_impressions_and_events_become_requests_and_items(source, request, tmp_path):
    folder = request.getfixturevalue(source)
    main([f"--source={source}", f"--input={folder}", f"--run_dir={tmp_path / 'data'}"])
    assert read_items(tmp_path / "data").item_ids.tolist() == list(range(10))
    train, test = (read_requests(tmp_path / "data" / "requests" / s, 50) for s in ("train", "test"))
    assert (train.num_impressions, test.num_impressions) == (8, 2)
    assert not (tmp_path / "data" / "searches").exists()


def test_movielens_becomes_requests_items_and_searches(ratings, tmp_path):
    main(["--source=movielens", f"--input={ratings}", f"--run_dir={tmp_path / 'data'}"])
    items = read_items(tmp_path / "data")
    assert set(items.attributes) == {"genre", "genres"} and set(items.numbers) == {"year"}
    train, test = (read_requests(tmp_path / "data" / "requests" / s, 50) for s in ("train", "test"))
    assert train.candidates.lengths.tolist() == [20, 4]
    assert test.candidates.lengths.tolist() == [6]
    assert pq.read_table(tmp_path / "data" / "searches")["query_text"].to_pylist() == ["slow"]


def test_flags_change_what_a_like_and_a_request_are(ratings, tmp_path):
    flags = ["--max_candidates=7", "--like_from=5", "--pause_s=60", "--behaviours=2"]
    main(["--source=movielens", f"--input={ratings}", f"--run_dir={tmp_path / 'data'}", *flags])
    train = read_requests(tmp_path / "data" / "requests" / "train", 50)
    assert train.candidates.lengths.tolist() == [7, 7, 7, 3]
    assert train.behaviours.lengths.tolist() == [0, 1, 2, 2]
    assert train.labels.tolist() == [int(film % 5 == 4) for film in range(24)]


def test_a_given_catalogue_is_copied_whole(impressions, tmp_path):
    items = tmp_path / "shop" / "items"
    items.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": list(range(12)), "kind": [1] * 12}), items / "x.parquet")
    (items / "9.jpg").write_bytes(b"picture")
    flags = [f"--items={tmp_path / 'shop'}", f"--run_dir={tmp_path / 'data'}"]
    main(["--source=impressions", f"--input={impressions}", *flags])
    assert len(read_items(tmp_path / "data")) == 12
    assert (tmp_path / "data" / "items" / "9.jpg").read_bytes() == b"picture"


LOG = [(4, 0, 0, "click"), *((4, 0, time, "impression") for time in range(5))]
FOLDERS = st.text(st.sampled_from("ab=*?[]{},;:%~#$&|!'\"( )-\u00e9"), min_size=1, max_size=8)
FOLDERS |= st.sampled_from([*(f"{name}=3" for name in NAMES), "c0=3", "file:", "s3:", "a%20b", "~"])


@settings(max_examples=30)
@given(FOLDERS, FOLDERS, st.booleans())
def test_no_folders_name_changes_what_is_read_or_written(tmp_path_factory, above, below, as_csv):
    folder = tmp_path_factory.mktemp("logs") / above
    log = folder / below / "log"
    log.parent.mkdir(parents=True)
    write_csv(log / "a.csv", LOG) if as_csv else write_log(log, LOG)
    with working_in(folder):
        main(["--source=events", f"--input={below}/log", f"--run_dir={below}/data"])
    requests = requests_in(log.parent / "data")
    assert [(row["user_id"], row["candidate_item_ids"]) for row in requests] == [(4, [0])] * 5
    assert os.listdir(folder) == [below]
    assert sorted(os.listdir(folder / below)) == ["data", "log"]


@contextmanager
def working_in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--pause_s=5"], "pause_s does not apply to source impressions"),
        (["--like_from=3"], "like_from does not apply to source impressions"),
        (["--test_share=1"], "test_share must be between 0 and 1, got 1.0"),
        (["--behaviours=0"], "behaviours must be at least 1, got 0"),
        (["--events={click: [a]}"], "events does not apply to source impressions"),
        (["--source=movielens", "--bad_share=0.1"], "bad_share does not apply to source movielens"),
        (["--engine=spark"], "engine does not apply to source impressions"),
        (["--source=events", "--memory_gb=0.5"], "memory_gb must be at least 1, got 0.5"),
        (["--source=events", "--engine=spark", "--memory_gb=9"], "memory_gb does not apply to eng"),
        (["--source=events"], "must have a column event, got user_id"),
        (["--source=taobao"], "source must be one of movielens, impressions, events"),
        (["--input=nowhere"], "nowhere must be a folder of Parquet or CSV or JSON lines files"),
        (["--items=nowhere"], "nowhere/items must be a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_left(impressions, tmp_path, flags, complaint):
    given = ["--source=impressions", f"--input={impressions}", f"--run_dir={tmp_path / 'data'}"]
    changed = {flag.partition("=")[0]: flag for flag in [*given, *flags]}
    with pytest.raises(InputError, match=complaint):
        main(list(changed.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["impressions"]


def test_too_few_rows_to_split_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    columns = {"user_id": [1], "item_id": [2], "label": [1], "timestamp": [3]}
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet")
    with pytest.raises(InputError, match="requests/test must hold at least one request, got 0"):
        main(["--source=impressions", f"--input={tmp_path / 'in'}", f"--run_dir={tmp_path / 'o'}"])
    assert not (tmp_path / "o").exists()


# apps.prepare that says when it has begun to write, and then waits for the signal.
HALFWAY = """
import signal
import sys
from apps.prepare import main
from torchrec_mm.config import run
from torchrec_mm.data.prepare.request_parts import RequestParts

def wait(parts, requests):
    (parts.folder / "part-0000.parquet").write_bytes(b"half")
    print("halfway", flush=True)
    while True:
        pass

RequestParts.add = wait
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
sys.exit(run(main))
"""


@pytest.mark.kill
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_log_cut_short_leaves_no_folder_and_the_next_clears_up(events, tmp_path, sent, status):
    runs = tmp_path / "runs"
    flags = ["--source=events", f"--input={events}", f"--run_dir={runs / 'data'}"]
    with subprocess.Popen([sys.executable, "-c", HALFWAY, *flags], stdout=PIPE) as process:
        assert process.stdout.readline() == b"halfway\n"
        process.send_signal(sent)
    assert process.returncode == status
    assert not (runs / "data").exists()
    assert len(list(runs.rglob("part-0000.parquet"))) == (sent == signal.SIGKILL)
    assert bool(os.listdir(runs)) == (sent == signal.SIGKILL)
    main(flags)
    assert os.listdir(runs) == ["data"]


def test_what_was_left_out_or_cannot_be_measured_is_said_on_stderr(tmp_path, capsys):
    other = [(1, 1, 1, "basket"), (1, 1, 1, ""), (1, 1, 2, "basket")]
    log = write_csv(tmp_path / "log" / "a.csv", [*LOG, *LOG[:3], *other])
    main(["--source=events", f"--input={log}", f"--run_dir={tmp_path / 'data'}"])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("note: ")] == [
        "note: timestamp is taken for seconds since 1970, 1970-01-01T00:00:00Z to "
        "1970-01-01T00:00:04Z; --timestamp_unit says otherwise",
        "note: 3 events of other kinds are left out: 2 of 'basket', 1 of ''",
        "note: 2 of 7 impressions repeat another of the same user, item and second, and are left "
        "out; so are such clicks",
        "note: requests/test holds label 0 alone: it has neither AUC nor GAUC",
    ]


def test_rows_of_impressions_that_came_twice_count_once(impressions, tmp_path, capsys):
    main(["--source=impressions", f"--input={impressions}", f"--run_dir={tmp_path / 'once'}"])
    assert "rows are equal" not in capsys.readouterr().err
    (impressions / "b.parquet").write_bytes((impressions / "a.parquet").read_bytes())
    main(["--source=impressions", f"--input={impressions}", f"--run_dir={tmp_path / 'twice'}"])
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "note: 10 rows are equal to another one, and count once"
    assert requests_in(tmp_path / "twice") == requests_in(tmp_path / "once")


def test_names_and_kinds_of_events_are_told_by_flags(events, tmp_path):
    text = (events / "log.csv").read_text()
    main(["--source=events", f"--input={events}", f"--run_dir={tmp_path / 'data'}"])
    for old, new in (("user_id", "uid"), ("impression", "seen"), ("3,click", "3,open")):
        text = text.replace(old, new)
    (events / "log.csv").write_text(text.replace("\n1,5,5,click", "\n1,5,5,tap"))
    flags = ["--columns={user_id: uid}", "--events={impression: [seen], click: [click, open, tap]}"]
    main(["--source=events", f"--input={events}", f"--run_dir={tmp_path / 'again'}", *flags])
    assert requests_in(tmp_path / "again") == requests_in(tmp_path / "data")


def test_further_events_and_what_was_passed_over_become_sequences(tmp_path):
    carts = [(4, 7, 1, "add"), (4, 8, 3, "add"), (4, 8, 3, "add")]
    log = write_csv(tmp_path / "log" / "a.csv", [*LOG, *carts])
    flags = ["--events={cart: [add]}", "--passed=true", "--attribution_s=1", "--behaviours=2"]
    main(["--source=events", f"--input={log}", f"--run_dir={tmp_path / 'data'}", *flags])
    requests = requests_in(tmp_path / "data")
    assert [row["cart_item_ids"] for row in requests] == [[], [], [7], [7], [7, 8]]
    assert [row["passed_item_ids"] for row in requests] == [[], [], [], [0], [0, 0]]
    assert read_items(tmp_path / "data").item_ids.tolist() == [0, 7, 8]
    columns = RequestColumns.of([ParquetFolder(tmp_path / "data" / "requests" / "train")], {})
    assert columns.sequences == ("cart", "passed")


def test_rows_of_impressions_tell_what_was_passed_over_where_they_have_a_time(
    impressions, tmp_path
):
    given = ["--source=impressions", f"--input={impressions}", "--passed=true"]
    main([*given, f"--run_dir={tmp_path / 'data'}", "--behaviours=2"])
    passed = [row["passed_item_ids"] for row in requests_in(tmp_path / "data")]
    earlier = [[item for item in range(0, now, 2)][-2:] for now in range(10)]
    assert sorted(passed) == sorted(earlier)
    table = pq.read_table(impressions / "a.parquet")
    for changed, complaint in (
        (
            table.drop_columns(["timestamp"]).append_column("behaviour_item_ids", [[[1]] * 10]),
            "must have a column timestamp, which passed needs",
        ),
        (table.append_column("passed_item_ids", [[[1]] * 10]), "must be left out with passed"),
    ):
        pq.write_table(changed, impressions / "a.parquet")
        with pytest.raises(InputError, match=complaint):
            main([*given, f"--run_dir={tmp_path / 'again'}"])


def test_rows_of_impressions_bring_further_sequences_of_their_own(impressions, tmp_path):
    table = pq.read_table(impressions / "a.parquet")
    carts = pa.array([[row, 7] for row in range(10)])
    pq.write_table(table.append_column("cart_item_ids", carts), impressions / "a.parquet")
    main(["--source=impressions", f"--input={impressions}", f"--run_dir={tmp_path / 'data'}"])
    requests = requests_in(tmp_path / "data")
    assert [row["cart_item_ids"] for row in requests] == carts.to_pylist()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--events={show: [view]}"],
            "must hold 'view' \\(events: show\\) at least once, got click",
        ),
        (["--events={behaviour: [x]}"], "got behaviour: it would be behaviour_item_ids"),
        (["--events={click: [impression]}"], "must not take one kind for both .*, got impression"),
        (["--events={click: []}"], "events must name a kind of events for click, got none"),
        (["--events={click: tap}"], "--events must be .*list"),
        (["--shown_event=view"], "unknown flag: --shown_event=view"),
        (["--columns={user: uid}"], "columns must map some of user_id, item_id, timestamp, event"),
        (["--timestamp_unit=min"], "timestamp_unit must be one of s, ms, us, ns"),
        (["--text_ids=[label]"], "text_ids must be columns of user_id, item_id, got label"),
        (["--bad_share=1"], "bad_share must be at least 0 and below 1, got 1.0"),
        (["--delimiter=;;"], "delimiter must be one ASCII character, got ';;'"),
    ],
)
def test_a_flag_of_logs_that_says_nothing_is_refused(events, tmp_path, flags, complaint):
    given = ["--source=events", f"--input={events}", f"--run_dir={tmp_path / 'data'}"]
    with pytest.raises(InputError, match=complaint):
        main([*given, *flags])
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


@pytest.mark.parametrize(
    ("source", "flags", "complaint"),
    [
        ("impressions", [], "a label 1, got 0 for all 10 impressions: .* column label is 0 in ev"),
        ("ratings", ["--like_from=6"], "got 0 for all 30 .*/ratings.csv is at least like_from"),
        ("events", ["--attribution_s=5"], "got 0 for all 10 .*: none of 10 clicks came at most"),
    ],
)
def test_data_without_a_label_1_are_refused(source, flags, complaint, request, tmp_path):
    folder = request.getfixturevalue(source)
    if source == "impressions":
        table = pq.read_table(folder / "a.parquet")
        pq.write_table(table.set_column(2, "label", [[0] * 10]), folder / "a.parquet")
    if source == "events":
        lines = [f"1,{n},{n},impression\n1,{n},{n + 6},click" for n in range(10)]
        (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,event", *lines]))
    source = "movielens" if source == "ratings" else source
    with pytest.raises(InputError, match=complaint):
        main([f"--source={source}", f"--input={folder}", f"--run_dir={tmp_path / 'o'}", *flags])
    assert os.listdir(tmp_path) == [folder.name]


@pytest.mark.parametrize("source", ["impressions", "events"])
@pytest.mark.parametrize(
    ("created_at", "complaint"),
    [
        (1_650_000_000_000, "items column created_at must be .* like milliseconds: divide by 1000"),
        (1_650_000_000, "items column created_at must be on the clock of the requests' timestamp"),
    ],
)
def test_items_of_another_clock_are_refused(source, created_at, complaint, request, tmp_path):
    (tmp_path / "items").mkdir()
    items = pa.table({"item_id": range(10), "created_at": [created_at] * 10})
    pq.write_table(items, tmp_path / "items" / "a.parquet")
    flags = [f"--source={source}", f"--input={request.getfixturevalue(source)}"]
    with pytest.raises(InputError, match=complaint):
        main([*flags, f"--items={tmp_path}", f"--run_dir={tmp_path / 'data'}"])
    assert not (tmp_path / "data").exists()


def test_an_existing_folder_is_refused_before_anything_is_read(impressions, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        main(["--source=impressions", "--input=nowhere", f"--run_dir={impressions}"])


def test_the_defaults_of_a_source_are_those_its_help_names():
    config = PrepareConfig(source="events", input="in", run_dir="out")
    assert config.settings()["attribution_s"] == 1800
    settings = PrepareConfig(source="movielens", input="in", run_dir="out").settings()
    assert settings["like_from"] == 4.0
    assert settings["passed"] and not config.settings()["passed"]


def test_movielens_tells_what_was_rated_and_not_liked_unless_told_otherwise(ratings, tmp_path):
    for name, flags in (("with", []), ("without", ["--passed=false"])):
        main(["--source=movielens", f"--input={ratings}", f"--run_dir={tmp_path / name}", *flags])
        columns = pq.read_table(tmp_path / name / "requests" / "test").column_names
        assert ("passed_item_ids" in columns) == (name == "with")
