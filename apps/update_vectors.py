"""Item events become vectors in a live index, as they come.

python -m apps.update_vectors --index DIR --encoder RUN --events DIR
python -m apps.update_vectors --index DIR --encoder RUN --events redis://127.0.0.1:6379/0
python -m apps.update_vectors --index DIR --encoder RUN --events kafka://127.0.0.1:9092/item_events
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import (
    LMDB,
    SERVERS,
    add_space,
    create_index,
    has_index,
    open_log,
    read_space,
)
from torchrec_mm.item_vectors.live.pointer import read_pointer, space_folder
from torchrec_mm.near_line.kafka_settings import KAFKA
from torchrec_mm.targets import check_new_folder

if TYPE_CHECKING:  # loads for seconds, which --help has no use for
    from torchrec_mm.item_vectors.live.log import Space
    from torchrec_mm.near_line.source import Source

STREAM, TRIED_FOLDER = "item_events", "tried"
STOPPED_BY_SIGTERM = 128 + signal.SIGTERM


@dataclass(frozen=True, kw_only=True)
class UpdateVectorsConfig:
    """Encode new and changed items and write them to a live index; take deleted ones out.

    Killed at any time, the same command goes on: an event is done with when it is written.
    """

    index: Path
    """folder of the live index; made where there is none"""
    encoder: Path
    """run of apps.pretrain"""
    events: str
    """where item events come from: a folder of Parquet files and JSON lines,
    redis://HOST:PORT/DB, its password in REDIS_PASSWORD, or kafka://HOST:PORT/TOPIC"""
    stream: str | None = None
    """with redis:// only: key of the stream, by default item_events"""
    kafka_properties: Path | None = None
    """with kafka:// only: file of further settings of its client, NAME=VALUE a line as librdkafka
    names them, such as security.protocol and sasl.password"""
    group: str | None = None
    """name of those who share the events; by default the origin of the vectors, so that another
    encoder gets all events, too"""
    pictures: Path | None = None
    """folder that image_path of an event is relative to; by default the folder of --events"""
    modality: Literal["image", "text", "fused"] | None = None
    """as in apps.embed_items, by default what the run trained"""
    dtype: Literal["int8", "float32"] = "int8"
    """how the vectors of a new space are stored"""
    new_space: bool = False
    """fill a new vector space beside that of another encoder; apps.publish_vectors --space switches
    to it"""
    log: str | None = None
    """of a new index only: as in apps.publish_vectors, default lmdb"""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """a picture with more pixels is not decoded"""
    batch_size: int = 32
    """events encoded at once"""
    batch_s: float = 0.5
    """seconds that the first event of a batch waits for the others"""
    claim_after_s: float = 60.0
    """with a server only: seconds after which events are taken from another process, one that holds
    them for longer than a batch takes, or, with kafka://, of which nothing is heard"""
    max_deliveries: int = 5
    """with a server only: an event that was taken more often goes to the dead letters untried"""
    once: bool = False
    """end when no event is left, instead of waiting for more"""
    metrics_port: int | None = None
    """port of 127.0.0.1 that tells Prometheus, at /metrics; by default none does"""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_size", "max_deliveries")
        check_fields(self, lambda x: x >= 1, "at least 1", "max_image_pixels")
        check_fields(self, lambda x: x > 0, "above 0", "batch_s", "claim_after_s")
        is_port = "a port, 1 to 65535"
        check_fields(self, lambda x: x is None or 0 < x < 65536, is_port, "metrics_port")
        if self.stream and not self.is_of_redis:
            raise InputError(f"stream must be left out of events {self.events}, got {self.stream}")
        if self.kafka_properties and not self.is_of_kafka:
            rule = f"kafka_properties must be left out of events {self.events}"
            raise InputError(f"{rule}, got {self.kafka_properties}")

    @property
    def is_of_redis(self) -> bool:
        """Whether events come from a stream of a server of Redis' protocol."""
        return self.events.startswith(SERVERS)

    @property
    def is_of_kafka(self) -> bool:
        """Whether events come from a topic of brokers of Kafka's protocol."""
        return self.events.startswith(KAFKA)

    @property
    def is_served(self) -> bool:
        """Whether events come from a server."""
        return self.is_of_redis or self.is_of_kafka


def main(argv: Sequence[str] | None = None) -> None:
    """Update until SIGTERM, or until nothing is left, and say what was done."""
    config = parse(UpdateVectorsConfig, argv)
    if not config.is_served and not Path(config.events).is_dir():
        rule = "events must be a folder, redis://HOST:PORT/DB or kafka://HOST:PORT/TOPIC"
        raise InputError(f"{rule}, got {config.events}")
    from torchrec_mm.near_line.run_encoder import RunEncoder
    from torchrec_mm.near_line.updater import Batching, Updater

    encoder = RunEncoder(
        config.encoder,
        modality=config.modality,
        dtype=config.dtype,
        max_image_pixels=config.max_image_pixels,
    )
    _make_room(config, encoder.space)
    updater = Updater(
        _source(config, encoder.origin),
        encoder,
        open_log(config.index, encoder.origin),
        Batching(most=config.batch_size, wait_s=config.batch_s),
        config.pictures or (None if config.is_served else Path(config.events)),
    )
    if config.metrics_port:
        updater.metrics.serve(config.metrics_port)
    before = signal.signal(signal.SIGTERM, lambda *_: updater.stop.set())
    try:
        print(f"{config.index} takes vectors of {encoder.origin} from {config.events}", flush=True)
        updater.run(once=config.once)
    finally:
        signal.signal(signal.SIGTERM, before)
        updater.source.close()
        updater.log.close()
    counts = {outcome: updater.metrics.count(outcome) for outcome in ("applied", "late", "buried")}
    print(", ".join(f"{outcome} {count}" for outcome, count in counts.items()), flush=True)
    if updater.stop.is_set():
        raise SystemExit(STOPPED_BY_SIGTERM)


def _make_room(config: UpdateVectorsConfig, space: "Space") -> None:
    """Have the index, and in it the space of the encoder's vectors."""
    if not has_index(config.index):
        check_new_folder(config.index, "index", [config.encoder])
        create_index(config.index, space, config.log or LMDB)
        return
    if config.log:
        raise InputError(f"log must be left out of an index that is there, got {config.log}")
    now = read_pointer(config.index).now
    if config.new_space:
        add_space(config.index, space)
    elif space.origin not in now.snapshots:
        rule = f"encoder must have the origin of the index, {now.space}, or --new_space be given"
        raise InputError(f"{rule}, got {space.origin} of {config.encoder}")
    dtype = read_space(config.index, space.origin).dtype
    if dtype != space.dtype:
        raise InputError(f"dtype must be that of the index, {dtype}, got {space.dtype}")


def _source(config: UpdateVectorsConfig, origin: str) -> "Source":
    group = config.group or origin
    if not config.is_served:
        from torchrec_mm.near_line.spool import Spool

        # What a folder can be named by, a file can.
        return Spool(Path(config.events), space_folder(config.index, group).name)
    if config.is_of_kafka:
        from torchrec_mm.near_line.kafka_topic import KafkaTopic

        return KafkaTopic(
            config.events,
            group=group,
            tried=space_folder(config.index, origin) / TRIED_FOLDER,
            claim_after_s=config.claim_after_s,
            max_deliveries=config.max_deliveries,
            properties=config.kafka_properties,
        )
    from torchrec_mm.near_line.redis_stream import RedisStream

    return RedisStream(
        config.events,
        stream=config.stream or STREAM,
        group=group,
        claim_after_s=config.claim_after_s,
        max_deliveries=config.max_deliveries,
        max_wait_s=config.batch_s,
    )


if __name__ == "__main__":
    sys.exit(run(main))
