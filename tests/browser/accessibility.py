"""axe-core on a part of a page: what it finds wrong, of serious or critical impact."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

VERSION = "4.14.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm_magic-tests" / f"axe-core-{VERSION}"


def axe() -> str:
    """Return the source of axe-core, fetched once by npm."""
    file = CACHE / "package" / "axe.min.js"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("needs axe-core, and npm to fetch it")
        CACHE.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(  # noqa: S603 - one package, of one version
            [npm, "pack", f"axe-core@{VERSION}", "--silent"],
            cwd=CACHE,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if packed.returncode:
            pytest.skip(f"needs axe-core, which npm cannot fetch: {packed.stderr.strip()[:200]}")
        shutil.unpack_archive(CACHE / packed.stdout.strip(), CACHE)
    return file.read_text(encoding="utf-8")


def violations(page: Any, selector: str) -> list[str]:
    """Return what is wrong in the elements of a selector, a line for each."""
    page.evaluate(axe())
    found = page.evaluate(
        "selector => axe.run({include: [[selector]]}, {resultTypes: ['violations']}).then(result => result.violations)",
        selector,
    )
    return [
        f"{item['id']} ({item['impact']}): {item['help']}: {node['html'][:200]}"
        for item in found
        if item["impact"] in {"serious", "critical"}
        for node in item["nodes"]
    ]
