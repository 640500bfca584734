"""An object taken apart so that its head can be changed and its bulk is only copied.

    Part 10 file:  meta | head: everything before the pixels | pixels | tail: signatures, padding

Head and tail are pydicom data sets; pixels, and any other value above a mebibyte that is no sequence, stay in the
file and are copied in pieces when the object is written. The same content always becomes the same bytes. Between the
uncompressed transfer syntaxes the encoding is changed on the way: VRs, byte order, deflation (PS3.5, annex A).
"""

import io
import logging
import os
import struct
import tempfile
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.tag import BaseTag

from gateway.errors import ContentError
from gateway.formats.dicom import (
    DEFLATED,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    UNCOMPRESSED,
    FileMeta,
    part10_prefix,
    read_meta,
)

BULK_BYTES = 1 << 20  # larger values stay in the file
HEAD_BYTES_MAX = 256 << 20  # of sequences and values that are held in memory
INFLATED_BYTES_MAX = 4 << 30
COPY_BYTES = 1 << 20  # a multiple of every number's size
FRAGMENTS_MAX = 10_000_000

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_WIDTHS = {"OW": "H", "OF": "I", "OL": "I", "OD": "Q", "OV": "Q"}  # of the numbers in them, as array's type codes

config.settings.reading_validation_mode = config.IGNORE  # its warnings quote values
config.settings.writing_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.ERROR)


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""
        ...


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The element with the pixels: its place in the file, and where its value begins and ends."""

    tag: int
    vr: str
    value_at: int
    end: int
    length: int  # as written: 0xFFFFFFFF for fragments


@dataclass(slots=True)
class Body:
    """One object. `head` and `tail` may be changed; `syntax` is what it lies in."""

    meta: FileMeta
    head: Dataset
    tail: Dataset
    pixels: _Pixels | None
    syntax: str
    _file: BinaryIO

    def write(self, out: BinaryIO, syntax: str) -> None:
        """Write the whole object as a Part 10 file. Raises ContentError for a change of syntax that cannot be made."""
        if syntax != self.syntax and not {syntax, self.syntax} <= set(UNCOMPRESSED):
            raise ContentError(f"not converted from {self.syntax} to {syntax}: only uncompressed ones are")
        out.write(
            part10_prefix(
                sop_class_uid=str(self.head.get("SOPClassUID", "") or self.meta.sop_class_uid),
                sop_instance_uid=str(self.head.get("SOPInstanceUID", "") or self.meta.sop_instance_uid),
                transfer_syntax=syntax,
            )
        )
        if syntax == DEFLATED:
            deflating = _Deflating(out)
            _Writer(self, self._file, deflating, syntax).write()
            deflating.finish()
        else:
            _Writer(self, self._file, out, syntax).write()


def is_bulk(dataset: Dataset, tag: int) -> bool:
    """Tell whether a value was left in the file: it must not be read through the data set."""
    return tag in dataset and _deferred(dataset, BaseTag(tag)) is not None


@contextmanager
def open_body(path: Path) -> Iterator[Body]:
    """Open a Part 10 file as head, pixels and tail.

    Raises ContentError for what cannot be read, OSError for what the disk does not give.
    """
    meta = read_meta(path)
    with path.open("rb") as original, _plain(original, meta) as file:
        yield _read(file, meta)


@contextmanager
def _plain(file: BinaryIO, meta: FileMeta) -> Iterator[BinaryIO]:
    """Give the data set from its first byte on; a deflated one is inflated into a file without a name."""
    file.seek(meta.dataset_offset)
    if meta.transfer_syntax != DEFLATED:
        yield file
        return
    with tempfile.TemporaryFile(dir=os.path.dirname(file.name)) as inflated:  # noqa: PTH120 - the spool's own folder
        _inflate(file, inflated)
        inflated.seek(0)
        yield inflated


def _inflate(file: BinaryIO, out: Any) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        while not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(COPY_BYTES)
            if not packed:
                break
            data = inflater.decompress(packed, COPY_BYTES)
            total += len(data)
            if total > INFLATED_BYTES_MAX:
                raise ContentError(f"deflated data set becomes more than {INFLATED_BYTES_MAX} bytes")
            out.write(data)
    except zlib.error as error:
        raise ContentError(f"deflated data set broken behind {total} inflated bytes") from error


def _read(file: BinaryIO, meta: FileMeta) -> Body:
    syntax = meta.transfer_syntax
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    start = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(start)
    pixels: list[_Pixels] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if int(tag) in PIXEL_TAGS:
            pixels.append(_Pixels(int(tag), vr or ("OB" if length == _UNDEFINED else "OW"), file.tell(), 0, length))
            return True
        return False

    head = read_dataset(file, implicit, little, stop_when=stop, defer_size=BULK_BYTES)
    if not pixels and file.tell() < end:
        raise ContentError(f"data set broken at byte {file.tell()}")
    _load_sequences(head, file, end)
    tail = Dataset()
    found = None
    if pixels:
        seen = pixels[0]
        value_end = seen.value_at + seen.length if seen.length != _UNDEFINED else _fragments_end(file, seen, end)
        if value_end > end:
            raise ContentError(f"pixel data of {seen.length} bytes, {end - seen.value_at} are there")
        found = _Pixels(seen.tag, seen.vr, seen.value_at, value_end, seen.length)
        file.seek(value_end)
        tail = read_dataset(file, implicit, little, defer_size=BULK_BYTES)
        _load_sequences(tail, file, end)
    return Body(meta, head, tail, found, syntax, file)


def _fragments_end(file: BinaryIO, pixels: _Pixels, end: int) -> int:
    """Step over the fragments of encapsulated pixels (PS3.5, A.4); these are little endian always."""
    at = pixels.value_at
    for _ in range(FRAGMENTS_MAX):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        group, element, length = struct.unpack("<HHL", head)
        tag = group << 16 | element
        at += 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM or at + length > end:
            break
        at += length
    raise ContentError(f"pixel data is broken at byte {at}")


def _load_sequences(dataset: Dataset, file: BinaryIO, end: int) -> None:
    """Take deferred sequences into memory; other bulk stays where it is. Raises ContentError for what is cut short."""
    held = 0
    for tag in dataset.keys():  # noqa: SIM118 - a data set's own iterator parses what it passes
        item: Any = dataset.get_item(tag, keep_deferred=True)
        if not isinstance(item, RawDataElement):
            continue
        missing = item.length - len(item.value) if item.value is not None else item.value_tell + item.length - end
        if missing > 0 and item.length != _UNDEFINED:
            raise ContentError(f"data set cut short: {missing} bytes are missing at its end")
        if item.value is None and item.length and _vr(item) == "SQ":
            held += item.length
            if held <= HEAD_BYTES_MAX:
                file.seek(item.value_tell)
                dataset._dict[tag] = item._replace(value=file.read(item.length))
        elif item.value is not None:
            held += len(item.value)
        if held > HEAD_BYTES_MAX:
            raise ContentError(f"more than {HEAD_BYTES_MAX} bytes beside the pixels")


def _vr(item: RawDataElement) -> str:
    if item.VR is not None:
        return item.VR
    try:
        return dictionary_VR(item.tag)[:2]
    except KeyError:
        return "UN"


class _Writer:
    """Writes one object's data set in one syntax."""

    def __init__(self, body: Body, file: BinaryIO, sink: Sink, syntax: str) -> None:
        self._body = body
        self._file = file
        self._sink = sink
        self._implicit = syntax == IMPLICIT_LITTLE
        self._little = syntax != EXPLICIT_BIG
        was_implicit, was_little = body.head.original_encoding  # not always what the file meta promises
        self._swaps = self._little != was_little
        self._recodes = self._swaps or self._implicit != was_implicit

    def write(self) -> None:
        self._write_part(self._body.head)
        self._write_pixels()
        self._write_part(self._body.tail)

    def _write_part(self, dataset: Dataset) -> None:
        recodes = self._recodes or dataset.original_character_set != dataset._character_set
        bulk = {tag: item for tag in dataset.keys() if (item := _deferred(dataset, tag)) is not None}  # noqa: SIM118
        small = Dataset()
        small._dict = {tag: item for tag, item in dataset._dict.items() if tag not in bulk}
        was_implicit, was_little = dataset.original_encoding
        small.set_original_encoding(was_implicit, was_little, dataset.original_character_set)
        encoding = dataset.get("SpecificCharacterSet", "iso8859")
        if recodes:
            if self._swaps:
                _swap_numbers(small)
            small = correct_ambiguous_vr(small, self._little)
        for tag in sorted([*small.keys(), *bulk]):
            if tag.element == 0 and tag.group > 6:  # group lengths are retired (PS3.5, 7.2)
                continue
            if tag in bulk:
                self._write_bulk(bulk[tag])
            else:
                self._write_small(small[tag] if recodes else small.get_item(tag), encoding)

    def _write_small(self, item: DataElement | RawDataElement | None, encoding: Any) -> None:
        assert item is not None
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = self._implicit, self._little
        write_data_element(buffer, item, encoding)
        self._sink.write(buffer.getvalue())

    def _write_bulk(self, item: RawDataElement) -> None:
        vr = _vr(item)
        self._write_head(int(item.tag), vr, item.length)
        self._copy(item.value_tell, item.value_tell + item.length, _WIDTHS.get(vr))

    def _write_pixels(self) -> None:
        pixels = self._body.pixels
        if pixels is None:
            return
        self._write_head(pixels.tag, pixels.vr, pixels.length)
        self._copy(pixels.value_at, pixels.end, _WIDTHS.get(pixels.vr))
        if (pixels.end - pixels.value_at) % 2 and pixels.length != _UNDEFINED:
            self._sink.write(b"\0")

    def _write_head(self, tag: int, vr: str, length: int) -> None:
        order = "<" if self._little else ">"
        length += length % 2 if length != _UNDEFINED else 0
        parts = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if not self._implicit:
            parts += vr.encode() + b"\0\0" if vr in _LONG_VRS else b"UN\0\0"
        self._sink.write(parts + struct.pack(f"{order}L", length))

    def _copy(self, at: int, end: int, width: str | None) -> None:
        turn = _turned(width) if self._swaps and width is not None else None
        self._file.seek(at)
        while at < end:
            piece = self._file.read(min(COPY_BYTES, end - at))
            if not piece:
                raise ContentError(f"the object ends at byte {at}")
            at += len(piece)
            self._sink.write(piece if turn is None else turn(piece))


def _deferred(dataset: Dataset, tag: BaseTag) -> RawDataElement | None:
    item: Any = dataset.get_item(tag, keep_deferred=True)
    return item if isinstance(item, RawDataElement) and item.value is None and item.length else None


def _swap_numbers(dataset: Dataset) -> None:
    """Turn the bytes of binary values, which pydicom leaves as they are."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _swap_numbers(item)
        elif element.VR in _WIDTHS and isinstance(element.value, bytes):
            element.value = _turned(_WIDTHS[element.VR])(element.value)


def _turned(code: str) -> Callable[[bytes], bytes]:
    def turn(data: bytes) -> bytes:
        numbers = array(code)
        whole = len(data) - len(data) % numbers.itemsize
        numbers.frombytes(data[:whole])
        numbers.byteswap()
        return numbers.tobytes() + data[whole:]

    return turn


class _Deflating:
    """Deflates what is written, and ends on an even byte (PS3.5, A.5)."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._written = 0

    def write(self, data: bytes) -> None:
        self._give(self._deflater.compress(data))

    def finish(self) -> None:
        self._give(self._deflater.flush())
        if self._written % 2:
            self._out.write(b"\0")

    def _give(self, data: bytes) -> None:
        self._written += len(data)
        self._out.write(data)
