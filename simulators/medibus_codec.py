"""The bytes of MEDIBUS as a Device writes and reads them (Protocol Definition 4.03); shares no code with any driver."""

from dataclasses import dataclass, field

ESC, SOH, CR, NAK = 0x1B, 0x01, 0x0D, 0x15


def frame(start: int, code: int, data: bytes = b"") -> bytes:
    """Return a command (ESC) or response (SOH): everything is summed, the low byte follows as two hex digits."""
    head = bytes([start, code]) + data
    total = 0
    for byte in head:
        total += byte
    return head + f"{total % 256:02X}".encode("ascii") + bytes([CR])


def damaged(whole: bytes) -> bytes:
    """Return a frame whose last checksum digit is another."""
    return whole[:-2] + (b"0" if whole[-2:-1] != b"0" else b"1") + whole[-1:]


@dataclass
class HostEar:
    """What the host says: slow frames, and sync commands of the real-time protocol."""

    slow: bytearray = field(default_factory=bytearray)
    fast: bytearray = field(default_factory=bytearray)

    def hear(self, data: bytes) -> list[tuple[int, int, bytes, bool]]:
        """Return the frames that ended: start, code, argument or data, and whether the checksum holds."""
        frames = []
        for byte in data:
            if byte >= 0x80:
                self.fast.append(byte)
            elif byte in (ESC, SOH):
                self.slow = bytearray([byte])
            elif byte == CR:
                if len(self.slow) >= 4:
                    body = bytes(self.slow)
                    sound = frame(body[0], body[1], body[2:-2]) == body + b"\r"
                    frames.append((body[0], body[1], body[2:-2], sound))
                self.slow = bytearray()
            elif self.slow:
                self.slow.append(byte)
        return frames

    def enabled(self) -> list[bool] | None:
        """Return which of 12 streams the last whole sync sequence wants; None when none ended since."""
        end = self.fast.rfind(b"\xc0\xc0")
        start = self.fast.rfind(b"\xd0", 0, end) if end > 0 else -1
        if start < 0:
            return None
        sequence, self.fast = bytes(self.fast[start + 1 : end]), self.fast[end + 2 :]
        wanted = [False] * 12
        for code, argument in zip(sequence[::2], sequence[1::2], strict=False):
            if 0xC1 <= code <= 0xC3:
                for bit in range(4):
                    wanted[(code - 0xC1) * 4 + bit] = bool(argument >> bit & 1)
        return wanted


def curve_record(values: dict[int, int], mark: bool | None = None) -> bytes:
    """Return one record: stream number (0 to 11) to bin; `mark` True begins an inspiration, False an expiration."""
    sync = 0xD0
    for stream in values:
        if stream < 4:
            sync |= 1 << stream
    record = bytearray([sync])
    if mark is not None:
        record += bytes([0xC6, 0xC0 if mark else 0xC1])
    for stream in sorted(values):
        value = values[stream]
        record += bytes([0x80 | value % 64, 0x80 | value // 64])
    return bytes(record)


def number(value: float, decimals: int, width: int = 4) -> bytes:
    """Return a value right-aligned with blanks in front; fewer decimals where it would not fit."""
    for places in range(decimals, -1, -1):
        text = f"{value:.{places}f}"
        if len(text) <= width:
            return text.rjust(width).encode("ascii")
    return b" " * width


def text_message(code: str, text: str) -> bytes:
    """Return one text message: code, length above 30h, text, ETX."""
    return code.encode("ascii") + bytes([0x30 + len(text)]) + text.encode("ascii") + b"\x03"


def alarm(code: str, priority: int, phrase: str) -> bytes:
    """Return one alarm: priority above 30h, code, phrase of 12 characters."""
    return bytes([0x30 + priority]) + code.encode("ascii") + phrase.ljust(12).encode("ascii")


def curve_scale(code: str, interval_us: int, low: float, high: float, bins: int) -> bytes:
    """Return one signal of a real-time configuration."""
    return f"{code}{interval_us:>8}{_limit(low)}{_limit(high)}{bins:03X}".encode("ascii")


def _limit(value: float) -> str:
    """Five characters; the minus stands in front of the blanks, as in the manual's example."""
    return f"-{abs(value):>4g}" if value < 0 else f"{value:>5g}"
