"""What bytes are as an image: media type, size and completeness by its header, without decoding anything.

Sources: PNG (RFC 2083, 3 and 4.1), JPEG (ITU T.81, annex B), GIF89a (20), WebP (RFC 9649, 2).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import pack, unpack

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's header says; sides in pixels. `whole` is False where bytes are missing at the end."""

    media_type: str
    width: int
    height: int
    whole: bool = True


def media_type(data: bytes) -> str | None:
    """Return the media type that the first bytes tell; None for anything that vision models do not take.

    >>> media_type(b"GIF89a..."), media_type(b"BM...")
    ('image/gif', None)

    """
    if data.startswith(_PNG):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def header(data: bytes) -> Header | None:
    """Return what the header says; None where this is no image of a known kind, or a damaged one."""
    kind = media_type(data)
    try:
        return _READERS[kind](data) if kind is not None else None
    except (IndexError, ValueError, OSError):
        return None


def _png(data: bytes) -> Header:
    width, height = unpack(">II", _exactly(data, 16, 8))
    return Header("image/png", width, height, data.rfind(b"IEND") >= len(data) - 4096 and b"IEND" in data[-4096:])


def _gif(data: bytes) -> Header:
    width, height = unpack("<HH", _exactly(data, 6, 4))
    return Header("image/gif", width, height, b"\x3b" in data[-64:])


_MARKER = 0xFF
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOFn, without the tables among these numbers


def _jpeg(data: bytes) -> Header:
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if data[at] != _MARKER:
            raise ValueError("no marker")
        marker = data[at + 1]
        if marker in _ALONE:
            at += 2
            continue
        (length,) = unpack(">H", _exactly(data, at + 2, 2))
        if marker in _FRAMES:
            height, width = unpack(">HH", _exactly(data, at + 5, 4))
            return Header("image/jpeg", width, height, data.find(b"\xff\xd9", at) > 0)
        at += 2 + length


def _webp(data: bytes) -> Header:
    (size,) = unpack("<I", _exactly(data, 4, 4))
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(_exactly(data, 24, 3), "little") + 1
        height = int.from_bytes(_exactly(data, 27, 3), "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(_exactly(data, 21, 4), "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in unpack("<HH", _exactly(data, 26, 4)))
    return Header("image/webp", width, height, len(data) >= size + 8)


_READERS = {"image/png": _png, "image/gif": _gif, "image/jpeg": _jpeg, "image/webp": _webp}


def _exactly(data: bytes, at: int, count: int) -> bytes:
    piece = data[at : at + count]
    if len(piece) != count:
        raise ValueError("the header is cut")
    return piece


_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: PNG's colour type


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """Write a PNG of 8 bits a channel: rows from the top, pixels from the left.

    Parameters
    ----------
    pixels
        `height * width * channels` bytes.
    width, height
        In pixels.
    channels
        1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).

    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, stride * height, stride))
    described = pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", described), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return _PNG + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
