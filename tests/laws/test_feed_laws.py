"""What any driver reads in its transcripts can be kept and delivered: stored, on MQTT, as PCD-01."""

import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from gateway.formats import events
from gateway.formats.births import Birth, learn
from gateway.formats.events import Envelope, session_of
from gateway.formats.pcd import render_pcd01
from gateway.formats.result_documents import result_documents
from gateway.formats.results import decode_result, encode_result
from gateway.model import Result
from tests.drivers.transcripts import Transcript, all_transcripts
from tests.gateway.formats.results_of import ORIGIN, RECEIVED_AT, message_of, parcel_of

RESULTS_MAX = 12  # of one transcript are looked at closely: the first and the last
ENVELOPE = Envelope(gateway="ward-3a", session=session_of(RECEIVED_AT), seq=5, sent_at=RECEIVED_AT)
VALIDATOR = Draft202012Validator(
    json.loads(files("gateway.formats").joinpath("mqtt.schema.json").read_text()), format_checker=FormatChecker()
)
every_transcript = pytest.mark.parametrize(
    "transcript", all_transcripts(), ids=lambda found: f"{found.driver}/{found.path.stem}"
)


def results_of(transcript: Transcript) -> list[Result]:
    session, results = transcript.create().open(), []
    for piece in transcript.pieces:
        session.receive(piece, 0.0)
        results += [result for reading in session.take_readings() for result in reading.results]
    return results if len(results) <= RESULTS_MAX else results[: RESULTS_MAX // 2] + results[-RESULTS_MAX // 2 :]


@every_transcript
def test_what_a_driver_reads_is_kept_and_delivered(transcript: Transcript) -> None:
    known: Birth | None = None
    for result in results_of(transcript):
        assert decode_result(encode_result(result)) == result
        for document in result_documents(ENVELOPE, message_of(result), ORIGIN, historical=False):
            VALIDATOR.validate(json.loads(document.body))
        render_pcd01(parcel_of(message_of(result)), ORIGIN, waves=True)
        known = learn(known, ORIGIN, result)
    if known is not None:
        VALIDATOR.validate(json.loads(events.birth(ENVELOPE, known).body))


@every_transcript
def test_what_is_told_twice_is_no_news(transcript: Transcript) -> None:
    known: Birth | None = None
    for result in results_of(transcript):
        known = learn(known, ORIGIN, result)

        assert learn(known, ORIGIN, result) == known
