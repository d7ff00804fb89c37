"""What is seen: a view repaints the state of an answer; it knows no providers and asks nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_magic.config.settings import Settings
    from llm_magic.display.answer import ValueSoFar
    from llm_magic.display.batches import BatchProgress
    from llm_magic.display.rows import RowsProgress, RowsTable
    from llm_magic.draft import Draft
    from llm_magic.response import Response
    from llm_magic.wire.call import Estimate, Preview

_LONGEST = 400
"""Characters of one text in the body of a preview that are shown: an image would fill the page."""


class View(Protocol):
    """Shows one answer in one cell. Calls come from one thread, not always the cell's own."""

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again, with or without news."""

    def begin(self, title: str) -> None:
        """Begin; `title` is the model as asked for."""

    def hold(self) -> None:
        """Show nothing but what stays until `release` or the end: all comes from a recording, at once."""

    def release(self) -> None:
        """Show what was held, and from here on what comes: a request is sent after all."""

    def pause(self) -> None:
        """Leave the screen alone until something else is told: the user is asked, and types there."""

    def progress(self, text: str) -> None:
        """Show one line that what follows will replace."""

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Show what is new; `value` gives the typed value so far, None where the answer is text."""

    def finish(self, response: Response, footer: str) -> None:
        """Show the final outputs; `footer` is the quiet line below them, or empty."""

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived, marked; an error follows."""


def choose(shell: Any, settings: Settings, show: str = "markdown", *, background: bool = False) -> View:
    """Return the view for where the cell runs, bound to that cell.

    Parameters
    ----------
    shell
        The IPython shell, or None.
    settings
        `repaints` and `external_images` count.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    background
        Whether other cells will run meanwhile: a terminal then shows the answer when it is complete.

    """
    if getattr(shell, "kernel", None) is not None:
        from llm_magic.display.notebook import NotebookView
        from llm_magic.display.outputs import CellOutputs

        return NotebookView(CellOutputs(shell), show, settings.repaints, external_images=settings.external_images)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from llm_magic.display.terminal import TerminalView

        return TerminalView(show, settings.repaints, streams=not background)
    from llm_magic.display.plain import PlainView

    return PlainView(show, streams=not background)


class RowsView(Protocol):
    """Shows one prompt over many rows in one cell. Calls may come from any thread, and after the end do nothing."""

    @property
    def wait(self) -> float:
        """Seconds until an `update` may be seen: call it again then, so that time goes on; 0: it may be seen now."""

    def begin(self, title: str, total: int | None, in_batches: tuple[BatchProgress, ...] = ()) -> None:
        """Begin; `title` is the model as asked for, `total` the number of rows, None where nobody knows.

        `in_batches` says that the rows are in batches, or will be.
        """

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def update(self, progress: RowsProgress) -> None:
        """Show how far it is; called as often as a row ends, it repaints four times a second at most."""

    def finish(self, progress: RowsProgress, table: RowsTable, statistics: str) -> None:
        """Show what stays: a table of the first rows, and below it the line of statistics."""

    def fail(self, progress: RowsProgress, mark: str = ...) -> None:
        """Leave how far it came; `mark` says why it goes no further, empty where the error that follows says it."""


class ComparisonView(Protocol):
    """Shows the answers of several models side by side in one cell. Calls come from one thread."""

    @property
    def wait(self) -> float:
        """Seconds after which `update` of a column, or `tick`, should be called again, with or without news."""

    def begin(self, titles: Sequence[str]) -> Sequence[View]:
        """Begin, and return the view of each column: a `View` as for one answer; `titles` are the models as asked for.

        A column paints nothing by itself: what it is told stands in the whole when that is repainted. It has begun with
        the whole: its own `begin` is not called.
        """

    def tick(self) -> None:
        """Repaint what is new, unless it is too early for that."""

    def note(self, text: str) -> None:
        """Show one line that stays, on all of them."""

    def failed(self, place: int, message: str) -> None:
        """Say in a column why it has no answer, below what had arrived; its view was told `fail`."""

    def finish(self, values: Mapping[str, Any] | None, footer: str) -> None:
        """Show what stays: all have ended. `values` are the typed ones by model, an error where there is none."""

    def fail(self, mark: str = ...) -> None:
        """Keep what had arrived, marked; an error follows."""


def choose_rows_view(shell: Any, settings: Settings, show: str = "markdown", *, background: bool = False) -> RowsView:
    """Return the view of many rows for where the cell runs, bound to that cell; parameters as for `choose`."""
    if getattr(shell, "kernel", None) is not None:
        from llm_magic.display.outputs import CellOutputs
        from llm_magic.display.rows_notebook import NotebookRowsView

        return NotebookRowsView(CellOutputs(shell), show, settings.repaints)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from llm_magic.display.rows_terminal import TerminalRowsView

        return TerminalRowsView(show, settings.repaints, streams=not background)
    from llm_magic.display.rows_plain import PlainRowsView

    return PlainRowsView(show, streams=not background)


def choose_comparison_view(
    shell: Any, settings: Settings, show: str = "markdown", *, background: bool = False
) -> ComparisonView:
    """Return the view of several models side by side for where the cell runs; parameters as for `choose`."""
    if getattr(shell, "kernel", None) is not None:
        from llm_magic.display.comparison_notebook import NotebookComparisonView
        from llm_magic.display.outputs import CellOutputs

        return NotebookComparisonView(
            CellOutputs(shell), show, settings.repaints, external_images=settings.external_images
        )
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from llm_magic.display.comparison_terminal import TerminalComparisonView

        return TerminalComparisonView(show, settings.repaints, streams=not background)
    from llm_magic.display.comparison_plain import PlainComparisonView

    return PlainComparisonView(show, streams=not background)


def show_preview(preview: Preview, outcome: str, title: str = "") -> None:
    """Show a request that is not sent: its body with long data cut, its method and URL, its headers.

    A `title` stands above: the model that it would be sent to, where there are several.
    What it will take, what is to be known of it and its `outcome` follow, and last the headers that the SDK adds.
    """
    import json

    from llm_magic.display.footer import counted
    from llm_magic.display.markup import folded, joined, mark, preformatted, quiet
    from llm_magic.display.outputs import publish

    body = json.dumps(_without_data(preview.body), indent=2, ensure_ascii=False, default=str)
    lines = [f"{name}: {value}" for name, value in preview.headers.items() if name not in preview.added]
    text = "\n".join([body, "", f"{preview.method} {preview.url}", *lines])
    said = [*_taken(preview.estimate), *preview.notes, outcome]
    titles = [mark(title)] if title else []
    shown = [*titles, {"text/plain": f"{text}\n", "text/html": preformatted(text)}, *map(quiet, said)]
    if preview.added:
        added = [f"{name}: {value}" for name, value in preview.headers.items() if name in preview.added]
        shown.append(folded(f"{counted(len(added), 'header')} of the SDK", "\n".join(added)))
    publish(joined(shown))


def nothing_sent(out: str | None, *undone: str) -> str:
    """Return a line on what a dry run does not do: it sends nothing, binds no variable `out`, and what else is undone.

    >>> nothing_sent("x"), nothing_sent(None)
    ('Nothing was sent, x is not bound.', 'Nothing was sent.')

    """
    return ", ".join(["Nothing was sent", *([f"{out} is not bound"] if out else []), *undone]) + "."


def _taken(estimate: Estimate | None) -> list[str]:
    """Return in words what a request will take."""
    if estimate is None:
        return []
    from llm_magic.display.footer import money

    out = "as many out as the model writes" if estimate.most is None else f"at most {estimate.most:,} out"
    tokens = f"About {estimate.tokens:,} tokens in, {out}."
    if estimate.cost is None:
        return [tokens]
    most = "" if estimate.cost_at_most is None else f", at most {money(estimate.cost_at_most)} in all"
    return [f"{tokens} Price: about {money(estimate.cost)} for the prompt{most}."]


def _without_data(value: Any) -> Any:
    """Return a body whose data URLs are cut: how long they are is said."""
    if isinstance(value, dict):
        return {name: _without_data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_data(item) for item in value]
    if isinstance(value, str) and value.startswith("data:") and len(value) > _LONGEST:
        return f"{value[:60]}… ({len(value):,} characters)"
    return value


def show_lines(lines: Sequence[str], notes: Sequence[str], show: str = "markdown") -> None:
    """Show what a cell has done that has no answer: lines, the first of which tells it, and notes above them."""
    from llm_magic.display import markup
    from llm_magic.display.outputs import publish

    if show != "none":
        publish(markup.joined([*map(markup.mark, notes), *map(markup.quiet, lines)]))
