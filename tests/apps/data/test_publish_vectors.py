"""apps.publish_vectors from flags to what an index serves."""

import numpy as np
import pytest

from apps.publish_vectors import main
from tests.helpers.live import SPACE, changes
from tests.helpers.servers import REDIS, running
from torchrec_mm.item_vectors import ItemVectors, write_item_vectors
from torchrec_mm.item_vectors.live.index import open_log
from torchrec_mm.item_vectors.live.reader import IndexReader


@pytest.fixture
def call(tmp_path, capsys):
    """Runs the command on an index, whose first vectors are of items 1 to 3; its last line."""

    def call(*flags: object) -> str:
        main(["--index", str(tmp_path / "index"), *map(str, flags)])
        return capsys.readouterr().out.splitlines()[-1].removeprefix(f"{tmp_path}/")

    return call


def vectors(folder, origin: str = SPACE.origin, width: int = 3):
    words = {"encoder": "scl", "modality": "text", "origin": origin}
    write_item_vectors(folder, [1, 2, 3], np.eye(3, width) + 0.1, dtype="int8", **words)
    return folder


def write(tmp_path, *events) -> None:
    log = open_log(tmp_path / "index", SPACE.origin)
    log.write(changes(*events), SPACE.origin)
    log.close()


def test_an_index_begins_with_vectors_is_published_and_rolled_back(call, tmp_path):
    begun = call("--vectors", vectors(tmp_path / "v"))
    assert begun == "index serves 3 items of scl-text-1, snapshot 1"
    write(tmp_path, (4, 1, 4), (1, 1, None), (5, 1, 5))
    assert call() == "index serves 4 items of scl-text-1, snapshot 2"
    back = call("--roll_back")
    assert back == f"{begun}, and nothing that came after it"
    assert ItemVectors.open(tmp_path / "index").item_ids.tolist() == [1, 2, 3]
    assert call() == "index serves 4 items of scl-text-1, snapshot 3"


def test_vectors_of_another_encoder_get_a_space_of_their_own(call, tmp_path):
    call("--vectors", vectors(tmp_path / "v"))
    said = call("--vectors", vectors(tmp_path / "w", "scl-text-9", width=7))
    assert said == "index serves 3 items of scl-text-9, snapshot 1"
    assert ItemVectors.open(tmp_path / "index").width == 7
    assert call("--space", SPACE.origin) == "index serves 3 items of scl-text-1, snapshot 1"
    assert call("--roll_back") == said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--keep", 0], "error: keep must be at least 1, got 0"),
        (["--log", "lmdb"], "error: log must be left out without vectors, got lmdb"),
        (["--roll_back", "--vectors", "v"], "vectors must be left out with roll_back, got v"),
        (["--roll_back", "--space", "a"], "space must be left out with roll_back or vectors"),
        (["--vectors", "nowhere"], "nowhere must be a folder of item vectors: no such folder"),
        ([], "index must be a folder of a live index, got "),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, tmp_path, flags, said):
    assert said in refused(main, ["--index", tmp_path / "index", *flags])


def test_a_log_is_chosen_once(refused, call, tmp_path):
    call("--vectors", vectors(tmp_path / "v"), "--log", "lmdb")
    flags = ["--index", tmp_path / "index", "--vectors", tmp_path / "v", "--log", "lmdb"]
    said = "error: log must be left out of an index that is there, got lmdb"
    assert refused(main, flags) == said


@pytest.mark.parametrize("kind", REDIS)
def test_the_log_of_an_index_may_be_a_servers(call, refused, tmp_path, kind):
    folder = tmp_path / "server"
    folder.mkdir()
    with running(kind, folder) as server:
        call("--vectors", vectors(tmp_path / "v"), "--log", server.url)
        write(tmp_path, (9, 1, 9))
        reader = IndexReader(tmp_path / "index")
        assert reader.vectors.rows(np.array([3, 9])).tolist() == [2, 3]
        assert call() == "index serves 4 items of scl-text-1, snapshot 2"
        server.kill()
        assert "must be reachable: redis://" in refused(main, ["--index", tmp_path / "index"])
        with pytest.raises(ConnectionError, match="cannot be reached"):
            reader.refresh()
        assert reader.vectors.rows(np.array([3, 9])).tolist() == [2, 3]
        server.start()
        write(tmp_path, (10, 1, 9))
        assert reader.refresh()
        assert reader.vectors.rows(np.array([9, 10])).tolist() == [3, 4]
        reader.close()
