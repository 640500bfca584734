"""The messages the simulated EMR sends: admissions, orders and results of patients nobody can take for real.

Every name begins with ZZTEST and carries DEMO, every number is counted. A message is formatted once, as a template
with holes for MSH-10, MSH-7 and a serial number (orders need one), so that a load generator fills rather than builds.
Structures: HL7 v2.5.1 chapters 3, 4 and 7; the 25-OBX result follows IHE PCD-01 (2.6), the orders IHE RAD-4.
"""

import random
import re
import time
from dataclasses import dataclass

KINDS = ("adt", "orm", "omi", "oru", "oru25", "mix")
PATIENTS = 12
_HOLE = re.compile(rb"@(ID|TIME|SERIAL)@")

# code, name, unit, low, high of what the 25-OBX result reports (IEEE 11073-10101)
_MONITORED = (
    ("147842", "MDC_ECG_HEART_RATE", "264864^MDC_DIM_BEAT_PER_MIN", 50, 120),
    ("151578", "MDC_TTHOR_RESP_RATE", "264928^MDC_DIM_RESP_PER_MIN", 8, 30),
    ("150456", "MDC_PULS_OXIM_SAT_O2", "262688^MDC_DIM_PERCENT", 90, 100),
    ("149530", "MDC_PULS_OXIM_PULS_RATE", "264864^MDC_DIM_BEAT_PER_MIN", 50, 120),
    ("150037", "MDC_PRESS_BLD_ART_ABP_SYS", "266016^MDC_DIM_MMHG", 90, 160),
    ("150038", "MDC_PRESS_BLD_ART_ABP_DIA", "266016^MDC_DIM_MMHG", 50, 100),
    ("150039", "MDC_PRESS_BLD_ART_ABP_MEAN", "266016^MDC_DIM_MMHG", 60, 110),
    ("150344", "MDC_TEMP", "268192^MDC_DIM_DEGC", 36, 39),
)
_METHOD = "AMEAS^auto-measurement^MDC~69123^MDC_OBS_CTS^MDC"


class Template:
    """One message with holes."""

    def __init__(self, text: str, charset: str) -> None:
        self._pieces = _HOLE.split(text.encode(charset))
        names = (b"ID", b"TIME", b"SERIAL")
        self._holes = [(n, names.index(piece)) for n, piece in enumerate(self._pieces) if n % 2]

    def fill(self, control_id: bytes, moment: bytes, serial: bytes) -> bytes:
        """Return the message with its MSH-10, its time (HL7 DTM) and its serial number."""
        pieces, values = self._pieces.copy(), (control_id, moment, serial)
        for place, which in self._holes:
            pieces[place] = values[which]
        return b"".join(pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Somebody who does not exist, and the bed they would lie in."""

    number: int

    @property
    def name(self) -> str:
        """Return PID-5; every sixth name is beyond ASCII."""
        return f"ZZTEST^DEMO{'ÄÖ' if self.number % 6 == 0 else ''}{self.number:02d}"

    @property
    def bed(self) -> str:
        """Return PV1-3."""
        return f"DEMO-ICU^^{self.number}"

    def pid(self) -> str:
        """Return the PID segment."""
        sex = "MF"[self.number % 2]
        return f"PID|1||ZZ{self.number:06d}^^^DEMO^MR||{self.name}||19{50 + self.number % 50}0101|{sex}"

    def pv1(self, prior: str = "") -> str:
        """Return the PV1 segment; `prior` is PV1-6, where the patient came from."""
        return f"PV1|1|I|{self.bed}|||{prior}|||||||||||||V{self.number:06d}^^^DEMO^VN"


def templates(kind: str, *, seed: int = 1, size_bytes: int = 0, charset: str = "utf-8") -> list[Template]:
    """Return the messages of one round, in the order in which they are sent, over and over.

    `mix` is a stay per patient: admitted, updated, ordered for, reported on, moved, discharged. With `size_bytes`
    every message is filled up to about that size by an OBX with an encapsulated document.
    """
    draw = random.Random(seed)
    texts: list[str] = []
    for number in range(1, PATIENTS + 1):
        texts += [_fill_up(text, size_bytes) for text in _texts(kind, Patient(number=number), draw, charset)]
    return [Template(text, charset) for text in texts]


def moment_now() -> bytes:
    """Return the time as MSH-7 has it."""
    return time.strftime("%Y%m%d%H%M%S+0000", time.gmtime()).encode()


def _texts(kind: str, patient: Patient, draw: random.Random, charset: str) -> list[str]:
    match kind:
        case "adt":
            return [_adt(patient, event, charset) for event in ("A01", "A08", "A02", "A03")]
        case "orm":
            return [_orm(patient, charset)]
        case "omi":
            return [_omi(patient, charset)]
        case "oru":
            return [_oru(patient, draw, charset)]
        case "oru25":
            return [_oru25(patient, draw, charset)]
    stay = [_adt(patient, event, charset) for event in ("A01", "A08", "A02", "A03")]
    work = [_orm(patient, charset), _omi(patient, charset), _oru(patient, draw, charset)]
    return [*stay[:2], *work, _oru25(patient, draw, charset), *stay[2:]]


def _msh(kind: str, version: str, charset: str, acknowledge: str = "|") -> str:
    named = {"utf-8": "UNICODE UTF-8", "latin-1": "8859/1"}.get(charset, "")
    return f"MSH|^~\\&|DEMO-EMR|DEMO|GATEWAY|DEMO|@TIME@||{kind}|@ID@|P|{version}|||{acknowledge}||{named}"


def _message(*segments: str) -> str:
    return "\r".join(segments) + "\r"


def _adt(patient: Patient, event: str, charset: str) -> str:
    structure = {"A01": "ADT_A01", "A08": "ADT_A01", "A02": "ADT_A02", "A03": "ADT_A03"}[event]
    prior = "DEMO-ED^^1" if event == "A02" else ""
    head = _msh(f"ADT^{event}^{structure}", "2.5.1", charset)
    return _message(head, f"EVN|{event}|@TIME@||||@TIME@", patient.pid(), patient.pv1(prior))


def _orm(patient: Patient, charset: str) -> str:
    order = "CTDEMO^CT demo^99DEMO^CTDEMO_P^CT demo protocol^99DEMO"
    return _message(
        _msh("ORM^O01^ORM_O01", "2.5.1", charset),
        patient.pid(),
        patient.pv1(),
        "ORC|NW|P@SERIAL@^DEMO-OP|F@SERIAL@^DEMO-OF||SC||^^^@TIME@^^R",
        f"OBR|1|P@SERIAL@^DEMO-OP|F@SERIAL@^DEMO-OF|{order}||||||||||||||A@SERIAL@|RP@SERIAL@|SPS@SERIAL@||||CT|||^^^@TIME@^^R",
        f"ZDS|2.25.{_RUN}@SERIAL@^DEMO^Application^DICOM",
    )


def _omi(patient: Patient, charset: str) -> str:
    return _message(
        _msh("OMI^O23^OMI_O23", "2.5.1", charset),
        patient.pid(),
        patient.pv1(),
        "ORC|NW|Q@SERIAL@^DEMO-OP|G@SERIAL@^DEMO-OF||SC",
        "TQ1|1||||||@TIME@||R^Routine^HL70078",
        "OBR|1|Q@SERIAL@^DEMO-OP|G@SERIAL@^DEMO-OF|USDEMO^US demo^99DEMO",
        f"IPC|B@SERIAL@^DEMO-OF|RQ@SERIAL@|2.25.{_RUN}1@SERIAL@|SPT@SERIAL@|US|USDEMO_P^US demo^99DEMO|US1|ROOM|US1_AE",
    )


def _oru(patient: Patient, draw: random.Random, charset: str) -> str:
    return _message(
        _msh("ORU^R01^ORU_R01", "2.5.1", charset),
        patient.pid(),
        patient.pv1(),
        "OBR|1|L@SERIAL@^DEMO-OP|M@SERIAL@^DEMO-LAB|24323-8^Comprehensive metabolic panel^LN|||@TIME@",
        f"OBX|1|NM|2951-2^Sodium^LN||{draw.randint(132, 148)}|mmol/L^^UCUM|135-145||||F|||@TIME@",
        f"OBX|2|NM|2823-3^Potassium^LN||{draw.randint(32, 54) / 10}|mmol/L^^UCUM|3.5-5.1||||F|||@TIME@",
    )


def _oru25(patient: Patient, draw: random.Random, charset: str) -> str:
    """Return a PCD-01 report of 25 OBX and about 4.6 KB, as a bedside monitor sends it."""
    head = _msh("ORU^R01^ORU_R01", "2.6", charset, acknowledge="AL|NE")
    segments = [
        f"{head}|||IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO",
        patient.pid(),
        patient.pv1(),
        "OBR|1|W@SERIAL@^DEMO-MON|W@SERIAL@^DEMO-MON|182777000^monitoring of patient^SCT|||@TIME@",
        "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X|||||||DEMO-MON^^0201F3FFFE00DE01^EUI-64",
    ]
    for number in range(24):
        code, name, unit, low, high = _MONITORED[number % len(_MONITORED)]
        place, value = f"1.{1 + number // 8}.1.{1 + number % 8}", draw.randint(low, high)
        measured = f"NM|{code}^{name}^MDC|{place}|{value}|{unit}^MDC|{low}-{high}"
        segments.append(f"OBX|{number + 2}|{measured}||||R|||@TIME@|||{_METHOD}")
    return _message(*segments)


def _fill_up(text: str, size_bytes: int) -> str:
    missing = size_bytes - len(text) - 64
    if missing <= 0:
        return text
    block = "REVNTw0K" * 1024  # base64, no patient and no meaning
    document = (block * (missing // len(block) + 1))[:missing]
    return f"{text}OBX|99|ED|DEMO^Document^99DEMO||^AP^PDF^Base64^{document}||||||F\r"


_RUN = int(time.time())
