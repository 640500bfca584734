"""What of a file goes out, and where it begins and ends, also beyond what 32 bits can say."""

from itertools import islice
from pathlib import Path

import pytest

from gateway.net.dicom_file import CHUNK_BYTES, BegunFile, FileOut, room_for_file

FRAGMENT = 16_378
HEAD = 12  # of a P-DATA-TF PDU with one fragment (PS3.8, 9.3.5)


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Five gigabytes of nothing, and ten bytes."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.seek(5 << 30)
        file.write(b"0123456789")
    return path


def test_a_data_set_may_begin_beyond_four_gigabytes(huge: Path) -> None:
    begun = BegunFile(FileOut(huge, (5 << 30) + 1, 9, context_id=3, fragment=FRAGMENT), room_for_file())

    sent = b"".join(begun.first)
    begun.close()

    assert begun.complete
    assert sent[HEAD:] == b"123456789\0"


def test_a_data_set_may_be_longer_than_four_gigabytes(huge: Path) -> None:
    size = (5 << 30) + 10
    out = FileOut(huge, 0, size, context_id=3, fragment=FRAGMENT)

    begun = BegunFile(out, room_for_file())
    some = sum(len(part) for parts in [begun.first, *islice(begun.more, 2)] for part in parts)
    begun.close()

    assert not begun.complete
    assert 2 * CHUNK_BYTES < some < out.sent_bytes
    assert out.sent_bytes == size + HEAD * -(-size // FRAGMENT)
