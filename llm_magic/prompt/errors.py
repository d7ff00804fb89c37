"""Errors of templates, told by line and column of the prompt, with the names that are close."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, UndefinedError

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import LLMError, PromptError
from llm_magic.prompt.lexer import Tag, flatten, where

LITERALLY = "Braces that are meant literally: --raw, or {% raw %}…{% endraw %} around them."
_TAGS = ["for", "endfor", "if", "elif", "else", "endif", "set", "endset", "filter", "endfilter", "macro", "endmacro"]
_TAGS += ["call", "endcall", "with", "endwith", "raw", "endraw", "do", "break", "continue", "print"]
_MOST = 300  # characters of an exception's message


class UnknownError(UndefinedError):
    """A name (`obj` is Jinja2's `missing`), or an attribute or item of `obj`, is not there."""

    def __init__(self, obj: Any, name: Any, message: str | None = None) -> None:
        super().__init__(message)
        self.obj = obj
        self.name = name


def syntax_error(source: str, error: TemplateSyntaxError, tags: list[Tag], language: Environment) -> PromptError:
    """Say why a source does not parse; `error.lineno` is an offset from 1, see `ExactLexer`."""
    flat = flatten(source)
    offset = min(max(error.lineno - 1, 0), len(flat))
    message = (error.message or "").strip().rstrip(".")
    hint = LITERALLY
    nameless = re.fullmatch(r"No (filter|test) named '(\w+)'", message)
    unclosed = re.search(r"Unexpected end of template\b.*needs to be closed is '(\w+)'", message)
    strange = re.match(r"Encountered unknown tag '(\w+)'", message)
    within = re.search(r"needs to be closed is '(\w+)'", message)
    if strange and within and strange[1] != within[1] and strange[1] in _TAGS:
        message = f"'{{% {strange[1]} %}}' comes before the end of '{{% {within[1]} %}}'"
    elif strange and strange[1] in _TAGS:
        message = f"'{{% {strange[1]} %}}' is out of place"
    elif strange:
        message, hint = f"'{{% {strange[1]} %}}' is no tag", did_you_mean(strange[1], _TAGS, hint)
    elif nameless:
        kind, name = nameless.groups()
        message = f"there is no {kind} {name!r}"
        hint = did_you_mean(name, language.filters if kind == "filter" else language.tests, hint)
    elif message.startswith("unexpected end of template") and tags and not tags[-1].closed:
        offset = tags[-1].start
        message = f"{flat[offset : offset + 2]!r} is not closed"
    elif unclosed:
        begin = re.compile(rf"\{{%[-+]?\s*{unclosed[1]}\b")
        offset = max((tag.start for tag in tags if begin.match(tag.text)), default=offset)
        message = f"'{{% {unclosed[1]} %}}' has no '{{% end{unclosed[1]} %}}'"
    return PromptError(f"The prompt's template does not parse, {where(source, offset)}: {message}.", hint)


def unknown_name(source: str, offset: int, name: str, namespace: Mapping[str, Any]) -> PromptError:
    """Say that the notebook has no such variable."""
    message = f"The prompt names {name!r} on {where(source, offset)}, but the notebook has no such variable."
    if name == "error":
        return PromptError(message, "It stands for the last exception, and no cell has failed yet.")
    otherwise = f"It is Python's own: {{{{ {name}(…) }}}} calls it." if hasattr(builtins, name) else LITERALLY
    known = (known for known in namespace if isinstance(known, str) and not known.startswith("_"))
    return PromptError(message, did_you_mean(name, known, otherwise))


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
