"""A view of several models that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_magic.display import View
from llm_magic.display.answer import ValueSoFar
from llm_magic.draft import Draft
from llm_magic.response import Response


class RecordingColumn:
    """The column of one model: `told` is all, in order, without repeated updates."""

    wait = 0.01

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.texts: list[str] = []
        self.values: list[Any] = []

    def begin(self, title: str) -> None:
        self.told.append(("begin", title))

    def hold(self) -> None:
        self.told.append(("hold", None))

    def release(self) -> None:
        self.told.append(("release", None))

    def pause(self) -> None:
        self.told.append(("pause", None))

    def progress(self, text: str) -> None:
        self.told.append(("progress", text))

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        if not self.texts or self.texts[-1] != draft.text:
            self.texts.append(draft.text)
        if value is not None:
            self.values.append(value)

    def finish(self, response: Response, footer: str) -> None:
        self.told.append(("finish", (response.text, footer)))

    def fail(self, response: Response | None) -> None:
        self.told.append(("fail", response and response.text))


class RecordingView:
    """The whole: `columns` by title; `on_tick` is called with it as often as it is to repaint."""

    wait = 0.01

    def __init__(self, on_tick: Callable[[RecordingView], object] = lambda _: None) -> None:
        self._on_tick = on_tick
        self.columns: dict[str, RecordingColumn] = {}
        self.told: list[tuple[Any, ...]] = []
        self.ticks = 0

    @property
    def failures(self) -> list[tuple[Any, ...]]:
        return [told[1:] for told in self.told if told[0] == "failed"]

    def begin(self, titles: Sequence[str]) -> Sequence[View]:
        self.columns = {title: RecordingColumn() for title in titles}
        return list(self.columns.values())

    def tick(self) -> None:
        self.ticks += 1
        self._on_tick(self)

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def failed(self, place: int, message: str) -> None:
        self.told.append(("failed", place, message))

    def finish(self, values: Mapping[str, Any] | None, footer: str) -> None:
        self.told.append(("finish", values, footer))

    def fail(self, mark: str = "interrupted") -> None:
        self.told.append(("fail", mark))
