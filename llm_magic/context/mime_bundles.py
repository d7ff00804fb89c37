"""What of a MIME bundle a model reads: an image, or the text that says most of it; of HTML its words and tables."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

IMAGES = ("image/png", "image/jpeg")
LONGEST_HTML = 200_000
"""Characters of HTML that are read."""

_ONLY_A_NAME = re.compile(r"<[\w.]*\.[\w.]+(?: object)?(?: at 0x[0-9a-fA-F]+)?>")
_UNREAD = frozenset({"script", "style", "head", "template"})
_LINES = frozenset({
    "p", "div", "br", "hr", "li", "ul", "ol", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "table",
    "tr", "caption", "section", "article", "blockquote", "details", "summary", "title",
})  # fmt: skip


def image_in(bundle: Mapping[str, Any]) -> bytes | None:
    """Return the image of a MIME bundle, None where it has none that can be read."""
    for kind in IMAGES:
        data = bundle.get(kind)
        if isinstance(data, bytes):
            return data
        if isinstance(data, str):
            try:
                return base64.b64decode(data)
            except (binascii.Error, ValueError):
                return None
    return None


def text_in(bundle: Mapping[str, Any]) -> str:
    """Return the text of a MIME bundle, empty where it has none.

    That is its plain text, of a widget what it says of itself; where that is no more than the name of a class, or is
    missing, Markdown, LaTeX, JSON or the words of its HTML.

    >>> text_in({"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>so</b>"})
    'so'

    """
    plain = _text(bundle, "text/plain")
    if plain and not _ONLY_A_NAME.fullmatch(plain.strip()):
        return plain
    told = _text(bundle, "text/markdown") or _text(bundle, "text/latex") or _json(bundle.get("application/json"))
    return (
        told or words_of(_text(bundle, "text/html")) or plain or (f"({', '.join(map(str, bundle))})" if bundle else "")
    )


def _text(bundle: Mapping[str, Any], kind: str) -> str:
    text = bundle.get(kind)
    return text if isinstance(text, str) and text.strip() else ""


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False) if value else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def words_of(html: str) -> str:
    """Return the words of HTML, line by line, its tables as those of Markdown; scripts and styles are none."""
    reader = _Words()
    reader.feed(html[:LONGEST_HTML])
    return reader.told()


class _Words(HTMLParser):
    """Collects the lines of a document, and the cells of the row that is open."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = [""]
        self._row: list[str] | None = None
        self._rows = 0  # of the table so far
        self._unread = ""  # the element whose content is passed over
        self._as_it_is = False

    def told(self) -> str:
        self._end_row()
        return "\n".join(line.rstrip() for line in self._lines if line.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the base's
        if self._unread:
            return
        if tag in _UNREAD:
            self._unread = tag
        elif tag in {"td", "th"} and self._row is not None:
            self._row.append("")
        elif tag in _LINES:
            self._break(tag)
        self._as_it_is = self._as_it_is or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unread:
            self._unread = ""
        elif tag in _LINES and not self._unread:
            self._end_row() if tag in {"tr", "table"} else self._break("")
        self._as_it_is = self._as_it_is and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._unread:
            return
        text = data if self._as_it_is and self._row is None else re.sub(r"\s+", " ", data)
        if self._row is None:
            self._lines[-1] += text if self._as_it_is or self._lines[-1] else text.lstrip()
        elif self._row:
            self._row[-1] += text

    def _break(self, tag: str) -> None:
        """End the line, or within a row the word."""
        if tag in {"tr", "table"}:
            self._end_row()
            self._row = [] if tag == "tr" else None
            self._rows = 0 if tag == "table" else self._rows
        elif self._row is None:
            self._lines.append("")
        elif self._row:
            self._row[-1] += " "

    def _end_row(self) -> None:
        if self._row:
            self._lines.append(_line([cell.strip().replace("|", "\\|") for cell in self._row]))
            self._rows += 1
            if self._rows == 1:
                self._lines.append(_line(["---"] * len(self._row)))
        self._lines += [""]
        self._row = None


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
