"""Precedence of settings: session over project over profile over default; each knows its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from traitlets import TraitError
from traitlets.config import Config, Configurable

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import ConfigurationError

DEFAULT, PROFILE, PROJECT, SESSION = "default", "profile", "project", "session"
SECTION = "llm_magic"
_MERGED = ("providers", "aliases", "routes", "params", "model_params")
"""Settings whose entries stand each for itself: those of the project are put over those of the profile."""


class Sources:
    """Where the values of one configurable come from, kept up to date by watching it."""

    def __init__(self, owner: Configurable, known: Mapping[str, str]) -> None:
        self._known = dict(known)
        owner.observe(self._changed, list(owner.traits(config=True)))

    def _changed(self, change: Any) -> None:
        self._known[change["name"]] = SESSION

    def of(self, trait: str) -> str:
        """Return the source of a trait's value."""
        return self._known.get(trait, DEFAULT)

    def load(self, owner: Configurable, values: Mapping[str, Any], source: str) -> None:
        """Set `values`, as coming from `source`; raises ConfigurationError where a trait does not take its value."""
        for trait, value in values.items():
            try:
                setattr(owner, trait, value)
            except TraitError as error:
                raise ConfigurationError(f"{source}: {error}") from error
            self._known[trait] = source


def sources_of(owner: Any) -> Sources:
    """Return the sources of a configurable, watched from the first call on."""
    known: Sources | None = getattr(owner, "_llm_magic_sources", None)
    if known is None:
        traits = owner.traits(config=True)
        known = Sources(owner, {name: PROFILE for name in configured(owner, owner.config) if name in traits})
        owner._llm_magic_sources = known  # noqa: SLF001 - kept with the object that it describes
    return known


def configured(owner: Any, config: Config) -> dict[str, Any]:
    """Return what the sections of a configuration set for one configurable."""
    found = owner._find_my_config(config)  # noqa: SLF001 - what traitlets itself loads
    return {name: value for name, value in found.items() if not isinstance(value, Config)}


def find_project(folder: Path) -> Path | None:
    """Return the nearest `pyproject.toml` with a section of ours, at or above a folder."""
    paths = (place / "pyproject.toml" for place in (folder, *folder.parents))
    return next((path for path in paths if path.is_file() and SECTION in _tools(path)), None)


def _tools(path: Path) -> Mapping[str, Any]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        if SECTION not in text:
            return {}
        tools: Mapping[str, Any] = tomllib.loads(text).get("tool", {})
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}", "Correct the file, then %reload_ext llm_magic."
        ) from error
    return tools


def read_project(path: Path, owners: Mapping[str, Configurable], classes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what a `pyproject.toml` sets, by section: that of an owner, or of one of the `classes` of providers.

    A key of `[tool.llm_magic]` is a setting of one of the `owners`; a table named as one of these or of the classes
    holds its settings: `[tool.llm_magic.OpenAIProvider]`.

    Raises
    ------
    ConfigurationError
        A key is neither.

    """
    known: dict[str, Iterable[str]] = {section: owner.traits(config=True) for section, owner in owners.items()}
    sections = {trait: section for section, traits in known.items() for trait in traits}
    found: dict[str, dict[str, Any]] = {section: {} for section in known}
    for name, value in _tools(path)[SECTION].items():
        if name in sections:
            found[sections[name]][name] = str(path.parent / value) if name == "litellm_config" and value else value
        elif name in {*known, *classes} and isinstance(value, Mapping):
            for trait in value:
                _check(trait, known.get(name, value), path, f"{name}.")  # a class checks its own when it is made
            found.setdefault(name, {}).update(value)
        else:
            _check(name, [*sections, *known, *classes], path)
    return found


def _check(name: str, known: Iterable[str], path: Path, before: str = "") -> None:
    if name not in known:
        raise ConfigurationError(
            f"{path}: [tool.{SECTION}] has an unknown setting {before}{name}.",
            did_you_mean(name, known, "%llm_config lists all settings.", 1),
        )


def apply(values: Mapping[str, Any], owner: Configurable, source: str) -> None:
    """Put the project's values over those of the profile, whose mappings they are put together with."""
    merged = {
        name: {**getattr(owner, name), **value} if name in _MERGED and isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    sources_of(owner).load(owner, merged, source)
