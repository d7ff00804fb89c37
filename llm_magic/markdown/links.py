"""Links to what a model or a server names: both the title and the address are anybody's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from llm_magic.control_characters import visible
from llm_magic.markdown.sanitize import sanitize
from llm_magic.markdown.unsafe import neutral_maths
from llm_magic.messages import Citation

_LONGEST_URL = 2_000
_LONGEST_TITLE = 150
_KEPT = "/:?#@!&=+,;%~-._"
"""Characters of a URL that are written as they are; all others, brackets and quotes among them, as %XX."""
_AS_TEXT = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "*_`#|~"}, **{mark: f"&#{ord(mark)};" for mark in "&<>[]$\\"}}
)
"""How marks are written as text. Some reader takes `\\[`, `\\(` or `\\$` for maths, so these are references."""


class Source(NamedTuple):
    """A source as it is shown: `url` is None where it is no link, `place` is the host, or the file."""

    title: str
    place: str
    url: str | None


def web_url(url: str) -> str | None:
    """Return the URL of a page of the web as it may stand in any attribute or brackets; None for another.

    >>> web_url("https://e.org/a b?q=(1)"), web_url("javascript:alert(1)"), web_url("https://")
    ('https://e.org/a%20b?q=%281%29', None, None)

    """
    url = url.strip()
    if len(url) > _LONGEST_URL or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 0) < 0:
            return None
    except ValueError:
        return None
    return quote(url, safe=_KEPT, errors="replace")


def sources(citations: Iterable[Citation]) -> list[Source]:
    """Return what citations name, each page and file once, in their order."""
    found: dict[str, Source] = {}
    for cited in citations:
        file = cited.filename or cited.file_id
        same = cited.url or f"{file} {cited.file_id}"
        if same in found and (found[same].title or not cited.title):
            continue
        url = web_url(cited.url)
        host = (urlsplit(url).hostname or "") if url is not None else cited.url or file
        found[same] = Source(_line(cited.title), _line(host), url)
    return [
        each
        if each.title
        else each._replace(title=_line(each.url or "") or each.place, place="" if each.url is None else each.place)
        for each in found.values()
    ]


def _line(text: str) -> str:
    line = " ".join(visible(text[: 4 * _LONGEST_TITLE]).split())
    return line if len(line) <= _LONGEST_TITLE else line[: _LONGEST_TITLE - 1] + "…"


def as_markdown(listed: Iterable[Source]) -> str:
    r"""Return sources as a numbered list in Markdown, in which nothing but the links is markup.

    >>> print(as_markdown(sources([Citation("https://e.org/a", "On *a*"), Citation("data:x", "b")])))
    1. [On \*a\*](https://e.org/a) (e.org)
    2. b (data:x)

    """
    lines = []
    for number, each in enumerate(listed, 1):
        title, place = escaped(each.title), f" ({escaped(each.place)})" if each.place else ""
        lines.append(f"{number}. " + (f"[{title}]({each.url}){place}" if each.url is not None else f"{title}{place}"))
    return sanitize("\n".join(lines))


def escaped(line: str) -> str:
    r"""Return a line of text as Markdown that is only this text.

    >>> escaped("[a](b) *c*"), escaped(r"\(x\)")
    ('&#91;a&#93;(b) \\*c\\*', '&#92;(x&#92;)')

    """
    return neutral_maths(line).translate(_AS_TEXT)
