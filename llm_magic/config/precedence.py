"""Where each setting comes from: session over project over profile over default, and every value knows which it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import TraitError
from traitlets.config import Config, Configurable

from llm_magic.close_matches import close_matches
from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_magic.providers.registry import Catalogue

DEFAULT, PROFILE, PROJECT, SESSION = "default", "profile", "project", "session"
SECTION = "llm_magic"
_MERGED = ("providers", "aliases", "routes", "params", "model_params")
"""Settings whose entries stand each for itself: those of the project are put over those of the profile."""


class Sources:
    """Where the values of one configurable come from, kept up to date by watching it."""

    def __init__(self, owner: Configurable, known: Mapping[str, str] | None = None) -> None:
        self._known = dict(known or {})
        self._loading = ""
        owner.observe(self._changed, list(owner.traits(config=True)))

    def _changed(self, change: Any) -> None:
        if self._loading:
            self._known[change["name"]] = self._loading
        else:
            self._known[change["name"]] = SESSION

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
        configured = owner._find_my_config(owner.config)  # noqa: SLF001 - what traitlets itself loads
        known = Sources(owner, {name: PROFILE for name in configured if name in traits})
        owner._llm_magic_sources = known  # noqa: SLF001 - kept with the object that it describes
    return known


@dataclass(frozen=True)
class Project:
    """`[tool.llm_magic]` of a `pyproject.toml`: the values of settings, registry, and classes of providers."""

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    registry: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The name of this source."""
        return f"{PROJECT} ({self.path})"


def find_project(folder: Path) -> Path | None:
    """Return the nearest `pyproject.toml` with a section of ours, at or above a folder.

    Raises
    ------
    ConfigurationError
        The file cannot be read.

    """
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file() and SECTION in _tools(path):
            return path
    return None


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


def read_project(path: Path, settings: Configurable, registry: Configurable) -> Project:
    """Return what a `pyproject.toml` sets.

    A key of the section is a setting of `LLMMagics` or of `ProviderRegistry`; a table named as a class holds the
    settings of that class: `[tool.llm_magic.OpenAIProvider]`.

    Raises
    ------
    ConfigurationError
        A key is neither.

    """
    from llm_magic.providers.plugins import entries

    ours, theirs = settings.traits(config=True), registry.traits(config=True)
    classes = {entry.value.rpartition(":")[2] for entry in entries().values()} | {"Provider"}
    found: dict[str, dict[str, Any]] = {"settings": {}, "registry": {}}
    sections: dict[str, Mapping[str, Any]] = {}
    known = {"LLMMagics": ("settings", ours), "ProviderRegistry": ("registry", theirs)}
    for name, value in _tools(path)[SECTION].items():
        if name in ours:
            found["settings"][name] = value
        elif name in theirs:
            found["registry"][name] = value
        elif name in known and isinstance(value, Mapping):
            place, traits = known[name]
            for trait in value:
                _check(trait, traits, path, f"{name}.")
            found[place].update(value)
        elif name in classes and isinstance(value, Mapping):
            sections[name] = value
        else:
            _check(name, [*ours, *theirs, *known, *classes], path)
    return Project(path, found["settings"], found["registry"], sections)


def _check(name: str, known: Any, path: Path, before: str = "") -> None:
    if name not in known:
        close = close_matches(name, known)
        raise ConfigurationError(
            f"{path}: [tool.{SECTION}] has an unknown setting {before}{name}.",
            f"Did you mean {close[0]}?" if close else "%llm_config lists all settings.",
        )


def apply_project(settings: Configurable, registry: Catalogue, folder: Path | None = None) -> None:
    """Put the project's settings over those of the profile. An error is kept, and raised by the first cell.

    Parameters
    ----------
    settings, registry
        Freshly made from the profile's configuration.
    folder
        Where to look first; the notebook's folder, which a kernel starts in.

    """
    of_settings, of_registry = sources_of(settings), sources_of(registry)
    try:
        path = find_project(folder or Path.cwd())
        if path is None:
            return
        project = read_project(path, settings, registry)
        of_settings.load(settings, _over(settings, project.settings), project.source)
        values = dict(project.registry)
        if values.get("litellm_config"):
            values["litellm_config"] = str(path.parent / values["litellm_config"])
        registry.project = project
        of_registry.load(registry, _over(registry, values), project.source)
    except ConfigurationError as error:
        registry.problem = error


def _over(owner: Configurable, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, with what the profile has in the same mappings below them."""
    return {
        name: {**getattr(owner, name), **value} if name in _MERGED and isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def layers(
    registry: Catalogue, provider: Any, name: str, spec: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each source sets for one provider, the farthest first."""
    traits = {key: value for key, value in spec.items() if key != "class"}
    project = registry.project
    in_project = project is not None and name in project.registry.get("providers", {})
    by_session = sources_of(registry).of("providers") == SESSION
    yield PROFILE, provider.configured(registry.profile)
    if not in_project and not by_session:
        yield PROFILE, traits
    if project is not None:
        sections = Config({section: dict(values) for section, values in project.classes.items()})
        yield project.source, provider.configured(sections)
        if in_project and not by_session:
            yield project.source, traits
    yield SESSION, provider.configured(registry.session)
    if by_session:
        yield SESSION, traits
