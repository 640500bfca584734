import socket
from pathlib import Path

import pytest

from gateway.notify import notify, watchdog_interval_s


def test_states_go_to_the_socket_in_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(str(tmp_path / "s"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        notify("READY=1", "STATUS=2 sources")

        assert manager.recv(1000) == b"READY=1\nSTATUS=2 sources"


def test_an_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind("")  # the kernel gives it an abstract name
        name = manager.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
        notify("WATCHDOG=1")

        assert manager.recv(1000) == b"WATCHDOG=1"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


@pytest.mark.parametrize(("limit", "expected_s"), [("30000000", 15.0), ("", None), ("soon", None), (None, None)])
def test_the_watchdog_is_fed_twice_in_its_time(
    limit: str | None, expected_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if limit is not None:
        monkeypatch.setenv("WATCHDOG_USEC", limit)

    assert watchdog_interval_s() == expected_s
