"""Tables in files: footers, and every way in which a file can fail, as one line of the user's."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.errors import InputError

SIGNATURE_BYTES = 28  # nonce and tag after a footer, in files with encrypted columns


@contextmanager
def input_errors(where: Path | str, rule: str = "could not be read") -> Iterator[None]:
    """What Arrow, the disk or bytes that are no text raise, as an InputError.

    Args:
        where: the file, and what of it. rule: what is wrong with it or how it must be.
    """
    try:
        yield
    except pa.ArrowCancelled:  # Ctrl-C
        raise
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"{where} {rule}: {error}") from error


@dataclass(frozen=True)
class Footer:
    """What a Parquet file's footer says; ``notes``: the key-value metadata of its writer."""

    file: Path
    schema: pa.Schema
    num_rows: int
    notes: Mapping[bytes, bytes]


def read_metadata(file: Path) -> pq.FileMetaData:
    """The footer as Arrow has it; InputError for an unreadable file or encrypted columns."""
    with input_errors(file, "must be a readable Parquet file"), pa.OSFile(str(file)) as source:
        metadata = pq.read_metadata(source)
        source.seek(source.size() - 8)
        length = int.from_bytes(source.read(4), "little")
    # Arrow ends the process at the first look at an encrypted column behind a readable footer.
    if length - metadata.serialized_size == SIGNATURE_BYTES:
        raise InputError(f"{file} must not be encrypted: its footer is signed")
    return metadata


def read_footer(file: Path) -> Footer:
    """Columns and rows of a file; InputError for an unreadable file or two columns of one name."""
    metadata = read_metadata(file)
    with input_errors(file, "must be a readable Parquet file"):
        schema = metadata.schema.to_arrow_schema()
        names = Counter(schema.names)
    for name, times in names.items():
        if times > 1:
            raise InputError(f"{file} must have one column {name}, got {times} of this name")
    return Footer(file, schema, metadata.num_rows, metadata.metadata or {})
