"""The settings in effect: value, source and help of each; and the one place that changes one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from traitlets import TraitError
from traitlets.config import Config, Configurable

from llm_magic.close_matches import did_you_mean
from llm_magic.config.precedence import PROJECT, refusal, sources_of
from llm_magic.config.references import mark_secrets
from llm_magic.config.trust import COMMAND, GuardedSetting
from llm_magic.errors import ConfigurationError
from llm_magic.options.mapping import from_alias, from_mapping
from llm_magic.secrets import hidden


class Sections(Protocol):
    """Who has the sections of the configuration besides the settings: the registry of the providers."""

    def sections(self) -> Iterator[tuple[str, Configurable]]:
        """Yield the sections that are in force, each with the object that it configures."""

    def owner(self, section: str, trait: str) -> Configurable | None:
        """Return an object that a setting belongs to, `section` being its name or class; None where there is none."""

    def update_config(self, config: Config) -> None:
        """Change settings of whole classes."""

    @property
    def waiting(self) -> tuple[GuardedSetting, ...]:
        """The project's settings that wait for trust."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `name` as it is set (`OpenAIProvider.timeout`, or `eu.timeout` for a named provider).

    `shown` is the value as text, secrets masked; `source` is session, project (with its file), profile or default,
    and says where the project's own waits for trust.
    """

    name: str
    value: Any
    shown: str
    source: str
    help: str


def settings_in_force(settings: Configurable, registry: Sections) -> list[Setting]:
    """Return every setting: of the cells, of the registry, and of each provider.

    A provider whose configuration is wrong is left out: asking it says what is wrong.
    """
    sections = (("LLMMagics", settings), *registry.sections())
    return [setting for section, owner in sections for setting in _of(section, owner, registry)]


def set_value(settings: Configurable, registry: Sections, name: str, value: Any) -> Setting:
    """Change a setting for this session, and return it as it is then.

    Parameters
    ----------
    settings, registry
        Where settings are.
    name
        `LLMMagics.model`, `model` alone, `ProviderRegistry.aliases`, `OpenAIProvider.timeout` for all providers of
        a class, or `eu.timeout` for one of a name.
    value
        The value, or its text: a Python literal, else a plain string.

    Raises
    ------
    ConfigurationError
        There is no such setting, or it does not take the value.
    OptionError
        The value is to set options, and one of them is unknown or wrong.

    """
    section, _, trait = name.strip().rpartition(".")
    if section in {"", "LLMMagics"} and trait in settings.traits(config=True):
        owner: Configurable | None = settings
    else:
        owner = registry.owner(section, trait)
    if owner is None:
        wanted = f"{section}.{trait}" if section else trait
        known = [item.name for item in settings_in_force(settings, registry)]
        known += [item.rpartition(".")[2] for item in known]
        raise ConfigurationError(
            f"There is no setting {wanted}.", did_you_mean(wanted, known, "%llm_config lists all settings.")
        )
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    _check_names(name.strip(), owner.traits()[trait].metadata.get("entries"), value)
    try:
        if section == type(owner).__name__ and owner not in (settings, registry):
            registry.update_config(Config({section: {trait: value}}))
        else:
            setattr(owner, trait, value)
            sources_of(owner).of_session(trait)
    except TraitError as error:
        if isinstance(error.__cause__, ConfigurationError):
            raise error.__cause__ from None
        raise ConfigurationError(
            f"{name} does not take that value: {refusal(owner, trait, value, error)}",
            "%llm_config shows what it is for.",
        ) from error
    section = section or ("LLMMagics" if owner is settings else "ProviderRegistry")
    return next(item for item in _of(section, owner, registry) if item.name == f"{section}.{trait}")


def _check_names(name: str, entries: str | None, value: Any) -> None:
    """Refuse unknown names of options where they are set; elsewhere the next cell does."""
    if not isinstance(value, Mapping):
        return
    if entries == "options":
        from_mapping(value, name)
    elif entries == "options by model":
        for glob, options in value.items():
            from_mapping(options, f"{name}[{glob!r}]")
    elif entries == "aliases":
        for alias, options in value.items():
            if isinstance(options, Mapping):
                given = {key: item for key, item in options.items() if key not in {"model", "fallbacks", "dimensions"}}
                from_alias(given, alias)


def _of(section: str, owner: Any, registry: Sections) -> Iterator[Setting]:
    sources = sources_of(owner)
    waiting = {item.trait for item in registry.waiting}
    sections = {section, *(cls.__name__ for cls in type(owner).__mro__)}
    for name, trait in sorted(owner.traits(config=True).items()):
        value, source = getattr(owner, name), sources.of(name)
        if any(f"{known}.{name}" in waiting for known in sections):
            source = f"{source}; {PROJECT}: waits for {COMMAND}"
        yield Setting(f"{section}.{name}", value, repr(masked(value, name)), source, " ".join(trait.help.split()))


def masked(value: Any, name: str = "") -> Any:
    """Return a value of the configuration as it may be shown: plain texts, with what is secret in them masked.

    >>> masked({"proxy": "http://me:pass@proxy:3128", "X-Api-Key": "env:NAME", "token": "abc"})
    {'proxy': 'http://***@proxy:3128', 'X-Api-Key': 'env:NAME', 'token': '***'}

    """
    return hidden(mark_secrets(value, name))
