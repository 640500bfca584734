"""SDC alert conditions as Conditions (IEEE 11073-10207, alert system).

    absent --Presence true--> present --Presence false, a signal still latched--> latched --> absent
                                 ^----------------------------------------------- absent: told once as END

A condition is shown by signals; one that is acknowledged, paused or off silences it. A condition that is not there
and was not there before is not told.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from gateway.formats.digits import is_plain
from gateway.formats.sdc_facts import (
    Activation,
    ComponentState,
    ConditionState,
    Descriptor,
    Part,
    Presence,
    SignalState,
)
from gateway.formats.sdc_tree import refid_of
from gateway.formats.terms import term_of_code
from gateway.model import Condition, Phase, Priority

TEXT_MAX = 200

_PRIORITIES = {"Hi": Priority.HIGH, "Me": Priority.MEDIUM, "Lo": Priority.LOW}

Signals = tuple[tuple[Descriptor, SignalState], ...]


def phase_of(state: ConditionState, signals: Signals, *, stood: bool) -> Phase | None:
    """Return where an alarm stands; None where it neither is nor was there. `stood` tells that it was told before."""
    if state.present and state.active:
        return Phase.PRESENT if stood else Phase.START
    if any(signal.presence is Presence.LATCHED for _, signal in signals):
        return Phase.LATCHED
    return Phase.END if stood else None


def condition(one: Descriptor, state: ConditionState, signals: Signals, *, phase: Phase, sub: str | None) -> Condition:
    """Return an alert condition; `sub` is the path of what it watches."""
    return Condition(
        code=code_of(one),
        text=_text(one),
        technical=not one.physiological,
        priority=_PRIORITIES.get(state.priority or one.priority, Priority.ADVISORY),
        phase=phase,
        sub=sub,
        mdc=one.coded.mdc if one.coded else None,
        low=_plain(state.low),
        high=_plain(state.high),
        silenced=_silenced(signals),
    )


def code_of(one: Descriptor) -> str:
    """Return the Device's own word for a condition: its handle, which is unique in its MDIB."""
    return one.handle[:TEXT_MAX]


def watched(one: Descriptor, subs: Mapping[str, str]) -> str | None:
    """Return the path of the first source of a condition that has one."""
    return next((subs[handle] for handle in one.sources if handle in subs), None)


def limits_of(
    handle: str, conditions: Iterable[Descriptor], states: Mapping[str, ConditionState]
) -> tuple[Decimal | None, Decimal | None]:
    """Return the low and high limit that active limit conditions set on a metric."""
    low: Decimal | None = None
    high: Decimal | None = None
    for one in conditions:
        state = states.get(one.handle)
        if state is None or not state.active or handle not in one.sources:
            continue
        low = _plain(state.low) if low is None else low
        high = _plain(state.high) if high is None else high
    return low, high


def inactive(one: Descriptor, state: ComponentState, sub: str) -> Condition | None:
    """Return that a part of the Device does not work now (off, in stand-by, failed); None where it does."""
    if state.activation is Activation.ON:
        return None
    name = one.coded.text or one.coded.symbol or one.coded.code if one.coded else one.handle
    text = f"{one.part.value} {name}: {state.activation.value}"
    return Condition(code=f"{one.handle}:{state.activation.value}"[:TEXT_MAX], text=text[:TEXT_MAX], sub=sub)


def is_signal_of(signal: Descriptor, one: Descriptor) -> bool:
    """Tell whether a signal shows a condition."""
    return signal.part is Part.SIGNAL and signal.signals == one.handle


def _text(one: Descriptor) -> str:
    if one.coded is None:
        return one.handle[:TEXT_MAX]
    if one.coded.text:
        return one.coded.text[:TEXT_MAX]
    known = term_of_code(one.coded.mdc) if one.coded.mdc is not None else None
    return (known.display if known else refid_of(one.coded) or one.coded.code)[:TEXT_MAX]


def _silenced(signals: Signals) -> bool:
    audible = [signal for one, signal in signals if one.audible]
    return bool(audible) and all(not each.active or each.presence is Presence.ACKNOWLEDGED for each in audible)


def _plain(number: Decimal | None) -> Decimal | None:
    return number if number is not None and is_plain(number) else None
