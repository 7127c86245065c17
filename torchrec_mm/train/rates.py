"""How the learning rates of phase two follow the batch.

The loss is the mean over a batch's impressions, and an epoch of larger batches has fewer steps.
Adam's steps are as long as its rate says: where there are k times fewer, each must be k times as
long. A row of a table is updated where a batch shows it: most rows are rare, in one request of a
batch however large, so that they are updated as often as before; and Adagrad divides by the root of
a row's own gradients, so that how small the mean makes them plays no part. The tables' rate stays.

Source: the linear rule of Goyal et al., 2017, arXiv:1706.02677, here for the dense part. That
larger batches leave the rate of rare ids as it is: Zheng et al., AAAI 2023, arXiv:2204.06240.
"""

from dataclasses import replace
from typing import Any, TypeVar

from torchrec_mm.documents import read_yaml

# Steps cannot be as long as one likes: of 2000 requests and at 0.0625, muse learned nothing.
MOST_REQUESTS = 512

ConfigT = TypeVar("ConfigT", bound=Any)


def with_learning_rate(config: ConfigT, per_request: float) -> ConfigT:
    """The config with a learning rate, for the dense part: the one given, or what the batch asks.

    A run that goes on without being given one keeps its own, whatever the rule was when it began.

    Args:
        config: of a command that trains a model of phase two.
        per_request: the rate of a batch of one request; it grows up to ``MOST_REQUESTS``.
    """
    if config.learning_rate is not None:
        return config
    rate = scaled_rate(config.batch_requests, per_request)
    begun = config.run_dir / "config.yaml"
    if config.resume and begun.is_file():
        rate = read_yaml(begun).get("learning_rate", rate)
    return replace(config, learning_rate=rate)


def scaled_rate(batch_requests: int, per_request: float) -> float:
    """The learning rate of the dense part for batches of so many requests."""
    return per_request * min(batch_requests, MOST_REQUESTS)
