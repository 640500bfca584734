"""EMR and MLLP receiver against each other, against python-hl7, and with every fault."""

import json
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from simulators.journal import read_journal


def _run_emr(start, receiver, journal, *arguments):
    return start("emr", "--to", f"127.0.0.1:{receiver.port}", "--journal", journal, *arguments).result()


def _pairs(path):
    return {(entry["id"], entry["sha256"]) for entry in read_journal(path)}


def test_what_is_acknowledged_stands_in_both_journals(start, tmp_path):
    receiver = start("mllp_receiver", "--journal", tmp_path / "r", "--seed", 3)
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 200, "--connections", 4, "--window", 8)

    assert (result["acknowledged"], result["unanswered"]) == (200, 0)
    assert receiver.stop()["received"] == 200
    assert _pairs(tmp_path / "s") == _pairs(tmp_path / "r")
    assert [entry["ordinal"] for entry in read_journal(tmp_path / "r")] == list(range(1, 201))


@pytest.mark.parametrize("fault", ["close", "half", "silent", "wrong_id", "garbage"])
def test_a_message_without_a_good_answer_is_sent_again_unchanged(start, tmp_path, fault):
    rules = json.dumps([{"fault": fault, "at": [3]}])
    receiver = start("mllp_receiver", "--journal", tmp_path / "r", "--faults", rules)
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 5, "--ack-timeout", 0.3)

    entries = read_journal(tmp_path / "r")
    assert (result["acknowledged"], result["reconnects"], result["resent"]) == (5, 1, 1)
    assert entries[2]["fault"] == fault
    assert entries[3]["id"] == entries[2]["id"]
    assert entries[3]["sha256"] == entries[2]["sha256"]
    assert len(entries) == 6


@pytest.mark.parametrize(("fault", "code"), [("ae", "AE"), ("ar", "AR"), ("ce", "CE"), ("cr", "CR"), ("ae207", "AE")])
def test_a_refusal_is_an_answer_and_is_journalled_with_its_code(start, tmp_path, fault, code):
    receiver = start("mllp_receiver", "--faults", json.dumps([{"fault": fault, "at": [2]}]))
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 3, "--kind", "adt")

    assert (result["acknowledged"], result["refused"], result["resent"]) == (2, 1, 0)
    assert [entry["code"] for entry in read_journal(tmp_path / "s")] == ["AA", code, "AA"]


@pytest.mark.parametrize("rule", [{"fault": "late", "delay_s": 0.2}, {"fault": "split"}])
def test_a_late_or_split_answer_keeps_the_order_of_pipelined_messages(start, tmp_path, rule):
    receiver = start("mllp_receiver", "--journal", tmp_path / "r", "--faults", json.dumps([{**rule, "at": [2, 5]}]))
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 10, "--window", 10)

    assert (result["acknowledged"], result["reconnects"], result["wrong_answers"]) == (10, 0, 0)
    assert [entry["id"] for entry in read_journal(tmp_path / "s")] == [e["id"] for e in read_journal(tmp_path / "r")]


def test_a_refused_message_is_sent_again_where_that_is_asked(start, tmp_path):
    receiver = start("mllp_receiver", "--journal", tmp_path / "r", "--faults", '[{"fault": "ae207", "at": [1]}]')
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 2, "--retry-refused")

    assert (result["acknowledged"], result["refused"]) == (2, 1)
    assert len({entry["id"] for entry in read_journal(tmp_path / "r")}) == 2


def test_a_receiver_that_was_away_gets_what_it_missed(start, tmp_path):
    first = start("mllp_receiver", "--journal", tmp_path / "r")
    to = ("--to", f"127.0.0.1:{first.port}", "--journal", tmp_path / "s", "--count", 2000, "--window", 4)
    emr = start("emr", *to)
    first.process.kill()
    first.process.wait(timeout=10)
    start("mllp_receiver", "--listen", f"127.0.0.1:{first.port}", "--journal", tmp_path / "r")
    result = emr.result()

    assert (result["acknowledged"], result["unanswered"]) == (2000, 0)
    assert _pairs(tmp_path / "s") == _pairs(tmp_path / "r")


def test_sixteen_megabytes_pass(start, tmp_path):
    receiver = start("mllp_receiver", "--journal", tmp_path / "r", "--stop-after", 1)
    result = _run_emr(start, receiver, tmp_path / "s", "--count", 1, "--kind", "oru", "--size", "16MB")

    assert result["acknowledged"] == 1
    assert receiver.result()["received"] == 1
    (entry,) = read_journal(tmp_path / "r")
    assert (15 << 20) < entry["bytes"] < (17 << 20)


def test_monitors_ask_for_a_commit_and_get_it(start, tmp_path):
    receiver = start("mllp_receiver")
    _run_emr(start, receiver, tmp_path / "s", "--count", 1, "--kind", "oru25")

    (entry,) = read_journal(tmp_path / "s")
    assert entry["code"] == "CA"
    assert 4000 < entry["bytes"] < 5000


def test_mllp_send_is_answered(start, tmp_path):
    message = tmp_path / "one.hl7"
    message.write_bytes(b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|Q1|P|2.5\rPID|1||ZZ1\r\x1c\r")
    receiver = start("mllp_receiver", "--journal", tmp_path / "r")
    sender = str(Path(sys.executable).parent / "mllp_send")
    command = [sender, "-p", str(receiver.port), "-f", str(message), "127.0.0.1"]
    sent = subprocess.run(command, capture_output=True, timeout=20, check=True)

    assert b"MSA|AA|Q1" in sent.stdout
    assert read_journal(tmp_path / "r")[0]["id"] == "Q1"


def test_bytes_that_are_not_hl7_are_rejected_and_the_next_message_is_taken(start):
    receiver = start("mllp_receiver")
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as wire:
        wire.sendall(b"junk\x0bhello\x1c\r")
        first = wire.recv(4096)
        wire.sendall(b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|Q2|P|2.5\r\x1c\r")
        second = wire.recv(4096)

    assert b"MSA|AR|" in first
    assert b"MSA|AA|Q2" in second


def test_tls_is_spoken(start, tmp_path):
    certificate, key = _self_signed(tmp_path)
    receiver = start("mllp_receiver", "--tls", certificate, key)
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wire,
    ):
        wire.sendall(b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|Q3|P|2.5\r\x1c\r")
        answer = wire.recv(4096)

    assert b"MSA|AA|Q3" in answer


def test_both_sides_show_their_certificates(start, tmp_path):
    certificate, key = _self_signed(tmp_path)
    receiver = start("mllp_receiver", "--tls", certificate, key, "--tls-client-ca", certificate)
    tls = ("--tls-ca", certificate, "--tls-cert", certificate, key)

    assert _run_emr(start, receiver, tmp_path / "s", "--count", 20, "--connections", 2, *tls)["acknowledged"] == 20


def _self_signed(folder):
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_an_unknown_fault_is_refused_at_start():
    command = [sys.executable, "-m", "simulators.mllp_receiver", "--faults", '[{"fault": "sulk"}]']
    ended = subprocess.run(command, capture_output=True, timeout=20, check=False)

    assert ended.returncode != 0
    assert b"sulk" in ended.stderr
