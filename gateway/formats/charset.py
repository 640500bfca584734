"""Character sets of HL7 v2: MSH-18 to Python codecs (HL7 table 0211).

Bytes are never altered on their way; a codec is only asked for where text is looked at. Names are compared without
case, spaces and punctuation, so that the misspellings of real feeds (`UTF-8`, `ISO-8859-1`) are understood too.
"""

from functools import lru_cache

_CODECS = {
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "ISOIR192": "utf-8",
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "GB2312": "gb18030",
    "BIG5": "big5",
    "KSX1001": "euc_kr",
    "EUCKR": "euc_kr",
    "ISOIR14": "shift_jis",  # JIS X 0201: its one-byte half is that of Shift JIS
    "SHIFTJIS": "shift_jis",
    "ISOIR87": "iso2022_jp_2",
    "ISOIR159": "iso2022_jp_2",
    "WINDOWS1250": "cp1250",
    "WINDOWS1251": "cp1251",
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
    "ISOIR100": "latin-1",
    **{f"8859{part}": f"iso8859_{part}" for part in (*range(1, 12), *range(13, 17))},
    **{f"ISO8859{part}": f"iso8859_{part}" for part in (*range(1, 12), *range(13, 17))},
}

# Codecs in which a byte of one of the separators may be half of a letter: text is decoded before it is split.
_SPLIT_AS_TEXT = frozenset({"gb18030", "gbk", "big5", "shift_jis", "iso2022_jp_2"})


@lru_cache(maxsize=256)
def codec_of(names: bytes, default: str) -> str:
    """Return the Python codec for MSH-18, repetitions separated by `~`; the default where it names none we know.

    ASCII is a part of every default, so it means the default: senders that claim it send more. Of several
    repetitions the one that needs escape sequences (ISO 2022) wins, because its codec reads the first as well.
    """
    found = [_CODECS.get(_plain(name)) for name in names.split(b"~")]
    known = [codec for codec in found if codec is not None]
    if "iso2022_jp_2" in known:
        return "iso2022_jp_2"
    return known[0] if known else default


@lru_cache(maxsize=64)
def splits_as_text(codec: str) -> bool:
    """Return whether bytes in this codec must be decoded before separators are looked for."""
    return codec.lower().replace("-", "_") in _SPLIT_AS_TEXT


def _plain(name: bytes) -> str:
    return "".join(letter for letter in name[:40].decode("latin-1").upper() if letter.isalnum())
