"""One line that says what a command waits for, and is gone when the wait is over."""

from __future__ import annotations

import os
import sys
from typing import Any

from llm_magic.display import markup
from llm_magic.display.cell import Bundle, Cell
from llm_magic.display.outputs import Outputs


class ProgressLine:
    """A line below a cell, or the last line of a terminal; nothing where nobody looks.

    Parameters
    ----------
    shell
        The IPython shell.

    """

    def __init__(self, shell: Any) -> None:
        self._outputs: Outputs | None = None
        self._width = 0
        if getattr(shell, "kernel", None) is not None:
            cell = Cell(shell)
            self._outputs = Outputs(cell, repaints=not cell.in_widget and not cell.captured)
        self._terminal = self._outputs is None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Show a line in the place of the last one."""
        if self._outputs is not None:
            self._outputs.paint(markup.quiet(text), line=True)
        elif self._terminal:
            self._write(text)

    def end(self, bundle: Bundle | None = None) -> None:
        """Take the line away; `bundle` is shown in its place."""
        if self._outputs is None:
            if self._terminal and self._width:
                self._write("")
            if bundle is not None:
                publish(bundle)
        elif bundle is None:
            self._outputs.drop_line()
        else:
            self._outputs.add(bundle)

    def _write(self, text: str) -> None:
        line = " ".join(text.split())[: _columns() - 1]
        sys.stdout.write(f"\r{line.ljust(self._width)}\r{line}")
        sys.stdout.flush()
        self._width = len(line)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def publish(bundle: Bundle) -> None:
    """Show an output of the running cell; a terminal shows its plain text."""
    from IPython.display import display

    display(bundle, raw=True)
