"""Tab completion of the magics, by IPython's matcher API, from what is already known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.completion.candidates import Candidate, Candidates
    from llm_magic.session import Session

IDENTIFIER = "llm_magic"
"""What `IPCompleter.disable_matchers` knows it by."""


class Matcher:
    """Completes options, values and names; where it has an answer, other matchers rest.

    `candidates` is called at the first completion, so that loading is quick.
    """

    matcher_api_version = 2
    matcher_identifier = IDENTIFIER
    matcher_priority = 200.0  # before all of IPython's: those that are suppressed do not even run

    def __init__(self, candidates: Callable[[], Candidates]) -> None:
        self._candidates = cache(candidates)
        self.__qualname__ = IDENTIFIER  # IPython asks for it, though it then takes the identifier

    def __call__(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return what completes the text before the cursor."""
        from IPython.core.completer import SimpleCompletion

        from llm_magic.completion.context import context_of

        lines = context.full_text.split("\n")[: context.cursor_line]
        here = context_of("\n".join([*lines, context.text_until_cursor]))
        typed = ""
        found: list[Candidate] = []
        if here is not None:
            with suppress(LLMError):  # a configuration that is wrong says so when a cell runs
                typed, found = self._candidates().at(here)
        result: Any = {
            "completions": [SimpleCompletion(text=candidate.text, type=candidate.kind) for candidate in found],
            "suppress": bool(found),
            "ordered": True,
        }
        if found:
            result["matched_fragment"] = typed
        return result  # type: ignore[no-any-return] # a TypedDict of IPython's, which demands keys that are optional


def install(shell: InteractiveShell, session: Session) -> None:
    """Begin to complete in a shell; a matcher of an earlier load is replaced."""
    uninstall(shell)

    def candidates() -> Candidates:
        from llm_magic.completion.candidates import Candidates

        return Candidates(session, shell.user_ns, shell.user_ns_hidden)

    completer: Any = getattr(shell, "Completer", None)  # some shells have none
    if completer is not None:
        completer.custom_matchers.append(Matcher(candidates))


def uninstall(shell: InteractiveShell) -> None:
    """Complete no more."""
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", [])
    matchers[:] = [matcher for matcher in matchers if not isinstance(matcher, Matcher)]
