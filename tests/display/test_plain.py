"""Where there is no terminal: the text on stdout as it comes, everything else on stderr, no control codes."""

from __future__ import annotations

import pytest

from llm_magic.display.plain import PlainView
from llm_magic.draft import Draft
from llm_magic.events import Finished, Restarted, TextDelta
from llm_magic.response import Alternative, Response


def test_text_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    view, draft = PlainView("markdown"), Draft()
    view.begin("m")
    view.progress("waiting")
    view.note("a note")
    for piece in ("# One ", "**two**", "\n"):
        draft.add(TextDelta(piece))
        view.update(draft)
        assert capsys.readouterr().out == piece
    draft.add(TextDelta("end"))
    draft.add(Finished("length"))
    view.finish(draft.response(), "the footer")
    out, err = capsys.readouterr()
    assert out == "end\n"
    assert err == "Cut off: the answer reached its token limit.\nthe footer\n"


def test_another_round_begins_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    view, draft = PlainView("text"), Draft()
    draft.add(TextDelta("I will look."))
    view.update(draft)
    draft.add(Restarted("tools"))
    draft.add(TextDelta("Found."))
    view.update(draft)
    view.finish(draft.response(), "")
    assert capsys.readouterr().out == "I will look.\nFound.\n"


@pytest.mark.parametrize(
    ("show", "response", "written"),
    [
        ("markdown", Response(text='{"a": 1}', value={"a": 1}, finish_reason="stop"), "a  1\n"),
        ("json", Response(text='{"a":1}', value={"a": 1}, finish_reason="stop"), '{\n  "a": 1\n}\n'),
        ("code", Response(text="x\n```\ny\n```\n", finish_reason="stop"), "y\n"),
        ("none", Response(text="x", finish_reason="stop"), ""),
        (
            "markdown",
            Response(text="a", alternatives=(Alternative("a", "stop"), Alternative("b", "stop")), finish_reason="stop"),
            "[Answer 1]\na\n\n[Answer 2]\nb\n",
        ),
    ],
)
def test_values(show: str, response: Response, written: str, capsys: pytest.CaptureFixture[str]) -> None:
    view, draft = PlainView(show), Draft()
    draft.add(TextDelta(response.text))
    view.update(draft, None if response.value is None else lambda: response.value)
    view.finish(response, "")
    if response.alternatives:
        written = "a" + "\n" + written  # it could not know that more were to come
    assert capsys.readouterr().out == written


def test_what_had_arrived_stays(capsys: pytest.CaptureFixture[str]) -> None:
    view, draft = PlainView("markdown"), Draft()
    draft.add(TextDelta("half"))
    view.update(draft)
    draft.add(Finished("interrupted"))
    view.fail(draft.response())
    out, err = capsys.readouterr()
    assert (out, err) == ("half\n", "Interrupted.\n")


def test_a_view_that_is_behind_shows_every_round(capsys: pytest.CaptureFixture[str]) -> None:
    draft, view = Draft(), PlainView("text")
    view.update(draft)
    for text in ("First.", "Second."):
        draft.add(TextDelta(text))
        draft.add(Restarted("tools"))
    draft.add(TextDelta("Third."))
    view.update(draft)
    assert capsys.readouterr().out == "First.\nSecond.\nThird."


def test_a_note_within_a_line_waits_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    view, draft = PlainView("markdown"), Draft()
    draft.add_all([TextDelta("I am gl")])
    view.update(draft)
    view.note("Not recorded.")
    assert capsys.readouterr() == ("I am gl", "")
    view.finish(Response(text="I am glad", finish_reason="stop"), "")
    assert capsys.readouterr() == ("ad\n", "Not recorded.\n")
