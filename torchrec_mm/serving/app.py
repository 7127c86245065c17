"""HTTP in front of a scorer: scores, health, readiness, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.errors import InputError
from torchrec_mm.serving import wire
from torchrec_mm.serving.additions import body as additions
from torchrec_mm.serving.additions.body import Deletion
from torchrec_mm.serving.additions.commits import Commits
from torchrec_mm.serving.additions.store import AddedBehaviours, Unkept
from torchrec_mm.serving.arrow_body import read_arrow
from torchrec_mm.serving.batcher import MicroBatcher, Refused
from torchrec_mm.serving.current import Current, Following
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.parity import Parity
from torchrec_mm.serving.receive import Gone, Turned, received, until_gone
from torchrec_mm.serving.request_log.rows import Answered
from torchrec_mm.serving.request_log.writer import RequestLog
from torchrec_mm.serving.schema import (
    DELETED,
    addition_operation,
    deletion_operation,
    score_operation,
)

RETRY_S = "1"


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """What a server takes and how it batches.

    limits: of a body. timeout_s: from the first byte of a body to the answer. batch_candidates,
    queue_candidates: see ``MicroBatcher``. reload_s: between two looks for a newer checkpoint, 0 to
    stay with the first.
    """

    limits: wire.Limits
    timeout_s: float
    batch_candidates: int
    queue_candidates: int
    reload_s: float


def make_app(
    current: Current,
    settings: ServingSettings,
    measures: Measures,
    histories: Histories,
    log: RequestLog | None = None,
    parity: Parity | None = None,
    store: AddedBehaviours | None = None,
) -> FastAPI:
    """The application. It begins to follow the run's checkpoints when it is started.

    ``store``: of behaviours that clients add, closed in the end; None: they may not.
    """
    server = _Server(current, settings, measures, histories, log, parity)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(log or nullcontext())  # these end after the last answer
            stack.enter_context(parity or nullcontext())
            if store:
                server.commits = app.state.commits = Commits(store)
                stack.push_async_callback(server.commits.stop)
            server.begin()
            stack.push_async_callback(server.end)
            if settings.reload_s:
                stack.enter_context(Following(current, settings.reload_s))
            yield

    app = FastAPI(title="torchrec_mm scorer", lifespan=running, docs_url=None, redoc_url=None)
    operation = score_operation(current.scorer.encoder.columns, settings.limits)

    @app.post("/score", openapi_extra=operation["extra"], responses=operation["responses"])
    async def score(request: Request) -> Response:
        """Click probabilities of each request's candidates, in their order."""
        return await server.score(request)

    if store:
        adding = addition_operation(current.scorer.encoder.columns, settings.limits)

        @app.post("/behaviours", openapi_extra=adding["extra"], responses=adding["responses"])
        async def behaviours(request: Request) -> Response:
            """Behaviours of users, each kept once; those of the next requests that bring none."""
            return await server.add(request)

        deleting = deletion_operation()

        @app.delete(
            "/behaviours/{user_id}",
            openapi_extra=deleting["extra"],
            responses=deleting["responses"],
        )
        async def forget(request: Request) -> Response:
            """Forget what a user did up to now, and what a folder of histories says of it."""
            return await server.delete(request.path_params[USER_ID])

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @app.get("/ready", responses={503: {"description": "not now"}})
    async def ready() -> Response:
        """Whether requests should be sent here, and what scores them."""
        return server.ready()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus's text format."""
        return server.metrics()

    return app


class _Server:
    """What the routes do."""

    def __init__(
        self,
        current: Current,
        settings: ServingSettings,
        measures: Measures,
        histories: Histories,
        log: RequestLog | None,
        parity: Parity | None,
    ) -> None:
        self.current, self.settings, self.measures = current, settings, measures
        self.histories, self.log, self.parity = histories, log, parity
        self.batcher: MicroBatcher | None = None
        self.commits: Commits | None = None

    def begin(self) -> None:
        """In the event loop."""
        self.batcher = MicroBatcher(
            self.current.score,
            batch_candidates=self.settings.batch_candidates,
            queue_candidates=self.settings.queue_candidates,
            observed=self.measures.observe_batch,
        )
        self.batcher.start()

    async def end(self) -> None:
        """Answer what waits."""
        batcher, self.batcher = self.batcher, None
        assert batcher is not None  # it was begun
        await batcher.stop()

    def ready(self) -> Response:
        if self.batcher is None or self.batcher.queued >= self.settings.queue_candidates:
            return self._answer(503, "not ready")
        return Response(wire.write_status(self.current.checkpoint), media_type=wire.JSON)

    def metrics(self) -> Response:
        self.measures.queued.set(self.batcher.queued if self.batcher else 0)
        return Response(self.measures.page(), media_type=CONTENT_TYPE_LATEST)

    async def score(self, request: Request) -> Response:
        try:
            self._scoring().check_room()
        except Refused as error:
            return self._busy(error)
        try:
            kind, body = await received(
                request, self.settings.limits.bytes, self.settings.timeout_s
            )
        except Turned as turned:
            return self._turned(turned)
        start = time.monotonic()
        try:
            asked = self._parsed(body, kind)
            moment = self.parity.moment() if self.parity else None
            found, checkpoint = await self._asked(request, asked.requests)
        except InputError as error:
            return self._answer(422, " ".join(str(error).split()))
        except Refused as error:
            return self._busy(error)
        except Gone:
            self.measures.gone.inc()
            return self._answer(503, "the client has gone")
        except FloatingPointError as error:
            return self._answer(500, str(error))
        write = wire.write_arrow if kind == wire.ARROW else wire.write_json
        each = np.split(found, asked.requests.candidates.offsets[1:-1])
        answer = Response(write(each, asked.request_ids, checkpoint), media_type=kind)
        if self.log or self.parity:
            answered = Answered(asked.table, asked.request_ids, found, checkpoint, time.time())
            if self.log:
                self.log.add(answered)
            if self.parity:
                self.parity.add(answered, moment)
        self.measures.answers.labels("200").inc()
        self.measures.seconds.observe(time.monotonic() - start)
        return answer

    async def add(self, request: Request) -> Response:
        assert self.commits is not None  # else there is no such route
        columns = self.current.scorer.encoder.columns
        try:
            kind, body = await received(
                request, self.settings.limits.bytes, self.settings.timeout_s
            )
            table = read_arrow(body) if kind == wire.ARROW else additions.read_json(body, columns)
            given = additions.parse(table, columns, self.settings.limits)
            outcome = await self.commits.add(given)
        except Turned as turned:
            return self._turned(turned)
        except InputError as error:
            return self._answer(422, " ".join(str(error).split()))
        except (Refused, Unkept) as error:
            return self._busy(error)
        counts = asdict(outcome)
        for name, count in counts.items():
            self.measures.behaviours.labels(name).inc(count)
        self.measures.answers.labels("200").inc()
        return Response(wire.write_counts(counts), media_type=wire.JSON)

    async def delete(self, user: str) -> Response:
        assert self.commits is not None  # else there is no such route
        try:
            deletion = Deletion(whole_number(USER_ID, user), int(time.time()))
            count = await self.commits.delete(deletion)
        except InputError as error:
            return self._answer(422, " ".join(str(error).split()))
        except (Refused, Unkept) as error:
            return self._busy(error)
        self.measures.behaviours.labels(DELETED).inc(count)
        self.measures.answers.labels("200").inc()
        return Response(wire.write_counts({DELETED: count}), media_type=wire.JSON)

    def _parsed(self, body: bytes, kind: str) -> wire.Asked:
        encoder = self.current.scorer.encoder
        columns, limits = encoder.columns, self.settings.limits
        table = read_arrow(body) if kind == wire.ARROW else wire.read_json(body, columns)
        most = encoder.max_behaviours
        return wire.parse(table, columns, limits, most, self.histories)

    async def _asked(self, request: Request, requests: Requests) -> tuple[np.ndarray, str]:
        """Scores, unless the client goes away first."""
        asked = asyncio.ensure_future(self._scoring().ask(requests, self.settings.timeout_s))
        gone = asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Gone
            return asked.result()
        finally:
            for task in (asked, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    def _scoring(self) -> MicroBatcher:
        if self.batcher is None:
            raise Refused("the server is ending")
        return self.batcher

    def _busy(self, error: Refused | Unkept) -> Response:
        return self._answer(503, str(error), {"retry-after": RETRY_S})

    def _turned(self, turned: Turned) -> Response:
        if turned.is_gone:
            self.measures.gone.inc()
        return self._answer(turned.status, turned.said)

    def _answer(self, status: int, said: str, headers: dict[str, str] | None = None) -> Response:
        self.measures.answers.labels(str(status)).inc()
        body = wire.write_error(said)
        return Response(body, status_code=status, media_type=wire.JSON, headers=headers)


def whole_number(name: str, given: str) -> int:
    """An int64 as a path writes it; InputError."""
    digits = given.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= len(str(2**63))
    if not is_number or not -(2**63) <= int(given) < 2**63:
        raise InputError(f"{name} must be a whole number of 64 bits, got {given[:100]}")
    return int(given)
