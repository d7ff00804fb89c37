"""What is folded above an answer stands in the order of events: what a round said, then the calls that followed."""

from __future__ import annotations

import pytest

from llm_magic.display.markup import Bundle
from llm_magic.display.notebook import NotebookView
from llm_magic.draft import Draft
from llm_magic.events import Finished, Restarted, TextDelta, ToolResult


class Outputs:
    """Outputs of a cell that remember what stays in them."""

    captured = in_widget = held = False
    alone = replaceable = True
    count = answers = 0

    def __init__(self) -> None:
        self.kept: list[str] = []

    def clear(self) -> None:
        self.kept.clear()

    def add(self, bundle: Bundle, *_: object) -> None:
        self.kept.append(bundle["text/plain"])

    def settle(self, bundle: Bundle, *_: object, **_line: object) -> None:
        self.kept.append(bundle.get("text/plain", bundle.get("text/markdown", "")))

    def paint(self, *_: object, **_line: object) -> None:
        pass

    def drop_line(self) -> None:
        pass

    def release(self, *, alone: bool) -> None:
        pass


def result(name: str, place: int) -> ToolResult:
    return ToolResult(name, name, "{}", "1", place=place)


ROUNDS = [
    [TextDelta("I look at both."), result("fast", 1), result("slow", 0), Restarted("tools")],
    [TextDelta("And at a third."), result("third", 0), Restarted("tools")],
    [result("fourth", 0), Restarted("tools")],
    [TextDelta("Done."), Finished("stop")],
]


@pytest.mark.parametrize("every", [1, 2, 3, 100], ids=lambda every: f"painted after {every}")
def test_what_was_said_stands_above_the_calls_that_followed(every: int) -> None:
    outputs, draft = Outputs(), Draft()
    view = NotebookView(outputs, "markdown", 10)  # type: ignore[arg-type]
    for number, event in enumerate((event for events in ROUNDS for event in events), start=1):
        draft.add(event)
        if number % every == 0:
            view.update(draft)
    view.update(draft)
    view.finish(draft.response(), "")
    folded, answer = outputs.kept
    assert answer == "Done."
    titles = [line.partition(" →")[0] for line in folded.splitlines() if not line.startswith(" ")]
    assert titles == ["Said before", "fast()", "slow()", "Said before", "third()", "fourth()"]
    assert folded.index("I look") < folded.index("fast()") < folded.index("And at")


@pytest.mark.parametrize("show", ["markdown", "text"])
def test_what_was_said_last_is_the_answer_where_nothing_followed(show: str) -> None:
    outputs, draft = Outputs(), Draft()
    view = NotebookView(outputs, show, 10)  # type: ignore[arg-type]
    for event in (TextDelta("I look at both."), result("fast", 1)):
        draft.add(event)
        view.update(draft)
    view.fail(draft.response())
    folded, answer, cut = outputs.kept
    assert folded.startswith("fast()")
    assert "I look" not in folded
    assert (answer, cut) == ("I look at both.", "Cut off: the connection ended before the answer did.")


def test_text_painted_before_a_call_ended_is_not_painted_below_it() -> None:
    outputs, draft = Outputs(), Draft()
    view = NotebookView(outputs, "markdown", 10, clock=lambda: 0.0)  # type: ignore[arg-type]
    draft.add(TextDelta("I look at both."))
    view.update(draft)
    draft.add(result("fast", 1))
    view.update(draft)
    view.progress("calling slow …")
    view.update(draft)
    assert [text.partition(" →")[0] for text in outputs.kept] == ["I look at both.", "fast()"]
