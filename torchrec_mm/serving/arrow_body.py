"""Arrow IPC streams from outside to tables."""

import struct

import pyarrow as pa

from torchrec_mm.errors import InputError

DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of an Arrow message


def read_arrow(body: bytes) -> pa.Table:
    """An Arrow IPC stream of a table in the layout of ``requests/``.

    Raises:
        InputError: anything else, one whose buffers contradict each other, or that is compressed,
            of which nobody can say how large it is before it is there.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
            if is_compressed(message.metadata.to_pybytes()):
                raise InputError("body must be an Arrow IPC stream without compression")
        with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
            table = stream.read_all()
        table.validate(full=True)  # it comes from outside: offsets may lead anywhere
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, struct.error) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"body must be an Arrow IPC stream: {first}") from error
    return table


def is_compressed(message: bytes) -> bool:
    """Whether a message of a stream, its flatbuffer as in Arrow's Message.fbs, has such buffers.

    Raises:
        struct.error: offsets that lead outside of it.
    """

    def field(table: int, number: int) -> int:
        """Where a field of a table begins, 0 if it has none."""
        fields = table - struct.unpack_from("<i", message, table)[0]
        (size,) = struct.unpack_from("<H", message, fields)
        at = 4 + 2 * number
        (offset,) = struct.unpack_from("<H", message, fields + at) if at < size else (0,)
        return table + offset if offset else 0

    def table(at: int) -> int:
        return at + int(struct.unpack_from("<I", message, at)[0])

    root = table(0)
    kind, header = field(root, 1), field(root, 2)
    number = message[kind] if 0 < kind < len(message) else 0
    if not header or number not in (DICTIONARY_BATCH, RECORD_BATCH):
        return False
    batch = table(header)
    if number == DICTIONARY_BATCH:
        data = field(batch, 1)
        if not data:
            return False
        batch = table(data)
    return field(batch, 3) != 0
