"""Settings on their way to another process: what a model is asked with, as plain data, and a registry made from it.

Keys do not travel, only the names of their variables; what cannot be named there is refused here.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.config.precedence import DEFAULT, SESSION, nearness, sources_of
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMError
from llm_magic.providers import plugins
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.secrets import secrets_in

if TYPE_CHECKING:
    from traitlets.config import Configurable

    from llm_magic.providers.base import Provider
    from llm_magic.providers.registry import Target

_PLAIN = (str, int, float, bool, type(None))
_FILES = ("chat_file", "record_file")


@dataclass(frozen=True, slots=True)
class PortableSetting:
    """A value in force, its source, and of a mapping the sources of its entries."""

    value: Any
    source: str
    entries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PortableSettings:
    """What some models are asked with, as plain data without keys; `settings_there` makes the objects from it."""

    magics: Mapping[str, PortableSetting]
    """The settings of `LLMMagics`, by their names."""
    aliases: Mapping[str, PortableSetting]
    """The aliases that lead to the models."""
    routes: Mapping[str, str]
    providers: Mapping[str, Mapping[str, Any]]
    """The providers that the models lead to, each by its class and what is set of it."""
    vouched: frozenset[str] = frozenset()
    """Providers to whose URL the key of the environment may go, because the environment gave the URL."""

    def with_magics(self, **values: Any) -> PortableSettings:
        """Return these with other settings of `LLMMagics`."""
        return replace(
            self, magics={**self.magics, **{name: PortableSetting(v, SESSION) for name, v in values.items()}}
        )

    def with_provider(self, name: str, **values: Any) -> PortableSettings:
        """Return these with other settings of one provider."""
        return replace(self, providers={**self.providers, name: {**self.providers[name], **values}})


def portable(
    settings: Settings, registry: ProviderRegistry, names: Iterable[str], base_url: str = ""
) -> PortableSettings:
    """Return what the models of these names are asked with; an empty name is the default model.

    `base_url` is the URL that they will be asked at, where it is not their provider's.

    Raises
    ------
    PicklingError
        A provider, or a setting, cannot be made anew from data: it says which, and what to set in its place.
    ConfigurationError
        The project's file is wrong.

    """
    registry.raise_problem()
    default = settings.model
    with suppress(LLMError):  # that there is none is said when it is asked
        default = registry.default_model(settings.model)
    defaults = registry.models_asked(default)
    asked = [each for name in names for each in ([name] if name else defaults) if each]
    asked = list(dict.fromkeys(asked))
    if settings.embedding_model:
        asked.append(settings.embedding_model)
    aliases, targets = _led_to(registry, asked, base_url)
    providers: dict[str, dict[str, Any]] = {}
    vouched = set()
    for target in targets:
        provider = target.provider
        if provider.name not in providers:
            providers[provider.name] = _spec(provider, registry)
            vouched |= {provider.name} if provider.vouched or _is_vouched(provider) else set()
        _add_price(providers[provider.name], target)
    known = {
        name for target in targets for name in (target.asked, target.model, f"{target.provider.name}:{target.model}")
    }
    return PortableSettings(
        _magics(settings, default, known),
        aliases,
        {**registry.imported_routes(), **registry.routes},
        providers,
        frozenset(vouched),
    )


def settings_there(data: PortableSettings) -> tuple[Settings, ProviderRegistry]:
    """Return settings and providers made from data; the project's file of this place is not read."""
    settings = Settings()
    registry = ProviderRegistry(parent=settings)
    _load(settings, data.magics)
    values = {
        "aliases": {name: each.value for name, each in data.aliases.items()},
        "routes": dict(data.routes),
        "providers": {name: dict(spec) for name, spec in data.providers.items()},
    }
    for name, value in values.items():
        _load(registry, {name: PortableSetting(value, SESSION)} if value else {})
    for name, alias in data.aliases.items():
        sources_of(registry).note_entries(registry, "aliases", [name], alias.source)
    for name in data.vouched:
        registry.get(name).vouched = True
    return settings, registry


def _load(owner: Configurable, values: Mapping[str, PortableSetting]) -> None:
    sources = sources_of(owner)
    for name, each in sorted(values.items(), key=lambda item: nearness(item[1].source)):
        sources.load(owner, {name: each.value}, each.source)
        for key, source in each.entries.items():
            sources.note_entries(owner, name, [key], source)


def _led_to(
    registry: ProviderRegistry, names: Iterable[str], base_url: str
) -> tuple[dict[str, PortableSetting], list[Target]]:
    """Return the aliases on the way of these names and of their fallbacks, and where all of them lead to."""
    known, sources = registry.all_aliases(), sources_of(registry)
    aliases: dict[str, PortableSetting] = {}
    targets: list[Target] = []
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop(0).strip()
        if name in seen:
            continue
        seen.add(name)
        with suppress(LLMError):  # a name that leads nowhere is said when it is asked
            targets.append(registry.resolve(name, base_url))
        if (alias := known.get(name)) is None:
            continue
        source = sources.of_entry(registry, "aliases", name) if name in registry.aliases else SESSION
        _refuse_secrets(alias, f"The alias {name}")
        aliases[name] = PortableSetting(alias, source.partition(" ")[0])
        entry: Mapping[str, Any] = alias if isinstance(alias, Mapping) else {"model": alias}
        further = entry.get("fallbacks", ())
        further = (further,) if isinstance(further, str) else further
        waiting += [each for each in (entry.get("model"), *further) if isinstance(each, str)]
    return aliases, targets


def _magics(settings: Settings, default: str, known: set[str]) -> dict[str, PortableSetting]:
    sources = sources_of(settings)
    found = {}
    for name in Settings.class_trait_names(config=True):
        value, entries = getattr(settings, name), {}
        if name == "model_params":  # of other models, nothing travels
            value = {glob: each for glob, each in value.items() if any(fnmatchcase(model, glob) for model in known)}
        if name == "mcp_servers":
            value = {server: each for server, each in value.items() if not secrets_in(each)}
        if name in ("params", "model_params", "mcp_servers"):
            entries = {key: sources.of_entry(settings, name, key).partition(" ")[0] for key in value}
        if name in _FILES and value:
            value = str(Path(value).expanduser().absolute())
        source = sources.of(name).partition(" ")[0]
        if source != DEFAULT:
            _refuse_secrets(value, f"LLMMagics.{name}")
            found[name] = PortableSetting(value, source, entries)
    if default != settings.model:
        found["model"] = PortableSetting(default, SESSION)
    return found


def _spec(provider: Provider, registry: ProviderRegistry) -> dict[str, Any]:
    """Return a provider as an entry of `ProviderRegistry.providers`."""
    name = provider.name
    if registry.is_registered(name):
        raise _refused(
            f"The provider {name} was registered as an object, and only settings travel", _NAMED.format(name)
        )
    values = {"class": _class_of(provider)}
    defaults: Any = provider.trait_defaults(config=True)
    for trait, value in {**provider.trait_values(config=True), **provider.from_environment()}.items():
        where = f"{provider.section}.{trait}"
        if value == defaults[trait]:
            continue
        if callable(value):
            value = _import_string(value, where)  # noqa: PLW2901 - as it travels
        _refuse_secrets(value, where)
        if not _is_plain(value):
            raise _refused(
                f"{where} holds {type(value).__name__} objects, which do not travel", "Name a file, or set it there."
            )
        if trait == "http_client" and value.partition(":")[0] == "__main__":
            raise _refused(
                f"{where} is made in this notebook, which is not there", "Put it into a module that is installed there."
            )
        values[trait] = value
    return values


_NAMED = 'Make it from settings: registry().add("{}", "compatible", base_url="…", api_key_env="NAME_OF_A_VARIABLE").'


def _is_vouched(provider: Provider) -> bool:
    """Whether the environment gave the provider's URL, so that its key may go there."""
    return "base_url" in provider.from_environment()


def _class_of(provider: Provider) -> str:
    cls = type(provider)
    if plugins.class_of_kind(cls.kind) is cls:
        return cls.kind
    return _import_string(cls, f"The class of the provider {provider.name}")


def _import_string(value: Any, where: str) -> str:
    """Return the `module:name` of a class or function; refuse what another process could not import."""
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    with suppress(Exception):
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if found is value and module != "__main__":
            return f"{module}:{name}"
    shown = f"{module}.{name}" if name else type(value).__name__
    raise _refused(
        f"{where} is {shown}, which another process cannot import", "Put it into a module that is installed there."
    )


def _add_price(spec: dict[str, Any], target: Target) -> None:
    """Take along what a model costs, which a file of prices may say that is not there."""
    price = None
    with suppress(LLMError):  # said when it is asked
        price = target.provider.price(target.model) if target.model else None
    if price is not None:
        entry = {name: value for name, value in asdict(price).items() if value is not None}
        spec["prices"] = {**spec.get("prices", {}), target.model: entry}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, _PLAIN)


def _refuse_secrets(value: object, where: str) -> None:
    if secrets_in(value):
        raise _refused(
            f"{where} holds a secret, and a secret is not pickled",
            "Name an environment variable (env:NAME) in its place.",
        )


def _refused(what: str, hint: str) -> pickle.PicklingError:
    return pickle.PicklingError(f"{what}.\n{hint}")
