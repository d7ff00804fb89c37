"""Every setting in force, with its value, where it came from and what it is for; and the one place that changes one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from traitlets import TraitError
from traitlets.config import Config, Configurable

from llm_magic.close_matches import close_matches
from llm_magic.config.precedence import sources_of
from llm_magic.errors import ConfigurationError
from llm_magic.providers.base import Provider
from llm_magic.providers.credentials import is_secret_header, variable_of
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.urls import without_secrets

MASK = "***"
_NAMES_ONLY = {"api_key_env", "azure_ad_token_env", "azure_ad_token_provider", "headers_env"}
"""Settings that say where a secret is, and hold none."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `name` as it is set (`OpenAIProvider.timeout`, or `eu.timeout` for a named provider).

    `shown` is the value as text, secrets masked; `source` is session, project (with its file), profile or default.
    """

    name: str
    value: Any
    shown: str
    source: str
    help: str


def settings_in_force(settings: Configurable, registry: ProviderRegistry) -> list[Setting]:
    """Return every setting: of the cells, of the registry, and of each provider.

    A provider whose configuration is wrong is left out: asking it says what is wrong.
    """
    found = [*_of("LLMMagics", settings), *_of("ProviderRegistry", registry)]
    for name in registry.names():
        try:
            provider = registry.get(name)
        except ConfigurationError:
            continue
        found += _of(_section(provider), provider)
    return found


def set_value(settings: Configurable, registry: ProviderRegistry, name: str, value: Any) -> Setting:
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

    """
    section, _, trait = name.strip().rpartition(".")
    owner = _owner(settings, registry, section, trait)
    if not section:
        section = "LLMMagics" if owner is settings else "ProviderRegistry"
    if isinstance(value, str):
        value = _literal(value)
    try:
        if isinstance(owner, Provider) and section == type(owner).__name__:
            registry.update_config(Config({section: {trait: value}}))
        else:
            setattr(owner, trait, value)
    except TraitError as error:
        raise ConfigurationError(
            f"{name} does not take that value: {error}", "%llm_config shows what it is for."
        ) from error
    return next(item for item in _of(section, owner) if item.name.rpartition(".")[2] == trait)


def _owner(settings: Configurable, registry: ProviderRegistry, section: str, trait: str) -> Configurable:
    """Return the object whose trait a name means."""
    owners: dict[str, Configurable] = {"LLMMagics": settings, "ProviderRegistry": registry}
    if not section:
        owner = next((item for item in owners.values() if trait in item.traits(config=True)), None)
    else:
        owner = owners.get(section) or _provider(registry, section)
    if owner is None or trait not in owner.traits(config=True):
        if isinstance(owner, Provider):
            owner.check_names({trait: None}, section)
        wanted = f"{section}.{trait}" if section else trait
        known = [item.name for item in settings_in_force(settings, registry)]
        close = close_matches(wanted, [*known, *(name.rpartition(".")[2] for name in known)])
        raise ConfigurationError(
            f"There is no setting {wanted}.",
            f"Did you mean {' or '.join(close)}?" if close else "%llm_config lists all settings.",
        )
    return owner


def _provider(registry: ProviderRegistry, section: str) -> Provider | None:
    """Return the provider of a name, or one of a class."""
    if section in registry.names():
        return registry.get(section)
    for name in registry.names():
        try:
            provider = registry.get(name)
        except ConfigurationError:
            continue
        if type(provider).__name__ == section:
            return provider
    return None


def _section(provider: Provider) -> str:
    return type(provider).__name__ if provider.name == provider.kind else provider.name


def _of(section: str, owner: Any) -> Iterator[Setting]:
    sources = sources_of(owner)
    for name, trait in sorted(owner.traits(config=True).items()):
        value = getattr(owner, name)
        yield Setting(
            f"{section}.{name}", value, repr(masked(value, name)), sources.of(name), " ".join(trait.help.split())
        )


def masked(value: Any, name: str = "") -> Any:
    """Return a value of the configuration as it may be shown: passwords in URLs and in secret entries masked.

    >>> masked({"proxy": "http://me:pass@proxy:3128", "X-Api-Key": "env:NAME", "token": "abc"})
    {'proxy': 'http://proxy:3128', 'X-Api-Key': 'env:NAME', 'token': '***'}

    """
    if name in _NAMES_ONLY:
        return value
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked(item, name) for item in value)
    if not isinstance(value, str) or variable_of(value) is not None:
        return value
    if value and is_secret_header(name):
        return MASK
    return without_secrets(value) if "://" in value else value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
