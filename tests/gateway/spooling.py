"""Objects in a Spool, put there as the intake does."""

from dataclasses import dataclass

from gateway.spool import Draft, Spool, content_hash


@dataclass(frozen=True, slots=True)
class Kept:
    """An object as its row would tell of it: name, size in bytes, digest of its data set."""

    name: str
    size: int
    digest: bytes


def draft_of(spool: Spool, data: bytes) -> Draft:
    """Return what has come and is on the disk, but neither committed nor discarded."""
    draft = spool.begin()
    draft.write(memoryview(data), last=True)
    draft.sync()
    return draft


def keep_object(spool: Spool, data: bytes, dataset_offset: int = 0) -> Kept:
    """Keep a whole file whose data set begins at an offset."""
    draft = draft_of(spool, data)
    spool.committed(draft)
    return Kept(name=draft.name, size=len(data), digest=content_hash(data[dataset_offset:]).digest())
