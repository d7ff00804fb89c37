"""The controls of the panel and their order, which is that of reading and of the Tab key."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped] # it ships no types

from llm_magic.display.picker import sheet
from llm_magic.display.picker.desk import FIELDS
from llm_magic.options import BY_NAME

_EFFORTS = ("minimal", "low", "medium", "high")
_LIST_ROWS = 8


class Controls:
    """All widgets of a panel, in `box`; each input has a label, and an empty parameter is one that is unset."""

    def __init__(self) -> None:
        self.style = widgets.HTML(sheet.style())
        self.head = widgets.HTML()
        self.trouble = widgets.HTML(sheet.EMPTY)
        self.provider = widgets.Dropdown(description="Provider")
        self.search = widgets.Text(description="Search models", placeholder="part of a name")
        self.reload = _button("Refresh", "Ask the endpoint again for its models")
        self.models = widgets.Select(description="Models", rows=_LIST_ROWS)
        self.status = widgets.HTML(sheet.EMPTY)
        self.fields = {name: _field(name, title) for name, title in FIELDS.items()}
        self.unset = _button("Unset all", "Send none of these parameters")
        self.hints = widgets.HTML(sheet.EMPTY)
        self.system = widgets.Textarea(
            description="System prompt", placeholder="unset", rows=3, continuous_update=False
        )
        self.code = widgets.HTML(sheet.EMPTY)
        self.prompt = widgets.Text("Why is the sky blue? Answer in one sentence.", description="Try a prompt")
        self.try_it = _button("Try it", "Ask the model once, outside of every conversation", "llm-primary")
        self.stop = _button("Stop", "Stop the answer", "llm-hidden")
        self.said = widgets.HTML(sheet.EMPTY)
        self.answer = widgets.HTML(sheet.EMPTY)
        self.usage = widgets.HTML(sheet.EMPTY)
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
    help_text = BY_NAME[name].help
    settings = {"description": title, "placeholder": "unset", "tooltip": help_text, "continuous_update": False}
    return widgets.Combobox(options=_EFFORTS, **settings) if name == "reasoning_effort" else widgets.Text(**settings)


def _button(title: str, tooltip: str, style: str = "") -> Any:
    button = widgets.Button(description=title, tooltip=tooltip)
    if style:
        button.add_class(style)
    return button


def _box(style: str, *children: Any, flow: str = "column") -> Any:
    box = (widgets.HBox if flow == "row" else widgets.VBox)(children)
    box.add_class(style)
    return box
