"""What an input changes beside being kept: handed, in the writer's transaction, to the module that owns the tables."""

from collections.abc import Callable, Sequence

import apsw

from gateway.orders import StepChange
from gateway.store.steps import keep_steps

Apply = Callable[[apsw.Connection, Sequence[tuple[int, object]]], None]
"""Writes changes, each with the id of the Message that brought it, in the order in which they were accepted."""

_APPLY: dict[type, Apply] = {StepChange: keep_steps}  # the class of a change -> who writes it


def apply_changes(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write changes; those of one class that stand together go in one call."""
    start = 0
    for end in range(1, len(changes) + 1):
        kind = type(changes[start][1])
        if end == len(changes) or type(changes[end][1]) is not kind:
            _APPLY[kind](connection, changes[start:end])
            start = end
