"""Scripted misbehaviour: which item meets which fault.

A script is a JSON list of rules, in a file or on the command line; the first rule that hits an item wins:

    [{"fault": "ae", "at": [3, 7]},
     {"fault": "late", "every": 100, "delay_s": 2.5},
     {"fault": "close", "probability": 0.01, "first": 1000},
     {"fault": "ar", "id_contains": "BAD"}]

`at`, `every`, `first` and `last` count items from 1; `probability` is drawn from the seed; a rule that names none of
them and no `id_contains` hits every item between `first` and `last`. `times` bounds how often a rule hits.
"""

import json
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the script. What `delay_s`, `code` and `text` do is the fault's matter."""

    fault: str
    at: tuple[int, ...] = ()
    every: int = 0
    first: int = 1
    last: int | None = None
    probability: float | None = None
    id_contains: str = ""
    times: int | None = None
    delay_s: float = 1.0
    code: str = ""
    text: str = ""

    def hits(self, ordinal: int, id: str, draw: float) -> bool:
        """Return whether this rule concerns the item; `draw` is a random number below 1."""
        if ordinal < self.first or (self.last is not None and ordinal > self.last):
            return False
        if self.at and ordinal not in self.at:
            return False
        if self.every and ordinal % self.every:
            return False
        if self.id_contains and self.id_contains not in id:
            return False
        return self.probability is None or draw < self.probability


class FaultPlan:
    """The script, with the seed and how often each rule has hit so far."""

    def __init__(self, rules: tuple[Rule, ...] = (), seed: int = 1) -> None:
        self._rules = rules
        self._random = random.Random(seed)
        self._hits = [0] * len(rules)

    def draw(self, ordinal: int, id: str) -> Rule | None:
        """Return the rule that hits this item, if any."""
        for place, rule in enumerate(self._rules):
            chance = self._random.random() if rule.probability is not None else 0.0
            spent = rule.times is not None and self._hits[place] >= rule.times
            if not spent and rule.hits(ordinal, id, chance):
                self._hits[place] += 1
                return rule
        return None


def load_plan(script: str | None, known: frozenset[str], seed: int) -> FaultPlan:
    """Read a script: JSON text (it begins with `[`), or the path of a file with it.

    Raises ValueError for an unknown fault or key, OSError for a file that cannot be read.
    """
    if script is None:
        return FaultPlan()
    text = script if script.lstrip().startswith("[") else Path(script).read_text(encoding="utf-8")
    return FaultPlan(tuple(_rule(entry, known) for entry in json.loads(text)), seed)


def _rule(entry: dict[str, Any], known: frozenset[str]) -> Rule:
    unknown = set(entry) - {field.name for field in fields(Rule)}
    if unknown:
        raise ValueError(f"unknown keys of a fault: {', '.join(sorted(unknown))}")
    if entry.get("fault") not in known:
        raise ValueError(f"unknown fault {entry.get('fault')!r}; known: {', '.join(sorted(known))}")
    return Rule(**{**entry, "at": tuple(entry.get("at", ()))})
