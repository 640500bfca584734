"""An independent program reads our file: sqlite-utils, with the SQLite of Python, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from tests.gateway.store.stores import incoming, keep, open_store


def test_sqlite_utils_reads_the_store_beside_the_writer(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keep(store, incoming(b"MSH|one"), "ris", "lab")
    query = "SELECT m.raw, count(d.id) AS owed FROM message m JOIN delivery d ON d.message = m.id GROUP BY m.id"
    program = Path(sys.executable).with_name("sqlite-utils")
    told = subprocess.run([program, tmp_path / "gateway.db", query], capture_output=True, check=True, timeout=30).stdout
    store.close()

    (row,) = json.loads(told)
    assert row["owed"] == 2
    assert row["raw"] == {"$base64": True, "encoded": "TVNIfG9uZQ=="}
