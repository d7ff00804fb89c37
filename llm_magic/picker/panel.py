"""The panel: widgets that show, change and try what is in force."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped] # it ships no types

from llm_magic.display.footer import counted
from llm_magic.errors import LLMError
from llm_magic.options import PARAMETERS
from llm_magic.picker.backend import ALIASES, FIELDS, InForce, Listing, ModelInForce, PickerBackend
from llm_magic.picker.lines import EMPTY, MOST, code, facts, label, matching, problem, quiet, style, title
from llm_magic.picker.try_it import Tries, TryIt

_LIST_ROWS = 8
_SEVERAL = 2
_HOW_SEVERAL = "Ctrl or ⌘ with a click chooses several; those of other providers stay chosen."


class Panel:
    """A model picker, in `box`, its list searched for `search` at first.

    Each input has a label, and an empty parameter is unset. Where several models are compared, those chosen stay while
    the list shows another provider's.
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
        self._removing: list[_Removing] = []
        self._stop: Callable[[], object] = lambda: None
        self.head, self.trouble, self.status, self.hints = (widgets.HTML(EMPTY) for _ in range(4))
        self.said, self.answer, self.usage, self.code = (widgets.HTML(EMPTY) for _ in range(4))
        self.provider = widgets.Dropdown(description="Provider")
        self.search = widgets.Text(description="Search models", placeholder="part of a name").add_class("llm-grow")
        self.reload = _button("Refresh", "Ask the endpoint again for its models")
        self.models = widgets.Select(description="Models", rows=_LIST_ROWS)
        self.compared = widgets.SelectMultiple(description="Models to compare", rows=_LIST_ROWS)
        self.compare = widgets.Checkbox(description="Compare several models", indent=False)
        self.chosen = _row("llm-chosen")
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
        lists = (self.models, self.compared, self.compare, self.chosen)
        left = _column("llm-column", self.provider, find, *lists, self.status)
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
        on(self.compared, self._several_picked)
        on(self.compare, self._several_wanted)
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
        if name:
            self._set_models([name])

    def _several_wanted(self, wanted: bool) -> None:
        """Turn the list into one of which several are chosen, or back: then the first of those chosen stays."""
        if not wanted and len(self._force.names) >= _SEVERAL:
            self._set_models(self._force.names[:1])
        self.refresh()

    def _several_picked(self, names: tuple[str, ...]) -> None:
        """Compare those chosen in the list, and those chosen before that it does not show."""
        listed = {value for _, value in self.compared.options}
        kept = [name for name in self._force.names if name in names or name not in listed]
        self._set_models([*kept, *(name for name in names if name not in kept)])

    def _set_models(self, names: Sequence[str]) -> None:
        """Set the models; where none is left, or one cannot be set, the list goes on showing what is in force."""
        text = ",".join(names)
        self._wrong.pop("model", None)
        if names and not self._backend.can_be_set(names):
            commas = ", ".join(name for name in names if "," in name)
            if commas:
                self._wrong["model"] = f"{commas}: the comma would separate models. Choose it by an alias without one."
        elif names and text != self._force.name:
            self._backend.settings.model = text
        self.refresh()

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
        names = self._force.names
        say, paint = partial(setattr, self.said, "value"), partial(setattr, self.answer, "value")
        tries = Tries(names, say, paint, self._answered)
        self._answering(True)
        asked = names if len(names) >= _SEVERAL else (None,)
        stops = [self._ask_one(view, name) for view, name in zip(tries.views, asked, strict=True)]
        self._stop = lambda: [stop() for stop in stops]

    def _ask_one(self, view: TryIt, model: str | None) -> Callable[[], object]:
        try:
            return self._backend.ask(self.prompt.value, view, model)
        except LLMError as error:
            view.error(error)
            return lambda: None

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
            lists = (self.models, self.compared, self.compare, *self.chosen.children)
            inputs = (self.provider, self.search, *lists, self.system, self.prompt, *self.fields.values())
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
        self.head.value = title([(model.name, _leads_to(model)) for model in force.models], force.source)
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
        self._paint_compared(force)
        homes = [ALIASES if model.name in aliases else model.provider for model in force.models]
        home = self._browsed if self._browsed in homes else homes[0]
        if first:
            home = home or (names[0] if names else "")
        if (first or force.name != before.name) and home in known and home != self._browsed:
            self._browse(home)
        elif self._browsed not in known and names:
            self._browse(names[0])
        else:
            self.provider.value = self._browsed or None
            self._paint_models()

    def _paint_compared(self, force: InForce) -> None:
        """Show whether several are compared: a list of which several are chosen, and below it those chosen."""
        if len(force.names) >= _SEVERAL:
            self.compare.value = True
        several = self.compare.value
        (self.models.add_class if several else self.models.remove_class)("llm-hidden")
        (self.compared.remove_class if several else self.compared.add_class)("llm-hidden")
        names = force.names if several and len(force.names) >= _SEVERAL else ()
        if tuple(button.name for button in self._removing) != names:
            self._removing = [_Removing(name, partial(self._leave_out, place)) for place, name in enumerate(names)]
            self.chosen.children = [each.button for each in self._removing]

    def _leave_out(self, place: int) -> None:
        names = self._force.names
        self._set_models([*names[:place], *names[place + 1 :]])

    def _paint_fields(self, force: InForce) -> None:
        for name, field in self.fields.items():
            if name not in self._wrong:
                value = force.params.get(name)
                field.value = "" if value is None else str(value)
        several = len(force.models) >= _SEVERAL
        over = [
            quiet(
                f"{FIELDS[name]} {value}: set for {model.name if several else 'this model'} by its alias or "
                "LLMMagics.model_params."
            )
            for model in force.models
            for name, value in model.overriding.items()
        ]
        if several and force.params:
            over.append(quiet(f"Each of the {len(force.models)} models is asked with these parameters."))
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
            listing, names = self._listing or Listing(""), self._force.names
            found = matching(listing.cards or (), self.search.value)
            shown = found[:MOST]
            selected = [card for card in found if self._name(card.id) in names]
            if missing := [card for card in selected if card not in shown]:
                shown = [*missing, *shown[: -len(missing)]]
            options = [(label(card), self._name(card.id)) for card in shown]
            chosen = [self._name(card.id) for card in selected]
            for widget in (self.models, self.compared):
                if list(widget.options) != options:
                    widget.options = options
            self.models.value = chosen[0] if len(names) == 1 and chosen else None
            self.compared.value = tuple(value for _, value in options if value in chosen)
            if self._listing is not None:
                told = [label(card) for card in selected if facts(card)]
                self.status.value = self._status(listing, len(found), len(shown), told)

    def _status(self, listing: Listing, found: int, shown: int, told: Sequence[str]) -> str:
        """Return what is said of a list; `told` are the rows of the models in force, uncut."""
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
            there = {card.id for card in cards}
            wrong += [
                f"{each.model} is in force, but is not listed there."
                for each in force.models
                if each.model and each.provider == listing.provider and each.model not in there
            ]
        how = _HOW_SEVERAL if self.compare.value and len(force.names) < _SEVERAL else ""
        lines = (problem(" ".join(wrong)), *map(quiet, [*told, said, how]))
        return "".join(line for line in lines if line != EMPTY) or EMPTY

    def _name(self, model: str) -> str:
        return model if self._browsed == ALIASES else f"{self._browsed}:{model}"


class _Removing:
    """A button that takes a model out of those compared."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self.name = name
        self.button = _button(f"{name} ×", f"Do not compare {name}")
        self.button.on_click(lambda _: act())


def _leads_to(model: ModelInForce) -> str:
    return f"{model.provider}:{model.model}" if model.model else model.provider


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
