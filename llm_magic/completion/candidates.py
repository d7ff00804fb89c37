"""Completion candidates: from options, the namespace and what is cached, not the network."""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.commands import batches
from llm_magic.completion.context import CompletionContext, flags_of
from llm_magic.config.trust import COMMAND, GuardedSetting
from llm_magic.mcp.configuration import waiting_servers
from llm_magic.model_names import models_in
from llm_magic.options import OPTIONS

if TYPE_CHECKING:
    from llm_magic.session import Session

WORDS: Mapping[str, tuple[str, ...]] = {
    "embed_as": ("list", "ndarray"),
    **{option.name: option.words for option in OPTIONS if option.words},
}
"""Words that an option takes."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "llm_provider": ("list", "add", "remove", "test", "--help"),
    "llm_chat": ("list", "show", "drop", "reset", "fork", "switch", "export", "import", "--help"),
    "llm_models": ("--refresh", "--help"),
    "llm_recordings": ("list", "clear", "export", "--help"),
    "llm_batch": ("list", "show", "fetch", "cancel", "remove", "--help"),
    "llm_usage": ("--reset", "--help"),
    "llm_picker": ("--list", "--help"),
    "llm_config": ("trust", "--help"),
}
"""First words of the line magics."""

_BUILTIN_TYPES = ("bool", "dict", "float", "int", "list", "set", "str", "tuple")
_OFFERED_TYPES = (
    "Literal",
    "Optional",
    "Union",
    "date",
    "datetime",
    "time",
    "timedelta",
    "Decimal",
    "UUID",
    "DataFrame",
    "JsonValue",
    "Iterable",
)
_MOST_FILES = 500
_MCP_TOOL = re.compile(r"[\w./-]{1,128}")  # what can be typed; a server may say anything
_WAITS = f"waits for {COMMAND}"


class Candidate(typing.NamedTuple):
    """One completion: its text, and the word that a front end shows for its kind."""

    text: str
    kind: str


class Candidates:
    """All that completion may offer, of a session and of the user's variables.

    `hidden` are names among these that the user did not make (`In`, `exit`, …).
    """

    def __init__(self, session: Session, namespace: Mapping[str, Any], hidden: Iterable[str] = ()) -> None:
        self._session = session
        self._namespace = namespace
        self._hidden = hidden

    def at(self, context: CompletionContext) -> tuple[str, list[Candidate]]:
        """Return the end of what was typed that a completion replaces, and the completions."""
        text = context.text
        if context.option is not None:
            return self._value(context.option.name, text)
        if context.kind == "flag":
            return text, self._flags(context)
        if context.kind == "word":
            return text, _starting(text, self._words(context))
        own = (*context.names, *self._row_names(context.each))
        return self._name(text, own) if context.kind == "name" else (text, _starting(text, _filters()))

    def _flags(self, context: CompletionContext) -> list[Candidate]:
        """Return the options that have not been given; short ones where one dash was typed."""
        flags = flags_of(context.magic)
        given = {flags[flag].name for flag in context.given if flag in flags}
        found = [
            Candidate(flag, "option")
            for flag, option in flags.items()
            if (option.repeats or option.pairs or option.name not in given)
            and flag.startswith(context.text)
            and (context.text == "-" or flag.startswith("--"))
        ]
        return sorted(found, key=lambda candidate: candidate.text) if context.text else found

    def _value(self, name: str, text: str) -> tuple[str, list[Candidate]]:
        if name == "model":
            return self._models_of_option(text)
        if name == "output_type":
            typed = _last_name(text)
            if typed != text and (text.count("'") % 2 or text.count('"') % 2):  # within a literal
                return text, []
            return self._dotted(typed, self._types(), _is_type)
        if name == "each":
            return self._inputs(_last_name(text))
        if name == "forward_env":
            typed = text.rpartition(",")[2].lstrip()
            return typed, _starting(typed, (Candidate(variable, "variable") for variable in sorted(os.environ)))
        if name == "tools":
            typed = text.rpartition(",")[2].lstrip()
            return typed, _starting(typed, chain(self._variables(_is_function), self._mcp_tools(typed)))
        if name == "context":
            typed = text.rpartition(",")[2].lstrip()
            words = self._of_option(name) if typed == text else ()
            return typed, _starting(typed, chain(words, self._variables(lambda _: True)))
        if name == "batch_file":
            return text, _files(text, {".jsonl"})
        if name in _VARIABLES_OR_FILES:
            fits, endings = _VARIABLES_OR_FILES[name]
            return text, [*_starting(text, self._variables(fits)), *_files(text, endings)]
        return text, _starting(text, self._of_option(name))

    def _of_option(self, name: str) -> Iterator[Candidate]:
        yield from (Candidate(word, "keyword") for word in WORDS.get(name, ()))
        if name == "tool_choice":
            yield from self._variables(_is_function)
        elif name == "out":
            yield from self._variables(_is_data)
        elif name == "chat":
            chats = self._session.conversations.names(self._session.settings.chat)
            yield from (Candidate(chat, "chat") for chat in chats)

    def _models_of_option(self, text: str) -> tuple[str, list[Candidate]]:
        """Complete the last of several names with commas by those that are not given yet."""
        before, _, typed = text.rpartition(",")
        given = models_in(before)
        found = self._models(typed.lstrip())
        return typed.lstrip(), [candidate for candidate in found if candidate.text not in given]

    def _mcp_tools(self, text: str) -> Iterator[Candidate]:
        """Return MCP servers, and the tools of one that runs: completion starts none."""
        session = self._session
        if session.settings.mcp_servers:
            yield from (Candidate(f"mcp:{name}", "MCP server") for name in session.settings.mcp_servers)
            running = session.mcp_servers.offered() if "." in text else {}
            tools = [(name, tool) for name in running for tool in running[name] if _MCP_TOOL.fullmatch(tool)]
            yield from (Candidate(f"mcp:{name}.{tool}", "function") for name, tool in tools)
        yield from (Candidate(f"mcp:{name}", _WAITS) for name in waiting_servers(session.registry.waiting))

    def _models(self, text: str) -> list[Candidate]:
        """Return the models that begin with the text, with or without provider, or hold it."""
        settings, registry = self._session.settings, self._session.registry
        names = dict.fromkeys([*registry.model_names(), *settings.model_names, *models_in(settings.model)])
        known = [Candidate(name, "model") for name in names if name]
        known += [Candidate(name, _WAITS) for name in _names_of(registry.waiting) if name not in names]
        typed = text.lower()
        return (
            _starting(text, known)
            or [candidate for candidate in known if candidate.text.partition(":")[2].lower().startswith(typed)]
            or [candidate for candidate in known if typed in candidate.text.lower()]
        )

    def _words(self, context: CompletionContext) -> Iterator[Candidate]:
        """Return what a `%llm_…` line takes next."""
        action = context.given[0] if context.given else ""
        if not action:
            yield from (Candidate(word, "keyword") for word in COMMANDS.get(context.magic, ()))
        if context.magic == "llm_models" or (context.magic == "llm_provider" and action in {"remove", "test"}):
            yield from (Candidate(name, "provider") for name in self._session.registry.names())
        elif context.magic == "llm_chat" and action in {"show", "reset", "switch"}:
            yield from self._of_option("chat")
        elif context.magic == "llm_chat" and action == "drop":
            yield from self._turns(context.given[1:])
        elif context.magic == "llm_recordings" and action == "clear":
            yield from (Candidate(word, "keyword") for word in ("--unused", "--rows"))
        elif context.magic == "llm_batch" and action in {"show", "fetch", "cancel", "remove"}:
            yield from self._batches(action, context)
        elif context.magic == "llm_picker":
            yield from self._models(context.text)
        elif context.magic == "llm_config" and not action:
            cells = sorted(self._session.settings.traits(config=True))
            registry = sorted(self._session.registry.traits(config=True))
            names = [f"LLMMagics.{name}" for name in cells] + cells + [f"ProviderRegistry.{name}" for name in registry]
            yield from (Candidate(name, "setting") for name in names)

    def _turns(self, given: Collection[str]) -> Iterator[Candidate]:
        """Return the numbers of the current conversation's turns, and after the first the conversations' names."""
        count = len(self._session.conversations.get(self._session.settings.chat))
        yield from (Candidate(number, "turn") for number in map(str, range(1, count + 1)) if number not in given)
        if given:
            yield from self._of_option("chat")

    def _batches(self, action: str, context: CompletionContext) -> Iterator[Candidate]:
        """Return the ids of batches, for `fetch` also the files that may hold answers."""
        if len(context.given) == 1:
            yield from (Candidate(name, "batch") for name in batches.ids(self._session))
            if action == "fetch":
                yield from _files(context.text, {".jsonl"})
        if action == "remove":
            yield Candidate("--force", "keyword")

    # Names of the notebook

    def _variables(self, fits: Callable[[Any], bool]) -> Iterator[Candidate]:
        for name, value in list(self._namespace.items()):
            if not name.startswith("_") and name not in self._hidden and fits(value):
                yield Candidate(name, _kind(value))

    def _types(self) -> Iterator[Candidate]:
        yield from self._variables(lambda value: _is_type(value) or isinstance(value, types.ModuleType))
        yield from (Candidate(name, "class") for name in (*_BUILTIN_TYPES, *_OFFERED_TYPES))

    def _name(self, text: str, own: tuple[str, ...]) -> tuple[str, list[Candidate]]:
        """Complete a name of a template, or an attribute of one."""
        hidden = [name for name in list(self._namespace) if name.startswith("_")] if text.startswith("_") else []
        made = (Candidate(name, "instance") for name in (*own, *hidden))
        return self._dotted(text, chain(made, self._variables(lambda _: True)))

    def _inputs(self, text: str) -> tuple[str, list[Candidate]]:
        """Complete an expression of many values: frames first, then what else can be iterated over."""
        text, found = self._name(text, ())
        if "." in text:
            return text, found
        return text, sorted(found, key=lambda candidate: _many(self._namespace.get(candidate.text)))

    def _row_names(self, each: str) -> tuple[str, ...]:
        """Return the names that a template has for each row of what `each` names."""
        return (*_columns(self._namespace.get(each)), "item", "index", "row") if each else ()

    def _dotted(
        self, text: str, names: Iterable[Candidate], fits: Callable[[Any], bool] | None = None
    ) -> tuple[str, list[Candidate]]:
        """Complete the last part of a dotted name by what fits; no property is run."""
        path, dot, last = text.rpartition(".")
        if not dot:
            return text, _starting(text, names)
        first, *between = path.split(".")
        value = self._namespace.get(first)
        for name in between:
            value = value.get(name) if isinstance(value, dict) else inspect.getattr_static(value, name, None)
            if isinstance(value, property):
                return last, []
        if value is None:
            return last, []
        return last, [
            candidate
            for candidate in _starting(last, _attributes(value, hidden=last.startswith("_")))
            if fits is None or fits(inspect.getattr_static(value, candidate.text, None))
        ]


def _names_of(waiting: Iterable[GuardedSetting]) -> Iterator[str]:
    """Yield the models' names that stand in a project's file which is not trusted yet."""
    for item in waiting:
        if item.trait == "ProviderRegistry.aliases" and item.keys[2:]:
            yield item.keys[2]
        elif item.trait == "ProviderRegistry.providers" and item.keys[2:]:
            yield f"{item.keys[2]}:"


def _starting(text: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates that begin with what was typed, each once."""
    found = {candidate.text: candidate for candidate in candidates if candidate.text.startswith(text)}
    return list(found.values())


def _attributes(value: Any, *, hidden: bool) -> Iterator[Candidate]:
    if isinstance(value, dict):  # as in a template, where `d.key` is an item, too
        yield from (Candidate(key, "item") for key in list(value)[:200] if isinstance(key, str) and key.isidentifier())
    try:
        names = dir(value)
    except Exception:  # noqa: BLE001 - the user's own `__dir__`
        return
    yield from (Candidate(name, "attribute") for name in names if hidden or not name.startswith("_"))


def _filters() -> Iterator[Candidate]:
    from jinja2.filters import FILTERS

    return (Candidate(name, "function") for name in sorted(FILTERS))


def _files(text: str, endings: Collection[str]) -> list[Candidate]:
    """Return the folders, and the files of some endings, that a path may go on with."""
    folder, slash, last = text.rpartition("/")
    try:
        entries = sorted(Path(folder + slash if slash else ".").expanduser().iterdir())[:_MOST_FILES]
    except (OSError, RuntimeError):
        return []
    return [
        Candidate(f"{folder}{slash}{entry.name}{'/' * entry.is_dir()}", "path")
        for entry in entries
        if entry.name.startswith(last)
        and (last or not entry.name.startswith("."))
        and (entry.suffix.lower() in endings or entry.is_dir())
    ]


def _last_name(text: str) -> str:
    """Return the dotted name that an expression ends with, as far as it has been typed."""
    return re.split(r"[^\w.]", text)[-1]


def _is_type(value: Any) -> bool:
    return isinstance(value, type) or typing.get_origin(value) is not None or type(value).__module__ == "typing"


def _is_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType | types.MethodType)


def _is_data(value: Any) -> bool:
    return not isinstance(value, type | types.ModuleType | types.FunctionType)


def _many(value: Any) -> int:
    """Return 0 for a frame or a column of one, 1 for what else has items, 2 for anything else."""
    if type(value).__module__.partition(".")[0] in _FRAMES:
        return 0
    has_items = hasattr(type(value), "__iter__") and not isinstance(value, str | bytes | type)
    return 1 if has_items else 2


_FRAMES = frozenset({"pandas", "polars", "pyarrow", "dask"})


def _columns(value: Any) -> list[str]:
    """Return the names of a frame's columns, or of the fields of a list's first dict, that a template can say."""
    names: Any = ()
    if _many(value) == 0 and type(value).__name__ in {"DataFrame", "Table"}:
        names = getattr(value, "column_names" if type(value).__name__ == "Table" else "columns", ())
    elif type(value) is list and value and type(value[0]) is dict:
        names = value[0]
    try:
        return [name for name in list(names)[:200] if isinstance(name, str) and name.isidentifier()]
    except TypeError:
        return []


def _is_image(value: Any) -> bool:
    if isinstance(value, bytes | Path):
        return True
    if any(base.__name__ == "ndarray" for base in type(value).__mro__):
        return getattr(value, "ndim", 0) in {2, 3}
    from llm_magic.images import is_picture

    return is_picture(value)


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return "class"
    if isinstance(value, types.ModuleType):
        return "module"
    return "function" if _is_function(value) else "instance"


_VARIABLES_OR_FILES: Mapping[str, tuple[Callable[[Any], bool], Collection[str]]] = {
    "schema": (lambda value: isinstance(value, dict), {".json"}),
    "grammar": (lambda value: isinstance(value, str), {".gbnf", ".lark", ".ebnf"}),
    "image": (_is_image, {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"}),
}
"""Options that take a variable or a file: which variables fit, and the endings of the files."""
