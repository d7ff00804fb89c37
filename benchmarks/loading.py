"""How long `%load_ext llm_magic` holds up a running IPython: `python benchmarks/loading.py [RUNS]`."""

from __future__ import annotations

import statistics
import subprocess
import sys

from machine import about

LIMIT = 60  # ms
LOAD = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("one = 1")
started = time.perf_counter()
shell.run_line_magic("load_ext", "llm_magic")
seconds = time.perf_counter() - started
print(seconds * 1000)
"""


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    times = []
    for number in range(runs + 1):
        ran = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        if number:  # the first one writes the bytecode
            times.append(float(ran.stdout.split()[-1]))
    median = statistics.median(times)
    print(about("ipython", "openai", "llm_magic"))
    print(
        f"%load_ext llm_magic: median {median:.0f} ms of {runs} processes "
        f"(best {min(times):.0f}, worst {max(times):.0f})"
    )
    print(f"limit {LIMIT} ms: {median / LIMIT:.2f} of it")


if __name__ == "__main__":
    main()
