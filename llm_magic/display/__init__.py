"""What is seen: a view repaints the state of an answer; it knows no providers and asks nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from llm_magic.display.view import ValueSoFar, View

if TYPE_CHECKING:
    from llm_magic.config.settings import Settings
    from llm_magic.wire.call import Preview

__all__ = ["ValueSoFar", "View", "choose", "show_preview"]


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
        from llm_magic.display.outputs import CellPublisher

        return NotebookView(CellPublisher(shell), show, settings.repaints)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from llm_magic.display.terminal import TerminalView

        return TerminalView(show, settings.repaints, streams=not background)
    from llm_magic.display.plain import PlainView

    return PlainView(show, streams=not background)


def show_preview(preview: Preview) -> None:
    """Show a request that is not sent: the method and URL, the headers, the body."""
    from llm_magic.display import preview as page
    from llm_magic.display.outputs import publish

    publish(page.shown(preview))
