"""All providers there are, by name: made when first asked for, from the nearest of the sources of each setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from traitlets import Dict, Unicode, observe
from traitlets.config import Config, Configurable

from llm_magic.errors import ConfigurationError, LLMError
from llm_magic.providers import classes
from llm_magic.providers.names import close_to
from llm_magic.providers.sources import layers, sources_of

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider
    from llm_magic.providers.sources import Project


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
        for name, entry in classes.entries().items():
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
        return list(dict.fromkeys([*self._registered, *self.specs(), *classes.entries()]))

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
        if spec is None and name not in classes.entries():
            close = close_to(name, self.names())
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
        cls = classes.load(str(spec.get("class", name)))
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
            from llm_magic.providers.ready import ReadyProvider

            provider = ReadyProvider(client, name=name)
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
