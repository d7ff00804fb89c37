"""How the display keeps up: bytes sent for a long answer, and JupyterLab in Chromium while maths streams.

    python benchmarks/display.py                # both
    python benchmarks/display.py --no-browser   # bytes only

The browser part needs Playwright (`pip install playwright`) and Chromium: LLM_MAGIC_TEST_CHROMIUM names it, else the
one in the path is taken. All rows of a table come from one run. "Processor" is the main thread's own time: what a task
would take on a machine with nothing else to do; "wall" depends on what else runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import about

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "browser"))

SPEED = 400


def bytes_sent(cell: str, expected: int) -> tuple[int, int, float]:
    """Run a cell in a kernel and return what it sent on the output channel: bytes, messages, seconds."""
    from jupyter_client.manager import KernelManager

    os.environ["PYTHONPATH"] = sys.path[0] + os.pathsep + os.environ.get("PYTHONPATH", "")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive("%load_ext replay", timeout=60, output_hook=lambda _: None)
    sent = messages = 0
    begun = time.perf_counter()
    request = client.execute(cell)
    socket = client.iopub_channel.socket
    while True:
        frames = socket.recv_multipart()
        _, parts = client.session.feed_identities(frames)
        message = client.session.deserialize(parts)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] in {"display_data", "update_display_data", "clear_output"}:
            sent += sum(len(frame) for frame in frames)
            messages += 1
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    seconds = time.perf_counter() - begun
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert sent > expected, "the answer did not arrive"
    return sent, messages, seconds


def measure_bytes() -> None:
    """Print the bytes sent for an answer of 20,000 tokens."""
    import replay

    size = len(replay.TEXTS["twenty"].encode())
    print(f"\n20,000 tokens, {size:,} bytes of text, to the front end\n")
    print("| how | bytes | times the text | messages | seconds |")
    print("| --- | --- | --- | --- | --- |")
    rows = {
        "llm_magic, as fast as it goes": "%%llm text=twenty speed=1000000\nx",
        "llm_magic, 2,000 tokens a second": "%%llm text=twenty speed=2000\nx",
        "llm_magic among other lines, 2,000 tokens a second": "pass\n%llm text=twenty speed=2000",
        "an update a token, first 2,000 tokens": "first = __import__('replay').TEXTS['twenty'][:8_000]\n"
        "%llm text=first speed=2000 repaints=1000000",
    }
    for name, cell in rows.items():
        length = 8_000 if "first" in name else size
        sent, messages, seconds = bytes_sent(cell, length)
        print(f"| {name} | {sent:,} | {sent / length:.1f} | {messages:,} | {seconds:.1f} |")


def measure_browser() -> None:
    """Print how JupyterLab does while 4,000 tokens of maths arrive."""
    import lab
    import replay
    from playwright.sync_api import sync_playwright

    count = len(replay.tokens(replay.TEXTS["maths"]))
    print(f"\nJupyterLab {version('jupyterlab')}, {count:,} tokens of maths in markdown at {SPEED} tokens a second\n")
    print("| how | last token to finished page: wall | processor | longest task while streaming: wall | processor |")
    print("| --- | --- | --- | --- | --- |")
    rows = {
        "shown once, at the end": "speed=1000000 repaints=0.000001",
        "llm_magic": f"speed={SPEED}",
        "whole text 5 times a second": f"speed={SPEED} repaints=5",
        "whole text 20 times a second": f"speed={SPEED} repaints=20",
    }
    with tempfile.TemporaryDirectory() as folder, lab.server(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.ARGUMENTS)
        for name, words in rows.items():
            figures = streamed(browser, url, Path(folder), words)
            print(f"| {name} | " + " | ".join(f"{value * 1000:,.0f} ms" for value in figures) + " |")
        browser.close()


def streamed(browser: Any, url: str, folder: Path, words: str) -> tuple[float, float, float, float]:
    """Stream one answer; returns seconds: late (wall, processor), longest task while streaming (wall, processor)."""
    import lab

    # the first cell lets the page load what it needs for maths and code
    cells = ["%%llm text=warm speed=4000\nx", f"%%llm text=maths {words}\nx", "print(ended)"]
    with lab.Page(browser, url, folder, cells) as page:
        page.run(1)
        time.sleep(2)
        page.command("notebook:clear-all-cell-outputs")
        browser.start_tracing(page=page.page, categories=["toplevel", "blink.user_timing"])
        zero = page.page.evaluate("performance.mark('zero').startTime + performance.timeOrigin") / 1000
        page.watch(2)
        page.run(2, seconds=300)
        page.page.wait_for_function(
            "document.querySelector('.jp-Notebook').innerText.includes('replay ·')", timeout=300_000
        )
        time.sleep(3)
        tasks = lab.main_thread_tasks(browser.stop_tracing())
        painted = max(page.seen()["painted"])
        ended = float(page.printed(3))
        while_streaming = [task for task in tasks if zero + task[0] + task[1] < ended]
        after = [task for task in tasks if ended <= zero + task[0] + task[1] and zero + task[0] < painted]
        return (
            painted - ended,
            sum(task[2] for task in after),
            max((task[1] for task in while_streaming), default=0.0),
            max((task[2] for task in while_streaming), default=0.0),
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-browser", action="store_true", help="measure the bytes only")
    parser.add_argument("--no-bytes", action="store_true", help="measure in the browser only")
    given = parser.parse_args()
    print(about("llm_magic", "ipython", "ipykernel", "jupyterlab"))
    if not given.no_bytes:
        measure_bytes()
    if not given.no_browser:
        measure_browser()


if __name__ == "__main__":
    main()
