"""What a measurement was made on: versions, machine, date, and how busy the machine was."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version


def about(*packages: str) -> str:
    """Return two lines that say what a measurement was made with and on."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = f"Python {platform.python_version()}"
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}"
    return f"{datetime.now(UTC):%Y-%m-%d} · {python}, {versions}\n{where}"
