"""Results as JSON text for the store, and back.

One document a Result: the fields of the dataclasses under their own names, fields at their default left out. A
numeric value is `value`, a Decimal written as a string so that no digit is lost; a text value is `text`. Instants are
ISO 8601 with their offset; a Device's clock has one where its zone is known. Samples of a wave are a list of integers
and nulls.
`decode_result(encode_result(result)) == result` for every Result.
"""

import json
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.errors import ContentError
from gateway.model import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Episode,
    Method,
    Observation,
    Phase,
    Priority,
    Result,
    Turn,
    Wave,
)

_encoder = json.JSONEncoder(separators=(",", ":"))
_decoder = json.JSONDecoder()

_OBSERVATION_PLAIN = ("code", "refid", "loinc", "unit", "unit_code", "unit_refid")
_WAVE_PLAIN = ("code", "refid", "unit", "unit_code", "unit_refid")
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
    if result.waves:
        out["waves"] = [_wave_out(item) for item in result.waves]
    if result.observed_at is not None:
        out["observed_at"] = result.observed_at.isoformat()
    if result.device_clock is not None:
        out["device_clock"] = result.device_clock.isoformat()
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
    if item.priority is not None:
        out["priority"] = item.priority.value
    if item.phase is not None:
        out["phase"] = item.phase.value
    out.update(_given(item, ("sub", "mdc")))
    if item.low is not None:
        out["low"] = str(item.low)
    if item.high is not None:
        out["high"] = str(item.high)
    if item.silenced:
        out["silenced"] = True
    if item.episode is not None:
        out["episode"] = [item.episode.instance, item.episode.update, item.episode.turn.value]
    return out


def _wave_out(item: Wave) -> dict[str, Any]:
    out: dict[str, Any] = {"key": item.key, "sub": item.sub, "samples": item.samples, "period_s": str(item.period_s)}
    if (factor := str(item.factor)) != "1":
        out["factor"] = factor
    if (offset := str(item.offset)) != "0":
        out["offset"] = offset
    out.update(_given(item, _WAVE_PLAIN))
    if item.gap:
        out["gap"] = True
    if item.started_at is not None:
        out["started_at"] = item.started_at.isoformat()
    return out


def _result_in(held: dict[str, Any]) -> Result:
    return Result(
        observations=tuple([_observation_in(item) for item in held["observations"]]),
        device=DeviceIdentity(**held["device"]) if "device" in held else _NO_IDENTITY,
        containment=tuple([Containment(**row) for row in held.get("containment", ())]),
        conditions=tuple([_condition_in(item) for item in held.get("conditions", ())]),
        observed_at=_instant_in(held.get("observed_at")),
        device_time=held.get("device_time"),
        device_clock=_instant_in(held.get("device_clock")),
        patient_id=held.get("patient_id"),
        waves=tuple([_wave_in(item) for item in held.get("waves", ())]),
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


def _condition_in(held: dict[str, Any]) -> Condition:
    get = held.get
    priority, phase, episode = get("priority"), get("phase"), get("episode")
    return Condition(
        code=held["code"],
        text=held["text"],
        technical=get("technical", True),
        priority=None if priority is None else Priority(priority),
        phase=None if phase is None else Phase(phase),
        sub=get("sub"),
        mdc=get("mdc"),
        low=_decimal_in(get("low")),
        high=_decimal_in(get("high")),
        silenced=get("silenced", False),
        episode=None if episode is None else _episode_in(*episode),
    )


def _episode_in(instance: str, update: int, turn: str) -> Episode:
    return Episode(instance=instance, update=update, turn=Turn(turn))


def _wave_in(held: dict[str, Any]) -> Wave:
    get = held.get
    return Wave(
        key=held["key"],
        sub=held["sub"],
        samples=tuple(held["samples"]),
        period_s=Decimal(held["period_s"]),
        factor=Decimal(get("factor", 1)),
        offset=Decimal(get("offset", 0)),
        code=get("code"),
        refid=get("refid"),
        unit=get("unit"),
        unit_code=get("unit_code"),
        unit_refid=get("unit_refid"),
        gap=get("gap", False),
        started_at=_instant_in(get("started_at")),
    )


def _instant_in(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _decimal_in(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
