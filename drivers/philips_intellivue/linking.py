"""Linked results: a result longer than the MTU comes in parts and is closed by an empty one (sheet section 8.3).

Parts of one result share its invoke id; results of other polls may come between them. Every part is whole in itself,
so what arrived is used also when a part is lost.
"""

from dataclasses import dataclass, field

from drivers.philips_intellivue.messages import DataMessage, Kind, PollResult

ASSEMBLIES_MAX = 8
PARTS_MAX = 16
LAST = 3  # link state of the last part; the empty result comes after it
WAIT_S = 2.0  # after the latest part


@dataclass(slots=True)
class Assembly:
    """The parts of one result so far, with their raw bytes."""

    parts: list[PollResult] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    complete: bool = True
    ended: bool = False  # the part that calls itself the last has come
    due: float = 0.0

    @property
    def raw(self) -> bytes:
        """Return the bytes of all parts."""
        return b"".join(self.raws)


class Linker:
    """Gathers linked results by invoke id; holds at most ASSEMBLIES_MAX of PARTS_MAX parts."""

    def __init__(self) -> None:
        self._open: dict[int, Assembly] = {}

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for the end of their result."""
        return sum(len(raw) for held in self._open.values() for raw in held.raws)

    @property
    def deadline(self) -> float | None:
        """Return when the oldest waiting result is given up."""
        return min((held.due for held in self._open.values()), default=None)

    def take(self, message: DataMessage, result: PollResult, raw: bytes, now: float) -> list[Assembly]:
        """Take a result or a part; return what became whole, or is given up because another took its place."""
        if message.kind != Kind.LINKED:
            return self._close(message.invoke, result, raw)
        given_up: list[Assembly] = []
        held = self._open.get(message.invoke)
        if held is not None and (_apart(held, result) or message.count == 1):
            given_up.append(self._give_up(message.invoke))
            held = None
        if held is None:
            if len(self._open) >= ASSEMBLIES_MAX:
                given_up.append(self._give_up(next(iter(self._open))))
            held = self._open[message.invoke] = Assembly()
        held.complete &= message.count == len(held.parts) + 1
        held.ended = message.link == LAST
        if len(held.parts) < PARTS_MAX:
            held.parts.append(result)
            held.raws.append(raw)
        held.due = now + WAIT_S
        return given_up

    def expire(self, now: float) -> list[Assembly]:
        """Return what was waited for in vain."""
        late = [invoke for invoke, held in self._open.items() if held.due <= now]
        return [self._give_up(invoke) for invoke in late]

    def clear(self) -> list[Assembly]:
        """Return all that waits: the monitor has begun anew."""
        return [self._give_up(invoke) for invoke in list(self._open)]

    def _close(self, invoke: int, result: PollResult, raw: bytes) -> list[Assembly]:
        held = self._open.get(invoke)
        if held is None:
            return [Assembly(parts=[result], raws=[raw])]
        if _apart(held, result):
            return [self._give_up(invoke), Assembly(parts=[result], raws=[raw])]
        del self._open[invoke]
        held.complete &= held.ended
        held.parts.append(result)
        held.raws.append(raw)
        return [held]

    def _give_up(self, invoke: int) -> Assembly:
        held = self._open.pop(invoke)
        held.complete = False
        return held


def _apart(held: Assembly, result: PollResult) -> bool:
    """Tell whether a result is another one than that whose parts are held."""
    first = held.parts[0]
    return (first.number, first.sequence, first.polled) != (result.number, result.sequence, result.polled)
