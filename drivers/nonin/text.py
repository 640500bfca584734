"""The text output: `SPO2=XXX HR=YYY`, some models with the time in front; `*` an event mark, `F` fast averaging."""

import re
from dataclasses import replace

from drivers.nonin.values import PULSE_MISSING, SPO2_MISSING, States, result_of
from gateway.driver import Condition, ContentError, Result

LINE_BYTES_MAX = 120

ROW = re.compile(
    r"(?:(?P<time>\d\d:\d\d:\d\d)\s+)?SPO2=(?P<spo2>\d{3}|---)\s+HR=(?P<pulse>\d{3}|---)(?P<marks>(?:\s*[*F])*)\s*"
)
_PART_OF_ROW = re.compile(r"SPO2|HR=|=")
_MARKS = {"*": ("event mark", False), "F": ("fast averaging", True)}


def read_line(line: bytes) -> tuple[Result, ...]:
    """Read one line; a heading gives nothing. Raises ContentError for a row that is damaged."""
    text = line.decode("ascii")
    row = ROW.fullmatch(text)
    if row is None:
        if _PART_OF_ROW.search(text):
            raise ContentError("a damaged row of the text output")
        return ()
    pulse = PULSE_MISSING if row["pulse"] == "---" else int(row["pulse"])
    spo2 = SPO2_MISSING if row["spo2"] == "---" else int(row["spo2"])
    result = result_of(pulse, spo2, States(), device_time=row["time"])
    marks = [mark for mark in _MARKS if mark in row["marks"]]
    conditions = (Condition(code=mark, text=_MARKS[mark][0], technical=_MARKS[mark][1]) for mark in marks)
    return (replace(result, conditions=(*result.conditions, *conditions)),)
