from pathlib import Path

import pytest

from gateway.configfile import load

HOUSE = """
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:0"

[[destination]]
name = "pacs"
type = "dicom"
host = "h"
port = 104
ae_title = "PACS"

[[route]]
from = ["imaging"]
to = ["pacs"]
"""
SECRET = 'secret = { env = "HOME" }\n'


def faults(folder: Path, text: str) -> list[str]:
    (folder / "gateway.toml").write_text(HOUSE + text)
    return [str(placed.fault) for placed in load(folder / "gateway.toml").faults]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('set = { PatientNam = "x" }', "'PatientNam' is no keyword"),
        ('set = { SOPClassUID = "1.2" }', "SOPClassUID stays"),
        ('remove = ["(7FE0,0010)"]', "pixels are never changed"),
        ('copy = { PatientID = "Nothing" }', "'Nothing' is no keyword"),
        ('hash = ["StudyDate"]\n' + SECRET, "cannot be hashed"),
        ('hash = ["PatientID"]', "need a secret"),
        ('deidentify = "basic"', "need a secret"),
        ('deidentify_options = ["retain-uids"]', "need deidentify"),
        ('deidentify = "basic"\ncoerce = "worklist"\n' + SECRET, "either deidentify or coerce"),
    ],
)
def test_a_change_that_cannot_be_made_is_told(tmp_path: Path, text: str, words: str) -> None:
    (fault,) = faults(tmp_path, text)

    assert words in fault


def test_changes_that_can_be_made_are_right(tmp_path: Path) -> None:
    text = 'set = { "RequestAttributesSequence.AccessionNumber" = "1" }\ncopy = { PatientID = "PixelData" }\n'

    assert faults(tmp_path, text + 'deidentify = "basic"\n' + SECRET) == []


def test_identified_objects_do_not_go_where_others_are_clean(tmp_path: Path) -> None:
    clean = '\n[[route]]\nfrom = ["imaging"]\nto = ["pacs"]\ndeidentify = "basic"\n'

    (fault,) = faults(tmp_path, clean + SECRET)

    assert "'pacs' gets de-identified objects" in fault


def test_a_secret_that_cannot_be_read_or_travels_open_is_told(tmp_path: Path) -> None:
    cloud = '\n[[destination]]\nname = "cloud"\ntype = "stow"\nurl = "http://archive.example/x"\n'
    missing = f'hash = ["PatientID"]\nsecret = {{ file = "{tmp_path}/none" }}\n'
    (tmp_path / "gateway.toml").write_text(HOUSE + missing + cloud + SECRET)

    loaded = load(tmp_path / "gateway.toml")

    assert "none cannot be read" in str(loaded.faults[0].fault)
    assert any("the secret goes over the network in the clear; use https://" in str(each) for each in loaded.warnings)
