"""What a driver makes of bytes that were heard: recognised, or not.

A driver is recognised when its Session reads Results of SOUND_BYTES_MIN together, and they are a fair share of what was
heard: noise now and then looks like a value of a protocol without checksums, but never for long. Or the bytes bear one
of the signs that a Device of this driver sends while nobody answers it (`About.signs`).
"""

import re
from dataclasses import dataclass, field, fields, replace

from gateway.driver import About, Driver, LineSettings, Parting, Session
from gateway.model import DeviceIdentity, Reading

SHARE_MIN = 0.25  # of the bytes heard
LEAD_BYTES = 400  # ... but for so many, which may be a heading and the end of what was never heard from its start
SOUND_BYTES_MIN = 20  # five sets of Nonin's format 8, the least proof of all: one in a million in noise
SIGN_BYTES_MAX = 4096
KEYS_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A recognised Device: who reads it, at which line settings, and what it told of itself.

    `passive` tells that nothing was said to it; `keys` are the first quantities that were read.
    """

    driver: str
    summary: str
    line: LineSettings
    passive: bool
    readings: int
    share: float
    device: DeviceIdentity = field(default_factory=DeviceIdentity)
    keys: tuple[str, ...] = ()
    notice: str | None = None


class Judge:
    """One driver's Session on the bytes of one line."""

    def __init__(self, driver: Driver, line: LineSettings, *, passive: bool) -> None:
        self.about: About = driver.about
        self._session: Session = driver.open()
        self._line = line
        self._passive = passive
        self._hushed = False
        self._heard = 0
        self._sound = 0
        self._readings = 0
        self._device = DeviceIdentity()
        self._keys: dict[str, None] = {}
        self._tail = b""
        self._signs = 0

    @property
    def deadline(self) -> float | None:
        """Return when to tick."""
        return self._session.deadline

    def hear(self, data: bytes, now: float) -> None:
        """Take bytes."""
        self._heard += len(data)
        self._look_for_signs(data)
        self._session.receive(data, now)
        self._take(now)

    def tick(self, now: float) -> None:
        """Let the Session's time pass."""
        if self._session.deadline is not None and now >= self._session.deadline:
            self._session.tick(now)
            self._take(now)

    def say(self) -> bytes:
        """Return what the Session wants to say; a passive or hushed one is never heard."""
        said = self._session.take_output()
        return b"" if self._passive or self._hushed else said

    def part(self) -> bytes:
        """Return the last words to a Device that was spoken to: it must not miss us."""
        if self._passive or not isinstance(self._session, Parting):
            return b""
        self._session.part()
        return self._session.take_output()

    def hush(self) -> None:
        """Let the Session go on listening, and say nothing more: its answer may be late."""
        self._hushed = True

    def finding(self) -> Finding | None:
        """Return the recognised Device, None while it is not."""
        notice = self._session.notice
        share = self._sound / max(1, self._sound, self._heard - LEAD_BYTES)
        proven = self._sound >= SOUND_BYTES_MIN and share >= SHARE_MIN
        if not (proven or self._signs or notice is not None):
            return None
        known = sorted(self._keys, key=lambda key: key.startswith("x_"))  # the standard's before the vendor's own
        return Finding(
            driver=self.about.name,
            summary=self.about.summary,
            line=self._line,
            passive=self._passive,
            readings=self._readings,
            share=round(share, 3),
            device=self._device,
            keys=tuple(known[:KEYS_MAX]),
            notice=notice,
        )

    def _take(self, now: float) -> None:
        taken = self._session.take_readings()
        for _ in taken:
            self._session.settle(False, now)  # nothing is kept: who repeats what was refused loses nothing
        for reading in taken:
            if reading.fault is None and reading.results:
                self._credit(reading)

    def _credit(self, reading: Reading) -> None:
        self._readings += 1
        self._sound += len(reading.raw)
        for result in reading.results:
            self._device = _known(self._device, result.device)
            self._keys |= dict.fromkeys(seen.key for seen in result.observations)
            self._keys |= dict.fromkeys(wave.key for wave in result.waves)

    def _look_for_signs(self, data: bytes) -> None:
        if not self.about.signs:
            return
        self._tail = (self._tail + data)[-SIGN_BYTES_MAX:]
        tail = self._tail.decode("latin-1")
        self._signs = max(len(re.findall(sign, tail, re.DOTALL)) for sign in self.about.signs)


def _known(known: DeviceIdentity, seen: DeviceIdentity) -> DeviceIdentity:
    told = {name.name: value for name in fields(seen) if (value := getattr(seen, name.name)) is not None}
    return replace(known, **told)
