from dataclasses import replace
from datetime import UTC, datetime

from gateway.assembly import Origins
from gateway.config import GatewaySettings
from gateway.formats.origin import device_id_of
from gateway.model import Kind, Message

MESSAGE = Message(
    id=1,
    source="monitor",
    kind=Kind.OBSERVATIONS,
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    size=1,
    digest=b"",
    peer=None,
    identifier=None,
    observed_at=None,
    raw=b"x",
    object_name=None,
    result=None,
    headers={"bed": "ICU^^12", "device_id": "0201F3FFFE00A417"},
    quarantined=None,
)


def test_a_message_keeps_the_bed_and_device_it_was_received_with() -> None:
    origin = Origins(GatewaySettings(name="ward", facility="GENERAL"))(MESSAGE)

    assert (origin.bed, origin.device_id, origin.source) == ("ICU^^12", "0201F3FFFE00A417", "monitor")
    assert (origin.gateway, origin.facility) == ("ward", "GENERAL")


def test_a_source_without_bed_and_device_id_has_a_derived_id_and_no_bed() -> None:
    origin = Origins(GatewaySettings(name="ward"))(replace(MESSAGE, headers={}))

    assert (origin.bed, origin.device_id) == ("", device_id_of("ward", "monitor"))
