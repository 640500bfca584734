"""The digest of an HL7 message: by it a repeat is told, and bytes that the disk has changed."""

from hashlib import sha256

from gateway.errors import ContentError
from gateway.model import Message

DIGEST_BYTES = 16


def digest_of(content: bytes) -> bytes:
    """Return the digest of a message's bytes: the first 16 of SHA-256."""
    return sha256(content).digest()[:DIGEST_BYTES]


def intact(message: Message, content: bytes) -> bytes:
    """Return what is stored of an HL7 message. Raises ContentError where it is not what came: it must not go on."""
    if digest_of(content) != message.digest:
        raise ContentError("the stored bytes are not those that came: the disk has changed them")
    return content
