"""One cluster for a file of tests."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
