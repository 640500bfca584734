"""The driver meets a simulated monitor in each dialect, over TCP both ways and over a serial line."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.status import LinkState
from tests.gateway.sources.test_link import device_link, running, simulated, until

KEYS = {
    "pcd": ("heart_rate", "spo2"),
    "mindray-pds": ("pulse_rate_spo2", "spo2"),
    "philips-mdil": ("heart_rate", "spo2"),
    "nihon-kohden": ("heart_rate", "spo2"),
    "draeger-infinity": ("heart_rate", "spo2"),
}


@pytest.mark.parametrize("dialect", KEYS)
@pytest.mark.parametrize("faults", [(), ("sensor-off", "noise")], ids="-".join)
async def test_what_a_simulated_monitor_sent_is_what_arrived(
    dialect: str, faults: tuple[str, ...], tmp_path: Path
) -> None:
    journal = tmp_path / "sent.jsonl"
    words = ["--dialect", dialect, "--rate", "60", "--count", "23", "--journal", str(journal)]
    words += [word for fault in faults for word in ("--fault", fault)]
    async with simulated("simulators.hl7_monitor", *words) as port:
        link, intake, status = device_link("hl7-monitor", port)
        async with running(link):
            await until(lambda: status.state is LinkState.UP)
            await until(lambda: status.state is LinkState.DOWN)

    entries: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    sent = [(entry["pulse"], entry["spo2"]) for entry in entries]
    read = []
    for kept in intake.kept:
        if kept.result is not None and kept.result.observations:
            seen = {item.key: item.value for item in kept.result.observations}
            pair = tuple(seen.get(key) for key in KEYS[dialect])
            read.append(tuple(None if value is None else int(value) for value in pair))
    if dialect == "nihon-kohden":  # a row that is not there is no row: such a message gives nothing
        sent = [pair for pair in sent if pair != (None, None)]
    assert read == sent
    assert len(sent) >= 20 or "sensor-off" in faults


async def test_a_monitor_in_demonstration_mode_publishes_nothing_and_says_so() -> None:
    async with simulated("simulators.hl7_monitor", "--rate", "60", "--demo") as port:
        link, intake, status = device_link("hl7-monitor", port)
        async with running(link):
            await until(lambda: "demonstration" in (status.notice or ""))

    assert intake.kept == []


async def test_mllp_send_is_answered_when_its_message_is_kept(tmp_path: Path) -> None:
    message = tmp_path / "one.hl7"
    message.write_bytes(
        b"\x0bMSH|^~\\&|MON|ICU|||20260705101500||ORU^R01|77|P|2.4\rPID|||ZZTEST1\r"
        b"OBX|1|NM|001000^VITAL HR|1|80|/min\r\x1c\r"
    )
    link, intake, _ = device_link("hl7-monitor", "listen://127.0.0.1:0")
    opened: list[Any] = []
    opener = link._opener

    async def noting(port: str, line: Any) -> Any:
        opened.append(await opener(port, line))
        return opened[-1]

    link._opener = noting
    async with running(link):
        await until(lambda: bool(opened))
        sender = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("mllp_send")),
            *("-p", str(opened[0].port), "-f", str(message), "127.0.0.1"),
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await asyncio.wait_for(sender.communicate(), 20)

    (kept,) = intake.kept
    assert kept.result is not None
    assert kept.result.observations[0].key == "heart_rate"
    assert b"MSA|AA|77" in told
