"""Events are folded into what a cell gives back."""

from hypothesis import given
from hypothesis import strategies as st

from llm_magic.draft import Draft
from llm_magic.events import (
    Attempt,
    CitationFound,
    Finished,
    Identified,
    ImageReceived,
    ItemReceived,
    Note,
    Opened,
    Progress,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Replayed,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image, ToolCall
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


A, B = Citation("https://a.example", "A", 0, 3), Citation("https://b.example")
PICTURE, OTHER = Image(b"GIF89a", "image/gif"), Image(url="https://e.example/i.png")


def test_what_is_beside_the_text() -> None:
    response = folded(
        ItemReceived(0, {"type": "web_search_call", "status": "in_progress"}),
        ItemReceived(1, {"type": "other"}),
        ItemReceived(0, {"type": "web_search_call", "status": "completed"}),
        CitationFound(B),
        CitationFound(A),
        CitationFound(Citation("https://b.example", "B")),
        CitationFound(A),
        ImageReceived(PICTURE),
        ImageReceived(OTHER),
        TextDelta("Hi"),
    ).response()
    assert response.citations == (Citation("https://b.example", "B"), A)
    assert response.images == (PICTURE, OTHER)
    assert response.items == ({"type": "web_search_call", "status": "completed"}, {"type": "other"})


def test_rounds_of_tools_add_up() -> None:
    """A span of a text that is put aside is no span of the answer's."""
    first, second = {"type": "mcp_call", "n": 1}, {"type": "mcp_call", "n": 2}
    events = [CitationFound(A), CitationFound(B), ImageReceived(PICTURE), ItemReceived(0, first), Restarted("tools")]
    response = folded(*events, ItemReceived(0, second), CitationFound(B), CitationFound(A)).response()
    assert response.citations == (Citation("https://a.example", "A"), B, A)
    assert (response.images, response.items) == ((PICTURE,), (first, second))


def test_what_is_asked_for_again_is_not_doubled() -> None:
    kept = [CitationFound(B), ItemReceived(0, {"type": "mcp_call"}), Restarted("tools")]
    answer = [CitationFound(A), ImageReceived(PICTURE), ItemReceived(0, {"type": "web_search_call"})]
    for why in ("invalid", "fallback"):
        response = folded(*kept, *answer, Restarted(why), *answer).response()
        assert (response.citations, response.images) == ((B, A), (PICTURE,))
        assert response.items == ({"type": "mcp_call"}, {"type": "web_search_call"})


def test_each_of_several_answers_has_its_own() -> None:
    response = folded(
        TextDelta("a"), CitationFound(A), ImageReceived(PICTURE, 1), CitationFound(B, 1), ItemReceived(0, {"n": 1}, 1)
    ).response()
    assert (response.citations, response.images, response.items) == ((A,), (), ())
    first, second = response.alternatives
    assert (first.citations, first.images, first.items) == ((A,), (), ())
    assert (second.text, second.citations, second.images, second.items) == ("", (B,), (PICTURE,), ({"n": 1},))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_clocks_start_when_a_request_is_sent() -> None:
    clock = Clock()
    draft = Draft(clock)
    clock.now += 50  # weights are fetched
    assert draft.seconds == 0.0
    draft.begin_request()
    clock.now += 3
    draft.add(Attempt("p", "m", 503, "overloaded", 3.0, final=False))
    clock.now += 8  # the wait before the next attempt, and one second of that
    draft.add(Attempt("p", "m", 200, "", 1.0))
    clock.now += 0.5
    draft.add(TextDelta("Hi"))
    clock.now += 2
    assert (draft.first_token_seconds, draft.seconds) == (1.5, 13.5)
    draft.add(Restarted("tools"))
    draft.begin_request()
    clock.now += 4
    draft.add_all([Attempt("p", "m", 200, "", 4.0), TextDelta("Hi again")])
    assert (draft.first_token_seconds, draft.seconds) == (1.5, 17.5)


def test_the_clocks_of_a_backend_that_tells_no_attempts() -> None:
    clock = Clock()
    draft = Draft(clock)
    clock.now += 50
    draft.begin_request()
    clock.now += 2
    draft.add(TextDelta("Hi"))
    assert (draft.first_token_seconds, draft.seconds) == (2.0, 2.0)


def test_nothing_sent_took_no_time() -> None:
    response = Draft(Clock()).response()
    assert (response.first_token_seconds, response.seconds) == (None, 0.0)


RECORDED = [Attempt("p", "m", 503, "overloaded", 9.0, final=False), Attempt("p", "m", 200, "", 1.0), Identified("m-1")]


def test_an_answer_from_a_recording_has_the_times_that_were_recorded() -> None:
    clock = Clock()
    draft = Draft(clock)
    draft.add_all([Replayed(12.25, 1.5), *RECORDED, TextDelta("Hi")])
    assert (draft.recorded, draft.replaying) == (True, True)
    clock.now += 40
    draft.add_all([Finished("stop"), UsageReport(Usage(1, 2))])
    clock.now += 40  # it is shown
    assert (draft.first_token_seconds, draft.seconds) == (1.5, 12.25)
    response = draft.response()
    assert (response.recorded, response.first_token_seconds, response.seconds) == (True, 1.5, 12.25)
    assert [attempt.status for attempt in response.attempts] == [503, 200]


def test_a_live_answer_is_not_recorded() -> None:
    draft = Draft(Clock())
    assert (draft.recorded, draft.replaying, draft.response().recorded) == (False, False, False)
    draft.begin_request()
    draft.add_all([TextDelta("Hi"), Finished("stop")])
    assert (draft.recorded, draft.replaying, draft.response().recorded) == (False, False, False)


def test_rounds_from_a_recording() -> None:
    """Tools run again, in a time of their own: what counts is the recorded one."""
    clock = Clock()
    draft = Draft(clock)
    draft.add_all([Replayed(2.0, None), ToolCallDelta(0, "1", "f", "{}"), Finished("tool_calls")])
    assert (draft.first_token_seconds, draft.seconds) == (None, 2.0)
    clock.now += 70
    draft.add_all([ToolResult("1", "f", "{}", "42"), Restarted("tools")])
    assert (draft.seconds, draft.replaying) == (2.0, True)
    draft.add_all([Replayed(5.5, 0.25), TextDelta("42"), Finished("stop")])
    assert (draft.first_token_seconds, draft.seconds, draft.recorded, draft.replaying) == (0.25, 5.5, True, True)
    draft.add_all([Restarted("invalid"), Replayed(7.0, 3.0), TextDelta("43"), Finished("stop")])
    assert (draft.first_token_seconds, draft.seconds, draft.recorded) == (0.25, 7.0, True)


def test_a_request_that_follows_a_recorded_answer_goes_on_from_its_time() -> None:
    clock = Clock()
    draft = Draft(clock)
    clock.now += 9  # the recording is looked for
    draft.add_all([Replayed(2.0, 0.5), ToolCallDelta(0, "1", "f", "{}"), Finished("tool_calls")])
    clock.now += 3  # the tool
    draft.add_all([ToolResult("1", "f", "{}", "42"), Restarted("tools")])
    draft.begin_request()
    assert (draft.seconds, draft.recorded, draft.replaying) == (5.0, False, False)
    clock.now += 4
    draft.add_all([Attempt("p", "m", 200, "", 4.0), TextDelta("Hi"), Finished("stop")])
    assert (draft.first_token_seconds, draft.seconds, draft.response().recorded) == (0.5, 9.0, False)
    draft.add_all([Restarted("invalid"), Replayed(20.0, 3.0), TextDelta("43"), Finished("stop")])
    clock.now += 1
    assert (draft.seconds, draft.recorded, draft.replaying) == (20.0, False, False)


def test_a_run_says_that_it_looks_for_a_recording_until_it_prepares_a_request() -> None:
    draft = Draft(Clock())
    draft.replaying = True
    draft.add(Note("rows cut"))
    assert draft.replaying
    draft.go_live()
    draft.add_all([Replayed(2.0, 0.5), TextDelta("Hi")])
    assert (draft.replaying, draft.recorded) == (False, True)
    draft = Draft(Clock())
    draft.replaying = True
    draft.begin_request()
    assert not draft.replaying


def test_a_recorded_answer_at_a_pace_has_the_time_that_it_shows_until_it_ends() -> None:
    clock = Clock()
    draft = Draft(clock)
    draft.add_all([Replayed(2.0, 0.5, pace=2.0), Attempt("p", "m", 200, "", 0.5)])
    assert (draft.replaying, draft.recorded, draft.first_token_seconds, draft.seconds) == (False, True, None, 0.0)
    clock.now += 0.5
    draft.add(ReasoningDelta("hm"))
    assert (draft.first_token_seconds, draft.seconds) == (0.5, 1.0)
    clock.now += 60  # the machine slept
    assert draft.seconds == 2.0
    draft.add_all([ToolCallDelta(0, "1", "f", "{}"), Finished("tool_calls")])
    clock.now += 0.5
    assert draft.seconds == 2.0
    draft.add_all([ToolResult("1", "f", "{}", "42"), Restarted("tools"), Replayed(6.0, 0.5, pace=2.0)])
    assert draft.seconds == 3.0  # the tool ran again, and that is part of the time
    clock.now += 1
    assert draft.seconds == 5.0
    draft.begin_request()  # the answer broke off, which no recorded one does
    assert draft.seconds == 5.0


def test_settled_seconds_stay_until_the_next_request_which_goes_on_from_them() -> None:
    clock = Clock()
    draft = Draft(clock)
    assert draft.settle() == 0.0
    clock.now += 1
    draft.begin_request()
    clock.now += 0.125
    draft.add_all([TextDelta("Hi"), Finished("stop")])
    assert draft.settle() == 0.125
    clock.now += 5
    assert (draft.seconds, draft.response().seconds) == (0.125, 0.125)
    assert draft.settle(1.25) == draft.seconds == 1.25
    clock.now += 2
    draft.begin_request()
    clock.now += 1
    assert (draft.seconds, draft.first_token_seconds) == (4.25, 0.125)


def test_the_cost_of_a_header_and_of_the_usage_is_one_cost() -> None:
    draft = folded(Opened(200, {}, None, 0.25), TextDelta("a"), UsageReport(Usage(1, 1)))
    assert draft.cost == 0.25
    draft.add_all([UsageReport(Usage(1, 2), 0.3), UsageReport(Usage(1, 3), 0.5)])  # it grows: the last one counts
    assert draft.cost == 0.5
    draft.add_all([Restarted("tools"), Opened(200, {}, None, 1.0), TextDelta("b")])
    assert draft.response().cost == 1.5
    draft.add_all([Restarted("invalid"), Opened(200, {}), TextDelta("c")])
    assert draft.response().cost == 1.5
    assert folded(Opened(200, {}), TextDelta("a"), UsageReport(Usage(1, 1))).cost is None


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
