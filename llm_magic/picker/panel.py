"""The panel: widgets that show, change and try what is in force."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped] # it ships no types

from llm_magic.display.footer import counted
from llm_magic.errors import LLMError
from llm_magic.options import PARAMETERS
from llm_magic.picker.backend import ALIASES, FIELDS, InForce, Listing, PickerBackend
from llm_magic.picker.lines import EMPTY, MOST, code, facts, label, matching, problem, quiet, style, title
from llm_magic.picker.try_it import TryIt

_LIST_ROWS = 8


class Panel:
    """A model picker, in `box`, its list searched for `search` at first.

    Each input has a label, and an empty parameter is unset.
    """

    def __init__(self, backend: PickerBackend, search: str = "") -> None:
        self._backend = backend
        self._lock = threading.RLock()
        self._painter: int | None = None  # the thread that paints: what changes on it, the user did not change
        self._force = InForce()
        self._browsed = ""
        self._turn = 0  # number of the last list asked for; those of earlier turns come too late
        self._listing: Listing | None = None
        self._wrong: dict[str, str] = {}
        self._stop: Callable[[], object] = lambda: None
        self.head, self.trouble, self.status, self.hints = (widgets.HTML(EMPTY) for _ in range(4))
        self.said, self.answer, self.usage, self.code = (widgets.HTML(EMPTY) for _ in range(4))
        self.provider = widgets.Dropdown(description="Provider")
        self.search = widgets.Text(description="Search models", placeholder="part of a name").add_class("llm-grow")
        self.reload = _button("Refresh", "Ask the endpoint again for its models")
        self.models = widgets.Select(description="Models", rows=_LIST_ROWS)
        self.fields = {name: _field(name, label) for name, label in FIELDS.items()}
        self.unset = _button("Unset all", "Send none of these parameters")
        self.system = widgets.Textarea(
            description="System prompt", placeholder="unset", rows=3, continuous_update=False
        )
        self.prompt = widgets.Text("Why is the sky blue? Answer in one sentence.", description="Try a prompt")
        self.prompt.add_class("llm-grow")
        self.try_it = _button("Try it", "Ask the model once, outside of every conversation").add_class("llm-primary")
        self.stop = _button("Stop", "Stop the answer").add_class("llm-hidden")
        self.box = self._laid_out()
        self._connect()
        with self._painting():
            self._paint(first=True)
            self.search.value = search
            self._paint_models()
        backend.watchers.add(self.refresh)

    def _laid_out(self) -> Any:
        find = _row("llm-row", self.search, self.reload)
        left = _column("llm-column", self.provider, find, self.models, self.status)
        grid = _column("llm-grid", *self.fields.values(), self.unset)
        columns = _row("llm-columns", left, _column("llm-column", grid, self.hints, self.system))
        attempt = _row("llm-row", self.prompt, self.try_it, self.stop)
        said = (self.said, self.answer, self.usage, self.code)
        return _column("llm-picker", widgets.HTML(style()), self.head, self.trouble, columns, attempt, *said)

    def _connect(self) -> None:
        def on(widget: Any, act: Callable[[Any], None]) -> None:
            def changed(change: Any) -> None:
                if self._painter != threading.get_ident():
                    act(change["new"])

            widget.observe(changed, "value")

        on(self.provider, self._browse)
        on(self.search, lambda _: self._paint_models())
        on(self.models, self._model_picked)
        on(self.system, lambda text: self._backend.settings.set_trait("system", text.strip()))
        for name, field in self.fields.items():
            on(field, partial(self._parameter_typed, name))
        self.reload.on_click(lambda _: self._browse(self._browsed, refresh=True))
        self.unset.on_click(lambda _: self._unset_all())
        self.try_it.on_click(lambda _: self._ask())
        self.stop.on_click(lambda _: self._stop())
        self.prompt.on_msg(lambda _widget, content, _buffers: self._ask() if content.get("event") == "submit" else None)

    # What the user does

    def _model_picked(self, name: str | None) -> None:
        if name and name != self._force.name:
            self._backend.settings.model = name

    def _parameter_typed(self, name: str, text: str) -> None:
        try:
            self._backend.set_parameter(name, text.strip())
            self._wrong.pop(name, None)
        except LLMError as error:
            self._wrong[name] = error.message
        self.refresh()

    def _unset_all(self) -> None:
        self._wrong.clear()
        self._backend.set_parameters(dict.fromkeys(FIELDS))
        self.refresh()

    def _ask(self) -> None:
        if self.try_it.disabled:
            return
        self.answer.value = EMPTY
        self.said.value = quiet("Asking …", busy=True)
        self._answering(True)
        view = TryIt(partial(setattr, self.said, "value"), partial(setattr, self.answer, "value"), self._answered)
        try:
            self._stop = self._backend.ask(self.prompt.value, view)
        except LLMError as error:
            view.error(error)

    def _answered(self) -> None:
        self._answering(False)
        self.usage.value = quiet(self._backend.usage())

    def _answering(self, running: bool) -> None:
        (self.stop.remove_class if running else self.stop.add_class)("llm-hidden")
        self.try_it.disabled = running

    # What is shown

    def refresh(self) -> None:
        """Show what is in force now."""
        with self._painting():
            self._paint()

    def end(self, reason: str) -> None:
        """Let go of the backend: nothing has an effect any more, and the panel says so."""
        self._backend.watchers.discard(self.refresh)
        self._stop()
        with self._painting():
            self._turn += 1
            self.trouble.value = problem(reason)
            self.status.value = EMPTY
            inputs = (self.provider, self.search, self.models, self.system, self.prompt, *self.fields.values())
            for widget in (*inputs, self.reload, self.unset, self.try_it, self.stop):
                widget.disabled = True

    def bundle(self) -> dict[str, Any]:
        """Return the panel as an output; its text is for where widgets cannot be shown."""
        model = self._force.name or "no model"
        shown = f"Model picker: {model}. It works in JupyterLab and Notebook while the kernel runs."
        return {**self.box._repr_mimebundle_(), "text/plain": shown}

    @contextmanager
    def _painting(self) -> Iterator[None]:
        with self._lock:
            before, self._painter = self._painter, threading.get_ident()
            try:
                yield
            finally:
                self._painter = before

    def _paint(self, *, first: bool = False) -> None:
        force, before = self._backend.in_force(), self._force
        self._force = force
        leads_to = f"{force.provider}:{force.model}" if force.model else force.provider
        self.head.value = title(force.name, leads_to, force.source)
        self.trouble.value = problem(force.problem)
        self._paint_fields(force)
        self.system.value = force.system
        self.code.value = code(force.code)
        self.usage.value = quiet(self._backend.usage())
        names, aliases = self._backend.providers(), self._backend.aliases()
        options = [(name, name) for name in names] + ([("Aliases", ALIASES)] if aliases else [])
        if list(self.provider.options) != options:
            self.provider.options = options
        known = {value for _, value in options}
        home = ALIASES if force.name in aliases else force.provider
        if first:
            home = home or (names[0] if names else "")
        if (first or force.name != before.name) and home in known and home != self._browsed:
            self._browse(home)
        elif self._browsed not in known and names:
            self._browse(names[0])
        else:
            self.provider.value = self._browsed or None
            self._paint_models()

    def _paint_fields(self, force: InForce) -> None:
        for name, field in self.fields.items():
            if name not in self._wrong:
                value = force.params.get(name)
                field.value = "" if value is None else str(value)
        over = [
            quiet(f"{FIELDS[name]} {value}: set for this model by its alias or LLMMagics.model_params.")
            for name, value in force.overriding.items()
        ]
        self.hints.value = "".join([*map(problem, self._wrong.values()), *over]) or EMPTY

    def _browse(self, provider: str, *, refresh: bool = False) -> None:
        """Show the models of a provider, as soon as they are there."""
        with self._painting():
            if provider != self._browsed:
                self._listing = None
                self.search.value = ""
            self._browsed = provider
            self._turn += 1
            self.provider.value = provider
            self._paint_models()
            self.status.value = quiet("Loading the models …", busy=True)
            self._backend.list_models(provider, partial(self._listed, self._turn), refresh=refresh)

    def _listed(self, turn: int, listing: Listing) -> None:
        with self._painting():
            if turn != self._turn:
                return
            if listing.cards is None and self._listing is not None:
                listing = Listing(listing.provider, listing.url, self._listing.cards, listing.problem)
            self._listing = listing
            self._paint_models()

    def _paint_models(self) -> None:
        with self._painting():
            listing, name = self._listing or Listing(""), self._force.name
            found = matching(listing.cards or (), self.search.value)
            shown = found[:MOST]
            selected = [card for card in found if self._name(card.id) == name]
            if selected and selected[0] not in shown:
                shown = [*selected, *shown[:-1]]
            options = [(label(card), self._name(card.id)) for card in shown]
            if list(self.models.options) != options:
                self.models.options = options
            self.models.value = name if selected else None
            if self._listing is not None:
                told = label(selected[0]) if selected and facts(selected[0]) else ""
                self.status.value = self._status(listing, len(found), len(shown), told)

    def _status(self, listing: Listing, found: int, shown: int, told: str) -> str:
        """Return what is said of a list; `told` is the row of the model in force, uncut."""
        force, cards = self._force, listing.cards
        where = f" at {listing.url}" if listing.url else ""
        said, wrong = "", [listing.problem] if listing.problem else []
        if cards is not None:
            if not cards:
                said = f"No models{where}."
            elif shown < found:
                said = f"{shown:,} of {found:,} models shown: search to see the others."
            elif found < len(cards):
                said = f"{found:,} of {len(cards):,} models{where}."
            else:
                said = f"{counted(len(cards), 'model')}{where}."
            if force.model and force.provider == listing.provider and all(card.id != force.model for card in cards):
                wrong.append(f"{force.model} is in force, but is not listed there.")
        lines = (problem(" ".join(wrong)), quiet(told), quiet(said))
        return "".join(line for line in lines if line != EMPTY) or EMPTY

    def _name(self, model: str) -> str:
        return model if self._browsed == ALIASES else f"{self._browsed}:{model}"


def _field(name: str, label: str) -> Any:
    parameter = PARAMETERS[name]
    settings = {"description": label, "placeholder": "unset", "tooltip": parameter.help, "continuous_update": False}
    return widgets.Combobox(options=parameter.words, **settings) if parameter.words else widgets.Text(**settings)


def _button(label: str, tooltip: str) -> Any:
    return widgets.Button(description=label, tooltip=tooltip)


def _row(style: str, *children: Any) -> Any:
    return widgets.HBox(children).add_class(style)


def _column(style: str, *children: Any) -> Any:
    return widgets.VBox(children).add_class(style)
