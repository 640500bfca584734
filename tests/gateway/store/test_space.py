import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.space import Space

MIB = 1 << 20


class Room:
    """A file system whose free bytes are set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100 * MIB
        monkeypatch.setattr(Space, "free_bytes", lambda space: self.free)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    yield Room(monkeypatch)


def test_intake_stops_below_the_watermark_and_resumes_a_little_above(tmp_path: Path, room: Room) -> None:
    space = Space(tmp_path, reserve=0, stop_intake_below=20 * MIB)
    seen = []
    for free in (20 * MIB, 20 * MIB - 1, 20 * MIB, int(20.9 * MIB), 21 * MIB, 20 * MIB):
        room.free = free
        seen.append(space.look())

    assert seen == [False, True, True, True, False, False]


def test_the_reserve_is_held_where_there_is_room_beyond_the_watermark(tmp_path: Path, room: Room) -> None:
    space = Space(tmp_path, reserve=2 * MIB, stop_intake_below=20 * MIB)
    room.free = 22 * MIB
    space.look()
    assert not space.reserve_held
    room.free = 22 * MIB + 1
    space.look()

    assert space.reserve_held
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 2 * MIB  # real blocks, not a hole


def test_a_reserve_file_half_made_is_made_again(tmp_path: Path, room: Room) -> None:
    (tmp_path / "reserve").touch()
    space = Space(tmp_path, reserve=MIB, stop_intake_below=0)
    assert not space.reserve_held
    space.look()

    assert space.reserve_held


def test_freeing_the_reserve_gives_the_room_back_and_stops_intake(tmp_path: Path, room: Room) -> None:
    space = Space(tmp_path, reserve=MIB, stop_intake_below=20 * MIB)
    space.look()
    space.free_reserve()

    assert not (tmp_path / "reserve").exists()
    assert space.low
    space.free_reserve()  # nothing left to free: no fault
    assert space.look() is False  # there is room
    assert space.reserve_held


def test_no_room_for_the_reserve_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    space = Space(tmp_path, reserve=MIB, stop_intake_below=0)
    space.hold_reserve()

    assert not (tmp_path / "reserve").exists()


def test_nothing_is_taken_ahead_of_need_that_would_stop_intake(tmp_path: Path, room: Room) -> None:
    space = Space(tmp_path, reserve=MIB, stop_intake_below=20 * MIB)
    room.free = 42 * MIB
    assert not space.spares(20 * MIB)

    room.free = 43 * MIB
    assert space.spares(20 * MIB)
