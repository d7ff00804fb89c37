"""Citations in the shapes in which servers send them: annotations, lists of URLs, results of a search, references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from llm_magic.events import CitationFound, Event
from llm_magic.messages import Citation

_URLS = ("url", "uri", "link")
_TITLES = ("title", "document_title", "name")
_MOST = 2**53


def read_citation(annotation: object) -> Citation | None:
    """Return what an annotation, a URL or a result of a search cites; None where it names neither page nor file.

    >>> read_citation({"type": "url_citation", "url_citation": {"url": "https://a.example", "start_index": 3}})
    Citation(url='https://a.example', title='', start=3, end=None, file_id='', filename='')
    >>> read_citation("https://a.example").url, read_citation({"type": "file_path", "file_id": "f-1"}).file_id
    ('https://a.example', 'f-1')

    """
    if isinstance(annotation, str):
        return Citation(url=annotation) if annotation.strip() else None
    if not isinstance(annotation, dict):
        return None
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    fields = inner if isinstance(inner, dict) else annotation
    cited = Citation(
        _first(fields, _URLS),
        _first(fields, _TITLES),
        _place(fields.get("start_index")),
        _place(fields.get("end_index")),
        _first(fields, ("file_id",)),
        _first(fields, ("filename", "filepath")),
        annotation,
    )
    return cited if cited.url or cited.file_id or cited.filename else None


def _first(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((value for name in names if isinstance(value := fields.get(name), str) and value.strip()), "")


def _place(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None


def flattened(found: object, depth: int = 3) -> Iterator[object]:
    """Yield what a list holds, lists in it included; another value as it is, None not at all.

    A citation of several sources (Cohere) is each of them.
    """
    if isinstance(found, list) and depth:
        for each in found:
            yield from flattened(each, depth - 1)
    elif isinstance(found, dict) and isinstance(found.get("sources"), list):
        for source in found["sources"]:
            inner = source.get("document") if isinstance(source, dict) else None
            yield inner if isinstance(inner, dict) else source
    elif found is not None:
        yield found


class Citations:
    """The citations of one answer, each told once; of one that is told again with its title, that.

    >>> citations, events = Citations(), []
    >>> citations.add(Citation("https://a.example"), events); citations.add(Citation("https://a.example"), events)
    >>> len(events)
    1

    """

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._known: dict[tuple[object, ...], str] = {}  # the title of each
        self._urls: dict[str, bool] = {}  # whether a title is known
        self._begins: dict[object, int] = {}  # parts of the text: where they begin
        self._length = 0

    def add(self, cited: Citation, out: list[Event], begin: int = 0) -> None:
        """Take a citation; its span counts from `begin` in the answer's text."""
        same = (cited.url, cited.file_id, cited.filename, cited.start, cited.end)
        title = self._known.get(same)
        if title is not None and (title or not cited.title):
            return
        titled = self._urls.get(cited.url) if cited.url else None
        if cited.start is None and titled is not None and (titled or not cited.title):  # a list beside annotations
            return
        self._known[same] = cited.title
        self._urls[cited.url] = bool(cited.title) or self._urls.get(cited.url, False)
        if begin:
            start, end = (None if place is None else place + begin for place in (cited.start, cited.end))
            cited = replace(cited, start=start, end=end)
        out.append(CitationFound(cited, self._index))

    def add_all(self, found: object, out: list[Event], begin: int = 0) -> list[dict[str, Any]]:
        """Take each citation of a list; return what in it is none."""
        others = []
        for each in flattened(found):
            cited = read_citation(each)
            if cited is not None:
                self.add(cited, out, begin)
            elif isinstance(each, dict) and each:
                others.append(each)
        return others

    def add_results(self, urls: object, results: object, out: list[Event]) -> None:
        """Take a list of URLs, in the order in which the text counts them, and results of a search, with titles."""
        told = [cited for each in flattened(results) if (cited := read_citation(each)) is not None]
        titled = {cited.url: cited for cited in told}
        for each in flattened(urls):
            cited = read_citation(each)
            if cited is not None:
                self.add(cited if cited.title else titled.get(cited.url, cited), out)
        for cited in told:
            self.add(cited, out)

    def text(self, part: object, length: int) -> None:
        """Take note that the answer's text goes on by `length` characters of one of its parts."""
        self._begins.setdefault(part, self._length)
        self._length += length

    def begin(self, part: object) -> int:
        """Return where a part begins in the answer's text: spans count within their part."""
        with suppress(TypeError):  # named by what is no name
            return self._begins.get(part, 0)
        return 0
