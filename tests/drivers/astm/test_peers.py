"""The driver meets a simulated analyser, and a client that others wrote (the package astm-2025)."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.laboratory import LabOrder, LabQuery
from gateway.model import Result
from gateway.status import LinkState
from tests.gateway.sources.test_link import device_link, running, simulated, until

CLIENT = """
import sys
import astm.asynclib
import astm.client

astm.asynclib.buffer = lambda data, start, size: bytes(data)[start : start + size]  # Python 2's, which they still call


class Type(bytes):  # their Python 3 encodes fields that are bytes and compares the record's type with text
    __hash__ = lambda self: hash(self.decode())
    __eq__ = lambda self, other: self.decode() == (other if isinstance(other, str) else bytes(other).decode())


def records():
    for number in range(1, int(sys.argv[2]) + 1):
        stamp = b"202607051015%02d" % number
        yield [Type(b"H"), b"\\\\^&", None, None, [b"PEER", b"1.0", b"SN9"], *[None] * 6, b"P", b"LIS2-A2", stamp]
        yield [Type(b"P"), b"1", b"ZZTEST1"]
        yield [Type(b"O"), b"1", b"S%04d" % number, None, [None, None, None, b"GLU"]]
        yield [Type(b"R"), b"1", [None, None, None, b"GLU"], b"5.%d" % number, b"mmol/L"]
        yield [Type(b"L"), b"1", b"N"]


client = astm.client.Client(records, host="127.0.0.1", port=int(sys.argv[1]), timeout=5,
                            chunk_size=int(sys.argv[3]) or None, bulk_mode=sys.argv[4] == "bulk")
client.run()
"""


def values(result: Result) -> dict[str, str]:
    return {seen.key: str(seen.value if seen.absent is None else seen.absent.value) for seen in result.observations}


KEYS = {"pH": "x_astm_ph", "pCO2": "x_astm_pco2", "Na+": "x_astm_na"}


def expected(journal: Path) -> list[dict[str, str]]:
    entries: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    return [
        {"x_specimen_id": entry["id"]}
        | {KEYS[test]: "NAV" if value == "....." else value for test, value in entry["values"].items()}
        for entry in entries
        if "values" in entry
    ]


@pytest.mark.parametrize("faults", [(), ("bad-checksum",), ("cut", "noise"), ("sensor-off",)], ids="-".join)
async def test_every_sample_that_was_acknowledged_arrived_once_and_in_order(
    faults: tuple[str, ...], tmp_path: Path
) -> None:
    journal = tmp_path / "sent.jsonl"
    words = [word for fault in faults for word in ("--fault", fault)]
    async with simulated(
        "simulators.astm", "--rate", "1000", "--count", "12", "--ask-every", "0", "--journal", str(journal), *words
    ) as port:
        link, intake, status = device_link("astm", port)
        async with running(link):
            await until(lambda: status.state is LinkState.UP)
            await until(lambda: status.state is LinkState.DOWN)

    results = [kept.result for kept in intake.kept if kept.result is not None]
    assert [values(result) for result in results] == expected(journal)
    assert len(results) == 12


async def test_a_question_is_answered(tmp_path: Path) -> None:
    journal = tmp_path / "sent.jsonl"
    async with simulated("simulators.astm", "--rate", "1000", "--count", "5", "--journal", str(journal)) as port:
        link, _, status = device_link("astm", port)
        async with running(link):
            await until(lambda: status.state is LinkState.UP)
            await until(lambda: journal.exists() and "answer" in journal.read_text())

    (answer,) = [json.loads(line)["answer"] for line in journal.read_text().splitlines() if "answer" in line]
    assert answer == [r"H|\^&||||||||||P|1", "L|1|I"]


@pytest.mark.parametrize(("chunk", "mode"), [(0, "single"), (0, "bulk"), (40, "bulk")])
async def test_the_client_that_others_wrote_is_read(chunk: int, mode: str) -> None:
    link, intake, status = device_link("astm", "listen://127.0.0.1:0")
    opened: list[Any] = []
    opener = link._opener

    async def noting(port: str, line: Any) -> Any:
        stream = await opener(port, line)
        opened.append(stream)
        return stream

    link._opener = noting
    async with running(link):
        await until(lambda: bool(opened))
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(opened[0].port), "3", str(chunk), mode, stderr=subprocess.DEVNULL
        )
        await until(lambda: len(intake.kept) >= 3)
        client.kill()
        await client.wait()

    results = [kept.result for kept in intake.kept if kept.result is not None]
    assert [values(result) for result in results] == [
        {"x_specimen_id": f"S{number:04d}", "x_astm_glucose_molar": f"5.{number}"} for number in (1, 2, 3)
    ]
    assert {result.device.serial for result in results} == {"SN9"}
    assert status.lost == 0


async def test_a_question_is_answered_with_what_was_ordered(tmp_path: Path) -> None:
    journal = tmp_path / "sent.jsonl"
    ordered = LabOrder(sample_id="S0005", tests=("2345-7", "NA"), patient_id="ZZ1", name="ZZTEST^Anna", urgent=True)

    async def find(query: LabQuery) -> tuple[LabOrder, ...]:
        return (ordered,) if query.sample_id == "S0005" else ()

    async with simulated("simulators.astm", "--rate", "1000", "--count", "5", "--journal", str(journal)) as port:
        link, _, _ = device_link("astm", port, {"order_codes": {"2345-7": "GLU"}})
        link._orders = find
        async with running(link):
            await until(lambda: journal.exists() and "answer" in journal.read_text())

    (answer,) = [json.loads(line)["answer"] for line in journal.read_text().splitlines() if "answer" in line]
    assert [record[:1] for record in answer] == ["H", "P", "O", "L"]
    assert answer[1].startswith("P|1|ZZ1|||ZZTEST^Anna")
    assert answer[2].startswith(r"O|1|S0005||^^^GLU\^^^NA|S")
    assert answer[3] == "L|1|N"
