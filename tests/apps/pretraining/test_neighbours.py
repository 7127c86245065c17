"""apps.neighbours from flags to a table or a file."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from apps.neighbours import main
from tests.item_vectors.test_neighbours import written
from tests.pretraining.tiny import save_text_encoder
from torchrec_mm.columns.text_ids import MAP_SCHEMA, hash_text
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.encoder_files import save_encoder
from torchrec_mm.pretraining.encoder.fingerprint import origin_of
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder

VECTORS = [(1.0, 0.0), (0.6, 0.8), (0.0, 1.0), (-1.0, 0.0)]


@pytest.fixture
def room(tmp_path):
    written(tmp_path / "v", [1, 22, 333, 4], VECTORS)
    (tmp_path / "data" / "items").mkdir(parents=True)
    items = {"item_id": [1, 22, 333, 4], "title": ["red shirt", "red coat", None, "blue hat"]}
    pq.write_table(pa.table(items), tmp_path / "data" / "items" / "part.parquet")
    return tmp_path


@pytest.fixture
def ask(room, capsys):
    def call(*flags) -> list[str]:
        main(["--vectors", str(room / "v"), *map(str, flags)])
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.parametrize("search", ["exact", "faiss"])
def test_the_neighbours_of_items_are_printed_with_their_titles(room, ask, search):
    lines = ask("--items", "[1, 333]", "--k", 2, "--data", room / "data", "--search", search)
    assert lines == [
        "item 1  red shirt",
        "  rank  cosine  item_id  title",
        "     1   0.600       22  red coat",
        "     2   0.000      333",
        "item 333",
        "  rank  cosine  item_id  title",
        "     1   0.800       22  red coat",
        "     2   0.000        1  red shirt",
    ]


def test_without_data_there_are_no_titles_and_long_ids_keep_the_columns_straight(room, ask):
    written(room / "long", [2**60, -3], VECTORS[:2])
    assert ask("--vectors", room / "long", "--items", "[-3]") == [
        "item -3",
        "  rank  cosine              item_id",
        f"     1   0.600  {2**60}",
    ]


def test_items_are_called_by_the_texts_that_they_were_where_a_map_has_them(room, ask):
    texts = sorted(["shirt", "a coat", "12"], key=hash_text)
    item_ids = [hash_text(text) for text in texts]
    (room / "ids").mkdir()
    pq.write_table(pa.table([item_ids, texts], schema=MAP_SCHEMA), room / "ids" / "items.parquet")
    near = dict(zip(["shirt", "a coat", "12"], VECTORS, strict=False))
    written(room / "w", item_ids, [near[text] for text in texts])
    asked = ("--vectors", room / "w", "--items", "[shirt, '12']", "--k", 1)
    lines = [
        "item shirt",
        "  rank  cosine  item_id",
        "     1   0.600   a coat",
        "item 12",
        "  rank  cosine  item_id",
        "     1   0.800   a coat",
    ]
    assert ask(*asked, "--ids", room / "ids") == lines
    with pytest.raises(InputError, match="items must have a vector in .*w, got 'cap'"):
        ask("--vectors", room / "w", "--items", "[cap]", "--ids", room / "ids")
    with pytest.raises(InputError, match="items must be int64 without ids/items.parquet, got 'shi"):
        ask(*asked)
    (room / "ids").rename(room / "data" / "ids")
    (room / "data" / "items" / "part.parquet").unlink()
    items = pa.table({"item_id": item_ids, "title": [text.upper() for text in texts]})
    pq.write_table(items, room / "data" / "items" / "part.parquet")
    found = ask(*asked, "--data", room / "data")
    assert (found[0], found[2]) == ("item shirt  SHIRT", "     1   0.600   a coat  A COAT")
    numbers = ask("--vectors", room / "w", "--items", f"[{hash_text('12')}]", "--k", 1)
    assert numbers[0] == f"item {hash_text('12')}"


@pytest.mark.parametrize("search", ["exact", "faiss"])
def test_the_neighbours_of_all_items_go_to_a_file(room, ask, search):
    out = room / "n.parquet"
    assert ask("--output", out, "--k", 1, "--search", search) == [f"neighbours of 4 items in {out}"]
    assert pq.read_table(out)["neighbour_ids"].to_pylist() == [[22], [333], [333], [22]]
    with pytest.raises(InputError, match="n.parquet exists already"):
        ask("--output", out)


def test_an_index_is_built_once_and_reused_until_the_vectors_change(room, ask):
    flags = ("--items", "[1]", "--search", "faiss", "--index", room / "index")
    first = ask(*flags)
    built = (room / "index" / "index.faiss").stat().st_mtime_ns
    assert ask(*flags) == first
    assert (room / "index" / "index.faiss").stat().st_mtime_ns == built
    written(room / "other", [1, 22, 333, 4], np.flip(VECTORS, axis=1))
    with pytest.raises(InputError, match="index must be an index of .*other"):
        ask(*flags, "--vectors", room / "other")


@pytest.fixture
def texts(room):
    """Flags of the vectors of two texts, "word1 word2" of item 1 and "word3" of item 22."""
    text = str(save_text_encoder(room / "text"))
    spec = EncoderSpec("text", text, trainable_layers=0, image_size=32)
    encoder = build_item_encoder([spec]).eval()
    save_encoder(room / "run", "scl", encoder)
    part = encoder.encoders["text"]
    with torch.inference_mode():
        values = part(part.backbone.tokenise(["word1 word2", "word3"])).numpy()
    origin = origin_of("scl", encoder, "text")
    written(room / "texts", [1, 22], values, modality="text", origin=origin)
    written(room / "w", [1, 22], values, modality="text")
    return "--vectors", room / "texts", "--encoder", room / "run"


def test_a_text_finds_the_items_of_the_run_that_made_the_vectors(room, ask, texts):
    flags = (*texts, "--text", "word3")
    lines = ask(*flags, "--data", room / "data", "--k", 1)
    assert lines == ["word3", "  rank  cosine  item_id  title", "     1   1.000       22  red coat"]
    with pytest.raises(InputError, match="vectors must have the origin of encoder"):
        ask(*flags, "--vectors", room / "w")


@pytest.mark.parametrize("search", ["exact", "faiss"])
def test_each_line_of_a_file_is_a_query(room, ask, texts, search):
    file, out = room / "queries.txt", room / "found.parquet"
    lines = ["word3", "word1 word2", *["word3"] * 70]  # more than are encoded at once
    file.write_text("\r\n".join(lines) + "\n")
    flags = (*texts, "--queries", file, "--k", 1, "--search", search)
    printed = ask(*flags)
    assert printed[:3] == ["word3", "  rank  cosine  item_id", "     1   1.000       22"]
    assert printed[3] == "word1 word2"
    assert len(printed) == 3 * len(lines)
    assert ask(*flags, "--output", out) == [f"neighbours of 72 queries in {out}"]
    table = pq.read_table(out)
    assert table["query"].to_pylist() == lines
    assert table["neighbour_ids"].to_pylist() == [[22], [1], *[[22]] * 70]
    assert table["cosines"].to_pylist() == [[pytest.approx(1, abs=1e-5)]] * 72


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "queries must have words in every line, got none in .*queries.txt:1"),
        (b"word1\n \nword3", "queries must have words in every line, got none in .*queries.txt:2"),
        (b"word1\xff", "queries.txt must be UTF-8"),
        (None, "queries.txt"),
    ],
)
def test_a_file_of_queries_that_cannot_be_searched_by_is_refused(
    room, ask, texts, content, complaint
):
    if content is not None:
        (room / "queries.txt").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        ask(*texts, "--queries", room / "queries.txt", "--output", room / "out.parquet")
    assert not (room / "out.parquet").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "one of --items, --text or --image, --queries, --output must be given"),
        (["--items", "[1]", "--output", "n"], "one of --items, --text or --image, --queries, --o"),
        (["--queries", "q", "--text", "red"], "one of --items, --text or --image, --queries, --o"),
        (["--items", "[]"], "items must be item_ids of int64"),
        (["--items", f"[{2**63}]"], "items must be item_ids of int64"),
        (["--items", "[1, 5]"], "items must have a vector in .*v, got 5"),
        (["--items", "[1]", "--k", "0"], "k must be at least 1, got 0"),
        (["--items", "[1]", "--index", "i"], "index must be left out unless --search is faiss"),
        (["--items", "[1]", "--encoder", "r"], "encoder must be given with --text, --image or"),
        (["--queries", "q"], "encoder must be given with --text, --image or --queries, and only"),
        (["--text", " ", "--encoder", "r"], "text must not be blank"),
        (["--text", "red", "--encoder", "r"], "encoder must be a run of apps.pretrain, got r"),
        (["--text", "red"], "encoder must be given with --text, --image or --queries"),
    ],
)
def test_a_mistake_is_named(ask, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        ask(*flags)
