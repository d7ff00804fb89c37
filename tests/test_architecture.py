"""What the pages about the code name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`([\w/.]+\.(?:py|md|toml))`", (ROOT / page).read_text(encoding="utf-8")))
    missing = [
        name for name in sorted(named) if not any((place / name).exists() for place in (ROOT, ROOT / "llm_magic"))
    ]
    assert named
    assert missing == []


def test_every_room_of_the_package_is_on_the_plan() -> None:
    plan = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {
        path.name.removesuffix(".py")
        for path in (ROOT / "llm_magic").iterdir()
        if path.name not in {"__init__.py", "__pycache__", "py.typed"}
    }
    assert [room for room in sorted(rooms) if f"`{room}" not in plan] == []
