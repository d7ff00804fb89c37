"""What the panel asks for and may change: facts as frozen data, and one protocol for whoever has them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llm_magic.config.effective import masked
from llm_magic.config.precedence import DEFAULT, sources_of
from llm_magic.errors import LLMError, OptionError
from llm_magic.options import PARAMETERS, Options, from_mapping
from llm_magic.providers.model_info import ModelCard
from llm_magic.session.plan import Cell, choose

if TYPE_CHECKING:
    from llm_magic.display import View
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import ModelCard
    from llm_magic.session import Session

ALIASES = ":aliases"
"""What is browsed in place of a provider (whose name has no colon) to see the aliases."""

FIELDS = {name: name.replace("_", " ").capitalize() for name, parameter in PARAMETERS.items() if parameter.picker}
"""The parameters of the panel, by the name of their option; empty is unset, and nothing is sent then."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A request parameter as it is in force for the model, where something wins over what is set for all."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class InForce:
    """What cells without options ask for now.

    Attributes
    ----------
    asked
        The model as a cell would name it; empty where there is none.
    provider, model
        What that leads to; empty where it leads nowhere. An empty `model` is the first one listed.
    source
        Where the setting comes from: session, project (and its file), profile, default.
    params, system
        Parameters of every cell by option name, and the system prompt.
    overriding
        Parameters that the alias or `LLMMagics.model_params` set otherwise for this model.
    problem
        What is wrong with all this, or empty.
    code
        Lines that set the same.

    """

    asked: str = ""
    provider: str = ""
    model: str = ""
    source: str = "default"
    params: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    overriding: tuple[Fact, ...] = ()
    problem: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The models of one provider; `cards` is None where they cannot be told, and `problem` says why."""

    provider: str
    url: str = ""
    cards: tuple[ModelCard, ...] | None = None
    problem: str = ""


class Desk(Protocol):
    """Where the panel gets everything from; the magic makes one over its session."""

    def providers(self) -> list[str]:
        """Return the names of all providers."""

    def aliases(self) -> list[str]:
        """Return the names that stand for models."""

    def in_force(self) -> InForce:
        """Return what cells without options ask for now; nothing is sent for it."""

    def list_models(self, provider: str, tell: Callable[[Listing], None], *, refresh: bool) -> None:
        """Call `tell` with the provider's models: at once where they are known, else later, from another thread."""

    def choose(self, model: str) -> None:
        """Make a model the one of all cells that name none."""

    def set_parameter(self, name: str, text: str) -> None:
        """Set a request parameter of all cells, or unset it with an empty text.

        Raises
        ------
        OptionError
            The parameter does not take it; nothing is changed.

        """

    def unset_parameters(self, names: tuple[str, ...]) -> None:
        """Unset several."""

    def set_system(self, text: str) -> None:
        """Set the system prompt of all cells."""

    def ask(self, prompt: str, view: View) -> Callable[[], object]:
        """Send one prompt outside of any conversation and show the answer in `view`; the result stops it.

        Raises
        ------
        InputError
            Nothing can be sent.

        """

    def usage(self) -> str:
        """Return one line on what has been used so far."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever something of the above may be different, until `forget`."""

    def forget(self, changed: Callable[[], None]) -> None:
        """End `watch`."""


PATIENCE = 20.0
"""Seconds that an endpoint may take to list its models."""
_SETTINGS = ("model", "params", "system")
_WATCHED = (*_SETTINGS, "model_params")


class SessionDesk:
    """Shows and changes the settings of one session.

    Parameters
    ----------
    session
        The session.

    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._watching: list[Callable[[], None]] = []
        self._told = self.usage()
        sources_of(session.settings)  # it watches, too, and has to know of a change before we show it
        session.settings.observe(self._changed, list(_WATCHED))
        session.registry.observe(self._changed, ["providers", "aliases", "routes", "litellm_config"])

    def close(self) -> None:
        """Let go of the settings."""
        self._session.settings.unobserve(self._changed, list(_WATCHED))
        self._session.registry.unobserve(self._changed, ["providers", "aliases", "routes", "litellm_config"])
        self._watching.clear()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a setting has changed."""
        self._watching.append(changed)

    def forget(self, changed: Callable[[], None]) -> None:
        """End `watch`."""
        self._watching = [watcher for watcher in self._watching if watcher != changed]

    def _changed(self, _change: Any = None) -> None:
        for changed in list(self._watching):
            changed()

    def cell_ended(self) -> None:
        """Look whether a cell has used something."""
        usage = self.usage()
        if usage != self._told:
            self._told = usage
            self._changed()

    def providers(self) -> list[str]:
        """Return the names of all providers."""
        return self._session.registry.names()

    def aliases(self) -> list[str]:
        """Return the aliases."""
        try:
            return list(self._session.registry.all_aliases())
        except LLMError:  # a LiteLLM configuration that cannot be read; `in_force` says so
            return []

    def in_force(self) -> InForce:
        """Return what cells without options ask for now."""
        settings, registry = self._session.settings, self._session.registry
        params = _by_option(settings.params)
        asked = provider = model = problem = ""
        overriding: tuple[Fact, ...] = ()
        try:
            asked = registry.default_model(settings.model)
            choice = choose(Options(), settings, registry)[0]
            provider, model = choice.target.provider.name, choice.target.model
            own = from_mapping(settings.params, "LLMMagics.params")
            overriding = tuple(
                Fact(name, choice.options.parameters.get(name))
                for name in FIELDS
                if choice.options.parameters.get(name) != own.parameters.get(name)
            )
        except LLMError as error:
            problem = str(error)
        return InForce(
            asked=asked,
            provider=provider,
            model=model,
            source=sources_of(settings).of("model"),
            params=params,
            system=settings.system,
            overriding=overriding,
            problem=problem,
            code=self._code(),
        )

    def _code(self) -> str:
        """Return the lines that set what differs from the defaults."""
        settings = self._session.settings
        sources = sources_of(settings)
        return "\n".join(
            f"%config LLMMagics.{name} = {masked(getattr(settings, name))!r}"
            for name in _SETTINGS
            if getattr(settings, name) or sources.of(name) != DEFAULT
        )

    def list_models(self, provider: str, tell: Callable[[Listing], None], *, refresh: bool) -> None:
        """Call `tell` with the models: at once where they are cached, else from the loop's thread."""
        if provider == ALIASES:
            tell(Listing(provider, cards=tuple(ModelCard(name) for name in self.aliases())))
            return
        try:
            there = self._session.registry.get(provider)
            url = _address(there)
            cached = None if refresh else there.cached_models
        except LLMError as error:
            tell(Listing(provider, problem=str(error)))
            return
        if cached is not None:
            tell(Listing(provider, url, cached))
            return

        def told(future: Future[list[ModelCard]]) -> None:
            if not future.cancelled():
                tell(_listing(provider, url, future))

        self._session.loop.submit(listed(there, refresh=refresh)).add_done_callback(told)

    def choose(self, model: str) -> None:
        """Make a model the one of all cells that name none."""
        self._session.settings.model = model

    def set_parameter(self, name: str, text: str) -> None:
        """Set a parameter of all cells, or unset it."""
        value = None
        if text:
            try:
                value = PARAMETERS[name].read(text)
            except ValueError as error:
                raise OptionError(f"{FIELDS.get(name, name)} takes {error}, not {text!r}.") from None
        self._set({name: value})

    def unset_parameters(self, names: tuple[str, ...]) -> None:
        """Unset several parameters."""
        self._set(dict.fromkeys(names))

    def _set(self, values: dict[str, Any]) -> None:
        settings = self._session.settings
        kept = {key: value for key, value in settings.params.items() if key.replace("-", "_") not in values}
        params = kept | {name: value for name, value in values.items() if value is not None}
        if params != settings.params:
            settings.params = params

    def set_system(self, text: str) -> None:
        """Set the system prompt of all cells."""
        self._session.settings.system = text

    def ask(self, prompt: str, view: View) -> Callable[[], object]:
        """Send one prompt, outside of any conversation; a thread of its own follows the answer."""
        session = self._session
        cell = Cell(prompt, Options(once=True), template=False)
        run = session.start(cell)

        def work() -> None:
            try:
                session.show(cell, run, view)
            except CancelledError:
                pass  # the view was told
            except Exception as error:  # noqa: BLE001 - there is no cell to fail: the panel says it
                view.error(error)  # type: ignore[attr-defined] # the panel's own view has it

        threading.Thread(target=work, name="llm_magic picker", daemon=True).start()
        return lambda: run.stop()  # noqa: PLW0108 - `stop` is another one once the request is on its way

    def usage(self) -> str:
        """Return one line on what has been used so far."""
        rows = self._session.ledger.rows()
        if not rows:
            return ""
        cost = sum(row.cost or 0 for row in rows)
        requests = sum(row.requests for row in rows)
        facts = [
            f"{requests:,} request{'s' * (requests != 1)}",
            f"{sum(row.input_tokens for row in rows):,} → {sum(row.output_tokens for row in rows):,} tokens",
            f"{sum(row.seconds for row in rows):,.1f} s",
            *([f"${cost:.2g}"] if cost else []),
        ]
        return "Used so far: " + " · ".join(facts)


def _by_option(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters by the names of their options, however they were written."""
    return {key.replace("-", "_"): value for key, value in params.items()}


def _address(provider: Provider) -> str:
    """Return where a provider's server is, without secrets; nothing for one within this process that is not started."""
    url = provider.origin().url
    return "" if ":0/" in url else url


async def listed(provider: Provider, *, refresh: bool = False) -> list[ModelCard]:
    """Return what a provider lists, soon or not at all."""
    return await asyncio.wait_for(provider.list_models(refresh=refresh, patience=PATIENCE), PATIENCE + 1)


def _listing(provider: str, url: str, future: Future[list[ModelCard]]) -> Listing:
    """Return what became of asking for a list."""
    try:
        return Listing(provider, url, tuple(future.result()))
    except TimeoutError:
        return Listing(provider, url, problem=f"{provider} did not list its models within {PATIENCE:.0f} s.")
    except Exception as error:  # noqa: BLE001 - there is no cell to fail: the panel says it
        return Listing(provider, url, problem=str(error))
