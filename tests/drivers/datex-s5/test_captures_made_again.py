"""The simulated monitor's bytes against those of a real one: every captured record is made again."""

import csv
import struct
from functools import cache
from pathlib import Path

import pytest

from simulators import datex_s5_codec as codec
from simulators.datex_s5_codec import AlarmLine, GroupValues, Receiver

CAPTURES = Path(__file__).parents[3] / "../shared/protocols/captures/ge-s5"
LAYOUT = Path(codec.__file__).parent / "data" / "datex_s5.csv"


def golden(name: str) -> bytes:
    rows = (CAPTURES / "golden-frames.txt").read_text("utf-8").splitlines()
    return next(bytes.fromhex(row.split("|")[3]) for row in rows if row.startswith(name))


@cache
def layout() -> list[dict[str, str]]:
    with LAYOUT.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def image(part: bytes) -> dict[str, GroupValues]:
    """The groups of a captured subrecord as the simulator is told of them."""
    groups = {}
    for row in layout():
        if row["class"] != str(part[277] & 0xF):
            continue
        shown, at = GroupValues(), 4 + int(row["offset"])
        if row["header"] == "1":
            shown.status, shown.label = struct.unpack_from("<IH", part, at)
            at += 6
        for name in row["fields"].split():
            name, _, kind = name.partition(":")
            shown.values[name] = struct.unpack_from(f"<{kind or 'h'}", part, at)[0]
            at += struct.calcsize(kind or "h")
        groups[row["group"]] = shown
    return groups


def parts_of(record: bytes) -> list[tuple[int, bytes]]:
    found = []
    for at in range(16, 40, 3):
        offset, kind = struct.unpack_from("<hB", record, at)
        if kind == 0xFF:
            break
        found.append((offset, kind))
    ends = [offset for offset, _ in found[1:]] + [len(record) - 40]
    return [(kind, record[40 + start : 40 + end]) for (start, kind), end in zip(found, ends, strict=True)]


def made_again(record: bytes) -> bytes:
    _, number, level, plug, time = struct.unpack_from("<hBBHI", record)
    main_type = struct.unpack_from("<h", record, 14)[0]
    if main_type == 0:
        parts = [
            (
                kind,
                codec.numerics(part[277] & 0xF, kind, image(part), time=struct.unpack_from("<I", part)[0], level=level),
            )
            for kind, part in parts_of(record)
        ]
    else:
        parts = [(kind, wave_again(part)) for kind, part in parts_of(record)]
    made = codec.record(main_type, parts, number=number, level=level, time=time, plug=plug)
    return codec.frame(made)


def wave_again(part: bytes) -> bytes:
    count, status, label = struct.unpack_from("<hHH", part)
    samples = struct.unpack_from(f"<{count}h", part, 6)
    return codec.wave_block(samples, gap=bool(status & 1), counter=status >> 4 & 0x3F, label=label)


@pytest.mark.parametrize("name", ["phdb-displayed-four-classes", "wave-pleth-entropy"])
def test_golden_records_are_made_byte_for_byte(name: str) -> None:
    (record,) = Receiver().feed(golden(name))

    assert made_again(record) == golden(name)


def test_the_golden_alarm_is_made_byte_for_byte() -> None:
    lines = [AlarmLine("HR HIGH", 3, changed=True), AlarmLine("SpO2 PROBE OFF", 2)]

    made = codec.record(4, [(1, codec.alarm_status(lines))], number=0, level=10, time=0x5B6315E0)

    assert codec.frame(made) == golden("alarm-status-record")


def test_every_record_of_the_clean_capture_is_made_byte_for_byte() -> None:
    data = (CAPTURES / "pycollect-db00.raw").read_bytes()
    whole = data[data.index(b"\x7e\x7e") + 1 : data.rindex(b"\x7e\x7e") + 1]

    records = Receiver().feed(whole)

    assert len(records) == 3520
    assert b"".join(made_again(record) for record in records[::7]) == b"".join(map(codec.frame, records[::7]))
    assert b"".join(map(codec.frame, records)) == whole
