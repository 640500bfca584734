"""What operators do, checked and carried out on the store: retry, discard, resend, acknowledge.

The same functions serve the running agent (through its control socket) and the commands that open the store
themselves while no agent runs. Each act is one transaction with its row in the audit trail; `retry` of everything
goes in pieces, so that intake never waits for more than one of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from gateway.config import Config, carried_by, takes_steps
from gateway.errors import StoreError
from gateway.store.reading import destinations_of, message_kind, parked_ids
from gateway.store.store import CALL_TIMEOUT_S, Store
from gateway.typed import did_you_mean

RETRY_PIECE = 500
IDS_MAX = 10_000

_TEXT = {"pattern": r"[^\x00-\x1f\x7f]{1,500}", "expects": "1 to 500 characters on one line"}


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Send these Deliveries again now, or all parked ones (of one Destination)."""

    who: str = field(metadata=_TEXT)
    ids: tuple[int, ...] = ()
    all: bool = False
    destination: str | None = None

    def __post_init__(self) -> None:
        if bool(self.ids) == self.all:
            raise ValueError("expected numbers of deliveries, or all, and not both")
        if self.destination is not None and not self.all:
            raise ValueError("a destination goes with all")
        _check_ids(self.ids)


@dataclass(frozen=True, kw_only=True)
class Discard:
    """Give these Deliveries up for good."""

    who: str = field(metadata=_TEXT)
    ids: tuple[int, ...] = field(metadata={"items_min": 1})
    why: str = field(metadata=_TEXT)

    def __post_init__(self) -> None:
        _check_ids(self.ids)


@dataclass(frozen=True, kw_only=True)
class Resend:
    """Owe a Message once more to a Destination."""

    who: str = field(metadata=_TEXT)
    message: int
    to: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """Only leave a row in the audit trail: something was done beside the store, such as a backup."""

    who: str = field(metadata=_TEXT)
    act: str = field(metadata={"pattern": r"[a-z-]{1,32}", "expects": "a word"})
    detail: str = field(metadata=_TEXT)


Act = Retry | Discard | Resend | Note
ACTS: dict[str, type[Act]] = {"retry": Retry, "discard": Discard, "resend": Resend, "note": Note}


def perform(act: Act, store: Store, config: Config, now: Callable[[], datetime]) -> dict[str, int]:
    """Carry an act out and return what it did, once it is durable. Blocks; for a worker thread.

    Raises StoreError when the act does not fit what stands (a settled Delivery, an unknown Destination), and then
    nothing is changed.
    """
    match act:
        case Retry(all=True):
            return {"changed": _retry_all(act, store, config, now)}
        case Retry():
            return {"changed": _wait(store.call(lambda c: store.acts.retry(c, act.ids, act.who, now())))}
        case Discard():
            return {"changed": _wait(store.call(lambda c: store.acts.discard(c, act.ids, act.why, act.who, now())))}
        case Resend():
            return {"delivery": _resend(act, store, config, now)}
        case Note():
            _wait(store.call(lambda c: store.acts.record(c, act.act, act.detail, act.who, now())))
            return {}


def touched(act: Act, store: Store) -> tuple[str | None, ...]:
    """Return the Destinations whose lanes must look again after an act; None stands for all. Blocks."""
    match act:
        case Retry(all=True):
            return (act.destination,)
        case Retry() | Discard():
            return tuple(destinations_of(store.readers.connection, act.ids))
        case Resend():
            return (act.to,)
        case Note():
            return ()


def _retry_all(act: Retry, store: Store, config: Config, now: Callable[[], datetime]) -> int:
    if act.destination is not None:
        _expect_destination(act.destination, config, store)
    changed, after = 0, 0
    while ids := parked_ids(store.readers.connection, act.destination, after, RETRY_PIECE):
        changed += _wait(store.call(partial(store.acts.retry, ids=ids, who=act.who, at=now())))
        after = ids[-1]
    return changed


def _resend(act: Resend, store: Store, config: Config, now: Callable[[], datetime]) -> int:
    destination = next((each for each in config.destinations if each.name == act.to), None)
    if destination is None:
        names = [each.name for each in config.destinations]
        raise StoreError(f"there is no destination {act.to!r}{did_you_mean(act.to, names)}")
    kind = message_kind(store.readers.connection, act.message)
    if kind is None:
        raise StoreError(f"there is no message {act.message}")
    if kind not in carried_by(destination.type, steps=takes_steps(destination)):
        raise StoreError(f"message {act.message} is {kind.value}, which {act.to} ({destination.type}) cannot carry")
    return _wait(store.call(lambda c: store.acts.resend(c, act.message, act.to, act.who, now())))


def _expect_destination(name: str, config: Config, store: Store) -> None:
    names = [each.name for each in config.destinations]
    if name not in names and not parked_ids(store.readers.connection, name, 0, 1):
        raise StoreError(f"there is no destination {name!r}{did_you_mean(name, names)}")


def _wait(future: "Future[int] | Future[None]") -> int:
    try:
        return future.result(CALL_TIMEOUT_S) or 0
    except TimeoutError as error:
        raise StoreError(f"the store did not commit within {CALL_TIMEOUT_S} s") from error


def _check_ids(ids: Sequence[int]) -> None:
    if len(ids) > IDS_MAX:
        raise ValueError(f"at most {IDS_MAX} deliveries in one act, got {len(ids)}")
    if any(not 0 < number < 1 << 63 for number in ids):
        raise ValueError("the number of a delivery is a positive whole number")
