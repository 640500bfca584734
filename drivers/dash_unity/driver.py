"""GE Dash and Solar monitors on the "Unity" (CARESCAPE) network. **Experimental**: GE never published the protocol."""

from dataclasses import dataclass
from typing import ClassVar

from drivers.dash_unity.messages import NAME_BYTES, NUMERICS_ID, NUMERICS_STREAM, WAVE_STREAM, WAVES_ID, request
from drivers.dash_unity.session import UnitySession
from gateway.driver import About, Session


@dataclass(frozen=True, kw_only=True)
class DashUnity:
    """Settings of a Dash or Solar source.

    `numerics` and `waves` say which streams are asked for; `location` (`UNIT|BED`) is what we call ourselves on the
    network. `transmit = false` only listens: to the broadcasts at ports 7000 (presence) and 7001 (alarms), where every
    monitor of the network is heard unless the port names one (`?from=`).
    """

    about: ClassVar[About] = About(
        name="dash-unity",
        summary="EXPERIMENTAL: GE Dash and Solar monitors on the Unity network (UDP)",
        models=("Dash 3000", "Dash 4000", "Dash 5000", "Solar 8000"),
        source="no manual is public: mdpnp GESerial, gedash (one capture of a Dash 4000), patient-monitor-datalogger",
        unverified=(
            "EXPERIMENTAL: everything rests on reverse engineering and one capture of ten seconds",
            "both streams asked for from one socket; zero address fields in requests",
            "scale of all waves: published as counts",
            "scale of temperature and ST; which leads the ST values belong to: published as raw numbers",
            "codes of invasive pressure and CO2 waves; meaning of status and flag bits and of message numbers",
            "how long a stream lasts without a request",
            "several alarms at once; the end of an alarm is 6 s without a broadcast",
            "the clock of the discovery broadcast as Unix seconds",
            "Solar 8000 and newer CARESCAPE monitors (Bx50 speak datex-s5 on serial)",
            "serial form (checksum unknown): not supported",
            "the protocol does not tell a demonstration from a patient",
        ),
        silence_s=6.0,
        talks=False,
    )

    numerics: bool = True
    waves: bool = False
    location: str = "GATEWAY|1"
    transmit: bool = True

    def __post_init__(self) -> None:
        if not (self.numerics or self.waves):
            raise ValueError("neither numerics nor waves are asked for")
        if not self.location.isascii() or not 0 < len(self.location) < NAME_BYTES:
            raise ValueError(f"location must be 1 to {NAME_BYTES - 1} ASCII characters")

    def open(self) -> Session:
        """Start asking, or listening where nothing may be sent."""
        wanted = ((self.numerics, NUMERICS_STREAM, NUMERICS_ID), (self.waves, WAVE_STREAM, WAVES_ID))
        requests = tuple(request(sub, requester, self.location) for asked, sub, requester in wanted if asked)
        return UnitySession(requests if self.transmit else ())
