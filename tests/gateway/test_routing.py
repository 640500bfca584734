import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import (
    Destination,
    DeviceSource,
    DicomDestination,
    DicomSource,
    MllpDestination,
    MllpSource,
    MqttDestination,
    Route,
    Source,
    carried_by,
)
from gateway.expressions import Expression, ExpressionError, Subject
from gateway.model import Absent, DeviceIdentity, Incoming, Kind, Observation, Result, Wave
from gateway.routing import Owed, Router
from gateway.typed import Address

ORU = b"MSH|^~\\&|LAB|H|||20260101||ORU^R01|1|P|2.5\rPID|||123^^^A~456^^^B\rOBX|1|NM|x||97\r"
HERE = Address("127.0.0.1", 0)
NO_SCOUT = "Modality == 'CT' and not SeriesDescription.contains('Scout')"

EMR_IN = MllpSource(name="emr-in", listen=HERE)
LATIN_IN = MllpSource(name="latin-in", listen=HERE, encoding="iso-8859-1")
IMAGING = DicomSource(name="imaging", listen=HERE)
BED = DeviceSource(name="bed-12", driver="acme", port="/dev/null", bed="ICU^^12")
SOURCES: tuple[Source, ...] = (EMR_IN, LATIN_IN, IMAGING, BED)

EMR = MllpDestination(name="emr", host="h", port=1)
OFF = MllpDestination(name="off", host="h", port=1, enabled=False)
BROKER = MqttDestination(name="broker", url="mqtt://h")
PACS = DicomDestination(name="pacs", host="h", port=1, ae_title="A")
DESTINATIONS: tuple[Destination, ...] = (EMR, OFF, BROKER, PACS)


def hl7(source: str = "emr-in", raw: bytes = ORU, peer: str | None = "10.0.0.1") -> Incoming:
    return incoming(source, Kind.HL7, raw=raw, peer=peer)


def image(**headers: str) -> Incoming:
    return replace(incoming("imaging", Kind.DICOM), headers=headers, object_name="x")


def reading() -> Incoming:
    spo2 = Observation(key="spo2", sub="1.1.1.1", value=Decimal(97), unit="%", flags=("QUES",), code=150456)
    rate = Observation(key="pulse_rate", sub="1.1.1.2", absent=Absent.OFF, low=Decimal(40))
    result = Result(observations=(spo2, rate), device=DeviceIdentity(model="N-595"), patient_id="7")
    return replace(incoming("bed-12", Kind.OBSERVATIONS), result=result)


def incoming(source: str, kind: Kind, raw: bytes | None = None, peer: str | None = None) -> Incoming:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Incoming(source=source, kind=kind, received_at=at, size=1, digest=b"", raw=raw, peer=peer)


def route(source: str, *to: str, when: str | None = None) -> Route:
    return Route(sources=(source,), to=to, when=when)


def router(*routes: Route) -> Router:
    return Router(routes, SOURCES, DESTINATIONS)


def owed(message: Incoming, *routes: Route) -> tuple[str, ...]:
    return router(*routes).owed(message).destinations


def test_what_comes_from_a_source_is_owed_to_its_routes_destinations() -> None:
    assert owed(hl7(), route("emr-in", "emr")) == ("emr",)
    assert owed(hl7(), route("imaging", "emr")) == ()
    assert owed(hl7()) == ()


def test_names_of_sources_are_globs_that_heed_case() -> None:
    assert owed(hl7(), route("emr-*", "emr")) == ("emr",)
    assert owed(hl7(), route("EMR-*", "emr")) == ()


def test_destinations_come_in_the_order_of_the_configuration_without_repeats() -> None:
    assert owed(hl7(), route("*", "broker", "emr"), route("emr-in", "emr", "off")) == ("emr", "off", "broker")


def test_a_disabled_destination_is_owed_all_the_same() -> None:
    assert owed(hl7(), route("*", "off")) == ("off",)


def test_a_destination_is_owed_only_what_it_can_carry() -> None:
    everything = route("*", "emr", "broker", "pacs")

    assert owed(hl7(), everything) == ("emr", "broker")
    assert owed(reading(), everything) == ("emr", "broker")
    assert owed(image(Modality="CT"), everything) == ("pacs",)
    assert owed(hl7("bed-12"), everything) == ("emr", "broker")


def test_what_is_quarantined_or_unreadable_is_owed_to_nobody() -> None:
    everything = route("*", "emr", "broker", "pacs")

    assert owed(replace(hl7(), quarantined="no MSH"), everything) == ()
    assert owed(incoming("emr-in", Kind.UNREADABLE, raw=b"x"), everything) == ()


def test_a_destination_that_is_not_configured_is_owed_nothing() -> None:
    assert owed(hl7(), route("*", "nobody", "emr")) == ("emr",)


def test_a_message_of_a_source_that_is_gone_still_follows_its_name() -> None:
    assert owed(hl7("emr-old"), route("emr-*", "emr")) == ("emr",)
    assert owed(hl7("emr-old"), route("emr-*", "emr", when="MSH-9.1 == 'ORU'")) == ("emr",)


@pytest.mark.parametrize(
    ("message", "when", "truth"),
    [
        (hl7(), 'MSH-9.1 == "ORU"', True),
        (hl7(), 'MSH-9.1 == "ADT"', False),
        (hl7(), 'PID-3(2).1 == "456" and PID-3.4 in ("A")', True),
        (hl7(), "OBX-5 > 90 and source == 'emr-in' and kind == 'hl7' and peer.startswith('10.')", True),
        (hl7(), "exists(Modality) or exists(spo2) or exists(bed)", False),
        (hl7(raw=b"garbage"), "not exists(MSH-9)", True),
        (image(Modality="CT", SeriesDescription="Scout 1"), NO_SCOUT, False),
        (image(Modality="CT", SeriesDescription="Thorax"), NO_SCOUT, True),
        (image(), "exists(Modality) or exists(MSH-9)", False),
        (reading(), "spo2 > 96.5 and spo2.unit == '%' and spo2.flags == 'QUES' and spo2.code == 150456", True),
        (reading(), "not exists(pulse_rate) and pulse_rate.absent == 'OFF' and pulse_rate.low == 40", True),
        (reading(), "spo2.episodic == false and spo2.method == 'auto' and not exists(spo2.loinc)", True),
        (reading(), "bed == 'ICU^^12' and patient_id == '7' and device.model.matches('N-*')", True),
        (reading(), "exists(device.serial) or exists(peer) or exists(PID-3)", False),
        (hl7("bed-12"), "bed.endswith('12')", True),
        (hl7("bed-12"), "exists(device.model) or exists(patient_id)", False),
    ],
)  # fmt: skip
def test_a_when_asks_the_message(message: Incoming, when: str, truth: bool) -> None:
    found = router(route("*", "emr", "pacs", when=when)).owed(message)

    assert bool(found.destinations) is truth
    assert found.failed_rules == ()


def test_hl7_is_read_in_the_sources_character_set() -> None:
    when = "PID-5 == 'Müller'"
    raw = "MSH|^~\\&|||||||ORU|1|P|2.5\rPID|||||Müller\r".encode("iso-8859-1")

    assert owed(hl7("latin-in", raw), route("*", "emr", when=when)) == ("emr",)
    assert owed(hl7("emr-in", raw), route("*", "emr", when=when)) == ()


def test_rules_add_up() -> None:
    routes = (
        route("*", "emr", when="MSH-9.1 == 'ADT'"),
        route("*", "off", when="MSH-9.1 == 'ORU'"),
        route("emr-in", "broker"),
    )

    assert owed(hl7(), *routes) == ("off", "broker")


def test_a_rule_that_fails_routes_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Expression, subject: Subject) -> bool:
        raise RuntimeError("a bug")

    found = router(route("*", "emr"), route("*", "broker", when="true"), route("*", "off", when="false"))
    monkeypatch.setattr(Expression, "matches", fail)

    assert found.owed(hl7()) == Owed(("emr", "off", "broker"), (1, 2))


def test_a_when_that_cannot_be_read_is_refused_when_the_router_is_made() -> None:
    with pytest.raises(ExpressionError):
        router(route("*", "emr", when="MSH-9 ="))


def test_the_keywords_of_a_sources_routes_are_known() -> None:
    made = router(
        route("imaging", "pacs", when="Modality == 'CT'"),
        route("*", "pacs", when="exists(StationName)"),
        route("emr-in", "emr", when="MSH-9.1 == 'ORU'"),
    )

    assert made.keywords("imaging") == {"Modality", "StationName"}
    assert made.keywords("emr-in") == {"StationName"}


def test_without_a_when_nothing_is_asked_and_nothing_allocated() -> None:
    made, message = router(route("*", "emr", "broker"), route("*", "emr", when="MSH-9.1 == 'ORU'")), hl7()
    first = made.owed(message)

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[1]
    for _ in range(1000):
        found = made.owed(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found is first
    assert peak - before < 1000


# Laws

WHENS = st.sampled_from(
    [None, "true", "false", "MSH-9.1 == 'ORU'", "Modality == 'CT'", "spo2 > 90", "source == 'bed-12'"]
)
ROUTES = st.builds(
    Route,
    sources=st.lists(st.sampled_from(["*", "emr-in", "imaging", "bed-*", "none"]), min_size=1, max_size=2).map(tuple),
    to=st.lists(st.sampled_from(["emr", "off", "broker", "pacs", "gone"]), min_size=1, max_size=3).map(tuple),
    when=WHENS,
)
MESSAGES = st.sampled_from([hl7(), image(Modality="CT"), image(Modality="MR"), reading(), hl7("bed-12"), hl7(raw=b"")])


@settings(max_examples=300, deadline=None)
@given(st.lists(ROUTES, max_size=5), MESSAGES)
def test_each_route_decides_for_itself(routes: list[Route], message: Incoming) -> None:
    """What all routes owe together is what each owes alone, and one route owes what its words say."""
    together = set(owed(message, *routes))

    assert together == {name for each in routes for name in owed(message, each)}
    for each in routes:
        covered = any(fnmatchcase(message.source, pattern) for pattern in each.sources)
        true = {
            None: True,
            "true": True,
            "false": False,
            "MSH-9.1 == 'ORU'": message.raw == ORU,
            "Modality == 'CT'": message.headers.get("Modality") == "CT",
            "spo2 > 90": message.result is not None,
            "source == 'bed-12'": message.source == "bed-12",
        }[each.when]
        carrying = {one.name for one in DESTINATIONS if message.kind in carried_by(one.type)}
        assert set(owed(message, each)) == (set(each.to) & carrying if covered and true else set())


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from(["MSH-9.1 == 'ORU'", "PID-3(2).1 != 'x'", "OBX[2]-5 > 3", "exists(MSH-2)"])
)
def test_no_bytes_make_a_rule_fail(raw: bytes, when: str) -> None:
    made = router(route("*", "emr", when=when))

    for message in (hl7(raw=raw), hl7(raw=ORU[:60] + raw)):
        assert made.owed(message).failed_rules == ()


def test_waves_alone_are_owed_only_to_who_takes_waves() -> None:
    wave = Wave(key="pleth_wave", sub="1.1.1.1", samples=(1, 2), period_s=Decimal("0.008"))
    takes = replace(EMR, name="waves", waves=True)
    routes = [route("bed-*", "emr", "waves", "broker")]
    ways = Router(routes, SOURCES, (EMR, takes, BROKER))
    alone = replace(reading(), result=Result(observations=(), waves=(wave,)))
    mixed = replace(reading(), result=replace(reading().result, waves=(wave,)))  # type: ignore[type-var]

    assert ways.owed(alone).destinations == ("waves", "broker")
    assert ways.owed(mixed).destinations == ("emr", "waves", "broker")


# --- priority, and the routes of a Delivery ---


def _image(**headers: str) -> Incoming:
    return Incoming(
        source="imaging",
        kind=Kind.DICOM,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        size=1,
        digest=b"",
        headers=headers,
    )


@pytest.mark.parametrize(
    ("headers", "urgent"),
    [
        ({}, False),
        ({"RequestedProcedurePriority": "STAT"}, True),
        ({"RequestedProcedurePriority": "high "}, True),
        ({"RequestedProcedurePriority": "ROUTINE"}, False),
        ({"Modality": "XA"}, True),
        ({"Modality": "SC", "RequestedProcedurePriority": "STAT"}, False),
    ],
)
def test_an_instance_is_urgent_by_its_routes_else_by_its_request(headers: dict[str, str], urgent: bool) -> None:
    source = DicomSource(name="imaging", listen=Address("127.0.0.1", 0))
    routes = (
        Route(sources=("imaging",), to=("pacs",)),
        Route(sources=("imaging",), to=("pacs",), when='Modality == "XA"', priority="stat"),
        Route(sources=("imaging",), to=("pacs",), when='Modality == "SC"', priority="routine"),
    )

    assert Router(routes, [source], [PACS]).is_urgent(_image(**headers)) is urgent


def test_the_routes_of_a_delivery_are_those_that_lead_there_and_hold() -> None:
    source = DicomSource(name="imaging", listen=Address("127.0.0.1", 0))
    routes = (
        Route(sources=("other",), to=("pacs",)),
        Route(sources=("im*",), to=("pacs",), when='Modality == "CT"'),
        Route(sources=("imaging",), to=("elsewhere",)),
        Route(sources=("imaging",), to=("pacs",)),
    )
    router = Router(routes, [source], [PACS])

    assert router.routes_to(_image(Modality="CT"), "pacs") == (1, 3)
    assert router.routes_to(_image(Modality="MR"), "pacs") == (3,)
    assert router.routes_to(_image(Modality="MR"), "nowhere") == ()
