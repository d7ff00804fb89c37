"""A shell in which cells have run: as much of IPython's as is read of it, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from IPython.core.formatters import DisplayFormatter
from IPython.core.history import HistoryOutput


def a_shell(*sources: str) -> Any:
    """Return a shell in which these cells have run, before anybody listened."""
    history = SimpleNamespace(input_hist_raw=["", *sources], outputs=defaultdict(list), exceptions={})
    return SimpleNamespace(
        history_manager=history,
        execution_count=len(sources) + 2,
        displayhook=SimpleNamespace(prompt_count=len(sources) + 1),
        display_pub=SimpleNamespace(),
        display_formatter=DisplayFormatter(),
        user_ns={"_oh": {}},
    )


def ran(cells: Any, source: str, *outputs: HistoryOutput, cell_id: str | None = None) -> int:
    """Have a cell run to its end, with these outputs; return its execution count."""
    shell = cells._shell
    number = shell.displayhook.prompt_count = shell.execution_count - 1
    info = SimpleNamespace(store_history=True, cell_id=cell_id, raw_cell=source)
    cells.began(info)
    shell.history_manager.input_hist_raw.append(source)
    shell.history_manager.outputs[number].extend(outputs)
    cells.ended(SimpleNamespace(info=info, execution_count=number))
    shell.execution_count += 1
    return number


def printed(*chunks: str, name: str = "out") -> HistoryOutput:
    """Return an output that was printed so."""
    return HistoryOutput(f"{name}_stream", {"stream": list(chunks)})


def result(text: str, **bundle: Any) -> HistoryOutput:
    """Return a result of a cell."""
    return HistoryOutput("execute_result", {"text/plain": text, **bundle})
