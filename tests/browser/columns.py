"""A `%%llm_columns` that replays texts side by side through the project's own view: no model is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llm_magic import display
from llm_magic.config.settings import Settings
from llm_magic.display.footer import footer
from llm_magic.draft import Draft
from llm_magic.events import (
    Event,
    Finished,
    ReasoningDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)

Steps = Iterator[Sequence[Event]]


def pieces(text: str, size: int = 4) -> Iterator[str]:
    """Cut a text into pieces of about the size of tokens."""
    return (text[at : at + size] for at in range(0, len(text), size))


def steps(text: str, *, reasoning: str = "", tool: str = "", finish: str = "stop", each: int = 1) -> Steps:
    """Yield what a model would send: reasoning, a call of a tool, its text; `each` tokens at a time."""
    tokens = [ReasoningDelta(piece) for piece in pieces(reasoning)]
    if tool:
        yield [ToolCallDelta(0, "1", "clock", '{"zone": "UTC"}')]
        yield [ToolResult("1", "clock", '{"zone": "UTC"}', tool), Restarted("tools")]
    tokens += [TextDelta(piece) for piece in pieces(text)]
    for at in range(0, len(tokens), each):
        yield tokens[at : at + each]
    yield [UsageReport(Usage(7, len(text) // 4)), Finished(finish)]


def compare(
    models: Mapping[str, Steps | str],
    show: str = "markdown",
    *,
    pause: float = 0.0,
    values: Mapping[str, Any] | None = None,
    so_far: Callable[[str, str], Any] | None = None,
    hold: bool = False,
    said: str = "",
    **settings: Any,
) -> None:
    """Show answers side by side in the running cell; a text instead of steps is why a model has none."""
    from IPython import get_ipython

    view = display.choose_comparison_view(get_ipython(), Settings(**settings), show)
    columns = dict(zip(models, view.begin(list(models)), strict=True))
    drafts = {name: Draft(clock=lambda: 0.0) for name in models}
    if hold:
        for column in columns.values():
            column.hold()
    going = dict(models)
    for name, column in columns.items():
        column.begin(name)
        column.progress(f"waiting for {name}: 1 s")
    view.tick()
    while going:
        for name in list(going):
            given = going[name]
            if isinstance(given, str):
                columns[name].fail(None)
                view.failed(list(models).index(name), given)
                del going[name]
                continue
            events = next(given, None)
            draft = drafts[name]
            if events is not None:
                draft.add_all(events)
                of = None if so_far is None else (lambda draft=draft, name=name: so_far(name, draft.text))
                columns[name].update(draft, of)
                continue
            known = {} if values is None else {"value": values[name], "structured": "json_schema"}
            response = draft.response(model=name, provider="test", **known)
            columns[name].finish(response, footer(response))
            del going[name]
        view.tick()
        time.sleep(pause)
    view.finish(values, said)


def load_ipython_extension(shell: Any) -> None:
    """Register the magic: its line is the arguments of `compare`, evaluated, after `speed=…`."""
    shell.user_ns.update(compare=compare, steps=steps)

    def llm_columns(line: str, cell: str | None = None) -> None:
        eval(f"compare({cell if cell is not None else line})", shell.user_ns)  # noqa: S307 - written by the tests

    shell.register_magic_function(llm_columns, "line_cell")
