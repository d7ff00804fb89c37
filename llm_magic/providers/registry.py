"""The registry of providers: from the name of a model to the provider that answers for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from traitlets import Dict, Unicode, observe, validate
from traitlets.config import Config, Configurable

from llm_magic.close_matches import did_you_mean
from llm_magic.config import precedence
from llm_magic.config.precedence import DEFAULT, PROFILE, SESSION, configured, sources_of
from llm_magic.config.project import find_project, misspelled, sections_of
from llm_magic.config.references import SettingsDict
from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    EndpointNotFoundError,
    LLMError,
    ModelNotFoundError,
    OptionError,
    ProviderError,
    TimedOutError,
)
from llm_magic.model_names import models_in
from llm_magic.providers import plugins
from llm_magic.providers.litellm import Imported, read_config
from llm_magic.providers.routes import SHIPPED, route

if TYPE_CHECKING:  # loading the extension needs none of these
    from llm_magic.config.trust import GuardedSetting, Project
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import ModelCard
    from llm_magic.providers.price_file import PriceTable
    from llm_magic.secrets import Secret

FRESH = 60.0
"""Seconds that a list of models counts as the one that the server has now."""
Listed: TypeAlias = "dict[str, list[ModelCard] | LLMError]"
"""What providers list, by their names; in place of the models, the error that says why there are none."""
_MAY_COME_FROM_WAITING = (
    AuthenticationError, ConfigurationError, ConnectionFailedError, EndpointNotFoundError, ModelNotFoundError
)  # fmt: skip
"""Errors that settings which wait for trust may be the cause of."""
_said: set[tuple[str, str]] = set()  # what this kernel has said of projects that wait
_GRACE = 2.0  # seconds that a provider may take beyond its request: for a key that is asked for, a name looked up


@dataclass(frozen=True, slots=True)
class Target:
    """What a model name leads to.

    `model` is empty where the provider's first listed model is meant. `asked` is the name as it was given;
    `defaults` are options that an alias sets, `fallbacks` the names to ask next; `default_sources` are the sources of
    those options.
    """

    provider: Provider
    model: str
    asked: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    default_sources: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, option: str) -> str:
        """Return where one of the `defaults` comes from: session, project, profile or default."""
        return self.default_sources.get(option, DEFAULT)

    def at(self, base_url: str) -> Target:
        """Return the same model asked for at another URL, without what belongs to this host."""
        return replace(self, provider=self.provider.at(base_url))


class ProviderRegistry(Configurable):
    """All providers by name: the classes' own instances, those of the configuration, and those registered.

    Examples
    --------
    >>> registry = ProviderRegistry(aliases={"small": {"model": "vllm:smollm2", "temperature": 0}})
    >>> target = registry.resolve("small")
    >>> target.provider.name, target.model, dict(target.defaults)
    ('vllm', 'smollm2', {'temperature': 0})

    """

    providers = SettingsDict(
        key_trait=Unicode(),
        help='Named providers: {"eu": {"class": "azure", "azure_endpoint": "https://…"}}. `class` is openai, azure, '
        "vllm, compatible, local, the name of a class that a package adds, or module:Class; the rest are its settings.",
    ).tag(config=True, trusted_only=False, entries="providers")
    aliases = SettingsDict(
        key_trait=Unicode(),
        help='Names for models: {"fast": "vllm:smollm2", "careful": {"model": "eu:gpt-4o", "temperature": 0, '
        '"fallbacks": ["fast"]}}. What else an entry says are options by their long names, in force unless the call, '
        "or a nearer source (session, then project, then profile), says otherwise; further fields of the body stand in "
        "`param`.",
    ).tag(config=True, trusted_only=False, entries="aliases")
    routes = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help='Providers by model name: {"claude-*": "gateway"}; a target gateway:anthropic/* renames the model; an '
        "empty target takes a shipped route away. The shipped ones send "
        f"{', '.join(SHIPPED)} to openai.",
    ).tag(config=True, trusted_only=False)
    litellm_config = Unicode("", help="Path of a LiteLLM config.yaml whose model_list is taken over.").tag(
        config=True, trusted_only=True, could="send", holds_settings=True
    )
    price_file = Unicode(
        "",
        help="File of prices, JSON or YAML, for models whose provider's `prices` has none: "
        '{"openai:gpt-5*": {"input": 2.5, "output": 10, "cached": 1.25}}, or LiteLLM\'s '
        "model_prices_and_context_window.json, whose prices hold for OpenAI and Azure at their own hosts only.",
    ).tag(config=True, trusted_only=True, could="spend", holds_settings=True)

    def __init__(self, **traits: Any) -> None:
        self._priced: tuple[object, PriceTable] | None = None
        self._built: dict[str, tuple[Mapping[str, Any], Provider]] = {}
        self._building = threading.RLock()  # cells in the background and threads of the user's ask, too
        self._registered: dict[str, Provider] = {}
        self._of_project: frozenset[str] = frozenset()  # the named providers that the project sets
        self._made: list[Provider] = []  # whatever has become of them: all are closed in the end
        self._imported: tuple[object, Imported] = (None, Imported())
        self._listed: WeakKeyDictionary[Provider, float] = WeakKeyDictionary()
        self.problem: LLMError | None = None
        """What is wrong with the project's configuration; raised by the next cell."""
        self.project: Project | None = None
        """What the project's file sets, and whether that is trusted."""
        self._settings: Configurable | None = None
        self._folder = Path()
        self._misspelled = ""
        self._own_providers: dict[str, Any] = {}  # those of the profile
        self.shelf: list[Any] = []
        """The list of configurables that `%config` knows (`shell.configurables`); providers are put there."""
        super().__init__(**traits)
        self.layers = {PROFILE: deepcopy(self.config), SESSION: Config()}
        """What the classes of providers are configured with, by source, the nearest last."""
        sources_of(self)

    @validate("providers", "aliases")
    def _mark_secrets(self, proposal: Any) -> Any:
        from llm_magic.config.references import mark_secrets

        return mark_secrets(proposal["value"])

    def apply_project(self, settings: Configurable, folder: Path | None = None) -> None:
        """Put the project's settings over those of the profile. An error is kept, and raised by the first cell.

        `settings` are those of the cells, as this registry freshly made from the profile's configuration; `folder` is
        where to look first: the notebook's, which a kernel starts in. What needs trust is put in force where it has it.
        """
        sources_of(settings)
        try:
            self._settings, self._folder = settings, folder or Path.cwd()
        except OSError:  # the folder has been deleted
            return
        self._own_providers = dict(self.providers)
        self._misspelled = misspelled(self._folder)
        try:
            self.project = self._read_project(settings)
            if self.project is not None:
                self._put_in_force(self.project, settings)
        except ConfigurationError as error:
            self.problem = error

    def trust_project(self) -> Project | None:
        """Read the project's file anew, put all of it in force and remember that it is trusted; None without one.

        Raises
        ------
        ConfigurationError
            The file is wrong, or nothing can be remembered.

        """
        from llm_magic.config import trust

        if self._settings is None or (project := self._read_project(self._settings, strict=True)) is None:
            return None
        if project.waiting:
            project = trust.remember(project)
        self.project, self.problem = project, None
        try:
            self._put_in_force(project, self._settings)
        except ConfigurationError as error:
            self.problem = error
            raise
        return project

    def _read_project(self, settings: Configurable, *, strict: bool = False) -> Project | None:
        file = find_project(self._folder)
        if file is None:
            return None
        from llm_magic.config import trust

        owners, classes = {"LLMMagics": settings, "ProviderRegistry": self}, {*plugins.class_names(), "Provider"}
        try:
            sections = sections_of(file, owners, classes)
        except ConfigurationError:
            if file.doubt and not strict:  # what somebody else wrote stops nobody
                return trust.Project(file.path, {}, {}, (), doubt=file.doubt)
            raise
        own = dict(self._own_providers)
        if self.litellm_config and sources_of(self).of("litellm_config") == PROFILE:
            with suppress(ConfigurationError):  # said when it is used
                own = {**self._import().providers, **own}
        known = trust.KnownClasses(
            lambda section: type(owners[section]) if section in owners else plugins.class_of_section(section),
            plugins.class_of_kind,
            own,
            {*plugins.entries(), *own},
        )
        return trust.judge(file.path, sections, known, file.doubt)

    def _put_in_force(self, project: Project, settings: Configurable) -> None:
        sections = {name: dict(values) for name, values in project.in_force.items()}
        own = sections.pop("ProviderRegistry", {})
        precedence.apply(sections.pop("LLMMagics", {}), settings, project.source)
        self._of_project = frozenset(own.get("providers", ()))
        layer = Config(sections)
        self.layers = {PROFILE: self.layers[PROFILE], project.source: layer, SESSION: self.layers[SESSION]}
        precedence.apply(own, self, project.source)
        for _, provider in self._built.values():
            sources = sources_of(provider)
            values = self._of_layer(type(provider), project.source, configured(provider, layer))
            ours = {trait: value for trait, value in values.items() if sources.of(trait) != SESSION}
            sources.load(provider, ours, project.source)

    def _of_layer(self, cls: type[Provider], source: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a source sets for a class, as far as it is in force."""
        cls.check_names(values, f"{source}: {cls.__name__}")
        if self.project is None or source != self.project.source:
            return values
        return self.project.allowed(cls, values)

    @property
    def waiting(self) -> tuple[GuardedSetting, ...]:
        """The project's settings that wait for trust."""
        return () if self.project is None else self.project.waiting

    def waiting_line(self) -> str:
        """Return the line that says what waits for trust, once for each content of the file; else nothing."""
        if not self.waiting or self.project is None:
            return ""
        said = str(self.project.path), repr(self.project.digests())
        if said in _said:
            return ""
        _said.add(said)
        return self.project.line()

    def misspelled_line(self) -> str:
        """Return the line that names a misspelled section of the project's file, once; else nothing."""
        if ("misspelled", self._misspelled) in _said:
            return ""
        _said.add(("misspelled", self._misspelled))
        return self._misspelled

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Add to an error that settings wait for trust, where these may be the cause."""
        try:
            yield
        except _MAY_COME_FROM_WAITING as error:
            self._explain(error)
            raise

    def _explain(self, error: LLMError) -> None:
        waiting, project = self.waiting, self.project
        if not waiting or project is None:
            return
        from llm_magic.config import trust

        if isinstance(error, ProviderError) and error.origin is not None:
            name = error.origin.provider
            built = self._built.get(name)
            classes = {"Provider"} if built is None else {cls.__name__ for cls in type(built[1]).__mro__}
            waiting = tuple(item for item in waiting if item.keys[0] in classes or item.keys[-1] == name)
        if waiting and trust.COMMAND not in error.hint:
            names = trust.listed([item.name for item in waiting])
            one = len(waiting) == 1
            path = trust.printable(str(project.path))
            error.hint = f"{error.hint} {names} in {path} wait{'s' * one} for {trust.COMMAND}.".lstrip()

    def raise_problem(self) -> None:
        """Raise what is wrong with the project's configuration, if anything is."""
        if self.problem is not None:
            raise type(self.problem)(self.problem.message, self.problem.hint)  # a new one: it shows itself once

    def update_config(self, config: Config) -> None:
        """Take over what `%config` sets, for the providers that there are and those still to be made.

        Of what has an unknown setting, or a key written out, nothing is kept: ConfigurationError says so.
        """
        for cls, name in plugins.class_names().items():
            if cls in config or "Provider" in config:
                self._or_error(name)  # what was wrong before is said when it is asked for
        for _, provider in self._built.values():
            provider.check_config(config)
        self.layers[SESSION].merge(config)
        super().update_config(config)
        for _, provider in self._built.values():
            provider.update_config(config)

    def sections(self) -> Iterator[tuple[str, Configurable]]:
        """Yield the sections of the configuration below the settings: the registry's own, then the providers'."""
        yield "ProviderRegistry", self
        for provider in map(self._or_error, self.names()):
            if not isinstance(provider, LLMError):
                yield type(provider).__name__ if provider.name == provider.kind else provider.name, provider

    def owner(self, section: str, trait: str) -> Configurable | None:
        """Return an object that a setting belongs to: the registry, the provider of a name, or one of a class.

        Raises ConfigurationError where the provider has no such setting, or is configured wrongly.
        """
        if section in {"", "ProviderRegistry"}:
            return self if trait in self.traits(config=True) else None
        known = [self.get(section)] if section in self.names() else map(self._or_error, self.names())
        for provider in known:
            if not isinstance(provider, LLMError) and section in {provider.name, type(provider).__name__}:
                provider.check_names({trait: None}, section)
                return provider
        return None

    def specs(self) -> dict[str, Mapping[str, Any]]:
        """Return the named providers' settings: those of the LiteLLM configuration, and over them our own."""
        return {**self._import().providers, **self.providers}

    def names(self) -> list[str]:
        """Return the names of all providers: the configured ones first."""
        return list(dict.fromkeys([*self._registered, *self.specs(), *plugins.entries()]))

    def secrets(self) -> tuple[Secret, ...]:
        """Return the keys and other secrets of all providers, as far as they are known without asking anybody."""
        from llm_magic.secrets import secrets_in

        found: dict[Secret, None] = {}
        for provider in map(self._or_error, self.names()):
            if isinstance(provider, LLMError):  # it cannot be made, and has none
                continue
            with suppress(Exception):  # a variable that is not set: no secret of it
                found |= dict.fromkeys(secrets_in(provider.recipe()))
            with suppress(Exception):
                found |= dict.fromkeys(provider.secrets())
        return tuple(found)

    def _or_error(self, name: str) -> Provider | LLMError:
        try:
            return self.get(name)
        except LLMError as error:
            return error

    def get(self, name: str) -> Provider:
        """Return a provider by its name; raises ConfigurationError where there is none, or its settings are wrong."""
        if name in self._registered:
            return self._registered[name]
        spec = self.specs().get(name)
        if spec is None and name not in plugins.entries():
            names = self.names()
            raise ConfigurationError(
                f"There is no provider {name!r}.", did_you_mean(name, names, f"There are {', '.join(names)}.", 1)
            )
        spec = {} if spec is None else spec
        with self._building:
            if name not in self._built or self._built[name][0] != spec:
                provider = self._build(name, spec)
                self._drop(name)
                self._built[name] = (deepcopy(spec), provider)
                self._made.append(provider)
                self.shelf.append(provider)
            return self._built[name][1]

    def _build(self, name: str, spec: Mapping[str, Any]) -> Provider:
        if not isinstance(spec, Mapping) or ":" in name or not name:
            raise ConfigurationError(
                f"ProviderRegistry.providers[{name!r}] describes no provider.",
                'Write {"name": {"class": "compatible", "base_url": "http://…/v1"}}; a name has no colon.',
            )
        cls = plugins.load(str(spec.get("class", name)))
        own = {trait: value for trait, value in spec.items() if trait != "class"}
        cls.check_names(own, f"The provider {name}")
        provider = cls(parent=self, name=name)
        provider.price_table = self._price_table
        sources, source_of_own = sources_of(provider), sources_of(self).of("providers")
        if source_of_own != SESSION and name not in self._of_project:
            source_of_own = PROFILE
        for source, config in self.layers.items():
            sources.load(provider, self._of_layer(cls, source, configured(provider, config)), source)
            if source == source_of_own:
                sources.load(provider, own, source)
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
            from llm_magic.providers.compatible import ExistingClientProvider

            provider = ExistingClientProvider(client, name=name)
        provider.name, provider.price_table = name, self._price_table
        self._registered[name] = provider
        self._made.append(provider)
        return provider

    def is_registered(self, name: str) -> bool:
        """Whether a provider was given as an object, or as a ready client."""
        return name in self._registered

    def add(self, name: str, cls: str = "compatible", **traits: Any) -> Provider:
        """Add a provider to this session; as an entry of `providers`, which it replaces if there is one.

        Where class or setting is unknown, or a value wrong, nothing is added: ConfigurationError says so.
        """
        before = self.providers
        self.providers = {**before, name: {"class": cls, **traits}}
        try:
            return self.get(name)
        except ConfigurationError:
            self.providers = before
            raise

    def remove(self, name: str) -> None:
        """Take a provider out of this session; raises ConfigurationError where it is none of the session's."""
        if name in self._registered:
            del self._registered[name]
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
        _, gone = self._built.pop(name, ({}, None))
        self.shelf[:] = [item for item in self.shelf if item is not gone]

    async def aclose(self) -> None:
        """Close every client, on the loop that used them."""
        for provider in self._made:
            await provider.aclose()

    def close(self) -> None:
        """Stop what providers started besides clients: the embedded server."""
        for provider in self._made:
            provider.close()
        for name in list(self._built):
            self._drop(name)

    def list_models(
        self, names: Iterable[str], *, patience: float, refresh: bool = False
    ) -> Coroutine[Any, Any, Listed]:
        """Ask providers for their models, all at the same time: a list of each, or why there is none.

        `patience` is the seconds that a server has for its list: whatever it does, little more is waited;
        `refresh` asks where the list is of the last minute, too.
        """
        providers = {name: self._or_error(name) for name in names}  # made here, not on the loop's thread

        async def ask_all() -> Listed:
            asking = (self._list(provider, patience, refresh=refresh) for provider in providers.values())
            return dict(zip(providers, await asyncio.gather(*asking), strict=True))

        return ask_all()

    async def _list(
        self, provider: Provider | LLMError, patience: float, *, refresh: bool
    ) -> list[ModelCard] | LLMError:
        if isinstance(provider, LLMError):
            return provider
        asks = refresh or time.monotonic() - self._listed.get(provider, float("-inf")) > FRESH
        try:
            cards = await asyncio.wait_for(provider.list_models(asks, patience=patience), patience + _GRACE)
        except TimeoutError:
            return TimedOutError(f"{provider.origin()} has not answered within {patience + _GRACE:.0f} s.")
        except LLMError as error:
            return error
        if asks:
            self._listed[provider] = time.monotonic()
        return cards

    def resolve(self, name: str, base_url: str = "") -> Target:
        """Return what a model name leads to.

        Parameters
        ----------
        name
            An alias, `provider:model`, `provider:` or a provider's name (its first listed model), or a name that
            a route knows.
        base_url
            The URL that will be asked; where there is one, a name that leads nowhere is a model of the server there.

        Raises
        ------
        ModelNotFoundError
            None of these; names close ones and the providers there are.
        ConfigurationError
            The configuration of the provider is wrong.

        """
        self.raise_problem()
        with self.explaining():
            return replace(self._resolve(name.strip(), (), base_url), asked=name.strip())

    def models_asked(self, text: str) -> tuple[str, ...]:
        """Return the names of the models that `--model` asks: one, or several with commas.

        A text that is an alias as a whole is one name, whatever it holds.

        >>> registry = ProviderRegistry(aliases={"a,b": "vllm:m"})
        >>> registry.models_asked("vllm:, openai:gpt-x"), registry.models_asked("a,b")
        (('vllm:', 'openai:gpt-x'), ('a,b',))

        Raises
        ------
        OptionError
            A name is missing before or after a comma, or one stands there twice.

        """
        text = text.strip()
        if "," not in text or text in self.all_aliases():
            return (text,)
        names = models_in(text)
        if len(names) != text.count(",") + 1:
            raise OptionError(
                f"{text!r:.200} names several models, and a name is missing {_where_missing(text)}.",
                "Write them without spaces: a,b.",
            )
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if twice is not None:
            raise OptionError(f"{twice} stands twice in {text!r:.200}.", "Name each model once.")
        return names

    def _resolve(self, name: str, seen: tuple[str, ...], base_url: str) -> Target:
        alias = self.all_aliases().get(name) if name not in seen else None
        if alias is not None:
            return self._of_alias(name, alias, (*seen, name), base_url)
        if "," in name:
            raise OptionError(
                f"{name!r:.200} names several models, where one can be asked.",
                "Name one of them; %%llm -m a,b, LLM.compare and LLM.map(models=[…]) ask several side by side.",
            )
        left, colon, model = name.partition(":")
        if colon and left in self.names():
            return Target(self.get(left), model, name)
        if name in self.names():
            return Target(self.get(name), "", name)
        found = route(name, {**SHIPPED, **self._import().routes, **self.routes})
        if found is not None:
            if found[0] not in self.names():
                raise ConfigurationError(
                    f"The route of {name} leads to {found[0]!r}, which is no provider.",
                    f"There are {', '.join(self.names())}.",
                )
            return Target(self.get(found[0]), found[1], name)
        if base_url and name:
            return Target(self.get("compatible"), name, name)
        meant = did_you_mean(name, self.model_names())
        raise ModelNotFoundError(
            f"No provider answers to the model {name!r}.",
            f"{meant} Say provider:model with one of {', '.join(self.names())}.".lstrip(),
        )

    def _of_alias(self, name: str, alias: object, seen: tuple[str, ...], base_url: str) -> Target:
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
        target = self._resolve(model, seen, base_url)
        sources = sources_of(self)
        source = sources.of_entry(self, "aliases", name) if name in self.aliases else sources.of("litellm_config")
        return replace(
            target,
            defaults={**target.defaults, **entry},
            default_sources={**target.default_sources, **dict.fromkeys(entry, source)},
            fallbacks=tuple(fallbacks) or target.fallbacks,
        )

    def model_names(self) -> list[str]:
        """Return all that `--model` takes and that is known without asking a server."""
        known = [*self.all_aliases(), *(f"{provider}:" for provider in self.names())]
        known += [pattern for pattern in {**self._import().routes, **self.routes} if "*" not in pattern]
        for _, provider in self._built.values():
            known += [f"{provider.name}:{item.id}" for item in provider.cached_models or ()]
        return list(dict.fromkeys(known))

    def default_model(self, settings_model: str) -> str:
        """Return the model of cells that name none: the one set, else the embedded one; raises ConfigurationError."""
        if settings_model:
            return settings_model
        if "local" in plugins.entries() and find_spec("xllamacpp") is not None:
            served = getattr(self.get("local"), "model", "")  # an instance of another class may have that name
            return f"local:{served}"
        with self.explaining():
            raise ConfigurationError(
                "No model is set.",
                '%config LLMMagics.model = "provider:model" sets one; pip install "llm_magic[local]" brings one along.',
            )

    def all_aliases(self) -> dict[str, Any]:
        """Return the aliases of the LiteLLM configuration and, over them, our own."""
        return {**self._import().aliases, **self.aliases}

    def imported_routes(self) -> Mapping[str, str]:
        """Return the routes of the LiteLLM configuration."""
        return self._import().routes

    def _import(self) -> Imported:
        """Return what the LiteLLM configuration gives, read anew when the file has changed."""
        if not self.litellm_config:
            return Imported()
        path = Path(self.litellm_config).expanduser()
        stamp = (path, path.stat().st_mtime_ns if path.exists() else None)
        if self._imported[0] != stamp:
            self._require_trusted("litellm_config")
            self._imported = (stamp, read_config(path))
        return self._imported[1]

    def _price_table(self) -> PriceTable:
        """Return the prices of `price_file`, read anew when the file has changed; raises ConfigurationError."""
        from llm_magic.providers.price_file import PriceTable, read_prices

        if not self.price_file:
            return PriceTable()
        path = Path(self.price_file).expanduser()
        with self._building:
            stamp = path, _stamp(path)
            if self._priced is None or self._priced[0] != stamp:
                self._require_trusted("price_file")
                self._priced = (stamp, read_prices(path))
            return self._priced[1]

    def _require_trusted(self, trait: str) -> None:
        """Raise where the project names a file that is not the one that was trusted."""
        if self.project is not None and sources_of(self).of(trait) == self.project.source:
            from llm_magic.config import trust

            trust.require_unchanged(self.project, trait)


def _where_missing(text: str) -> str:
    """Return where between commas a name is missing."""
    if text.endswith(","):
        return "after the last comma"
    return "before the first comma" if text.startswith(",") else "between two commas"


def _stamp(path: Path) -> object:
    """Return what changes when a file does; None where it cannot be looked at."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
