"""`%load_ext llm_magic`: puts the magics in place at once, and imports the heavy libraries while the user types."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llm_magic import api, completion, input_transformer
from llm_magic.commands import LLMCommands
from llm_magic.context.executed_cells import ExecutedCells
from llm_magic.magics import LLMMagics
from llm_magic.picker import LLMPicker
from llm_magic.providers import plugins
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_ATTRIBUTE = "_llm_magic"


class Loaded:
    """What loading put into a shell, so that unloading can take out every bit of it."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.magics = LLMMagics(shell)
        shelf: list[Any] = shell.configurables
        self.registry = ProviderRegistry(parent=self.magics)
        self.registry.shelf = shelf
        self.registry.apply_project(self.magics)
        self.session = Session(self.magics, self.registry, say=print)
        self.session.namespace = shell.user_ns
        self.magics.session = self.session
        self.commands = LLMCommands(shell, self.session)
        shell.register_magics(self.magics)
        shell.register_magics(self.commands)
        self.picker = LLMPicker(shell, self.session)
        shell.register_magics(self.picker)
        completion.install(shell, self.session)
        shelf.append(self.registry)
        shell.input_transformers_cleanup.append(input_transformer.rewrite)
        self.results = ResultHook(shell)
        self.magics.shown = self.results.shown
        self.session.cells = self.cells = ExecutedCells(shell, self.magics)
        self._watch_where_asked()
        self.magics.observe(self._watch_where_asked, ["params", "model_params"])
        self.registry.observe(self._watch_where_asked, ["aliases"])
        for event, listener in self._listeners():
            shell.events.register(event, listener)
        api.activate(self.session)
        threading.Thread(target=_import_ahead, name="llm_magic imports", daemon=True).start()

    def _listeners(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("pre_run_cell", self.magics.begin_cell),
            ("post_run_cell", self.magics.end_cell),
            ("pre_run_cell", self.cells.began),
            ("post_run_cell", self.cells.ended),
        )

    def _watch_where_asked(self, _change: object = None) -> None:
        """Keep what cells display once a setting sends cells along; a cell that asks by itself has it begin then."""
        of_all = (self.magics.params, *self.magics.model_params.values(), *self.registry.aliases.values())
        if any(isinstance(options, Mapping) and options.get("context") for options in of_all):
            self.cells.watch()

    def unload(self) -> None:
        """Take everything out again."""
        api.activate(None)
        shell = self.shell
        self.results.remove()
        self.cells.close()
        for event, listener in self._listeners():
            with suppress(ValueError):  # somebody else took it out
                shell.events.unregister(event, listener)
        completion.uninstall(shell)
        self.picker.close()
        shell.input_transformers_cleanup[:] = [
            transform for transform in shell.input_transformers_cleanup if transform is not input_transformer.rewrite
        ]
        ours = (self.magics, self.commands, self.picker)
        for kind, names in shell.magics_manager.magics.items():
            mine = [name for name, function in names.items() if getattr(function, "__self__", None) in ours]
            for name in mine:
                del shell.magics_manager.magics[kind][name]
        for magics in ours:
            shell.magics_manager.registry.pop(type(magics).__name__, None)
        gone = {id(item) for item in (*ours, self.registry)}
        shell.configurables[:] = [item for item in shell.configurables if id(item) not in gone]
        self.session.close()


_AHEAD = (
    "openai",
    "markdown_it",
    "llm_magic.session.run",
    "llm_magic.session.screen",
    "llm_magic.providers.local",
    "llm_magic.prompt",
    "llm_magic.options.reader",
    "llm_magic.conversation",
    "llm_magic.ledger",
    "llm_magic.display.notebook",
    "llm_magic.output.dialects",
    "llm_magic.completion.candidates",
)


def _import_ahead() -> None:
    """Import what the first cell will need; whatever fails here says so when it is needed."""
    import importlib

    for name in _AHEAD:
        with suppress(Exception):
            importlib.import_module(name)
    with suppress(Exception):
        plugins.entries()  # looks through all installed packages: the first completion need not wait for it


def load(shell: InteractiveShell) -> None:
    """Load, or load again."""
    unload(shell)
    setattr(shell, _ATTRIBUTE, Loaded(shell))


def unload(shell: InteractiveShell) -> None:
    """Unload, if loaded."""
    loaded: Any = getattr(shell, _ATTRIBUTE, None)
    if loaded is not None:
        delattr(shell, _ATTRIBUTE)
        loaded.unload()


class ResultHook:
    """Stands before IPython's display hook while the extension is loaded.

    A result that its own cell has shown already is passed over; a later cell shows it as any other object.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._hook: Any = shell.display_trap.hook
        shell.display_trap.hook = self
        self._shown: list[object] = []
        self._shown_in = -1  # the execution count of the cell that showed them

    def shown(self, result: object) -> None:
        """Take note that the running cell has shown a result."""
        if self._shown_in != self._shell.execution_count:
            self._shown, self._shown_in = [], self._shell.execution_count
        self._shown.append(result)

    def __call__(self, result: Any = None) -> None:
        """Show a result, or only keep it."""
        here = self._shown_in == self._shell.execution_count
        if not (here and any(result is known for known in self._shown)):
            self._hook(result)
            return
        self._hook.update_user_ns(result)
        self._hook.fill_exec_result(result)

    def remove(self) -> None:
        """Give IPython's own hook its place back."""
        self._shell.display_trap.hook = self._hook
