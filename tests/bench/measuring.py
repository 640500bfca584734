"""Figures: medians of several runs taken in turn with the peer's, so that a drifting machine meets both alike."""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of build/bench.json; `ratio` tells how many times better than the peer we are."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    limit_value: float | None = None
    of_limit: float | None = None
    runs: int = 1
    spread: float = 0.0
    note: str = ""


def in_turn(runs: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Run the measures one after the other, `runs` times; return the values of each."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(runs):
        for measure, series in zip(measures, values, strict=True):
            series.append(measure())
    return values


def figure(
    name: str,
    unit: str,
    ours: Sequence[float],
    *,
    peer: str | None = None,
    peers: Sequence[float] = (),
    limits: Sequence[float] = (),
    less_is_better: bool = False,
    note: str = "",
) -> Figure:
    """Put the medians together; ratios are medians of the pairs."""
    value = statistics.median(ours)
    pairs = [theirs / mine if less_is_better else mine / theirs for mine, theirs in zip(ours, peers, strict=False)]
    shares = [mine / limit for mine, limit in zip(ours, limits, strict=False)]
    return Figure(
        name=name,
        value=round(value, 3),
        unit=unit,
        peer=peer,
        peer_value=round(statistics.median(peers), 3) if peers else None,
        ratio=round(statistics.median(pairs), 3) if pairs else None,
        limit_value=round(statistics.median(limits), 3) if limits else None,
        of_limit=round(statistics.median(shares), 3) if shares else None,
        runs=len(ours),
        spread=round((max(ours) - min(ours)) / value, 3) if value else 0.0,
        note=note,
    )


def show(figures: Sequence[Figure], out: Path | None) -> None:
    """Print a table and write the document."""
    print(f"{'name':24} {'value':>10} {'unit':8} {'peer':>12} {'ratio':>7} {'limit':>10} {'of it':>6} {'spread':>7}")
    for one in figures:
        cells = [_cell(one.peer_value), _cell(one.ratio), _cell(one.limit_value), _cell(one.of_limit)]
        print(
            f"{one.name:24} {one.value:>10.6g} {one.unit:8} {cells[0]:>12} {cells[1]:>7} {cells[2]:>10} {cells[3]:>6}"
            f" {one.spread:>7.2f}  {' '.join(part for part in (one.peer and f'peer: {one.peer}.', one.note) if part)}"
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"results": [asdict(one) for one in figures]}, indent=1) + "\n")


def tell(text: str) -> None:
    """Say what is being measured, on standard error."""
    print(f"... {text}", file=sys.stderr, flush=True)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
