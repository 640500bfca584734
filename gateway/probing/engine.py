"""The probe itself: listens at each line setting, then, where that is allowed, asks.

    passive: 9600 8N1, then every setting that a driver names; all drivers listen at once; silence ends the sweep
    active:  one driver after the other, each at its own settings, and only those whose first words are harmless, or
             the one that a person insists on; first who answers enquiries: it hears the one that nobody has answered

A Device that does not talk is silent at every setting, so silence is waited for once. All within PROBE_S.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.driver import Driver, LineSettings
from gateway.errors import LinkError
from gateway.net.opening import open_stream
from gateway.net.stream import Metered, Stream
from gateway.probing.hints import ENQ, Heard, hints_of
from gateway.probing.judging import Finding, Judge
from gateway.probing.plan import has_line, listener, settings_to_try, speaker

PROBE_S = 19.0  # all of it; a person waits
SILENT_S = 3.3  # without a byte, when it may still be asked
SILENT_ALONE_S = 9.0  # ... and when it may not: some Devices speak rarely
SPARSE_S = 3.3  # ... where bytes came at another setting: some Devices call every three seconds
LISTEN_S = 2.2  # at one setting with bytes that look like nothing
LISTEN_LONG_S = 5.5  # with bytes that look like text, or are few: a line every two seconds, the first of them cut
FEW_BYTES = 100
GARBLED_S = 0.8  # where the port counts errors, the settings are wrong
LISTEN_ONLY_S = 8.0  # where there is only one setting to listen at
ASK_S_MIN, ASK_SILENT_S_MAX = 0.8, 1.4  # without an answer
ASK_S_MAX = 6.0  # with one
IDENTITY_S = 1.5  # what a recognised Device may still say of itself
POLL_S = 0.1

Opener = Callable[[str, LineSettings], Awaitable[Stream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a probe found; `others` are drivers that read it too, less well. `hints` are for when nothing was."""

    port: str
    finding: Finding | None
    others: tuple[Finding, ...] = ()
    heard: tuple[Heard, ...] = ()
    hints: tuple[str, ...] = ()
    seconds: float = field(default=0.0)


async def probe(
    port: str,
    drivers: Iterable[type[Driver]],
    clock: Clock,
    *,
    active: bool = False,
    insisted: bool = False,
    opener: Opener = open_stream,
    budget_s: float = PROBE_S,
) -> Report:
    """Find out which of the drivers reads what stands at a port. Raises LinkError when it cannot be opened.

    `insisted`: a person has named the drivers, so that also those may ask whose questions are not called harmless.
    """
    search = _Search(port, tuple(drivers), clock, opener, budget_s, insisted=insisted)
    try:
        findings = await search.listen(may_ask=active)
        if not findings and active:
            findings = await search.ask()
    finally:
        await search.close()
    best = findings[0] if findings else None
    abouts = [driver.about for driver in search.drivers]
    return Report(
        port=port,
        finding=best,
        others=tuple(findings[1:]),
        heard=tuple(search.heard),
        hints=() if best else hints_of(search.heard, abouts, active=active and not insisted, lined=has_line(port)),
        seconds=round(clock.monotonic() - search.began, 1),
    )


class _Search:
    def __init__(
        self,
        port: str,
        drivers: tuple[type[Driver], ...],
        clock: Clock,
        opener: Opener,
        budget_s: float,
        *,
        insisted: bool,
    ) -> None:
        self.port = port
        self.drivers = drivers
        self.heard: list[Heard] = []
        self.began = clock.monotonic()
        self._clock = clock
        self._opener = opener
        self._insisted = insisted
        self._spoken: list[Judge] = []  # at the port as it is open
        self._until = self.began + budget_s
        self._stream: Stream | None = None
        self._line: LineSettings | None = None

    def left_s(self) -> float:
        return self._until - self._clock.monotonic()

    async def listen(self, *, may_ask: bool) -> list[Finding]:
        """Listen at every setting until somebody is recognised or all is silent."""
        listeners = [made for driver in self.drivers if (made := listener(driver)) is not None]
        settings = settings_to_try(made.about for made in listeners)
        settings = settings if has_line(self.port) else settings[:1]
        reserve_s = self._asking_s() if may_ask else 0.0
        silent_s = SILENT_S if may_ask else SILENT_ALONE_S
        for line in settings:
            judges = [Judge(made, line, passive=True) for made in listeners]
            patience = _Patience(silent_s=silent_s, only=len(settings) == 1, end=self._until - reserve_s)
            await self._stay(line, judges, patience)
            if findings := _ranked(judges):
                return findings
            if not any(one.size for one in self.heard) or self.left_s() - reserve_s < LISTEN_S:
                break
            silent_s = SPARSE_S
        return []

    async def ask(self) -> list[Finding]:
        """Let one driver after the other ask, each at its own settings; who has asked there goes on listening."""
        tries, asked = self._tries(), dict[LineSettings, list[Judge]]()
        talkative = any(one.size for one in self.heard)  # of itself: what comes is no answer
        for number, (made, line) in enumerate(tries):
            if (left_s := self.left_s()) < ASK_S_MIN / 2:
                break
            share_s = max(ASK_S_MIN, left_s / (len(tries) - number))
            judge = Judge(made, line, passive=False)
            is_called = self._enquires(line) and made.about.acknowledges
            if is_called:
                judge.hear(ENQ, self._clock.monotonic())
            silent_s, ask_s = min(ASK_SILENT_S_MAX, share_s), share_s if talkative and not is_called else ASK_S_MAX
            judges = asked.setdefault(line, [])
            for other in judges:
                other.hush()
            judges.append(judge)
            end = self._clock.monotonic() + min(left_s, ask_s)
            await self._stay(line, judges, _Patience(silent_s=silent_s, only=True, end=end), speaks=judge)
            if findings := _ranked(judges):
                return findings
        return []

    def _enquires(self, line: LineSettings) -> bool:
        """Tell whether an enquiry was heard last at this setting: nobody has answered it."""
        return next((heard.calls for heard in reversed(self.heard) if heard.line == line), False)

    def _tries(self) -> list[tuple[Driver, LineSettings]]:
        made_ones = (speaker(driver, insisted=self._insisted) for driver in self.drivers)
        speakers = sorted((made for made in made_ones if made is not None), key=lambda one: not one.about.acknowledges)
        if not has_line(self.port):
            return [(made, LineSettings()) for made in speakers]
        first = [(made, made.about.line) for made in speakers]
        return first + [(made, line) for made in speakers for line in made.about.other_lines]

    def _asking_s(self) -> float:
        return min(len(self._tries()) * ASK_SILENT_S_MAX + ASK_S_MAX, (self._until - self.began) * 0.6)

    async def close(self) -> None:
        """Take leave of whoever was spoken to, and let go of the port."""
        stream, self._stream = self._stream, None
        spoken, self._spoken = self._spoken, []
        if stream is None:
            return
        with suppress(LinkError):
            for judge in spoken:
                if last := judge.part():
                    await stream.write(last)
        await stream.close()

    async def _open(self, line: LineSettings) -> Stream:
        """Return the port at these settings; it stays open while they stay the same, so that no answer is missed."""
        if self._stream is None or self._line != line:
            await self.close()
            self._stream, self._line = await self._opener(self.port, line), line
        return self._stream

    async def _stay(
        self, line: LineSettings, judges: Sequence[Judge], patience: "_Patience", speaks: Judge | None = None
    ) -> None:
        """Stay at one setting until somebody is recognised or patience ends."""
        stream = await self._open(line)
        self._spoken += [] if speaks is None else [speaks]
        heard = Heard(line=line)
        self.heard.append(heard)
        began, errors_before = self._clock.monotonic(), _errors(stream)
        identity_until: float | None = None
        try:
            while (now := self._clock.monotonic()) < patience.until(began, heard) or identity_until is not None:
                if identity_until is None and any(judge.finding() for judge in judges):
                    identity_until = min(now + IDENTITY_S, self._until)
                if identity_until is not None and (now >= identity_until or _is_named(judges)):
                    break
                await self._step(stream, judges, heard)
                heard.errors = _errors(stream) - errors_before
            if isinstance(stream, Metered):
                heard.state = stream.line_state()
        except LinkError as error:
            heard.ended = str(error)
            await self.close()
        heard.seconds = round(self._clock.monotonic() - began, 1)

    async def _step(self, stream: Stream, judges: Sequence[Judge], heard: Heard) -> None:
        for judge in judges:
            if said := judge.say():
                await stream.write(said)
        try:
            async with asyncio.timeout(POLL_S):
                data = await stream.read()
        except TimeoutError:
            data = None
        now = self._clock.monotonic()
        if data == b"":
            raise LinkError("closed by the other side")
        if data:
            heard.add(data)
        for judge in judges:
            if data:
                judge.hear(data, now)
            judge.tick(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patience:
    """How long to stay at a setting."""

    silent_s: float
    only: bool
    end: float

    def until(self, began: float, heard: Heard) -> float:
        if not heard.size:
            return min(self.end, began + self.silent_s)
        if heard.is_garbled:
            return min(self.end, began + GARBLED_S)
        promising = heard.looks_like_text or heard.size < FEW_BYTES
        long_s = LISTEN_ONLY_S if self.only else LISTEN_LONG_S if promising else LISTEN_S
        return min(self.end, began + max(long_s, self.silent_s if self.only else 0.0))


def _errors(stream: Stream) -> int:
    """Return the framing and parity errors that a port has ever counted, 0 where it counts none."""
    state = stream.line_state() if isinstance(stream, Metered) else None
    return 0 if state is None else (state.framing_errors or 0) + (state.parity_errors or 0)


def _ranked(judges: Iterable[Judge]) -> list[Finding]:
    findings = [finding for judge in judges if (finding := judge.finding()) is not None]
    return sorted(findings, key=lambda one: (-one.share, -one.readings))


def _is_named(judges: Iterable[Judge]) -> bool:
    return any(finding.device.model for finding in _ranked(judges)[:1])
