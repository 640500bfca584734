import pytest

from gateway.imaging.negotiation import service_of


@pytest.mark.parametrize(
    ("uid", "service"),
    [
        ("1.2.840.10008.1.1", "echo"),
        ("1.2.840.10008.5.1.4.1.1.2", "storage"),  # CT
        ("1.2.840.10008.5.1.4.1.1.5", "storage"),  # retired Nuclear Medicine
        ("1.2.840.10008.5.1.4.38.1", "storage"),  # Hanging Protocol Storage
        ("1.2.840.10008.5.1.4.34.7", "storage"),  # RT Beams Delivery Instruction Storage
        ("1.2.840.10008.5.1.4.1.1.999.1", "storage"),  # newer than the dictionary
        ("1.3.46.670589.2.4.1.1", "storage"),  # private
        ("1.2.840.10008.5.1.4.31", None),  # Modality Worklist
        ("1.2.840.10008.5.1.4.39.2", None),  # Color Palette query
        ("1.2.840.10008.3.1.2.3.3", None),  # MPPS
        ("1.2.840.10008.1.20.1", None),  # Storage Commitment
        ("1.2.840.10008.1.3.10", None),  # DICOMDIR
        ("1.2.840.10008.5.1.4.1.2.1.1", None),  # Patient Root FIND
        ("1.2.840.10008.5.1.4.1.1.200.4", None),  # Protocol Approval FIND
        ("1.2.840.10008.5.1.4.99", None),  # of the standard, unknown, not storage
    ],
)
def test_storage_is_anything_that_stores_and_nothing_else(uid: str, service: str | None) -> None:
    assert service_of(uid) == service
