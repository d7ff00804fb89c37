"""In the place of a cell's outputs and its clock, for many rows; texts that would act; a reader of HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from llm_magic.display.markup import Bundle
from llm_magic.display.rows_notebook import NotebookRowsView

EVIL = "\x1b[2J<script>alert(1)</script>[red]\u202e\ud800"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202egnp.exe",
    "]]><!-- --><svg onload=alert(1)>",
    r"$\href{javascript:alert(1)}{x}$ \(a\) $$b$$",
    "| a | b |\n|---|---|\n| c",
    "[a](javascript:alert(1)) ![b](https://example.org/b.png)",
    "```html\n<b>",
    "\ud800 \udfff",
    "{{ item }} {% raw %}",
    "[bold red]rich[/]",
]


class Tags(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def bar(self) -> dict[str, str | None]:
        (bar,) = [attributes for tag, attributes in self.found if tag == "progress"]
        return bar


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Outputs:
    """In the place of a cell's outputs: notes what is done with them."""

    captured = in_widget = False

    def __init__(self, *, alone: bool = True, watched: bool = True, replaceable: bool = True) -> None:
        self.alone, self.watched, self.replaceable = alone, watched, replaceable
        self.done: list[tuple[str, Bundle]] = []

    def paint(self, bundle: Bundle) -> None:
        self.done.append(("paint", bundle))

    def settle(self, bundle: Bundle) -> None:
        self.done.append(("settle", bundle))

    def add(self, bundle: Bundle) -> None:
        self.done.append(("add", bundle))

    def clear(self) -> None:
        self.done.append(("clear", {}))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.done]


def notebook(show: str = "markdown", repaints: float = 20.0, **how: bool) -> tuple[Any, Outputs, Clock]:
    outputs, clock = Outputs(**how), Clock()
    return NotebookRowsView(outputs, show, repaints, clock), outputs, clock  # type: ignore[arg-type]
