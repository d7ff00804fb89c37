"""Precedence of settings: session over project over profile over default; each knows its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from traitlets import TraitError
from traitlets.config import Config, Configurable

from llm_magic.errors import ConfigurationError

DEFAULT, PROFILE, PROJECT, SESSION = "default", "profile", "project", "session"
_FARTHEST_FIRST = (DEFAULT, PROFILE, PROJECT, SESSION)
_MERGED = ("providers", "aliases", "routes", "params", "model_params", "mcp_servers")
"""Settings whose entries stand each for itself: those of the project are put over those of the profile."""


class Sources:
    """Where the values of one configurable come from, kept up to date by watching it."""

    def __init__(self, owner: Configurable, known: Mapping[str, str]) -> None:
        self._known = dict(known)
        self._entries: dict[str, dict[str, tuple[str, Any]]] = {}
        for trait in _MERGED:
            if owner.has_trait(trait):
                self.note_entries(owner, trait, getattr(owner, trait), self.of(trait))
        owner.observe(self._changed, list(owner.traits(config=True)))

    def _changed(self, change: Any) -> None:
        self._known[change["name"]] = SESSION

    def of(self, trait: str) -> str:
        """Return the source of a trait's value."""
        return self._known.get(trait, DEFAULT)

    def of_session(self, trait: str) -> None:
        """Note that the session has set a trait, be it to the value that it had."""
        self._known[trait] = SESSION
        self._entries.pop(trait, None)

    def of_entry(self, owner: Configurable, trait: str, key: str) -> str:
        """Return the source of an entry of a mapping: that of its value, where several sources put it together."""
        source, value = self._entries.get(trait, {}).get(key, (SESSION, None))
        return source if _same(getattr(owner, trait).get(key), value) else SESSION

    def note_entries(self, owner: Configurable, trait: str, keys: Iterable[str], source: str) -> None:
        """Note that these entries of a mapping come from `source`, with the values that they have now."""
        known, now = self._entries.setdefault(trait, {}), getattr(owner, trait)
        known.update({key: (source, now[key]) for key in keys if key in now})

    def load(self, owner: Configurable, values: Mapping[str, Any], source: str) -> None:
        """Set `values`, as coming from `source`; raises ConfigurationError where a trait does not take its value."""
        for trait, value in values.items():
            try:
                setattr(owner, trait, value)
            except TraitError as error:
                if isinstance(cause := error.__cause__, ConfigurationError):
                    raise ConfigurationError(f"{source}: {cause.message}", cause.hint) from error
                whose = getattr(owner, "name", "")  # a provider's
                raise ConfigurationError(
                    f"{f'{whose}, ' if whose else ''}{source}: {refusal(owner, trait, value, error)}"
                ) from error
            except ConfigurationError as error:
                raise ConfigurationError(f"{source}: {error.message}", error.hint) from error
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


def apply(values: Mapping[str, Any], owner: Configurable, source: str) -> None:
    """Put the project's values over those of the profile, whose mappings they are put together with.

    What the session has set stays.
    """
    sources = sources_of(owner)
    for name, value in values.items():
        of_session, now = sources.of(name) == SESSION, getattr(owner, name)
        merges = name in _MERGED and isinstance(value, Mapping)
        if of_session and merges:
            sources.load(owner, {name: {**value, **now}}, SESSION)
        elif not of_session:
            sources.load(owner, {name: {**now, **value} if merges else value}, source)
        if merges:
            sources.note_entries(owner, name, [key for key in value if not (of_session and key in now)], source)


def nearness(source: str) -> int:
    """Return how near a source is: the larger wins.

    >>> nearness("session") > nearness("project (/home/me/pyproject.toml)") > nearness("profile") > nearness("default")
    True

    """
    return _FARTHEST_FIRST.index(source.partition(" ")[0])


def refusal(owner: Configurable, trait: str, value: Any, error: TraitError) -> str:
    """Return why a trait does not take a value, without repeating a text, which may be a secret."""
    if isinstance(value, bool | int | float):
        return str(error)
    return f"{trait} expected {owner.traits()[trait].info()}, not this {type(value).__name__}."


def _same(one: object, other: object) -> bool:
    """Whether two values are equal; of those that cannot tell, such as arrays, whether they are one."""
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - whatever a class of the user's raises
        return False
