"""What one Result becomes on MQTT: `obs`, `event` and `wave` documents, version 1 (schema: mqtt.schema.json).

- Observations are one `obs`, or several where they are more than the schema takes; each alarm (a Condition with a
  priority) is an `event`; each piece of a wave is a `wave`. They come in that order.
- The id of a document is a UUIDv5 over kind, device, effective time and content, so the same reading has the same id
  after a restart, on every route and in every repeat.
- `patient` is null until something better than the Device's own word tells who lies there.
- Conditions that are no alarms and the Device's clock are observations too: key `x_condition` with an object of code,
  text and technical, key `x_device_time` with the text as the Device printed it. Both stand at <MDS>.0.0.n.
- Flags outside the schema's list travel on PCD-01 only.
- `seq` is the Message's number: the documents of one Message share it.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from hashlib import sha256

from gateway.errors import ContentError
from gateway.formats.containment import Attribute, attributes, sub_order
from gateway.formats.digits import writable
from gateway.formats.events import Document, Envelope, content_id, document, given, limits, location, rfc3339
from gateway.formats.jsontext import Json, Written, written
from gateway.formats.origin import Origin
from gateway.formats.terms import term_of_code
from gateway.model import Condition, Message, Observation, Phase, Priority, Result, Turn, Wave

OBSERVATIONS_MAX = 500  # of one obs document (schema)
SAMPLES_MAX = 10_000  # of one wave document (schema)
FLAGS = frozenset(
    {"N", "L", "LL", "H", "HH", "A", "QUES", "CAL", "TEST", "DEMO", "VAL", "EARLY", "ALACT", "ALINH", ">", "<"}
)

_TEXT_MAX = 200  # of an event (schema)
_RATES = Context(prec=9)  # a period of 0.00333333 s is 300.0003 Hz: no more digits than it has
_TURNS = {None: Turn.CONTINUE, Phase.START: Turn.START, Phase.PRESENT: Turn.CONTINUE}
_TURNS |= {Phase.LATCHED: Turn.UPDATE, Phase.END: Turn.END}
_STATES = {Phase.END: "inactive", Phase.LATCHED: "latched"}


def result_documents(
    envelope: Envelope, message: Message, origin: Origin, *, historical: bool, synced: bool | None = None
) -> tuple[Document, ...]:
    """Return what a Message's Result becomes; `synced` tells whether the gateway's clock is, None leaves it out.

    Raises ContentError when the Message holds no Result, one that says nothing, or one that cannot be written.
    """
    result = message.result
    if result is None:
        raise ContentError(f"message {message.id}: no Result to render")
    effective = result.observed_at or message.received_at
    parts = [*_obs(result, effective, synced), *_events(result, effective, origin), *_waves(result, effective)]
    if not parts:
        raise ContentError(f"message {message.id}: a Result that says nothing")
    return tuple(_document(envelope, origin, part, historical=historical) for part in parts)


_Part = tuple[str, datetime, Written, dict[str, Json]]  # kind, when, what the id is made of, the document's members


def _document(envelope: Envelope, origin: Origin, part: _Part, *, historical: bool) -> Document:
    kind, at, content, members = part
    told: dict[str, Json] = {"historical": historical, "observed_at": rfc3339(at)}
    if origin.bed:
        told["location"] = location(origin)
    return document(kind, envelope, content_id(kind, origin, at, content), {**told, "patient": None, **members})


def _obs(result: Result, effective: datetime, synced: bool | None) -> Iterator[_Part]:
    clock: dict[str, Json] = {} if synced is None else {"clock": {"synced": synced}}
    for some in _cut(_observations(result), OBSERVATIONS_MAX):
        told = written(some)
        yield "obs", effective, told, {**clock, "observations": told}


def _cut(items: Sequence[Json], size: int) -> Iterator[list[Json]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _observations(result: Result) -> list[Json]:
    own = (item for item in attributes(result) if not item.is_alarm)
    return [_observation(seen) for seen in result.observations] + [_attribute(item) for item in own]


def _observation(seen: Observation) -> Json:
    told: dict[str, Json] = {"key": seen.key, "sub": seen.sub}
    told |= given({"mdc": seen.code, "refid": seen.refid, "loinc": seen.loinc})
    if seen.absent is not None:
        told["absent"] = seen.absent.value
    else:
        told["value"] = seen.value
        told |= given({"unit": seen.unit, "unit_mdc": seen.unit_code if seen.unit else None})
    if seen.observed_at is not None:
        told["observed_at"] = rfc3339(seen.observed_at)
    told["method"] = seen.method.value
    if seen.episodic:
        told["episodic"] = True
    if flags := [flag for flag in dict.fromkeys(seen.flags) if flag in FLAGS]:
        told["flags"] = flags
    return told | given({"limits": limits(seen.low, seen.high)})


def _attribute(item: Attribute) -> Json:
    told: dict[str, Json] = {"key": item.key, "sub": item.sub, "mdc": item.code, "refid": item.refid}
    if isinstance(item.content, Condition):
        found = item.content
        told["value"] = {"code": found.code, "text": found.text, "technical": found.technical}
    else:
        told["value"] = item.content
    return told


def _events(result: Result, effective: datetime, origin: Origin) -> Iterator[_Part]:
    for alarm in result.conditions:
        if alarm.priority is not None:
            told = written(_event(alarm, result.observations, origin))
            yield "event", effective, told, {"event": told}


def _event(alarm: Condition, seen: Iterable[Observation], origin: Origin) -> dict[str, Json]:
    known = term_of_code(alarm.mdc) if alarm.mdc is not None else None
    about = next((item for item in seen if alarm.sub is not None and item.sub == alarm.sub), None)
    value = about.value if about is not None and isinstance(about.value, Decimal) else None
    episode = alarm.episode
    told: dict[str, Json] = {
        "instance": episode.instance if episode is not None else _instance(alarm, origin),
        "update": episode.update if episode is not None else 1,
        **given({"mdc": alarm.mdc, "refid": known.refid if known else None}),
        "phase": (episode.turn if episode is not None else _TURNS[alarm.phase]).value,
        "state": _STATES.get(alarm.phase, "active") if alarm.phase is not None else "active",
        "priority": "none" if alarm.priority in (None, Priority.ADVISORY) else alarm.priority.value,
        "type": _type(alarm),
    }
    if alarm.sub is not None:
        sub_order(alarm.sub)
        told["source"] = {"sub": alarm.sub, **given({"mdc": about.code, "refid": about.refid} if about else {})}
    told |= given({"value": value, "unit": about.unit if about is not None and value is not None else None})
    told |= given({"limit": _limit(alarm, value)})
    if alarm.silenced:
        told["silenced"] = True
    return told | {"text": _text(alarm)}


def _instance(alarm: Condition, origin: Origin) -> str:
    """Return the name of an alarm of which nobody told where it began: the same for the same kind of alarm."""
    kind = sha256(f"{alarm.code}\0{alarm.sub}\0{alarm.mdc}".encode("utf-8", "replace")).hexdigest()
    return f"{origin.device_id}-{kind[:8]}"


def _type(alarm: Condition) -> str:
    if alarm.priority is Priority.ADVISORY:
        return "advisory"
    return "technical" if alarm.technical else "physiological"


def _limit(alarm: Condition, value: Decimal | None) -> Decimal | None:
    """Return the limit that was violated; None where that cannot be told."""
    if alarm.low is None or alarm.high is None:
        return alarm.high if alarm.low is None else alarm.low
    if value is None:
        return None
    return alarm.low if value < alarm.low else alarm.high if value > alarm.high else None


def _text(alarm: Condition) -> str:
    """Return the alarm in words, with the vendor's own code."""
    if not alarm.text or alarm.code == alarm.text:
        return alarm.code[:_TEXT_MAX]
    code = f" ({alarm.code})" if alarm.code else ""
    return f"{alarm.text[: max(0, _TEXT_MAX - len(code))]}{code}"[:_TEXT_MAX]


def _waves(result: Result, effective: datetime) -> Iterator[_Part]:
    for wave in result.waves:
        if not wave.period_s.is_finite() or wave.period_s <= 0:
            raise ContentError(f"wave {wave.key}: a period of {wave.period_s} s")
        at, shown = wave.started_at or effective, _wave(wave)
        for number, samples in enumerate(_cut(wave.samples, SAMPLES_MAX)):
            began = at + timedelta(seconds=float(wave.period_s) * SAMPLES_MAX * number)
            gap: dict[str, Json] = {"gap": True} if wave.gap and number == 0 else {}
            told = written({**shown, **gap, "samples": samples})
            yield "wave", began, told, {"wave": told}


def _wave(wave: Wave) -> dict[str, Json]:
    sub_order(wave.sub)
    told = given({"mdc": wave.code, "key": wave.key if wave.code is None else None, "refid": wave.refid})
    told |= {"sub": wave.sub, "rate_hz": _rate(wave.period_s), "unit": wave.unit or "{unknown}"}
    return told | {"factor": writable(wave.factor), "offset": writable(wave.offset)}


def _rate(period_s: Decimal) -> Decimal:
    return _RATES.divide(Decimal(1), period_s).normalize()
