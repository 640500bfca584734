"""The control API: what the commands ask of the running agent, as JSON over `<data_dir>/control.sock`.

    GET  /status                                     how the house is
    POST /retry /discard /resend /note               acts of an operator (see acts.py)
    POST /capture  {"who", "source"}                 the raw bytes of a Device as they come and go, until hung up
    POST /acknowledge  {"who", "alarm"}              a person has seen an alarm that does not end by itself
    POST /reload       {"who"}                       take the configuration files over

Answers: 200 and a document; 400 what was asked is malformed; 404; 409 it does not fit what stands; 503 the store.
Every error is `{"error": "one line"}`. The socket belongs to the agent's user (mode 0600), who is the whole
authorisation; the name that comes along is written to the audit trail with the uid that the kernel vouches for.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.app import App
from gateway.console.acts import ACTS, Act, Note, perform, touched
from gateway.console.capture import recorded_lines
from gateway.console.document import to_json
from gateway.console.report import make_report
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.store.conflicts import forget_conflicts
from gateway.store.counters import read_counters
from gateway.typed import build

BODY_BYTES_MAX = 1 << 20
# By the first word of the key; the others end by themselves when their cause does.
ACKNOWLEDGED = ("clock-stepped", "uid-conflict", "worklist-disagrees")

Reload = Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True, kw_only=True)
class Acknowledge:
    """A person has seen an alarm."""

    who: str = field(metadata=Note.__dataclass_fields__["who"].metadata)
    alarm: str


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A person wants to see a Device's bytes."""

    who: str = field(metadata=Note.__dataclass_fields__["who"].metadata)
    source: str


@dataclass(frozen=True, kw_only=True)
class ReloadOrder:
    """A person wants the files read again."""

    who: str = field(metadata=Note.__dataclass_fields__["who"].metadata)


class Refused(GatewayError):
    """What was asked is malformed."""


def control_application(app: App, reload: Reload) -> Starlette:
    """Return the application; `reload` reads the configuration and raises ConfigError or StoreError."""
    control = _Control(app, reload)
    acts = [Route(f"/{name}", control.act, methods=["POST"]) for name in ACTS]
    return Starlette(
        routes=[
            Route("/status", control.status, methods=["GET"]),
            Route("/acknowledge", control.acknowledge, methods=["POST"]),
            Route("/capture", control.capture, methods=["POST"]),
            Route("/reload", control.reload, methods=["POST"]),
            *acts,
        ],
        exception_handlers={GatewayError: _failed, TimeoutError: _failed},
    )


class _Control:
    def __init__(self, app: App, reload: Reload) -> None:
        self._app = app
        self._reload = reload

    async def status(self, request: Request) -> Response:
        return _answer(await make_report(self._app))

    async def act(self, request: Request) -> Response:
        act: Act = await _read(request, ACTS[request.url.path.strip("/")])
        act = replace(act, who=_vouched(act.who, request))
        done = await asyncio.to_thread(perform, act, self._app.store, self._app.config, self._app.clock.now)
        for destination in await asyncio.to_thread(touched, act, self._app.store):
            self._app.rewind(destination)
        await self._clear_parked()
        return _answer(done)

    async def acknowledge(self, request: Request) -> Response:
        seen: Acknowledge = await _read(request, Acknowledge)
        what, _, whom = seen.alarm.partition(":")
        if what not in ACKNOWLEDGED:
            raise Refused(f"only {', '.join(ACKNOWLEDGED)} is acknowledged; other alarms end when their cause does")
        if all(alarm.key != seen.alarm for alarm in self._app.alarms.standing()):
            raise StoreError(f"the alarm {seen.alarm} does not stand")
        note = Note(who=_vouched(seen.who, request), act="acknowledge", detail=seen.alarm)
        await asyncio.to_thread(perform, note, self._app.store, self._app.config, self._app.clock.now)
        if what == "uid-conflict":
            await asyncio.wrap_future(self._app.store.call(lambda connection: forget_conflicts(connection, whom)))
        self._app.alarms.clear(seen.alarm)
        return _answer({})

    async def capture(self, request: Request) -> Response:
        order: Capture = await _read(request, Capture)
        source = next((one for one in self._app.sources.values() if one.name == order.source), None)
        if source is None or source.type not in ("device", "sdc"):
            raise Refused(f"there is no source {order.source!r} with a device behind it")
        note = Note(who=_vouched(order.who, request), act="capture", detail=order.source)
        await asyncio.to_thread(perform, note, self._app.store, self._app.config, self._app.clock.now)
        lines = recorded_lines(source.tap, self._app.clock)
        return StreamingResponse(lines, media_type="text/plain")

    async def reload(self, request: Request) -> Response:
        order: ReloadOrder = await _read(request, ReloadOrder)
        changes = await self._reload()
        note = Note(who=_vouched(order.who, request), act="reload", detail=f"{len(changes)} changes")
        await asyncio.to_thread(perform, note, self._app.store, self._app.config, self._app.clock.now)
        return _answer({"changes": changes})

    async def _clear_parked(self) -> None:
        totals = await asyncio.to_thread(lambda: read_counters(self._app.store.readers.connection))
        for name in self._app.destinations:
            if totals.get(("destination", name), {}).get("parked", 0) == 0:
                self._app.alarms.clear(f"parked:{name}")


async def _read(request: Request, wanted: type[Any]) -> Any:
    """Return the body as a value of the wanted dataclass. Raises Refused."""
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > BODY_BYTES_MAX:
            raise Refused(f"more than {BODY_BYTES_MAX} bytes")
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON") from None
    value, faults = build(wanted, table)
    if value is None:
        raise Refused("; ".join(map(str, faults)))
    return value


def _vouched(who: str, request: Request) -> str:
    return f"{who} ({request.client.host})" if request.client is not None else who


def _answer(document: object, status: int = 200) -> Response:
    return Response(to_json(document), status, media_type="application/json")


async def _failed(request: Request, error: Exception) -> Response:
    match error:
        case Refused():
            return _answer({"error": str(error)}, 400)
        case ConfigError():
            return _answer({"error": "the configuration is at fault", "faults": error.faults}, 422)
        case GatewayError():
            return _answer({"error": str(error)}, 409)
    return _answer({"error": "the store did not answer in time"}, 503)
