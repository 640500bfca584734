"""Single inputs with a known answer, to ask the running agent how it stands."""

import itertools
import socket
import time

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import SecondaryCaptureImageStorage  # type: ignore[attr-defined]

from simulators.mllp_answers import read_heading
from tests.crash.world import World

TIMEOUT_S = 10.0
CANNOT_STORE = ("AE", "207")
OUT_OF_RESOURCES = 0xA700

_numbers = itertools.count(1)


def ask_mllp(world: World) -> tuple[str, str]:
    """Send one message; return MSA-1 and the code of ERR-3, empty where there is none."""
    control_id = f"PROBE-{time.time_ns()}-{next(_numbers)}"
    body = f"MSH|^~\\&|P|P|G|G|20260101||ADT^A01^ADT_A01|{control_id}|P|2.5\rPID|1||ZZTEST\r".encode()
    with socket.create_connection(("127.0.0.1", world.listening["mllp"]), TIMEOUT_S) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(b"\x0b" + body + b"\x1c\r")
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            if not (more := connection.recv(65536)):
                break
            answer += more
    segments = {line[:3]: line.split(b"|") for line in answer.strip(b"\x0b\x1c\r").split(b"\r")}
    assert read_heading(answer.lstrip(b"\x0b")) is not None
    code = segments[b"MSA"][1].decode()
    error = segments.get(b"ERR", [])
    return code, error[3].split(b"^")[0].decode() if len(error) > 3 else ""


def ask_dicom(world: World) -> int | None:
    """Store one small instance; return its status, None where there was no answer."""
    entity = AE(ae_title="PROBE")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT_S
    entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", world.listening["dicom"], ae_title="GATEWAY")
    if not association.is_established:
        return None
    status = association.send_c_store(_instance())
    association.release()
    return int(status.Status) if "Status" in status else None


def _instance() -> Dataset:
    instance = Dataset()
    uid = f"2.25.{time.time_ns()}"
    instance.SOPClassUID, instance.SOPInstanceUID = SecondaryCaptureImageStorage, UID(f"{uid}.3.{next(_numbers)}")
    instance.StudyInstanceUID, instance.SeriesInstanceUID = UID(f"{uid}.1"), UID(f"{uid}.2")
    instance.PatientName, instance.PatientID, instance.Modality = "ZZTEST^PROBE", "ZZ0", "OT"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    return instance
