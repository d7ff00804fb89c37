"""The picker's backend: what is in force, what providers list, and what a panel changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magic.config.effective import masked
from llm_magic.config.precedence import DEFAULT, sources_of
from llm_magic.errors import LLMError, OptionError
from llm_magic.model_names import models_in
from llm_magic.options import PARAMETERS, Options
from llm_magic.options.mapping import from_mapping
from llm_magic.providers.model_info import ModelCard
from llm_magic.session.plan import Cell, choose

if TYPE_CHECKING:
    from llm_magic.picker.try_it import TryIt
    from llm_magic.providers.registry import Listed
    from llm_magic.session import Session

ALIASES = ":aliases"
"""What is browsed in place of a provider (whose name has no colon) to see the aliases."""
_NAMES = dict.fromkeys(("temperature", "max_tokens", *PARAMETERS))
FIELDS = {name: name.replace("_", " ").capitalize() for name in _NAMES if PARAMETERS[name].picker}
"""The parameters of the panel, the two used most at first; an empty one is unset, and not sent."""
PATIENCE = 20.0
"""Seconds that an endpoint may take to list its models."""
_SETTINGS = ("model", "params", "system")
_WATCHED = [*_SETTINGS, "model_params"]
_WATCHED_IN_REGISTRY = ["providers", "aliases", "routes", "litellm_config"]


@dataclass(slots=True)
class ModelInForce:
    """A model that cells without options ask.

    Attributes
    ----------
    name
        The model as a cell would name it; empty where there is none.
    provider, model
        What that leads to; empty where it leads nowhere. An empty `model` is the first one listed.
    overriding
        Parameters that the alias or `LLMMagics.model_params` set otherwise for this model.

    """

    name: str = ""
    provider: str = ""
    model: str = ""
    overriding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class InForce:
    """What cells without options ask for now.

    Attributes
    ----------
    name
        The setting: a model as a cell would name it, or several with commas; empty where there is none.
    models
        What that names: at least one, though it may be empty. Several are asked side by side.
    source
        Where the setting comes from: session, project (and its file), profile, default.
    params, system
        Parameters of every cell by option name, and the system prompt.
    problem
        What is wrong with all this, or empty.
    code
        Lines that set the same.

    """

    name: str = ""
    models: tuple[ModelInForce, ...] = (ModelInForce(),)
    source: str = DEFAULT
    params: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    problem: str = ""
    code: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, without an empty one."""
        return tuple(model.name for model in self.models if model.name)


@dataclass(frozen=True, slots=True)
class Listing:
    """The models of one provider; `cards` is None where there are none, `problem` says why."""

    provider: str
    url: str = ""
    cards: tuple[ModelCard, ...] | None = None
    problem: str = ""


class PickerBackend:
    """Shows and changes the settings of one session, and tells panels when they have changed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.settings = session.settings
        self.watchers: set[Callable[[], None]] = set()
        """Called whenever something of what is shown may be different."""
        self._told = self.usage()
        sources_of(self.settings)  # it watches, too, and has to know of a change before we show it
        self.settings.observe(self._changed, _WATCHED)
        session.registry.observe(self._changed, _WATCHED_IN_REGISTRY)

    def close(self) -> None:
        """Let go of the settings."""
        self.settings.unobserve(self._changed, _WATCHED)
        self._session.registry.unobserve(self._changed, _WATCHED_IN_REGISTRY)
        self.watchers.clear()

    def _changed(self, _change: object = None) -> None:
        for changed in list(self.watchers):
            changed()

    def cell_ended(self, _result: object = None) -> None:
        """Look whether a cell has used something."""
        usage = self.usage()
        if usage != self._told:
            self._told = usage
            self._changed()

    def providers(self) -> list[str]:
        """Return the names of all providers."""
        return self._session.registry.names()

    def aliases(self) -> list[str]:
        """Return the names that stand for models."""
        with suppress(LLMError):  # a LiteLLM configuration that cannot be read; `in_force` says so
            return list(self._session.registry.all_aliases())
        return []

    def in_force(self) -> InForce:
        """Return what cells without options ask for now; nothing is sent for it."""
        settings, registry = self.settings, self._session.registry
        force = InForce(
            source=sources_of(settings).of("model"),
            params={key.replace("-", "_"): value for key, value in settings.params.items()},
            system=settings.system,
            code=self._code(),
        )
        problems: list[str] = []
        names: tuple[str, ...] = ("",)
        try:
            force.name = registry.default_model(settings.model)
            names = registry.models_asked(force.name)
        except LLMError as error:
            problems.append(str(error))
            names = models_in(force.name) or names
        force.models = tuple(map(ModelInForce, names))
        for model in force.models if force.name else ():
            try:
                self._look_up(model)
            except LLMError as error:
                problems.append(str(error))
        force.problem = "\n".join(dict.fromkeys(problems))
        return force

    def can_be_set(self, names: Sequence[str]) -> bool:
        """Return whether names with commas between them are read as these: each may hold a comma of its own."""
        with suppress(LLMError):
            return self._session.registry.models_asked(",".join(names)) == tuple(names)
        return False

    def _look_up(self, model: ModelInForce) -> None:
        """Find out what a name leads to, and what is set for it alone."""
        settings = self.settings
        choice = choose(Options(model=model.name), settings, self._session.registry)[0]
        model.provider, model.model = choice.target.provider.name, choice.target.model
        own = from_mapping(settings.params, "LLMMagics.params").parameters
        values = {name: choice.options.parameters.get(name) for name in FIELDS}
        model.overriding = {name: value for name, value in values.items() if value != own.get(name)}

    def _code(self) -> str:
        """Return the lines that set what differs from the defaults."""
        sources = sources_of(self.settings)
        return "\n".join(
            f"%config LLMMagics.{name} = {masked(getattr(self.settings, name))!r}"
            for name in _SETTINGS
            if getattr(self.settings, name) or sources.of(name) != DEFAULT
        )

    def list_models(self, provider: str, tell: Callable[[Listing], None], *, refresh: bool) -> None:
        """Call `tell` with the models: at once where they are known, else from another thread."""
        if provider == ALIASES:
            tell(Listing(provider, cards=tuple(ModelCard(name) for name in self.aliases())))
            return
        try:
            there = self._session.registry.get(provider)
            url = there.origin().url
            cached = None if refresh else there.cached_models
        except LLMError as error:
            tell(Listing(provider, problem=str(error)))
            return
        url = "" if ":0/" in url else url  # a server within this process that is not started
        if cached is not None:
            tell(Listing(provider, url, cached))
            return

        def told(future: Future[Listed]) -> None:
            if future.cancelled():
                return
            answer: Sequence[ModelCard] | BaseException | None = future.exception()
            answer = future.result()[provider] if answer is None else answer
            if isinstance(answer, BaseException):  # there is no cell to fail: the panel says it
                tell(Listing(provider, url, problem=str(answer)))
            else:
                tell(Listing(provider, url, tuple(answer)))

        asking = self._session.registry.list_models([provider], patience=PATIENCE, refresh=refresh)
        self._session.loop.submit(asking).add_done_callback(told)

    def set_parameter(self, name: str, text: str) -> None:
        """Set a request parameter of all cells, or unset it with an empty text.

        Raises
        ------
        OptionError
            The parameter does not take it; nothing is changed.

        """
        try:
            value = PARAMETERS[name].read(text) if text else None
        except ValueError as error:
            raise OptionError(f"{FIELDS.get(name, name)} takes {error}, not {text!r}.") from None
        self.set_parameters({name: value})

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Set request parameters of all cells; None unsets one."""
        settings = self.settings
        kept = {key: value for key, value in settings.params.items() if key.replace("-", "_") not in values}
        params = kept | {name: value for name, value in values.items() if value is not None}
        if params != settings.params:
            settings.params = params

    def ask(self, prompt: str, view: TryIt, model: str | None = None) -> Callable[[], object]:
        """Ask outside of any conversation and show the answer in `view`, from a thread; the result stops it.

        None asks the model in force.

        Raises
        ------
        InputError
            Nothing can be sent.

        """
        cell = Cell(prompt, Options(once=True, model=model), template=False)
        return self._session.ask_in_background(cell, view, lambda _: None, view.error).cancel

    def usage(self) -> str:
        """Return one line on what has been used so far."""
        from llm_magic.display.footer import counted, money, seconds, tokens

        rows = self._session.ledger.rows()
        if not rows:
            return ""
        cost = sum(row.cost or 0 for row in rows)
        facts = [
            counted(sum(row.requests for row in rows), "request"),
            tokens(sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows)),
            seconds(sum(row.seconds for row in rows)),
            *([money(cost)] if cost else []),
        ]
        return "Used so far: " + " · ".join(facts)
