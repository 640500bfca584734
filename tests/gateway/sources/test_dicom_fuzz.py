"""Bytes that nobody should send, at the socket of a listener that runs: no crash, no hang, no growth."""

import asyncio
import gc
import os
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import DicomSource as Settings
from gateway.formats.dicom import UNCOMPRESSED, read_meta
from gateway.status import LinkState
from gateway.typed import Address
from tests.gateway.sources.dicom_house import EXPLICIT, House, associate, association_threads, running, store, until
from tests.gateway.sources.own_scu import CT_CLASS, associate_rq, command, item, p_data

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
UID = read_meta(CT).sop_instance_uid
DATASET = CT.read_bytes()[read_meta(CT).dataset_offset :][:3000]
ANSWERS = {0x0000, 0xB007, 0xC000}
HANG_S = 8.0  # longer than any limit that a peer of this sort can run into
HOSTILE = 400
GROWTH_BYTES_MAX = 16 << 20

Edits = list[tuple[float, int]]

edits = st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6)
some_bytes = st.binary(max_size=200)
items = st.builds(item, st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x52, 0x54, 0x56, 0x58]), some_bytes)
pdus = st.one_of(
    st.builds(lambda kind, body: struct.pack(">BxL", kind, len(body)) + body, st.integers(0, 9), some_bytes),
    st.builds(
        lambda kind, length, body: struct.pack(">BxL", kind, length) + body,
        st.integers(1, 7),
        st.integers(0, 1 << 32 - 1),
        some_bytes,
    ),
    st.builds(p_data, st.integers(0, 255), some_bytes, st.integers(0, 255)),
    st.builds(
        lambda uid, field: p_data(3, command(uid, field=field)),
        st.text("0123./\0 x", max_size=70),
        st.integers(0, 0xFFFF),
    ),
    st.builds(lambda body: p_data(2, body), some_bytes),
    st.just(p_data(3, command(UID)) + p_data(2, DATASET)),
)


def edited(data: bytes, edits: Edits) -> bytes:
    """Change bytes, each at its share of the length."""
    changed = bytearray(data)
    for place, value in edits:
        changed[int(place * len(changed))] = value
    return bytes(changed)


@pytest.fixture
async def house(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[House]:
    async with running(House(tmp_path), Settings(name="imaging", listen=Address("127.0.0.1", 0))) as house:
        yield house
    events = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert [event for event in events if ".crashed" in event or ".failed" in event] == []


def say(house: House, *parts: bytes) -> None:
    """Send and say no more; the listener must end the connection, in time, whatever it was told."""
    with house.raw() as sock:
        sock.settimeout(HANG_S)
        try:
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except TimeoutError:
            raise AssertionError("the listener hangs") from None
        except OSError:
            return  # it was cut off


async def is_well(house: House) -> None:
    def store_one() -> int:
        with associate(house) as sock:
            return store(sock, UID, DATASET)[0]

    assert await asyncio.to_thread(store_one) in ANSWERS
    assert house.status.state is LinkState.UP
    await until(lambda: not association_threads() and house.incoming() == [])


fuzzing = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@fuzzing
@given(edits=edits, more=st.lists(items, max_size=4), cut=st.floats(0, 1))
async def test_no_association_request_stops_the_listener(
    house: House, edits: Edits, more: list[bytes], cut: float
) -> None:
    body = edited(associate_rq((CT_CLASS, EXPLICIT))[6:], edits) + b"".join(more)
    request = struct.pack(">BxL", 1, len(body)) + body

    await asyncio.to_thread(say, house, request[: int(cut * len(request)) + 1])
    await is_well(house)


@fuzzing
@given(script=st.lists(pdus, max_size=6), cut=st.floats(0, 1))
async def test_no_sequence_of_pdus_stops_the_listener(house: House, script: list[bytes], cut: float) -> None:
    said = b"".join(script)

    await asyncio.to_thread(say, house, associate_rq((CT_CLASS, EXPLICIT)), said[: int(cut * len(said)) + 1])
    await is_well(house)


@fuzzing
@given(edits=edits, cut=st.floats(0, 1), soup=some_bytes, syntax=st.sampled_from(UNCOMPRESSED))
async def test_every_data_set_is_answered(house: House, edits: Edits, cut: float, soup: bytes, syntax: str) -> None:
    dataset = edited(DATASET, edits)[: int(cut * len(DATASET))] + soup

    def store_it() -> int:
        with associate(house, (CT_CLASS, syntax)) as sock:
            sock.settimeout(HANG_S)
            return store(sock, UID, dataset)[0]

    assert await asyncio.to_thread(store_it) in ANSWERS
    assert len(list(house.spool.names())) == len(house.intake.inputs)


def hostile(draw: random.Random) -> list[bytes]:
    """One connection's worth of trouble."""
    request = associate_rq((CT_CLASS, EXPLICIT))
    begun = p_data(3, command(UID)) + p_data(0, draw.randbytes(draw.randrange(60_000)))
    return draw.choice(
        [
            [draw.randbytes(draw.randrange(500))],
            [request[: draw.randrange(len(request))]],
            [edited(request, [(draw.random(), draw.randrange(256)) for _ in range(8)])],
            [struct.pack(">BxL", 1, 0xFFFFFFFF) + bytes(5000)],
            [request, begun],
            [request, begun, p_data(2, b"x")],
            [request, struct.pack(">BxL4x", 7, 4)],
            [request, struct.pack(">BxL4x", 5, 4)],
            [request, p_data(3, draw.randbytes(400))],
            [request, p_data(3, command("../../x")) + p_data(2, DATASET)],
            [request, p_data(3, command(UID, field=0x20)) + p_data(2, draw.randbytes(900))],
            [request, p_data(1, bytes(60_000)) * 2],
        ]
    )


def open_files() -> int:
    """How many files and sockets are open, without those that the Spool makes ahead of need."""
    count = 0
    for number in list(Path("/proc/self/fd").iterdir()):
        try:
            count += "/incoming/" not in str(number.readlink())
        except FileNotFoundError:  # the one of the listing
            continue
    return count


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_hundreds_of_hostile_connections_leave_nothing_behind(house: House) -> None:
    draw = random.Random(3)

    def attack(count: int) -> None:
        for _ in range(count):
            say(house, *hostile(draw))

    await asyncio.to_thread(attack, HOSTILE // 4)  # whatever is made once has been made
    await is_well(house)
    before = (threading.active_count(), open_files(), resident_bytes())

    await asyncio.gather(*(asyncio.to_thread(attack, HOSTILE // 4) for _ in range(4)))
    await is_well(house)
    threads, files, resident = threading.active_count(), open_files(), resident_bytes()

    assert threads <= before[0] + 4  # those of asyncio.to_thread
    assert files <= before[1] + 1  # the pool of files may just be filled
    assert resident - before[2] < GROWTH_BYTES_MAX
    assert len(list(house.spool.names())) == len(house.intake.inputs)
    assert house.status.connections == 0
