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
from gateway.model import Condition, Message, Observation, Result
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, RECEIVED_AT, message_of, results

ENVELOPE = Envelope(gateway="Ward_3a", session=session_of(RECEIVED_AT), seq=5, sent_at=RECEIVED_AT)
SCHEMA = json.loads(files("gateway.formats").joinpath("mqtt.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def checked(document: Document) -> Any:
    """The document's JSON, valid under the published schema, its numbers as written."""
    VALIDATOR.validate(json.loads(document.body))
    return json.loads(document.body, parse_float=Decimal, parse_int=Decimal)


def obs_of(message: Message, envelope: Envelope = ENVELOPE, origin: Origin = ORIGIN) -> Document:
    return events.obs(envelope, message, origin, historical=False)


def one(value: Decimal | str) -> Result:
    return Result(observations=(Observation(key="spo2", sub="1.0.0.7", value=value),))


def test_a_result_becomes_an_obs_of_the_schema() -> None:
    told = checked(events.obs(ENVELOPE, message_of(OXIMETER), ORIGIN, historical=True, synced=True))

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
    many = tuple(Observation(key="spo2", sub=f"1.0.0.{n}", value=Decimal(n)) for n in range(1, 502))

    for result in (Result(observations=many), Result(observations=()), one(Decimal("NaN")), None):
        with pytest.raises(ContentError):
            obs_of(message_of(result))


def test_conditions_alone_are_news_enough() -> None:
    told = checked(obs_of(message_of(Result(observations=(), conditions=(Condition(code="LB", text="low battery"),)))))

    assert told["observations"][0]["sub"] == "1.0.0.4"


@settings(max_examples=60)
@given(results())
def test_every_obs_and_birth_is_valid_and_keeps_its_values(result: Result) -> None:
    told = checked(obs_of(message_of(result)))
    checked(events.birth(ENVELOPE, learn(None, ORIGIN, result)))

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
