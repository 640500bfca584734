"""Waves in a PCD-01 message: one OBR group each, as IHE WCM has it (waveform content module).

    OBR  69121^MDC_OBS_WAVE_CTS  start and end of the piece
    OBX  device rows above the wave
    OBX  NA: samples; facets below it: sample rate, resolution, offset where there is one, the mark of a missing sample

A value is sample x resolution + offset. The offset facet has no number in the standard and travels as code 0. Where
samples are missing the mark is a number that no sample of the piece has.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Context, Decimal

from gateway.errors import ContentError
from gateway.formats.containment import levels, sub_order
from gateway.formats.digits import plain_digits, writable
from gateway.formats.origin import Origin
from gateway.formats.pcd_fields import entity, escape, identifier, instant, obx, unit
from gateway.model import Message, Result, Wave

SERVICE = "69121^MDC_OBS_WAVE_CTS^MDC"
HERTZ = "264640^MDC_DIM_HZ^MDC"
MISSING = -32768  # where no sample is as low

_RATE, _RESOLUTION = "68320^MDC_ATTR_SAMPLE_RATE^MDC", "67945^MDC_ATTR_SA_MSMT_RES^MDC"
_OFFSET, _MISSING = "0^MDCX_ATTR_SA_OFFSET^MDC", "197378^MDC_EVT_DATA_MISSING^MDC"
_RATES = Context(prec=9)


def is_waves_alone(result: Result) -> bool:
    """Tell whether a Result holds waves and nothing else that a message could bring."""
    told = result.observations or result.conditions or result.device_time
    return bool(result.waves) and not told


def wave_groups(message: Message, result: Result, control_id: str, origin: Origin) -> Iterator[str]:
    """Yield the segments of all waves. Raises ContentError for a period that is none."""
    pieces = (wave for wave in result.waves if wave.samples)
    for number, wave in enumerate(pieces, start=2):  # OBR 1 is the observations'
        if not wave.period_s.is_finite() or wave.period_s <= 0:
            raise ContentError(f"wave {wave.key}: a period of {wave.period_s} s")
        began = wave.started_at or result.observed_at or message.received_at
        ended = began + timedelta(seconds=float(wave.period_s) * len(wave.samples))
        reading = f"{escape(control_id)}-{number}^{entity(origin)}"
        yield f"OBR|{number}|{reading}|{reading}|{SERVICE}|||{instant(began)}|{instant(ended)}"
        rows = [*_above(result, wave), *_rows(wave, instant(began))]
        yield from (f"OBX|{place}|{row}" for place, row in enumerate(rows, start=1))


def _above(result: Result, wave: Wave) -> Iterator[str]:
    path = sub_order(wave.sub)
    for level in levels(result):
        order = sub_order(level.sub)
        named = [ordinal for ordinal in order if ordinal]
        if tuple(named) == path[: len(named)]:
            yield obx(code=f"{level.code}^{escape(level.refid)}^MDC", sub=level.sub, status="X")


def _rows(wave: Wave, began: str) -> Iterator[str]:
    missing = min([MISSING, *(sample - 1 for sample in wave.samples if sample is not None)])
    samples = "^".join(str(missing if sample is None else sample) for sample in wave.samples)
    measure = unit(wave.unit, wave.unit_code, wave.unit_refid, demanded=True)
    code = identifier(wave.key, wave.code, wave.refid, None, "L")
    yield obx(kind="NA", code=code, sub=wave.sub, value=samples, unit=measure, at=began)
    rate = plain_digits(_RATES.divide(Decimal(1), wave.period_s).normalize())
    facets = [(_RATE, rate, HERTZ), (_RESOLUTION, plain_digits(writable(wave.factor)), measure)]
    if wave.offset:
        facets.append((_OFFSET, plain_digits(writable(wave.offset)), measure))
    if None in wave.samples:
        facets.append((_MISSING, str(missing), ""))
    for number, (facet, value, measured) in enumerate(facets, start=1):
        yield obx(kind="NM", code=facet, sub=f"{wave.sub}.{number}", value=value, unit=measured)
