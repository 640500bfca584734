"""The transcripts of this repository's drivers: `NAME/*.transcript`, read by the kit `gateway.driver_testing`."""

from pathlib import Path

from gateway.driver_testing.transcripts import (
    Transcript,
    check_transcript,
    load,
    load_all,
    play,
    shown,
    shown_result,
    written_bytes,
)

__all__ = [
    "Transcript",
    "all_transcripts",
    "check_transcript",
    "load",
    "play",
    "shown",
    "shown_result",
    "written_bytes",
]

DRIVERS = Path(__file__).parent


def all_transcripts() -> list[Transcript]:
    return load_all(DRIVERS)
