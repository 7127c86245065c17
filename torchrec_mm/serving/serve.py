"""From a run's folder to a process that answers."""

import logging
import socket
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import uvicorn

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.additions.body import kinds_of
from torchrec_mm.serving.additions.lists import AddedLists
from torchrec_mm.serving.additions.store import AddedBehaviours
from torchrec_mm.serving.app import ServingSettings, make_app
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.heads import heads_within
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.page.page import Page
from torchrec_mm.serving.page.routes import page_routes
from torchrec_mm.serving.parity import Parity, ParitySettings
from torchrec_mm.serving.request_log.rows import LogRows
from torchrec_mm.serving.request_log.writer import LogSettings, RequestLog
from torchrec_mm.serving.scorer import Scorer, Tables, encoder_of
from torchrec_mm.serving.vectors import FollowedVectors

BACKLOG = 1024
KEEP_ALIVE_S = 75  # longer than proxies wait, so that they end a connection and not we
END_S = 30  # for requests in flight when told to stop


def serve(
    trained: TrainedRun,
    settings: ServingSettings,
    *,
    items: Path,
    vectors: FollowedVectors | None,
    histories: Path | None,
    additions: Path | None,
    log: LogSettings | None,
    parity: ParitySettings | None,
    tables: Tables,
    with_page: bool,
    host: str,
    port: int,
) -> None:
    """Load, listen, and answer until SIGTERM or SIGINT; what is in flight then is answered.

    ``items``, ``tables``: see ``Scorer.open``. ``vectors``: of the run's origin, None for none.
    ``histories``: a folder of them, see ``Histories``. ``additions``: folder of what clients add to
    them, None: they may not. ``log``: of requests, None for none.
    ``parity``: what is scored again, None for nothing. ``with_page``: whether people may look.

    Raises:
        InputError: a run that cannot score here, an address that cannot be listened at.
    """
    measures = Measures()
    latest = vectors.latest if vectors else None
    following = vectors or nullcontext()
    with suppress_library_warnings(), listening(host, port) as listener, following:
        # By force: a library that has logged already has had its own way.
        logging.basicConfig(
            force=True, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
        encoder = encoder_of(trained, items)  # once: reading a catalogue keeps requests waiting
        load = partial(Scorer.open, items=items, vectors=latest, encoder=encoder, tables=tables)
        if vectors and vectors.index:
            measures.watch_index(vectors.index)
        current = Current(trained, load, measures)
        columns = current.scorer.encoder.columns
        store = added = None
        if additions:
            kinds = kinds_of(columns)
            store = AddedBehaviours(additions, kinds, trained.behaviours_read)
            added = AddedLists(store, kinds)
        known = (
            Histories.open(histories, columns, added)
            if histories
            else Histories.none(columns, added)
        )
        kept = compared = None
        if log or parity:
            rows = LogRows(columns, trained.behaviours_read)
            kept = RequestLog(log, rows, measures) if log else None
            compared = Parity(parity, current, items, latest, rows, measures) if parity else None
        app = make_app(current, settings, measures, known, kept, compared, store)
        if with_page:
            page = Page.open(current, settings.limits, known, items, histories)
            app.include_router(page_routes(page))
        where = "{}:{}".format(*listener.getsockname())
        print(f"{current.checkpoint} of {trained.path} scores at http://{where}", flush=True)
        uvicorn.Server(
            uvicorn.Config(
                app,
                http=heads_within(settings.timeout_s),
                log_config=None,
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=END_S,
            )
        ).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; InputError if it cannot be had."""
    # Of this protocol by name: else asyncio lets the kernel hold answers back, for 40 ms each.
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, 0, *kind)
        listener = socket.socket(family, *kind)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host must be an address of this machine, got {host}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        rule = f"host and port must be free to listen at, got {host} {port}"
        raise InputError(f"{rule}: {error}") from error
    return listener
