"""How soon a cell shows its first token, and what that adds to the bare SDK: `python benchmarks/first_token.py [RUNS]`.

The first cell: a new process each time, the cell run at once after `%load_ext`, so that the SDK is imported and
the model loaded meanwhile. Later cells: one process, a `%%llm` cell and the same request by the SDK by turns, to
the same embedded server, each answer of one token.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from machine import about

FIRST, ADDED = 1500, 30  # ms
START = """
import sys, time, statistics
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("one = 1")
shell.run_line_magic("load_ext", "llm_magic")
def cell(line, body):
    started = time.perf_counter()
    ran = shell.run_cell(f"%%llm --once -t 0 {line}\\n{body}")
    assert ran.success, ran
    return time.perf_counter() - started, shell.user_ns["_llm"]
"""
FIRST_CELL = """
wall, response = cell("--max-tokens 1", "Say hello.")
print("\\nmeasured", wall * 1000)
"""
LATER_CELLS = """
import openai
cell("--max-tokens 1", "Say hello.")
provider = shell._llm_magic.session.registry.get("local")
body = {"model": "smollm2", "temperature": 0, "max_tokens": 1, "stream": True}
body["stream_options"] = {"include_usage": True}
client = openai.OpenAI(base_url=provider.url(), api_key=str(provider.key()))
def bare(prompt):
    started = time.perf_counter()
    first = None
    for chunk in client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **body):
        if first is None and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - started
    return first, time.perf_counter() - started
def ours(prompt):
    wall, response = cell("--max-tokens 1", prompt)
    return response.first_token_seconds, wall
for number in range(int(sys.argv[1])):
    # a prompt is asked twice and only the second answer counts: both ways then find it in the server's cache
    prompt = f"Say hello to number {number}."
    turns = [bare, ours] if number % 2 else [ours, bare]
    bare(prompt), bare(prompt)
    found = {way.__name__: way(prompt) for way in turns}
    print("\\nmeasured", *(1000 * value for name in ("bare", "ours") for value in found[name]))
"""


def measured(code: str, *arguments: str) -> list[list[float]]:
    """Run code in a new process and return the numbers of its lines that start with `measured`."""
    command = [sys.executable, "-c", START + code, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{ran.stdout}\n{ran.stderr}")
    lines = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("measured")]
    return [[float(number) for number in line] for line in lines]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    from llm_magic.providers.local.weights import SMOLLM2, fetch

    fetch(SMOLLM2, print)
    measured(FIRST_CELL)  # writes the bytecode, warms the disk's cache
    first = [numbers[0][0] for numbers in (measured(FIRST_CELL) for _ in range(max(5, runs // 4)))]
    later = measured(LATER_CELLS, str(runs))
    print(about("openai", "xllamacpp", "ipython", "llm_magic"))
    middle = statistics.median(first)
    print(f"first cell, one token, from its start to its end: median {middle:.0f} ms of {len(first)} processes")
    print(f"  (best {min(first):.0f}, worst {max(first):.0f}); limit {FIRST} ms: {middle / FIRST:.2f} of it")
    for what, column in (("first token", 0), ("whole cell of one token", 1)):
        bare, ours = ([row[column + offset] for row in later] for offset in (0, 2))
        added = statistics.median(mine - theirs for mine, theirs in zip(ours, bare, strict=True))
        ratio = statistics.median(ours) / statistics.median(bare)
        print(
            f"{what}: bare SDK median {statistics.median(bare):.1f} ms, %%llm {statistics.median(ours):.1f} ms "
            f"(ratio {ratio:.2f}), added {added:.1f} ms; limit {ADDED} ms: {added / ADDED:.2f} of it"
        )


if __name__ == "__main__":
    main()
