"""HL7 v2 of patient monitors over MLLP, on TCP or a serial line: settings, and how to open a Session.

Which dialect a message is in is seen by the message itself, unless the stanza says it.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from drivers.hl7_monitor.session import DIALECTS, MonitorSession
from gateway.driver import About, LineSettings, Session

Dialect = Literal["auto", "pcd", "mindray-pds", "philips-mdil", "nihon-kohden", "draeger-infinity", "any"]


@dataclass(frozen=True, kw_only=True)
class Hl7Monitor:
    """Settings of a monitor that speaks HL7.

    `utc_offset` (`+0200`) is the sender's, for times that name none. `echo` sends Mindray's echo once a second, as
    working clients do. `gas_unit` is the unit of gases and CO2 on a Mindray PDS monitor, which sends none.
    """

    about: ClassVar[About] = About(
        name="hl7-monitor",
        summary="patient monitors that speak HL7 v2: Mindray PDS and PCD-01, GE, Philips, Nihon Kohden, Dräger",
        models=(
            "Mindray T, BeneView, iPM (Patient Data Share)",
            "Mindray eGateway, VS, A-series",
            "GE B40, B105, B125, CARESCAPE (PCD-01)",
            "Philips IIC, Efficia, SureSigns (MDIL)",
            "Nihon Kohden CNS, QP gateways",
            "Dräger Infinity Gateway",
        ),
        source="public programs, test messages and excerpts of the makers' guides; see docs/devices/hl7-monitor.md",
        unverified=(
            "whether a Mindray PDS client must send the echo; messages 51, 52, 58",
            "TCP roles of Philips IIC and Dräger Infinity; OBX-2 and OBX-5 of Philips alarm rows",
            "CARESCAPE Gateway, PIIC iX PCD-01: no public sample",
            "Nihon Kohden codes beyond the table, impedance respiration",
            "Mindray eGateway: interval, place of the MAC address",
        ),
        line=LineSettings(baud=115200),
        other_lines=(
            LineSettings(baud=9600),
            LineSettings(baud=19200),
            LineSettings(baud=38400),
            LineSettings(baud=57600),
        ),
        silence_s=60.0,
        acknowledges=True,
    )

    dialect: Dialect = "auto"
    encoding: Literal["utf-8", "latin-1", "cp1252", "gb18030", "shift_jis"] = "utf-8"
    utc_offset: str = field(default="", metadata={"pattern": r"([+-]\d{4})?", "expects": 'an offset such as "+0200"'})
    gas_unit: Literal["mm[Hg]", "kPa", "%"] | None = None
    echo: bool = False
    transmit: bool = True

    def open(self) -> Session:
        """Start listening."""
        assert self.dialect in DIALECTS
        return MonitorSession(
            dialect=self.dialect,
            encoding=self.encoding,
            utc_offset=self.utc_offset,
            gas_unit=self.gas_unit,
            echo=self.echo,
            transmit=self.transmit,
        )
