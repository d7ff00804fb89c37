"""A replayed answer leaves the very outputs that it left when it streamed, each sent once, and nothing is cleared.

The same rounds are told to a real screen and view, once as they came and once from a recording; what is sent is folded
as a front end folds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from stories import (
    AGAIN,
    GIF,
    STORIES,
    WORD,
    Publisher,
    Round,
    Story,
    call,
    pieces,
    result,
    said,
)
from terminal_screen import Screen as Terminal

from llm_magic.background_loop import BackgroundLoop, Emit
from llm_magic.display.notebook import NotebookView
from llm_magic.display.outputs import CellOutputs
from llm_magic.display.plain import PlainView
from llm_magic.display.terminal import TerminalView
from llm_magic.draft import Draft
from llm_magic.errors import InvalidValueError
from llm_magic.events import (
    Attempt,
    CitationFound,
    Event,
    ImageReceived,
    ItemReceived,
    Note,
    Opened,
    Progress,
    ReasoningDelta,
    Replayed,
    Restarted,
    TextDelta,
)
from llm_magic.messages import Citation
from llm_magic.recordings.pace import at_pace
from llm_magic.response import Response
from llm_magic.session.screen import Screen


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


def scripted(
    story: Story,
    *,
    replays: bool = False,
    live_from: int = 9,
    pace: float = 0.0,
    every: int = 1,
    step: bool = False,
    pause: float = 0.0,
) -> Any:
    """Return a run that tells a story as it came, so many events at a time, or its first rounds from a recording.

    With `step` each batch waits until the one before is shown.
    """
    draft = Draft()
    draft.replaying = replays and not pace
    plan = SimpleNamespace(models=[SimpleNamespace(target=SimpleNamespace(asked="p:m"))], spec=story.spec)
    run = SimpleNamespace(draft=draft, plan=plan, response=None, model="p:m", told=0, shown=0)

    async def answer(emit: Emit[Any]) -> Response:
        async def tell(*batch: Event) -> None:
            draft.add_all(batch)
            await emit(list(batch))
            run.told += len(batch)
            while step and run.shown < run.told:  # noqa: ASYNC110 - the screen is a thread
                await asyncio.sleep(0)
            await asyncio.sleep(pause)

        async def tell_in_pieces(events: list[Event]) -> None:
            for at in range(0, len(events), every):
                await tell(*events[at : at + every])

        await tell_in_pieces([*story.before])
        for number, (each, seconds) in enumerate(zip(story.rounds, ENDS, strict=False)):
            if replays and number < live_from:
                await tell(replayed := Replayed(seconds, 0.25, pace), *([] if pace else each.recorded))
                if pace:
                    async for batch in at_pace(each.recorded, seconds - draft.seconds, 0.25, replayed.pace):
                        await tell(*batch)
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


@pytest.fixture(scope="module")
def loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop()
    yield loop
    loop.close()


class Counting(Screen):
    """A screen that counts the events that it has shown."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        show = self._shown._show

        def counting(batch: list[Any]) -> None:
            show(batch)
            self.run.shown += len(batch)  # type: ignore[attr-defined]  # the run is a scripted one

        self._shown._show = counting  # type: ignore[method-assign]


def follow(loop: BackgroundLoop, run: Any, view: Any) -> None:
    with contextlib.suppress(InvalidValueError):
        Counting(run, view, loop, run.answer, footer=True).follow()


def without_mark(outputs: list[dict[str, Any]]) -> str:
    """Return outputs as they are saved, without what tells that they come from a recording."""
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
    follow(loop, scripted(told, step=True), view)
    again, view = notebook(show=show, **PLACES[place])
    follow(loop, scripted(told, replays=True), view)
    assert set(again.kinds) <= {"display_data"}
    assert len(again.kinds) == len(again.outputs)
    if place == "in a widget":  # where blocks that streamed are outputs of their own, and what is said stands between
        assert _joined(again, told.after) == _joined(live, told.after)
    else:
        assert without_mark(again.outputs) == json.dumps(live.outputs, indent=1, ensure_ascii=False)


def _joined(publisher: Publisher, beside: tuple[Note, ...]) -> str:
    texts = [output["data"].get("text/markdown") or output["data"]["text/plain"] for output in publisher.outputs]
    return "".join(text for text in texts if Note(text) not in beside)


@pytest.mark.parametrize("every", [1, 2, 5, 1000])
@pytest.mark.parametrize("story", STORIES)
def test_what_is_saved_does_not_depend_on_when_events_came(loop: BackgroundLoop, story: str, every: int) -> None:
    told = STORIES[story]
    first, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(told, step=True), view)
    second, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(told, every=every), view)
    assert second.outputs == first.outputs


def test_one_output_holds_the_mark(loop: BackgroundLoop) -> None:
    publisher, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(STORIES["rounds of tools"], replays=True), view)
    folded, answer, notes, footer = publisher.outputs
    assert answer["metadata"]["llm_magic"]["recorded"] is True
    assert folded["metadata"] == notes["metadata"] == footer["metadata"] == {}
    assert footer["data"]["text/plain"] == "p:m · 12 → 16 tokens · 9.8 s"


@pytest.mark.parametrize("place", ["alone", "among other lines"])
def test_what_is_asked_after_all_is_shown_as_it_comes(loop: BackgroundLoop, place: str) -> None:
    """A tool gave something else than when it was recorded: the answer to that is not there."""
    told = STORIES["rounds of tools"]
    live, view = notebook(show="markdown", **PLACES[place])
    follow(loop, scripted(told, step=True), view)
    again, view = notebook(show="markdown", **PLACES[place])
    follow(loop, scripted(told, replays=True, live_from=3, pause=0.06), view)
    assert again.outputs == live.outputs
    assert again.kinds.count("clear_output") == (place == "alone")
    assert "update_display_data" in again.kinds
    assert again.kinds.index("update_display_data") < len(again.kinds) - 3
    assert again.seen_first[:3] == (
        ["rows cut", "Reasoning (1 word)", "I look at both."]
        if place == "alone"
        else ["rows cut", "Reasoning (1 word)", "Said before"]
    )


def test_what_is_said_first_is_shown_where_a_request_is_prepared(loop: BackgroundLoop) -> None:
    """Recordings were looked at, and it is not there: a model is loaded, which may take long."""
    publisher, view = notebook("%%llm\nx", "markdown")
    run = scripted(STORIES["text"], replays=True)
    seen: list[list[str]] = []

    async def answer(emit: Emit[Any]) -> Response:
        run.draft.add(Note("rows cut"))
        await emit([Note("rows cut")])
        await asyncio.sleep(0.3)
        seen.append([*publisher.seen_first])
        run.draft.go_live()
        await emit([Progress("loading …")])
        while len(publisher.seen_first) < 2:  # noqa: ASYNC110 - the screen is a thread
            await asyncio.sleep(0.01)
        seen.append([*publisher.seen_first])
        run.draft.begin_request()
        run.draft.add(TextDelta("Hi"))
        await emit([TextDelta("Hi")])
        run.response = run.draft.response()
        return run.response

    run.answer = answer
    follow(loop, run, view)
    assert seen == [[], ["rows cut", "loading …"]]
    assert publisher.kinds.count("clear_output") == 1


def test_an_error_keeps_what_is_recorded(loop: BackgroundLoop) -> None:
    publisher, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(STORIES["invalid at last"], replays=True), view)
    assert [output["data"]["text/plain"].split("\n")[0] for output in publisher.outputs] == [
        "Said before",
        "[2]",
        "Not valid: no. Asking again.",
    ]


def test_at_a_pace_it_streams(loop: BackgroundLoop) -> None:
    publisher, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(STORIES["text"], replays=True, pace=4.0), view)
    assert publisher.kinds.count("clear_output") == 1
    assert publisher.kinds.count("update_display_data") > 3
    live, view = notebook("%%llm\nx", "markdown")
    follow(loop, scripted(STORIES["text"]), view)
    assert without_mark(publisher.outputs) == json.dumps(live.outputs, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("story", STORIES)
def test_in_a_terminal_the_same_is_printed(loop: BackgroundLoop, story: str, show: str) -> None:
    def printed(run: Any) -> tuple[str, str]:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=70, height=200, color_system=None)
        follow(loop, run, TerminalView(show, 20, console=console))
        screen = Terminal(height=200)
        screen.write(file.getvalue())
        return screen.text, file.getvalue()

    told = STORIES[story]
    text, codes = printed(scripted(told, replays=True))
    assert text == printed(scripted(told, step=True))[0]
    assert "\x1b[" not in codes  # no cursor is moved


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("story", STORIES)
def test_without_a_terminal_the_same_is_written(
    loop: BackgroundLoop, story: str, show: str, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(loop, scripted(STORIES[story], step=True), PlainView(show))
    live = capsys.readouterr()
    follow(loop, scripted(STORIES[story], replays=True), PlainView(show))
    assert capsys.readouterr() == live


def test_a_terminal_goes_on_live(loop: BackgroundLoop) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=70, height=200, color_system=None)
    run = scripted(STORIES["rounds of tools"], replays=True, live_from=3, pause=0.1)
    follow(loop, run, TerminalView("markdown", 20, console=console))
    before, _, after = file.getvalue().partition("g(x=1)")
    assert "\x1b[" not in before
    assert "\x1b[" in after


SAID = [
    "Hi", "", " ", "\n\n", "# T\n\nOne.\n\nTwo", "```py\nx = 1\n\ny", "<b>x", "| a |\n|---|\n| 1 |\n", "[1]", '"yes"',
    '{"value": "yes"}', "Let me see.\n\n", "A paragraph.\n\n" * 30,
]  # fmt: skip


def made_up(chance: random.Random) -> Story:
    """Return a cell of rounds that some model might give."""
    count, typed = chance.choice([1, 1, 2, 3, 4]), chance.random() < 0.3
    rounds = []
    for number in range(count):
        answer: list[Event] = []
        if chance.random() < 0.5:
            answer.append(ReasoningDelta(chance.choice(["Hm", "Well, so.\n\nAnd", "   "])))
        if chance.random() < 0.2:
            answer.append(ItemReceived(0, {"type": "web_search_call", "status": "completed"}))
        if chance.random() < 0.2:
            answer.append(ImageReceived(GIF))
        if chance.random() < 0.8:
            answer.append(TextDelta(chance.choice(SAID)))
        if count == 1 and not typed and chance.random() < 0.3:
            answer.append(TextDelta(chance.choice(SAID), 1))
        if chance.random() < 0.2:
            answer.append(CitationFound(Citation("https://a.example", "A", 0, 1)))
        if number == count - 1:
            answer += [call("h")] * (chance.random() < 0.2)
            rounds.append(Round(said(*answer, reason=chance.choice(["stop", "length", "refusal"]))))
        elif chance.random() < 0.4:
            rounds.append(Round(said(*answer), AGAIN))
        else:
            names = [*enumerate("fg"[: chance.choice([1, 2])])]
            ended = [result(name, place) for place, name in chance.sample(names, len(names))]
            passed_over = [Note("passed over")] * (chance.random() < 0.2)
            calls = [call(name, place) for place, name in names]
            rounds.append(Round(said(*answer, *calls), [*passed_over, *ended, Restarted("tools")]))
    return Story(
        rounds,
        before=(Note("one"), Note("two"))[: chance.choice([0, 0, 1, 2])],
        after=(Note("three"),)[: chance.choice([0, 0, 1])],
        spec=WORD if typed else None,
        error=InvalidValueError("no") if typed or chance.random() < 0.3 else None,
    )


@pytest.mark.parametrize("seed", range(60))
def test_whatever_came(loop: BackgroundLoop, seed: int) -> None:
    """Streamed event by event, in batches of any size, and replayed: the same is saved."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    told, show = made_up(chance), chance.choice(SHOWS)
    place = chance.choice(["alone", "among other lines", "captured"])
    live, view = notebook(show=show, **PLACES[place])
    follow(loop, scripted(told, step=True), view)
    again, view = notebook(show=show, **PLACES[place])
    follow(loop, scripted(told, replays=True), view)
    assert without_mark(again.outputs) == json.dumps(live.outputs, indent=1, ensure_ascii=False)
    assert set(again.kinds) <= {"display_data"}
    if place == "alone":
        batched, view = notebook(show=show, **PLACES[place])
        follow(loop, scripted(told, every=chance.choice([1, 2, 3, 7, 1000])), view)
        assert batched.outputs == live.outputs
