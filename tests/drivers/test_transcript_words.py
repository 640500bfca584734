"""The words of transcripts themselves: what they feed, what they show, and that they can fail."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.driver import Condition, Phase, Priority, Reading, Result, observe, observe_wave
from tests.drivers.transcripts import Transcript, load, play, shown, written_bytes


@dataclass
class EchoSession:
    """Says what it hears after a second and reads each piece; its deadline is that second."""

    settled: list[bool] = field(default_factory=list)
    notice: str | None = None
    deadline: float | None = None
    _readings: list[Reading] = field(default_factory=list)
    _heard: bytes = b""
    _output: bytes = b""

    def receive(self, data: bytes, now: float) -> None:
        self._heard, self.deadline = data, now + 1
        self.notice = "demo mode" if data == b"demo" else None
        self._readings.append(Reading(raw=data, results=(Result(observations=(), device_time=data.decode()),)))

    def tick(self, now: float) -> None:
        self._output, self.deadline = self._heard, None

    def settle(self, stored: bool, now: float) -> None:
        self.settled.append(stored)

    def take_readings(self) -> list[Reading]:
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        taken, self._output = self._output, b""
        return taken


def transcript_of(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Transcript, EchoSession]:
    path = tmp_path / "echo.transcript"
    path.write_text(text)
    session = EchoSession()
    monkeypatch.setattr(Transcript, "create", lambda self: SimpleNamespace(open=lambda: session))
    return load(path), session


def test_a_conversation_is_told_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frame.hex").write_text("61 62\n63\n")
    (tmp_path / "frame.bin").write_bytes(b"xyz")
    found, session = transcript_of(
        tmp_path,
        '# a comment\nfile frame.hex\nreads ; ; abc\nsettle ok\nsays\nwait 1\nanswers 61 "bc"\n'
        'file frame.bin\nsettle failed\nreads ; ; xyz\nbytes "demo"\nnotice demo\nreads ; ; demo\ntext a\nnotice\n'
        "reads ; ; a\n",
        monkeypatch,
    )

    expected, read = play(found)

    assert expected == read
    assert session.settled == [True, False]
    assert found.sent == b"abcxyzdemoa"
    assert found.pieces == [b"abc", b"xyz", b"demo", b"a"]


@pytest.mark.parametrize("text", ["bytes 61\nwait 1\nsays 62", "bytes 61\nnotice demo", "bytes 'demo'", "sing 61"])
def test_a_transcript_that_is_wrong_fails(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = transcript_of(tmp_path, text, monkeypatch)

    with pytest.raises((AssertionError, ValueError)):
        play(found)


def test_a_transcript_may_be_one_of_datagrams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = transcript_of(tmp_path, "datagrams\nbytes 6162", monkeypatch)

    assert found.datagrams
    assert found.pieces == [b"ab"]


def test_bytes_are_hex_and_quoted_text_in_any_mixture() -> None:
    assert written_bytes(' 1b "51 a"0D0a "" ') == b"\x1b51 a\r\n"


def test_waves_and_alarms_are_shown() -> None:
    short = observe_wave("ecg_wave_ii", (1, None, 3), sub="1.1.1.1", period_s=Decimal("0.004"), gap=True)
    long = observe_wave("pleth_wave", tuple(range(64)), sub="1.1.1.2", period_s=Decimal("0.016"))
    alarm = Condition(code="SP O2", text="low", priority=Priority.HIGH, phase=Phase.START, silenced=True)
    seen = observe("spo2", Decimal(88), sub="1.1.1.3", flags=("L",))
    result = Result(observations=(seen,), waves=(short, long), conditions=(alarm,), patient_id="P1")

    assert shown(Reading(raw=b"", results=(result, Result(observations=(seen,))))) == (
        "reads spo2=88[L] ecg_wave_ii~1,!,3@0.004[gap] pleth_wave~0,1,2,3..60,61,62,63#64@0.016;"
        " SP_O2!high/start(silenced); ; P1 | spo2=88[L]"
    )
    assert shown(Reading(raw=b"")) == "reads nothing"
