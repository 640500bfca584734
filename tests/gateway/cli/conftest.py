"""The house as a fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.console.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as running:
        yield running
