"""The properties of a PUBLISH, held against paho's own encoder, which shares no code with ours."""

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.senders.mqtt_link import Publication, packed_properties

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@given(
    kind=texts,
    utf8=st.booleans(),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    user=st.dictionaries(texts, texts, max_size=4),
)
def test_properties_are_those_that_paho_makes(
    kind: str, utf8: bool, expiry_s: int | None, user: dict[str, str]
) -> None:
    theirs = Properties(PacketTypes.PUBLISH)
    if utf8:
        theirs.PayloadFormatIndicator = 1
    if expiry_s is not None:
        theirs.MessageExpiryInterval = expiry_s
    theirs.ContentType = kind
    if user:
        theirs.UserProperty = list(user.items())

    ours = packed_properties(
        Publication(topic="t", body=b"", content_type=kind, utf8=utf8, expiry_s=expiry_s, user=user)
    )

    assert _elements(ours) == _elements(theirs.pack())


def _elements(packed: bytes) -> tuple[int, bytes]:
    return len(packed), bytes(sorted(packed))
