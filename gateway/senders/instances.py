"""Instances in a Sender's hand: what must be said of them, and the file that goes out.

What goes out is the object as it lies in the Spool, or a file that a Preparer made of it: changed by a rule, or in
another transfer syntax. Such a file is made when its turn has come and removed when it has gone, so that a lane has
no more of them than it sends at once.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import is_uid, read_header, read_meta
from gateway.model import Parcel, Receipt, Verdict

_WARNINGS = (0x0001, 0x0107, 0x0116)
_DUPLICATE = 0x0111
_LATER = (0x0213,)
_LATER_LIMITED = (0x0110, 0xFE00)

_log = logging.getLogger("gateway.senders")


class Objects(Protocol):
    """Where objects lie, and where a file may be written for a moment: the Spool."""

    def path_of(self, name: str) -> Path:
        """Return where an object lies. Raises StoreError for what is no name."""
        ...

    def new_incoming(self) -> BinaryIO:
        """Open a new, empty file. Raises StoreError."""
        ...


class Preparer(Protocol):
    """Makes of an object what a Destination is to have."""

    def changes(self, destination: str) -> bool:
        """Tell whether anything that goes to a Destination may be changed on its way; quick."""
        ...

    def prepare(self, parcel: Parcel, path: Path, transfer_syntax: str | None) -> Path | None:
        """Write what is to go out, in a transfer syntax (None: its own); None where it goes as it lies. Blocks.

        Raises ContentError for what cannot be done, TemporaryError where something else than the object is at fault,
        OSError and StoreError when the disk refuses.
        """
        ...


@dataclass(frozen=True, slots=True)
class Instance:
    """A Parcel with its file; `size` is that of the data set, which begins at `dataset_offset`."""

    parcel: Parcel
    path: Path
    dataset_offset: int
    size: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str

    @property
    def delivery_id(self) -> int:
        """Return whose Delivery it is."""
        return self.parcel.delivery.id


async def read_instances(
    parcels: Sequence[Parcel], objects: Objects
) -> tuple[list[Instance], list[Receipt], Receipt | None]:
    """Return those that can be sent, the refused ones, and the first that the disk does not give: all ends there."""
    return await asyncio.to_thread(_read_all, parcels, objects)


@asynccontextmanager
async def prepared(
    instance: Instance, preparer: Preparer | None, transfer_syntax: str | None = None
) -> AsyncGenerator[Instance, None]:
    """Give an Instance as it is to go out, in a transfer syntax (None: its own).

    Raises ContentError for what cannot be done, OSError and StoreError when the disk refuses.
    """
    destination = instance.parcel.delivery.destination
    if preparer is None or (transfer_syntax is None and not preparer.changes(destination)):
        yield instance
        return
    making = asyncio.ensure_future(asyncio.to_thread(preparer.prepare, instance.parcel, instance.path, transfer_syntax))
    made: Path | None = None
    try:
        made = await asyncio.shield(making)
        yield instance if made is None else await asyncio.to_thread(_read, instance.parcel, made)
    finally:
        if not making.done():  # cancelled: the thread goes on to its end, and its file with it
            making.add_done_callback(_discard)
        elif made is not None:
            made.unlink(missing_ok=True)


def in_study_order(instances: Sequence[Instance]) -> list[Instance]:
    """Return Instances study by study: a study stands where its first one stood, each in its order."""
    studies: dict[str, list[Instance]] = {}
    for instance in instances:
        study = instance.parcel.message.headers.get("StudyInstanceUID", "") or instance.sop_instance_uid
        studies.setdefault(study, []).append(instance)
    return [instance for study in studies.values() for instance in study]


def verdict_of(status: int) -> tuple[Verdict, str | None]:
    """Return what the status of a C-STORE means, and the words for it where it is not plain success.

    PS3.4, table B.2-1, and PS3.7, annex C; STOW-RS reports the same ones (PS3.18, table 10.5.3-2).
    """
    if status == 0:
        return Verdict.DELIVERED, None
    if status >> 12 == 0xB or status in _WARNINGS:
        return Verdict.DELIVERED, f"stored with warning {status:04X}"
    if status == _DUPLICATE:
        return Verdict.DELIVERED, f"the peer has this SOP Instance already ({status:04X})"
    if status >> 8 == 0xA7 or status in _LATER:
        return Verdict.RETRY, f"out of resources ({status:04X})"
    if status in _LATER_LIMITED:
        return Verdict.RETRY_CONTENT, f"processing failure ({status:04X})"
    return Verdict.REFUSED, f"refused with status {status:04X}{_meaning(status)}"


def _meaning(status: int) -> str:
    """Return what a refusal means, for whoever will speak to the archive's people; "" where it is their own."""
    if status >> 12 == 0xC:
        return " (cannot understand)"
    if status >> 8 == 0xA9:
        return " (data set does not match its SOP Class)"
    return {0x0122: " (SOP Class not supported)", 0x0124: " (not authorized)"}.get(status, "")


def refused(delivery_id: int, reason: str) -> Receipt:
    """Return the Receipt of what will never be taken."""
    return Receipt(delivery_id=delivery_id, verdict=Verdict.REFUSED, reason=reason)


def unmade(instance: Instance, error: Exception) -> Receipt:
    """Return the Receipt of an Instance that could not be made ready: refused for its content, later for the disk."""
    if isinstance(error, ContentError):
        return refused(instance.delivery_id, str(error))
    reason = getattr(error, "strerror", None) or str(error)
    return Receipt(delivery_id=instance.delivery_id, verdict=Verdict.RETRY, reason=f"writing the spool: {reason}")


def _read_all(parcels: Sequence[Parcel], objects: Objects) -> tuple[list[Instance], list[Receipt], Receipt | None]:
    instances, refusals = [], []
    for parcel in parcels:
        number = parcel.delivery.id
        try:
            instances.append(_read(parcel, objects.path_of(parcel.message.object_name or "")))
        except FileNotFoundError:
            refusals.append(refused(number, "the object's file is missing"))
        except (ContentError, StoreError) as error:
            refusals.append(refused(number, f"not an object that can be sent: {error}"))
        except OSError as error:
            later = Receipt(delivery_id=number, verdict=Verdict.RETRY, reason=f"reading the spool: {error.strerror}")
            return instances, refusals, later
    return instances, refusals, None


def _read(parcel: Parcel, path: Path) -> Instance:
    """Read what must be said: the data set's own UIDs where it has sound ones, else those it came with."""
    meta = read_meta(path)
    try:
        values = read_header(path).values
    except ContentError:
        values = {}
    sop_class, sop_instance = values.get("SOPClassUID", ""), values.get("SOPInstanceUID", "")
    study = values.get("StudyInstanceUID", "")
    headers = {"StudyInstanceUID": study, **parcel.message.headers} if study else parcel.message.headers
    return Instance(
        parcel=replace(parcel, message=replace(parcel.message, headers=headers)),
        path=path,
        dataset_offset=meta.dataset_offset,
        size=path.stat().st_size - meta.dataset_offset,
        sop_class_uid=sop_class if is_uid(sop_class) else meta.sop_class_uid,
        sop_instance_uid=sop_instance if is_uid(sop_instance) else meta.sop_instance_uid,
        transfer_syntax=meta.transfer_syntax,
    )


def _discard(making: "asyncio.Future[Path | None]") -> None:
    if not making.cancelled() and making.exception() is None and (made := making.result()) is not None:
        made.unlink(missing_ok=True)
