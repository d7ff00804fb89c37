"""The outputs of one cell of a notebook: what is published goes there, from whatever thread."""

from __future__ import annotations

import contextlib
import contextvars
import os
import shutil
import sys
import threading
import uuid
from dataclasses import dataclass
from typing import Any

from llm_magic.control_characters import visible
from llm_magic.display import markup
from llm_magic.display.markup import Bundle
from llm_magic.text_buffer import whole


class CellOutputs:
    """The outputs of the cell that runs now, later and from other threads, too; one of them is repainted.

    ipykernel 7 keeps the running cell in context variables, so a copy of the context stays with its cell. In
    ipykernel 6 the running cell is an attribute, so there the message is addressed by hand.

    Attributes
    ----------
    captured
        Whether outputs are collected (`%%capture`) and not sent to a front end.
    alone
        Whether the cell is one cell magic, which no other code of the cell shares the outputs with.
    in_widget
        Whether an `Output` widget takes the outputs, which knows no updates.
    watched
        Whether somebody may look meanwhile: a program that executes a notebook (nbclient) answers no questions.
    replaceable
        False where an output cannot be replaced: then there are only outputs that stay.
    count
        Outputs so far.
    held
        Whether nothing is sent: outputs are kept as they would stand, until `release`.

    """

    def __init__(self, shell: Any) -> None:
        self._publisher = publisher = shell.display_pub
        self._thread = threading.get_ident()
        self._context = contextvars.copy_context()
        self._parent = getattr(publisher, "parent_header", None)
        request = shell.kernel.get_parent() or {}
        self.captured = not hasattr(publisher, "pub_socket")
        self.alone = str(request.get("content", {}).get("code", "")).lstrip().startswith("%%llm")
        self.watched = bool(request.get("content", {}).get("allow_stdin", True))
        self.in_widget = _in_widget(request.get("header", {}).get("msg_id"))
        self.replaceable = not self.in_widget and not self.captured
        self._finds_cell = self.captured or hasattr(publisher, "set_thread_parent")  # the publisher, on any thread
        self._slot: str | None = None
        self._holds_line = False
        self._held: list[_Output] | None = None
        self._sent = 0  # messages of the kernel before outputs were held
        self.count = 0

    @property
    def held(self) -> bool:
        """Whether nothing is sent."""
        return self._held is not None

    def hold(self) -> None:
        """From now on send nothing: what is replaced or removed before `release` is never seen."""
        self._held, self._sent = [], self._messages()

    def release(self, *, alone: bool = False) -> None:
        """Send the outputs as they stand, each once, and from now on whatever comes.

        They are `alone` in their cell: what tools may have printed meanwhile gives way to them.
        """
        if self._held is None:
            return
        held, self._held = self._held, None
        if alone and self._messages() != self._sent:
            self._send("clear_output", wait=True)
        for output in held:
            slot = output.slot if output.slot == self._slot else None
            self._send("display_data", **_content(output.bundle, output.metadata, slot))

    def _messages(self) -> int:
        """Return how many messages the kernel has sent, what is printed included."""
        _flush_printed()
        return int(getattr(getattr(self._publisher, "session", None), "message_count", 0))

    @property
    def answers(self) -> bool:
        """Whether the output that is repainted holds some of the answer."""
        return self._slot is not None and not self._holds_line

    def paint(self, bundle: Bundle, *, line: bool = False) -> None:
        """Replace what is repainted; a `line` is only about the wait and gives way to whatever follows."""
        if not self.replaceable:
            return
        self._holds_line = line
        replaces = self._slot is not None
        self._slot = self._slot or uuid.uuid4().hex
        self._show(bundle, {}, self._slot, replaces=replaces)

    def settle(self, bundle: Bundle, metadata: dict[str, Any] | None = None, line: Bundle | None = None) -> None:
        """Make this an output that stays, in the place of what was repainted.

        `line` stands below it until something follows; it is there before this output is, so it is always the last.
        """
        if line is None or not self.replaceable:
            slot, self._slot = self._slot, None
        else:
            if self._slot is None:
                self.paint(line, line=True)
            slot, self._slot = self._slot, None
            self.paint(line, line=True)
        self._show(bundle, metadata or {}, slot, replaces=slot is not None)

    def add(self, bundle: Bundle, line: Bundle | None = None) -> None:
        """Add an output that stays and is not part of the answer; `line` as for `settle`, where no answer grows."""
        if self._holds_line or (line is not None and self._slot is None):
            self.settle(bundle, line=line)
        else:
            self._show(bundle, {}, None, replaces=False)

    def drop_line(self) -> None:
        """Empty a line that nothing came to replace."""
        if self._slot is not None and self._holds_line:
            self.settle({"text/plain": ""})

    def clear(self) -> None:
        """Remove all outputs as soon as there is a new one."""
        if self._held is None:
            _flush_printed()
            self._send("clear_output", wait=True)
        else:
            self._held.clear()
        self._slot = None
        self.count = 0

    def _show(self, bundle: Bundle, metadata: dict[str, Any], slot: str | None, *, replaces: bool) -> None:
        self.count += not replaces
        bundle = markup.displayable({kind: whole(text) for kind, text in bundle.items()})
        if self._held is not None:
            self._keep(_Output(bundle, metadata, slot), replaces=replaces)
            return
        kind = "update_display_data" if replaces else "display_data"
        self._send(kind, **_content(bundle, metadata, slot))

    def _keep(self, output: _Output, *, replaces: bool) -> None:
        """Put an output where it would stand, if it were sent."""
        held = self._held if self._held is not None else []
        places = [place for place, other in enumerate(held) if replaces and other.slot == output.slot]
        if places:
            held[places[-1]] = output
        else:
            held.append(output)

    def _send(self, kind: str, **content: Any) -> None:
        publisher = self._publisher
        if not self._finds_cell and self._thread != threading.get_ident():
            message = publisher.session.msg(kind, content, parent=self._parent)
            publisher.session.send(publisher.pub_socket, message, ident=publisher.topic)
        elif kind == "clear_output":
            self._context.run(publisher.clear_output, **content)
        else:
            self._context.run(publisher.publish, update=kind == "update_display_data", **content)


@dataclass(frozen=True, slots=True)
class _Output:
    """One output of a cell; `slot` is the name under which it can be replaced, None where it cannot."""

    bundle: Bundle
    metadata: dict[str, Any]
    slot: str | None


def _content(bundle: Bundle, metadata: dict[str, Any], slot: str | None) -> dict[str, Any]:
    """Return the content of the message that shows an output."""
    return {"data": bundle, "metadata": metadata, "transient": {"display_id": slot} if slot else {}}


def _flush_printed() -> None:
    """Send what tools have printed, which a kernel keeps for a moment: else it comes after what is to follow it."""
    for printed in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever stands in the place of these
            printed.flush()


def _in_widget(request: str | None) -> bool:
    """Tell whether an `Output` widget takes what this request of the front end gives."""
    widgets = getattr(sys.modules.get("ipywidgets.widgets.widget"), "_instances", None)
    if not request or not widgets:
        return False
    return any(getattr(widget, "msg_id", "") == request for widget in list(widgets.values()))


class ProgressLine:
    """A line below a cell, or the last line of a terminal; nothing where nobody looks.

    In the `background` of a terminal nothing is shown but the end: its last line is another cell's.
    """

    def __init__(self, shell: Any, *, background: bool = False) -> None:
        self._outputs = CellOutputs(shell) if getattr(shell, "kernel", None) is not None else None
        looks = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not background
        self._terminal = self._outputs is None and looks
        self._width = 0

    def say(self, text: str) -> None:
        """Show a line in the place of the last one."""
        if self._outputs is not None:
            self._outputs.paint(markup.quiet(text), line=True)
        elif self._terminal:
            line = visible(" ".join(text.split()))[: shutil.get_terminal_size().columns - 1]
            sys.stdout.write(f"\r{line.ljust(self._width)}\r{line}")
            sys.stdout.flush()
            self._width = len(line)

    def end(self, bundle: Bundle | None = None) -> None:
        """Take the line away; `bundle` is shown in its place."""
        if self._outputs is None:
            if self._width:
                self.say("")
            if bundle is not None:
                publish(bundle)
        elif bundle is None:
            self._outputs.drop_line()
        else:
            self._outputs.add(bundle)


def is_watched(shell: Any) -> bool:
    """Tell whether somebody may look at the running cell later: a program that executes a notebook reads nothing then.

    Such a program (nbclient, nbconvert, papermill) allows no questions either.
    """
    kernel = getattr(shell, "kernel", None)
    return kernel is None or bool((kernel.get_parent() or {}).get("content", {}).get("allow_stdin", True))


def publish(bundle: Bundle) -> None:
    """Show an output of the running cell; a terminal shows its plain text."""
    from IPython.display import display

    display(markup.displayable(bundle), raw=True)
