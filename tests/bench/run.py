"""The benchmarks: run.py [--only NAME,NAME] [--out FILE]. Names are those of the figures, or of a group."""

import argparse
from pathlib import Path

import bedside
import dicom
import mllp
import storm
from measuring import Figure, show

GROUPS = {"mllp": mllp.MEASURES, "dicom": dicom.MEASURES, "bedside": bedside.MEASURES, "storm": storm.MEASURES}


def main() -> None:
    """Measure what was asked for, print and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="figures or groups, separated by commas; empty: all")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name]
    measures = {name: measure for group in GROUPS.values() for name, measure in group.items()}
    chosen = [name for name in measures if not wanted or _is_wanted(name, wanted)]
    if not chosen:
        parser.error(f"nothing is called that; there are {', '.join([*GROUPS, *measures])}")
    figures: list[Figure] = []
    for name in chosen:
        figures += measures[name]()
    show(figures, arguments.out)


def _is_wanted(name: str, wanted: list[str]) -> bool:
    return any(name == one or (one in GROUPS and name in GROUPS[one]) or name in one for one in wanted)


if __name__ == "__main__":
    main()
