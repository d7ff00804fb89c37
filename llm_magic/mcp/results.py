"""What an MCP tool returned, as text for the model and images: content blocks and structured content, bounded.

The blocks: https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result. That a text repeats the
structured content is the rule there, and that a plain value is wrapped as `{"result": …}` the official package's.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_json

from llm_magic.images.formats import MAX_PIXELS, header
from llm_magic.messages import Image

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock, EmbeddedResource, ResourceLink

MAX_CHARS = 20_000
"""Characters of a result that the model gets to see; as many as of a function's."""
MAX_IMAGES = 16
"""Images of one result that are taken."""
MAX_IMAGE_BYTES = 20 * 2**20
"""Bytes of one image."""
_NAME_CHARS = 500  # of a URI, title or media type


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool returned.

    `text` is what the model reads: texts as they are, structured content as JSON, and a line in brackets for each
    image, resource or sound. `images` are PNG, JPEG, GIF or WebP, by their bytes. `failed`: the tool says that it
    failed, and the text why.
    """

    text: str
    images: tuple[Image, ...] = ()
    failed: bool = False


def read_result(result: CallToolResult) -> ToolOutput:
    """Return the output of a call; whatever a server sends, nothing is raised.

    Texts are cut to `MAX_CHARS`, which the text then says. An image that is damaged, too large, one of too many or of a
    kind that models do not take is named in the text, with what is wrong with it. Structured content stands in the
    text once: not at all where a text says the same.
    """
    images: list[Image] = []
    parts = [part for block in result.content for part in _parts(block, images)]
    texts = [block.text for block in result.content if block.type == "text"]
    structured = result.structured_content
    if structured is not None:
        written = _json(structured)
        if written is None:
            parts.append("[structured content that is nested too deeply to be written]")
        elif not _is_said(structured, written, texts):
            parts.append(written)
    text = "\n".join(parts)
    if not text.strip():
        text = "[it failed, and does not say why]" if result.is_error else "[nothing was returned]"
    return ToolOutput(_cut(_encodable(text)), tuple(images), bool(result.is_error))


def _parts(block: ContentBlock, images: list[Image]) -> Iterator[str]:
    """Yield the text of a content block; an image in it is added to `images`."""
    if block.type == "text":
        yield block.text
    elif block.type == "image":
        yield _image(block.data, block.mime_type, "image", images)
    elif block.type == "audio":
        yield f"[audio, {_short(block.mime_type)}, {_size(block.data)}: not passed on]"
    elif block.type == "resource_link":
        yield _link(block)
    else:
        yield from _resource(block, images)


def _link(link: ResourceLink) -> str:
    name = link.title or link.name
    words = ", ".join(filter(None, (_short(link.description or ""), _short(link.mime_type or ""))))
    return f"[link to {_short(link.uri)}: {_short(name)}{f' ({words})' if words else ''}]"


def _resource(block: EmbeddedResource, images: list[Image]) -> Iterator[str]:
    resource = block.resource
    name = f"resource {_short(resource.uri)}"
    text, blob = getattr(resource, "text", None), getattr(resource, "blob", None)
    if isinstance(text, str):
        yield f"[{name}]"
        yield text
    elif isinstance(blob, str):
        media_type = resource.mime_type or "application/octet-stream"
        if media_type.startswith("image/"):
            yield _image(blob, media_type, name, images)
        else:
            yield f"[{name}, {_short(media_type)}, {_size(blob)}: not passed on]"


def _image(data: str, said: str, name: str, images: list[Image]) -> str:
    """Add an image, whose kind its bytes tell whatever the server says, and return the line that names it."""
    if len(data) * 3 // 4 > MAX_IMAGE_BYTES:
        return f"[{name}, {_size(data)}: too large, {MAX_IMAGE_BYTES // 2**20} MB are taken at most]"
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return f"[{name}, {_short(said)}: damaged, for it is no base64]"
    known = header(content)
    if known is None or not known.whole:
        why = "damaged, or none of PNG, JPEG, GIF and WebP" if known is None else "damaged or cut off"
        return f"[{name}, {_short(said)}, {len(content):,} bytes: {why}]"
    if known.width * known.height > MAX_PIXELS:
        return f"[{name}, {known.width:,} × {known.height:,} pixels: too large]"
    if len(images) >= MAX_IMAGES:
        return f"[{name}: one of too many, {MAX_IMAGES} are taken]"
    images.append(Image(content, known.media_type))
    return f"[{name} {len(images)}: {known.media_type}, {known.width} × {known.height} pixels]"


def _size(data: str) -> str:
    """Return the size of what base64 holds, in words."""
    return f"{len(data) * 3 // 4 - data[-2:].count('='):,} bytes"


def _short(text: str) -> str:
    """Return a name for a line."""
    line = " ".join(text[: 2 * _NAME_CHARS].split())
    return line if len(line) <= _NAME_CHARS else f"{line[: _NAME_CHARS - 1]}…"


def _json(value: Any) -> str | None:
    """Return a value as JSON; None for what is nested too deeply."""
    try:
        return to_json(value, fallback=str, inf_nan_mode="strings").decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return None


def _is_said(structured: Any, written: str, texts: list[str]) -> bool:
    """Whether the texts say what the structured content says: the whole of it, its only value, or each item of that."""
    if not texts or sum(map(len, texts)) > MAX_CHARS:
        return False  # of what is cut, nothing is said twice
    said = [{_json(text), _written_again(text)} for text in texts]
    forms = [(structured, written)]
    if isinstance(structured, dict) and set(structured) == {"result"}:
        value = structured["result"]
        forms.append((value, _json(value) or ""))
    for value, form in forms:
        if any(form in each for each in said):
            return True
        if isinstance(value, list) and len(value) == len(said):
            return all(_json(item) in each for item, each in zip(value, said, strict=True))
    return False


def _written_again(text: str) -> str | None:
    """Return a text that is JSON without its spaces, as `_json` writes it; None for any other."""
    try:
        return _json(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _encodable(text: str) -> str:
    """Return text without halves of characters, which no request can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    kept = MAX_CHARS - 100  # the note has room, so that nobody cuts once more
    return f"{text[:kept]}\n[cut: the first {kept} of {len(text)} characters]"
