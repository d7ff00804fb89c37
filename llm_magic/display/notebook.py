"""An answer in a notebook: finished blocks stay, the tail is repainted, the end is one output.

While it streams the cell has: what is folded (reasoning, tool calls), finished blocks, the tail,
and as its last line that more will come. When it ends these are cleared as the final outputs come:
what is folded, the answer, its images, marks and notes, its sources, the footer. Where the cell holds outputs of other
code, too (`%llm` among other lines), nothing is cleared: the answer is one output, repainted whole.

What is saved depends on the events alone, not on when they came: an answer from a recording, which is held until it is
complete, leaves the very outputs that it left when it streamed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_magic.display import answer, citations, items, markup
from llm_magic.display.answer import DraftReader, ValueSoFar
from llm_magic.display.markup import Bundle
from llm_magic.display.outputs import CellOutputs
from llm_magic.display.streaming_outputs import Pace, StreamingOutputs
from llm_magic.draft import Draft
from llm_magic.markdown import for_notebook
from llm_magic.messages import Image
from llm_magic.response import Response

IDLE = 1.0
"""Seconds after which an update is welcome even with nothing new: elapsed times go on."""
LINE_PAUSE = 0.1
"""Seconds between two lines of progress, at least."""


class NotebookView:
    """Shows one answer in one cell.

    Parameters
    ----------
    outputs
        Those of the cell.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most.
    clock
        Returns seconds.
    external_images
        Whether images and diagrams of the answer may load what they name.

    """

    def __init__(
        self,
        outputs: CellOutputs,
        show: str,
        repaints: float,
        clock: Callable[[], float] = time.perf_counter,
        *,
        external_images: bool = False,
    ) -> None:
        self._external_images = external_images
        self._outputs = outputs
        self._show = show
        self._clock = clock
        self._pace = Pace(repaints)
        self._streams = show != "none" and not outputs.captured
        self._clears = outputs.alone and outputs.replaceable
        self._by_block = show == "markdown" and (self._clears or outputs.in_widget)
        self._folded: list[Bundle] = []
        self._notes: list[Bundle] = []
        self._runs = 0
        self._draft: Draft | None = None
        self._value: ValueSoFar | None = None
        self._reasoning_shown = 0  # characters
        self._line = ""
        self._line_at = float("-inf")
        self._ended = False
        self._begin_answer(0)

    def _begin_answer(self, generation: int) -> None:
        self._reader = DraftReader(generation)
        self._flow = StreamingOutputs()
        self._reasoned: tuple[int, int] | None = None  # where its reasoning is folded, and where that begins
        self._dirty = False
        self._aside = False  # whether what this answer says is over: its calls have begun to end
        self._said: Bundle | None = None  # it, folded

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again, with or without news."""
        return max(0.005, self._delay(self._clock())) if self._dirty else IDLE

    def _delay(self, now: float) -> float:
        if self._outputs.held:
            return 0.0
        size = self._flow.length if self._by_block else self._reader.length
        return self._pace.delay(now, size, self._reader.length)

    def begin(self, title: str) -> None:
        """Begin; nothing is shown before there is something to say."""

    def hold(self) -> None:
        """From here on show nothing, until the end or `release`."""
        self._outputs.hold()

    def release(self) -> None:
        """Show what was held, and what follows as it comes."""
        self._outputs.release()

    def pause(self) -> None:
        """Go on: the front end asks in a place of its own."""

    def progress(self, text: str) -> None:
        """Show a line that what follows will replace."""
        now = self._clock()
        if not self._streams or (now - self._line_at < LINE_PAUSE and not self._outputs.held):
            return
        self._line, self._line_at = text, now
        if not self._reader.length:
            self._outputs.paint(markup.quiet(text), line=True)
        elif self._by_block:
            self._paint_blocks(now)

    def note(self, text: str) -> None:
        """Show a line that stays, below what came before it."""
        if self._dirty and self._draft is not None and not self._clears:
            self._show_text(self._draft, self._clock())
        self._notes.append(markup.mark(text))
        if self._streams or self._show == "none":
            begun = self._reader.length or self._folded
            self._outputs.add(self._notes[-1], self._unfinished if begun else None)

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Show what is new, unless it is too early for that."""
        if not self._streams:
            return
        self._draft, self._value = draft, value
        while self._reader.generation != draft.generation:
            self._fold_calls(draft)
            self._put_aside(draft)
            self._begin_answer(self._reader.generation + 1)
        self._fold_calls(draft)
        if self._aside:
            return
        fresh = self._reader.read(draft)
        if self._by_block and fresh:
            self._flow.feed(fresh)
        if not self._reader.length:
            self._show_thinking(draft)
            return
        self._dirty = self._dirty or self._reader.grew
        now = self._clock()
        if self._dirty and self._delay(now) <= 0:
            self._show_text(draft, now)

    def finish(self, response: Response, footer: str) -> None:
        """Show the final outputs."""
        self._end(response)
        if footer and self._show != "none":
            self._outputs.add(markup.quiet(footer))
        self._outputs.release(alone=self._clears and bool(response.tool_calls))

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived, marked; an error follows."""
        self._end(response if response is not None and answer.has_come(response) else None)
        self._outputs.release(alone=self._clears and response is not None and bool(response.tool_calls))

    # Before and beside the answer

    def _put_aside(self, draft: Draft) -> None:
        """Fold what the answer that is read has said, once: its calls end, or another round begins."""
        if self._aside:
            return
        rest = self._reader.read(draft)
        if self._by_block:
            self._flow.feed(rest)
        self._aside, self._dirty = True, False
        if self._reader.text:
            self._fold_reasoning(draft)
        self._join_reasoning(draft.reasoning_until(self._reader.generation))
        if text := self._reader.text.strip():
            self._said = markup.folded("Said before", text)
            self._folded.append(self._said)
            if self._by_block:
                if not self._outputs.held:
                    self._settle_blocks()
                if tail := self._flow.tail.strip():
                    self._outputs.settle(self._markdown(tail), line=self._unfinished)
                self._flow = StreamingOutputs()
            elif self._outputs.answers or (self._outputs.replaceable and not self._clears):
                self._outputs.settle(self._said, line=self._unfinished)
        elif self._outputs.answers:  # blank lines, as models write before a call: no place of an answer
            self._outputs.paint(markup.quiet(markup.UNFINISHED), line=True)

    def _fold_reasoning(self, draft: Draft) -> None:
        """Fold the reasoning of the answer that is read, as soon as it has a text."""
        until = draft.reasoning_until(self._reader.generation)
        if self._reasoned is None and (fresh := until[self._reasoning_shown :]).strip():
            self._reasoned = len(self._folded), self._reasoning_shown
            self._fold(markup.reasoning(fresh))
            self._reasoning_shown = len(until)

    def _join_reasoning(self, until: str) -> None:
        """Add what of the reasoning came after the text had begun to what is folded, where that is shown at the end."""
        if self._reasoned is not None and self._clears and len(until) > self._reasoning_shown:
            place, begin = self._reasoned
            self._folded[place] = markup.reasoning(until[begin:])
            self._reasoning_shown = len(until)

    def _fold_calls(self, draft: Draft) -> None:
        """Fold the tool calls that have ended, up to those of the answer that is read."""
        while self._runs < len(draft.tool_runs) and draft.generation_of_run(self._runs) <= self._reader.generation:
            self._put_aside(draft)
            run = draft.tool_runs[self._runs]
            self._fold(markup.tool_run(run))
            for picture in items.pictures(run.images, place=f"_llm.tool_calls[{self._runs}].images"):
                self._fold(items.within_html(picture))
            self._runs += 1

    def _show_thinking(self, draft: Draft) -> None:
        """Say that the model reasons, or what it is about to call."""
        if calls := answer.called(draft):
            self.progress(calls)
        elif reasoning := draft.reasoning_of_round:
            self.progress(f"reasoning, {draft.seconds:.0f} s: … {' '.join(reasoning[-120:].split())}")

    def _fold(self, bundle: Bundle) -> None:
        self._folded.append(bundle)
        self._outputs.add(bundle, self._unfinished)

    # The answer while it grows

    def _show_text(self, draft: Draft, now: float) -> None:
        """Paint what has come of the answer, below the reasoning before it."""
        self._line = ""
        self._fold_reasoning(draft)
        value = self._value() if self._value is not None else None
        if value is None and self._value is not None and self._show == "markdown" and answer.begins_as_json(draft):
            self._dirty = False
            return
        if value is not None or len(draft.indexes) > 1:
            self._by_block = False
        if self._by_block:
            if self._outputs.held:  # nobody sees it grow
                self._dirty = False
            else:
                self._paint_blocks(now)
            return
        shown = answer.streaming(draft, value, self._show, external_images=self._external_images)
        self._outputs.paint(answer.unfinished(shown))
        self._pace.painted(now, self._reader.length)
        self._dirty = False

    def _paint_blocks(self, now: float) -> None:
        """Turn finished blocks into outputs, and repaint the tail."""
        self._settle_blocks()
        tail = self._flow.tail
        if tail.strip() or self._line:
            shown = self._markdown(f"{tail}\n\n*{self._line}*" if self._line else tail)
            self._outputs.paint(answer.unfinished(shown))
        self._pace.painted(now, len(tail))
        self._dirty = False

    def _settle_blocks(self) -> None:
        for text in self._flow.settled(self._outputs.count):
            self._outputs.settle(self._markdown(text), line=self._unfinished)

    @property
    def _unfinished(self) -> Bundle | None:
        """The line that stands below what stays until more comes; None where nothing is shown before the end."""
        return markup.quiet(markup.UNFINISHED) if self._streams and not self._ended else None

    def _markdown(self, text: str) -> Bundle:
        return {"text/markdown": for_notebook(text, external_images=self._external_images)}

    # The end

    def _end(self, response: Response | None) -> None:
        """Replace what was painted by the final outputs."""
        draft = self._draft if self._dirty and not self._clears else None
        if draft is not None and draft.generation == self._reader.generation:
            self._show_text(draft, self._clock())  # what is beside it stands below
        self._ended = True
        if response is not None and self._said == markup.folded("Said before", response.text.strip()):
            self._folded.remove(self._said)  # nothing came after it: it is the answer
        if response is not None:
            self._join_reasoning(response.reasoning)
        shown = response if self._show != "none" else None
        if self._clears:
            self._outputs.clear()
        if shown is not None and (rest := shown.reasoning[self._reasoning_shown :].strip()):
            self._folded.append(markup.reasoning(rest))
            if not self._clears:
                self._outputs.add(self._folded[-1])
        found, images, others = answer.beside(shown) if shown is not None else ([], [], [])
        for bundle in items.folded_items(others):
            self._folded.append(bundle)
            if not self._clears:
                self._outputs.add(bundle)
        if self._clears and self._folded:
            self._outputs.add(markup.joined(self._folded))
        if shown is not None:
            self._settle_answer(shown)
            self._show_images(shown, images)
        self._outputs.drop_line()
        below = self._notes if self._clears else []
        marked = markup.marks(response) if response is not None else None
        if below or marked is not None:
            self._outputs.add(markup.joined([*below, *([marked] if marked is not None else [])]))
        listed = citations.cited(found)
        if listed is not None:
            self._outputs.add(listed)

    def _show_images(self, response: Response, images: list[Image]) -> None:
        """Show the images below the answer; of an answer that is images alone, the first holds the metadata."""
        about = {} if response.text else answer.metadata(response)
        for bundle in items.pictures(images, external_images=self._external_images):
            self._outputs.settle(bundle, about)
            about = {}

    def _settle_answer(self, response: Response) -> None:
        typed = response.structured is None and self._value is not None and self._value() is not None
        bundle = answer.finished(response, self._show, typed=typed, external_images=self._external_images)
        if self._outputs.in_widget and self._by_block and self._streams:
            self._flow.feed(self._reader.rest(response.text))
            bundle = self._markdown(self._flow.tail)
        self._begin_answer(self._reader.generation)  # a long text is not kept three times while it is sent
        if any(bundle.values()):
            self._outputs.settle(bundle, answer.metadata(response))
