"""The outputs of one cell of a notebook, from whatever thread: everything published here goes to that cell."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Bundle = dict[str, Any]
"""An output by media type."""


class Cell:
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

    def show(self, bundle: Bundle, metadata: Bundle | None = None, *, slot: str | None = None) -> None:
        """Add an output; `slot` names it for `update`."""
        self._publish("display_data", bundle, metadata, slot)

    def update(self, bundle: Bundle, metadata: Bundle | None = None, *, slot: str) -> None:
        """Replace the output of that name."""
        self._publish("update_display_data", bundle, metadata, slot)

    def clear(self, *, wait: bool = True) -> None:
        """Remove the cell's outputs, with `wait` as soon as there is a new one."""
        if self._here():
            self._context.run(self._publisher.clear_output, wait)
        else:
            self._send("clear_output", {"wait": wait})

    def _publish(self, kind: str, bundle: Bundle, metadata: Bundle | None, slot: str | None) -> None:
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

    def _send(self, kind: str, content: Bundle) -> None:
        session = self._publisher.session
        message = session.msg(kind, content, parent=self._parent)
        session.send(self._publisher.pub_socket, message, ident=self._publisher.topic)


def _request(shell: InteractiveShell) -> Bundle:
    """Return the front end's request that the kernel carries out now."""
    kernel: Any = getattr(shell, "kernel", None)
    request = kernel.get_parent() if kernel is not None else None
    return request if isinstance(request, dict) else {}
