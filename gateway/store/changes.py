"""What an input changes beside being kept: handed, in the writer's transaction, to the module that owns the tables."""

from collections.abc import Callable, Sequence

import apsw

from gateway.laboratory import LabOrderChange
from gateway.orders import OrderChange, PatientChange, StepChange
from gateway.store.lab_orders import apply_lab_orders
from gateway.store.steps import keep_steps
from gateway.store.worklist import apply_orders, apply_patients, apply_performed

Apply = Callable[[apsw.Connection, Sequence[tuple[int, object]]], None]
"""Writes changes, each with the id of the Message that brought it, in the order in which they were accepted."""

_APPLY: dict[type, tuple[Apply, ...]] = {  # the class of a change -> who writes it
    OrderChange: (apply_orders,),
    PatientChange: (apply_patients,),
    LabOrderChange: (apply_lab_orders,),
    StepChange: (keep_steps, apply_performed),
}


def apply_changes(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write changes; those of one class that stand together go in one call."""
    start = 0
    for end in range(1, len(changes) + 1):
        kind = type(changes[start][1])
        if end == len(changes) or type(changes[end][1]) is not kind:
            for apply in _APPLY[kind]:
                apply(connection, changes[start:end])
            start = end
