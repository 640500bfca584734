import pytest

from tests.drivers.transcripts import Transcript, all_transcripts, check_transcript


@pytest.mark.parametrize("transcript", all_transcripts(), ids=lambda found: f"{found.driver}/{found.path.stem}")
def test_a_transcript_is_read_as_it_says(transcript: Transcript) -> None:
    check_transcript(transcript)
