"""Settings of a Philips IntelliVue source."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from drivers.philips_intellivue.client import Client
from drivers.philips_intellivue.reader import MonitorReader
from drivers.philips_intellivue.requests import MTU_LAN, MTU_SERIAL, Extension
from drivers.philips_intellivue.session import IntellivueSession, Transport
from drivers.philips_intellivue.wavelist import physios_of
from gateway.driver import About, LineSettings, Session

_NUMERICS_EVERY = {
    1: Extension.NUMERICS_1_S,
    12: Extension.NUMERICS_12_S,
    60: Extension.NUMERICS_60_S,
    300: Extension.NUMERICS_300_S,
}


@dataclass(frozen=True, kw_only=True)
class PhilipsIntellivue:
    """Settings of a Philips IntelliVue source.

    `waves` are names (`ecg-ii`, `pleth`, a vendor's label, or `0x` and a number): the monitor's wave priority list is
    set to them; without any its list stays as it is and no waves are asked for. `poll_s` lies between two sets of
    numerics: 1 s, or averages of 12, 60 or 300 s where the monitor grants them. `transport` is found by asking in both
    forms while it is `auto`. With `transmit` off nothing is said: what another client's polls bring is read.
    """

    about: ClassVar[About] = About(
        name="philips-intellivue",
        summary="Philips IntelliVue patient monitors, data export interface (LAN and MIB/RS232)",
        models=(
            "MP2",
            "MP5",
            "MP20 to MP90",
            "MX400 to MX550",
            "MX600 to MX850",
            "X2",
            "X3",
        ),
        source=(
            "Philips IntelliVue Data Export Interface Programming Guide (M8000-9305G, rev. G.0) as quoted by public "
            "clients; captures of an MX700, an M8000-family monitor, an MX450 and an MP70"
        ),
        unverified=(
            "19200 baud and AutoSpeed, and the names of the monitor's port settings",
            "RJ45 pins of models other than MX",
            "the body of an Association Refuse; any reason in it",
            "bytes of single poll replies, alarm lists, demographics, enumerations, errors and release: no capture",
            "meaning of the low bits in the fixed values of samples; which mark is a pacer's and which a QRS",
            "private attributes F237, F998, F1FA, F136, F27C, F12E, F45B, F15A: passed over",
            "whether a set list error repeats the operator",
            "how often a monitor announces itself on a LAN",
            "what a monitor does with data messages outside an association",
            "whether a class can have more than one extended poll at a time",
            "which of Release and Abort a monitor prefers from a client that has lost its association",
            "stars and exclamation marks as signs of priority in alarm texts: the type decides, not the text",
            "the limit in an alarm text (`125>120`): read from the text's form",
        ),
        line=LineSettings(baud=115200),
        other_lines=(LineSettings(baud=19200),),
        silence_s=10.0,
        talks=False,
        harmless_polls=True,
    )

    waves: tuple[str, ...] = ()
    poll_s: Literal[1, 12, 60, 300] = 1
    transport: Literal["auto", "serial", "lan"] = "auto"
    transmit: bool = True

    def __post_init__(self) -> None:
        """Refuse waves that a monitor would leave out in silence (ValueError)."""
        physios_of(self.waves)

    def open(self) -> Session:
        """Start a conversation, or listening to another client's."""
        wanted = physios_of(self.waves)
        client = None
        if self.transmit:
            extensions = _NUMERICS_EVERY[self.poll_s] | Extension.WAVES | Extension.ENUMERATIONS
            mtu = MTU_LAN if self.transport == "lan" else MTU_SERIAL
            client = Client(extensions=extensions, mtu=mtu, period_s=float(self.poll_s), wanted=wanted)
        return IntellivueSession(MonitorReader(wanted if self.transmit else ()), client, Transport(self.transport))
