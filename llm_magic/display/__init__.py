"""What is seen: a view repaints the state of an answer; it knows nothing of providers and asks nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llm_magic.config.settings import Settings
    from llm_magic.draft import Draft
    from llm_magic.response import Response
    from llm_magic.wire.call import Preview


Reading = Callable[[], Any]
"""Returns the typed value as far as it can be read, None before it begins; costs something, so ask when you paint."""


class View(Protocol):
    """Shows one answer in one cell. Calls come from one thread, which need not be the cell's own."""

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again, with or without news."""

    def begin(self, title: str) -> None:
        """Begin; `title` is the model as asked for."""

    def progress(self, text: str) -> None:
        """Show one line that what follows will replace."""

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def update(self, draft: Draft, reading: Reading | None = None) -> None:
        """Show what is new; `reading` gives the typed value so far, None where the answer is text."""

    def finish(self, response: Response, footer: str) -> None:
        """Show the final outputs; `footer` is the quiet line below them, or empty."""

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived, marked; an error follows."""


def choose(shell: Any, settings: Settings, show: str = "markdown", *, background: bool = False) -> View:
    """Return the view for where the cell runs, bound to that cell.

    Parameters
    ----------
    shell
        The IPython shell, or None.
    settings
        `repaints` counts.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    background
        Whether other cells will run meanwhile: a terminal then shows the answer when it is complete.

    """
    if getattr(shell, "kernel", None) is not None:
        from llm_magic.display.notebook import NotebookView
        from llm_magic.display.outputs import Cell

        return NotebookView(Cell(shell), show, settings.repaints)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from llm_magic.display.terminal import TerminalView

        return TerminalView(show, settings.repaints, streams=not background)
    from llm_magic.display.plain import PlainView

    return PlainView(show, streams=not background)


def show_preview(preview: Preview) -> None:
    """Show a request that is not sent: the method and URL, the headers, the body."""
    from llm_magic.display.preview import show

    show(preview)
