"""A replayed answer leaves the very outputs that it left when it streamed, each sent once, and nothing is cleared.

The same rounds are told to a real screen and view, once as they came and once from a recording; what is sent is folded
as a front end folds it.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from llm_magic.background_loop import BackgroundLoop, Emit
from llm_magic.display.notebook import NotebookView
from llm_magic.display.outputs import CellOutputs
from llm_magic.display.plain import PlainView
from llm_magic.display.terminal import TerminalView
from llm_magic.draft import Draft
from llm_magic.errors import InvalidValueError, LLMError
from llm_magic.events import (
    Attempt,
    CitationFound,
    Event,
    Finished,
    Identified,
    ImageReceived,
    ItemReceived,
    Note,
    Opened,
    ReasoningDelta,
    Replayed,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image
from llm_magic.output.spec import OutputSpec, spec_from
from llm_magic.response import Response
from llm_magic.session.screen import Screen


@dataclass
class Round:
    """One answer of a cell as it is recorded, and what the run says after it."""

    recorded: list[Event]
    after: list[Event] = field(default_factory=list)


@dataclass
class Story:
    """A cell: its rounds, the notes before and after them, its type, and the error that it ends with."""

    rounds: list[Round]
    before: tuple[Note, ...] = ()
    after: tuple[Note, ...] = ()
    spec: OutputSpec | None = None
    error: LLMError | None = None


def said(*events: Event, reason: Any = "stop") -> list[Event]:
    return [Identified("m-1"), *events, Finished(reason), UsageReport(Usage(3, 4))]


def call(name: str, place: int = 0) -> ToolCallDelta:
    return ToolCallDelta(place, name, name, '{"x": 1}')


def result(name: str, place: int = 0) -> ToolResult:
    return ToolResult(name, name, '{"x": 1}', "1", place=place)


LONG = "# Title\n\nLet \\(a\\) be *so*.\n\n- one\n\n- two\n\n```python\nx = 1\n\ny = 2\n```\n\n" + "A paragraph.\n\n" * 60
PEOPLE = '[{"name": "Ada", "born": 1815}, {"name": "Bo", "born": 1900}]'
GIF = Image(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "image/gif")
RECORDS = spec_from(as_="list[dict[str, int | str]]", namespace={})
WORD = spec_from(as_='Literal["yes", "no"]', namespace={})
STORIES = {
    "text": Story([Round(said(TextDelta(LONG)))]),
    "a word": Story([Round(said(TextDelta("Hi")))]),
    "without a line that ends": Story([Round(said(TextDelta("One.\n\nTwo")))], before=(Note("rows cut"),)),
    "reasoning": Story([Round(said(ReasoningDelta("First this, then that. " * 9), TextDelta(LONG)))]),
    "cut": Story([Round(said(TextDelta("As I was say"), reason="length"))], after=(Note("a file was put aside"),)),
    "nothing": Story([Round(said())]),
    "hostile": Story([Round(said(TextDelta("<script>alert(1)</script>\x1b[2J \ud83d\n\n```\n<b>")))]),
    "rounds of tools": Story(
        [
            Round(
                said(ReasoningDelta("Hm, "), TextDelta("I look at both.\n\nSo"), call("f"), call("g", 1)),
                [result("f"), result("g", 1), Restarted("tools")],
            ),
            Round(said(TextDelta("\n\n"), call("f")), [result("f"), Restarted("tools")]),
            Round(said(ReasoningDelta("well"), call("f")), [result("f"), Restarted("tools")]),
            Round(said(ReasoningDelta("done"), TextDelta("Done.\n\nReally."))),
        ],
        before=(Note("rows cut"),),
        after=(Note("Not run, for --tools does not offer it: h()."),),
    ),
    "calls alone": Story([Round(said(call("h"), reason="tool_calls"))]),
    "asked again": Story(
        [
            Round(said(TextDelta('{"value": "perhaps"}')), [Note("Not valid: no. Asking again."), Restarted("invalid")]),
            Round(said(TextDelta('{"value": "yes"}'))),
        ],
        spec=WORD,
    ),
    "asked again in words": Story(
        [
            Round(said(TextDelta("I think so.\n\nYes.")), [Note("Not valid: no. Asking again."), Restarted("invalid")]),
            Round(said(ReasoningDelta("ah"), TextDelta('{"value": "yes"}'))),
        ],
        spec=WORD,
    ),
    "a table": Story([Round(said(TextDelta(PEOPLE)))], spec=RECORDS, before=(Note("sent non-strict"),)),
    "invalid at last": Story(
        [
            Round(said(TextDelta("[1]")), [Note("Not valid: no. Asking again."), Restarted("invalid")]),
            Round(said(TextDelta("[2]"))),
        ],
        spec=RECORDS,
        error=InvalidValueError("no"),
    ),
    "several": Story(
        [Round(said(TextDelta("one"), TextDelta("*two*", 1), Finished("length", 1), ImageReceived(GIF, 1)))]
    ),
    "beside the text": Story(
        [
            Round(
                said(
                    ItemReceived(0, {"type": "web_search_call", "status": "completed", "query": "x"}),
                    ImageReceived(GIF),
                    TextDelta("See."),
                    CitationFound(Citation("https://a.example", "A", 0, 3)),
                    CitationFound(Citation("https://b.example")),
                )
            )
        ]
    ),
    "an image alone": Story([Round(said(ImageReceived(GIF)))], before=(Note("one"), Note("two"))),
}


class Publisher:
    """What a kernel publishes outputs with; the messages are folded as a front end folds them."""

    parent_header: dict[str, Any] = {}

    def __init__(self, *, captures: bool = False) -> None:
        if not captures:
            self.pub_socket = self.set_thread_parent = None
        self.kinds: list[str] = []
        self.outputs: list[dict[str, Any]] = []
        self._shown: dict[str, dict[str, Any]] = {}
        self._clears = False

    def clear_output(self, *, wait: bool) -> None:
        assert wait
        self.kinds.append("clear_output")
        self._clears = True

    def publish(self, data: Any, metadata: Any, transient: dict[str, str], *, update: bool) -> None:
        name = transient.get("display_id", "")
        if update:
            self.kinds.append("update_display_data")
            self._shown[name].update(data=data, metadata=metadata)
            return
        self.kinds.append("display_data")
        if self._clears:
            self.outputs.clear()
        self._clears = False
        self.outputs.append({"data": data, "metadata": metadata})
        if name:
            self._shown[name] = self.outputs[-1]


def notebook(code: str, show: str, *, captures: bool = False, widget: bool = False) -> tuple[Publisher, NotebookView]:
    publisher = Publisher(captures=captures)
    parent = {"content": {"code": code}}
    shell = SimpleNamespace(display_pub=publisher, kernel=SimpleNamespace(get_parent=lambda: parent))
    outputs = CellOutputs(shell)
    if widget:
        outputs.in_widget, outputs.replaceable = True, False
    return publisher, NotebookView(outputs, show, 20)


ENDS = (1.25, 3.5, 7.0, 9.75)
"""The seconds of the cell at the end of each round."""


def scripted(story: Story, *, replays: bool = False, pace: float = 0.0, every: int = 1, pause: float = 0.0) -> Any:
    """Return a run that tells a story as it came, so many events at a time, or from a recording."""
    draft = Draft()
    draft.replaying = replays and not pace
    plan = SimpleNamespace(models=[SimpleNamespace(target=SimpleNamespace(asked="p:m"))], spec=story.spec)
    run = SimpleNamespace(draft=draft, plan=plan, response=None, model="p:m")

    async def answer(emit: Emit[Any]) -> Response:
        async def tell(*batch: Event) -> None:
            draft.add_all(batch)
            await emit(list(batch))
            await asyncio.sleep(pause)

        async def tell_in_pieces(events: list[Event]) -> None:
            for at in range(0, len(events), every):
                await tell(*events[at : at + every])

        await tell_in_pieces([*story.before])
        for each, seconds in zip(story.rounds, ENDS, strict=False):
            if replays:
                await tell(Replayed(seconds, 0.25, pace), *each.recorded)
            else:
                draft.begin_request()
                opened = [Attempt("p", "m", 200, "", 0.1), Opened(200, {}, None)]
                await tell_in_pieces([*opened, *(piece for event in each.recorded for piece in pieces(event))])
                draft.settle(seconds)
            await tell_in_pieces(each.after)
        await tell_in_pieces([*story.after])
        value = None
        if story.spec is not None and story.error is None:
            value = story.spec.parse(draft.text)
        run.response = draft.response(value=value, model="p:m", provider="p")
        if story.error is not None:
            raise story.error
        return run.response

    run.answer = answer
    return run


def pieces(event: Event) -> Iterator[Event]:
    """Yield a text as it streams: a few characters at a time."""
    if isinstance(event, TextDelta | ReasoningDelta):
        yield from (replace(event, text=event.text[at : at + 7]) for at in range(0, len(event.text), 7))
    else:
        yield event


@pytest.fixture(scope="module")
def loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop()
    yield loop
    loop.close()


def follow(loop: BackgroundLoop, run: Any, view: Any) -> None:
    try:
        Screen(run, view, loop, run.answer, footer=True).follow()
    except InvalidValueError:
        pass


def saved(outputs: list[dict[str, Any]]) -> str:
    return json.dumps(outputs, indent=1, ensure_ascii=False).replace(', "recorded": true', "")


def without_mark(outputs: list[dict[str, Any]]) -> str:
    """Return outputs as they are saved, without what tells that they come from a recording; there is one such."""
    outputs = json.loads(json.dumps(outputs))
    about = [output["metadata"]["llm_magic"] for output in outputs if "llm_magic" in output["metadata"]]
    assert all(each.pop("recorded") is True for each in about)
    return json.dumps(outputs, indent=1, ensure_ascii=False)


SHOWS = ["markdown", "text", "code", "json", "none"]
PLACES: dict[str, dict[str, Any]] = {
    "alone": {"code": "%%llm\nx"},
    "among other lines": {"code": "x = 1\n%llm x"},
    "in a widget": {"code": "%%llm\nx", "widget": True},
    "captured": {"code": "%%capture\n%llm x", "captures": True},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("story", STORIES)
def test_the_saved_outputs_are_those_of_the_answer_that_streamed(
    loop: BackgroundLoop, story: str, show: str, place: str
) -> None:
    told = STORIES[story]
    live, view = notebook(show=show, **PLACES[place])
    follow(loop, scripted(told, pause=0.0 if story in {"text", "reasoning"} else 0.004), view)
    again, view = notebook(show=show, **PLACES[place])
    follow(loop, scripted(told, replays=True), view)
    assert set(again.kinds) <= {"display_data"}
    assert len(again.kinds) == len(again.outputs)
    if place == "in a widget":  # where blocks that streamed are outputs of their own
        assert _joined(again) == _joined(live)
    else:
        assert without_mark(again.outputs) == json.dumps(live.outputs, indent=1, ensure_ascii=False)


def _joined(publisher: Publisher) -> str:
    return "".join(output["data"].get("text/markdown") or output["data"]["text/plain"] for output in publisher.outputs)


@pytest.mark.parametrize("every", [1, 2, 5, 1000])
@pytest.mark.parametrize("story", STORIES)
def test_what_is_saved_does_not_depend_on_when_events_came(loop: BackgroundLoop, story: str, every: int) -> None:
    told = STORIES[story]
    first, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(told, pause=0.002), view)
    second, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(told, every=every), view)
    assert second.outputs == first.outputs
