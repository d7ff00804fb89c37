"""Offline batches against the bare SDK doing the same by hand, in one run: time, and memory with all answers.

`python benchmarks/batches.py [ROWS]` starts the scripted server of the tests in a process of its own. By hand is: write
the lines with `json.dumps`, upload, create, poll, fetch the file as one text, `json.loads` each line.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 20_000
TIMES = 3
_SERVER = Path(__file__).parents[1] / "tests" / "batch_server.py"


def by_hand(url: str, rows: int) -> float:
    """Return the seconds that the bare SDK takes."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile("w+b", suffix=".jsonl") as file:
        for number in range(rows):
            body = {"model": "m", "messages": [{"role": "user", "content": f"SAY {number} {WORDS}"}]}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        uploaded = client.files.create(file=Path(file.name), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in ("completed", "failed"):
        batch = client.batches.retrieve(batch.id)
        time.sleep(0.05)
    text = client.files.content(str(batch.output_file_id)).text
    answers = dict[str, str]()
    for line in text.splitlines():
        found = json.loads(line)
        answers[found["custom_id"]] = found["response"]["body"]["choices"][0]["message"]["content"]
    assert len(answers) == rows
    return time.perf_counter() - began


def by_batch(url: str, rows: int) -> tuple[float, float, float]:
    """Return the seconds of `LLM.batch` until it is submitted and answered, and megabytes above the start."""
    import threading

    import psutil

    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    from llm_magic import LLM

    llm = LLM("compatible:m", base_url=url)
    llm.batch("SAY {{ item }}", ["1"], poll=0.05).result()  # all is imported
    process, ended, highest = psutil.Process(), threading.Event(), [0]

    def look() -> None:
        while not ended.wait(0.02):
            highest[0] = max(highest[0], process.memory_info().rss)

    before = process.memory_info().rss
    threading.Thread(target=look, daemon=True).start()
    began = time.perf_counter()
    batch = llm.batch(f"SAY {{{{ item }}}} {WORDS}", range(rows), poll=0.05)
    submitted = time.perf_counter() - began
    answers = batch.result()
    seconds = time.perf_counter() - began
    ended.set()
    assert len(answers) == rows
    assert not answers.failed
    return submitted, seconds, (highest[0] - before) / 2**20


WORDS = "a review of some length that is like many others " * 10


def _measured(what: str, url: str, rows: int) -> list[float]:
    ran = subprocess.run(
        [sys.executable, __file__, what, url, str(rows)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main(rows: int) -> None:
    """Print medians of several runs."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        server = subprocess.Popen([sys.executable, str(_SERVER), "0", str(state)])
        try:
            while not state.exists() or not state.read_text():
                time.sleep(0.1)
            url = json.loads(state.read_text())["url"]
            hand = [_measured("by_hand", url, rows)[0] for _ in range(TIMES)]
            ours = [_measured("by_batch", url, rows) for _ in range(TIMES)]
        finally:
            server.terminate()
    bare = statistics.median(hand)
    submitted, seconds, memory = (statistics.median(column) for column in zip(*ours, strict=True))
    print(f"{rows:,} rows, medians of {TIMES}:")
    print(f"by hand over the SDK: {bare:.2f} s")
    print(
        f"LLM.batch: submitted after {submitted:.2f} s, answered after {seconds:.2f} s, {bare / seconds:.2f} of by hand"
    )
    print(f"memory above the start: {memory:.0f} MB with all answers")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["by_hand", at, number]:
            print(json.dumps([by_hand(at, int(number))]))
        case ["by_batch", at, number]:
            print(json.dumps(by_batch(at, int(number))))
        case [number]:
            main(int(number))
        case _:
            main(ROWS)
