"""What the README shows works: its configuration loads, and the places it points to are there."""

import re
from pathlib import Path

from gateway.configfile import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_first_device_of_the_readme_is_a_configuration_without_fault(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "gateway.toml").write_text(block)
    config = load(tmp_path / "gateway.toml").required()

    assert [source.name for source in config.sources] == ["bed-12-oximeter"]
    assert [destination.name for destination in config.destinations] == ["emr", "broker"]


def test_every_place_the_readme_points_to_is_there() -> None:
    places = re.findall(r"\]\(([^)#:]+)\)", README)

    assert len(places) > 10
    assert [place for place in places if not (ROOT / place).exists()] == []
