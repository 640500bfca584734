"""What a service is given: requests, and an exchange in which nothing is expected to be said."""

from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from gateway.imaging.service import Caller, Held, Request, Suboperations

NOW = datetime(2026, 1, 1, 8, tzinfo=UTC)
EXPLICIT = "1.2.840.10008.1.2.1"
CALLER = Caller(calling_ae_title="CT1", called_ae_title="GATEWAY", host="10.0.0.7", source="imaging")


class NoExchange:
    """An association in which a service sends its response and nothing else."""

    cancelled = False

    async def pending(
        self, data: bytes = b"", *, status: int = 0xFF00, suboperations: Suboperations | None = None
    ) -> None:
        raise AssertionError("no pending response is due")

    def takes(self, sop_class_uid: str) -> tuple[str, ...]:
        raise AssertionError("nothing is stored")

    async def store(self, held: Held) -> int:
        raise AssertionError("nothing is stored")


def encoded(dataset: Dataset) -> bytes:
    """Write a data set in Explicit VR Little Endian, as pydicom does."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def request(field: int, sop_class: str, sop_instance: str, dataset: Dataset | bytes, **more: object) -> Request:
    """Make a request of CT1 at the Source `imaging`."""
    values: dict[str, object] = {
        "caller": CALLER,
        "field": field,
        "message_id": 7,
        "sop_class_uid": sop_class,
        "sop_instance_uid": sop_instance,
        "transfer_syntax": EXPLICIT,
        "received_at": NOW,
        "data": dataset if isinstance(dataset, bytes) else encoded(dataset),
    }
    return Request(**(values | more))  # type: ignore[arg-type]
