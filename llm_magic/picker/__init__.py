"""`%llm_picker`: a panel in notebooks, a numbered list in terminals."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_magic, magics_class

from llm_magic.control_characters import visible
from llm_magic.errors import OptionError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.picker.backend import PickerBackend
    from llm_magic.picker.panel import Panel
    from llm_magic.session import Session

_UNLOADED = "The extension that this panel belongs to was unloaded or loaded again: run %llm_picker again."
_OLD = "There are ten newer panels: run %llm_picker again."
_MOST_PANELS = 10
"""Panels that are kept up to date; a cell that is run again leaves an unseen one behind."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_CELL_ENDED = "post_run_cell"


@magics_class
class LLMPicker(Magics):
    """The model picker of a session."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.shell: InteractiveShell
        self.session = session
        self._backend: PickerBackend | None = None
        self._panels: list[Panel] = []
        self._numbered: tuple[str, ...] = ()

    @line_magic
    def llm_picker(self, line: str) -> None:
        """Pick the model and the parameters of all cells that name none.

        %llm_picker           the panel: providers, their models, parameters, system prompt, a try
        %llm_picker WORDS     the panel, its list searched for these words
        %llm_picker --list    a plain numbered list, as in a terminal; --list WORDS searches it
        %llm_picker 3         the third of the list that was shown last
        %llm_picker 3 5       the third and the fifth: cells ask both, side by side

        The panel shows what is in force and changes it: `%config LLMMagics.model`, `.params` and
        `.system`. An empty field is unset: the parameter is not sent. The lines at its foot set the
        same without the panel.
        """
        words = line.split()
        unknown = [word for word in words if word.startswith("-") and word not in {"--list", "-h", "--help"}]
        if unknown:
            raise OptionError(
                f"%llm_picker has no option {unknown[0]}.", "It takes --list, words to search, or a number."
            )
        if "-h" in words or "--help" in words:
            print(inspect.getdoc(LLMPicker.llm_picker))  # noqa: T201 - a page to read
        elif numbers := _numbers(words):
            from llm_magic.picker import terminal

            name = terminal.chosen(self.session, numbers, self._numbered)
            self.session.settings.model = name
            print(f"LLMMagics.model = {name!r}")  # noqa: T201 - what the user asked for
        elif getattr(self.shell, "kernel", None) is None or "--list" in words:
            from llm_magic.picker import terminal

            search = " ".join(word for word in words if word != "--list")
            page, self._numbered = terminal.listing(self.session, search)
            print(visible(page))  # noqa: T201 - a page to read
        else:
            self._open(" ".join(words))

    def _open(self, search: str) -> None:
        """Show a panel."""
        from IPython.display import display

        from llm_magic.picker.backend import PickerBackend
        from llm_magic.picker.panel import Panel

        if self._backend is None:
            self._backend = PickerBackend(self.session)
            self.shell.events.register(_CELL_ENDED, self._backend.cell_ended)
        panel = Panel(self._backend, search)
        self._panels.append(panel)
        if len(self._panels) > _MOST_PANELS:
            self._panels.pop(0).end(_OLD)
        display(panel.bundle(), raw=True)

    def close(self) -> None:
        """Let go of the shell and the settings; panels that are still to be seen say so."""
        if self._backend is not None:
            self.shell.events.unregister(_CELL_ENDED, self._backend.cell_ended)
            for panel in self._panels:
                panel.end(_UNLOADED)
            self._backend.close()
        self._backend, self._panels = None, []


def _numbers(words: list[str]) -> list[int]:
    """Return the numbers that a line holds, with blanks or commas between; none where something else stands in it."""
    parts = [part for word in words for part in word.split(",") if part]
    return [int(part) for part in parts] if all(map(_NUMBER.fullmatch, parts)) else []
