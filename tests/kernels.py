"""A real Jupyter kernel to run cells in; output messages are folded as a front end folds them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from jupyter_client.manager import start_new_kernel


@dataclass
class Ran:
    """What became of a cell."""

    status: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    error_name: str = ""
    seconds: float = 0.0
    request: str = ""

    def check(self) -> Ran:
        """Fail where the cell failed."""
        assert self.status == "ok", f"{self.error_name}: {self.error}"
        return self

    def of_type(self, mime: str) -> list[str]:
        """Return the data of all display outputs of one type."""
        return [output["data"][mime] for output in self.outputs if mime in output.get("data", {})]

    @property
    def stdout(self) -> str:
        return "".join(output["text"] for output in self.outputs if output["output_type"] == "stream")


class Kernel:
    """A kernel and its client."""

    def __init__(self, **environment: str) -> None:
        import os

        self.manager, self.client = start_new_kernel(
            kernel_name="python3", env={**os.environ, **environment}, startup_timeout=60
        )
        self.heard: list[dict[str, Any]] = []
        """All messages of the kernel, whichever cell they belong to."""
        self.last_reply: dict[str, Any] = {}
        self.asked: list[str] = []
        """The prompts of all `input()`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def start(self, code: str, cell_id: str | None = None, *, allow_stdin: bool = True) -> str:
        """Begin to run a cell and return the id of its request.

        A front end that somebody looks at allows input (`allow_stdin`); nbclient, nbconvert and papermill do not.
        """
        content = {
            "code": code.strip("\n"),
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        metadata = {"cellId": cell_id} if cell_id else {}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def run(
        self,
        code: str,
        cell_id: str | None = None,
        *,
        timeout: float = 120,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        allow_stdin: bool = True,
        on_input: Callable[[str], str | None] | None = None,
    ) -> Ran:
        """Run a cell to its end and return what became of it; `on_input` answers `input()`, None leaves it waiting."""
        started = time.perf_counter()
        request = self.start(code, cell_id, allow_stdin=allow_stdin)
        ran = self.collect(request, timeout=timeout, on_message=on_message, on_input=on_input)
        ran.seconds = time.perf_counter() - started
        return ran

    def collect(  # noqa: PLR0915 - one kind of message after the other
        self,
        request: str,
        *,
        timeout: float = 120,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_input: Callable[[str], str | None] | None = None,
    ) -> Ran:
        """Fold the messages of a request until its cell is done."""
        ran = Ran(request=request)
        displays: dict[str, dict[str, Any]] = {}
        clear_next = False
        deadline = time.monotonic() + timeout
        while True:
            if on_input is not None and not self._hear(on_input):
                assert time.monotonic() < deadline, "the cell does not end"
                continue
            message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            self.heard.append(message)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            ran.messages.append(message)
            if on_message is not None:
                on_message(message)
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "clear_output":
                if content["wait"]:
                    clear_next = True
                else:
                    ran.outputs.clear()
                continue
            if kind in {"display_data", "stream", "execute_result", "error"} and clear_next:
                ran.outputs.clear()
                clear_next = False
            if kind == "update_display_data":
                identifier = content["transient"]["display_id"]
                if identifier in displays:
                    displays[identifier].update(data=content["data"], metadata=content["metadata"])
            elif kind in {"display_data", "execute_result"}:
                output = {"output_type": kind, "data": content["data"], "metadata": content["metadata"]}
                ran.outputs.append(output)
                if identifier := content.get("transient", {}).get("display_id"):
                    displays[identifier] = output
            elif kind == "stream":
                last = ran.outputs[-1] if ran.outputs else None
                if last and last["output_type"] == "stream" and last["name"] == content["name"]:
                    last["text"] += content["text"]
                else:
                    ran.outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
            elif kind == "error":
                ran.error_name, ran.error = content["ename"], content["evalue"]
                ran.outputs.append({"output_type": "error", **content})
        reply = self.client.get_shell_msg(timeout=30)
        while reply["parent_header"].get("msg_id") != request:
            reply = self.client.get_shell_msg(timeout=30)
        self.last_reply = reply["content"]
        ran.status = reply["content"]["status"]
        return ran

    def _hear(self, on_input: Callable[[str], str | None]) -> bool:
        """Answer what is asked now, and tell whether there is an output."""
        if self.client.stdin_channel.msg_ready():
            prompt = self.client.get_stdin_msg(timeout=1)["content"]["prompt"]
            self.asked.append(prompt)
            if (reply := on_input(prompt)) is not None:
                self.client.input(reply)
        if self.client.iopub_channel.msg_ready():
            return True
        time.sleep(0.01)
        return False

    def outputs_of(self, request: str, mime: str) -> list[str]:
        """Return what was published for a cell in one media type, updates and late outputs included."""
        return [
            message["content"]["data"][mime]
            for message in self.heard
            if message["parent_header"].get("msg_id") == request and mime in message["content"].get("data", {})
        ]

    def value(self, expression: str) -> Any:
        """Return the value of an expression of plain data in the kernel."""
        import ast

        ran = self.run(f"print(repr({expression}))").check()
        return ast.literal_eval(ran.stdout)

    def interrupt(self) -> None:
        """Interrupt the kernel, from any thread."""
        self.manager.interrupt_kernel()
        if threading.current_thread() is not threading.main_thread():  # where the manager has left an event loop
            asyncio.get_event_loop().close()
