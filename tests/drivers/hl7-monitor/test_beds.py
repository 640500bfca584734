"""One Source is one bed: what a sender says of another one never becomes this bed's."""

from collections.abc import Sequence

import pytest

from drivers.hl7_monitor import Hl7Monitor
from drivers.hl7_monitor.session import BED_SILENCE_S, MonitorSession
from gateway.driver import Session
from simulators.mllp_frames import frame


def message(bed: str, value: int) -> bytes:
    head = f"MSH|^~\\&|CENTRAL||||20260705101500+0200||ORU^R01^ORU_R01|{value}|P|2.6|||NE|AL"
    row = f"OBX|1|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.2.1.1|{value}|262688^MDC_DIM_PERCENT^MDC|||||R"
    return frame("\r".join((head, f"PV1||I|{bed}", "OBR|1", row, "")).encode())


def told(session: Session) -> list[object]:
    results = [result for reading in session.take_readings() for result in reading.results]
    return [seen.value for result in results for seen in result.observations]


@pytest.mark.parametrize("first", ["ICU^^1", "ICU^^1^HOSP^^^NORTH"])
def test_a_central_station_gives_the_values_of_its_first_bed_alone(first: str) -> None:
    session = Hl7Monitor().open()
    beds: Sequence[str] = (first, "ICU^^2", "ICU^^1", "ICU^^3", "", "ICU^^2")
    for number, bed in enumerate(beds):
        session.receive(message(bed, 90 + number), float(number))

    assert told(session) == [90, 92, 94]
    assert b"MSA|AE|91" in session.take_output()
    session.tick(100.0)
    assert "another bed" in str([reading.fault for reading in session.take_readings()])


def test_a_monitor_that_was_carried_to_another_bed_is_read_there() -> None:
    session = Hl7Monitor().open()
    assert isinstance(session, MonitorSession)
    session.receive(message("ICU^^1", 90), 0.0)
    session.receive(message("ICU^^2", 91), BED_SILENCE_S - 1)
    session.receive(message("ICU^^2", 92), BED_SILENCE_S + 1)
    session.forget(BED_SILENCE_S + 2)
    session.receive(message("ICU^^3", 93), BED_SILENCE_S + 3)

    assert told(session) == [90, 92, 93]
