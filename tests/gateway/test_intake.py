import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import intake as intake_module
from gateway.clock import ManualClock
from gateway.config import MllpDestination, MllpSource, Route
from gateway.errors import StoreError
from gateway.intake import Intake, flush_on
from gateway.model import Accepted, Kind
from gateway.routing import Router
from gateway.store.connection import open_reader
from gateway.store.store import Store
from gateway.typed import Address
from tests.gateway.store.stores import START, incoming, unexpected

WAIT_S = 10.0


class House:
    """An intake over a real store, whose gate the test holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refusal: str | None = None
        self.owed: list[tuple[str, ...]] = []
        self.owed_on: set[int] = set()
        self.outcomes: list[Accepted | StoreError] = []
        self.settled = asyncio.Condition()
        self.store = Store(folder, ManualClock(START), failed=unexpected, flush=flush_on(asyncio.get_running_loop()))
        router = Router(
            [Route(sources=("emr",), to=("ris", "lab"))],
            [MllpSource(name="emr", listen=Address("127.0.0.1", 1))],
            [MllpDestination(name=name, host="h", port=1) for name in ("ris", "lab")],
        )
        self.intake = Intake(self.store, router, lambda: self.refusal, self._owe)

    def _owe(self, names: tuple[str, ...]) -> None:
        self.owed.append(names)
        self.owed_on.add(threading.get_ident())

    async def stored(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.outcomes) < count:
                await asyncio.wrap_future(self.store.call(lambda connection: None))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await asyncio.to_thread(made.store.close)


async def test_an_input_is_on_disk_with_its_deliveries_when_it_is_settled(house: House) -> None:
    accepted = await house.intake.accept(incoming(b"one"))
    reader = open_reader(house.folder / "gateway.db")
    rows = reader.execute(
        "SELECT m.raw, e.name FROM delivery d JOIN message m ON m.id = d.message"
        " JOIN endpoint e ON e.id = d.destination"
    ).fetchall()
    reader.close()

    assert accepted == Accepted(message_id=1, repeated=False)
    assert rows == [(b"one", "ris"), (b"one", "lab")]
    assert house.owed == [("ris", "lab")]


async def test_settling_comes_on_the_loop_in_the_order_of_submission(house: House) -> None:
    threads: set[int] = set()
    order: list[int] = []
    for number in range(300):

        def settled(outcome: Accepted | StoreError, number: int = number) -> None:
            threads.add(threading.get_ident())
            order.append(number)
            house.outcomes.append(outcome)

        house.refusal = "too little room" if number % 7 == 3 else None  # refusals wait for their turn too
        house.intake.submit(incoming(b"%d" % number), settled)
    await house.stored(300)

    assert order == list(range(300))
    assert threads == {threading.get_ident()}
    assert house.owed_on == {threading.get_ident()}
    refused = [isinstance(outcome, StoreError) for outcome in house.outcomes]
    assert refused == [number % 7 == 3 for number in range(300)]


async def test_a_full_queue_refuses_in_order(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    go, entered = threading.Event(), threading.Event()

    def hold(connection: object) -> None:
        entered.set()
        go.wait(WAIT_S)

    held = house.store.call(hold)
    await asyncio.to_thread(entered.wait, WAIT_S)
    monkeypatch.setattr("gateway.store.writer.QUEUE_ROWS_MAX", 2)
    order: list[tuple[int, bool]] = []
    for number in range(4):
        house.intake.submit(
            incoming(b"%d" % number),
            lambda outcome, number=number: order.append((number, isinstance(outcome, Accepted))),  # type: ignore[misc]
        )
    await asyncio.sleep(0)
    assert order == []
    go.set()
    await asyncio.wrap_future(held)
    async with asyncio.timeout(WAIT_S):
        while len(order) < 4:
            await asyncio.wrap_future(house.store.call(lambda connection: None))

    assert order == [(0, True), (1, True), (2, False), (3, False)]


async def test_a_source_that_trips_over_its_answer_leaves_no_neighbour_unanswered(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def trip(outcome: Accepted | StoreError) -> None:
        raise ValueError("ZZTEST^SECRET")

    house.intake.submit(incoming(b"one"), trip)
    house.intake.submit(incoming(b"two"), house.outcomes.append)
    await house.stored(1)

    assert isinstance(house.outcomes[0], Accepted)
    assert "settle.crashed error=ValueError place=test_intake.py" in caplog.text
    assert "SECRET" not in caplog.text


async def test_a_repeat_is_accepted_again_and_owed_to_nobody_anew(house: House) -> None:
    first = await house.intake.accept(incoming(b"one", "77"))
    again = await house.intake.accept(incoming(b"one", "77", received_at=START + timedelta(minutes=1)))

    assert again == Accepted(message_id=first.message_id, repeated=True)
    assert house.owed == [("ris", "lab")]


async def test_a_closed_gate_refuses_says_why_and_opens_again(house: House) -> None:
    house.refusal = "too little room on the disk"
    assert house.intake.refusing == "too little room on the disk"
    with pytest.raises(StoreError, match="too little room"):
        await house.intake.accept(incoming())
    with pytest.raises(StoreError, match="too little room"):
        await asyncio.to_thread(house.intake.accept_blocking, incoming())
    house.refusal = None

    assert house.intake.refusing is None
    assert (await house.intake.accept(incoming())).message_id == 1


async def test_a_thread_waits_for_the_disk_too(house: House) -> None:
    accepted = await asyncio.to_thread(house.intake.accept_blocking, incoming(b"one", "77"))
    again = await asyncio.to_thread(house.intake.accept_blocking, incoming(b"one", "77"))

    assert (accepted.repeated, again.repeated) == (False, True)
    assert house.owed == [("ris", "lab")]
    assert house.owed_on == {threading.get_ident()}


async def test_a_thread_gives_up_after_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "ACCEPT_TIMEOUT_S", 0.01)
    go = threading.Event()
    held = house.store.call(lambda connection: go.wait(WAIT_S))

    with pytest.raises(StoreError, match="did not commit within"):
        await asyncio.to_thread(house.intake.accept_blocking, incoming())
    go.set()
    await asyncio.wrap_future(held)


async def test_what_is_quarantined_is_kept_and_owed_to_nobody(house: House) -> None:
    await house.intake.accept(incoming(b"junk", kind=Kind.UNREADABLE, quarantined="no MSH"))

    assert house.owed == []
    assert house.store.readers.connection.execute("SELECT count(*) FROM message").get == 1
    assert house.store.readers.connection.execute("SELECT count(*) FROM delivery").get == 0


async def test_one_who_gave_up_waiting_disturbs_nobody(house: House) -> None:
    task = asyncio.create_task(house.intake.accept(incoming(b"one")))
    await asyncio.sleep(0)
    task.cancel()

    assert (await house.intake.accept(incoming(b"two"))).message_id == 2


async def test_commits_after_the_loop_has_gone_are_survived(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    flush = flush_on(loop)
    loop.close()
    flush([])
