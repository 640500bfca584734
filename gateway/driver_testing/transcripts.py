"""Transcripts: driver tests as data.

    transcript = load(Path("tests/acme-glucose/morning.transcript"))
    check_transcript(transcript)

A transcript is a text file. Each line is a comment (`#`), empty, or one of

    option KEY = VALUE   a setting of the driver, as in TOML
    datagrams            each step is one datagram: it is never cut, and noise comes between them
    unchecked            some values here stand in no frame with check characters: a changed byte may change them
    line TEXT            the Device sends TEXT and CR LF
    text TEXT            the Device sends TEXT alone
    bytes BYTES          the Device sends these bytes
    repeat N BYTES       ... N times
    file NAME            the Device sends the bytes of a file beside the transcript; of *.hex the bytes written in it
    wait SECONDS         time passes; the Session is ticked when its deadline comes
    says BYTES           the Session must have said exactly this since the last `says`; `answers` is the same word
    settle ok            the oldest Reading taken and not settled yet is on disk; `settle failed`: it is not
    notice TEXT          the Session's notice must contain TEXT; alone: it must have none
    reads RESULTS        the next Reading must hold these Results, written as below
    faults TEXT          the next Reading must be quarantined and its fault contain TEXT

BYTES are hex digits and quoted ASCII text, in any mixture: `1b "51" 6C 0d`.

A Result is written `spo2=98 pulse_rate_spo2=130[H,QUES] x_thing=!OFF ecg_wave_ii~1,2,!,4@0.004; CODE CODE!high/start;
device time; patient`: the observations with their flags or the reason of their absence and the waves, then the
conditions, then the device time, then the patient id. Parts at the end that are empty are left out. Several Results
of one Reading stand with ` | ` between them; a Reading without any is `nothing`.

A wave is `key~samples@period_s`, `!` for a sample that is none; of more than eight samples the first four, the last
four and their number: `~1,2,3,4..9,9,9,9#64@0.004`; `[gap]` after it tells that samples before it were lost. A
condition is its code; an alarm's priority follows after `!`, its phase after `/`, and `(silenced)`.

Readings are compared when the transcript has ended. The driver is the one that the folder is called by.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gateway.driver import Condition, Driver, Session, Wave
from gateway.model import Observation, Reading, Result
from gateway.registry import create_driver

SAMPLES_SHOWN_MAX = 8
_SILENT = frozenset({"wait", "says", "answers", "settle", "notice", "reads", "faults"})
_BYTES = re.compile(r"""\s*(?:"(?P<text>[^"]*)"|(?P<hex>(?:[0-9A-Fa-f]{2})+)(?=[\s"]|$))""")


@dataclass(kw_only=True, eq=False)
class Transcript:
    """What happened between a Device and the gateway; `drivers` takes the place of the installed ones."""

    path: Path
    driver: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: list[tuple[str, str]] = field(default_factory=list)
    datagrams: bool = False
    checked: bool = True
    drivers: Mapping[str, type[Driver]] | None = None

    @property
    def pieces(self) -> list[bytes]:
        """What the Device sends, step by step."""
        return [sent for word, rest in self.steps if (sent := self.sent_by(word, rest))]

    @property
    def sent(self) -> bytes:
        """All that the Device sends."""
        return b"".join(self.pieces)

    def create(self) -> Driver:
        """Return the driver with the transcript's options. Raises AssertionError where there is any fault."""
        driver, faults = create_driver(self.driver, self.options, drivers=self.drivers)
        assert driver is not None, faults
        return driver

    def sent_by(self, word: str, rest: str) -> bytes:
        """Return what the Device sends in one step, b"" in others. Raises ValueError for a word that is none."""
        match word:
            case "line":
                return rest.encode("ascii") + b"\r\n"
            case "text":
                return rest.encode("ascii")
            case "bytes":
                return written_bytes(rest)
            case "repeat":
                times, _, digits = rest.partition(" ")
                return int(times) * written_bytes(digits)
            case "file":
                path = self.path.parent / rest.strip()
                return bytes.fromhex(path.read_text("ascii")) if path.suffix == ".hex" else path.read_bytes()
        if word in _SILENT:
            return b""
        raise ValueError(f"unknown step {word!r}")


def load_all(folder: Path, drivers: Mapping[str, type[Driver]] | None = None) -> list[Transcript]:
    """Return the transcripts in the folders below this one, each named after its driver."""
    return [load(path, drivers) for path in sorted(folder.glob("*/*.transcript"))]


def load(path: Path, drivers: Mapping[str, type[Driver]] | None = None) -> Transcript:
    """Read one transcript; `drivers` takes the place of the installed ones."""
    found = Transcript(path=path, driver=path.parent.name, drivers=drivers)
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        match word:
            case "option":
                found.options |= tomllib.loads(rest)
            case "datagrams":
                found.datagrams = True
            case "unchecked":
                found.checked = False
            case _:
                found.steps.append((word, rest))
    return found


def written_bytes(text: str) -> bytes:
    """Return the bytes of hex digits and quoted text. Raises ValueError for anything else."""
    found, at, text = b"", 0, text.strip()
    while at < len(text):
        match = _BYTES.match(text, at)
        if match is None:
            raise ValueError(f"expected hex digits or quoted text, got {text[at:]!r}")
        found += match["text"].encode("ascii") if match["hex"] is None else bytes.fromhex(match["hex"])
        at = match.end()
    return found


def check_transcript(transcript: Transcript) -> None:
    """Raise AssertionError when a driver says or reads anything else than the transcript tells."""
    expected, read = play(transcript)
    assert read == expected, f"{transcript.path.name}:\n{_differences(expected, read)}"


def _differences(expected: Iterable[str], read: Iterable[str]) -> str:
    pairs = list(zip_longest(expected, read, fillvalue="nothing more"))
    return "\n".join(f"expected {want}\n     got {got}" for want, got in pairs if want != got)


def play(transcript: Transcript) -> tuple[list[str], list[str]]:
    """Run a transcript; return what was expected and what was read, one text for each Reading.

    Raises AssertionError when the Session says anything else than the transcript tells.
    """
    session, now = transcript.create().open(), 0.0
    expected: list[str] = []
    readings: list[Reading] = []
    for word, rest in transcript.steps:
        match word:
            case "wait":
                now = pass_time(session, now, float(rest))
            case "says" | "answers":
                _tick_if_due(session, now)
                said = session.take_output()
                assert said == (wanted := written_bytes(rest)), f"said {said.hex(' ')}, expected {wanted.hex(' ')}"
            case "settle":
                session.settle({"ok": True, "failed": False}[rest.strip()], now)
            case "notice":
                _tick_if_due(session, now)
                notice = session.notice
                assert rest in (notice or "") if rest else notice is None, f"notice {notice!r}, expected {rest!r}"
            case "reads" | "faults":
                expected.append(f"{word} {rest}")
            case _:
                session.receive(transcript.sent_by(word, rest), now)
        readings += session.take_readings()
    read = [shown(reading) for reading in readings]
    return expected, [_as_expected(text, want) for text, want in zip(read, expected, strict=False)] + read[
        len(expected) :
    ]


def _tick_if_due(session: Session, now: float) -> None:
    if session.deadline is not None and session.deadline <= now:
        session.tick(now)


def _as_expected(text: str, want: str) -> str:
    """A fault is as expected when it contains the text."""
    fault = want.removeprefix("faults ")
    return want if want != fault and text.startswith("faults ") and fault in text else text


def pass_time(session: Session, now: float, seconds: float) -> float:
    """Let seconds pass, ticking at each deadline; return what time it is then."""
    end = now + seconds
    while (due := session.deadline) is not None and due <= end:
        now = max(now, due)
        session.tick(now)
        if session.deadline is not None and session.deadline <= now:
            break
    return end


def shown(reading: Reading) -> str:
    """Return a Reading as transcripts write it."""
    if reading.fault is not None:
        return f"faults {reading.fault}"
    return f"reads {' | '.join(map(shown_result, reading.results)) or 'nothing'}"


def shown_result(result: Result) -> str:
    """Return a Result as transcripts write it."""
    parts = [
        " ".join([*map(_shown_observation, result.observations), *map(_shown_wave, result.waves)]),
        " ".join(map(_shown_condition, result.conditions)),
        result.device_time or "",
        result.patient_id or "",
    ]
    while parts and not parts[-1]:
        parts.pop()
    return "; ".join(parts)


def _shown_observation(item: Observation) -> str:
    if item.absent is not None:
        return f"{item.key}=!{item.absent.value}"
    return f"{item.key}={item.value}{'[' + ','.join(item.flags) + ']' if item.flags else ''}"


def _shown_wave(item: Wave) -> str:
    samples = ["!" if sample is None else str(sample) for sample in item.samples]
    told = ",".join(samples)
    if len(samples) > SAMPLES_SHOWN_MAX:
        told = f"{','.join(samples[:4])}..{','.join(samples[-4:])}#{len(samples)}"
    return f"{item.key}~{told}@{item.period_s}{'[gap]' if item.gap else ''}"


def _shown_condition(item: Condition) -> str:
    priority = f"!{item.priority.value}" if item.priority else ""
    phase = f"/{item.phase.value}" if item.phase else ""
    return f"{item.code.replace(' ', '_')}{priority}{phase}{'(silenced)' if item.silenced else ''}"
