"""The `%llm_…` line magics: each reads its words, asks the session, and shows a table or a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_magic, magics_class

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.session import Session


@magics_class
class LLMCommands(Magics):
    """Providers, models, configuration, conversations and usage."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.session = session

    @line_magic
    def llm_usage(self, line: str) -> None:
        """Show tokens, requests, time and cost so far; `--reset` starts anew."""
