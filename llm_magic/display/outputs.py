"""The outputs of one cell of a notebook: what is published goes there, from whatever thread."""

from __future__ import annotations

import contextvars
import os
import shutil
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

from llm_magic.display import markup
from llm_magic.display.markup import Bundle

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class CellPublisher:
    """The cell that runs now, as a place to publish to, later and from other threads, too.

    ipykernel 7 keeps the running cell in context variables, so a copy of the context stays with its cell. In
    ipykernel 6 the running cell is an attribute, so there the message is addressed by hand.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._publisher: Any = shell.display_pub
        self._thread = threading.get_ident()
        self._context = contextvars.copy_context()
        self._parent: Any = getattr(self._publisher, "parent_header", None)
        self._follows = hasattr(self._publisher, "set_thread_parent")
        request = _request(shell)
        self._source = str(request.get("content", {}).get("code", ""))
        self._id = request.get("header", {}).get("msg_id", "")

    @property
    def captured(self) -> bool:
        """Whether outputs are collected (`%%capture`) and not sent to a front end."""
        return not hasattr(self._publisher, "pub_socket")

    @property
    def alone(self) -> bool:
        """Whether the cell is one cell magic, which no other code of the cell shares the outputs with."""
        return self._source.lstrip().startswith("%%llm")

    @property
    def in_widget(self) -> bool:
        """Whether an `Output` widget takes the outputs, which knows no updates."""
        widgets = sys.modules.get("ipywidgets.widgets.widget")
        instances = getattr(widgets, "_instances", {})
        return any(
            getattr(widget, "msg_id", "") == self._id != "" for widget in list(getattr(instances, "values", list)())
        )

    def show(self, bundle: Bundle, metadata: dict[str, Any] | None = None, *, slot: str | None = None) -> None:
        """Add an output; `slot` names it for `update`."""
        self._publish("display_data", bundle, metadata, slot)

    def update(self, bundle: Bundle, metadata: dict[str, Any] | None = None, *, slot: str) -> None:
        """Replace the output of that name."""
        self._publish("update_display_data", bundle, metadata, slot)

    def clear(self) -> None:
        """Remove the cell's outputs as soon as there is a new one."""
        if self._here():
            self._context.run(self._publisher.clear_output, True)
        else:
            self._send("clear_output", {"wait": True})

    def _publish(self, kind: str, bundle: Bundle, metadata: dict[str, Any] | None, slot: str | None) -> None:
        transient = {"display_id": slot} if slot else {}
        if self._here():
            self._context.run(
                self._publisher.publish,
                data=bundle,
                metadata=metadata or {},
                transient=transient,
                update=kind == "update_display_data",
            )
        else:
            self._send(kind, {"data": bundle, "metadata": metadata or {}, "transient": transient})

    def _here(self) -> bool:
        """Tell whether the publisher finds the cell by itself."""
        return self._follows or self._thread == threading.get_ident() or self.captured

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        session = self._publisher.session
        message = session.msg(kind, content, parent=self._parent)
        session.send(self._publisher.pub_socket, message, ident=self._publisher.topic)


def _request(shell: InteractiveShell) -> dict[str, Any]:
    """Return the front end's request that the kernel carries out now."""
    kernel: Any = getattr(shell, "kernel", None)
    request = kernel.get_parent() if kernel is not None else None
    return request if isinstance(request, dict) else {}


class Outputs:
    """The outputs of one cell.

    Parameters
    ----------
    cell
        The cell.
    repaints
        False where an output cannot be replaced: then there are only outputs that stay.

    """

    def __init__(self, cell: CellPublisher, *, repaints: bool = True) -> None:
        self._cell = cell
        self._repaints = repaints
        self._slot: str | None = None
        self._holds_line = False
        self.count = 0
        """Outputs so far."""

    @property
    def answers(self) -> bool:
        """Whether the output that is repainted holds some of the answer."""
        return self._slot is not None and not self._holds_line

    def paint(self, bundle: Bundle, *, line: bool = False) -> None:
        """Replace what is repainted; a `line` is only about the wait and gives way to whatever follows."""
        if not self._repaints:
            return
        self._holds_line = line
        if self._slot is not None:
            self._cell.update(bundle, slot=self._slot)
        else:
            self._slot = uuid.uuid4().hex
            self._show(bundle, slot=self._slot)

    def settle(self, bundle: Bundle, metadata: dict[str, Any] | None = None) -> None:
        """Make this an output that stays, in the place of what was repainted."""
        if self._slot is not None:
            self._cell.update(bundle, metadata, slot=self._slot)
            self._slot = None
        else:
            self._show(bundle, metadata)

    def add(self, bundle: Bundle) -> None:
        """Add an output that stays and is not part of the answer."""
        if self._holds_line:
            self.settle(bundle)
        else:
            self._show(bundle)

    def _show(self, bundle: Bundle, metadata: dict[str, Any] | None = None, slot: str | None = None) -> None:
        self._cell.show(bundle, metadata, slot=slot)
        self.count += 1

    def drop_line(self) -> None:
        """Empty a line that nothing came to replace."""
        if self._slot is not None and self._holds_line:
            self._cell.update({"text/plain": ""}, slot=self._slot)
            self._slot = None

    def leave(self) -> None:
        """Let what was repainted stay as it is."""
        if not self._holds_line:
            self._slot = None

    def clear(self) -> None:
        """Remove all outputs as soon as there is a new one."""
        self._cell.clear()
        self._slot = None
        self.count = 0


class ProgressLine:
    """A line below a cell, or the last line of a terminal; nothing where nobody looks.

    Parameters
    ----------
    shell
        The IPython shell.

    """

    def __init__(self, shell: Any) -> None:
        self._outputs: Outputs | None = None
        self._width = 0
        if getattr(shell, "kernel", None) is not None:
            cell = CellPublisher(shell)
            self._outputs = Outputs(cell, repaints=not cell.in_widget and not cell.captured)
        self._terminal = self._outputs is None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Show a line in the place of the last one."""
        if self._outputs is not None:
            self._outputs.paint(markup.quiet(text), line=True)
        elif self._terminal:
            self._write(text)

    def end(self, bundle: Bundle | None = None) -> None:
        """Take the line away; `bundle` is shown in its place."""
        if self._outputs is None:
            if self._terminal and self._width:
                self._write("")
            if bundle is not None:
                publish(bundle)
        elif bundle is None:
            self._outputs.drop_line()
        else:
            self._outputs.add(bundle)

    def _write(self, text: str) -> None:
        line = " ".join(text.split())[: shutil.get_terminal_size().columns - 1]
        sys.stdout.write(f"\r{line.ljust(self._width)}\r{line}")
        sys.stdout.flush()
        self._width = len(line)


def publish(bundle: Bundle) -> None:
    """Show an output of the running cell; a terminal shows its plain text."""
    from IPython.display import display

    display(bundle, raw=True)
