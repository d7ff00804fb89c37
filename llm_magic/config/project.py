"""The project's file: the nearest `pyproject.toml` with a section of ours, found, judged by its owner and read once."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets.config import Configurable

from llm_magic import private_files
from llm_magic.close_matches import did_you_mean
from llm_magic.errors import ConfigurationError

FILE = "pyproject.toml"
SECTION = "llm_magic"
LIMIT = 2**20  # bytes
_CORRECT = "Correct the file, then %reload_ext llm_magic."


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """A file and what its section `[tool.llm_magic]` holds.

    `doubt` says why it may not be the user's own, and is empty where it is.
    """

    path: Path
    table: Mapping[str, Any]
    doubt: str = ""


def find_project(folder: Path) -> ProjectFile | None:
    """Return the nearest `pyproject.toml` with a section of ours.

    Raises
    ------
    ConfigurationError
        The user's own file cannot be read. One that is somebody else's is passed over then.

    """
    for place in places(folder):
        if (found := _read(place / FILE)) is not None:
            return found
    return None


def places(folder: Path) -> Iterator[Path]:
    """Yield the folders to look in: from this one up to the repository's root or the home folder, the nearer of these.

    A folder that lies in neither is the only one: above it may be anybody's.
    """
    here, home = Path(os.path.realpath(folder)), _home()
    above = [here, *here.parents]
    ends = (number for number, place in enumerate(above) if place == home or os.path.lexists(place / ".git"))
    yield from above[: next(ends, 0) + 1]


def _home() -> Path | None:
    try:
        home = Path(os.path.realpath(Path.home()))
    except RuntimeError:
        return None
    return home if home != home.parent else None  # "/" is the home of accounts that have none


def _read(path: Path) -> ProjectFile | None:
    """Return a file that has a section of ours; None where it has none, or is no plain file."""
    try:
        data, found = private_files.read(path, LIMIT + 1)
        doubt = _doubt(path, found)
    except (FileNotFoundError, private_files.NotPlainError):
        return None
    except OSError as error:
        if _is_of_others(path):
            return None
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", _CORRECT) from error
    if SECTION.encode() not in data:
        return None
    try:
        table = _table(path, data)
    except ConfigurationError:
        if doubt:
            return None
        raise
    return None if table is None else ProjectFile(path, table, doubt)


_NEARLY = re.compile(rb"l+m+[-_. ]?magics?", re.IGNORECASE)
"""What a file has to hold for one of its sections to be a misspelled one of ours."""


def misspelled(folder: Path) -> str:
    """Return the line that says which section of a file was meant to be ours; empty where none is.

    Those files are looked at in which a section of ours would be found, and which are the user's own.
    """
    for place in places(folder):
        path = place / FILE
        try:
            data, found = private_files.read(path, LIMIT)
            if not _NEARLY.search(data) or _doubt(path, found):
                continue
            import tomllib

            names = _near_spellings(tomllib.loads(data.decode()))
        except (OSError, private_files.NotPlainError, ValueError, RecursionError):
            continue  # what cannot be read says so where it is ours
        if names and str(path).isprintable():
            sets = "sets nothing" if len(names) == 1 else "set nothing"
            return f"{' and '.join(names)} in {path} {sets}: the section of llm_magic is [tool.{SECTION}]."
    return ""


def _near_spellings(document: Mapping[str, Any]) -> list[str]:
    tools = document.get("tool")
    tables = {f"[tool.{name}]": name for name in tools if name != SECTION} if isinstance(tools, Mapping) else {}
    tables |= {f"[{name}]": name for name in document if name != "tool"}
    return [shown for shown, name in tables.items() if _NEARLY.fullmatch(name.encode("utf-8", "replace"))]


def _table(path: Path, data: bytes) -> Mapping[str, Any] | None:
    import tomllib

    if len(data) > LIMIT:
        raise ConfigurationError(f"{path} cannot be read: it is larger than {LIMIT // 2**20} MB.", _CORRECT)
    try:
        tools = tomllib.loads(data.decode()).get("tool")
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", _CORRECT) from error
    table = tools.get(SECTION) if isinstance(tools, Mapping) else None
    if table is not None and not isinstance(table, Mapping):
        raise ConfigurationError(f"{path} cannot be read: tool.{SECTION} is no table.", _CORRECT)
    return table


def _doubt(path: Path, found: os.stat_result) -> str:
    """Return why a file that was read may be somebody else's; `found` is of what was opened.

    As git judges a repository (`safe.directory`): the file, the link to it, if it is one, and its folder are the
    user's. Root's count as the user's, which git does not let pass: root can change what runs here in any case, and
    images of containers are full of its files. Whoever is root here asks about files of others, as git does.
    """
    if not hasattr(os, "geteuid"):
        return ""  # Windows has no numbers of owners, and its modes tell nothing of who may write
    folder = path.parent.stat()
    for what, item in (("it", found), ("the link to it", path.lstat()), ("its folder", folder)):
        if item.st_uid not in {os.geteuid(), 0}:
            return f"{what} belongs to another user (uid {item.st_uid})"
    if found.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return "everybody may write to its folder"
    return ""


def _is_of_others(path: Path) -> bool:
    """Whether a file that cannot be read is of another user, or cannot even be looked at."""
    try:
        return not hasattr(os, "geteuid") or path.stat().st_uid not in {os.geteuid(), 0}
    except OSError:
        return True


def sections_of(
    file: ProjectFile, owners: Mapping[str, Configurable], classes: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return what a file sets, by section: that of an owner, or of one of the `classes` of providers.

    A key of `[tool.llm_magic]` is a setting of one of the `owners`; a table named as one of these or of the classes
    holds its settings: `[tool.llm_magic.OpenAIProvider]`.

    Raises
    ------
    ConfigurationError
        A key is neither, or one at any depth is not printable: it would draw on the screen wherever it is named.

    """
    path = file.path
    for key in _keys(file.table):
        if not key.isprintable():
            raise ConfigurationError(f"{path}: [tool.{SECTION}] has a name that is not printable: {key!r}.", _CORRECT)
    known: dict[str, Iterable[str]] = {section: owner.traits(config=True) for section, owner in owners.items()}
    owner_of = {trait: section for section, traits in known.items() for trait in traits}
    found: dict[str, dict[str, Any]] = {section: {} for section in known}
    for name, value in file.table.items():
        if name in owner_of:
            found[owner_of[name]][name] = value
        elif name in {*known, *classes} and isinstance(value, Mapping):
            for trait in value:
                _check(trait, known.get(name, value), path, f"{name}.")  # a class checks its own when it is made
            found.setdefault(name, {}).update(value)
        else:
            _check(name, [*owner_of, *known, *classes], path)
    for values in found.values():
        for name in _FILES:
            if isinstance(relative := values.get(name), str) and relative:
                values[name] = str(path.parent / Path(relative).expanduser())
    return found


_FILES = ("litellm_config", "price_file")
"""Settings that name a file: a relative path begins at the project's folder."""


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _check(name: str, known: Iterable[str], path: Path, before: str = "") -> None:
    if name not in known:
        raise ConfigurationError(
            f"{path}: [tool.{SECTION}] has an unknown setting {before}{name}.",
            did_you_mean(name, known, "%llm_config lists all settings.", 1),
        )
