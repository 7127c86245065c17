"""What a client of Kafka's protocol complains of: what may pass, and what a person must mend."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torchrec_mm.errors import InputError

# A client logs each of its attempts to connect, several a second. All that goes wrong comes as an
# error, too.
CLIENT_LOG = logging.getLogger(f"{__name__}.client")
CLIENT_LOG.setLevel(logging.CRITICAL)

# Errors that waiting does not mend.
REFUSALS = (
    *("_AUTHENTICATION", "_SSL", "_INVALID_ARG", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART"),
    *("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"),
    *("SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "INVALID_SESSION_TIMEOUT"),
    *("INVALID_REPLICATION_FACTOR", "POLICY_VIOLATION"),
)


def client_library(url: str) -> ModuleType:
    """The client; InputError if it is not installed."""
    try:
        import confluent_kafka
    except ModuleNotFoundError as error:
        rule = f"events {url} must have confluent-kafka installed"
        raise InputError(f"{rule}: pip install confluent-kafka") from error
    return confluent_kafka


@contextmanager
def told(url: str) -> Iterator[None]:
    """The client's errors as the house's: ConnectionError, or InputError for ``REFUSALS``."""
    kafka = client_library(url)
    try:
        yield
    except kafka.KafkaException as error:
        problem = error.args[0]
        if problem.name() in REFUSALS:
            rule = "events must be a topic that can be read, and whose dead letters can be written"
            raise InputError(f"{rule}, got {url}: {problem.str()}") from error
        raise ConnectionError(f"{url} cannot be reached: {problem.str()}") from error
