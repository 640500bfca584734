"""A file system that forgets what was not synced: forgetful_fs.py BACKING MOUNTPOINT [--leak P] [--seed N].

Everything lives in the memory of this process. `fsync` and `fdatasync` of a file bring its content into the backing
folder; `fsync` of a folder brings its list of names there: neither does the other's work. So killing this process with
SIGKILL is a power cut of a disk that keeps exactly what it was asked to keep. With `--leak` it also keeps some pages
and names nobody asked for, in no order, as a kernel's writeback does.

    backing/files/<number>     what was synced of a file's content
    backing/folders/<number>   what was synced of a folder's names: JSON, name -> [number, mode]; the root is 1
"""

import argparse
import errno
import json
import os
import random
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mfusepy

PAGE_BYTES = 4096
ROOT = 1


class Node:
    """A file or folder as it stands in memory; `dirty` are the pages its backing does not have."""

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.content = bytearray()
        self.names: dict[str, Node] = {}
        self.dirty: set[int] = set()
        self.changed_at = time.time()

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Backing:
    """What survives."""

    def __init__(self, folder: Path) -> None:
        self._files, self._folders = folder / "files", folder / "folders"
        for place in (self._files, self._folders):
            place.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def load(self) -> tuple[Node, int]:
        """Return the root and the highest number that was ever used."""
        root = Node(ROOT, stat.S_IFDIR | 0o755)
        nodes = {ROOT: root}
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            file = self._folders / str(folder.number)
            names = json.loads(file.read_text("utf-8")) if file.exists() else {}
            for name, (number, mode) in names.items():
                if number not in nodes:
                    nodes[number] = self._node(number, mode)
                    if nodes[number].is_folder:
                        waiting.append(nodes[number])
                folder.names[name] = nodes[number]
        used = [
            int(file.name) for place in (self._files, self._folders) for file in place.iterdir() if file.name.isdigit()
        ]
        return root, max([*used, *nodes])

    def _node(self, number: int, mode: int) -> Node:
        node = Node(number, mode)
        file = self._files / str(number)
        if file.exists():
            node.content = bytearray(file.read_bytes())
        return node

    def keep_content(self, node: Node, pages: set[int]) -> None:
        """Bring pages and the length of a file over."""
        handle = os.open(self._files / str(node.number), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for page in sorted(pages):
                os.pwrite(handle, node.content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES], page * PAGE_BYTES)
            os.ftruncate(handle, len(node.content))
        finally:
            os.close(handle)
        node.dirty -= pages

    def keep_names(self, node: Node) -> None:
        """Bring the names of a folder over."""
        names = {name: [child.number, child.mode] for name, child in node.names.items()}
        file = self._folders / str(node.number)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(names), "utf-8")
        new.replace(file)


class ForgetfulFs(mfusepy.Operations):  # type: ignore[misc]
    """The operations; one thread calls them."""

    use_ns = True

    def __init__(self, backing: Backing, leak: float, seed: int) -> None:
        self._backing = backing
        self._root, self._last_number = backing.load()
        self._leak, self._random = leak, random.Random(seed)
        self._open: dict[int, Node] = {}
        self._last_handle = 0

    # Names.

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        node = self._open[fh] if fh in self._open else self._find(path)
        when = int(node.changed_at * 1e9)
        size = 0 if node.is_folder else len(node.content)
        times = {"st_atime": when, "st_mtime": when, "st_ctime": when}
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        blocks = -(-size // 512)
        return {"st_mode": node.mode, "st_nlink": 1, "st_size": size, "st_blocks": blocks, **times, **owner}

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        yield from (".", "..", *self._find(path).names)

    def mkdir(self, path: str, mode: int) -> int:
        return self._add(path, self._new(stat.S_IFDIR | mode))

    def mknod(self, path: str, mode: int, dev: int) -> int:
        return self._add(path, self._new(mode))

    def create(self, path: str, mode: int, fi: object = None) -> int:
        node = self._new(stat.S_IFREG | stat.S_IMODE(mode))
        self._add(path, node)
        return self._handle(node)

    def link(self, target: str, source: str) -> int:
        return self._add(target, self._find(source))

    def rename(self, old: str, new: str) -> int:
        folder, name = self._parent(old)
        node = self._find(old)
        onto, new_name = self._parent(new)
        del folder.names[name]
        onto.names[new_name] = node
        self._maybe_leak_names(folder)
        self._maybe_leak_names(onto)
        return 0

    def unlink(self, path: str) -> int:
        folder, name = self._parent(path)
        self._find(path)
        del folder.names[name]
        self._maybe_leak_names(folder)
        return 0

    def rmdir(self, path: str) -> int:
        if self._find(path).names:
            raise OSError(errno.ENOTEMPTY, path)
        return self.unlink(path)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._backing.keep_names(self._find(path))
        return 0

    # Content.

    def open(self, path: str, flags: int) -> int:
        return self._handle(self._find(path))

    def release(self, path: str, fh: int) -> int:
        self._open.pop(fh, None)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._open[fh].content[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        node = self._open[fh]
        self._grow(node, offset)
        node.content[offset : offset + len(data)] = data
        self._dirty(node, offset, len(data))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        node = self._open[fh] if fh in self._open else self._find(path)
        self._grow(node, length)
        del node.content[length:]
        last = len(node.content) // PAGE_BYTES
        node.dirty = {page for page in node.dirty if page <= last} | {last}
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._grow(self._open[fh], offset + size)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        node = self._open[fh]
        self._backing.keep_content(node, set(node.dirty))
        return 0

    # What has no meaning here, but must not fail.

    def chmod(self, path: str, mode: int) -> int:
        node = self._find(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        room = os.statvfs(self._backing.folder)
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_files", "f_ffree", "f_namemax")
        return {name: getattr(room, name) for name in names}

    # Below.

    def _find(self, path: str) -> Node:
        node = self._root
        for name in path.split("/"):
            if name:
                found = node.names.get(name)
                if found is None:
                    raise OSError(errno.ENOENT, path)
                node = found
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._find(folder), name

    def _new(self, mode: int) -> Node:
        self._last_number += 1
        return Node(self._last_number, mode)

    def _add(self, path: str, node: Node) -> int:
        folder, name = self._parent(path)
        if name in folder.names:
            raise OSError(errno.EEXIST, path)
        folder.names[name] = node
        self._maybe_leak_names(folder)
        return 0

    def _handle(self, node: Node) -> int:
        self._last_handle += 1
        self._open[self._last_handle] = node
        return self._last_handle

    def _grow(self, node: Node, length: int) -> None:
        old = len(node.content)
        if length > old:
            node.content.extend(bytes(length - old))
            self._dirty(node, old, length - old)

    def _dirty(self, node: Node, offset: int, length: int) -> None:
        if not length:
            return
        pages = range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1)
        node.dirty.update(pages)
        node.changed_at = time.time()
        if self._leak:
            leaked = {page for page in pages if self._random.random() < self._leak}
            if leaked:
                self._backing.keep_content(node, leaked)

    def _maybe_leak_names(self, folder: Node) -> None:
        if self._leak and self._random.random() < self._leak:
            self._backing.keep_names(folder)


def main() -> None:
    """Mount and serve until unmounted or killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backing", type=Path)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--leak", type=float, default=0.0, help="share of unsynced pages and names kept all the same")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    operations = ForgetfulFs(Backing(arguments.backing), arguments.leak, arguments.seed)
    options = {"big_writes": True} if mfusepy.fuse_version_major == 2 else {}
    mfusepy.FUSE(
        operations,
        str(arguments.mountpoint),
        foreground=True,
        nothreads=True,
        kernel_cache=True,  # shared mappings (SQLite's -shm) live in the page cache
        hard_remove=True,
        attr_timeout=0,  # two names of one file are two files to the kernel: it must ask how long each is
        **options,
    )


if __name__ == "__main__":
    main()
