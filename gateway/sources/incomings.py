"""From a Device's Reading to the inputs that intake keeps: one for each Result, or one that waits for a person."""

from datetime import datetime
from hashlib import sha256

from gateway.clock import Clock
from gateway.model import Incoming, Kind, Reading, Result
from gateway.sources.device_clock import DeviceClock
from gateway.sources.episodes import Episodes
from gateway.status import SourceStatus


class Incomings:
    """Makes the inputs of one Device; follows the episodes of its alarms, and its clock."""

    def __init__(
        self, bed: str, device_id: str | None, clock: Clock, status: SourceStatus, *, clock_step_s: float
    ) -> None:
        """Take the bed and EUI-64 as configured: they travel with each input, whatever is configured later."""
        self._clock = clock
        self._status = status
        self._episodes = Episodes(status.name)
        self._device_clock = DeviceClock(status.name, clock_step_s)
        self._headers = {name: value for name, value in (("bed", bed), ("device_id", device_id)) if value}

    def of(self, reading: Reading, peer: str) -> tuple[Incoming, ...]:
        """Return the inputs of a Reading that came from `peer` now."""
        now, digest, name = self._clock.now(), sha256(reading.raw).digest(), self._status.name
        results = [self._followed(result, now) for result in reading.results]
        if reading.fault is not None:
            self._status.saw_error(f"unreadable: {reading.fault}", now)
            return (
                Incoming(
                    source=name,
                    kind=Kind.UNREADABLE,
                    received_at=now,
                    size=len(reading.raw),
                    digest=digest,
                    peer=peer,
                    identifier=reading.identifier,
                    raw=reading.raw,
                    lane_key=name,
                    quarantined=reading.fault,
                ),
            )
        return tuple(
            Incoming(
                source=name,
                kind=Kind.OBSERVATIONS,
                received_at=now,
                size=len(reading.raw),
                digest=digest,
                peer=peer,
                identifier=_identifier(reading, number),
                observed_at=result.observed_at,
                raw=reading.raw,
                result=result,
                headers=self._headers,
                terms=(result.patient_id,) if result.patient_id else (),
                lane_key=name,
            )
            for number, result in enumerate(results, 1)
        )

    def _followed(self, result: Result, now: datetime) -> Result:
        """Return a Result with the episodes of its alarms, and take notice of the Device's clock."""
        self._device_clock.compare(result, now)
        self._status.device_clock_offset_s = self._device_clock.offset_s
        return self._episodes.follow(result, now, self._clock.monotonic())


def _identifier(reading: Reading, number: int) -> str | None:
    if reading.identifier is None or len(reading.results) == 1:
        return reading.identifier
    return f"{reading.identifier}/{number}"  # the Results of one Reading are no repeats of each other
