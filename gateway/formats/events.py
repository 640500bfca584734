"""The JSON documents on MQTT: `status`, `birth`, `context` and `obs`, version 1 (schema: mqtt.schema.json).

- Numbers keep the digits of the Device; instants are RFC 3339 UTC with milliseconds.
- The id of an `obs` is a UUIDv5 over kind, device, effective time and the observations, so the same reading has the
  same id after a restart, on every route and in every repeat. Ids of the other documents differ with each writing.
- `patient` is null until something better than the Device's own word tells who lies there.
- Conditions and the Device's clock are observations too: key `x_condition` with an object of code, text and
  technical, key `x_device_time` with the text as the Device printed it. Both stand at <MDS>.0.0.n.
- Flags outside the schema's list travel on PCD-01 only.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID, uuid5

from gateway.errors import ContentError
from gateway.formats.births import Birth, Metric
from gateway.formats.containment import Attribute, attributes
from gateway.formats.jsontext import Json, write_json
from gateway.formats.origin import Origin, gateway_level
from gateway.model import Condition, Message, Observation, Result

SCHEMA_ROOT = "https://gateway.example.org/schema/"
OBSERVATIONS_MAX = 500  # of one obs document (schema)
FLAGS = frozenset(
    {"N", "L", "LL", "H", "HH", "A", "QUES", "CAL", "TEST", "DEMO", "VAL", "EARLY", "ALACT", "ALINH", ">", "<"}
)

_NAMESPACE = UUID("8a1f6c0e-5b0d-5d0b-9a3e-4e1f6a2c7d55")  # ours, drawn once, never to change
_TEXT_MAX = 60  # of a part of a location (schema)

State = Literal["starting", "online", "stopping", "offline", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every document carries: who writes, in which session (start of the connection), which number, when."""

    gateway: str
    session: str
    seq: int
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One payload: its id (UUID), its schema by short name (`obs/1`), and its bytes."""

    id: str
    schema: str
    body: bytes


def rfc3339(at: datetime) -> str:
    """Return an instant as `2026-01-15T09:30:31.250Z`."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def session_of(connected_at: datetime) -> str:
    """Return a session's name, its start: sessions sort by it as text."""
    utc = connected_at.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"


def status(
    envelope: Envelope,
    state: State,
    *,
    version: str | None = None,
    started_at: datetime | None = None,
    devices: int = 0,
) -> Document:
    """Return the gateway's own state; `lost` is its last will and carries the state alone."""
    told: dict[str, Json] = {"state": state}
    if state != "lost":
        told |= {"version": version or "", "started_at": rfc3339(started_at or envelope.sent_at), "devices": devices}
    return _document("status", envelope, _id_of("status", envelope, state), told)


def birth(envelope: Envelope, known: Birth) -> Document:
    """Return what a consumer must know to read the Device's observations."""
    names = {name: getattr(known.identity, name) for name in ("manufacturer", "model", "serial", "software")}
    device = {"eui64": known.origin.device_id, **_given(names)}
    rows: list[Json] = [{"sub": row.sub, "mdc": row.code, "refid": row.refid} for row in known.levels]
    told: dict[str, Json] = {
        "device": device,
        "containment": rows,
        "metrics": [_metric(item) for item in known.metrics],
    }
    return _document("birth", envelope, _id_of("birth", envelope, known.origin.device_id), told)


def context(envelope: Envelope, origin: Origin, since: datetime) -> Document:
    """Return where the Device stands; nobody is associated with it."""
    told: dict[str, Json] = {"location": _location(origin), "patient": None, "since": rfc3339(since)}
    return _document("context", envelope, _id_of("context", envelope, origin.device_id), told)


def obs(
    envelope: Envelope, message: Message, origin: Origin, *, historical: bool, synced: bool | None = None
) -> Document:
    """Return one snapshot of values; `synced` tells whether the gateway's clock is, None leaves the clock out.

    Raises ContentError when the Message holds no Result, none that can be written, or more than OBSERVATIONS_MAX.
    """
    if message.result is None:
        raise ContentError(f"message {message.id}: no Result to render")
    seen = _observations(message.result)
    if not 1 <= len(seen) <= OBSERVATIONS_MAX:
        raise ContentError(f"message {message.id}: {len(seen)} observations, expected 1 to {OBSERVATIONS_MAX}")
    effective = message.result.observed_at or message.received_at
    told: dict[str, Json] = {"historical": historical, "observed_at": rfc3339(effective)}
    if synced is not None:
        told["clock"] = {"synced": synced}
    if origin.bed:
        told["location"] = _location(origin)
    told |= {"patient": None, "observations": seen}
    return _document("obs", envelope, _obs_id(origin, effective, seen), told)


def hl7_id(message: Message) -> str:
    """Return the id of an HL7 message on MQTT: the same for the same bytes of the same Source."""
    content = hashlib.sha256(message.raw or b"").hexdigest()
    return str(uuid5(_NAMESPACE, f"hl7/{message.source}/{content}"))


def _document(kind: str, envelope: Envelope, document_id: str, told: Mapping[str, Json]) -> Document:
    head: dict[str, Json] = {
        "schema": f"{SCHEMA_ROOT}{kind}/1",
        "id": document_id,
        "gateway": gateway_level(envelope.gateway),
        "session": envelope.session,
        "seq": envelope.seq,
        "sent_at": rfc3339(envelope.sent_at),
    }
    return Document(id=document_id, schema=f"{kind}/1", body=write_json({**head, **told}))


def _id_of(kind: str, envelope: Envelope, about: str) -> str:
    place = f"{kind}/{envelope.gateway}/{envelope.session}/{envelope.seq}/{about}"
    return str(uuid5(_NAMESPACE, f"{place}/{envelope.sent_at.isoformat()}"))


def _obs_id(origin: Origin, effective: datetime, seen: Sequence[Json]) -> str:
    content = hashlib.sha256(write_json(seen)).hexdigest()
    return str(uuid5(_NAMESPACE, f"obs/{origin.device_id}/{effective.astimezone(UTC).isoformat()}/{content}"))


def _given(values: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value is not None}


def _location(origin: Origin) -> Json:
    return {name: part[:_TEXT_MAX] for name, part in origin.place().items()}


def _metric(item: Metric) -> Json:
    told: dict[str, Json] = {"key": item.key, "sub": item.sub}
    told |= _given({"mdc": item.code, "refid": item.refid})
    told |= {"kind": item.kind, **_given({"unit": item.unit, "limits": _limits(item.low, item.high)})}
    return told


def _limits(low: Decimal | None, high: Decimal | None) -> Json:
    return _given({"low": low, "high": high}) or None


def _observations(result: Result) -> list[Json]:
    return [_observation(seen) for seen in result.observations] + [_attribute(item) for item in attributes(result)]


def _observation(seen: Observation) -> Json:
    told: dict[str, Json] = {"key": seen.key, "sub": seen.sub}
    told |= _given({"mdc": seen.code, "refid": seen.refid, "loinc": seen.loinc})
    if seen.absent is not None:
        told["absent"] = seen.absent.value
    else:
        told["value"] = seen.value
        told |= _given({"unit": seen.unit, "unit_mdc": seen.unit_code if seen.unit else None})
    if seen.observed_at is not None:
        told["observed_at"] = rfc3339(seen.observed_at)
    told["method"] = seen.method.value
    if seen.episodic:
        told["episodic"] = True
    if flags := [flag for flag in dict.fromkeys(seen.flags) if flag in FLAGS]:
        told["flags"] = flags
    return told | _given({"limits": _limits(seen.low, seen.high)})


def _attribute(item: Attribute) -> Json:
    told: dict[str, Json] = {"key": item.key, "sub": item.sub, "mdc": item.code, "refid": item.refid}
    if isinstance(item.content, Condition):
        found = item.content
        told["value"] = {"code": found.code, "text": found.text, "technical": found.technical}
    else:
        told["value"] = item.content
    return told
