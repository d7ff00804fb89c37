"""Trust in a project's file: which of its settings wait for it, by the mark of each trait, and what is remembered.

A trait carries `.tag(config=True, trusted_only=True, could="send")` where it could send prompts or keys elsewhere, run
code, write files, or read them for a prompt; one without the mark counts as one of these. So do options
(`llm_magic.options.option.Option`), which aliases and `LLMMagics.params` set.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitlets.config import Configurable

from llm_magic import private_files
from llm_magic.config.precedence import PROJECT
from llm_magic.config.references import variable_of
from llm_magic.errors import ConfigurationError
from llm_magic.options import BY_NAME

COMMAND = "%llm_config trust"
VARIABLE = "LLM_MAGIC_TRUST"
Sections = Mapping[str, Mapping[str, Any]]
"""Settings by trait, by section."""

_COULD = {
    "send": "send prompts or keys elsewhere",
    "run": "run code",
    "write": "write files",
    "read": "read files for a prompt",
    "spend": "use more than your own budget allows",
    "": "do anything: its class does not say",
    "set": "do what the setting says, for somebody else",
}
_ANY_CLASS = "Provider"  # the section of all classes, whose own settings it may hold, too
_NAMED = 3  # settings that a line names
_LONGEST = 100  # characters of such a name
_LIMIT = 2**20  # bytes
_FOLLOWED = 16 * 2**20  # bytes of a file that belongs to a setting


@dataclass(frozen=True, slots=True)
class GuardedSetting:
    """A setting that a project's file sets only once it is trusted.

    `keys` lead to it: section, trait, and further keys of a mapping, such as the name of an alias. `content` is the
    hash of the file that the value names, where that file holds settings, too.
    """

    keys: tuple[str, ...]
    value: Any
    kinds: tuple[str, ...]
    content: str = ""

    @property
    def name(self) -> str:
        """Its name, to be shown: `OpenAIProvider.base_url`, `ProviderRegistry.providers.eu`."""
        return ".".join(map(printable, self.keys))

    @property
    def could(self) -> str:
        """What it could do, in words."""
        return ", ".join(_COULD[kind] for kind in self.kinds)

    @property
    def trait(self) -> str:
        """The name up to the trait: `ProviderRegistry.providers` of one of its entries."""
        return ".".join(self.keys[:2])

    def digest(self, path: Path) -> str:
        """Return the hash of the file's path, the setting's place and its value."""
        said = json.dumps([str(path), self.keys, self.value, self.content], sort_keys=True, default=repr)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class KnownClasses:
    """What is known of the sections and names in a file, without importing what the file itself names.

    `of_section` and `of_kind` return the class of a section, and of a `class` in `providers`; None where there is
    none, or it cannot be loaded. `providers` are the user's own named ones, `names` all that have a meaning already.
    """

    of_section: Callable[[str], type[Configurable] | None]
    of_kind: Callable[[str], type[Configurable] | None]
    providers: Mapping[str, Any] = field(default_factory=dict)
    names: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A project's settings, and whether it is trusted.

    Attributes
    ----------
    path
        The file.
    sections
        All that it sets.
    in_force
        What of it is in force.
    guarded
        What needs trust.
    trusted
        What trusts it: `LLM_MAGIC_TRUST=1`, or the file that remembers it; empty where nothing does.
    doubt
        Why the file may be somebody else's; then all of it needs trust.
    notice
        What of the user's memory of trust is not in order, or changed since.

    """

    path: Path
    sections: Sections
    in_force: Sections
    guarded: tuple[GuardedSetting, ...]
    trusted: str = ""
    doubt: str = ""
    notice: str = ""

    @property
    def source(self) -> str:
        """The source of its settings."""
        return f"{PROJECT} ({self.path})"

    @property
    def waiting(self) -> tuple[GuardedSetting, ...]:
        """What waits for trust."""
        return () if self.trusted else self.guarded

    def line(self) -> str:
        """Return the line that says what waits; empty where nothing does."""
        if not self.waiting:
            return ""
        path, before = printable(str(self.path)), f"{self.notice} " if self.notice else ""
        if self.doubt:
            return f"{before}{path} sets nothing, because {self.doubt}: {COMMAND} shows it and puts it in force."
        names, one = listed([item.name for item in self.waiting]), len(self.waiting) == 1
        wait, them = ("waits", "it") if one else ("wait", "them")
        return f"{before}{names} in {path} {wait} for {COMMAND}, which shows {them} and puts {them} in force."

    def digests(self) -> list[list[str]]:
        """Return the names and hashes of what needs trust."""
        return sorted([item.name, item.digest(self.path)] for item in self.guarded)

    def allowed(self, cls: type[Configurable], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a class's settings is in force: a section may also be of classes below the one that it names.

        That is the case for `[tool.llm_magic.CompatibleProvider]` and a class derived from that.
        """
        if self.trusted:
            return dict(values)
        return {name: value for name, value in values.items() if not _kinds(cls, name, value)}


def judge(path: Path, sections: Sections, known: KnownClasses, doubt: str = "") -> Project:
    """Return a project's settings, divided by what is trusted of them."""
    guarded: list[GuardedSetting] = []
    free: dict[str, dict[str, Any]] = {}
    for section, values in sections.items():
        cls = known.of_section(section)
        free[section] = {}
        for name, value in values.items():
            waiting = list(_guarded(section, cls, name, value, known))
            kept = _without(value, (section, name), waiting)
            if doubt or (kept is not _NOTHING and _refers(kept)):  # such as a list in the place of a table
                kinds = dict.fromkeys(kind for item in waiting for kind in item.kinds)
                content = "".join(item.content for item in waiting)
                whole = tuple(kinds) or ("set" if doubt else "send",)
                waiting, kept = [GuardedSetting((section, name), value, whole, content)], _NOTHING
            guarded += waiting
            if kept is not _NOTHING:
                free[section][name] = kept
    project = Project(path, sections, free, tuple(guarded), doubt=doubt)
    if not guarded:
        return project
    if os.environ.get(VARIABLE) in {"1", "true"}:
        return in_force(project, f"{VARIABLE}={os.environ[VARIABLE]}")
    remembered, problem = _remembered(path)
    now = project.digests()
    if remembered == now:
        return in_force(project, str(_memory_of(path)))
    if remembered is not None:
        changed = {
            name: None
            for name, digest in (*now, *remembered)
            if [name, digest] not in now or [name, digest] not in remembered
        }
        problem = f"Changed since {COMMAND}: {listed(list(changed))}."
    return replace(project, notice=problem)


def in_force(project: Project, trusted: str) -> Project:
    """Return the project with all that it sets in force."""
    return replace(project, in_force=project.sections, trusted=trusted, notice="")


def require_unchanged(project: Project, trait: str) -> None:
    """Raise ConfigurationError where the file that a trusted setting names is not the one that was trusted."""
    for item in project.guarded:
        if (
            item.keys[1:] == (trait,)
            and item.content != _content(item.value)
            and not project.trusted.startswith(VARIABLE)
        ):
            raise ConfigurationError(
                f"{item.value} has changed since it was trusted.", f"{COMMAND} puts it in force as it is now."
            )


# What needs trust

_NOTHING = object()


def _without(value: Any, keys: tuple[str, ...], waiting: list[GuardedSetting]) -> Any:
    """Return a value without what waits of it; `_NOTHING` where that is all."""
    if any(item.keys == keys for item in waiting):
        return _NOTHING
    if not isinstance(value, Mapping) or all(item.keys[: len(keys)] != keys for item in waiting):
        return value
    kept = {key: _without(item, (*keys, key), waiting) for key, item in value.items()}
    kept = {key: item for key, item in kept.items() if item is not _NOTHING}
    return kept or _NOTHING


def _guarded(
    section: str, cls: type[Configurable] | None, name: str, value: Any, known: KnownClasses
) -> Iterator[GuardedSetting]:
    """Yield what of one trait's value needs trust."""
    trait = None if cls is None else cls.class_traits().get(name)
    if trait is None:
        if cls is None or section == _ANY_CLASS:
            yield GuardedSetting((section, name), value, ("",))
        return  # else there is no such setting, and the class says so
    entries = _ENTRIES.get(trait.metadata.get("entries"))
    kinds = _kinds(cls, name, None if entries else value)
    if kinds and not (entries and isinstance(value, Mapping)):
        content = _content(value) if trait.metadata.get("holds_settings") else ""
        yield GuardedSetting((section, name), value, kinds, content)
    elif entries is not None and isinstance(value, Mapping):
        for key, item in value.items():
            yield from entries((section, name, key), item, known)


def _kinds(cls: type[Configurable] | None, name: str, value: Any) -> tuple[str, ...]:
    """Return what a trait's value could do; nothing where it needs no trust."""
    trait = None if cls is None else cls.class_traits().get(name)
    if trait is None or trait.metadata.get("trusted_only") is not False:
        return ("" if trait is None else trait.metadata.get("could", ""),)
    return ("send",) if _refers(value) else ()


def _refers(value: Any) -> bool:
    """Whether a value reads a variable of the environment anywhere."""
    if isinstance(value, str):
        return variable_of(value) is not None
    if isinstance(value, Mapping):
        return any(_refers(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(map(_refers, value))


def _of_option(keys: tuple[str, ...], value: Any, _known: KnownClasses) -> Iterator[GuardedSetting]:
    option = BY_NAME.get(keys[-1].replace("-", "_"))
    if option is None:  # which is an error once it is in force
        yield GuardedSetting(keys, value, ("send",))
    elif option.trusted_only is not False:
        yield GuardedSetting(keys, value, (option.could,))
    elif _refers(value):
        yield GuardedSetting(keys, value, ("send",))


def _of_options_by_model(keys: tuple[str, ...], values: Any, known: KnownClasses) -> Iterator[GuardedSetting]:
    for name, value in values.items() if isinstance(values, Mapping) else ():
        yield from _of_option((*keys, name), value, known)


def _of_alias(keys: tuple[str, ...], alias: Any, known: KnownClasses) -> Iterator[GuardedSetting]:
    """Judge an alias, which waits as a whole: without one of its options it would ask in another way."""
    options = alias if isinstance(alias, Mapping) else {}
    kinds = [
        kind
        for key, value in options.items()
        if key not in {"model", "fallbacks"}
        for item in _of_option((key,), value, known)
        for kind in item.kinds
    ]
    if keys[-1].partition(":")[0] in known.names or _refers(alias):  # a name that leads to a provider already
        kinds.append("send")
    if kinds:
        yield GuardedSetting(keys, alias, tuple(dict.fromkeys(kinds)))


def _of_provider(keys: tuple[str, ...], spec: Any, known: KnownClasses) -> Iterator[GuardedSetting]:
    """Judge a named provider, which waits as a whole."""
    if not isinstance(spec, Mapping):
        return  # which is an error when it is asked for
    name = keys[-1]
    kind = str(spec.get("class", name))
    cls = known.of_kind(kind)
    kinds = ["run" if ":" in kind else ""] if cls is None else []
    traits = {} if cls is None else cls.class_traits(config=True)
    kinds += [found for key, value in spec.items() if key in traits for found in _kinds(cls, key, value)]
    replaces = name in known.providers and known.providers[name] != spec
    if replaces or (name in known.names and name not in known.providers and kind != name):
        kinds.append("send")  # what is asked of that name by now would go there
    if kinds:
        yield GuardedSetting(keys, spec, tuple(dict.fromkeys(kinds)))


def _of_mcp_server(keys: tuple[str, ...], server: Any, _known: KnownClasses) -> Iterator[GuardedSetting]:
    """Judge an MCP server, which waits as a whole: a program runs, and one elsewhere gets what a model tells it."""
    is_elsewhere = isinstance(server, Mapping) and "url" in server and "command" not in server
    yield GuardedSetting(keys, server, ("send",) if is_elsewhere else ("run",))


_ENTRIES: Mapping[Any, Callable[[tuple[str, ...], Any, KnownClasses], Iterator[GuardedSetting]]] = {
    "options": _of_option,
    "options by model": _of_options_by_model,
    "aliases": _of_alias,
    "providers": _of_provider,
    "mcp servers": _of_mcp_server,
}
"""How the entries of a trait are judged, by its tag `entries`."""


def _content(value: Any) -> str:
    """Return the hash of the file that a value names; empty where it cannot be read."""
    try:
        return hashlib.sha256(private_files.read(Path(value), _FOLLOWED)[0]).hexdigest()
    except (OSError, TypeError, ValueError):
        return ""


# What is remembered: one file for each project, so that kernels do not write over each other's


def folder() -> Path:
    """Return the folder of the user's configuration: `XDG_CONFIG_HOME`, or what the system has for it."""
    if sys.platform == "win32":
        place = os.environ.get("APPDATA", "")
        default = Path.home() / "AppData" / "Roaming"
    else:
        place = os.environ.get("XDG_CONFIG_HOME", "")
        default = Path.home() / ("Library/Application Support" if sys.platform == "darwin" else ".config")
    return (Path(place) if os.path.isabs(place) else default) / "llm_magic"  # noqa: PTH117 - relative ones are void


def _memory_of(path: Path) -> Path:
    name = hashlib.sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()
    return folder() / "trusted" / f"{name}.json"


def remember(project: Project) -> Project:
    """Remember that a project is trusted as it is, and return it so; raises ConfigurationError."""
    try:
        memory = _memory_of(project.path)
        private_files.make_folder(memory.parent)
        text = json.dumps({"path": str(project.path), "settings": project.digests()}, indent=1)
        private_files.replace(memory, text.encode("utf-8"), mode=private_files.MODE)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"Trust in {printable(str(project.path))} cannot be remembered: {reason}.",
            f"XDG_CONFIG_HOME names another folder; {VARIABLE}=1 trusts without one.",
        ) from error
    return in_force(project, str(memory))


def forget(project: Project) -> bool:
    """Forget that a project is trusted; False where it was not."""
    try:
        _memory_of(project.path).unlink()
    except (OSError, RuntimeError):
        return False
    return True


def _remembered(path: Path) -> tuple[list[list[str]] | None, str]:
    """Return the names and hashes of the settings that are trusted; and what is wrong with the memory of them."""
    try:
        memory = _memory_of(path)
        data, found = private_files.read(memory, _LIMIT)
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None, ""
    except OSError as error:
        return None, f"{memory} cannot be read ({error.strerror or 'it is no plain file'}), so nothing is trusted."
    if hasattr(os, "geteuid") and (
        found.st_uid not in {os.geteuid(), 0} or found.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    ):
        return None, f"{memory} may be written by others, so nothing is trusted."
    try:
        settings = [[str(name), str(digest)] for name, digest in json.loads(data)["settings"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, f"{memory} is damaged, so nothing is trusted."
    return settings, ""


# In words


def listed(names: Sequence[str]) -> str:
    """Return names for a line, the first ones of many."""
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more settings"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def printable(text: str) -> str:
    """Return a name out of a file of others, as it may stand in a line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
