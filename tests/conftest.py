"""Tests of recordings that have no licence are collected only where the recordings lie beside the project."""

from pathlib import Path

RECORDINGS = Path(__file__).parents[2] / "shared" / "protocols" / "captures"

collect_ignore_glob = [] if RECORDINGS.is_dir() else ["**/test_captures*.py"]
