import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from gateway.errors import ContentError
from gateway.formats import events
from gateway.formats.births import learn
from gateway.formats.events import Document, Envelope, session_of
from gateway.formats.origin import Origin
from gateway.formats.result_documents import OBSERVATIONS_MAX, SAMPLES_MAX, result_documents
from gateway.model import Condition, Episode, Message, Observation, Phase, Priority, Result, Turn, Wave
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, RECEIVED_AT, message_of, results

ENVELOPE = Envelope(gateway="Ward_3a", session=session_of(RECEIVED_AT), seq=5, sent_at=RECEIVED_AT)
SCHEMA = json.loads(files("gateway.formats").joinpath("mqtt.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def checked(document: Document) -> Any:
    """The document's JSON, valid under the published schema, its numbers as written."""
    VALIDATOR.validate(json.loads(document.body))
    return json.loads(document.body, parse_float=Decimal, parse_int=Decimal)


def documents_of(message: Message, envelope: Envelope = ENVELOPE, origin: Origin = ORIGIN) -> tuple[Document, ...]:
    return result_documents(envelope, message, origin, historical=False)


def obs_of(message: Message, envelope: Envelope = ENVELOPE, origin: Origin = ORIGIN) -> Document:
    (obs,) = documents_of(message, envelope, origin)
    return obs


def one(value: Decimal | str) -> Result:
    return Result(observations=(Observation(key="spo2", sub="1.0.0.7", value=value),))


def test_a_result_becomes_an_obs_of_the_schema() -> None:
    told = checked(result_documents(ENVELOPE, message_of(OXIMETER), ORIGIN, historical=True, synced=True)[0])

    assert told["historical"] is True
    assert told["gateway"] == "ward-3a"
    assert told["session"] == "20260115T093031.250Z"
    assert told["seq"] == 5
    assert told["observed_at"] == "2026-01-15T09:30:31.250Z"
    assert told["clock"] == {"synced": True}
    assert told["location"] == {"point_of_care": "ICU", "bed": "12", "facility": "GENERAL"}
    assert told["patient"] is None
    assert [seen["key"] for seen in told["observations"]] == [
        "spo2",
        "pulse_rate",
        "x_pvi_raw",
        "x_alarm",
        "set_limit",
        "x_device_time",
        "x_condition",
    ]
    assert told["observations"][1] == {
        "key": "pulse_rate",
        "sub": "1.3.1.2",
        "mdc": 149530,
        "refid": "MDC_PULS_OXIM_PULS_RATE",
        "absent": "OFF",
        "method": "auto",
    }
    assert told["observations"][6]["value"] == {"code": "SD", "text": "sensor & cable off", "technical": True}


@pytest.mark.parametrize("digits", ["37.0", "98.60", "0.000", "-0.5", "123456789012345678901.5", "7"])
def test_numbers_keep_the_digits_of_the_device(digits: str) -> None:
    assert f'"value":{digits},' in obs_of(message_of(one(Decimal(digits)))).body.decode()


def test_the_patient_of_the_device_is_not_published() -> None:
    assert b"MRN4471" not in obs_of(message_of(OXIMETER)).body


def test_a_reading_keeps_its_id_whatever_happens_to_the_gateway() -> None:
    first = obs_of(message_of(OXIMETER))
    later = replace(ENVELOPE, session="later", seq=9, sent_at=RECEIVED_AT + timedelta(days=1))

    assert obs_of(message_of(OXIMETER, number=99), later).id == first.id


def test_other_readings_have_other_ids() -> None:
    message = message_of(OXIMETER)
    moved = replace(message, received_at=RECEIVED_AT + timedelta(microseconds=1))
    changed = message_of(replace(OXIMETER, conditions=()))
    elsewhere = obs_of(message, origin=replace(ORIGIN, device_id="0201F3FFFE00A418"))

    assert len({obs_of(message).id, obs_of(moved).id, obs_of(changed).id, elsewhere.id}) == 4


def test_what_the_schema_cannot_hold_is_refused() -> None:
    wave = Wave(key="pleth_wave", sub="1.0.0.7", samples=(1,), period_s=Decimal(0))

    for result in (Result(observations=()), one(Decimal("NaN")), Result(observations=(), waves=(wave,)), None):
        with pytest.raises(ContentError):
            obs_of(message_of(result))


def test_conditions_alone_are_news_enough() -> None:
    told = checked(obs_of(message_of(Result(observations=(), conditions=(Condition(code="LB", text="low battery"),)))))

    assert told["observations"][0]["sub"] == "1.0.0.4"


def test_more_observations_than_a_document_takes_are_several() -> None:
    many = tuple(Observation(key="spo2", sub=f"1.0.0.{n}", value=Decimal(n)) for n in range(1, 1202))

    told = [checked(document) for document in documents_of(message_of(Result(observations=many)))]

    assert [len(document["observations"]) for document in told] == [OBSERVATIONS_MAX, OBSERVATIONS_MAX, 201]
    assert len({document["id"] for document in told}) == 3
    assert [seen["value"] for document in told for seen in document["observations"]] == list(range(1, 1202))


SPO2 = Observation(key="spo2", sub="1.3.1.1", value=Decimal(87), code=150456, refid="MDC_PULS_OXIM_SAT_O2", unit="%")
LOW_SPO2 = Condition(
    code="SPO2 LOW",
    text="SpO2 low",
    technical=False,
    priority=Priority.HIGH,
    phase=Phase.START,
    sub="1.3.1.1",
    mdc=196670,
    low=Decimal(90),
    high=Decimal(100),
    episode=Episode(instance="A7F0-000193", update=1, turn=Turn.START),
)


def test_an_alarm_is_an_event_of_its_own() -> None:
    obs, event = documents_of(message_of(Result(observations=(SPO2,), conditions=(LOW_SPO2,))))

    assert [obs.kind, event.kind] == ["obs", "event"]
    assert [seen["key"] for seen in checked(obs)["observations"]] == ["spo2"]
    assert checked(event)["event"] == {
        "instance": "A7F0-000193",
        "update": 1,
        "mdc": 196670,
        "refid": "MDC_EVT_LO",
        "phase": "start",
        "state": "active",
        "priority": "high",
        "type": "physiological",
        "source": {"mdc": 150456, "refid": "MDC_PULS_OXIM_SAT_O2", "sub": "1.3.1.1"},
        "value": 87,
        "unit": "%",
        "limit": 90,
        "text": "SpO2 low (SPO2 LOW)",
    }


@pytest.mark.parametrize(
    ("phase", "turn", "state"),
    [
        (None, "continue", "active"),
        (Phase.START, "start", "active"),
        (Phase.PRESENT, "continue", "active"),
        (Phase.LATCHED, "update", "latched"),
        (Phase.END, "end", "inactive"),
    ],
)
def test_an_alarm_without_an_episode_says_what_the_device_said(phase: Phase | None, turn: str, state: str) -> None:
    alarm = Condition(code="E1", text="pump", priority=Priority.ADVISORY, phase=phase, silenced=True)

    (event,) = documents_of(message_of(Result(observations=(), conditions=(alarm,))))

    told = checked(event)["event"]
    assert (told["phase"], told["state"], told["priority"], told["type"]) == (turn, state, "none", "advisory")
    assert told["silenced"] is True
    assert told["instance"].startswith(ORIGIN.device_id)


ECG = Wave(
    key="ecg_wave_ii",
    sub="1.1.2.1",
    samples=(4, None, -70),
    period_s=Decimal("0.004"),
    factor=Decimal("2.44"),
    code=131330,
    refid="MDC_ECG_ELEC_POTL_II",
    unit="uV",
)


def test_a_wave_is_a_document_of_its_own() -> None:
    (document,) = documents_of(message_of(Result(observations=(), waves=(ECG,))))

    told = checked(document)
    assert told["wave"] == {
        "mdc": 131330,
        "refid": "MDC_ECG_ELEC_POTL_II",
        "sub": "1.1.2.1",
        "rate_hz": 250,
        "unit": "uV",
        "factor": Decimal("2.44"),
        "offset": 0,
        "samples": [4, None, -70],
    }
    assert told["observed_at"] == "2026-01-15T09:30:31.250Z"


def test_a_vendors_wave_and_a_gap_are_told() -> None:
    ours = replace(ECG, key="x_acme_3", code=None, refid=None, unit=None, gap=True, started_at=RECEIVED_AT)

    (document,) = documents_of(message_of(Result(observations=(), waves=(ours,))))

    told = checked(document)["wave"]
    assert (told["key"], told["gap"], told["unit"]) == ("x_acme_3", True, "{unknown}")


def test_a_period_without_end_is_written_short_enough() -> None:
    third = replace(ECG, period_s=Decimal(1) / 300, factor=Decimal(1) / 3)
    result = Result(observations=(), waves=(third,))

    (wave,) = (checked(document)["wave"] for document in documents_of(message_of(result)))
    (metric,) = checked(events.birth(ENVELOPE, learn(None, ORIGIN, result)))["metrics"]

    assert (wave["rate_hz"], wave["factor"]) == (300, Decimal("0.333333333333"))
    assert metric["period_s"] == Decimal("0.00333333333333")


def test_a_long_wave_is_several_documents_that_follow_each_other() -> None:
    long = replace(ECG, samples=tuple(range(SAMPLES_MAX + 500)), gap=True)

    first, second = (checked(one) for one in documents_of(message_of(Result(observations=(), waves=(long,)))))

    assert first["wave"]["samples"] + second["wave"]["samples"] == list(long.samples)
    assert (first["observed_at"], second["observed_at"]) == ("2026-01-15T09:30:31.250Z", "2026-01-15T09:31:11.250Z")
    assert "gap" not in second["wave"]


def test_a_wave_stands_in_the_birth_with_its_period() -> None:
    told = checked(events.birth(ENVELOPE, learn(None, ORIGIN, Result(observations=(), waves=(ECG,)))))

    (metric,) = told["metrics"]
    assert (metric["key"], metric["kind"], metric["period_s"]) == ("ecg_wave_ii", "wave", Decimal("0.004"))
    assert told["containment"][0]["sub"] == "1.0.0.0"


@settings(max_examples=60)
@given(results())
def test_every_document_and_birth_is_valid_and_keeps_its_values(result: Result) -> None:
    documents = [checked(document) for document in documents_of(message_of(result))]
    checked(events.birth(ENVELOPE, learn(None, ORIGIN, result)))

    told = documents[0]
    assert [one["wave"]["samples"] for one in documents if "wave" in one] == [
        list(wave.samples) for wave in result.waves if wave.samples
    ]
    assert len([one for one in documents if "event" in one]) == len(
        [alarm for alarm in result.conditions if alarm.priority]
    )
    for seen, written in zip(result.observations, told["observations"], strict=False):
        assert written.get("value") == seen.value
        assert written.get("absent") == (seen.absent.value if seen.absent else None)
        if isinstance(seen.value, Decimal):
            assert str(written["value"]) == f"{seen.value:f}"


def test_the_states_of_the_gateway_are_valid() -> None:
    for state in ("starting", "online", "offline"):
        told = checked(events.status(ENVELOPE, state, version="1.0", started_at=RECEIVED_AT, devices=3))  # type: ignore[arg-type]
        assert told["state"] == state
        assert told["devices"] == 3
    lost = checked(events.status(ENVELOPE, "lost"))
    assert set(lost) == {"schema", "id", "gateway", "session", "seq", "sent_at", "state"}


def test_a_context_names_the_place_and_no_patient() -> None:
    told = checked(events.context(ENVELOPE, ORIGIN, RECEIVED_AT))

    assert told["location"]["bed"] == "12"
    assert told["patient"] is None


def test_the_schema_refuses_what_it_must() -> None:
    told = json.loads(obs_of(message_of(OXIMETER)).body)
    broken = [told | {"extra": 1}, told | {"observations": []}, {**told, "seq": -1}]
    broken.append(told | {"observations": [{**told["observations"][0], "absent": "NI"}]})

    for document in broken:
        with pytest.raises(ValidationError):
            VALIDATOR.validate(document)


def test_sessions_sort_by_their_start() -> None:
    early = datetime(2026, 1, 15, 9, 30, 31, 9000, tzinfo=UTC)

    assert session_of(early) < session_of(early + timedelta(milliseconds=1)) < session_of(early + timedelta(seconds=1))


def test_an_hl7_message_has_one_id_for_the_same_bytes() -> None:
    first, again, other = (message_of(None, raw=raw, number=n) for n, raw in enumerate([b"MSH|1", b"MSH|1", b"MSH|2"]))

    assert events.hl7_id(first) == events.hl7_id(again) != events.hl7_id(other)
