"""What is wrong with a template, said by line and column of the prompt, with the names that come near."""

from __future__ import annotations

import builtins
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from jinja2 import TemplateSyntaxError

from llm_magic.errors import LLMError, PromptError
from llm_magic.prompt.language import UnknownError, environment, flatten, place, tags

LITERALLY = "Braces that are meant literally: --raw, or {% raw %}…{% endraw %} around them."
_TAGS = ["for", "endfor", "if", "elif", "else", "endif", "set", "endset", "filter", "endfilter", "macro", "endmacro"]
_TAGS += ["call", "endcall", "with", "endwith", "raw", "endraw", "do", "break", "continue", "print"]
_MOST = 300  # characters of an exception's message


def where(source: str, offset: int) -> str:
    """Return the words for an offset in a source."""
    line, column = place(flatten(source), offset)
    return f"line {line}, column {column} of the prompt"


def syntax_error(source: str, error: TemplateSyntaxError) -> PromptError:
    """Say why a source does not parse; `error.lineno` is an offset from 1, see `ExactLexer`."""
    language, flat = environment(), flatten(source)
    offset = min(max(error.lineno - 1, 0), len(flat))
    message = (error.message or "").strip().rstrip(".")
    hint = LITERALLY
    found = tags(language, source)
    nameless = re.fullmatch(r"No (filter|test) named '(\w+)'", message)
    unclosed = re.search(r"Unexpected end of template\b.*needs to be closed is '(\w+)'", message)
    strange = re.match(r"Encountered unknown tag '(\w+)'", message)
    within = re.search(r"needs to be closed is '(\w+)'", message)
    if strange and within and strange[1] != within[1] and strange[1] in _TAGS:
        message = f"'{{% {strange[1]} %}}' comes before the end of '{{% {within[1]} %}}'"
    elif strange:
        known = strange[1] in _TAGS
        message = f"'{{% {strange[1]} %}}' is {'out of place' if known else 'no tag'}"
        hint = hint if known else did_you_mean(strange[1], _TAGS) or hint
    elif nameless:
        kind, name = nameless.groups()
        message = f"there is no {kind} {name!r}"
        hint = did_you_mean(name, language.filters if kind == "filter" else language.tests) or hint
    elif message.startswith("unexpected end of template") and found and not found[-1].closed:
        offset = found[-1].start
        message = f"{flat[offset : offset + 2]!r} is not closed"
    elif unclosed:
        offset = max(
            (tag.start for tag in found if re.match(rf"\{{%[-+]?\s*{unclosed[1]}\b", tag.text)), default=offset
        )
        message = f"'{{% {unclosed[1]} %}}' has no '{{% end{unclosed[1]} %}}'"
    return PromptError(f"The prompt's template does not parse, {where(source, offset)}: {message}.", hint)


def unknown_name(source: str, offset: int, name: str, namespace: Mapping[str, Any]) -> PromptError:
    """Say that the notebook has no such variable."""
    message = f"The prompt names {name!r} on {where(source, offset)}, but the notebook has no such variable."
    if name == "error":
        return PromptError(message, "It stands for the last exception, and no cell has failed yet.")
    hint = did_you_mean(name, (known for known in namespace if isinstance(known, str) and not known.startswith("_")))
    if not hint and hasattr(builtins, name):
        hint = f"It is Python's own: {{{{ {name}(…) }}}} calls it."
    return PromptError(message, hint or LITERALLY)


def unknown_member(source: str, offset: int, tag: str, error: UnknownError) -> PromptError:
    """Say that a value has no such attribute or item."""
    members: Iterable[Any] = error.obj if isinstance(error.obj, Mapping) else dir(error.obj)
    what = "attribute or item" if isinstance(error.name, str) else "item"
    return PromptError(
        f"{tag} on {where(source, offset)}: this {type(error.obj).__name__} has no {what} {error.name!r}.",
        did_you_mean(str(error.name), (member for member in map(str, members) if not member.startswith("_"))),
    )


def failed(source: str, offset: int, tag: str, error: Exception) -> PromptError:
    """Say which tag raised what."""
    at = f"{tag} failed on {where(source, offset)}"
    if isinstance(error, LLMError):
        return PromptError(f"{at}: {error.message}", error.hint)
    said = " ".join(str(error).split())
    said = said if len(said) <= _MOST else f"{said[:_MOST]}…"
    return PromptError(
        f"{at}: {type(error).__name__}{': ' * bool(said)}{said}",
        "Try the expression in a cell of its own; %tb shows where it failed.",
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names what comes near, or nothing."""
    names = list(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    close = close or [other for other in names if other.lower() == name.lower()][:3]  # `DF` for `df`
    return f"Did you mean {' or '.join(close)}?" if close else ""


_MACHINERY: Final = ("/IPython/core/", "/ipykernel/", "\\IPython\\core\\", "\\ipykernel\\")

_kept: list[BaseException] = []  # the last failure that was not ours, while a later one of ours hides it


def last_error() -> BaseException | None:
    """Return the last exception of the notebook; our own only where there is no other.

    A `%%llm` cell that asks about an error and fails on a typing mistake is run again: it means the same error.
    """
    note_last_error()
    if _kept:
        return _kept[0]
    last: BaseException | None = getattr(sys, "last_value", None)
    return last


def note_last_error() -> None:
    """Remember the notebook's last exception, so that one of ours that follows does not hide it."""
    last = getattr(sys, "last_value", None)
    if last is not None and not isinstance(last, LLMError):
        _kept[:] = [last]
    elif last is None:
        _kept.clear()


def traceback_text(error: BaseException) -> str:
    """Return an exception with its traceback, without the frames of IPython that ran the cell."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        own = [frame for frame in seen.stack if not any(part in frame.filename for part in _MACHINERY)]
        if own:
            seen.stack[:] = own
        seen = seen.__cause__ or seen.__context__
    return "".join(told.format()).rstrip("\n")
