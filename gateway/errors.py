"""Failures, one type per reaction.

A caller never reads an error's text to decide what to do; the type decides. Texts say the place, what was
expected and what came, and never carry patient data.
"""


class GatewayError(Exception):
    """Any failure that this product knows by name."""


class ConfigError(GatewayError):
    """The configuration is at fault: all faults, one text each, are printed, exit status 78."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class FrameError(GatewayError):
    """Bytes broke the framing rules: the Session refuses, the Device repeats."""


class ContentError(GatewayError):
    """A sound frame holds what we cannot read: it is kept raw and quarantined."""


class LinkError(GatewayError):
    """A Stream failed: close, back off with jitter, reopen."""


class TemporaryError(GatewayError):
    """A Destination answered "not now"; `retry_after_s` is its own hint, where it gave one."""

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StoreError(GatewayError):
    """Nothing could be put on disk: input is refused in the protocol's own word, and an alarm stands."""


def place_of(error: BaseException) -> str:
    """Return where a bug showed, file and line: its text may hold what a Device sent, so it is not for the log."""
    trace = error.__traceback__
    place = "unknown"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
