"""The kit with which a driver is tested, wherever it lives: transcripts as data, and the laws of all drivers.

    for transcript in load_all(Path("tests/transcripts")):
        check_transcript(transcript)
        check_laws(transcript)

Needs Hypothesis (the extra `test`) for `check_laws` only. docs/writing-a-driver.md shows a whole package.
"""

from gateway.driver_testing.laws import check_driver, check_laws
from gateway.driver_testing.transcripts import Transcript, check_transcript, load, load_all, play, shown, written_bytes

__all__ = [
    "Transcript",
    "check_driver",
    "check_laws",
    "check_transcript",
    "load",
    "load_all",
    "play",
    "shown",
    "written_bytes",
]
