"""Precedence of settings: session over project over profile over default; each knows its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
        self._loading = SESSION
        owner.observe(self._changed, list(owner.traits(config=True)))

    def _changed(self, change: Any) -> None:
        self._known[change["name"]] = self._loading

    def of(self, trait: str) -> str:
        """Return the source of a trait's value."""
        return self._known.get(trait, DEFAULT)

    @contextmanager
    def loading(self, source: str) -> Iterator[None]:
        """Take what is set meanwhile as coming from `source`."""
        before, self._loading = self._loading, source
        try:
            yield
        finally:
            self._loading = before

    def load(self, owner: Configurable, values: Mapping[str, Any], source: str) -> None:
        """Set `values`, as coming from `source`.

        Raises
        ------
        ConfigurationError
            A trait does not take its value.

        """
        for trait, value in values.items():
            try:
                with self.loading(source):
                    setattr(owner, trait, value)
            except TraitError as error:
                raise ConfigurationError(f"{source}: {error}") from error
            self._known[trait] = source  # also where the value is that of the default


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


@dataclass(frozen=True)
class Project:
    """`[tool.llm_magic]` of a `pyproject.toml`: the values of settings, registry, and classes of providers."""

    path: Path
    settings: Mapping[str, Any]
    registry: Mapping[str, Any]
    classes: Config

    @property
    def source(self) -> str:
        """The name of this source."""
        return f"{PROJECT} ({self.path})"


@dataclass
class Layers:
    """What the classes of providers are configured with, by source."""

    profile: Config
    project: Project | None = None
    session: Config = field(default_factory=Config)
    """What `%config` has set since."""

    def of(
        self, provider: Configurable, name: str, own: dict[str, Any], *, by_session: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what each source sets for one provider, the farthest first.

        Parameters
        ----------
        provider, name
            The provider, and its name in `ProviderRegistry.providers`.
        own
            What stands there.
        by_session
            Whether that was set in this session.

        """
        layers = [(PROFILE, self.profile), (SESSION, self.session)]
        source_of_own = SESSION if by_session else PROFILE
        if self.project is not None:
            layers.insert(1, (self.project.source, self.project.classes))
            if not by_session and name in self.project.registry.get("providers", {}):
                source_of_own = self.project.source
        for source, config in layers:
            yield source, configured(provider, config)
            if source == source_of_own:
                yield source, own


def find_project(folder: Path) -> Path | None:
    """Return the nearest `pyproject.toml` with a section of ours, at or above a folder.

    Raises
    ------
    ConfigurationError
        The file cannot be read.

    """
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


def read_project(path: Path, settings: Configurable, registry: Configurable, classes: Iterable[str]) -> Project:
    """Return what a `pyproject.toml` sets.

    A key of the section is a setting of `LLMMagics` or of `ProviderRegistry`; a table named as one of the `classes`
    holds the settings of that class: `[tool.llm_magic.OpenAIProvider]`.

    Raises
    ------
    ConfigurationError
        A key is neither.

    """
    known = {"LLMMagics": settings.traits(config=True), "ProviderRegistry": registry.traits(config=True)}
    values: dict[str, dict[str, Any]] = {section: {} for section in known}
    sections: dict[str, Any] = {}
    for name, value in _tools(path)[SECTION].items():
        section = next((section for section, traits in known.items() if name in traits), None)
        if section is not None:
            values[section][name] = value
        elif name in known and isinstance(value, Mapping):
            for trait in value:
                _check(trait, known[name], path, f"{name}.")
            values[name].update(value)
        elif name in classes and isinstance(value, Mapping):
            sections[name] = dict(value)
        else:
            _check(name, [*(trait for traits in known.values() for trait in traits), *known, *classes], path)
    of_registry = values["ProviderRegistry"]
    if of_registry.get("litellm_config"):
        of_registry["litellm_config"] = str(path.parent / of_registry["litellm_config"])
    return Project(path, values["LLMMagics"], of_registry, Config(sections))


def _check(name: str, known: Iterable[str], path: Path, before: str = "") -> None:
    if name not in known:
        raise ConfigurationError(
            f"{path}: [tool.{SECTION}] has an unknown setting {before}{name}.",
            did_you_mean(name, known, "%llm_config lists all settings.", 1),
        )


def apply(values: Mapping[str, Any], owner: Configurable, source: str) -> None:
    """Put the project's values over those of the profile, whose mappings they are put together with.

    Raises
    ------
    ConfigurationError
        A trait does not take its value.

    """
    merged = {
        name: {**getattr(owner, name), **value} if name in _MERGED and isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    sources_of(owner).load(owner, merged, source)
