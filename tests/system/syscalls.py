"""System-call traces of the agent, read: what was written, what was synced, what was sent, and in which order.

strace prints a call's start before the kernel runs it and its end after it returned. So where the line of a sync's end
stands before the line of a send's start, the sync had returned before the first byte left.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "pwrite64,pwritev,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg,fsync,fdatasync,sync_file_range,"
    "link,linkat,rename,renameat,renameat2,ftruncate,fallocate,copy_file_range,sendfile"
)
STRING_BYTES_MAX = 70_000

_LINE = re.compile(r"(\d+) +\S+ (.*)")
_STARTED = re.compile(r"(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_WHOLE = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_REST = re.compile(r"(.*)\) += (-?\d+)")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")

_WRITES = ("pwrite64", "pwritev", "write", "writev", "copy_file_range", "sendfile")
_SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile")
_RECEIVES = ("read", "readv", "recvfrom", "recvmsg")
_SYNCS = ("fsync", "fdatasync")
_LINKS = ("link", "linkat", "rename", "renameat", "renameat2")


def strace(output: Path) -> list[str]:
    """Return the command that runs a program and traces it."""
    return ["strace", "-f", "-tt", "-yy", "-xx", "-s", str(STRING_BYTES_MAX), "-o", str(output), "-e", f"trace={CALLS}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished system call: places of its start and end in the trace, and what of it matters here."""

    name: str
    begun: int
    ended: int
    result: int
    target: str  # of the first descriptor: a path, or a socket's two ends
    data: bytes  # its strings
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One acknowledgement that left too early, and the write it ran ahead of."""

    acknowledged_at: int
    missing: str


def read_trace(file: Path) -> list[Call]:
    """Return the finished calls in the order of their starts."""
    return sorted(_calls(file), key=lambda call: call.begun)


def _calls(file: Path) -> Iterator[Call]:
    open_calls: dict[str, tuple[int, str, str]] = {}
    with file.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines):
            split = _LINE.match(line.rstrip("\n"))
            if split is None:
                continue
            thread, text = split.groups()
            if started := _STARTED.match(text):
                open_calls[thread] = (number, started[1], started[2])
            elif resumed := _RESUMED.match(text):
                rest = _REST.match(resumed[2])
                begun = open_calls.pop(thread, None)
                if rest is not None and begun is not None:
                    yield _call(begun[1], begun[0], number, begun[2] + rest[1], int(rest[2]))
            elif whole := _WHOLE.match(text):
                yield _call(whole[1], number, number, whole[2], int(whole[3]))


def _call(name: str, begun: int, ended: int, arguments: str, result: int) -> Call:
    target = re.search(r"<((?:->|[^>])*)>", arguments.split(", ", 1)[0])
    strings = re.findall(r'"([^"]*)"', arguments)
    return Call(
        name=name,
        begun=begun,
        ended=ended,
        result=result,
        target="" if target is None else _unhex(target[1]).decode("utf-8", "replace"),
        data=b"".join(_unhex(string) for string in strings),
        text=arguments[:200],
    )


def _unhex(text: str) -> bytes:
    return _HEX.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("latin-1"), text).encode("latin-1")


class Trace:
    """A trace and what must hold in it."""

    def __init__(self, calls: list[Call], data_dir: Path) -> None:
        self._calls = calls
        self._data_dir = data_dir
        self._database_log = str(data_dir / "gateway.db-wal")
        self._incoming = str(data_dir / "spool" / "incoming")
        self._objects = str(data_dir / "spool" / "objects")

    def answer_to(self, port: int, key: bytes) -> Call:
        """Return the first send on a connection after the receipt of an input with these bytes in it."""
        came = next(
            call for call in self._calls if call.name in _RECEIVES and f":{port}->" in call.target and key in call.data
        )
        return next(
            call
            for call in self._calls
            if call.name in _SENDS and call.target == came.target and call.begun > came.begun and call.result > 0
        )

    def sent(self, port: int, containing: bytes) -> Call:
        """Return the first send on a connection to our port with these bytes in it."""
        return next(
            call
            for call in self._calls
            if call.name in _SENDS and f":{port}->" in call.target and containing in call.data
        )

    def without(self, name: str, target: str) -> "Trace":
        """Return the trace as it were had these calls not been made."""
        left = [call for call in self._calls if not (call.name == name and call.target.startswith(target))]
        return Trace(left, self._data_dir)

    def log_faults(self, key: bytes, answer: Call) -> list[Fault]:
        """Return what is wrong with an input's log writes: `key` is bytes that stand in its row.

        The writes that carry the row, and every write to the log after them and before the answer, must have been
        followed by a sync of the log that returned before the answer was begun.
        """
        writes = [call for call in self._writes_to(self._database_log) if call.ended < answer.begun]
        carrying = [call for call in writes if key in call.data]
        if not carrying:
            return [Fault(acknowledged_at=answer.begun, missing="no write to the log carries the input")]
        commit = max(call.ended for call in writes if self._one_commit(carrying[0], call))
        return self._unsynced(self._database_log, commit, answer)

    def file_faults(self, key: bytes, answer: Call) -> list[Fault]:
        """Return what is wrong with an object's file and its name in the folder of objects."""
        writes = [
            call
            for call in self._calls
            if call.name in _WRITES and call.target.startswith(self._incoming) and call.ended < answer.begun
        ]
        names = {call.target for call in writes if key in call.data}
        if len(names) != 1:
            return [Fault(acknowledged_at=answer.begun, missing=f"{len(names)} files carry the input, expected one")]
        (name,) = names
        written = max(call.ended for call in writes if call.target == name)
        faults = self._unsynced(name, written, answer)
        links = [
            call
            for call in self._calls
            if call.name in _LINKS and name.encode() in call.data and self._objects.encode() in call.data
        ]
        if not links or links[0].ended > answer.begun:
            return [*faults, Fault(acknowledged_at=answer.begun, missing="the file's final name")]
        return faults + self._unsynced(self._objects, links[0].ended, answer)

    def _writes_to(self, path: str) -> list[Call]:
        return [call for call in self._calls if call.name in _WRITES and call.target == path]

    def _one_commit(self, first: Call, other: Call) -> bool:
        """Tell whether no sync of the log stands between two writes: they belong to one transaction."""
        return other.begun >= first.begun and not any(
            first.ended < call.begun and call.ended < other.begun for call in self._syncs_of(self._database_log)
        )

    def _syncs_of(self, path: str) -> list[Call]:
        return [call for call in self._calls if call.name in _SYNCS and call.target == path and call.result == 0]

    def _unsynced(self, path: str, written: int, answer: Call) -> list[Fault]:
        if any(written < call.begun and call.ended < answer.begun for call in self._syncs_of(path)):
            return []
        return [Fault(acknowledged_at=answer.begun, missing=f"a sync of {path} after line {written}")]
