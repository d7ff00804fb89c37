"""Events are folded into what a cell gives back."""

from hypothesis import given
from hypothesis import strategies as st

from llm_magic.draft import Draft
from llm_magic.events import (
    Attempt,
    Finished,
    Identified,
    Note,
    Opened,
    Progress,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import ToolCall
from llm_magic.response import ToolRun


def folded(*events: object) -> Draft:
    draft = Draft()
    for event in events:
        draft.add(event)  # type: ignore[arg-type]  # events, as objects
    return draft


@given(st.lists(st.text()))
def test_text_is_the_deltas_in_order_however_often_it_is_read(deltas: list[str]) -> None:
    draft = Draft()
    for number, delta in enumerate(deltas):
        draft.add(TextDelta(delta))
        assert draft.text == "".join(deltas[: number + 1])


def test_a_whole_answer() -> None:
    draft = folded(
        Attempt("p", "m", 503, "overloaded", 0.1, final=False),
        Opened(200, {"x-ratelimit-remaining-requests": "9", "server": "x"}, "req-1"),
        Identified("m-2026"),
        ReasoningDelta("hm"),
        TextDelta("Hel"),
        TextDelta("lo"),
        Progress("…"),
        Note("rows cut"),
        UsageReport(Usage(1, 1)),
        UsageReport(Usage(3, 4, 1, 2)),
        Finished("stop"),
        Finished("length"),
    )
    response = draft.response(model="m")
    assert (response.text, response.reasoning, response.finish_reason) == ("Hello", "hm", "stop")
    assert response.usage == Usage(3, 4, 1, 2)
    assert (response.model, response.model_reported, response.request_id) == ("m", "m-2026", "req-1")
    assert response.rate_limits == {"remaining-requests": "9"}
    assert response.notes == ("rows cut",)
    assert [attempt.status for attempt in response.attempts] == [503]
    assert response.first_token_seconds is not None
    assert response.alternatives == ()


def test_without_a_finish_reason_it_is_truncated() -> None:
    assert folded(TextDelta("x")).response().finish_reason == "truncated"


def test_tool_calls_are_put_together_by_position() -> None:
    draft = folded(
        ToolCallDelta(0, "a", "f", '{"x"'),
        ToolCallDelta(1, "b", "g", "{}"),
        ToolCallDelta(0, arguments=": 1}"),
    )
    assert draft.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))


def test_a_restart_puts_the_answer_aside_and_keeps_what_was_spent() -> None:
    draft = folded(
        TextDelta("first"), UsageReport(Usage(1, 2)), Finished("stop"), Restarted("invalid"), TextDelta("second")
    )
    assert (draft.text, draft.finish_reason, draft.generation) == ("second", None, 1)
    draft.add(UsageReport(Usage(10, 20)))
    assert draft.usage == Usage(11, 22)


def test_alternatives_refusals_and_tools() -> None:
    draft = folded(
        TextDelta("a", 0),
        TextDelta("b", 1),
        Finished("stop", 0),
        RefusalDelta("no"),
        ToolResult("1", "f", "{}", "42"),
    )
    response = draft.response()
    assert [(each.text, each.finish_reason) for each in response.alternatives] == [("a", "stop"), ("b", "truncated")]
    assert response.refusal == "no"
    assert response.tool_calls == (ToolRun("1", "f", "{}", "42"),)


def test_reasoning_of_all_rounds() -> None:
    draft = Draft()
    for events in (
        [ReasoningDelta("one"), ReasoningDelta(" more"), ReasoningItem({"reasoning": "one more"}), Restarted("tools")],
        [Restarted("invalid")],
        [ReasoningDelta("two"), ReasoningDelta("other", 1), ReasoningItem({"reasoning": "two"})],
    ):
        for event in events:
            draft.add(event)
    assert (draft.reasoning, draft.reasoning_of_round.strip()) == ("one more\n\ntwo", "two")
    assert (draft.reasoning_items(), draft.reasoning_items(1)) == (({"reasoning": "two"},), ())
    draft.add(Restarted("fallback"))
    assert (draft.reasoning, draft.reasoning_items()) == ("", ())
