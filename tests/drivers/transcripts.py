"""Transcripts: driver tests as data.

A transcript is a text file. Each line is a comment (`#`), empty, or one of

    option KEY = VALUE   a setting of the driver, as in TOML
    line TEXT            the Device sends TEXT and CR LF
    text TEXT            the Device sends TEXT alone
    bytes HEX            the Device sends these bytes
    repeat N HEX         ... N times
    wait SECONDS         time passes; the Session is ticked when its deadline comes
    says HEX             the Session must have said exactly this since the last `says`
    reads RESULT         the next Reading must hold one Result, written as below
    faults TEXT          the next Reading must be quarantined and its fault contain TEXT

A Result is written `spo2=98 pulse_rate_spo2=130[H,QUES] x_thing=!OFF; CODE CODE; device time`: the observations with
their flags or the reason of their absence, then the conditions, then the device time. Parts at the end that are empty
are left out. Readings are compared when the transcript has ended.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.driver import Driver, Session
from gateway.model import Observation, Reading, Result
from gateway.registry import create_driver

DRIVERS = Path(__file__).parent


@dataclass
class Transcript:
    path: Path
    driver: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        """All that the Device sends."""
        return b"".join(sent_by(word, rest) for word, rest in self.steps)

    def create(self) -> Driver:
        driver, faults = create_driver(self.driver, self.options)
        assert driver is not None, faults
        return driver


def all_transcripts() -> list[Transcript]:
    return [load(path) for path in sorted(DRIVERS.glob("*/*.transcript"))]


def load(path: Path) -> Transcript:
    found = Transcript(path=path, driver=path.parent.name)
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "option":
            found.options |= tomllib.loads(rest)
        else:
            found.steps.append((word, rest))
    return found


def sent_by(word: str, rest: str) -> bytes:
    match word:
        case "line":
            return rest.encode("ascii") + b"\r\n"
        case "text":
            return rest.encode("ascii")
        case "bytes":
            return bytes.fromhex(rest)
        case "repeat":
            times, _, digits = rest.partition(" ")
            return int(times) * bytes.fromhex(digits)
        case "wait" | "says" | "reads" | "faults":
            return b""
    raise ValueError(f"unknown step {word!r}")


def play(transcript: Transcript) -> tuple[list[str], list[str]]:
    """Run a transcript; return what was expected and what was read, one text for each Reading."""
    session, now = transcript.create().open(), 0.0
    expected: list[str] = []
    readings: list[Reading] = []
    for word, rest in transcript.steps:
        match word:
            case "wait":
                now = pass_time(session, now, float(rest))
            case "says":
                if session.deadline is not None and session.deadline <= now:
                    session.tick(now)
                assert session.take_output().hex() == rest.replace(" ", "").lower()
            case "reads" | "faults":
                expected.append(f"{word} {rest}")
            case _:
                session.receive(sent_by(word, rest), now)
        readings += session.take_readings()
    read = [shown(reading) for reading in readings]
    return expected, [_as_expected(text, want) for text, want in zip(read, expected, strict=False)] + read[
        len(expected) :
    ]


def _as_expected(text: str, want: str) -> str:
    """A fault is as expected when it contains the text."""
    fault = want.removeprefix("faults ")
    return want if want != fault and text.startswith("faults ") and fault in text else text


def pass_time(session: Session, now: float, seconds: float) -> float:
    end = now + seconds
    while (due := session.deadline) is not None and due <= end:
        now = max(now, due)
        session.tick(now)
        if session.deadline is not None and session.deadline <= now:
            break
    return end


def shown(reading: Reading) -> str:
    if reading.fault is not None:
        return f"faults {reading.fault}"
    (result,) = reading.results
    return f"reads {shown_result(result)}"


def shown_result(result: Result) -> str:
    parts = [
        " ".join(_shown_observation(item) for item in result.observations),
        " ".join(item.code.replace(" ", "_") for item in result.conditions),
        result.device_time or "",
    ]
    while not parts[-1]:
        parts.pop()
    return "; ".join(parts)


def _shown_observation(item: Observation) -> str:
    if item.absent is not None:
        return f"{item.key}=!{item.absent.value}"
    return f"{item.key}={item.value}{'[' + ','.join(item.flags) + ']' if item.flags else ''}"
