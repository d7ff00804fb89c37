"""The formats of images: told by their headers, written as PNG, scaled and converted by Pillow.

Headers tell media type, size and completeness without decoding anything; Pillow is imported only
when there is work for it. Sources: PNG (RFC 2083, 3 and 4.1), JPEG (ITU T.81, annex B), GIF89a
(20), WebP (RFC 9649, 2).
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from struct import pack, unpack_from
from typing import Any

from llm_magic.errors import PromptError

MAX_PIXELS = 100_000_000  # of an image that is decoded: 400 MB of memory at four bytes each

_KEPT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # not converted


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's header says; sides in pixels. `whole`: no bytes are missing at the end."""

    media_type: str
    width: int
    height: int
    whole: bool


def _png(data: bytes) -> tuple[int, int, bool]:
    width, height = unpack_from(">II", data, 16)
    return width, height, b"IEND" in data[-4096:]


def _gif(data: bytes) -> tuple[int, int, bool]:
    width, height = unpack_from("<HH", data, 6)
    return width, height, b"\x3b" in data[-64:]


_MARKER = 0xFF
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOFn, without the tables among these numbers


def _jpeg(data: bytes) -> tuple[int, int, bool]:
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
        (length,) = unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            height, width = unpack_from(">HH", data, at + 5)
            return width, height, data.find(b"\xff\xd9", at) > 0
        at += 2 + length


def _webp(data: bytes) -> tuple[int, int, bool]:
    (size,) = unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8X":
        bits = int.from_bytes(unpack_from("6s", data, 24)[0], "little")
        width, height = (bits & 0xFFFFFF) + 1, (bits >> 24) + 1
    elif kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in unpack_from("<HH", data, 26))
    return width, height, len(data) >= size + 8


_FORMATS: dict[str, tuple[bytes, Callable[[bytes], tuple[int, int, bool]]]] = {
    "image/png": (rb"\x89PNG\r\n\x1a\n", _png),
    "image/jpeg": (rb"\xff\xd8\xff", _jpeg),
    "image/gif": (rb"GIF8[79]a", _gif),
    "image/webp": (rb"(?s)RIFF.{4}WEBP", _webp),
}
"""What models take: how the bytes begin, and what reads their header."""


def media_type(data: bytes) -> str | None:
    """Return the media type that the first bytes tell; None for what models do not take.

    >>> media_type(b"GIF89a..."), media_type(b"BM...")
    ('image/gif', None)

    """
    return next((kind for kind, (start, _) in _FORMATS.items() if re.match(start, data)), None)


def header(data: bytes) -> Header | None:
    """Return what the header says; None for no image of a known kind, or a damaged one."""
    kind = media_type(data)
    try:
        return Header(kind, *_FORMATS[kind][1](data)) if kind is not None else None
    except (IndexError, ValueError, struct.error):
        return None


_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: PNG's colour type


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """Write a PNG from `height * width * channels` bytes: rows from the top, pixels from the left.

    The channels, of 8 bits each, are 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, stride * height, stride))
    described = pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", described), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@contextmanager
def _pillow(what: str) -> Iterator[Any]:
    """Give Pillow's `Image` module; what it cannot read is an error of ours."""
    try:
        from PIL import Image
    except ImportError:
        raise PromptError(
            f"{what} must be scaled down or converted, which needs Pillow.", "pip install pillow"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS was checked
            yield Image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError) as error:
        raise PromptError(f"{what} cannot be read: {' '.join(str(error).split())}.", "Open it in a viewer.") from None


def scaled(data: bytes, what: str, max_side: int) -> tuple[bytes, str, str]:
    """Return an image of at most `max_side` pixels a side, its media type, and what was done."""
    with _pillow(what) as pillow, pillow.open(BytesIO(data)) as image:
        return _encode(image, what, max_side)


def encoded(image: Any, max_side: int) -> tuple[bytes, str, str]:
    """Encode a PIL image: as the format it was read from where models take that, else as PNG."""
    with _pillow("The image"):
        return _encode(image, "The image", max_side)


def converted(data: bytes, what: str, max_side: int) -> tuple[bytes, str, str] | None:
    """Return an image of another format as PNG; None without Pillow, or if it knows it not."""
    try:
        with _pillow(what) as pillow:
            image = pillow.open(BytesIO(data))
    except PromptError:
        return None
    with image, _pillow("The image"):
        result, kind, note = _encode(image, "It", max_side)
        return result, kind, f"{what} was converted from {image.format} to PNG. {note}".rstrip()


def _encode(image: Any, what: str, max_side: int) -> tuple[bytes, str, str]:
    from PIL import ImageOps

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PromptError(f"The image has {width:,} × {height:,} pixels.", "Scale it down first.")
    kind = image.format if image.format in _KEPT else "PNG"
    note = ""
    if max(width, height) > max_side:
        share = max_side / max(width, height)
        size = max(1, round(width * share)), max(1, round(height * share))
        if kind == "JPEG":
            image.draft("RGB", size)  # is decoded at half its size, a quarter, …
        image = ImageOps.exif_transpose(image)  # the orientation is lost with the metadata
        size = size if (image.width >= image.height) == (width >= height) else size[::-1]
        image = _plain(image, kind).resize(size)
        note = f"{what} was scaled down from {width:,} × {height:,} to {size[0]:,} × {size[1]:,} pixels."
    else:
        image = _plain(ImageOps.exif_transpose(image), kind)
    sink = BytesIO()
    image.save(sink, kind, **({"quality": 90} if kind != "PNG" else {}))
    return sink.getvalue(), _KEPT[kind], note


def _plain(image: Any, kind: str) -> Any:
    """Bring an image to a mode that its format holds and that scales: no palette, CMYK, floats."""
    if kind == "JPEG":
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    if image.mode in {"L", "RGB", "RGBA", "LA"} and kind == "PNG":
        return image
    transparent = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")
