"""The campaign `away`, small: see away.py."""

from pathlib import Path

import pytest

from tests.crash import away
from tests.crash.away import run_away


def test_what_waited_for_a_day_arrives_once_and_study_by_study_and_a_kill_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(away, "AWAY_S", 0.5)

    verdict = run_away(tmp_path, 1, 1, "gateway.cli.main", instances=160)

    assert verdict.notes == []
    assert verdict.good
    assert verdict.delivered == 320
