"""Tools of MCP servers in cells of a real kernel: shown, confirmed, interrupted, and ended with what started them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import ScriptedServer

SCRIPTED = str(Path(__file__).parent / "scripted_server.py")


def configured(kernel: Kernel, model: ScriptedServer, log: Path) -> None:
    servers = {"s": {"command": sys.executable, "args": [SCRIPTED], "env": {"SCRIPTED_LOG": str(log)}}}
    kernel.run(
        f"%config LLMMagics.mcp_servers = {servers!r}\n"
        f"get_ipython()._llm_magic.registry.add('m', 'compatible', base_url={model.url!r}, max_retries=0)\n"
        "%config LLMMagics.model = 'm:m'"
    ).check()


@contextmanager
def asking(kernel: Kernel, log: Path, model: Any) -> Iterator[Callable[..., Ran]]:
    """Let the kernel ask this model."""
    with ScriptedServer(model) as server:
        configured(kernel, server, log)
        yield kernel.run


def process_of(log: Path, number: int = -1) -> int:
    started = [line for line in log.read_text().splitlines() if line.startswith("started ")]
    return int(started[number].removeprefix("started "))


def has_ended(process: int, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_nothing_is_started_or_imported_before_it_is_used(kernel: Kernel) -> None:
    assert kernel.value("[name for name in __import__('sys').modules if name in {'mcp', 'anyio', 'httpx2'}]") in (
        [],
        ["anyio"],  # of the front end's kernel
    )


def test_a_cell_and_a_line_call_tools_and_show_them(kernel: Kernel, calling: Any, server_log: Path) -> None:
    with asking(kernel, server_log, calling(("echo", {"text": "hello"}), ("picture", {}))) as run:
        ran = run("%%llm --once --tools mcp:s.echo,mcp:s.picture\nHi").check()
        assert any("echo(text='hello') → hello" in text for text in ran.of_type("text/plain"))
        assert sum(html.count('<img src="data:image/png;base64,iVBOR') for html in ran.of_type("text/html")) == 1
        assert run("%llm --once --tools mcp:s Hi").check().of_type("text/markdown")[-1].startswith("hello")
    assert server_log.read_text().count("initialize\n") == 1


def test_what_is_wrong_is_one_error_without_a_traceback(kernel: Kernel, calling: Any, server_log: Path) -> None:
    with asking(kernel, server_log, calling()) as run:
        ran = run("%%llm --once --tools mcp:s.ecko\nHi")
    assert (ran.error_name, ran.error) == ("ToolError", "The MCP server s has no tool ecko.\nDid you mean echo?")
    shown = "".join(line for output in ran.outputs for line in output.get("traceback", ()))
    assert "connection.py" not in shown


def test_a_call_is_confirmed_by_the_user(kernel: Kernel, calling: Any, server_log: Path) -> None:
    with asking(kernel, server_log, calling(("echo", {"text": "a"}))) as run:
        ran = run("%%llm --once --tools mcp:s --confirm\nHi", on_input=lambda prompt: "n" if "echo" in prompt else "y")
    assert ran.of_type("text/markdown") == ["The user declined this call."]


def test_an_interrupt_cancels_the_call_at_the_server(kernel: Kernel, calling: Any, server_log: Path) -> None:
    def interrupt() -> None:
        until = time.monotonic() + 20
        while "sleeping" not in (server_log.read_text() if server_log.exists() else "") and time.monotonic() < until:
            time.sleep(0.02)
        kernel.interrupt()

    with asking(kernel, server_log, calling(("sleep", {}))) as run:
        waiting = threading.Thread(target=interrupt)
        waiting.start()
        ran = run("%%llm --once --tools mcp:s\nHi")
        waiting.join()
        assert ran.error_name == "Interrupted"
        assert ran.seconds < 10
        kernel.run("%unload_ext llm_magic").check()
        kernel.run("%load_ext llm_magic").check()
    assert "notifications/cancelled\n" in server_log.read_text()
    assert has_ended(process_of(server_log))


def test_a_server_ends_with_the_restart_and_with_the_death_of_its_kernel(calling: Any, server_log: Path) -> None:
    """In a kernel of its own, as whoever comes after would find none."""
    with Kernel() as kernel, ScriptedServer(calling()) as model:
        for number, end in enumerate(["restart", "kill"]):
            kernel.run("%load_ext llm_magic").check()
            configured(kernel, model, server_log)
            kernel.run("%%llm --once --tools mcp:s\nHi").check()
            process = process_of(server_log, number)
            os.kill(process, 0)
            if end == "restart":
                kernel.manager.restart_kernel(now=False)
                kernel.client.wait_for_ready(timeout=60)
            else:
                os.kill(kernel.manager.provisioner.process.pid, signal.SIGKILL)
            assert has_ended(process)
