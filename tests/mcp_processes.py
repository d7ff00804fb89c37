"""Processes of scripted servers: which one a log names, and whether it has ended."""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_of(log: Path) -> int:
    """Return the process that was started last."""
    started = [line for line in log.read_text().splitlines() if line.startswith("started ")]
    return int(started[-1].removeprefix("started "))


def has_ended(process: int, seconds: float = 30) -> bool:
    """Wait for the end of a process; seconds are for one that never ends."""
    until = time.monotonic() + seconds
    while True:
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
