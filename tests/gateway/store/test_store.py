import threading
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.store import Readers
from tests.gateway.store.stores import WAIT_S, incoming, keep, open_store


def test_closing_does_not_wait_for_a_reader_and_leaves_it_whole(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keep(store, incoming())
    reading, go = threading.Event(), threading.Event()
    found: list[object] = []

    def slow() -> int:
        reading.set()
        go.wait(WAIT_S)
        return 1

    def read() -> None:
        connection = store.readers.connection
        connection.create_scalar_function("slow", slow, 0)
        found.append(connection.execute("SELECT slow() + count(*) FROM message").get)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(WAIT_S)
    store.close()
    go.set()
    reader.join(WAIT_S)

    assert found == [2]
    assert not (tmp_path / "gateway.db.open").exists()


def test_a_closed_store_is_not_read_any_more(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()

    with pytest.raises(StoreError, match="closed"):
        _ = store.readers.connection


def test_each_thread_reads_on_its_own_connection(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    seen: list[object] = [store.readers.connection, store.readers.connection]
    thread = threading.Thread(target=lambda: seen.append(store.readers.connection))
    thread.start()
    thread.join(WAIT_S)
    store.close()

    assert seen[0] is seen[1]
    assert seen[2] is not seen[0]


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        _ = Readers(tmp_path / "gateway.db").connection
