"""The worked examples in docs/writing-a-driver.md are whole ones."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.configfile import load as load_config
from gateway.driver_testing import check_laws, check_transcript
from gateway.driver_testing import load as load_transcript

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "writing-a-driver.md"
LINES_MAX = 120
TIMEOUT_S = 60.0
METADATA = "Metadata-Version: 2.1\nName: acme-glucose\nVersion: 1.0\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


LINE, ASTM, ENTRY_POINT = blocks("toml")
DRIVER, TEST = blocks("python")


@pytest.mark.parametrize(("stanza", "transcript"), [(LINE, blocks("transcript")[0]), (ASTM, blocks("transcript")[1])])
def test_a_device_that_is_configured_reads_what_the_page_says(stanza: str, transcript: str, tmp_path: Path) -> None:
    whole = tmp_path / "gateway.toml"
    destination = '[[destination]]\nname = "emr"\ntype = "mllp"\nhost = "emr.example"\nport = 2576\n'
    whole.write_text(f'[gateway]\nname = "ward"\ndata_dir = "{tmp_path}"\n{stanza}{destination}', encoding="utf-8")
    source = tomllib.loads(stanza)["source"][0]
    told = tmp_path / source["driver"] / "page.transcript"
    told.parent.mkdir()
    told.write_text(transcript, encoding="utf-8")
    found = load_transcript(told)
    found.options = source["options"]

    assert load_config(whole).faults == ()
    check_transcript(found)
    check_laws(found, max_examples=5)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of somebody else's, installed: the page's driver, its transcript, its test."""
    (tmp_path / "acme_glucose.py").write_text(DRIVER, encoding="utf-8")
    (tmp_path / "test_acme_glucose.py").write_text(TEST, encoding="utf-8")
    transcript = tmp_path / "transcripts" / "acme-glucose" / "morning.transcript"
    transcript.parent.mkdir(parents=True)
    transcript.write_text(blocks("transcript")[2], encoding="utf-8")
    installed = tmp_path / "acme_glucose-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(METADATA, encoding="utf-8")
    ((group, entries),) = tomllib.loads(ENTRY_POINT)["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{package}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_driver_of_an_outside_package_is_installed_and_held_to_the_laws(package: Path) -> None:
    tested = run(package, "pytest", "-q", "-p", "no:cacheprovider", "test_acme_glucose.py")
    told = run(package, "gateway.cli.main", "drivers", "acme-glucose")

    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    assert told.returncode == 0, told.stderr
    assert "ACME G1 bedside glucose meter" in told.stdout


def test_a_driver_that_reads_otherwise_fails_the_kit(package: Path) -> None:
    driver = package / "acme_glucose.py"
    driver.write_text(DRIVER.replace("Decimal(value)", "Decimal(value) + 1"), encoding="utf-8")

    tested = run(package, "pytest", "-q", "-p", "no:cacheprovider", "test_acme_glucose.py", "-k", "meter")

    assert tested.returncode == 1
    assert "expected reads x_acme_glucose=105" in tested.stdout


def test_a_simple_driver_costs_two_short_files() -> None:
    assert len(DRIVER.splitlines()) + len(blocks("transcript")[2].splitlines()) <= LINES_MAX
