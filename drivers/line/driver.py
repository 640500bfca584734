"""Any Device that prints lines: the engineer describes them in the configuration, nobody writes code.

Lines that match no record are kept unread, unless `ignore` names them. With `poll` the Device is asked every
`poll_s`; with `transmit = false` never.
"""

import re
from dataclasses import dataclass, field
from typing import ClassVar

from drivers.line.session import PollingSession
from drivers.line.settings import Check, Codes, Field, Record
from gateway.driver import (
    About,
    Condition,
    ContentError,
    DeviceIdentity,
    LineSession,
    LineSettings,
    Observation,
    Result,
    Session,
    observe,
)

LINE_BYTES_MAX = 400


@dataclass(frozen=True, kw_only=True)
class Line:
    """Settings of a `line` source: what the Device is, how its lines end and are checked, and what stands in them.

    `poll` and `terminator` may hold the escapes of a TOML text (`\\r`, `\\u001b`).
    """

    about: ClassVar[About] = About(
        name="line",
        summary="any Device that prints lines, described in the configuration",
        models=("any",),
        source="the Device's own interface description, carried over by the engineer",
        line=LineSettings(baud=9600),
    )

    record: tuple[Record, ...] = ()
    terminator: str = field(default="\n", metadata={"pattern": r"(?s).{1,8}", "expects": "1 to 8 characters"})
    line_bytes_max: int = field(default=LINE_BYTES_MAX, metadata={"min": 8, "max": 8192})
    check: Check | None = None
    ignore: tuple[str, ...] = ()
    encoding: str = "ascii"
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    poll: str = ""
    poll_s: float = field(default=1.0, metadata={"min": 0.05})
    transmit: bool = True

    def __post_init__(self) -> None:
        """Refuse an unknown encoding and a pattern that is none."""
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"encoding: {self.encoding!r} is unknown") from None
        for pattern in self.ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"ignore: {error}") from None

    def open(self) -> Session:
        """Start listening, and asking where there is something to ask."""
        lines = LineSession(
            _Reader(self).read,
            terminator=self.terminator.encode("latin-1", "replace"),
            line_bytes_max=self.line_bytes_max,
            first_line_dropped=not self.poll,
            ascii_only=self.encoding == "ascii",
        )
        if not (self.poll and self.transmit):
            return lines
        return PollingSession(lines, self.poll.encode(self.encoding, "replace"), self.poll_s)


class _Reader:
    """Tries the records on each line."""

    def __init__(self, driver: Line) -> None:
        self._driver = driver
        self._records = [(re.compile(record.pattern), record) for record in driver.record]
        self._ignore = [re.compile(pattern) for pattern in driver.ignore]
        self._device = DeviceIdentity(manufacturer=driver.manufacturer, model=driver.model, serial=driver.serial)
        keys = dict.fromkeys(item.key for record in driver.record for item in record.fields.values())
        self._subs = {key: f"1.1.1.{number}" for number, key in enumerate(keys, 1)}

    def read(self, line: bytes) -> tuple[Result, ...]:
        text = self._text(line)
        if any(pattern.fullmatch(text) for pattern in self._ignore):
            return ()
        if self._driver.check is not None:
            try:
                text = self._driver.check.content_of(text)
            except ValueError as error:
                raise ContentError(str(error)) from None
        for pattern, record in self._records:
            if match := pattern.fullmatch(text):
                return (self._result(match, record),)
        raise ContentError("the line matches no record")

    def _text(self, line: bytes) -> str:
        try:
            return line.decode(self._driver.encoding)
        except UnicodeDecodeError:
            raise ContentError(f"the line is not {self._driver.encoding}") from None

    def _result(self, match: re.Match[str], record: Record) -> Result:
        groups = match.groupdict()
        return Result(
            observations=tuple(
                self._observation(item, groups[name], groups.get(f"{name}_flag"))
                for name, item in record.fields.items()
                if groups[name] is not None
            ),
            conditions=tuple(
                condition
                for name, codes in record.conditions.items()
                if groups[name] is not None
                for condition in _conditions(codes, groups[name])
            ),
            device=self._device,
            device_time=(groups.get("device_time") or "").strip() or None,
            patient_id=(groups.get("patient_id") or "").strip() or None,
        )

    def _observation(self, item: Field, text: str, flag: str | None) -> Observation:
        text, sub = text.strip(), self._subs[item.key]
        flags = (found,) if (found := item.flags.get((flag or "").strip())) else ()
        unit = item.unit if item.key.startswith("x_") else None
        absent = item.reason(text)
        if absent is not None:
            return observe(item.key, None, sub=sub, absent=absent, flags=flags, method=item.method, unit=unit)
        try:
            value = item.values.get(text, text) if item.text or item.values else item.number(text)
        except ValueError as error:
            raise ContentError(f"{item.key}: {error}") from None
        return observe(item.key, value, sub=sub, flags=flags, method=item.method, episodic=item.episodic, unit=unit)


def _conditions(codes: Codes, text: str) -> list[Condition]:
    parts = text.split(codes.separator) if codes.separator else list(text)
    return [
        Condition(code=code, text=codes.meanings.get(code, code), technical=codes.technical, priority=codes.urgency)
        for part in parts
        if (code := part.strip()) not in codes.none
    ]
