"""From the library's containers to our frozen facts, by their attributes: the library itself is not imported here.

Everything runs on the library's threads while its MDIB is locked; what comes out is frozen and may cross to the loop.
Containers are untyped for us: what they hold is checked here, once.
"""

from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar

from gateway.formats.sdc_facts import (
    Activation,
    Category,
    ClockState,
    Coded,
    ComponentState,
    ConditionState,
    Descriptor,
    Host,
    Label,
    LocationState,
    Mdib,
    MetricState,
    Mode,
    Part,
    PatientState,
    Presence,
    SignalState,
    State,
    Validity,
    WaveState,
)

SYSTEM_ID = "67972"  # MDC_ATTR_SYS_ID: where a production specification gives an EUI-64
SOFTWARE = ("531975", "531976")  # MDC_ID_PROD_SPEC_SW, MDC_ID_PROD_SPEC_FW

_E = TypeVar("_E", bound=Enum)

_PARTS = {
    "MdsDescriptor": Part.MDS,
    "VmdDescriptor": Part.VMD,
    "ChannelDescriptor": Part.CHANNEL,
    "NumericMetricDescriptor": Part.NUMERIC,
    "StringMetricDescriptor": Part.STRING,
    "EnumStringMetricDescriptor": Part.STRING,
    "RealTimeSampleArrayMetricDescriptor": Part.WAVE,
    "DistributionSampleArrayMetricDescriptor": Part.DISTRIBUTION,
    "AlertConditionDescriptor": Part.CONDITION,
    "LimitAlertConditionDescriptor": Part.CONDITION,
    "AlertSignalDescriptor": Part.SIGNAL,
}


def read_mdib(mdib: Any, host: Host) -> Mdib:
    """Return all of the library's MDIB; the caller holds its lock."""
    return Mdib(
        host=host,
        descriptors=tuple(read_descriptor(one) for one in _in_order(mdib.descriptions)),
        states=(*read_states(mdib.states.objects), *read_states(mdib.context_states.objects)),
    )


def _in_order(descriptions: Any) -> list[Any]:
    """Return the descriptors as the MDIB lists them: the library's collection has no order, but its index has."""
    ordered: list[Any] = []
    waiting = list(reversed(descriptions.parent_handle.get(None, [])))
    while waiting:
        one = waiting.pop()
        ordered.append(one)
        waiting += reversed(descriptions.parent_handle.get(one.Handle, []))
    return ordered


def read_host(description: Any) -> Host:
    """Return what DPWS metadata tells of the Device."""
    model, device = description.this_model, description.this_device
    return Host(
        epr=_text(description.relationship.Host.EndpointReference.Address),
        manufacturer=_first_text(model.Manufacturer),
        model=_first_text(model.ModelName),
        serial=_text(device.SerialNumber),
        firmware=_text(device.FirmwareVersion),
    )


def read_states(containers: Iterable[Any]) -> tuple[State, ...]:
    """Return the states that matter here, in their order."""
    found = (_state(container) for container in containers)
    return tuple(state for state in found if state is not None)


def read_descriptor(one: Any) -> Descriptor:
    """Return one descriptor."""
    part = _PARTS.get(one.NODETYPE.localname, Part.OTHER)
    common: dict[str, Any] = {
        "handle": one.Handle,
        "parent": one.parent_handle,
        "part": part,
        "coded": _coded(one.Type),
    }
    match part:
        case Part.MDS:
            return Descriptor(**common, label=_label(one))
        case Part.CONDITION:
            return Descriptor(
                **common,
                priority=_word(one.Priority) or "None",
                physiological=_word(one.Kind) == "Phy",
                sources=tuple(str(each) for each in one.Source or ()),
            )
        case Part.SIGNAL:
            return Descriptor(**common, signals=one.ConditionSignaled, audible=_word(one.Manifestation) == "Aud")
        case Part.NUMERIC | Part.STRING | Part.WAVE | Part.DISTRIBUTION:
            return Descriptor(**common, **_metric(one))
    return Descriptor(**common)


def _metric(one: Any) -> dict[str, Any]:
    period_s = getattr(one, "SamplePeriod", None)
    return {
        "unit": _coded(one.Unit),
        "category": _member(Category, one.MetricCategory, Category.UNSPECIFIED),
        "manual": _word(one.DerivationMethod) == "Man",
        "intermittent": _word(one.MetricAvailability) == "Intr",
        "period_s": None if period_s is None else Decimal(str(period_s)),
    }


def _state(state: Any) -> State | None:
    kind = type(state).__name__.removesuffix("Container")
    match kind:
        case "NumericMetricState" | "StringMetricState" | "EnumStringMetricState":
            return _metric_state(state)
        case "RealTimeSampleArrayMetricState":
            return _wave_state(state)
        case "AlertConditionState" | "LimitAlertConditionState":
            return _condition_state(state)
        case "AlertSignalState":
            return SignalState(
                handle=state.DescriptorHandle,
                active=_word(state.ActivationState) == "On",
                presence=_member(Presence, state.Presence, Presence.OFF),
            )
        case "MdsState" | "VmdState" | "ChannelState":
            return ComponentState(
                handle=state.DescriptorHandle,
                activation=_member(Activation, state.ActivationState, Activation.ON),
                operating=_word(state.OperatingMode) if kind == "MdsState" else None,
            )
        case "ClockState":
            return ClockState(
                handle=state.DescriptorHandle, shown_at=_time(state.DateAndTime), synchronised=bool(state.RemoteSync)
            )
        case "PatientContextState":
            return _patient_state(state)
        case "LocationContextState":
            return _location_state(state)
    return None


def _metric_state(state: Any) -> MetricState:
    value = state.MetricValue
    activation = _member(Activation, state.ActivationState, Activation.ON)
    version = int(state.StateVersion)
    if value is None:
        return MetricState(handle=state.DescriptorHandle, version=version, activation=activation)
    return MetricState(
        handle=state.DescriptorHandle,
        version=version,
        activation=activation,
        value=value.Value,
        validity=_member(Validity, value.MetricQuality.Validity, Validity.NOT_AVAILABLE),
        mode=_member(Mode, value.MetricQuality.Mode, Mode.REAL),
        determined_at=_time(value.DeterminationTime),
    )


def _wave_state(state: Any) -> WaveState:
    value = state.MetricValue
    activation = _member(Activation, state.ActivationState, Activation.ON)
    version = int(state.StateVersion)
    if value is None:
        return WaveState(handle=state.DescriptorHandle, version=version, activation=activation)
    return WaveState(
        handle=state.DescriptorHandle,
        version=version,
        activation=activation,
        samples=tuple(value.Samples or ()),
        validity=_member(Validity, value.MetricQuality.Validity, Validity.NOT_AVAILABLE),
        mode=_member(Mode, value.MetricQuality.Mode, Mode.REAL),
        determined_at=_time(value.DeterminationTime),
    )


def _condition_state(state: Any) -> ConditionState:
    limits = getattr(state, "Limits", None)
    monitored = _word(getattr(state, "MonitoredAlertLimits", None)) or "All"
    return ConditionState(
        handle=state.DescriptorHandle,
        active=_word(state.ActivationState) == "On",
        present=bool(state.Presence),
        priority=_word(state.ActualPriority),
        low=limits.Lower if limits is not None and monitored in ("All", "HiOff") else None,
        high=limits.Upper if limits is not None and monitored in ("All", "LoOff") else None,
    )


def _patient_state(state: Any) -> PatientState:
    numbers = [_text(each.Extension) for each in state.Identification or ()]
    return PatientState(
        handle=state.Handle,
        descriptor=state.DescriptorHandle,
        associated=_word(state.ContextAssociation) == "Assoc",
        identifier=next((number for number in numbers if number), None),
    )


def _location_state(state: Any) -> LocationState:
    detail = state.LocationDetail
    names = () if detail is None else (detail.PoC, detail.Room, detail.Bed, detail.Facility)
    return LocationState(
        handle=state.Handle,
        descriptor=state.DescriptorHandle,
        associated=_word(state.ContextAssociation) == "Assoc",
        place="^".join((name or "").replace("^", " ")[:60] for name in names).rstrip("^"),
    )


def _label(one: Any) -> Label:
    data, specifications = one.MetaData, one.ProductionSpecification or ()
    told = [(each.SpecType.Code, _text(each.ProductionSpec)) for each in specifications]
    software = next((text for code, text in told if code in SOFTWARE and text), None)
    ids = tuple(text for code, text in told if code == SYSTEM_ID and text)
    if data is None:
        return Label(software=software, system_ids=ids)
    return Label(
        manufacturer=_first_text(data.Manufacturer),
        model=_first_text(data.ModelName),
        serial=next((text for text in map(_text, data.SerialNumber or ()) if text), None),
        software=software,
        system_ids=ids,
    )


def _coded(value: Any) -> Coded | None:
    if value is None:
        return None
    return Coded(
        code=value.Code,
        system=value.CodingSystem,
        symbol=value.SymbolicCodeName,
        text=_first_text(value.ConceptDescription),
        translations=tuple((each.Code, each.CodingSystem) for each in value.Translation or ()),
    )


def _first_text(texts: Any) -> str | None:
    """Return the English text where there is one, else the first."""
    known = [(_lang(each), _text(each.text)) for each in texts or ()]
    ordered = sorted(known, key=lambda item: not item[0].lower().startswith("en"))
    return next((text for _, text in ordered if text), None)


def _lang(text: Any) -> str:
    return str(getattr(text, "Lang", None) or getattr(text, "lang", None) or "")  # BICEPS and DPWS differ here


def _text(value: Any) -> str | None:
    text = str(value).strip() if value is not None else ""
    return text[:200] or None


def _time(value: Any) -> float | None:
    return None if value is None else float(value)


def _word(value: Any) -> str | None:
    """Return the word of a BICEPS enumeration."""
    return None if value is None else str(getattr(value, "value", value))


def _member(kind: type[_E], value: Any, default: _E) -> _E:
    """Return our member for the library's; `default` where it says nothing."""
    return default if value is None else kind(_word(value))
