"""Several models without a terminal: answers in order on stdout, everything else on stderr, no control codes."""

from __future__ import annotations

import pytest

from llm_magic.display import ComparisonView
from llm_magic.display.comparison_plain import PlainComparisonView
from llm_magic.draft import Draft
from llm_magic.events import Finished, TextDelta
from llm_magic.response import Response

Capture = pytest.CaptureFixture[str]


def begun(show: str = "markdown", *, streams: bool = True, titles: tuple[str, ...] = ("a", "b")) -> tuple:
    view: ComparisonView = PlainComparisonView(show, streams=streams)
    return view, *view.begin(titles)


def answered(text: str, reason: str = "stop", **known: object) -> Response:
    return Response(text=text, finish_reason=reason, **known)


def test_each_is_written_when_it_and_those_before_it_are_complete(capsys: Capture) -> None:
    view, a, b = begun()
    draft = Draft()
    draft.add(TextDelta("Half"))
    a.update(draft)
    b.note("a note")
    b.progress("waiting")
    b.finish(answered("Answer **b**.\n", "length"), "footer b")
    view.tick()
    assert capsys.readouterr() == ("", "")
    a.finish(answered("Answer a."), "footer a")
    out, err = capsys.readouterr()
    assert out == "[a]\nAnswer a.\n\n[b]\nAnswer **b**.\n\n"
    assert err == "footer a\nb: a note\nb: Cut off: the answer reached its token limit.\nfooter b\n"
    view.finish(None, "the footer")
    assert capsys.readouterr() == ("", "the footer\n")


def test_lines_begin_with_what_tells_two_models_apart(capsys: Capture) -> None:
    view, *columns = begun(titles=("vllm:", "/x/tiny.gguf", "/y/tiny.gguf"))
    for column in columns:
        column.finish(answered("So.", "length"), "")
    cut = "Cut off: the answer reached its token limit.\n"
    out, err = capsys.readouterr()
    assert out == "[vllm:]\nSo.\n\n[/x/tiny.gguf]\nSo.\n\n[/y/tiny.gguf]\nSo.\n\n"
    assert err == f"vllm: {cut}/x/tiny.gguf: {cut}/y/tiny.gguf: {cut}"
    view.finish(None, "")


def test_a_note_of_all_is_written_at_once(capsys: Capture) -> None:
    view, _, _ = begun()
    view.note("of all")
    assert capsys.readouterr() == ("", "of all\n")


def test_failures_stand_in_their_place_below_what_had_arrived(capsys: Capture) -> None:
    view, a, b, c = begun(titles=("a", "b", "c"))
    a.fail(None)
    view.failed(0, "No connection to a.\nStart it.")
    b.fail(answered("Half", "truncated"))
    view.failed(1, "It broke off.")
    assert capsys.readouterr() == ("", "")
    c.finish(answered("Whole."), "")
    out, err = capsys.readouterr()
    assert out == "[a]\nNo connection to a.\nStart it.\n\n[b]\nHalf\nIt broke off.\n\n[c]\nWhole.\n\n"
    assert err == "b: Cut off: the connection ended before the answer did.\n"


def test_where_all_fail_it_is_written_in_the_end(capsys: Capture) -> None:
    view, a, b = begun()
    for place, column in enumerate((a, b)):
        column.fail(None)
        view.failed(place, f"Failure {place}.")
    view.finish(None, "")
    assert capsys.readouterr() == ("[a]\nFailure 0.\n\n[b]\nFailure 1.\n\n", "")


def test_typed_values_are_one_table_in_the_end(capsys: Capture) -> None:
    view, a, b = begun()
    draft = Draft()
    draft.add(TextDelta('{"x"'))
    a.update(draft, lambda: None)
    b.fail(answered("none", "stop"))
    view.failed(1, "InvalidValueError: no.")
    a.finish(answered('{"x": 1}', value={"x": 1}, structured="json_schema"), "footer a")
    assert capsys.readouterr() == ("", "")
    view.finish({"a": {"x": 1, "text": "one\ntwo"}, "b": ValueError("no.")}, "the footer")
    out, err = capsys.readouterr()
    assert out == (
        "model  x  text  error\na      1  one\n          two\nb               ValueError: no.\n[b]\nnone\n\n"
    )
    assert err == "footer a\nthe footer\n"


@pytest.mark.parametrize(
    ("show", "written"),
    [
        ("text", "*x*\n```\ny\n```\n"),
        ("code", "y\n"),
        ("json", "*x*\n```\ny\n```\n"),
        ("markdown", "*x*\n```\ny\n```\n"),
    ],
)
def test_ways_to_show_it(show: str, written: str, capsys: Capture) -> None:
    view, a, b = begun(show)
    for column in (a, b):
        column.finish(answered("*x*\n```\ny\n```\n"), "footer")
    view.finish(None, "the footer")
    out, err = capsys.readouterr()
    assert out == f"[a]\n{written}\n[b]\n{written}\n"
    assert err == "footer\nfooter\nthe footer\n"


def test_shown_as_none_there_is_what_must_be_known(capsys: Capture) -> None:
    view, a, b = begun("none")
    a.note("a note")
    a.finish(answered("Text.", "length"), "footer")
    b.fail(None)
    view.failed(1, "No connection.")
    view.finish(None, "the footer")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a: a note\na: Cut off: the answer reached its token limit.\nb: No connection.\n"


def test_in_the_background_all_is_written_in_the_end(capsys: Capture) -> None:
    view, a, b = begun(streams=False)
    a.finish(answered("A."), "")
    b.finish(answered("B."), "")
    assert capsys.readouterr() == ("", "")
    view.finish(None, "")
    assert capsys.readouterr() == ("[a]\nA.\n\n[b]\nB.\n\n", "")


def test_what_had_arrived_stays_when_it_is_interrupted(capsys: Capture) -> None:
    view, a, b = begun()
    a.finish(answered("Whole."), "")
    draft = Draft()
    draft.add_all([TextDelta("Half"), Finished("interrupted")])
    b.fail(draft.response())
    view.fail()
    assert capsys.readouterr() == ("[a]\nWhole.\n\n[b]\nHalf\n\n", "b: Interrupted.\n")
    view.fail()
    assert capsys.readouterr() == ("", "")


def test_where_nothing_came_there_is_the_mark_alone(capsys: Capture) -> None:
    view, a, b = begun()
    a.fail(Response(finish_reason="interrupted"))
    b.fail(None)
    view.fail()
    assert capsys.readouterr() == ("", "Interrupted.\n")


def test_what_a_model_writes_is_no_command_for_a_terminal(capsys: Capture) -> None:
    evil = "\x1b[2J\x07\u202e"
    view, a, b = begun(titles=(evil, "b"))
    a.note(evil)
    a.finish(answered(evil), evil)
    b.fail(None)
    view.failed(1, evil)
    view.note(evil)
    view.finish({evil: evil}, evil)
    written = "".join(capsys.readouterr())
    assert evil[0] not in written
    assert "\u202e" not in written
    assert "␛[2J␇{U+202E}" in written
