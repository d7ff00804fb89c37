"""A short run of `benchmarks/soak.py`: no descriptor, thread or task stays behind; memory is for a long one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_cells_interrupts_and_servers_that_fail_leave_nothing_behind() -> None:
    options = ["--cells", "60", "--interrupts", "6", "--hostile", "18"]
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)  # noqa: S603 - ours
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in ran.stdout.splitlines() if " → " in line]
    assert [row[1] for row in rows] == ["60 cells, 6 interrupts", "18 cells, servers that fail"]
    for row in rows:
        for before, after in (cell.split(" → ") for cell in row[2:5]):
            assert 0 < int(after) <= int(before)
