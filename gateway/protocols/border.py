"""The one border at which a driver's own code is called.

A frame or line that is sound goes to the driver's function. Whatever that function raises, the bytes are kept: the
Reading then carries the fault and is quarantined.
"""

from collections.abc import Callable

from gateway.errors import ContentError
from gateway.model import Reading, Result

Reader = Callable[[bytes], tuple[Result, ...]]


def reading_of(raw: bytes, content: bytes, read: Reader) -> Reading:
    """Return the Reading of sound bytes: with the Results that `read` made of `content`, or with its fault."""
    try:
        return Reading(raw=raw, results=read(content))
    except ContentError as error:
        return Reading(raw=raw, fault=str(error))
    except Exception as error:  # noqa: BLE001 - the border: a bug in a mapping must never cost the data
        return Reading(raw=raw, fault=f"driver failed: {type(error).__name__}")
