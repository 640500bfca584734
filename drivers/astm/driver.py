"""ASTM analysers: settings, and how to open a Session (CLSI LIS01-A2, LIS02-A2).

The dialects of analysers differ in a few ways that are all read without being told: ends of lines, several records in
a frame, ETB where ETX belongs, delimiters of their own. What must be told is an option.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from drivers.astm.mapping import Dialect, mark_of, results_of
from drivers.astm.other import read_mini_vidas, read_spotchem
from drivers.astm.queries import answer_to, query_of
from drivers.astm.settings import Test
from gateway.driver import About, LineSession, LineSettings, Result, Session
from gateway.laboratory import LabOrder, LabQuery
from gateway.protocols.astm import AstmSession
from gateway.protocols.border import Reader


@dataclass(frozen=True, kw_only=True)
class Astm:
    """Settings of an analyser.

    `tests` says what the analyser's tests are, over the table that comes with the driver. `patient_id_fields` are the
    fields of the P record that may hold the patient's number, the first that does counts (3 practice, 4 laboratory, 5
    third). `answer_queries` false leaves questions unanswered; `order_codes` gives the analyser's name of a test by
    the code of its orders. `transmit` false listens beside another host and says nothing.
    """

    about: ClassVar[About] = About(
        name="astm",
        summary="laboratory and point-of-care analysers, ASTM E1381/E1394 (LIS01-A2, LIS02-A2)",
        models=(
            "Radiometer ABL80, ABL735",
            "Siemens DCA Vantage",
            "Abbott Afinion 2",
            "Roche cobas c 111, c 311, e 411",
            "Sysmex XP-100, XN",
            "Cepheid GeneXpert",
            "bioMérieux mini VIDAS",
            "Arkray Spotchem EL",
            "others that follow the standard",
        ),
        source="public implementations and captures of the protocol; the standards themselves were not available",
        unverified=(
            "7 data bits and parity, frames of up to 64,000 characters, characters not allowed in text, escapes",
            "i-STAT, Accu-Chek Inform, StatStrip: no public ASTM sample found",
            "answers to queries: field 26 and the codes of L; no analyser was there to ask",
            "mini VIDAS and Spotchem EL: one published message each, whether they want an acknowledgement is unknown",
            "LOINC codes of the table: none stands in the sheet of the protocol but those of glucose and HbA1c",
            "Radiometer ABL9 (blocks between SOH and EOT), Contour USB meters: not supported",
        ),
        line=LineSettings(baud=9600),
        other_lines=(
            LineSettings(baud=19200),
            LineSettings(baud=38400),
            LineSettings(baud=9600, data_bits=7, parity="even"),
        ),
        acknowledges=True,
        talks=False,
        harmless_polls=True,  # nothing is asked: an ENQ is answered, and the end of the message refused, so it is kept
    )

    format: Literal["astm", "mini-vidas", "spotchem-el"] = "astm"
    tests: dict[str, Test] = field(default_factory=dict)
    encoding: Literal["latin-1", "utf-8", "ascii", "cp1252"] = "latin-1"
    patient_id_fields: tuple[Literal[3, 4, 5], ...] = (3, 4, 5)
    manufacturer: str | None = None
    checksum: bool = True
    enq_required: bool = False
    answer_queries: bool = True
    order_codes: dict[str, str] = field(default_factory=dict)
    transmit: bool = True

    def open(self) -> Session:
        """Start listening."""
        match self.format:
            case "mini-vidas":
                return _plain(read_mini_vidas, b"\n")
            case "spotchem-el":
                return _plain(read_spotchem, b"\x03")
        return AstmSession(
            self._read,
            identify=lambda text: mark_of(self._decode(text)),
            transmit=self.transmit,
            checked=self.checksum,
            begins_with_enq=self.enq_required,
            query_of=lambda text: query_of(self._decode(text)) if self.answer_queries else None,
            render=self._render,
        )

    def _read(self, text: bytes) -> tuple[Result, ...]:
        return results_of(self._decode(text), Dialect(self.tests, self.patient_id_fields, self.manufacturer))

    def _render(self, query: LabQuery, orders: Sequence[LabOrder]) -> list[bytes]:
        known = [
            replace(order, tests=tuple(self.order_codes.get(test, test) for test in order.tests)) for order in orders
        ]
        return [record.encode(self.encoding, "replace") for record in answer_to(query, known)]

    def _decode(self, text: bytes) -> str:
        return text.decode(self.encoding, "replace")


def _plain(read: Reader, terminator: bytes) -> LineSession:
    return LineSession(read, terminator=terminator, line_bytes_max=4000, first_line_dropped=False, ascii_only=False)
