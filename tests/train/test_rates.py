"""The dense part's rate follows the batch where none is given."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from torchrec_mm.train.rates import with_learning_rate


@dataclass(frozen=True)
class Config:
    """What of a command's flags the rule looks at."""

    run_dir: Path
    batch_requests: int = 32
    learning_rate: float | None = None
    resume: bool = False


def rate(run_dir: Path, **flags) -> float:
    return with_learning_rate(Config(run_dir, **flags), per_request=0.25).learning_rate


def test_a_batch_of_twice_the_requests_has_twice_the_rate(tmp_path):
    assert (rate(tmp_path), rate(tmp_path, batch_requests=64)) == (8.0, 16.0)


def test_the_rate_grows_no_further_from_512_requests_on(tmp_path):
    rates = [rate(tmp_path, batch_requests=requests) for requests in (511, 512, 513, 4000)]
    assert rates == [127.75, 128.0, 128.0, 128.0]


def test_a_rate_that_is_given_is_the_rate_of_any_batch(tmp_path):
    assert rate(tmp_path, batch_requests=500, learning_rate=0.001) == 0.001


@pytest.mark.parametrize(("resume", "expected"), [(True, 0.001), (False, 8.0)])
def test_a_run_that_goes_on_keeps_the_rate_it_began_with(resume, expected, tmp_path):
    (tmp_path / "config.yaml").write_text("learning_rate: 0.001\nbatch_requests: 32\n")
    assert rate(tmp_path, resume=resume) == expected


def test_a_run_that_never_began_has_no_rate_to_keep(tmp_path):
    assert rate(tmp_path, resume=True) == 8.0
