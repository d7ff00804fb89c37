"""Cells as they are told to a view: rounds of events with what follows them, and outputs folded as by a front end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magic.errors import InvalidValueError, LLMError
from llm_magic.events import (
    CitationFound,
    Event,
    Finished,
    Identified,
    ImageReceived,
    ItemReceived,
    Note,
    ReasoningDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image
from llm_magic.output.spec import OutputSpec, spec_from


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


LONG = (
    "# Title\n\nLet \\(a\\) be *so*.\n\n- one\n\n- two\n\n```python\nx = 1\n\ny = 2\n```\n\n" + "A paragraph.\n\n" * 60
)
PEOPLE = '[{"name": "Ada", "born": 1815}, {"name": "Bo", "born": 1900}]'
GIF = Image(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "image/gif")
RECORDS = spec_from(as_="list[dict[str, int | str]]", namespace={})
WORD = spec_from(as_='Literal["yes", "no"]', namespace={})
AGAIN: list[Event] = [Note("Not valid: no. Asking again."), Restarted("invalid")]
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
            Round(said(TextDelta('{"value": "perhaps"}')), AGAIN),
            Round(said(TextDelta('{"value": "yes"}'))),
        ],
        spec=WORD,
    ),
    "asked again in words": Story(
        [
            Round(said(TextDelta("I think so.\n\nYes.")), AGAIN),
            Round(said(ReasoningDelta("ah"), TextDelta('{"value": "yes"}'))),
        ],
        spec=WORD,
    ),
    "a table": Story([Round(said(TextDelta(PEOPLE)))], spec=RECORDS, before=(Note("sent non-strict"),)),
    "invalid at last": Story(
        [
            Round(said(TextDelta("[1]")), AGAIN),
            Round(said(TextDelta("[2]"))),
        ],
        spec=RECORDS,
        error=InvalidValueError("no"),
    ),
    "several": Story(
        [Round(said(ImageReceived(GIF, 1), TextDelta("one"), TextDelta("*two*", 1), Finished("length", 1)))]
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

    def __init__(self, *, captures: bool = False) -> None:
        if not captures:
            self.pub_socket = self.parent_header = self.set_thread_parent = None
        self.kinds: list[str] = []
        self.seen_first: list[str] = []  # of each new output, what stood there first
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
        self.seen_first.append(str(next(iter(data.values()), "")).split("\n")[0])
        if name:
            self._shown[name] = self.outputs[-1]


def pieces(event: Event) -> Iterator[Event]:
    """Yield a text as it streams: a few characters at a time."""
    if isinstance(event, TextDelta | ReasoningDelta):
        yield from (replace(event, text=event.text[at : at + 7]) for at in range(0, len(event.text), 7))
    else:
        yield event
