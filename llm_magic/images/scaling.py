"""The work that needs Pillow: scaling down, converting, encoding; it is imported only when there is such work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from llm_magic.errors import PromptError

MAX_PIXELS = 100_000_000  # of an image that is decoded: 400 MB of memory at four bytes each

_KEPT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # formats that stay as they are


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
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is checked before
            yield Image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError) as error:
        raise PromptError(f"{what} cannot be read: {' '.join(str(error).split())}.", "Open it in a viewer.") from None


def scaled(data: bytes, what: str, max_side: int) -> tuple[bytes, str, str]:
    """Return an encoded image with sides of at most `max_side` pixels, its media type, and what was done."""
    with _pillow(what) as pillow, pillow.open(BytesIO(data)) as image:
        return _encode(image, what, max_side)


def encoded(image: Any, max_side: int) -> tuple[bytes, str, str]:
    """Encode a PIL image: as the format it was read from where models take that, else as PNG."""
    if image.width * image.height > MAX_PIXELS:
        raise PromptError(f"The image has {image.width:,} × {image.height:,} pixels.", "Scale it down first.")
    with _pillow("The image"):
        return _encode(image, "The image", max_side)


def converted(data: bytes, max_side: int) -> tuple[bytes, str, str] | None:
    """Return an image of another format as PNG; None where Pillow is missing or does not know it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        image = Image.open(BytesIO(data))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return None
    with image, _pillow("The image"):
        if image.width * image.height > MAX_PIXELS:
            raise PromptError(f"The image has {image.width:,} × {image.height:,} pixels.", "Scale it down first.")
        kind = image.format
        result, media_type, note = _encode(image, "It", max_side)
        return result, media_type, f"was converted from {kind} to PNG. {note}".rstrip()


def _encode(image: Any, what: str, max_side: int) -> tuple[bytes, str, str]:
    from PIL import ImageOps

    kind = image.format if image.format in _KEPT else "PNG"
    width, height = image.size
    note = ""
    if max(width, height) > max_side:
        share = max_side / max(width, height)
        size = max(1, round(width * share)), max(1, round(height * share))
        image.draft("RGB", size) if kind == "JPEG" and hasattr(image, "draft") else None
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
    """Bring an image to a mode that its format can hold and that scales well: no palettes, CMYK or floats."""
    if kind == "JPEG":
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    if image.mode in {"L", "RGB", "RGBA", "LA"} and kind == "PNG":
        return image
    transparent = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")
