"""What a serial port knows of its line: modem lines that are up, and errors that its driver has counted (Linux).

Ptys and network ports know neither.
"""

import array
import fcntl
import struct
import termios

from gateway.status import LineState

TIOCGICOUNT = 0x545D  # asm-generic/ioctls.h; struct serial_icounter_struct of linux/serial.h: 11 counters, 9 reserved
_COUNTERS = struct.Struct("=11i36x")
_LINES = (
    ("DTR", termios.TIOCM_DTR),
    ("RTS", termios.TIOCM_RTS),
    ("CTS", termios.TIOCM_CTS),
    ("DSR", termios.TIOCM_DSR),
    ("DCD", termios.TIOCM_CAR),
    ("RI", termios.TIOCM_RNG),
)


def read_line_state(descriptor: int) -> LineState | None:
    """Ask an open port; None where it has no modem lines."""
    bits = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.TIOCMGET, bits)
    except OSError:  # a pty, or unplugged just now
        return None
    counters = bytearray(_COUNTERS.size)
    try:
        fcntl.ioctl(descriptor, TIOCGICOUNT, counters)
    except OSError:
        return state_of(bits[0], None)
    return state_of(bits[0], bytes(counters))


def state_of(bits: int, counters: bytes | None) -> LineState:
    """Return the state that the kernel's two answers describe; `counters` None where the driver keeps none."""
    lines = tuple(name for name, bit in _LINES if bits & bit)
    if counters is None:
        return LineState(lines=lines)
    *_, framing, overruns, parity, breaks, lost_in_buffer = _COUNTERS.unpack(counters)
    return LineState(
        lines=lines,
        framing_errors=framing,
        parity_errors=parity,
        overruns=overruns + lost_in_buffer,
        breaks=breaks,
    )
