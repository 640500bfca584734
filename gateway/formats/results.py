"""Results as JSON text for the store, and back.

One document a Result: the fields of the dataclasses under their own names, fields at their default left out. A
numeric value is `value`, a Decimal written as a string so that no digit is lost; a text value is `text`. Instants are
ISO 8601 with their offset. `decode_result(encode_result(result)) == result` for every Result.
"""

import json
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.errors import ContentError
from gateway.model import Absent, Condition, Containment, DeviceIdentity, Method, Observation, Result

_encoder = json.JSONEncoder(separators=(",", ":"))
_decoder = json.JSONDecoder()

_OBSERVATION_PLAIN = ("code", "refid", "loinc", "unit", "unit_code", "unit_refid")
_IDENTITY = ("manufacturer", "model", "serial", "software", "eui64")
_NO_IDENTITY = DeviceIdentity()


def encode_result(result: Result) -> str:
    """Return the JSON document of a Result: one line, ASCII."""
    out: dict[str, Any] = {"observations": [_observation_out(item) for item in result.observations]}
    if result.device != _NO_IDENTITY:
        out["device"] = _given(result.device, _IDENTITY)
    if result.containment:
        out["containment"] = [{"sub": row.sub, "code": row.code, "refid": row.refid} for row in result.containment]
    if result.conditions:
        out["conditions"] = [_condition_out(item) for item in result.conditions]
    if result.observed_at is not None:
        out["observed_at"] = result.observed_at.isoformat()
    out.update(_given(result, ("device_time", "patient_id")))
    return _encoder.encode(out)


def decode_result(text: str) -> Result:
    """Return the Result of a document that `encode_result` wrote.

    Raises ContentError when the text is no such document.
    """
    try:
        return _result_in(_decoder.decode(text))
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation, RecursionError) as error:
        raise ContentError(f"not a Result document: {type(error).__name__}") from error


def _given(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: held for name in names if (held := getattr(value, name)) is not None}


def _observation_out(item: Observation) -> dict[str, Any]:
    out: dict[str, Any] = {"key": item.key, "sub": item.sub}
    if isinstance(item.value, Decimal):
        out["value"] = str(item.value)
    elif item.value is not None:
        out["text"] = item.value
    elif item.absent is not None:
        out["absent"] = item.absent.value
    for name in _OBSERVATION_PLAIN:
        if (held := getattr(item, name)) is not None:
            out[name] = held
    if item.flags:
        out["flags"] = item.flags
    if item.method is not Method.AUTO:
        out["method"] = item.method.value
    if item.episodic:
        out["episodic"] = True
    if item.observed_at is not None:
        out["observed_at"] = item.observed_at.isoformat()
    if item.low is not None:
        out["low"] = str(item.low)
    if item.high is not None:
        out["high"] = str(item.high)
    return out


def _condition_out(item: Condition) -> dict[str, Any]:
    out: dict[str, Any] = {"code": item.code, "text": item.text}
    if not item.technical:
        out["technical"] = False
    return out


def _result_in(held: dict[str, Any]) -> Result:
    return Result(
        observations=tuple([_observation_in(item) for item in held["observations"]]),
        device=DeviceIdentity(**held["device"]) if "device" in held else _NO_IDENTITY,
        containment=tuple([Containment(**row) for row in held.get("containment", ())]),
        conditions=tuple([Condition(**item) for item in held.get("conditions", ())]),
        observed_at=_instant_in(held.get("observed_at")),
        device_time=held.get("device_time"),
        patient_id=held.get("patient_id"),
    )


def _observation_in(held: dict[str, Any]) -> Observation:
    get = held.get
    absent, method = get("absent"), get("method")
    return Observation(
        key=held["key"],
        sub=held["sub"],
        value=Decimal(held["value"]) if "value" in held else get("text"),
        absent=None if absent is None else Absent(absent),
        code=get("code"),
        refid=get("refid"),
        loinc=get("loinc"),
        unit=get("unit"),
        unit_code=get("unit_code"),
        unit_refid=get("unit_refid"),
        flags=tuple(get("flags", ())),
        method=Method.AUTO if method is None else Method(method),
        episodic=get("episodic", False),
        observed_at=_instant_in(get("observed_at")),
        low=_decimal_in(get("low")),
        high=_decimal_in(get("high")),
    )


def _instant_in(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _decimal_in(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
