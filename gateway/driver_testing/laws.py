"""What holds for every driver. Each law is a function that raises AssertionError; what it is given is drawn at random.

    how bytes are cut never matters            no bytes raise
    a changed byte never yields a value        what a Session holds is bounded
    after garbage the Device is read again     what is not stored is not acknowledged

`check_driver` and `check_laws` draw with Hypothesis; a test suite of its own may call the laws one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Protocol, cast

from gateway.driver import Driver, Session
from gateway.driver_testing.transcripts import Transcript, pass_time
from gateway.model import Reading

BUFFERED_BYTES_MAX = 4096
HELD_BYTES_MAX = 256 * 1024
FAULTS_A_MINUTE_MAX = 8  # of each of the at most three kinds that a Session gathers
FLOODS = (b"\x00", b"\xff", b"A", b"\x80", bytes(range(256)), b"\x01\x80", b"x\n")
LATER_S = 120.0  # longer than any Session waits for anything
_FLOOD_BYTES, _PIECE_BYTES = 200_000, 4000

Place = tuple[int, int]  # of a byte that is changed, anywhere, and by what it is changed (1 to 255)


class Buffering(Protocol):
    """A Session that tells how much it holds."""

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        ...


def read_all(session: Session, pieces: Iterable[bytes]) -> list[Reading]:
    """Return what is read when all comes at one instant; then time passes until nothing is gathered any more."""
    readings: list[Reading] = []
    for piece in pieces:
        session.receive(piece, 0.0)
        readings += session.take_readings()
    now = 0.0
    for _ in range(10):
        if session.deadline is None:
            break
        now = max(now, session.deadline)
        session.tick(now)
        readings += session.take_readings()
    return readings


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return bytes in pieces, cut at these places, each of them anywhere."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def sound(readings: Iterable[Reading]) -> list[Reading]:
    """Return those without a fault."""
    return [reading for reading in readings if reading.fault is None]


def cutting_never_matters(transcript: Transcript, places: Sequence[int], noise: bytes = b"", at: int = 0) -> None:
    """Read the same from bytes in pieces and at once, also with noise somewhere in them."""
    data, at = transcript.sent, at % (len(transcript.sent) + 1)
    data = data[:at] + noise + data[at:]

    assert read_all(transcript.create().open(), cut(data, places)) == read_all(transcript.create().open(), [data])


def garbage_ends(transcript: Transcript, noise: bytes) -> None:
    """Read the Device again after any noise."""
    data = transcript.pieces if transcript.datagrams else [transcript.sent]
    clean = sound(read_all(transcript.create().open(), [*data, *data]))
    per_copy = sound(read_all(transcript.create().open(), data))

    after = sound(read_all(transcript.create().open(), [*data, noise, *data, *data, *data]))

    assert len(after) >= len(per_copy)
    if len(clean) >= 2 * len(per_copy) and per_copy:
        assert after[-1].results == clean[-1].results


def changed_bytes_raise_nothing(transcript: Transcript, places: Sequence[Place]) -> None:
    """Read what a line has damaged, somehow."""
    read_all(transcript.create().open(), _changed(transcript, places))


def a_changed_byte_yields_nothing_new(transcript: Transcript, place: Place) -> None:
    """Read at worst what is read when a whole piece is lost: the check characters of its frame do not match any more.

    A lost piece may take names, scales and reasons of absence with it, so bare values are compared, and single samples.
    Pieces that a transcript shows damaged are left alone: a change might mend them. Transcripts that are `unchecked`
    need not hold it.
    """
    known = _known(transcript)
    if known.undamaged:
        number, at = known.undamaged[place[0] % len(known.undamaged)], place[0] // len(known.undamaged)
        changed = _changed(transcript, [(at * len(transcript.pieces) + number, place[1])])

        assert set(_values(read_all(transcript.create().open(), changed))) <= known.values


@dataclass(frozen=True, slots=True)
class _Known:
    """What a transcript holds: all values, whole and with any one piece missing; the pieces without a fault."""

    values: frozenset[Decimal | str | int]
    undamaged: tuple[int, ...]


@cache
def _known(transcript: Transcript) -> _Known:
    pieces = transcript.pieces
    whole = read_all(transcript.create().open(), pieces)
    without = [
        read_all(transcript.create().open(), [*pieces[:number], *pieces[number + 1 :]]) for number in range(len(pieces))
    ]
    return _Known(
        frozenset(value for readings in (whole, *without) for value in _values(readings)),
        tuple(number for number, readings in enumerate(without) if _faults(readings) >= _faults(whole)),
    )


def _faults(readings: Sequence[Reading]) -> int:
    return sum(len(reading.raw) for reading in readings if reading.fault is not None)


def no_bytes_raise(driver: Driver, pieces: Sequence[bytes], pause_s: float) -> None:
    """Take anything at any time."""
    session = driver.open()
    for number, piece in enumerate(pieces):
        now = number * pause_s
        session.receive(piece, now)
        session.tick(now)
        session.take_readings()
        session.settle(stored=number % 2 == 0, now=now)
        session.take_output()


def a_flood_is_bounded(driver: Driver, noise: bytes, buffered_bytes_max: int = BUFFERED_BYTES_MAX) -> None:
    """Hold little while a stream says the same for ever. `noise` is repeated to 200 KB."""
    session = driver.open()
    data = noise * (_FLOOD_BYTES // len(noise))
    for start in range(0, len(data), _PIECE_BYTES):
        session.receive(data[start : start + _PIECE_BYTES], start / 10_000)
        assert cast(Buffering, session).buffered_bytes < buffered_bytes_max
        assert sum(len(reading.raw) for reading in session.take_readings()) < HELD_BYTES_MAX


def noise_gives_few_faults(driver: Driver) -> None:
    """Tell of ten minutes of noise, but not of each byte."""
    session, faults = driver.open(), 0
    for second in range(600):
        session.receive(b"\xfe\x81noise \xff\r\n" * 9, float(second))
        faults += len(session.take_readings())

    assert 1 <= faults <= 3 * FAULTS_A_MINUTE_MAX


def what_is_not_stored_is_not_acknowledged(transcript: Transcript) -> int:
    """Withhold the word that the Device waits for until the disk has what it sent, whatever else happens.

    Return how many Readings were waited for.
    """
    told = 0
    pieces = transcript.pieces
    for number in range(len(pieces)):
        stored, refused, waiting = (transcript.create().open() for _ in range(3))
        if not all(_heard(session, pieces[: number + 1]) for session in (stored, refused, waiting)):
            continue
        stored.settle(stored=True, now=0.0)
        refused.settle(stored=False, now=0.0)
        said = stored.take_output()
        if not said:
            continue  # a tap: nothing is ever said
        told += 1
        assert refused.take_output() != said, "a refusal sounds like an acknowledgement"
        pass_time(waiting, 0.0, LATER_S)
        assert said not in waiting.take_output() or transcript.datagrams, "acknowledged before it was stored"
    return told


def check_driver(driver: Driver, max_examples: int = 20) -> None:
    """Hold a driver against the laws that need no transcript. Raises AssertionError."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    for noise in FLOODS:
        a_flood_is_bounded(driver, noise)
    noise_gives_few_faults(driver)

    @settings(max_examples=max_examples, deadline=None)
    @given(st.lists(st.binary(max_size=600), max_size=8), st.floats(0, 100))
    def raises_nothing(pieces: list[bytes], pause_s: float) -> None:
        no_bytes_raise(driver, pieces, pause_s)

    raises_nothing()


def check_laws(transcript: Transcript, max_examples: int = 20) -> None:
    """Hold a driver against the laws over one of its transcripts. Raises AssertionError."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    place = st.integers(0, 100_000)
    drawn = settings(max_examples=max_examples, deadline=None)

    @drawn
    @given(st.binary(max_size=300), place, st.lists(place, max_size=20), st.tuples(place, st.integers(1, 255)))
    def holds(noise: bytes, at: int, places: list[int], change: Place) -> None:
        if not transcript.datagrams:
            cutting_never_matters(transcript, places)
            cutting_never_matters(transcript, places, noise, at)
        garbage_ends(transcript, noise)
        changed_bytes_raise_nothing(transcript, [change])
        if transcript.checked:
            a_changed_byte_yields_nothing_new(transcript, change)

    holds()
    if transcript.create().about.acknowledges:
        what_is_not_stored_is_not_acknowledged(transcript)


def _changed(transcript: Transcript, places: Sequence[Place]) -> list[bytes]:
    pieces = [bytearray(piece) for piece in transcript.pieces]
    for place, change in places if pieces else ():
        piece = pieces[place % len(pieces)]
        piece[place // len(pieces) % len(piece)] ^= change
    whole = [bytes(piece) for piece in pieces]
    return whole if transcript.datagrams else [b"".join(whole)]


def _values(readings: Iterable[Reading]) -> Iterator[Decimal | str | int]:
    for result in (result for reading in readings for result in reading.results):
        yield from (seen.value for seen in result.observations if seen.value is not None)
        yield from (sample for wave in result.waves for sample in wave.samples if sample is not None)
        yield from (found.code for found in result.conditions)


def _heard(session: Session, pieces: Sequence[bytes]) -> bool:
    """Feed all pieces, settling what came of all but the last; tell whether something to settle came of that one."""
    for piece in pieces[:-1]:
        session.receive(piece, 0.0)
        for _ in session.take_readings():
            session.settle(stored=True, now=0.0)
        session.take_output()
    session.receive(pieces[-1], 0.0)
    session.take_output()
    return len(session.take_readings()) == 1
