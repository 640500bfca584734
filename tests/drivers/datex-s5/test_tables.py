"""The tables of the driver against the protocol sheet and the terminology."""

import csv
import re
from pathlib import Path

import drivers.datex_s5
from drivers.datex_s5.tables import groups, label_keys, label_names, wave_types
from gateway.formats.terms import term, unit_of

HOUSE = Path(__file__).parents[3]
SHEET = HOUSE / "../shared/protocols/datex-s5.md"
FOLDER = Path(drivers.datex_s5.__file__).parent
CLASS_OF_SECTION = {"4": "0", "5": "1", "6": "2", "7": "3"}
CONVERTED = {"0.01 mm": "0.001", "ml/min": "0.001", "ml/min/m2": "0.001"}  # mm to mV at 10 mm/mV; ml to litres


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sheet_rows() -> list[tuple[str, list[str]]]:
    """Every row of a table of sections 6.4 to 6.7, with its class."""
    found, number = [], ""
    for line in SHEET.read_text("utf-8").splitlines():
        if heading := re.match(r"#+ (\d+)\.?(\d*)", line):
            number = CLASS_OF_SECTION.get(heading[2], "") if heading[1] == "6" else ""
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if number and len(cells) > 5 and cells[0].isdigit():
            found.append((number, cells))
    return found


def test_every_field_of_the_sheet_stands_in_the_table_at_its_place() -> None:
    told = {
        (number, int(cells[0]), cells[1].strip("*"), cells[2], cells[3])
        for number, cells in sheet_rows()
        if cells[3] in ("s16", "u32", "u8")
        and cells[2] not in ("status", "label", "r")
        and cells[5] != "reserved"
        and not cells[1].startswith("reserved")
    }

    ours = {(row["class"], int(row["offset"]), row["group"], row["field"], row["type"]) for row in rows("fields.csv")}

    assert ours == told


def test_every_group_of_the_sheet_stands_in_the_table_at_its_place() -> None:
    told = {(number, int(cells[0]), cells[1].strip("*")) for number, cells in sheet_rows() if cells[2] == "status"}

    ours = {(row["class"], int(row["offset"]), row["group"]) for row in rows("groups.csv") if row["offset"]}

    assert ours == told


def test_scales_are_those_of_the_sheet() -> None:
    scales = {(row["class"], row["offset"]): row["scale"] for row in rows("fields.csv")}

    for number, cells in sheet_rows():
        if (scale := scales.get((number, cells[0]))) is None or cells[3] != "s16":
            continue
        written = re.match(r"[\d.]+", cells[4])
        wanted = CONVERTED.get(cells[4]) or (written[0] if written and not cells[4].startswith("1/") else "1")
        assert float(scale) == float(wanted), (cells[1], cells[2])


def test_codes_are_those_that_the_sheet_suggests() -> None:
    keys = {(row["class"], row["offset"]): row["key"] for row in rows("fields.csv")}
    checked = 0

    for number, cells in sheet_rows():
        key = keys.get((number, cells[0]), "@")
        code = re.search(r"\b(1[45]\d{4}|188\d{3})\b", cells[6]) if len(cells) > 6 else None
        if code is not None and key[0] != "@":
            assert term(key).code == int(code[0]), (cells[1], cells[2])
            checked += 1

    assert checked == 42


def test_pressure_labels_have_the_codes_of_the_sheet() -> None:
    text = SHEET.read_text("utf-8")
    table = dict(re.findall(r"^\| ((?:ART|CVP|PA|ICP|UVC)[^|]*) \| ([^|]+) \|$", text, re.MULTILINE))
    numbers = {name: number for number, name in label_names("pressure").items()}
    checked = 0

    for names, codes in table.items():
        for name, code in zip(re.sub(r"\(.*?\)", "", names).split(","), codes.split(","), strict=False):
            base = re.search(r"\d{6}", code)
            key = label_keys("pressure", "mean")[numbers[name.strip()]]
            if base is not None and name.strip() != "ICP2":
                mean = re.findall(r"/(\d+)", code)[-1]
                assert str(term(key).code).endswith(mean), name
                checked += 1

    assert checked >= 11


def test_all_labels_of_the_sheet_are_known() -> None:
    assert list(label_names("pressure")) == list(range(23))
    assert list(label_names("temperature")) == list(range(19))
    assert list(label_names("agent")) == list(range(7))
    assert list(label_names("lead")) == list(range(8))
    assert set(label_names("pressure").values()) >= {"ART", "CVP", "ABP", "P1", "ICP2", "FEMV"}


def test_waves_are_those_of_the_sheet() -> None:
    text = SHEET.read_text("utf-8")
    section = text[text.index("### 8.3") : text.index("### 8.4")]
    told = {}
    for numbers, rate, level in re.findall(
        r"^\| ([\d, -]+) \| [^|]+ \| (\d+)[^|]*\| [^|]+ \| (\d+)", section, re.MULTILINE
    ):
        for part in numbers.split(","):
            first, _, last = part.strip().partition("-")
            told |= {number: (int(rate), int(level)) for number in range(int(first), int(last or first) + 1)}

    assert {number: (wave.rate, wave.level) for number, wave in wave_types().items()} == told


def test_every_key_and_unit_is_known() -> None:
    for row in rows("fields.csv"):
        if row["unit"]:
            unit_of(row["unit"])
        if row["key"][0] != "@" and not row["key"].startswith("x_"):
            assert row["unit"] == term(row["key"]).ucum or row["key"] == "spo2_relative_perfusion", row
    for row in rows("labels.csv"):
        for role in ("sys", "dia", "mean", "wave", "value", "et", "insp"):
            assert not row[role] or row[role].startswith("x_") or term(row[role])
    assert sum(len(found) for found in groups()) == 44
    assert len({(found.vmd, found.channel) for several in groups() for found in several}) == 44


def test_metrics_have_paths_of_their_own() -> None:
    for several in groups():
        for group in several:
            numbers = [field.metric for field in group.fields] + [choice.metric for choice in group.choices]
            assert len(set(numbers)) == len(numbers), group.name
