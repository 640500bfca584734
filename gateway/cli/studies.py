"""`gateway studies`, `gateway steps`: what is held of each study and owed, and what Modalities report having done.

The store is read directly, whether an agent runs or not.
"""

import argparse
from typing import Any

from gateway.cli.messages import LIMIT, limit, reading
from gateway.cli.output import add_json, print_json, print_table
from gateway.cli.settings import read_config
from gateway.dataset import text_at
from gateway.store.commitments import read_commitments, references_of
from gateway.store.steps import KeptStep, read_steps
from gateway.store.studies import StudyCount, StudyProgress, count_studies, read_studies

_MODALITY, _STATION = 0x00080060, 0x00400241


def add_studies_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `studies` takes."""
    parser.add_argument("--disagreeing", action="store_true", help="only those that differ from the worklist")
    parser.add_argument("--limit", type=limit, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})")
    add_json(parser)


def add_steps_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `steps` takes."""
    parser.add_argument("--commitments", action="store_true", help="requests for storage commitment instead")
    parser.add_argument("--limit", type=limit, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})")
    add_json(parser)


def studies(arguments: argparse.Namespace) -> int:
    """Print studies, the one that changed last first."""
    with reading(read_config(arguments)) as readers:
        found = read_studies(readers.connection, arguments.limit, disagreeing=arguments.disagreeing)
        counts = count_studies(readers.connection, found)
    if arguments.json:
        print_json({"studies": [_study_document(study, counts[study.id]) for study in found]})
        return 0
    print_table(
        ("STUDY", "ACCESSION", "SOURCE", "HELD", "OWED", "PARKED", "LAST", "COMPLETE", "BY", "DISAGREES IN"),
        [
            (
                study.study_instance_uid,
                study.accession_number,
                study.source,
                counts[study.id].held,
                counts[study.id].pending,
                counts[study.id].parked,
                study.last_at,
                study.completed_at,
                study.cause,
                " ".join(study.disagreements),
            )
            for study in found
        ],
    )
    return 0


def steps(arguments: argparse.Namespace) -> int:
    """Print procedure steps, or requests for commitment, the one that changed last first."""
    if arguments.commitments:
        return _commitments(arguments)
    with reading(read_config(arguments)) as readers:
        found = read_steps(readers.connection, arguments.limit)
    if arguments.json:
        print_json({"steps": [_step_document(kept) for kept in found]})
        return 0
    print_table(
        ("CHANGED", "STATE", "MODALITY", "STATION", "ACCESSION", "STEP", "STUDY"),
        [
            (
                kept.changed_at,
                kept.step.state.value.lower(),
                text_at(kept.step.attributes, _MODALITY),
                text_at(kept.step.attributes, _STATION),
                " ".join(each.accession_number for each in kept.scheduled),
                " ".join(each.step_id for each in kept.scheduled),
                " ".join(dict.fromkeys(each.study_instance_uid for each in kept.scheduled)),
            )
            for kept in found
        ],
    )
    return 0


def _commitments(arguments: argparse.Namespace) -> int:
    with reading(read_config(arguments)) as readers:
        found = [
            (request, references_of(readers.connection, request.id))
            for request in read_commitments(readers.connection, arguments.limit)
        ]
    documents = [
        {
            "transaction_uid": request.transaction_uid,
            "source": request.source,
            "calling": request.calling,
            "received_at": request.received_at,
            "state": request.state.name.lower(),
            "instances": len(references),
            "committed": sum(reason == 0 for _, reason in references),
            "failed": {each.sop_instance_uid: f"{reason:04X}" for each, reason in references if reason},
            "attempts": request.attempts,
            "last_error": request.last_error,
        }
        for request, references in found
    ]
    if arguments.json:
        print_json({"commitments": documents})
        return 0
    columns = ("received_at", "calling", "state", "instances", "committed", "attempts", "last_error")
    titles = ("RECEIVED", "ASKED BY", "STATE", "INSTANCES", "COMMITTED", "ATTEMPTS", "LAST ERROR")
    print_table(titles, [tuple(document[column] for column in columns) for document in documents])
    return 0


def _study_document(study: StudyProgress, counted: StudyCount) -> dict[str, Any]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "accession_number": study.accession_number,
        "source": study.source,
        "received": study.instances,
        "held": counted.held,
        "pending": counted.pending,
        "delivered": counted.delivered,
        "parked": counted.parked,
        "first_at": study.first_at,
        "last_at": study.last_at,
        "completed_at": study.completed_at,
        "cause": study.cause,
        "disagreements": list(study.disagreements),
    }


def _step_document(kept: KeptStep) -> dict[str, Any]:
    return {
        "sop_instance_uid": kept.step.sop_instance_uid,
        "state": kept.step.state.value,
        "changed_at": kept.changed_at,
        "modality": text_at(kept.step.attributes, _MODALITY),
        "station": text_at(kept.step.attributes, _STATION),
        "scheduled": [
            {
                "study_instance_uid": each.study_instance_uid,
                "accession_number": each.accession_number,
                "step_id": each.step_id,
                "requested_procedure_id": each.requested_procedure_id,
            }
            for each in kept.scheduled
        ],
    }
