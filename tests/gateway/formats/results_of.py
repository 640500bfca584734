"""Results, Parcels and Origins to render: one written out, and Hypothesis strategies for any."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import strategies as st

from gateway.formats.hl7_digest import digest_of
from gateway.formats.origin import Origin, device_id_of
from gateway.model import (
    Absent,
    Condition,
    Containment,
    Delivery,
    DeliveryState,
    DeviceIdentity,
    Kind,
    Message,
    Method,
    Observation,
    Parcel,
    Phase,
    Priority,
    Result,
    Wave,
)

RECEIVED_AT = datetime(2026, 1, 15, 9, 30, 31, 250_999, tzinfo=UTC)

ORIGIN = Origin(
    gateway="ward-3a",
    facility="GENERAL",
    source="bed-12",
    bed="ICU^^12",
    device_id="0201F3FFFE00A417",
    gateway_eui64=device_id_of("ward-3a", ""),
)

OXIMETER = Result(
    device=DeviceIdentity(manufacturer="Example Medical", model="PM-900", serial="SN-0417"),
    containment=(
        Containment(sub="1.0.0.0", code=69965, refid="MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS"),
        Containment(sub="1.3.0.0", code=69642, refid="MDC_DEV_ANALY_SAT_O2_VMD"),
        Containment(sub="1.3.1.0", code=69643, refid="MDC_DEV_ANALY_SAT_O2_CHAN"),
    ),
    observations=(
        Observation(
            key="spo2",
            sub="1.3.1.1",
            value=Decimal("97.0"),
            code=150456,
            refid="MDC_PULS_OXIM_SAT_O2",
            loinc="2708-6",
            unit="%",
            unit_code=262688,
            unit_refid="MDC_DIM_PERCENT",
            low=Decimal("90"),
            high=Decimal("100"),
        ),
        Observation(
            key="pulse_rate",
            sub="1.3.1.2",
            absent=Absent.OFF,
            code=149530,
            refid="MDC_PULS_OXIM_PULS_RATE",
            unit="/min",
            unit_code=264864,
            unit_refid="MDC_DIM_BEAT_PER_MIN",
        ),
        Observation(key="x_pvi_raw", sub="1.3.1.3", value=Decimal("14"), flags=("QUES", "L")),
        Observation(key="x_alarm", sub="1.3.1.4", value="a|b^c", code=2 * 65536 + 0xF001, refid="VENDOR_TEXT"),
        Observation(
            key="set_limit",
            sub="1.3.1.5",
            value=Decimal("90"),
            code=16929196,
            refid="MDC_VENT_VOL_TIDAL_SETTING",
            unit="mL",
            method=Method.SETTING_MANUAL,
            observed_at=datetime(2026, 1, 15, 9, 28, 12, tzinfo=UTC),
        ),
    ),
    conditions=(Condition(code="SD", text="sensor & cable off"),),
    device_time="15-Jan-26 10:31:02",
    patient_id="MRN4471",
)


def message_of(
    result: Result | None, *, kind: Kind = Kind.OBSERVATIONS, raw: bytes = b"raw", number: int = 7
) -> Message:
    return Message(
        id=number,
        source="bed-12",
        kind=kind,
        received_at=RECEIVED_AT,
        size=len(raw),
        digest=digest_of(raw),
        peer=None,
        identifier=None,
        observed_at=None,
        raw=raw,
        object_name=None,
        result=result,
        headers={},
        quarantined=None,
    )


def parcel_of(message: Message, *, control_id: str = "W3A-417", ordinal: int = 5, number: int = 1) -> Parcel:
    delivery = Delivery(
        id=number,
        message_id=message.id,
        destination="out",
        state=DeliveryState.PENDING,
        ordinal=ordinal,
        control_id=control_id,
    )
    return Parcel(delivery=delivery, message=message)


_TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
_NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
_WORDS = st.from_regex(r"\A[a-z][a-z0-9_]{0,15}\Z")
_REFIDS = st.from_regex(r"\AMDC_[A-Z0-9_]{1,20}\Z")
_INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))
_SUBS = st.builds("1.{}.{}.{}".format, st.integers(0, 9), st.integers(0, 9), st.integers(4, 400))
_FLAGS = st.lists(st.sampled_from(["QUES", "CAL", "H", "L", "ALACT", "DEMO", "VAL", "EARLY", ">"]), max_size=4).map(
    tuple
)


_CONDITIONS = st.builds(
    Condition,
    code=_TEXTS,
    text=_TEXTS,
    technical=st.booleans(),
    priority=st.none() | st.sampled_from(Priority),
    phase=st.none() | st.sampled_from(Phase),
    sub=st.none() | _SUBS,
    mdc=st.none() | st.integers(65536, 2**25),
    low=st.none() | _NUMBERS,
    high=st.none() | _NUMBERS,
    silenced=st.booleans(),
)
_WAVES = st.builds(
    Wave,
    key=_WORDS,
    sub=_SUBS,
    samples=st.lists(st.none() | st.integers(-(2**15), 2**15), max_size=9).map(tuple),
    period_s=st.decimals("0.0001", "10", places=4) | st.just(Decimal(1) / 300),
    factor=_NUMBERS | st.just(Decimal(1) / 3),
    offset=_NUMBERS,
    code=st.none() | st.integers(65536, 2**25),
    refid=st.none() | _REFIDS,
    unit=st.none() | _TEXTS,
    gap=st.booleans(),
    started_at=st.none() | _INSTANTS,
)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    absent = draw(st.none() | st.sampled_from(Absent))
    unit = draw(st.none() | st.tuples(_TEXTS, st.none() | st.integers(262144, 327679)))
    return Observation(
        key=draw(_WORDS),
        sub=draw(_SUBS),
        value=None if absent else draw(_NUMBERS | _TEXTS),
        absent=absent,
        code=draw(st.none() | st.integers(65536, 2**25)),
        refid=draw(st.none() | _REFIDS),
        loinc=draw(st.none() | st.from_regex(r"\A[0-9]{3,6}-[0-9]\Z")),
        unit=unit[0] if unit else None,
        unit_code=unit[1] if unit else None,
        unit_refid=draw(_REFIDS) if unit and unit[1] else None,
        flags=draw(_FLAGS),
        method=draw(st.sampled_from(Method)),
        episodic=draw(st.booleans()),
        observed_at=draw(st.none() | _INSTANTS),
        low=draw(st.none() | _NUMBERS),
        high=draw(st.none() | _NUMBERS),
    )


def results() -> st.SearchStrategy[Result]:
    return st.builds(
        Result,
        observations=st.lists(observations(), min_size=1, max_size=6, unique_by=lambda seen: seen.sub).map(tuple),
        device=st.builds(
            DeviceIdentity, manufacturer=st.none() | _TEXTS, serial=st.none() | _TEXTS, software=st.none() | _TEXTS
        ),
        containment=st.lists(
            st.builds(
                Containment,
                sub=st.sampled_from(["1.0.0.0", "1.1.0.0", "1.2.0.0", "1.1.1.0"]),
                code=st.integers(65536, 131071),
                refid=_REFIDS,
            ),
            max_size=3,
            unique_by=lambda row: row.sub,
        ).map(tuple),
        conditions=st.lists(_CONDITIONS, max_size=2).map(tuple),
        waves=st.lists(_WAVES, max_size=2).map(tuple),
        observed_at=st.none() | _INSTANTS,
        device_time=st.none() | _TEXTS,
    )
