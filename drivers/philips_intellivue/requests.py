"""What a client says: association, event result, polls, the wave list, release (sheet sections 6, 9, 10, 12.6).

Every function returns user data; on a serial line it is framed (`framing.py`), on a LAN it is the datagram.
"""

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct, error, pack

from drivers.philips_intellivue.messages import (
    ASSOCIATION_ACCEPT,
    DATA,
    MDS_CREATED,
    POLL,
    POLL_EXTENDED,
    Command,
    Kind,
)
from drivers.philips_intellivue.values import attributes, elements
from gateway.errors import ContentError

MTU_SERIAL, MTU_LAN = 1000, 1364  # guide p. 71: at most 1364 on a LAN; serial monitors answered 996
DYNAMIC_OBJECTS = 0x60000000  # objects may come and go

CLASS_MDS, CLASS_NUMERICS, CLASS_WAVES, CLASS_ENUMERATIONS = 0x0021, 0x0006, 0x0009, 0x0005
CLASS_PATIENT, CLASS_ALERTS = 0x002A, 0x0036
GROUP_ALL, GROUP_VALUES, GROUP_ALARMS, GROUP_PATIENT = 0x0000, 0x0803, 0x0801, 0x0807
GROUP_APPLICATION, GROUP_PRODUCTION, GROUP_DYNAMIC, GROUP_STATIC = 0x080A, 0x080C, 0x0810, 0x0811
WAVE_LIST = 0xF23A

_SESSION = bytes.fromhex("0508130100160102800014020002")
_PRESENTATION = bytes.fromhex(
    "3180a0808001010000a280a003000001a4803080020101060452010001308006025101000000003080020102060c2a8648ce1402"
    "0100000001013080060c2a8648ce140201000000020100000000000061803080020101a0806080a180060c2a8648ce1402010000"
    "0003010000be802880060c2a8648ce140201000000010102010281"
)
_TRAILER = bytes(16)
_USER_INFO = bytes.fromhex("be802880")
_USER_INFO_ENDS = (bytes.fromhex("02010281"), bytes.fromhex("81"))
_POLL_SUPPORT, _POLL_EXTENSION = 0x0001, 0xF001
_TIME_PERIOD = 0xF13E
_MODIFY_REPLACE = 0
_TEXT_ID = 0x00020000  # of standard measurements: the physio id with its partition
_NO_BANDWIDTH = 0xFFFFFFFF
_PROFILE = Struct(">IIIIII")

RELEASE_REQUEST_DATA = bytes.fromhex("0918c11661803080020101a08062808001000000000000000000")
RELEASE_RESPONSE_DATA = b"\x0a" + RELEASE_REQUEST_DATA[1:].replace(b"\x62\x80\x80", b"\x63\x80\x80")
ABORT_DATA = bytes.fromhex(
    "192e110103c129a080a0803080020101060251010000000061803080020101a080648080010100000000000000000000"
)


class Extension(IntFlag):
    """Options of the extended poll profile (guide p. 71)."""

    NUMERICS_1_S = 0x80000000
    NUMERICS_12_S = 0x40000000
    NUMERICS_60_S = 0x20000000
    NUMERICS_300_S = 0x10000000
    WAVES = 0x08000000
    ENUMERATIONS = 0x04000000
    NUMERICS_LIST = 0x02000000


NUMERICS = Extension.NUMERICS_1_S | Extension.NUMERICS_12_S | Extension.NUMERICS_60_S | Extension.NUMERICS_300_S


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the monitor granted: shortest poll period in seconds, MTUs in bytes, extended polls."""

    poll_period_s: float
    mtu_receive: int
    mtu_transmit: int
    options: int
    extensions: Extension

    @property
    def timeout_s(self) -> float:
        """Return after what silence of ours the monitor ends the association (guide p. 70)."""
        if self.poll_period_s < 3.3:
            return 10.0
        return min(3 * self.poll_period_s, 130.0) if self.poll_period_s <= 43 else 130.0


def association_request(extensions: Extension, mtu: int) -> bytes:
    """Return an Association Request that asks for these extended polls (guide p. 67 to 72)."""
    profile = _PROFILE.pack(0x80000000, 0, mtu, mtu, _NO_BANDWIDTH, DYNAMIC_OBJECTS)
    profile += _list(_attribute(_POLL_EXTENSION, pack(">II", extensions, 0)))
    user = pack(">IIIII", 0x80000000, 0x40000000, 0, 0x80000000, 0x20000000)
    user += pack(">HH", 0, 0) + _list(_attribute(_POLL_SUPPORT, profile))  # the option list is empty
    presentation = _PRESENTATION + bytes((len(user),)) + user + _TRAILER
    session = _SESSION + b"\xc1" + bytes((len(presentation),)) + presentation
    return b"\x0d" + bytes((len(session),)) + session


def association_accepted(content: bytes) -> Accepted:
    """Read an Association Accept. Raises ContentError when it is cut short."""
    at = content.find(_USER_INFO)
    if not content or content[0] != ASSOCIATION_ACCEPT or at < 0:
        raise ContentError("an Association Accept without user information")
    rest = content[at + len(_USER_INFO) :]
    end = next((end for end in _USER_INFO_ENDS if rest.startswith(end)), None)
    if end is None or len(rest) < len(end) + 1:
        raise ContentError("an Association Accept without user information")
    return _granted(_after_length(rest[len(end) :]))


def mds_created(invoke: int, ticks: int) -> bytes:
    """Return the result of an MDS Create Event: invoke id and event time as they came."""
    body = pack(">HHHIHH", CLASS_MDS, 0, 0, ticks, MDS_CREATED, 0)
    return _data(Kind.RESULT, invoke, Command.CONFIRMED_EVENT, body)


def poll(invoke: int, number: int, polled: int, group: int) -> bytes:
    """Return a single poll of a class and an attribute group."""
    return _action(invoke, POLL, pack(">HHHH", number, 1, polled, group))


def poll_extended(invoke: int, number: int, polled: int, group: int, period_ticks: int) -> bytes:
    """Return an extended poll: results come by themselves for `period_ticks` eighths of a millisecond."""
    asked = pack(">HHHH", number, 1, polled, group)
    return _action(invoke, POLL_EXTENDED, asked + _list(_attribute(_TIME_PERIOD, pack(">I", period_ticks))))


def get_wave_list(invoke: int) -> bytes:
    """Return a GET of the wave priority list."""
    return _data(Kind.INVOKE, invoke, Command.GET, _mds_scope() + pack(">HHH", 1, 2, WAVE_LIST))


def set_wave_list(invoke: int, physios: tuple[int, ...]) -> bytes:
    """Return a SET of the wave priority list, replacing what stood there."""
    texts = b"".join(pack(">I", _TEXT_ID | physio) for physio in physios)
    value = pack(">HH", len(physios), len(texts)) + texts
    entry = pack(">H", _MODIFY_REPLACE) + _attribute(WAVE_LIST, value)
    return _data(Kind.INVOKE, invoke, Command.CONFIRMED_SET, _mds_scope() + pack(">HH", 1, len(entry)) + entry)


def _granted(user: bytes) -> Accepted:
    try:
        options_size = int.from_bytes(user[22:24], "big")
        profiles = dict(attributes(elements(user[24 + options_size :])[1]))
        profile = profiles[_POLL_SUPPORT]
        _, period, receive, transmit, _, options = _PROFILE.unpack_from(profile)
        packages = dict(attributes(elements(profile[_PROFILE.size :])[1]))
    except (error, KeyError) as reason:
        raise ContentError("an Association Accept without a poll profile") from reason
    extensions = Extension(int.from_bytes(packages.get(_POLL_EXTENSION, b"")[:4], "big"))
    return Accepted(period / 8000, receive, transmit, options, extensions)


def _after_length(data: bytes) -> bytes:
    """Return what follows an ASN.1 length, up to that length."""
    first, at = data[0], 1
    if first & 0x80:
        size_bytes = first & 0x7F
        first, at = int.from_bytes(data[1 : 1 + size_bytes], "big"), 1 + size_bytes
    return data[at : at + first]


def _action(invoke: int, action: int, data: bytes) -> bytes:
    return _data(Kind.INVOKE, invoke, Command.ACTION, _mds_scope() + pack(">HH", action, len(data)) + data)


def _mds_scope() -> bytes:
    return pack(">HHHI", CLASS_MDS, 0, 0, 0)


def _data(kind: Kind, invoke: int, command: Command, body: bytes) -> bytes:
    rest = pack(">HHH", invoke, command, len(body)) + body
    return DATA + pack(">HH", kind, len(rest)) + rest


def _attribute(identity: int, value: bytes) -> bytes:
    return pack(">HH", identity, len(value)) + value


def _list(*entries: bytes) -> bytes:
    joined = b"".join(entries)
    return pack(">HH", len(entries), len(joined)) + joined
