"""Model names as patterns: which route a name takes, and what a name with a wildcard becomes on its way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Dict, Unicode, observe
from traitlets.config import Config, Configurable

from llm_magic.close_matches import close_matches
from llm_magic.config.precedence import layers, sources_of
from llm_magic.errors import ConfigurationError, LLMError, ModelNotFoundError
from llm_magic.providers import plugins

if TYPE_CHECKING:
    from llm_magic.config.precedence import Project
    from llm_magic.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file of another program gives: aliases by name, routes by pattern, settings of providers by name."""

    aliases: Mapping[str, Any] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NOTHING = Imported()

SHIPPED = {
    "gpt-*": "openai",
    "chatgpt-*": "openai",
    "o[0-9]*": "openai",
    "ft:*": "openai",
    "text-embedding-*": "openai",
}
"""The routes that hold where the configuration names no other for the same pattern."""


def route(name: str, routes: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the target of the route that a name takes, and the model's name there; None where none matches.

    The name itself comes before globs, a longer glob before a shorter one, and a glob matches the whole name. A
    target is a provider, or `provider:model` in which each `*` stands for what the one of the pattern matched.

    >>> route("gpt-4o", {"gpt-*": "openai", "gpt-4o": "eu"})
    ('eu', 'gpt-4o')
    >>> route("claude/opus", {"claude/*": "gateway:anthropic/*"})
    ('gateway', 'anthropic/opus')

    """
    patterns = sorted(
        (pattern for pattern, target in routes.items() if target), key=lambda item: (item != name, -len(item))
    )
    for pattern in patterns:
        if pattern == name:
            stars: tuple[str, ...] = ()
        else:
            found = _compile(pattern).fullmatch(name)
            if found is None:
                continue
            stars = found.groups()
        provider, _, model = routes[pattern].partition(":")
        if not model:
            return provider, name
        return provider, _filled(model, stars)
    return None


def _filled(model: str, stars: tuple[str, ...]) -> str:
    """Return a model's name with each `*` replaced by what the one of the pattern matched."""
    matched = iter(stars)
    return re.sub(r"\*", lambda _: next(matched, ""), model)


def _compile(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression that remembers what each `*` matched."""
    parts = re.split(r"(\*|\?|\[[^\]]+\])", pattern)
    written = {"*": "(.*)", "?": "."}
    return re.compile("".join(_part(part, written) for part in parts), re.DOTALL)


def _part(part: str, written: Mapping[str, str]) -> str:
    if part.startswith("[") and part.endswith("]"):
        inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return written.get(part) or re.escape(part)


class Catalogue(Configurable):
    """The named providers: the classes' own instances, those of the configuration, and those registered."""

    providers = Dict(
        key_trait=Unicode(),
        help='Named providers: {"eu": {"class": "azure", "azure_endpoint": "https://…"}}. `class` is openai, azure, '
        "vllm, compatible, local, the name of a class that a package adds, or module:Class; the rest are its settings.",
    ).tag(config=True)

    def __init__(self, **traits: Any) -> None:
        self._built: dict[str, tuple[Mapping[str, Any], Provider]] = {}
        self._registered: dict[str, Provider] = {}
        self._gone: list[Provider] = []
        self.problem: LLMError | None = None
        """What is wrong with the project's configuration; raised by the next cell."""
        self.project: Project | None = None
        self.session = Config()
        """What `%config` has set since."""
        self.shelf: list[Any] | None = None
        """The list of configurables that `%config` knows (`shell.configurables`); providers are put there."""
        super().__init__(**traits)
        self.profile: Config = deepcopy(self.config)
        sources_of(self)

    def update_config(self, config: Config) -> None:
        """Take over what `%config` sets, for the providers that there are and those still to be made.

        Raises
        ------
        ConfigurationError
            An unknown setting, or a key written out: then nothing is taken over, and nothing kept of it.

        """
        for name, entry in plugins.entries().items():
            if not {entry.value.rpartition(":")[2], "Provider"}.isdisjoint(config):
                with suppress(ConfigurationError):  # what was wrong before is said when it is asked for
                    self.get(name)
        for _, provider in self._built.values():
            provider.check_config(config)
        self.session.merge(config)
        super().update_config(config)
        for _, provider in self._built.values():
            provider.update_config(config)

    def specs(self) -> dict[str, Mapping[str, Any]]:
        """Return the settings of the named providers, by name."""
        return dict(self.providers)

    def names(self) -> list[str]:
        """Return the names of all providers: the configured ones first."""
        return list(dict.fromkeys([*self._registered, *self.specs(), *plugins.entries()]))

    def get(self, name: str) -> Provider:
        """Return a provider by its name.

        Raises
        ------
        ConfigurationError
            There is none, or its settings are wrong.

        """
        if name in self._registered:
            return self._registered[name]
        spec = self.specs().get(name)
        if spec is None and name not in plugins.entries():
            close = close_matches(name, self.names())
            raise ConfigurationError(
                f"There is no provider {name!r}.",
                f"Did you mean {close[0]}?" if close else f"There are {', '.join(self.names())}.",
            )
        spec = {} if spec is None else spec
        known = self._built.get(name)
        if known is not None and known[0] == spec:
            return known[1]
        provider = self._build(name, spec)
        if known is not None:
            self._drop(name)
        self._built[name] = (deepcopy(spec), provider)
        if self.shelf is not None:
            self.shelf.append(provider)
        return provider

    def _build(self, name: str, spec: Mapping[str, Any]) -> Provider:
        if not isinstance(spec, Mapping) or ":" in name or not name:
            raise ConfigurationError(
                f"ProviderRegistry.providers[{name!r}] describes no provider.",
                'Write {"name": {"class": "compatible", "base_url": "http://…/v1"}}; a name has no colon.',
            )
        cls = plugins.load(str(spec.get("class", name)))
        cls.check_names({key: value for key, value in spec.items() if key != "class"}, f"The provider {name}")
        provider = cls(parent=self, name=name)
        sources = sources_of(provider)
        for source, values in layers(self, provider, name, spec):
            cls.check_names(values, f"{source}: {cls.__name__}")
            sources.load(provider, values, source)
        return provider

    def register(self, name: str, *, client: Any = None, provider: Provider | None = None) -> Provider:
        """Make a ready client, or a provider, known under a name.

        Parameters
        ----------
        name
            What stands before the colon in `provider:model`.
        client
            An `openai.AsyncOpenAI`, `AsyncAzureOpenAI`, `OpenAI` or `AzureOpenAI`, used as it is.
        provider
            A provider; exactly one of the two is given.

        Raises
        ------
        ConfigurationError
            The name has a colon, or the client is none of the SDK's.

        """
        if not name or ":" in name or (client is None) == (provider is None):
            raise ConfigurationError(
                f"{name!r} cannot be registered.", "Give a name without a colon, and either a client or a provider."
            )
        if provider is None:
            from llm_magic.providers.existing_client import ExistingClientProvider

            provider = ExistingClientProvider(client, name=name)
        provider.name = name
        if name in self._registered:
            self._gone.append(self._registered[name])
        self._registered[name] = provider
        return provider

    def add(self, name: str, cls: str = "compatible", **traits: Any) -> Provider:
        """Add a provider to this session; as an entry of `providers`, which it replaces if there is one.

        Raises
        ------
        ConfigurationError
            The class or a setting is unknown, or a value wrong: nothing is added then.

        """
        before = self.providers
        self.providers = {**before, name: {"class": cls, **traits}}
        try:
            return self.get(name)
        except ConfigurationError:
            self.providers = before
            raise

    def remove(self, name: str) -> None:
        """Take a provider out of this session.

        Raises
        ------
        ConfigurationError
            There is none of this name, or it is a class's own.

        """
        if name in self._registered:
            self._gone.append(self._registered.pop(name))
        elif name in self.providers:
            self.providers = {key: value for key, value in self.providers.items() if key != name}
        elif name in self.names():
            raise ConfigurationError(
                f"{name} is not one of the named providers, and cannot be removed.", "%llm_provider list shows them."
            )
        else:
            self.get(name)  # says that there is none

    @observe("providers")
    def _providers_changed(self, change: Any) -> None:
        for name in list(self._built):
            if name not in change["new"] and name in (change["old"] or {}):
                self._drop(name)

    def _drop(self, name: str) -> None:
        _, provider = self._built.pop(name)
        self._gone.append(provider)
        if self.shelf is not None:
            self.shelf[:] = [item for item in self.shelf if item is not provider]

    def _all(self) -> Iterable[Provider]:
        return [*(provider for _, provider in self._built.values()), *self._registered.values(), *self._gone]

    async def aclose(self) -> None:
        """Close every client, on the loop that used them."""
        for provider in self._all():
            await provider.aclose()
        self._gone = []

    def close(self) -> None:
        """Stop what providers started besides clients: the embedded server."""
        for provider in self._all():
            provider.close()
            if self.shelf is not None:
                self.shelf[:] = [item for item in self.shelf if item is not provider]


@dataclass(frozen=True, slots=True)
class Target:
    """What a model name leads to.

    `model` is empty where the provider's first listed model is meant. `asked` is the name as it was given;
    `defaults` are options that an alias sets, `fallbacks` the names to ask next.
    """

    provider: Provider
    model: str
    asked: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()

    def at(self, base_url: str) -> Target:
        """Return the same model asked for at another URL, without what belongs to this host."""
        return replace(self, provider=self.provider.at(base_url))


class ProviderRegistry(Catalogue):
    """All providers by name: the classes' own instances, those of the configuration, and those registered.

    Examples
    --------
    >>> registry = ProviderRegistry(aliases={"small": {"model": "vllm:smollm2", "temperature": 0}})
    >>> target = registry.resolve("small")
    >>> target.provider.name, target.model, dict(target.defaults)
    ('vllm', 'smollm2', {'temperature': 0})

    """

    aliases = Dict(
        key_trait=Unicode(),
        help='Names for models: {"fast": "vllm:smollm2", "careful": {"model": "eu:gpt-4o", "temperature": 0, '
        '"fallbacks": ["fast"]}}.',
    ).tag(config=True)
    routes = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help='Providers by model name: {"claude-*": "gateway"}; a target gateway:anthropic/* renames the model; an '
        "empty target takes a shipped route away. The shipped ones send "
        f"{', '.join(SHIPPED)} to openai.",
    ).tag(config=True)
    litellm_config = Unicode("", help="Path of a LiteLLM config.yaml whose model_list is taken over.").tag(config=True)

    def __init__(self, **traits: Any) -> None:
        self._imported: tuple[object, Imported] | None = None
        super().__init__(**traits)

    def resolve(self, name: str) -> Target:
        """Return what a model name leads to.

        Parameters
        ----------
        name
            An alias, `provider:model`, `provider:` or a provider's name (its first listed model), or a name that
            a route knows.

        Raises
        ------
        ModelNotFoundError
            None of these; names close ones and the providers there are.
        ConfigurationError
            The configuration of the provider is wrong.

        """
        if self.problem is not None:
            raise type(self.problem)(self.problem.message, self.problem.hint)  # a new one: it shows itself once
        return replace(self._resolve(name.strip(), ()), asked=name.strip())

    def _resolve(self, name: str, seen: tuple[str, ...]) -> Target:
        alias = self.all_aliases().get(name) if name not in seen else None
        if alias is not None:
            return self._of_alias(name, alias, (*seen, name))
        left, colon, model = name.partition(":")
        if colon and left in self.names():
            return Target(self.get(left), model, name)
        if name in self.names():
            return Target(self.get(name), "", name)
        found = route(name, {**SHIPPED, **self._import().routes, **self.routes})
        if found is not None:
            provider, model = found
            if provider not in self.names():
                raise ConfigurationError(
                    f"The route of {name} leads to {provider!r}, which is no provider.",
                    f"There are {', '.join(self.names())}.",
                )
            return Target(self.get(provider), model, name)
        raise self._unknown(name)

    def _of_alias(self, name: str, alias: object, seen: tuple[str, ...]) -> Target:
        entry = {"model": alias} if isinstance(alias, str) else dict(alias) if isinstance(alias, Mapping) else {}
        model, fallbacks = entry.pop("model", None), entry.pop("fallbacks", ())
        problem = entry.pop("problem", None)
        if isinstance(problem, LLMError):
            raise problem
        if isinstance(fallbacks, str):
            fallbacks = (fallbacks,)
        if not isinstance(model, str) or not all(isinstance(item, str) for item in fallbacks):
            raise ConfigurationError(
                f"The alias {name} names no model.", 'Write "provider:model", or {"model": "provider:model", …}.'
            )
        target = self._resolve(model, seen)
        return replace(target, defaults={**target.defaults, **entry}, fallbacks=tuple(fallbacks) or target.fallbacks)

    def _unknown(self, name: str) -> ModelNotFoundError:
        close = self.suggestions(name)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        return ModelNotFoundError(
            f"No provider answers to the model {name!r}.",
            f"{meant}Say provider:model with one of {', '.join(self.names())}.",
        )

    def suggestions(self, name: str) -> list[str]:
        """Return known names close to one."""
        return close_matches(name, self.model_names())

    def model_names(self) -> list[str]:
        """Return all that `--model` takes and that is known without asking a server."""
        known = [*self.all_aliases(), *(f"{provider}:" for provider in self.names())]
        known += [pattern for pattern in {**self._import().routes, **self.routes} if "*" not in pattern]
        for _, provider in self._built.values():
            known += [f"{provider.name}:{item.id}" for item in provider.cached_models or ()]
        return list(dict.fromkeys(known))

    def default_model(self, settings_model: str) -> str:
        """Return the model of cells that name none.

        Raises
        ------
        ConfigurationError
            None is set, and the embedded one is not installed.

        """
        if settings_model:
            return settings_model
        if "local" in plugins.entries() and find_spec("xllamacpp") is not None:
            served = getattr(self.get("local"), "model", "")  # an instance of another class may have that name
            return f"local:{served}"
        raise ConfigurationError(
            "No model is set.",
            '%config LLMMagics.model = "provider:model" sets one; pip install "llm_magic[local]" brings one along.',
        )

    def all_aliases(self) -> dict[str, Any]:
        """Return the aliases of the LiteLLM configuration and, over them, our own."""
        return {**self._import().aliases, **self.aliases}

    def specs(self) -> dict[str, Mapping[str, Any]]:
        """Return the named providers' settings: those of the LiteLLM configuration, and over them our own."""
        return {**self._import().providers, **self.providers}

    def _import(self) -> Imported:
        if not self.litellm_config:
            return NOTHING
        from llm_magic.providers.litellm import read_config

        path = Path(self.litellm_config).expanduser()
        stamp = (path, path.stat().st_mtime_ns if path.exists() else None)
        if self._imported is None or self._imported[0] != stamp:
            self._imported = (stamp, read_config(path))
        return self._imported[1]
