"""Commands without a network: in a Linux network namespace of their own, where nothing else can be reached."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_NAMESPACE = ("unshare", "--net", "--map-root-user")

_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""

JUPYTER_EXECUTE_OVER_IPC = """
from jupyter_client.connect import ConnectionFileMixin
from nbclient.cli import main
ConnectionFileMixin.transport.default_value = "ipc"  # the command has no option for it
main()
"""
"""`jupyter execute`, with a kernel that is talked to through files: not even loopback is needed."""


def without_network(command: Sequence[str], *, loopback: bool = False) -> list[str]:
    """Return the command, to be run where no interface is up, or with `loopback` none but that of the machine itself.

    The test is skipped where the machine does not permit it.
    """
    if (reason := _not_permitted()) is not None:
        pytest.skip(f"needs a network namespace: {reason}")
    up = (sys.executable, "-c", _LOOPBACK_UP) if loopback else ()
    return [*_NAMESPACE, *up, *command]


@functools.cache
def _not_permitted() -> str | None:
    if shutil.which(_NAMESPACE[0]) is None:
        return "there is no unshare here"
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    return tried.stderr.strip() if tried.returncode else None


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which the commands of this Python come first, without any recordings' mode or key."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLM_MAGIC_RECORD", "JPY_SESSION_NAME", "OPENAI_", "AZURE_OPENAI_"))
    }
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | more
