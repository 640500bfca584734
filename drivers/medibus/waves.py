"""The curves of one Device: which are asked for, and how what comes becomes waves."""

from dataclasses import dataclass
from decimal import Context, Decimal

from drivers.medibus.content import CurveScale, read_curve_choice
from drivers.medibus.quantities import naming_of, observation
from drivers.medibus.realtime import CurveDecoder, Piece, encode_enable
from drivers.medibus.tables import CurveKind, Quantity, curves
from gateway.driver import Condition, Observation, Wave
from gateway.errors import ContentError

STREAMS_ASKED_MAX = 4  # three is what one public driver found to work; twelve is what the protocol allows
_FACTOR_DIGITS = Context(prec=9)
_MULTIPLIER_MAX = 255
_MARKS = {True: "x_medibus_inspiration_start", False: "x_medibus_expiration_start"}
_MARK_SUB = 900
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """One curve that was asked for: its scale, and of how many samples one is sent."""

    scale: CurveScale
    every: int

    @property
    def period_us(self) -> int:
        """Return the distance of the samples that come."""
        return self.scale.interval_us * self.every


class Waves:
    """Curves by name (`paw`, `flow`) or code; samples closer than `period_s` are thinned by the Device."""

    def __init__(self, wanted: tuple[str, ...], period_s: float) -> None:
        self._wanted = wanted
        self._period_us = round(period_s * 1_000_000)
        self._offered: tuple[CurveScale, ...] = ()
        self.streams: tuple[Stream, ...] = ()
        self.decoder: CurveDecoder | None = None

    @property
    def are_wanted(self) -> bool:
        """Tell whether any curve is wanted."""
        return bool(self._wanted)

    def offer(self, scales: list[CurveScale]) -> None:
        """Learn what the Device can send."""
        self._offered = tuple(scales)

    def choose(self) -> None:
        """Choose of the offered signals those that are wanted, in the order of the wish."""
        chosen: list[Stream] = []
        for wish in self._wanted:
            found = next((scale for scale in self._offered if _is(scale.code, wish)), None)
            if found is not None and all(stream.scale.code != found.code for stream in chosen):
                every = -(-self._period_us // found.interval_us)
                chosen.append(Stream(found, min(max(1, every), _MULTIPLIER_MAX)))
        self._begin(tuple(chosen[:STREAMS_ASKED_MAX]))

    def overhear(self, argument: bytes) -> None:
        """Learn from a command of another recorder what it asked for; nothing when a signal is unknown."""
        offered = {scale.code: scale for scale in self._offered}
        try:
            pairs = read_curve_choice(argument)
        except ContentError:
            pairs = []
        known = pairs if all(code in offered for code, _ in pairs) else []
        self._begin(tuple(Stream(offered[code], every) for code, every in known))

    def stop(self) -> None:
        """Forget the streams: the Device has."""
        self._begin(())

    def start(self) -> None:
        """Decode from now on: the Device has confirmed the choice. What came before were streams of another choice."""
        self.decoder = CurveDecoder([stream.period_us for stream in self.streams]) if self.streams else None

    @property
    def argument(self) -> bytes:
        """Return the argument of the command that configures the chosen streams."""
        return b"".join(b"%s%02X" % (stream.scale.code.encode("ascii"), stream.every) for stream in self.streams)

    @property
    def enabling(self) -> bytes:
        """Return the bytes that make the chosen streams flow."""
        return encode_enable(len(self.streams))

    def told(self, piece: Piece) -> tuple[tuple[Observation, ...], tuple[Condition, ...], tuple[Wave, ...]]:
        """Return the breaths marked in a piece as seconds from its beginning, no conditions, and its waves."""
        waves = tuple(
            _wave(stream, samples, piece.gap)
            for stream, samples in zip(self.streams, piece.samples, strict=True)
            if samples
        )
        return tuple(_breath(number, *mark) for number, mark in enumerate(piece.breaths)), (), waves

    def _begin(self, streams: tuple[Stream, ...]) -> None:
        self.streams = streams
        self.decoder = None


def _is(code: str, wish: str) -> bool:
    kind = curves().get(code)
    return code == wish.upper() or (kind is not None and kind.name == wish)


def _wave(stream: Stream, samples: tuple[int | None, ...], gap: bool) -> Wave:
    scale = stream.scale
    kind = curves().get(scale.code) or CurveKind("", f"x_medibus_wave_{scale.code.lower()}", "", "")
    name = naming_of(Quantity(kind.key, kind.unit or None, None, None, None, kind.text))
    return Wave(
        key=kind.key,
        sub=f"1.1.4.{int(scale.code, 16) + 1}",
        samples=samples,
        period_s=Decimal(stream.period_us) / MICROSECONDS,
        factor=_FACTOR_DIGITS.divide(scale.high - scale.low, Decimal(scale.bins)),
        offset=scale.low,
        code=name.code,
        refid=name.refid,
        unit=name.unit,
        unit_code=name.unit_code,
        unit_refid=name.unit_refid,
        gap=gap,
    )


def _breath(number: int, at_us: int, inspiration: bool) -> Observation:
    quantity = Quantity(_MARKS[inspiration], "s", None, None, None, "start of a breath's phase in this piece")
    return observation(quantity, Decimal(at_us) / MICROSECONDS, f"1.1.4.{_MARK_SUB + number}", episodic=True)
