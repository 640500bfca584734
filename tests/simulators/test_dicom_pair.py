"""Modality and DICOM receiver against each other and against DCMTK, with every fault."""

import hashlib
import json
import socket
import subprocess

import pytest
from pynetdicom.dsutils import split_dataset

from simulators.dicom_objects import test_images as sound_images
from simulators.journal import read_journal

SERIES = ("--series", "CT", "--instances", "2", "--size", "32KB")


def _send(start, port, journal, *arguments):
    return start("modality", "--to", f"127.0.0.1:{port}", "--called", "PACS", "--journal", journal, *arguments).result()


def _pairs(path):
    return {(entry["id"], entry["sha256"]) for entry in read_journal(path)}


def test_real_images_arrive_byte_for_byte_on_one_association(start, tmp_path):
    receiver = start("dicom_receiver", "--journal", tmp_path / "r")
    result = _send(start, receiver.port, tmp_path / "s", "--count", len(sound_images()))

    assert len(sound_images()) > 50
    assert (result["acknowledged"], result["associations"]) == (len(sound_images()), 1)
    assert _pairs(tmp_path / "s") == _pairs(tmp_path / "r")
    assert receiver.stop()["stored"] == len(sound_images())


@pytest.mark.parametrize("fault", ["full", "abort", "close"])
def test_an_instance_that_was_not_taken_is_sent_again_unchanged(start, tmp_path, fault):
    receiver = start(
        "dicom_receiver", "--journal", tmp_path / "r", "--faults", json.dumps([{"fault": fault, "at": [2]}])
    )
    result = _send(start, receiver.port, tmp_path / "s", "--count", 3, *SERIES)

    entries = read_journal(tmp_path / "r")
    assert (result["acknowledged"], result["retried"]) == (3, 1)
    assert [entry["fault"] for entry in entries] == [None, fault, None, None]
    assert (entries[1]["id"], entries[1]["sha256"]) == (entries[2]["id"], entries[2]["sha256"])


def test_an_instance_that_is_refused_is_given_up(start, tmp_path):
    receiver = start(
        "dicom_receiver", "--faults", '[{"fault": "refuse", "at": [1]}, {"fault": "slow", "at": [2], "delay_s": 0.1}]'
    )
    result = _send(start, receiver.port, tmp_path / "s", "--count", 2, *SERIES)

    assert (result["acknowledged"], result["refused"]) == (1, 1)


def test_a_rejected_association_is_tried_again(start, tmp_path):
    receiver = start("dicom_receiver", "--reject", 1, "--directory", tmp_path / "kept")
    result = _send(start, receiver.port, tmp_path / "s", "--count", 1, *SERIES)

    assert (result["acknowledged"], result["retried"]) == (1, 1)
    assert receiver.stop()["rejected"] == 1
    (kept,) = (tmp_path / "kept").iterdir()
    _, offset = split_dataset(kept)
    (sent,) = read_journal(tmp_path / "s")
    assert hashlib.sha256(kept.read_bytes()[offset:]).hexdigest() == sent["sha256"]


def test_dcmtk_stores_what_the_modality_sends(start, tmp_path):
    port, folder = _free_port(), tmp_path / "kept"
    folder.mkdir()
    command = ["storescp", "-v", "+xa", "--promiscuous", "+B", "-od", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as storescp:
        try:
            result = _send(start, port, tmp_path / "s", "--count", 4, "--associations", 2, *SERIES)
        finally:
            storescp.kill()

    assert result["acknowledged"] == 4
    kept = {hashlib.sha256(path.read_bytes()[split_dataset(path)[1] :]).hexdigest() for path in folder.iterdir()}
    assert kept == {entry["sha256"] for entry in read_journal(tmp_path / "s")}


def test_storescu_is_answered(start, tmp_path):
    receiver = start("dicom_receiver", "--journal", tmp_path / "r")
    (image,) = [path for path in sound_images() if path.name == "CT_small.dcm"]
    subprocess.run(["storescu", "-aec", "PACS", "127.0.0.1", str(receiver.port), image], check=True, timeout=20)

    assert [entry["answer"] for entry in read_journal(tmp_path / "r")] == ["0000"]


def _free_port():
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        return wire.getsockname()[1]
