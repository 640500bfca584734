"""What a person should look at when nothing was recognised."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.driver import About, LineSettings
from gateway.status import LineState

SAMPLE_BYTES_MAX = 48
TEXT_SHARE_MIN = 0.75  # of noise it is 0.4
GARBLED_ERRORS_MIN, GARBLED_BYTES_AN_ERROR = 3, 20
ENQ, EOT = b"\x05", b"\x04"
_PRINTABLE = frozenset({*range(0x20, 0x7F), 0x09, 0x0A, 0x0D})


@dataclass(slots=True)
class Heard:
    """What was heard at one line setting; `sample` are the first bytes."""

    line: LineSettings
    size: int = 0
    printable: int = 0
    sample: bytes = b""
    seconds: float = 0.0
    errors: int = 0  # framing and parity errors meanwhile
    state: LineState | None = field(default=None)
    ended: str | None = None

    def add(self, data: bytes) -> None:
        """Take bytes."""
        self.size += len(data)
        self.printable += sum(byte in _PRINTABLE for byte in data)
        self.sample += data[: SAMPLE_BYTES_MAX - len(self.sample)]

    @property
    def is_garbled(self) -> bool:
        """Tell whether the port has counted so many errors that the line settings must be wrong."""
        return self.errors > max(GARBLED_ERRORS_MIN, self.size // GARBLED_BYTES_AN_ERROR)

    @property
    def calls(self) -> bool:
        """Tell whether all of it is an enquiry (ENQ, perhaps given up by EOT before) that waits for an answer."""
        return self.sample.endswith(ENQ) and self.size == len(self.sample) and set(self.sample) <= {*ENQ, *EOT}

    @property
    def looks_like_text(self) -> bool:
        """Tell whether most of it is printable: the line settings are then right, as a rule."""
        return self.size > 0 and self.printable >= TEXT_SHARE_MIN * self.size


def hints_of(heard: Sequence[Heard], abouts: Sequence[About], *, active: bool, lined: bool) -> tuple[str, ...]:
    """Return sentences, the most likely cause first; `lined` tells that line settings matter at this port."""
    if ended := next((one.ended for one in heard if one.ended), None):
        return (f"the port ended while it was listened to: {ended}",)
    spoke = any(one.size for one in heard)
    told = _of_bytes(heard, len(abouts), lined=lined) if spoke else _of_silence(heard)
    return (*told, *_of_asking(abouts, active=active))


def _of_silence(heard: Sequence[Heard]) -> list[str]:
    seconds = sum(one.seconds for one in heard)
    told = [f"silence: not one byte in {seconds:.0f} s"]
    if any(one.state is not None and not {"CTS", "DSR", "DCD"} & set(one.state.lines) for one in heard):
        told.append("no modem line of the device is up: is the cable plugged in, at both ends, and the device on?")
    told.append("is the device's data output switched on (see its page in docs/devices), is the cable the right one")
    told[-1] += " (straight or null modem: swap RX and TX)?"
    return told


def _of_asking(abouts: Sequence[About], *, active: bool) -> list[str]:
    waiting = {about.name for about in abouts if not about.talks}
    askable = {about.name for about in abouts if about.harmless_polls}
    told = []
    if waiting and not active:
        told.append(f"these devices wait to be asked: {', '.join(sorted(waiting))}")
        told[-1] += f"; `--active` asks for {', '.join(sorted(askable))}" if askable else ""
    if active and (unasked := waiting - askable):
        told.append(f"not asked for, because asking may not be harmless: {', '.join(sorted(unasked))}")
        told[-1] += "; `--driver NAME` asks for one of them all the same"
    return told


def _of_bytes(heard: Sequence[Heard], drivers: int, *, lined: bool) -> list[str]:
    best = max(heard, key=lambda one: (one.looks_like_text, one.printable / max(1, one.size), one.size))
    at = f" at {best.line.baud} baud, parity {best.line.parity}" if lined else ""
    where = f" at {len(heard)} line settings" if lined else ""
    size = sum(one.size for one in heard)
    told = [f"{size} bytes heard{where}; none of {drivers} drivers reads them"]
    if best.looks_like_text:
        told.append("they look like text" + (f"{at}, so the settings are probably right" if lined else ""))
        told[-1] += "; the device, or its output mode, is one that no driver knows: the driver `line` can be told of it"
    elif any(one.is_garbled for one in heard):
        told.append("the port counts framing or parity errors: looks like a wrong baud rate or parity")
    else:
        told.append(
            "they look like noise: a wrong baud rate or parity, a binary output that no driver knows, or a bad cable"
        )
    shown = repr(best.sample.decode("latin-1")) if best.looks_like_text else best.sample.hex(" ")
    told.append(f"first bytes{at}: {shown}")
    return told
