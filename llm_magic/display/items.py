"""What an answer holds beside text and sources: images as images, items folded, with how large they are said."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magic.display import markup
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.images.formats import MAX_PIXELS, header
from llm_magic.markdown import for_notebook
from llm_magic.markdown.links import web_url
from llm_magic.messages import DISPLAYED, Image

MOST_IMAGES = 16
"""Images of one answer that are shown."""
LARGEST = 16 * 2**20
"""Bytes of the images of one answer that are shown, in all: a notebook keeps them."""
MOST_ITEMS = 40
"""Items that are shown; how many more there are is said."""
_LONGEST_TEXT = 2_000
"""Characters of one text in an item that are shown."""
_LONGEST = 20_000
"""Characters of one item that are shown."""


def pictures(images: Sequence[Image], *, external_images: bool = False, place: str = "_llm.images") -> Iterator[Bundle]:
    """Yield an output for each image of an answer: itself, or a line on why not, and how to have it: at `place`."""
    left = LARGEST
    for number, image in enumerate(images[:MOST_IMAGES]):
        if image.data is None:
            yield _elsewhere(image.url or "", number, external_images=external_images)
        elif (why := _why_not(image, left)) is not None:
            yield markup.quiet(f"{image_line(image, number)}: {why}; {_save(image, number, place)}")
        else:
            left -= len(image.data)
            yield {image.media_type: base64.b64encode(image.data).decode(), "text/plain": image_line(image, number)}
    if len(images) > MOST_IMAGES:
        yield markup.quiet(f"… and {counted(len(images) - MOST_IMAGES, 'more image')}: {place}")


def within_html(picture: Bundle) -> Bundle:
    """Return an output with an image as one of HTML, which stands with others in one output."""
    kind = next((kind for kind in picture if kind in DISPLAYED), None)
    if kind is None:
        return picture
    line = picture["text/plain"]
    source = f"data:{kind};base64,{picture[kind]}"
    return {"text/plain": line, "text/html": f'<img src="{source}" alt="{markup.escaped(line)}" style="{_WITHIN}">'}


_WITHIN = "max-width: 100%; display: block"


def image_line(image: Image, number: int) -> str:
    """Return what an image is, on a line: the place of what cannot show it.

    >>> image_line(Image(b"GIF89a", "image/gif"), 0)
    'Image 1 (image/gif, 6 bytes)'

    """
    if image.data is None:
        return f"Image {number + 1}: {markup.shortened(image.url or '', 200)}"
    seen = header(image.data)
    sides = f", {seen.width:,} × {seen.height:,} pixels" if seen is not None else ""
    return f"Image {number + 1} ({image.media_type}{sides}, {_size(len(image.data))})"


def image_lines(images: Sequence[Image]) -> list[str]:
    """Return what the images of an answer are, where none can be shown, and how to have them."""
    lines = [
        image_line(image, number) + (f": {_save(image, number)}" if image.data is not None else "")
        for number, image in enumerate(images[:MOST_IMAGES])
    ]
    return [
        *lines,
        *([f"… and {counted(len(images) - MOST_IMAGES, 'more image')}"] if len(images) > MOST_IMAGES else []),
    ]


def _save(image: Image, number: int, place: str = "_llm.images") -> str:
    ending = image.media_type.partition("/")[2].partition("+")[0]
    return f'{place}[{number}].save("image.{ending if ending.isalnum() else "bin"}")'


def _size(length: int) -> str:
    if length < _KILO:
        return f"{length:,} bytes"
    return f"{length / _KILO**2:,.1f} MB" if length >= _KILO**2 else f"{length / _KILO:,.0f} kB"


_KILO = 1_000


def _why_not(image: Image, left: int) -> str | None:
    """Return why an image is not shown; None where it is."""
    if image.media_type not in DISPLAYED:
        return "not shown, as it may hold scripts" if "svg" in image.media_type else "not shown"
    if image.data is not None and len(image.data) > left:
        return "too large to keep in a notebook"
    seen = header(image.data or b"")
    return "too many pixels to show" if seen is not None and seen.width * seen.height > MAX_PIXELS else None


def _elsewhere(url: str, number: int, *, external_images: bool) -> Bundle:
    """Return an image that is elsewhere: a link, unless such images may load."""
    checked, plain = web_url(url), f"Image {number + 1}: {markup.shortened(url, 200)}"
    if checked is None:
        return markup.quiet(plain)
    if external_images:
        return {"text/plain": plain, "text/markdown": for_notebook(f"![image]({checked})", external_images=True)}
    link = f'<a href="{markup.escaped(checked)}" target="_blank" rel="noopener noreferrer">'
    return {"text/plain": plain, "text/html": f"<div>Image {number + 1}: {link}{markup.escaped(checked)}</a></div>"}


def folded_items(items: Sequence[Mapping[str, Any]]) -> list[Bundle]:
    """Return the items of an answer, each folded: what it is, and all of it below."""
    shown = [markup.folded(item_line(item), _document(item)) for item in items[:MOST_ITEMS]]
    more = f"… and {counted(len(items) - MOST_ITEMS, 'more item')}: _llm.items"
    return [*shown, *([markup.quiet(more)] if len(items) > MOST_ITEMS else [])]


def item_lines(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the items of an answer are, a line each."""
    more = [f"… and {counted(len(items) - MOST_ITEMS, 'more item')}: _llm.items"] if len(items) > MOST_ITEMS else []
    return [*map(item_line, items[:MOST_ITEMS]), *more]


def item_line(item: Mapping[str, Any]) -> str:
    """Return what an item is, on a line.

    >>> item_line({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "rain"}})
    'web_search_call: rain (completed)'
    >>> item_line({"type": "web_search_call", "action": {"query": "rain", "queries": ["rain", "snow"]}})
    'web_search_call: rain'

    """
    action = item.get("action")
    places = (item, action if isinstance(action, Mapping) else {})
    about = list(dict.fromkeys(value for name in _ABOUT for place in places if (value := _said(place.get(name)))))[:2]
    status = _said(item.get("status"))
    if item.get("type") == "mcp_approval_request":
        status = "asks for an approval, which cannot be given here"
    kind = str(item.get("type") or "item")
    return markup.shortened(f"{kind}: {', '.join(about)}" if about else kind, 120) + (
        f" ({status:.60})" if status else ""
    )


_ABOUT = ("server_label", "name", "query", "queries", "url", "command", "code", "input", "revised_prompt")
"""Members that say what an item is about."""


def _said(value: object) -> str:
    """Return a text, or the first one of a list."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str) else ""


def _document(item: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(_shortened(item), indent=2, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = "nested too deeply to show: _llm.items"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… ({len(text):,} characters)"


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… ({len(value):,} characters)"
    return value
