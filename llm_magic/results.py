"""The result of a cell that has shown it already goes into `Out` and `_`, and is not shown a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class ResultHook:
    """Stands before IPython's display hook while the extension is loaded.

    A result is passed over where its `_shown_in` is the execution count of the cell that returns it; a later cell
    shows it as any other object.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._hook: Any = shell.display_trap.hook
        shell.display_trap.hook = self

    def __call__(self, result: Any = None) -> None:
        """Show a result, or only keep it."""
        if result is None or getattr(result, "_shown_in", None) != self._shell.execution_count:
            self._hook(result)
            return
        self._hook.update_user_ns(result)
        self._hook.fill_exec_result(result)

    def remove(self) -> None:
        """Give IPython's own hook its place back."""
        self._shell.display_trap.hook = self._hook
