"""Answers of several models in a notebook: one output, repainted in measure, the same from a recording."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stories import STORIES, Publisher, Story, pieces

from llm_magic.display import comparison_markup, comparison_notebook, markup
from llm_magic.display.comparison_notebook import NotebookComparisonView
from llm_magic.display.outputs import CellOutputs
from llm_magic.draft import Draft
from llm_magic.events import (
    CitationFound,
    Event,
    Finished,
    ImageReceived,
    Note,
    ReasoningDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
)
from llm_magic.messages import Citation, Image
from llm_magic.response import Response

sys.path.insert(0, str(Path(__file__).parent.parent / "browser"))  # for `payloads`

GIF = Image(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "image/gif")
LINE = markup.UNFINISHED


class Stage:
    """A view of several models on outputs that are folded as by a front end, and a clock that is set by hand."""

    def __init__(
        self, *names: str, show: str = "markdown", code: str = "%%llm -m a,b", watched: bool = True, **kinds: bool
    ) -> None:
        self.publisher = Publisher(captures=kinds.get("captures", False))
        self.sizes: list[int] = []
        publish = self.publisher.publish

        def counting(data: Any, *given: Any, **named: Any) -> None:
            self.sizes.append(sum(len(text.encode()) for text in data.values()))
            publish(data, *given, **named)

        self.publisher.publish = counting  # type: ignore[method-assign]
        request = {"content": {"code": code, "allow_stdin": watched}}
        outputs = CellOutputs(
            SimpleNamespace(display_pub=self.publisher, kernel=SimpleNamespace(get_parent=lambda: request))
        )
        if kinds.get("widget"):
            outputs.in_widget, outputs.replaceable = True, False
        self.now = 0.0
        self.view = NotebookComparisonView(
            outputs, show, 20, lambda: self.now, external_images=kinds.get("external_images", False)
        )
        self.columns = list(self.view.begin(names))
        self.names = names
        self.drafts = [Draft(clock=lambda: 0.0) for _ in names]

    def tell(self, place: int, *events: Event) -> None:
        """Let a model send something; a second later it may have been painted."""
        for event in events:
            if isinstance(event, Note):
                self.columns[place].note(event.text)
        self.drafts[place].add_all(events)
        self.columns[place].update(self.drafts[place])
        self.tick()

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.view.tick()

    def end(self, place: int, **known: Any) -> Response:
        response = self.drafts[place].response(**{"model": self.names[place], "provider": "p", **known})
        self.columns[place].finish(response, f"{self.names[place]} · 3 → 4 tokens")
        self.tick()
        return response

    @property
    def outputs(self) -> list[dict[str, Any]]:
        return self.publisher.outputs

    @property
    def html(self) -> str:
        return str(self.outputs[-1]["data"]["text/html"])


def told(text: str = "One *two*.", *, names: Sequence[str] = ("a", "b"), **given: Any) -> Stage:
    """Return a stage on which all have said the same and ended."""
    stage = Stage(*names, **given)
    for place in range(len(names)):
        stage.tell(place, TextDelta(text), Finished("stop"))
        stage.end(place)
    return stage


def shown(text: str = "One *two*.", **given: Any) -> Stage:
    stage = told(text, **given)
    stage.view.finish(None, "")
    return stage


class Seen(HTMLParser):
    """The text of HTML, and the elements and attributes in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags, self.attributes = "", set[str](), set[str]()
        self.targets: list[str] = []
        self.depth = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.targets += [value or "" for name, value in attrs if name in {"href", "src"}]
        self.depth += tag not in {"br", "img", "hr"}

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - that there is one
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_is_one_output_that_is_repainted_and_ends_whole() -> None:
    stage = Stage("s:a", "s:b")
    stage.tell(0, TextDelta("# Title\n\nLet \\(a\\) "))
    assert [LINE in stage.html, "Title</h4>" in stage.html, "s:b" in stage.html] == [True, True, True]
    assert stage.html.count(LINE) == 2
    stage.tell(0, TextDelta("be."), Finished("stop"))
    stage.end(0)
    assert stage.html.count(LINE) == 1
    stage.tell(1, TextDelta("Two"), Finished("length"))
    stage.end(1)
    assert len(stage.outputs) == 1
    stage.view.finish(None, "2 models")
    (output,) = stage.outputs
    assert LINE not in str(output)
    assert output["data"]["text/plain"] == (
        "[s:a]\n# Title\n\nLet \\(a\\) be.\n3 → 4 tokens\n\n"
        "[s:b]\nTwo\nCut off: the answer reached its token limit.\n3 → 4 tokens\n\n2 models"
    )
    assert output["data"]["text/markdown"] == (
        "### s:a\n\n# Title\n\nLet $a$ be.\n\n3 → 4 tokens\n\n"
        "### s:b\n\nTwo\n\nCut off: the answer reached its token limit.\n\n3 → 4 tokens\n\n2 models"
    )
    assert list(output["metadata"]["llm_magic"]["models"]) == ["s:a", "s:b"]
    assert output["metadata"]["llm_magic"]["models"]["s:b"]["finish_reason"] == "length"
    assert stage.publisher.kinds[-2:] == ["clear_output", "display_data"]
    assert set(stage.publisher.kinds[1:-2]) == {"update_display_data"}
    assert "\n" not in stage.html


def test_among_other_lines_nothing_is_cleared() -> None:
    stage = shown(code="x = 1\n%llm -m a,b Hi")
    assert "clear_output" not in stage.publisher.kinds
    assert len(stage.outputs) == 1
    assert stage.outputs[0]["metadata"]["llm_magic"]["models"]["a"]["model"] == "a"


@pytest.mark.parametrize("kind", ["widget", "captures", "unwatched"])
def test_where_nothing_can_be_repainted_there_is_the_end_alone(kind: str) -> None:
    stage = shown(watched=kind != "unwatched", widget=kind == "widget", captures=kind == "captures")
    assert [each for each in stage.publisher.kinds if each != "clear_output"] == ["display_data"]
    assert stage.outputs[0]["data"] == shown().outputs[0]["data"]


def test_each_column_is_named_and_reached_by_the_keyboard() -> None:
    html = shown(names=("a<b>", "file:/x/y.gguf")).html
    assert re.findall(r'<section tabindex="0" aria-label="([^"]*)"', html) == ["a&lt;b&gt;", "y.gguf"]
    heads = re.findall(r'role="heading" aria-level="3"[^>]*>([^<]*)<', html)
    assert heads == ["a&lt;b&gt;", "y.gguf"]
    html = shown(names=("file:/x/y.gguf", "file:/z/y.gguf")).html  # two that would be shown alike
    assert re.findall(r'aria-label="([^"]*)"', html) == ["file:/x/y.gguf", "file:/z/y.gguf"]


def test_waiting_reasoning_and_calls_are_said_in_the_column() -> None:
    stage = Stage("a", "b")
    stage.columns[0].progress("waiting for a: 3 s")
    stage.tick()
    assert "waiting for a: 3 s" in stage.html
    stage.tell(1, ReasoningDelta("First <this>."))
    assert "reasoning, 0 s: … First &lt;this&gt;." in stage.html
    stage.tell(1, ToolCallDelta(0, "1", "clock", "{}"))
    assert "calling clock …" in stage.html
    stage.tell(
        1, ToolResult("1", "clock", "{}", "noon"), Restarted("tools"), TextDelta("It is noon."), Finished("stop")
    )
    assert "calling" not in stage.html
    stage.tell(0, TextDelta("So."), Finished("stop"))
    assert "waiting" not in stage.html
    for place in (0, 1):
        stage.end(place)
    stage.view.finish(None, "")
    first, second = stage.html.split("<section")[1:]
    assert "<details" not in first
    assert [each in second for each in ("Reasoning (2 words)", "clock() → noon", "It is noon.")] == [True] * 3


def test_images_sources_and_items_stand_in_their_column() -> None:
    stage = Stage("a", "b")
    stage.tell(
        0, TextDelta("See."), ImageReceived(GIF), CitationFound(Citation("https://e.org/x", "X")), Finished("stop")
    )
    stage.end(0)
    assert "<img" not in stage.html  # a large image would be sent with each repaint
    assert "Image 1 (image/gif" in stage.html
    stage.tell(1, TextDelta("b"), Finished("stop"))
    stage.end(1)
    stage.view.finish(None, "")
    first = stage.html.split("<section")[1]
    assert '<img src="data:image/gif;base64,R0lG' in first
    assert 'href="https://e.org/x" target="_blank" rel="noopener noreferrer"' in first
    plain, marked = (stage.outputs[0]["data"][kind] for kind in ("text/plain", "text/markdown"))
    assert "Image 1 (image/gif" in plain
    assert "base64" not in plain + marked
    assert "[X](https://e.org/x)" in marked


def test_a_failure_stands_in_its_column_below_what_had_come() -> None:
    stage = Stage("a", "b", "c")
    stage.tell(0, TextDelta("Half"))
    stage.columns[0].fail(stage.drafts[0].response(model="a"))
    stage.view.failed(0, "ServerFailedError: it broke.\nTry <again>.")
    stage.columns[1].fail(None)
    stage.view.failed(1, "Unreachable.")
    stage.tell(2, TextDelta("Whole."), Finished("stop"))
    assert "Try &lt;again&gt;." in stage.html
    stage.end(2)
    stage.view.finish(None, "")
    first, second, third = stage.html.split("<section")[1:]
    assert first.index("Half") < first.index("it broke.&#10;Try &lt;again&gt;.")
    assert "Unreachable." in second
    assert "Whole." in third
    assert "Unreachable." in stage.outputs[0]["data"]["text/plain"]
    assert "Unreachable." in stage.outputs[0]["data"]["text/markdown"]


def test_an_interrupt_keeps_what_had_come_with_a_mark() -> None:
    stage = Stage("a", "b", "c")
    stage.tell(0, TextDelta("Whole."), Finished("stop"))
    stage.end(0)
    stage.tell(1, TextDelta("Half"))
    stage.view.fail()
    first, second, third = stage.html.split("<section")[1:]
    assert ("Interrupted." in first, "Interrupted." in second, "Interrupted." in third) == (False, True, True)
    assert "Half" in second
    assert LINE not in stage.html
    stage.view.note("late")
    assert stage.outputs[-1]["data"]["text/plain"] == "late"


@pytest.mark.parametrize("show", ["text", "code", "json"])
def test_other_ways_to_show_it(show: str) -> None:
    text = 'Use <b>:\n```python\nx = "1"\n```\n' if show != "json" else '{"a": [1, "<b>"]}'
    stage = shown(text, show=show)
    seen = Seen(stage.html)
    assert "b" not in seen.tags
    said = {"text": 'Use <b>:\n```python\nx = "1"\n```', "code": 'x = "1"', "json": '{\n  "a": [\n    1,'}[show]
    assert seen.text.count(said) == 2
    assert ("Use" in seen.text) == (show == "text")


def test_where_nothing_is_to_be_shown_only_what_went_wrong_is() -> None:
    assert shown(show="none").outputs == []
    stage = told(show="none")
    stage.view.failed(1, "It broke.")
    stage.view.finish(None, "footer")
    assert [output["data"]["text/plain"] for output in stage.outputs] == ["b: It broke."]


def test_several_answers_of_one_model_stand_within_its_column() -> None:
    stage = Stage("a", "b")
    stage.tell(0, TextDelta("x<1>"), TextDelta("y", 1))
    assert "Answer 2" in stage.html
    stage.tell(0, Finished("stop"), Finished("stop", 1))
    stage.end(0)
    stage.tell(1, TextDelta("z"), Finished("stop"))
    stage.end(1)
    stage.view.finish(None, "")
    assert "Answer 2" in stage.html.split("<section")[1]
    assert "x&lt;1&gt;" in stage.html


VALUES = {"a": {"name": "Ada", "born": 1815}, "b": {"name": "Bo", "born": 1900, "tags": ["x<y>"]}}


def test_typed_values_are_one_table_with_a_row_a_model() -> None:
    stage = Stage("a", "b", "c")
    stage.columns[2].fail(None)
    stage.view.failed(2, "It <broke>.")
    so_far: list[Any] = [{"name": "A"}, None]
    for place in (0, 1):
        stage.drafts[place].add_all([TextDelta('{"name": "A')])
        stage.columns[place].update(stage.drafts[place], lambda place=place: so_far[place])
    stage.tick()
    assert re.findall(r"<th [^>]*>([^<]*)", stage.html) == ["model", "name", "a", "b", "c"]
    assert stage.html.count(LINE) == 2
    for place, name in enumerate("ab"):
        stage.drafts[place].add_all([TextDelta('da"}'), Finished("stop")])
        stage.end(place, value=VALUES[name], structured="json_schema")
    stage.view.finish({**VALUES, "c": ValueError("It <broke>.")}, "")
    html = stage.html
    assert re.findall(r"<th [^>]*>([^<]*)", html) == ["model", "name", "born", "tags", "a", "b", "c"]
    assert re.findall(r"<td [^>]*>(?:<div[^>]*>)?([^<]*)", html) == [
        "Ada", "1815", "", "Bo", "1900", "x&lt;y&gt;", "It &lt;broke&gt;.",
    ]  # fmt: skip
    assert "section" not in Seen(html).tags
    plain, marked = (stage.outputs[0]["data"][kind] for kind in ("text/plain", "text/markdown"))
    assert plain.splitlines()[:4] == [
        "model  name                 born  tags",
        "a      Ada                  1815",
        "b      Bo                   1900  x<y>",
        "c      failed: It <broke>.",
    ]
    assert marked.splitlines()[2] == "| a | Ada | 1815 |  |"


def test_what_is_to_be_known_of_all_values_stands_below_the_table_once() -> None:
    stage = told('"yes"')
    stage.columns[0].note("Asked again.")
    for column in stage.columns:
        column.note("Not strict.")
    stage.view.finish({"a": "yes", "b": "no"}, "")
    assert stage.html.count("Not strict.") == 1
    assert stage.outputs[0]["data"]["text/plain"].splitlines()[3:] == [
        "[a]", "Asked again.", "a · 3 → 4 tokens", "b · 3 → 4 tokens", "Not strict.",
    ]  # fmt: skip


def test_values_that_are_no_records_are_a_column() -> None:
    stage = told('"yes"')
    stage.view.finish({"a": "yes", "b": ["x", "y"]}, "")
    assert re.findall(r"<t[hd] [^>]*>([^<]*)", stage.html) == ["model", "value", "a", "yes", "b", "x, y"]


def play(story: Story, *, held: bool, every: int) -> Stage:
    """Tell two columns a story: as it came so many events at a time, or from a recording."""
    stage = Stage("p:a", "p:b")
    if held:
        for column in stage.columns:
            column.hold()
    tellings = [_told(stage, place, story, every) for place in (0, 1)]
    for _ in itertools.zip_longest(*tellings):
        stage.tick()
    typed = story.spec is not None and story.error is None
    value = story.spec.parse(stage.drafts[0].text) if typed and story.spec is not None else None
    stage.view.finish({"p:a": value, "p:b": value} if typed else None, "")
    return stage


def _told(stage: Stage, place: int, story: Story, every: int) -> Iterator[None]:
    draft, column = stage.drafts[place], stage.columns[place]
    of_value = (lambda: None) if story.spec is not None else None
    events = [*story.before]
    for each in story.rounds:
        events += [*(piece for event in each.recorded for piece in pieces(event)), *each.after]
    events += [*story.after]
    for at in range(0, len(events), every):
        for event in events[at : at + every]:
            if isinstance(event, Note):
                column.note(event.text)
        draft.add_all(events[at : at + every])
        column.update(draft, of_value)
        yield
    value = story.spec.parse(draft.text) if story.spec is not None and story.error is None else None
    response = draft.response(model="p", provider="p", value=value, seconds=1.0)
    if story.error is None:
        column.finish(response, "p · 1 s")
    else:
        column.fail(response)
        stage.view.failed(place, str(story.error))
    yield


@pytest.mark.parametrize("name", STORIES)
def test_what_is_saved_is_the_same_from_a_recording(name: str) -> None:
    story = STORIES[name]
    saved = [play(story, held=held, every=every) for held, every in ((False, 1), (False, 5), (True, 1), (True, 9999))]
    for other in saved[1:]:
        assert other.outputs == saved[0].outputs
    assert LINE not in str(saved[0].outputs)
    assert [kind for kind in saved[2].publisher.kinds if kind != "clear_output"] == ["display_data"]


def test_one_that_is_held_does_not_hold_the_others() -> None:
    stage = Stage("a", "b")
    stage.columns[0].hold()
    stage.tell(0, TextDelta("From a recording"))
    stage.tell(1, TextDelta("Live"))
    assert ("recording" in stage.html, "Live" in stage.html) == (False, True)
    stage.columns[0].release()
    stage.tick()
    assert "recording" in stage.html


def test_repaints_cost_bytes_in_measure_whatever_is_said() -> None:
    names = [f"m{number}" for number in range(6)]
    stage = Stage(*names)
    text = "A line of *prose* with `code` and $x_1$.\n\n```python\nx = 1\n```\n\n" * 1_500
    for at in range(0, len(text), 200):
        for place in range(len(names)):
            stage.drafts[place].add_all([TextDelta(text[at : at + 200])])
            stage.columns[place].update(stage.drafts[place])
        stage.tick(0.1)
    length = len(names) * len(text)
    painted = sum(stage.sizes)
    assert painted < comparison_notebook.ALLOWANCE + comparison_notebook.SHARE * length
    assert max(stage.sizes) < 3 * comparison_notebook.LARGEST
    assert len(stage.sizes) > 10
    assert "characters, shown when all have answered" in stage.html
    assert stage.view.wait <= comparison_notebook.LONGEST
    for place in range(len(names)):
        stage.drafts[place].add_all([Finished("stop")])
        stage.end(place)
    stage.view.finish(None, "")
    assert Seen(stage.html).text.count("A line of prose") == 1_500 * len(names)


def test_what_one_leaves_open_does_not_reach_into_the_next() -> None:
    for text in ("```python\nx = 1", "~~~~\n~~~", "<details>", "$$ x", "<!--", "| a |\n|---|", "- ```\n  x"):
        stage = shown(text)
        from markdown_it import MarkdownIt

        tokens = MarkdownIt("commonmark", {"html": True}).parse(stage.outputs[0]["data"]["text/markdown"])
        heads = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
        assert heads == ["a", "b"], text
        assert Seen(stage.html).depth == 0, text


def test_no_payload_acts_wherever_it_stands() -> None:
    from payloads import payloads

    allowed = Seen(
        _everywhere("# harmless *a* **b**\n\n> [c](https://e.org)\n\n- d\n\n1. e\n\n---\n\n|f|\n|-|\n|g|\n\n    h")
    )
    tags = allowed.tags | {"s", "em", "img", "code", "br", "a", "h4", "h5", "h6", "strong", "hr", "blockquote", "span"}
    for payload in payloads()[::97]:
        seen = Seen(_everywhere(payload.text))
        assert seen.tags <= tags, payload
        assert seen.attributes <= allowed.attributes | {"src", "alt", "start", "scope", "colspan", "referrerpolicy"}, (
            payload
        )
        assert seen.depth == 0, payload
        for target in seen.targets:
            assert re.match(r"https?://|mailto:|data:image/(?:png|gif|jpeg|webp);base64,", target, re.IGNORECASE), (
                payload
            )


def _everywhere(text: str) -> str:
    """Return the final HTML of a comparison, and that of one of values, in all of whose places a text stands."""
    line = comparison_markup.Column(text, folded=(markup.folded(text, text),), failure=text, footer=text, line=text)
    stage = Stage("a", text)
    events = [ReasoningDelta(text), ToolCallDelta(0, "1", text, text), ToolResult("1", text, text, text)]
    stage.tell(0, *events, Restarted("tools"), TextDelta(text), CitationFound(Citation(text, text)), Note(text))
    stage.tell(0, Finished("refusal"))
    stage.view.note(text)
    stage.end(0)
    stage.columns[1].fail(None)
    stage.view.failed(1, text)
    stage.view.finish(None, text)
    value = {text: text, "b": [{text: text}]}
    typed = [line, comparison_markup.Column(text, value=value), comparison_markup.Column("a", value=value, ended=False)]
    return stage.html + comparison_markup.values_by_model(typed, [text], text)["text/html"]
