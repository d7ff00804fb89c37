"""What tests of the commands share: a kernel that keeps no files, and what a command showed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kernels import Kernel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def folder(kernel: Kernel, tmp_path: Path) -> Path:
    """A folder of its own, in which the kernel works meanwhile."""
    kernel.run(f"import os; os.chdir({str(tmp_path)!r})").check()
    return tmp_path
