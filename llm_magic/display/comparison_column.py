"""The answer of one model among several: it takes note of what it is told, and says what is to be seen of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_magic.display import answer, citations, items, markup
from llm_magic.display.answer import DraftReader, ValueSoFar
from llm_magic.display.blocks import Splitter
from llm_magic.display.comparison_markup import HEADING, Column
from llm_magic.display.markup import Bundle
from llm_magic.draft import Draft
from llm_magic.markdown.as_html import as_html, code_as_html
from llm_magic.markdown.fences import code_blocks
from llm_magic.response import Response

LONGEST_FOLD = 4_000
"""Characters of HTML of what is folded that are repainted; of more only the title is."""


class ComparisonColumn:
    """The `View` of one answer that stands beside others: what it is told is seen when all are repainted.

    Parameters
    ----------
    title
        The model as asked for.
    name
        The model as it is shown.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    wait
        Returns the seconds after which news are welcome.
    external_images
        Whether images of the answer may load from the web.

    """

    def __init__(
        self, title: str, name: str, show: str, wait: Callable[[], float], *, external_images: bool = False
    ) -> None:
        self.title = title
        self.name = name
        self._show = show
        self._wait = wait
        self._external_images = external_images
        self._draft: Draft | None = None
        self._value: ValueSoFar | None = None
        self._notes: list[Bundle] = []
        self._line = ""
        self._footer = ""
        self._runs = 0
        self.response: Response | None = None
        self.failure = ""
        self.ended = False
        self.held = False
        """Whether all so far comes from a recording: it is there at once, and no reason to repaint."""
        self.dirty = True
        """Whether there is something that was not painted."""
        self._begin_answer(0)

    def _begin_answer(self, generation: int) -> None:
        self._reader = DraftReader(generation)
        self._splitter = Splitter()
        self._fresh: list[str] = []  # blocks that were not painted yet
        self._blocks: list[tuple[str, int]] = []  # the others as HTML, and their characters

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again, with or without news."""
        return self._wait()

    @property
    def length(self) -> int:
        """Characters of the answer so far."""
        return self._reader.length

    @property
    def typed(self) -> bool:
        """Whether there is a value so far that is no text."""
        return self._value is not None and self._value() is not None

    # What it is told

    def begin(self, title: str) -> None:
        """Begin; its name is known."""

    def hold(self) -> None:
        """Be seen at the end, or when `release` is called."""
        self.held = True

    def release(self) -> None:
        """Be seen from here on."""
        self.held, self.dirty = False, True

    def pause(self) -> None:
        """Go on: the front end asks in a place of its own."""

    def progress(self, text: str) -> None:
        """Say in a line what it does now."""
        self.dirty = self.dirty or text != self._line
        self._line = text

    def note(self, text: str) -> None:
        """Take note of a line that stays."""
        self._notes.append(markup.mark(text))
        self.dirty = True

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Take note of what has come."""
        self._draft, self._value = draft, value
        while self._reader.generation != draft.generation:
            self._begin_answer(self._reader.generation + 1)
            self.dirty = True
        fresh = self._reader.read(draft)
        if fresh and self._show == "markdown" and value is None:
            self._fresh += self._splitter.feed(fresh)
        if len(draft.tool_runs) != self._runs:
            self._runs, self.dirty = len(draft.tool_runs), True
        if self._reader.grew:
            self._line, self.dirty = "", True
        elif not self._reader.length:
            self._say_what_it_does(draft)

    def _say_what_it_does(self, draft: Draft) -> None:
        if calls := answer.called(draft):
            self.progress(calls)
        elif reasoning := draft.reasoning_of_round:
            self.progress(f"reasoning, {draft.seconds:.0f} s: … {' '.join(reasoning[-120:].split())}")

    def finish(self, response: Response, footer: str) -> None:
        """Take the answer; `footer` is the quiet line below it, or empty."""
        self._end(response)
        self._footer = footer

    def fail(self, response: Response | None) -> None:
        """Keep what has come."""
        self._end(response if response is not None and answer.has_come(response) else None)

    def _end(self, response: Response | None) -> None:
        self.response, self._line = response, ""
        self.ended = self.dirty = True

    def interrupt(self) -> None:
        """Keep what has come of an answer that had not ended, with a mark."""
        if self.ended:
            return
        came = None if self._draft is None else self._draft.response(model=self.title, finish_reason="interrupted")
        self.fail(came)
        if self.response is None:
            self._notes.append(markup.mark(markup.MARKS["interrupted"]))

    # What is seen of it

    def so_far(self, most: int) -> Column:
        """Return what is seen now, in about `most` characters of HTML: of a longer answer the end."""
        if self.held and not self.ended:
            return Column(self.name, ended=False)
        draft = self._draft
        shown = Column(
            self.name,
            html=self._html_so_far(draft, most) if draft is not None and self._reader.length else "",
            value=self._value_so_far(),
            folded=tuple(map(_short, self._folded())) if self._show != "none" else (),
            beside=tuple(map(markup.quiet, self._images_in_words())),
            notes=self.said,
            line=self._line,
            failure=self.failure,
            footer=self._footer,
            ended=self.ended,
        )
        self.dirty = False
        return shown

    def final(self, value: Any = None) -> Column:
        """Return what stays; `value` is the typed one, None for text."""
        response = self.response
        shown = Column(
            self.name,
            value=value if not isinstance(value, BaseException) else None,
            folded=tuple(self._folded()),
            notes=self.said,
            failure=self.failure,
            footer=self._footer,
        )
        if response is None or self._show == "none":
            return shown
        typed = response.structured is not None or self.typed
        bundle = answer.finished(response, self._show, typed=typed, external_images=self._external_images)
        found, images, others = answer.beside(response)
        pictures = items.pictures(images, external_images=self._external_images)
        listed = citations.cited(found)
        return Column(
            self.name,
            html=self._final_html(response, bundle) if value is None else "",
            markdown=_closed(bundle.get("text/markdown", "")),
            plain=bundle["text/plain"],
            value=shown.value,
            folded=(*shown.folded, *items.folded_items(others)),
            beside=(*map(self._in_column, pictures), *([listed] if listed is not None else [])),
            notes=shown.notes,
            failure=shown.failure,
            footer=shown.footer,
        )

    def _final_html(self, response: Response, bundle: Bundle) -> str:
        if "text/html" in bundle:
            return bundle["text/html"]
        if not response.text:
            return ""
        if self._show == "markdown":
            return as_html(response.text, external_images=self._external_images, headings=HEADING)
        return self._in_other_ways(response.text, whole=True)

    def _in_other_ways(self, text: str, *, whole: bool = False) -> str:
        """Return an answer as HTML where it is not to be shown as markdown."""
        if self._show == "json":
            return code_as_html(markup.indented(text), "json") if whole else code_as_html(text)
        if self._show == "code":
            language = next((block.language for block in code_blocks(text)), "") if whole else ""
            return code_as_html(answer.code_of(text), language)
        return markup.preformatted(text)

    def _html_so_far(self, draft: Draft, most: int) -> str:
        value = self._value_so_far()
        if self._value is not None and (value is not None or answer.begins_as_json(draft)):
            return ""
        if len(draft.indexes) > 1:
            return answer.streaming(draft, value, self._show)["text/html"]
        if self._show != "markdown" or self._value is not None:
            return self._in_other_ways(draft.text[-most:])
        for block in self._fresh:
            self._blocks.append((self._rendered(block), len(block)))
        self._fresh.clear()
        tail = self._splitter.tail
        html = self._rendered(tail[-most:]) if tail.strip() else ""
        size, first = len(html), len(self._blocks)
        while first and size + len(self._blocks[first - 1][0]) <= most:
            first -= 1
            size += len(self._blocks[first][0])
        left_out = sum(length for _, length in self._blocks[:first]) + max(0, len(tail) - most)
        above = (
            markup.quiet(f"… {left_out:,} characters, shown when all have answered")["text/html"] if left_out else ""
        )
        return "".join([above, *(block for block, _ in self._blocks[first:]), html])

    def _rendered(self, text: str) -> str:
        return as_html(text, external_images=self._external_images, headings=HEADING, plain=True)

    def _value_so_far(self) -> Any:
        """Return the typed value as far as it has come, and when all has come."""
        if self.response is not None and self._value is not None and self.response.value is not None:
            return self.response.value
        return self._value() if self._value is not None else None

    @property
    def said(self) -> tuple[Bundle, ...]:
        """The lines that stay: notes, and what is to be said of an answer that is not whole."""
        marked = markup.marks(self.response) if self.response is not None else None
        return (*self._notes, *([marked] if marked is not None else []))

    def _folded(self) -> list[Bundle]:
        """Return what stands folded above the answer: reasoning, what was said before calls, calls with results."""
        draft, response = self._draft, self.response
        if draft is None:
            if response is None:
                return []
            reasoned = [markup.reasoning(response.reasoning)] if response.reasoning.strip() else []
            return [*reasoned, *(markup.tool_run(run) for run in response.tool_calls if run.result is not None)]
        folded: list[Bundle] = []
        reasoned_until = run = 0
        for generation in range(draft.generation + 1):
            until = draft.reasoning_until(generation)
            if (fresh := until[reasoned_until:].strip()) and (
                generation < draft.generation or self._reader.length or self.ended
            ):
                folded.append(markup.reasoning(fresh))
            reasoned_until = len(until)
            if generation < draft.generation and (said := str(draft.buffer(0, generation)).strip()):
                folded.append(markup.folded("Said before", said))
            while run < len(draft.tool_runs) and draft.generation_of_run(run) <= generation:
                folded.append(markup.tool_run(draft.tool_runs[run]))
                run += 1
        return folded

    def _images_in_words(self) -> list[str]:
        """Return what the images of an answer that has ended are: they are sent once, with all answers."""
        if self.response is None or self._show == "none":
            return []
        images = answer.beside(self.response)[1]
        return [items.image_line(image, number) for number, image in enumerate(images[: items.MOST_IMAGES])]

    def _in_column(self, bundle: Bundle) -> Bundle:
        """Return an image as HTML."""
        plain = bundle["text/plain"].replace("_llm.", f"_llm.responses[{self.title!r}].", 1)
        if "text/html" in bundle:
            return {**bundle, "text/plain": plain}
        if "text/markdown" in bundle:
            return {**bundle, "text/html": as_html(bundle["text/markdown"], external_images=self._external_images)}
        kind, data = next((kind, data) for kind, data in bundle.items() if kind != "text/plain")
        image = f'<img src="data:{kind};base64,{data}" alt="{markup.escaped(plain)}" style="max-width: 100%">'
        return {"text/plain": plain, "text/html": f"<div>{image}</div>"}


def _short(bundle: Bundle) -> Bundle:
    """Return something folded such that it can be sent often."""
    if len(bundle["text/html"]) <= LONGEST_FOLD:
        return bundle
    return markup.quiet(bundle["text/plain"].partition("\n")[0])


def _closed(markdown: str) -> str:
    """Return markdown whose last code has an end, as something follows it."""
    return f"{markdown}\n{answer.open_fence(markdown)}" if markdown else ""
