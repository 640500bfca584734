"""The clocks of Devices: what they print, as a naive datetime in the Device's own local time."""

from datetime import datetime


def read_clock(text: str, *shapes: str) -> datetime | None:
    """Return the time that a text shows in one of the shapes of `strptime`; None where it is no time (`--/--/--`)."""
    for shape in shapes:
        try:
            return datetime.strptime(" ".join(text.split()), shape)
        except ValueError:
            continue
    return None
