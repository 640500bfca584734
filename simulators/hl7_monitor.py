"""A patient monitor that sends HL7 v2 over MLLP, in one of the makers' dialects, and waits for its answer.

It calls the host (`--call`), listens (`--tcp`, as Mindray PDS monitors do) or sends on a serial line (`--pty`). Values
follow the recording. Faults: those of `bedside` (sensor-off, noise, cut, silence, restart); `--demo` for demonstration.
"""

from datetime import datetime

from simulators.bedside import Saying, arguments, run
from simulators.recording import Vitals

DIALECTS = ("pcd", "mindray-pds", "philips-mdil", "nihon-kohden", "draeger-infinity")
BEATS = "264864^MDC_DIM_BEAT_PER_MIN^MDC"


class Monitor:
    """Renders one message a set; two for Mindray, whose values and flags come apart."""

    period_s = 1.0

    def __init__(self, dialect: str, *, demo: bool) -> None:
        self._dialect = dialect
        self._demo = demo

    def greet(self) -> bytes:
        """Tell who lies there, as Mindray monitors do."""
        if self._dialect != "mindray-pds":
            return b""
        return framed(r"MSH|^~\&|||||||ORU^R01|103|P|2.3.1|", "PID|||ZZTEST1", "OBX||ST|2304^Name||SIM||||||F")

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Return one set of values."""
        stamp = f"{clock:%Y%m%d%H%M%S}"
        return Saying(_RENDER[self._dialect](self, ordinal, vitals, stamp), stamp)

    def hear(self, data: bytes) -> bytes:
        """Take the acknowledgement; a monitor says nothing to it."""
        return b""

    def _pcd(self, ordinal: int, vitals: Vitals | None, stamp: str) -> bytes:
        flag = "DEMO" if self._demo else ""
        rows = [
            _obx(
                2, "147842^MDC_ECG_HEART_RATE^MDC", "1.5.1.1", _pulse(vitals), "264864^MDC_DIM_BEAT_PER_MIN^MDC", flag
            ),
            _obx(3, "150456^MDC_PULS_OXIM_SAT_O2^MDC", "1.22.1.2", _spo2(vitals), "262688^MDC_DIM_PERCENT^MDC", flag),
        ]
        head = rf"MSH|^~\&|SIM^0012345FFFE00009^EUI-64|SIM|||{stamp}||ORU^R01^ORU_R01|{ordinal}|P|2.6|||NE|AL"
        device = "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X"
        return framed(head, "PID|||ZZTEST1", "PV1||I|ICU^^BED9", f"OBR|1||||||{stamp}", device, *rows)

    def _pds(self, ordinal: int, vitals: Vitals | None, stamp: str) -> bytes:
        kinds = (("160", "SpO2", _spo2(vitals)), ("161", "PR", _pulse(vitals)))
        values = [f"OBX||NM|{code}^{name}|2103|{value or '-100.00'}||||||F" for code, name, value in kinds]
        flags = [f"OBX||CE|2037^|{code}|{'3' if value else '2'}^||||||F" for code, _, value in kinds]
        head = r"MSH|^~\&|||||||ORU^R01|{}|P|2.3.1|"
        return framed(head.format(106)) + framed(head.format(204), *values) + framed(head.format(205), *flags)

    def _mdil(self, ordinal: int, vitals: Vitals | None, stamp: str) -> bytes:
        rows = [
            f"OBX||NM|{code}|0|{value}|{unit}|||||{'F' if value else 'X'}"
            for code, value, unit in (
                ("0002-4182^HR^MDIL", _pulse(vitals), "0004-0aa0^bpm^MDIL"),
                ("0002-4bb8^SpO2^MDIL", _spo2(vitals), "0004-0220^%^MDIL"),
            )
        ]
        head = rf"MSH|^~\&|||||||ORU^R01|HP{ordinal:015d}|P|2.3||||||8859/1"
        return framed(head, "PID|||ZZTEST1", "PV1||I|ICU^^BED9&0&0", f"OBR|||||||{stamp}", *rows)

    def _nihon(self, ordinal: int, vitals: Vitals | None, stamp: str) -> bytes:
        rows = [
            f"OBX|{place}|NM|{code}|1|{value}|{unit}|||||F|||{stamp}|||"
            for place, (code, value, unit) in enumerate(
                (("001000^VITAL HR", _pulse(vitals), "/min"), ("007000^VITAL SpO2", _spo2(vitals), "%")), 1
            )
            if value
        ]
        head = (
            rf"MSH|^~\&|NIHON KOHDEN|NIHON KOHDEN|HOST|HOST|{stamp}||ORU^R01^ORU_R01|{stamp}{ordinal:06d}|P|2.4|||NE|AL"
        )
        return framed(head, "PID|||ZZTEST1", "PV1||I|^^BED9^10.0.0.9:1", f"OBR|1|||VITAL|||{stamp}", *rows)

    def _infinity(self, ordinal: int, vitals: Vitals | None, stamp: str) -> bytes:
        rows = [
            f"OBX||{'SN' if value else 'ST'}|{code}||{'=^' + value if value else '   '}|{unit}^^ISO+|||||R|||{stamp}"
            for code, value, unit in (
                ("HR^^local^8867-4&1^^LOINC", _pulse(vitals), "/min"),
                ("SpO2^^local^2710-2&1^^LOINC", _spo2(vitals), "%"),
            )
        ]
        head = rf"MSH|^~\&|Infinity||NUR||{stamp[:12]}||ORU^R01|{stamp}{ordinal:06d}|P|2.3"
        return framed(head, "PID|||ZZTEST1", "PV1|||ICU^^BED9", f"OBR|||||||{stamp}", *rows)


def _obx(place: int, code: str, sub: str, value: str, unit: str, flag: str) -> str:
    if not value:
        return f"OBX|{place}|NM|{code}|{sub}||{unit}||OFF|||X"
    return f"OBX|{place}|NM|{code}|{sub}|{value}|{unit}||{flag}|||R"


def _pulse(vitals: Vitals | None) -> str:
    return "" if vitals is None else str(vitals.pulse)


def _spo2(vitals: Vitals | None) -> str:
    return "" if vitals is None else str(vitals.spo2)


def framed(*segments: str) -> bytes:
    """Return a message between VT and FS CR."""
    return b"\x0b" + "".join(f"{segment}\r" for segment in segments).encode("ascii") + b"\x1c\r"


_RENDER = {
    "pcd": Monitor._pcd,
    "mindray-pds": Monitor._pds,
    "philips-mdil": Monitor._mdil,
    "nihon-kohden": Monitor._nihon,
    "draeger-infinity": Monitor._infinity,
}

if __name__ == "__main__":
    parser = arguments("hl7_monitor", "A patient monitor that sends HL7.")
    parser.add_argument("--dialect", choices=DIALECTS, default="pcd", help="whose monitor it is (default: PCD-01)")
    parser.add_argument("--demo", action="store_true", help="the monitor is in demonstration mode (PCD-01)")
    asked = parser.parse_args()
    run(Monitor(asked.dialect, demo=asked.demo), asked)
