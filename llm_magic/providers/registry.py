"""Names to providers: an alias, `provider:model`, a provider or a route, in this order, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Dict, Unicode

from llm_magic.errors import ConfigurationError, LLMError, ModelNotFoundError
from llm_magic.providers import classes, names
from llm_magic.providers.catalogue import Catalogue
from llm_magic.providers.names import NOTHING, Imported

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider


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
        f"{', '.join(names.SHIPPED)} to openai.",
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
        found = names.route(name, {**names.SHIPPED, **self._import().routes, **self.routes})
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
        return names.close_to(name, self.model_names())

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
        if "local" in classes.entries() and find_spec("xllamacpp") is not None:
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
