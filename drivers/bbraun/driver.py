"""B. Braun Space pumps behind a SpaceStation (SpaceCom), Battery Pack SP WiFi, or Compact plus: BCC, read only.

    opened --ADMIN:ALIVE (bed 1)--> bed known --ADMIN:VERSION, MEM:GET--> MEM:GET every `cycle_s`

Only the four requests of the specification's reading part are ever said. Each pump of the rack is a Result of its own;
which parameters come is set on the rack's web page: whatever comes is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from drivers.bbraun.frames import ACK, EOT, FIRST_BED, FRAME_BYTES_MAX, NAK, SOH, read_frame, write_frame
from drivers.bbraun.reading import Pumps
from gateway.driver import About, LineSettings, Result, Session
from gateway.protocols.asking import AskingSession, Heard

REPLY_TIMEOUT_S = 2.0
WRONG_CHECK = "length or checksum of a frame is wrong: stuffing set as on the rack?"
ALIVE, VERSION, ALL = "ADMIN:ALIVE", "ADMIN:VERSION", "MEM:GET"


@dataclass(frozen=True, kw_only=True)
class BBraun:
    """Settings of a B. Braun source: seconds between two looks, and whether the rack stuffs characters (default on).

    `cyclic` true is for racks that send by themselves (BCC 3.30 and newer): blocks are acknowledged, nothing is asked.
    """

    about: ClassVar[About] = About(
        name="bbraun",
        summary="B. Braun Space and Compact plus pumps, BCC, read only",
        models=("Infusomat Space", "Infusomat Space P", "Perfusor Space", "Perfusor/Infusomat Compact plus"),
        source="B. Braun Technical Interface Specification BCC 3.25/3.26, Version 4.0 (I0022_000030)",
        unverified=(
            "no capture exists: frames of the manual, whose bed id was replaced for print, and computed ones",
            "unit codes 97 to 152 (per square metre, mIU, kIU, MIU, kcal): passed without unit",
            "cyclic mode",
        ),
        line=LineSettings(baud=9600),
        other_lines=tuple(LineSettings(baud=baud) for baud in (19200, 38400, 57600, 115200)),
        silence_s=30.0,
        talks=False,
        harmless_polls=True,
    )

    cycle_s: float = field(default=5.0, metadata={"min": 0.5})
    stuffing: bool = True
    cyclic: bool = False
    transmit: bool = True

    def open(self) -> Session:
        """Start asking."""
        return AskingSession(Rack(self), cycle_s=self.cycle_s, reply_timeout_s=REPLY_TIMEOUT_S, transmit=self.transmit)


class Rack:
    """The conversation with one ComDevice; a `Dialogue`."""

    def __init__(self, driver: BBraun) -> None:
        """Take the settings."""
        self._stuffing = driver.stuffing
        self._cyclic = driver.cyclic
        self._bed = FIRST_BED
        self._greeting = False
        self._pumps = Pumps()

    def greeting(self) -> Sequence[bytes]:
        """Ask whether it lives: the answer tells the bed's id."""
        if self._cyclic:
            return ()
        self._bed, self._greeting = FIRST_BED, True
        return [self._say(ALIVE)]

    def questions(self) -> Sequence[bytes]:
        """Ask for all parameters of all pumps."""
        return [] if self._cyclic else [self._say(ALL)]

    def more(self) -> Sequence[bytes]:
        """Go on once the bed's id is known."""
        greeting, self._greeting = self._greeting, False
        return [self._say(VERSION), self._say(ALL)] if greeting else []

    def farewells(self) -> Sequence[bytes]:
        """Say nothing: a rack does not mind."""
        return ()

    def forbids(self, words: bytes) -> bool:
        """Hold back everything but acknowledgements and the reading requests."""
        if words in (ACK, NAK):
            return False
        block = read_frame(words, stuffing=self._stuffing)
        return block is None or block.information not in (ALIVE, VERSION, ALL)

    def cut(self, buffer: bytearray) -> Iterator[Heard]:
        """Take blocks off the buffer."""
        while buffer:
            start = buffer.find(SOH)
            if start != 0:
                yield _noise(buffer, start if start > 0 else len(buffer), "bytes outside of a frame")
                continue
            end, again = buffer.find(EOT), buffer.find(SOH, 1)
            if again > 0 and (end < 0 or again < end):
                yield _noise(buffer, again, "a frame broke off")
            elif end < 0 and len(buffer) > FRAME_BYTES_MAX:
                yield _noise(buffer, len(buffer), f"no end of a frame in {FRAME_BYTES_MAX} bytes")
            elif end < 0:
                return
            else:
                yield self._block(buffer, end + 1)

    def read(self, content: bytes) -> None:
        """Take the quadruples of one block. Raises ContentError."""
        self._pumps.read(content.decode("utf-8"))

    def results(self) -> tuple[Result, ...]:
        """Return a Result for each pump."""
        return self._pumps.take_results()

    def _say(self, information: str) -> bytes:
        return write_frame(self._bed, information, stuffing=self._stuffing)

    def _block(self, buffer: bytearray, end: int) -> Heard:
        raw = bytes(buffer[:end])
        block = read_frame(raw, stuffing=self._stuffing)
        del buffer[:end]
        if block is None:
            return Heard(raw=raw, fault=WRONG_CHECK, reply=NAK)
        self._bed = block.bed
        return Heard(
            raw=raw, content=block.information.encode("utf-8"), reply=ACK, ends=self._cyclic or not block.continued
        )


def _noise(buffer: bytearray, size: int, why: str) -> Heard:
    raw = bytes(buffer[:size])
    del buffer[:size]
    return Heard(raw=raw, fault=why)
