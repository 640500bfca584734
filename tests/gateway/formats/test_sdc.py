from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats.sdc import instant, is_wanted, meaning, observation, wave
from gateway.formats.sdc_alerts import condition, limits_of, phase_of
from gateway.formats.sdc_facts import (
    Activation,
    Category,
    Coded,
    ConditionState,
    Descriptor,
    Host,
    Label,
    MetricState,
    Mode,
    Part,
    Presence,
    SignalState,
    Validity,
    WaveState,
)
from gateway.formats.sdc_tree import identity, paths
from gateway.model import Absent, Method, Phase, Priority

HR = Descriptor(handle="hr", parent="c", part=Part.NUMERIC, coded=Coded(code="147842"), unit=Coded(code="264864"))


def metric(code: str, *, system: str | None = None, category: Category = Category.MEASUREMENT) -> Descriptor:
    return Descriptor(
        handle="m", parent="c", part=Part.NUMERIC, coded=Coded(code=code, system=system), category=category
    )


@pytest.mark.parametrize(
    ("one", "key", "code"),
    [
        (metric("147842"), "heart_rate", 147842),
        (metric("147842", system="urn:oid:1.2.840.10004.1.1.1.0.0.1"), "heart_rate", 147842),
        (metric("147842", system="urn:oid:1.3.6.1.4.1.9"), "x_sdc_147842", None),
        (metric("16777215"), "x_sdc_16777215", 16777215),
        (metric("ACME Flow!"), "x_sdc_acme_flow", None),
        (metric("42"), "x_sdc_42", None),
        (metric("²"), "x_sdc_unnamed", None),
        (metric("151980", category=Category.SETTING), "set_tidal_volume", 16929196),
        (metric("16929196", category=Category.SETTING), "set_tidal_volume", 16929196),
        (metric("147842", category=Category.SETTING), "x_sdc_set_heart_rate", 147842),
        (metric("147842", category=Category.PRESETTING), "x_sdc_preset_heart_rate", 147842),
        (metric("147842", category=Category.RECOMMENDATION), "x_sdc_advised_heart_rate", 147842),
    ],
)
def test_a_code_brings_the_key(one: Descriptor, key: str, code: int | None) -> None:
    means = meaning(one)

    assert (means.key, means.code) == (key, code)


def test_a_translation_into_the_nomenclature_counts() -> None:
    coded = Coded(code="HR", system="urn:oid:1.2.3", translations=(("8867-4", "urn:oid:2.16"), ("147842", None)))

    assert meaning(Descriptor(handle="m", parent="c", part=Part.NUMERIC, coded=coded)).key == "heart_rate"


STATES = [
    (Validity.VALID, Decimal(60), Decimal(60), None, ()),
    (Validity.VALIDATED, Decimal(60), Decimal(60), None, ("VAL",)),
    (Validity.QUESTIONABLE, Decimal(60), Decimal(60), None, ("QUES",)),
    (Validity.VALID, None, None, Absent.NAV, ()),
    (Validity.VALID, Decimal("NaN"), None, Absent.NAV, ()),
    (Validity.VALID, Decimal("1e999"), None, Absent.NAV, ()),
    (Validity.VALID, Decimal(900), Decimal(900), None, ("QUES",)),
    (Validity.ONGOING, None, None, Absent.BUSY, ()),
    (Validity.CALIBRATING, Decimal(60), None, Absent.BUSY, ("CAL",)),
    (Validity.INVALID, Decimal(60), None, Absent.INV, ()),
    (Validity.OVERFLOW, Decimal(60), None, Absent.INV, (">",)),
    (Validity.UNDERFLOW, None, None, Absent.INV, ("<",)),
    (Validity.NOT_AVAILABLE, Decimal(60), None, Absent.NAV, ()),
]


@pytest.mark.parametrize(("validity", "told", "value", "absent", "flags"), STATES)
def test_validity_becomes_a_value_or_the_reason_of_its_absence(
    validity: Validity, told: Decimal | None, value: Decimal | None, absent: Absent | None, flags: tuple[str, ...]
) -> None:
    seen = observation(HR, MetricState(handle="hr", value=told, validity=validity), "1.1.1.1")

    assert (seen.value, seen.absent, seen.flags, seen.unit) == (value, absent, flags, "/min")


@pytest.mark.parametrize(
    ("activation", "absent"),
    [
        (Activation.OFF, Absent.OFF),
        (Activation.SHUTDOWN, Absent.OFF),
        (Activation.STANDBY, Absent.NAV),
        (Activation.NOT_READY, Absent.NAV),
        (Activation.FAILURE, Absent.INV),
    ],
)
def test_a_metric_that_is_not_active_has_no_value(activation: Activation, absent: Absent) -> None:
    state = MetricState(handle="hr", value=Decimal(60), validity=Validity.VALID, activation=activation)

    assert observation(HR, state, "1.1.1.1").absent is absent


@pytest.mark.parametrize("mode", [Mode.DEMO, Mode.TEST])
def test_a_value_of_a_demonstration_is_never_published(mode: Mode) -> None:
    seen = observation(HR, MetricState(handle="hr", value=Decimal(60), validity=Validity.VALID, mode=mode), "1.1.1.1")

    assert (seen.value, seen.absent, seen.flags) == (None, Absent.NAV, ("TEST",))


def test_a_value_in_another_unit_is_not_held_against_the_range_and_keeps_its_unit() -> None:
    temperature = metric("150344")
    kelvin = Descriptor(**{**as_dict(temperature), "unit": Coded(code="263904", symbol="MDC_DIM_KELVIN")})
    seen = observation(kelvin, MetricState(handle="m", value=Decimal("310.1"), validity=Validity.VALID), "1.1.1.1")

    assert (seen.flags, seen.unit_code) == ((), 263904)


def as_dict(one: Descriptor) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


@pytest.mark.parametrize(
    ("category", "manual", "method"),
    [
        (Category.MEASUREMENT, False, Method.AUTO),
        (Category.MEASUREMENT, True, Method.MANUAL),
        (Category.CALCULATION, False, Method.CALCULATED),
        (Category.SETTING, False, Method.SETTING_AUTO),
        (Category.SETTING, True, Method.SETTING_MANUAL),
    ],
)
def test_category_and_derivation_become_the_method(category: Category, manual: bool, method: Method) -> None:
    one = Descriptor(handle="m", parent="c", part=Part.NUMERIC, category=category, manual=manual)

    assert observation(one, MetricState(handle="m"), "1.1.1.1").method is method


PLETH = Descriptor(handle="pleth", parent="c", part=Part.WAVE, coded=Coded(code="150452"), period_s=Decimal("0.01"))
SAMPLES = st.lists(st.decimals(-1000, 1000, places=4), min_size=1, max_size=30).map(tuple)


@settings(max_examples=50, deadline=None)
@given(SAMPLES)
def test_samples_are_kept_exactly(samples: tuple[Decimal, ...]) -> None:
    piece = wave(PLETH, WaveState(handle="pleth", samples=samples, validity=Validity.VALID), "1.1.1.1", gap=False)

    assert piece is not None
    assert piece.key == "pleth_wave"
    assert [None if each is None else each * piece.factor for each in piece.samples] == list(samples)


@pytest.mark.parametrize("bad", [Decimal("NaN"), Decimal("Infinity"), Decimal("1e99")])
def test_a_sample_that_is_no_number_is_none(bad: Decimal) -> None:
    state = WaveState(handle="pleth", samples=(Decimal("0.5"), bad), validity=Validity.VALID)
    piece = wave(PLETH, state, "1.1.1.1", gap=False)

    assert piece is not None
    assert piece.samples == (5, None)


def test_a_piece_that_is_invalid_keeps_its_length() -> None:
    state = WaveState(handle="pleth", samples=(Decimal(1),) * 3, validity=Validity.INVALID)
    piece = wave(PLETH, state, "1.1.1.1", gap=True)

    assert piece is not None
    assert (piece.samples, piece.gap) == ((None, None, None), True)


@pytest.mark.parametrize("name", ["pleth_wave", "pleth", "150452", "MDC_PULS_OXIM_PLETH", "all"])
def test_a_wave_is_asked_for_by_any_of_its_names(name: str) -> None:
    assert is_wanted(PLETH, (name,))
    assert not is_wanted(PLETH, ("ecg_wave",))


LIMIT = Descriptor(
    handle="low",
    parent="a",
    part=Part.CONDITION,
    coded=Coded(code="196672"),
    sources=("hr",),
    priority="Hi",
    physiological=True,
)
AUDIBLE = Descriptor(handle="s", parent="a", part=Part.SIGNAL, signals="low", audible=True)


@pytest.mark.parametrize(
    ("present", "signal", "stood", "phase"),
    [
        (True, Presence.ON, False, Phase.START),
        (True, Presence.ON, True, Phase.PRESENT),
        (False, Presence.LATCHED, True, Phase.LATCHED),
        (False, Presence.OFF, True, Phase.END),
        (False, Presence.OFF, False, None),
    ],
)
def test_presence_and_signals_become_the_phase(
    present: bool, signal: Presence, stood: bool, phase: Phase | None
) -> None:
    state = ConditionState(handle="low", present=present)

    assert phase_of(state, ((AUDIBLE, SignalState(handle="s", presence=signal)),), stood=stood) is phase


@pytest.mark.parametrize(
    ("signal", "silenced"),
    [
        (SignalState(handle="s", presence=Presence.ON), False),
        (SignalState(handle="s", presence=Presence.ACKNOWLEDGED), True),
        (SignalState(handle="s", presence=Presence.ON, active=False), True),
    ],
)
def test_an_alarm_tells_priority_limits_and_silence(signal: SignalState, silenced: bool) -> None:
    state = ConditionState(handle="low", present=True, priority="Me", low=Decimal(50), high=Decimal("NaN"))
    told = condition(LIMIT, state, ((AUDIBLE, signal),), phase=Phase.START, sub="1.1.1.1")

    assert (told.priority, told.low, told.high, told.silenced) == (Priority.MEDIUM, 50, None, silenced)
    assert (told.code, told.text, told.mdc, told.technical) == ("low", "Value below low limit", 196672, False)


def test_the_limits_of_a_metric_are_those_of_active_conditions() -> None:
    states = {"low": ConditionState(handle="low", low=Decimal(50))}

    assert limits_of("hr", (LIMIT,), states) == (50, None)
    assert limits_of("spo2", (LIMIT,), states) == (None, None)
    assert limits_of("hr", (LIMIT,), {"low": ConditionState(handle="low", low=Decimal(50), active=False)})[0] is None


@pytest.mark.parametrize(
    ("epr", "ids", "eui64"),
    [
        ("urn:dev:mac:0024befffe804ff1", (), "0024BEFFFE804FF1"),
        ("urn:uuid:00000000-0000-4000-8000-000000000014", (), None),
        ("urn:uuid:0", ("00-24-BE-FF-FE-80-4F-F1",), "0024BEFFFE804FF1"),
        ("urn:uuid:0", ("1234",), None),
    ],
)
def test_a_device_without_serial_number_is_known_by_its_endpoint_reference(
    epr: str, ids: tuple[str, ...], eui64: str | None
) -> None:
    known = identity(Label(system_ids=ids), Host(epr=epr, model="M"), alone=True)

    assert (known.serial, known.model, known.eui64) == (epr, "M", eui64)


PARENTS = {Part.VMD: "mds", Part.CHANNEL: "vmd", Part.NUMERIC: "channel"}


@st.composite
def trees(draw: st.DrawFn) -> list[Descriptor]:
    """Draw MDSs with VMDs, channels and metrics, in any order, some of which hang nowhere."""
    found = [Descriptor(handle=f"mds{n}", parent=None, part=Part.MDS) for n in range(draw(st.integers(0, 2)))]
    for part, above in PARENTS.items():
        for number in range(draw(st.integers(0, 4))):
            parent = f"{above}{draw(st.integers(0, 3))}"
            found.append(Descriptor(handle=f"{part.value.replace('numeric', 'n')}{number}", parent=parent, part=part))
    return draw(st.permutations(found))


@settings(max_examples=50, deadline=None)
@given(trees(), trees())
def test_paths_are_unique_and_stay(first: list[Descriptor], second: list[Descriptor]) -> None:
    before = paths(first, {})
    after = paths(second, before)

    assert before.items() <= after.items()
    assert len(set(after.values())) == len(after)
    assert all(len(sub.split(".")) == 4 and sub.replace(".", "").isdigit() for sub in after.values())


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.none(), st.floats()))
def test_no_time_of_a_device_raises(seconds: float | None) -> None:
    at = instant(seconds)

    assert at is None or 1970 <= at.year <= 2200
