"""Images for a model, read from paths, URLs, bytes, arrays, figures and other objects."""

from __future__ import annotations

import base64
import os
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import PromptError
from llm_magic.images.formats import MAX_PIXELS, converted, encoded, header, media_type, png, scaled
from llm_magic.messages import Image

MAX_SOURCE = 64 * 2**20  # bytes of a file that is read at all
MAX_SENT = 20 * 2**20  # bytes of an image in a request; OpenAI and Azure take no more for one

_TAKEN = "PNG, JPEG, GIF and WebP are taken."


def part(value: Any, *, max_side: int) -> tuple[Image, str]:
    """Return an image as a part of a message, and a sentence for the user where it was changed.

    The value is a path, a URL (`http:`, `https:`, `data:`), the bytes of a file, a PIL image, a
    matplotlib figure or axes, an `IPython.display.Image`, or an array: H×W, H×W×3 or H×W×4, of
    uint8, of bool, or of floats from 0 to 1. PromptError for what is none, or cannot be read.
    An image of more than `max_side` pixels a side is scaled down, but not one at an `http(s)` URL:
    the server fetches that.
    """
    if isinstance(value, str):
        return _from_text(value, max_side)
    if isinstance(value, os.PathLike):
        return _from_path(value, max_side)
    if isinstance(value, Image):
        return (value, "") if value.data is None else _fitted(value.data, "The image", max_side)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _fitted(bytes(value), "The image", max_side)
    if _is(value, "PIL", "Image"):
        return _sent(*encoded(value, max_side))
    if (figure := _figure(value)) is not None:
        return _from_figure(figure, max_side)
    if _is(value, "IPython", "Image"):
        return _from_displayed(value, max_side)
    if _is(value, "numpy", "ndarray"):
        return _from_array(value, max_side)
    if drawn := _from_repr(value, max_side):
        return drawn
    raise PromptError(
        f"A {type(value).__name__} is no image.",
        "Give a path, a URL, bytes, an array, a PIL image, a matplotlib figure or an IPython.display.Image.",
    )


def is_picture(value: Any) -> bool:
    """Whether `{{ value }}` means an image: what is nothing else, not paths, text or arrays."""
    if isinstance(value, (bytes, bytearray)):
        return media_type(bytes(value[:16])) is not None
    is_image = isinstance(value, Image) or _is(value, "PIL", "Image") or _is(value, "IPython", "Image")
    return is_image or _figure(value) is not None


def displayed(value: Any, *, max_side: int) -> tuple[Image, str] | None:
    """Return the image that `{{ value }}` means, as `part` does; None for what is no image."""
    return part(value, max_side=max_side) if is_picture(value) else _from_repr(value, max_side)


def _from_repr(value: Any, max_side: int) -> tuple[Image, str] | None:
    """Return the image that an object displays itself as; None without one, or with Markdown."""
    if hasattr(type(value), "_repr_markdown_"):  # which it would rather have read
        return None
    for method in ("_repr_png_", "_repr_jpeg_"):
        shown = display_data(value, method)
        if shown is not None:
            data = base64.b64decode(shown) if isinstance(shown, str) else bytes(shown)
            return _fitted(data, f"The {type(value).__name__}", max_side)
    return None


def display_data(value: Any, method: str) -> Any:
    """Return the data that a display method of the value's class gives; None without one."""
    if not callable(getattr(type(value), method, None)):
        return None
    shown = getattr(value, method)()
    return shown[0] if isinstance(shown, tuple) and shown else shown


def _is(value: object, module: str, name: str) -> bool:
    """Whether `value` is of a class of a library, which is not imported for the question."""
    return any(base.__name__ == name and base.__module__.split(".")[0] == module for base in type(value).__mro__)


def _figure(value: Any) -> Any:
    """Return the matplotlib figure that this is, or that it belongs to; else None."""
    seen = value
    if _is(seen, "numpy", "ndarray") and seen.dtype.hasobject and seen.size:
        seen = seen.flat[0]  # plt.subplots(2, 2) gives an array of axes
    for _ in range(4):  # axes belong to a subfigure at most, which belongs to a figure
        if _is(seen, "matplotlib", "Figure"):
            return seen
        if not (_is(seen, "matplotlib", "Artist") or type(seen).__module__.startswith("seaborn.")):
            return None
        seen = getattr(seen, "figure", None)
    return None


def _from_text(value: str, max_side: int) -> tuple[Image, str]:
    """Read a URL or a path."""
    if re.match(r"(?i)https?://", value):
        return Image(url=value), ""
    if re.match(r"(?i)data:", value):
        return _fitted(_data_url(value), "The data: URL", max_side)
    if re.match(r"(?i)[a-z][a-z0-9+.-]+://", value):
        raise PromptError(
            f"{value.partition(':')[0]}: URLs of images are not read.", "Give an http(s) or data: URL, or a path."
        )
    return _from_path(Path(value), max_side)


def _data_url(url: str) -> bytes:
    """Decode a data: URL (RFC 2397)."""
    described, comma, data = url.partition(",")
    content = unquote_to_bytes(data)
    with suppress(ValueError):
        if comma:
            is_base64 = described.lower().endswith(";base64")
            return base64.b64decode(re.sub(rb"\s", b"", content), validate=True) if is_base64 else content
    raise PromptError("The data: URL of the image cannot be decoded.", "data:image/png;base64,…")


def _from_path(value: Any, max_side: int) -> tuple[Image, str]:
    path = Path(os.fspath(value)).expanduser()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PromptError(f"The image {path} is no file.", "Name an image file.")
        if size > MAX_SOURCE:
            raise PromptError(
                f"The image {path} has {size / 2**20:,.0f} MB; {MAX_SOURCE // 2**20} MB are read at most.",
                "Scale it down first.",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise PromptError(f"There is no image {path}.", _close_files(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PromptError(f"The image {path} cannot be read: {reason}.", "Check the path.") from None
    return _fitted(data, f"The image {path}", max_side)


def _close_files(path: Path) -> str:
    try:
        return did_you_mean(path.name, os.listdir(path.parent), f"The path is relative to {Path.cwd()}.")  # noqa: PTH208 - names are what is compared
    except (OSError, ValueError):
        return f"The folder {path.parent} does not exist." if not path.parent.exists() else ""


def _from_displayed(value: Any, max_side: int) -> tuple[Image, str]:
    if value.data is None:
        return _from_text(value.url or value.filename or "", max_side)
    try:
        data = base64.b64decode(value.data, validate=True) if isinstance(value.data, str) else value.data
    except ValueError:
        raise PromptError("The displayed image holds no image bytes.", _TAKEN) from None
    return _fitted(data, "The displayed image", max_side)


def _from_figure(figure: Any, max_side: int) -> tuple[Image, str]:
    """Draw a figure; one that is too large at fewer dots an inch, so that it stays sharp."""
    dpi = float(figure.dpi)
    most = max_side / max(figure.get_size_inches())
    note = f"The figure was drawn at {most:.0f} instead of {dpi:.0f} dots an inch." if dpi > most else ""
    sink = BytesIO()
    figure.savefig(sink, format="png", dpi=min(dpi, most))
    image, further = _fitted(sink.getvalue(), "The figure", max_side)
    return image, f"{note} {further}".strip()


def _from_array(value: Any, max_side: int) -> tuple[Image, str]:
    """Write an array as PNG, which needs no library where it is small enough."""
    shape = " × ".join(map(str, value.shape))
    channels = value.shape[2] if value.ndim == 3 else 1  # noqa: PLR2004 - height, width, channels
    if value.ndim not in {2, 3} or channels not in {1, 3, 4} or not value.size:
        raise PromptError(f"An array of shape {shape or '()'} is no image.", "Images are H×W, H×W×3 or H×W×4.")
    height, width = value.shape[:2]
    if height * width > MAX_PIXELS:
        raise PromptError(f"An array of {shape} is too large for an image.", "Take every nth pixel: a[::4, ::4].")
    kind = value.dtype.kind
    if kind == "b":
        value = value.astype("uint8") * 255
    elif kind == "f":
        if not (value.min() >= 0 and value.max() <= 1):  # NaN fails both
            raise PromptError(
                f"The array goes from {value.min():g} to {value.max():g}; floats of an image are from 0 to 1.",
                "Scale it: (a - a.min()) / (a.max() - a.min()).",
            )
        value = (value * 255).round().astype("uint8")
    elif value.dtype.name != "uint8":
        raise PromptError(f"An array of {value.dtype} is no image.", "Make it uint8 (0 to 255) or float (0 to 1).")
    return _fitted(png(value.tobytes(), width, height, channels), "The array", max_side)


def _fitted(data: bytes, what: str, max_side: int) -> tuple[Image, str]:
    """Return bytes as they are where they can be sent so, else converted or scaled down."""
    if len(data) > MAX_SOURCE:
        raise PromptError(f"{what} has {len(data) / 2**20:,.0f} MB.", f"{MAX_SOURCE // 2**20} MB are read at most.")
    if media_type(data) is None:
        return _sent(*_converted(data, what, max_side))
    known = header(data)
    if known is None or not known.whole:
        raise PromptError(f"{what} is damaged or cut off.", "Open it in a viewer, or load it anew.")
    if known.width * known.height > MAX_PIXELS:
        raise PromptError(
            f"{what} has {known.width:,} × {known.height:,} pixels.", f"{MAX_PIXELS:,} are read at most: scale it down."
        )
    if max(known.width, known.height) <= max_side:
        return _sent(data, known.media_type)
    return _sent(*scaled(data, what, max_side))


def _converted(data: bytes, what: str, max_side: int) -> tuple[bytes, str, str]:
    """Convert another format, where Pillow knows it."""
    if not data:
        raise PromptError(f"{what} is empty.", _TAKEN)
    if re.match(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", data[:2000], re.DOTALL):
        raise PromptError(f"{what} is an SVG, which models do not take.", f"Convert it. {_TAKEN}")
    image = converted(data, what, max_side)
    if image is None:
        raise PromptError(f"{what} is no image that can be read; it begins with {data[:12]!r}.", _TAKEN)
    return image


def _sent(data: bytes, kind: str, note: str = "") -> tuple[Image, str]:
    if len(data) > MAX_SENT:
        raise PromptError(
            f"The image has {len(data) / 2**20:,.0f} MB; {MAX_SENT // 2**20} MB can be sent.",
            "Lower LLMMagics.max_image_pixels, or save it as JPEG.",
        )
    return Image(data, kind), note
