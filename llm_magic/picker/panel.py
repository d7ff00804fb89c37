"""The lines of the panel as HTML; whatever comes from elsewhere is escaped, and `panel.css` says how it looks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from html import escape
from importlib import resources
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped] # it ships no types

from llm_magic.errors import LLMError
from llm_magic.options import PARAMETERS
from llm_magic.picker import rows
from llm_magic.picker.backend import ALIASES, FIELDS, Desk, InForce, Listing
from llm_magic.picker.try_it import TryIt

EMPTY = '<span class="llm-empty"></span>'
"""The value of a line that says nothing, and takes no room."""

_COPY = (
    "const code = this.parentNode.querySelector('pre'), button = this;"
    "const said = text => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy'; }, 1500); };"
    "const mark = () => { getSelection().selectAllChildren(code); said('Selected'); };"
    "navigator.clipboard ? navigator.clipboard.writeText(code.textContent).then(() => said('Copied'), mark) : mark();"
)


_KEYS_ARE_OURS = (
    "this.closest('.llm-picker')?.addEventListener('focusin', event => {"
    "if (event.target.matches('select, button')) event.target.setAttribute('data-lm-suppress-shortcuts', 'true');"
    "})"
)
"""JupyterLab takes arrows and letters for its own commands, unless the element with the focus says otherwise."""


@cache
def style() -> str:
    """Return the style sheet as an element, which as it takes effect also claims the keys for the panel."""
    text = (resources.files(__package__) / "panel.css").read_text(encoding="utf-8")
    return f'{EMPTY}<style onload="{_KEYS_ARE_OURS}">{text}</style>'


def title(asked: str, leads_to: str, source: str) -> str:
    """Return the head line: what is in force, and where that comes from."""
    model = f"<code>{escape(asked)}</code>" if asked else '<span class="llm-quiet">no model</span>'
    arrow = f" → <code>{escape(leads_to)}</code>" if leads_to and leads_to != asked else ""
    origin = "" if source in {"", "default"} else f' <span class="llm-quiet">({escape(source)})</span>'
    return f'<div class="llm-title"><b>Model</b><span>{model}{arrow}{origin}</span></div>'


def quiet(text: str, *, busy: bool = False) -> str:
    """Return a line that screen readers tell when they have time; `busy` shows that something goes on."""
    spin = " llm-spin" if busy else ""
    return f'<div class="llm-quiet{spin}" role="status">{escape(text)}</div>' if text else EMPTY


def problem(text: str) -> str:
    """Return a line that is to be seen, and told at once."""
    return f'<div class="llm-problem" role="alert">{escape(text)}</div>' if text else EMPTY


def answer(text: str) -> str:
    """Return an answer as plain text: what a model writes is data."""
    return f'<div class="llm-answer">{escape(text)}</div>' if text else EMPTY


def code(lines: str) -> str:
    """Return the code that does the same, with a button that copies it."""
    if not lines:
        return EMPTY
    button = (
        f'<button type="button" class="llm-copy" onclick="{escape(_COPY)}" aria-label="Copy the code">Copy</button>'
    )
    return f'<div class="llm-code"><pre>{escape(lines)}</pre>{button}</div>'


_LIST_ROWS = 8


class Controls:
    """All widgets of a panel, in `box`; each input has a label, and an empty parameter is one that is unset."""

    def __init__(self) -> None:
        self.style = widgets.HTML(style())
        self.head = widgets.HTML()
        self.trouble = widgets.HTML(EMPTY)
        self.provider = widgets.Dropdown(description="Provider")
        self.search = widgets.Text(description="Search models", placeholder="part of a name")
        self.reload = _button("Refresh", "Ask the endpoint again for its models")
        self.models = widgets.Select(description="Models", rows=_LIST_ROWS)
        self.status = widgets.HTML(EMPTY)
        self.fields = {name: _field(name, title) for name, title in FIELDS.items()}
        self.unset = _button("Unset all", "Send none of these parameters")
        self.hints = widgets.HTML(EMPTY)
        self.system = widgets.Textarea(
            description="System prompt", placeholder="unset", rows=3, continuous_update=False
        )
        self.code = widgets.HTML(EMPTY)
        self.prompt = widgets.Text("Why is the sky blue? Answer in one sentence.", description="Try a prompt")
        self.try_it = _button("Try it", "Ask the model once, outside of every conversation", "llm-primary")
        self.stop = _button("Stop", "Stop the answer", "llm-hidden")
        self.said = widgets.HTML(EMPTY)
        self.answer = widgets.HTML(EMPTY)
        self.usage = widgets.HTML(EMPTY)
        self.search.add_class("llm-grow")
        self.prompt.add_class("llm-grow")
        left = _box(
            "llm-column", self.provider, _box("llm-row", self.search, self.reload, flow="row"), self.models, self.status
        )
        right = _box("llm-column", _box("llm-grid", *self.fields.values(), self.unset), self.hints, self.system)
        self.box = _box(
            "llm-picker",
            self.style,
            self.head,
            self.trouble,
            _box("llm-columns", left, right, flow="row"),
            _box("llm-row", self.prompt, self.try_it, self.stop, flow="row"),
            self.said,
            self.answer,
            self.usage,
            self.code,
        )


def _field(name: str, title: str) -> Any:
    parameter = PARAMETERS[name]
    settings = {"description": title, "placeholder": "unset", "tooltip": parameter.help, "continuous_update": False}
    return widgets.Combobox(options=parameter.words, **settings) if parameter.words else widgets.Text(**settings)


def _button(title: str, tooltip: str, style: str = "") -> Any:
    button = widgets.Button(description=title, tooltip=tooltip)
    if style:
        button.add_class(style)
    return button


def _box(style: str, *children: Any, flow: str = "column") -> Any:
    box = (widgets.HBox if flow == "row" else widgets.VBox)(children)
    box.add_class(style)
    return box


class Panel(Controls):
    """A model picker.

    Parameters
    ----------
    desk
        Everything that it shows and changes.
    search
        What the list is searched for at first.

    """

    def __init__(self, desk: Desk, search: str = "") -> None:
        self._desk = desk
        self._lock = threading.RLock()
        self._painter: int | None = None  # the thread that paints: what changes on it, the user did not change
        self._force = InForce()
        self._browsed = ""
        self._turn = 0  # number of the last list asked for; those of earlier turns come too late
        self._listing: Listing | None = None
        self._wrong: dict[str, str] = {}
        self._stop: Callable[[], object] | None = None
        super().__init__()
        self._connect()
        with self._painting():
            self._paint(first=True)
            self.search.value = search
            self._paint_models()
        desk.watch(self.refresh)

    def _connect(self) -> None:
        def on(widget: Any, act: Callable[[Any], None]) -> None:
            def changed(change: Any) -> None:
                if self._painter != threading.get_ident():
                    act(change["new"])

            widget.observe(changed, "value")

        on(self.provider, self._provider_picked)
        on(self.search, lambda _: self._searched())
        on(self.models, self._model_picked)
        on(self.system, lambda text: self._desk.set_system(text.strip()))
        for name, field in self.fields.items():
            on(field, partial(self._parameter_typed, name))
        self.reload.on_click(lambda _: self._reload())
        self.unset.on_click(lambda _: self._unset_all())
        self.try_it.on_click(lambda _: self._ask())
        self.stop.on_click(lambda _: self._stop_answer())
        self.prompt.on_msg(lambda _widget, content, _buffers: self._ask() if content.get("event") == "submit" else None)

    # What the user does

    def _provider_picked(self, provider: str) -> None:
        with self._painting():
            self._browse(provider)

    def _searched(self) -> None:
        with self._painting():
            self._paint_models()

    def _reload(self) -> None:
        with self._painting():
            self._browse(self._browsed, refresh=True)

    def _model_picked(self, name: str | None) -> None:
        if name and name != self._force.asked:
            self._desk.choose(name)

    def _parameter_typed(self, name: str, text: str) -> None:
        try:
            self._desk.set_parameter(name, text.strip())
            self._wrong.pop(name, None)
        except LLMError as error:
            self._wrong[name] = error.message
        self.refresh()

    def _unset_all(self) -> None:
        self._wrong.clear()
        self._desk.unset_parameters(tuple(FIELDS))
        self.refresh()

    def _ask(self) -> None:
        if self._stop is not None:
            return
        self._stop = lambda: None
        self.answer.value = EMPTY
        self.said.value = quiet("Asking …", busy=True)
        self._show_stop(True)
        trial = TryIt(partial(setattr, self.said, "value"), partial(setattr, self.answer, "value"), self._answered)
        try:
            stop = self._desk.ask(self.prompt.value, trial)
        except LLMError as error:
            trial.error(error)
            return
        with self._lock:
            if self._stop is not None:  # else the answer came before this line
                self._stop = stop

    def _stop_answer(self) -> None:
        if self._stop is not None:
            self._stop()

    def _answered(self) -> None:
        with self._lock:
            self._stop = None
        self._show_stop(False)
        self.usage.value = quiet(self._desk.usage())

    def _show_stop(self, running: bool) -> None:
        (self.stop.remove_class if running else self.stop.add_class)("llm-hidden")
        self.try_it.disabled = running

    # What is shown

    def refresh(self) -> None:
        """Show what is in force now."""
        with self._painting():
            self._paint()

    def end(self, reason: str) -> None:
        """Let go of the desk: nothing has an effect any more, and the panel says so."""
        self._desk.forget(self.refresh)
        self._stop_answer()
        with self._painting():
            self._turn += 1
            self.trouble.value = problem(reason)
            self.status.value = EMPTY
            buttons = (self.reload, self.unset, self.try_it, self.stop)
            texts = (self.provider, self.search, self.models, self.system, self.prompt, *self.fields.values())
            for widget in (*buttons, *texts):
                widget.disabled = True

    def bundle(self) -> dict[str, Any]:
        """Return the panel as an output; as text it is one line, for where widgets cannot be shown."""
        model = self._force.asked or "no model"
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
        force, before = self._desk.in_force(), self._force
        self._force = force
        leads_to = f"{force.provider}:{force.model}" if force.model else force.provider
        self.head.value = title(force.asked, leads_to, force.source)
        self.trouble.value = problem(force.problem)
        self._paint_fields(force)
        self.system.value = force.system
        self.code.value = code(force.code)
        self.usage.value = quiet(self._desk.usage())
        aliases = self._desk.aliases()
        names = self._desk.providers()
        options = [(name, name) for name in names] + ([("Aliases", ALIASES)] if aliases else [])
        if list(self.provider.options) != options:
            self.provider.options = options
        home = ALIASES if force.asked in aliases else force.provider
        if first:
            home = home or (names[0] if names else "")
        known = {value for _, value in options}
        if (first or force.asked != before.asked) and home in known and home != self._browsed:
            self._browse(home)
            return
        if self._browsed not in known and names:
            self._browse(names[0])
            return
        self.provider.value = self._browsed or None
        self._paint_models()

    def _paint_fields(self, force: InForce) -> None:
        for name, field in self.fields.items():
            if name not in self._wrong:
                value = force.params.get(name)
                field.value = "" if value is None else str(value)
        wrong = [problem(message) for message in self._wrong.values()]
        over = [
            quiet(f"{FIELDS[fact.name]} {fact.value}: set for this model by its alias or LLMMagics.model_params.")
            for fact in force.overriding
            if fact.name in FIELDS
        ]
        self.hints.value = "".join([*wrong, *over]) or EMPTY

    def _browse(self, provider: str, *, refresh: bool = False) -> None:
        """Show the models of a provider, as soon as they are there."""
        if provider != self._browsed:
            self._listing = None
            self.search.value = ""
        self._browsed = provider
        self._turn += 1
        self.provider.value = provider
        self._paint_models()
        self.status.value = quiet("Loading the models …", busy=True)
        self._desk.list_models(provider, partial(self._listed, self._turn), refresh=refresh)

    def _listed(self, turn: int, listing: Listing) -> None:
        with self._painting():
            if turn != self._turn:
                return
            if listing.cards is None and self._listing is not None:
                listing = Listing(listing.provider, listing.url, self._listing.cards, listing.problem)
            self._listing = listing
            self._paint_models()

    def _paint_models(self) -> None:
        listing = self._listing
        cards = (listing.cards if listing is not None else None) or ()
        found = rows.matching(cards, self.search.value)
        shown = found[: rows.MOST]
        selected = [card for card in found if self._name(card.id) == self._force.asked]
        shown = [*selected, *shown[:-1]] if selected and selected[0] not in shown else shown
        options = [(rows.label(card), self._name(card.id)) for card in shown]
        if list(self.models.options) != options:
            self.models.options = options
        self.models.value = self._force.asked if selected else None
        if listing is not None:
            told = rows.label(selected[0]) if selected and rows.facts(selected[0]) else ""
            self.status.value = _status(listing, len(found), len(shown), self._missing(listing), told)

    def _missing(self, listing: Listing) -> str:
        """Return the model in force, where its provider lists others only."""
        force = self._force
        here = force.model and force.provider == listing.provider and listing.cards is not None
        return force.model if here and force.model not in {card.id for card in listing.cards or ()} else ""

    def _name(self, model: str) -> str:
        return model if self._browsed == ALIASES else f"{self._browsed}:{model}"


def _status(listing: Listing, found: int, shown: int, missing: str, told: str) -> str:
    """Return what is said of a list, and what is told of the model in force, whose row may be cut."""
    count = len(listing.cards or ())
    where = f" at {listing.url}" if listing.url else ""
    if listing.cards is None:
        said = ""
    elif not count:
        said = f"No models{where}."
    elif shown < found:
        said = f"{shown:,} of {found:,} models shown: search to see the others."
    elif found < count:
        said = f"{found:,} of {count:,} models{where}."
    else:
        said = f"{count:,} model{'s' * (count != 1)}{where}."
    gone = f"{missing} is in force, but is not listed there." if missing else ""
    problems = " ".join(filter(None, (listing.problem, gone)))
    lines = [quiet(line) for line in (told, said) if line]
    return "".join([*([problem(problems)] if problems else []), *lines]) or EMPTY
