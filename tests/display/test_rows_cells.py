"""Many rows in real kernels: what the front end is sent, what a saved or executed notebook holds, and its exports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel, Ran

HERE = Path(__file__).parent
TABLE = """\
row  label    error
0    price
1    quality
2    service
3             ValueError: not a <label>
4    quality
5    service
6    price
7    quality
8    service
9    price
10 of 20 rows
vllm:m · 20 rows, p50 0.20 s, p95 0.41 s"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(PYTHONPATH=str(HERE)) as kernel:
        kernel.run("%load_ext many_rows\nfrom many_rows import drive, drive_batch, drive_later").check()
        yield kernel


def sent(ran: Ran) -> list[str]:
    """Return the kinds of the messages that change outputs."""
    kinds = {"display_data", "update_display_data", "clear_output"}
    return [message["msg_type"] for message in ran.messages if message["msg_type"] in kinds]


def test_a_cell_repaints_one_output_and_ends_as_one(kernel: Kernel) -> None:
    ran = kernel.run("%%llm pause=0.05\nx").check()
    (table,) = ran.outputs
    assert table["data"]["text/plain"] == TABLE
    assert set(table["data"]) == {"text/plain", "text/html", "text/markdown"}
    kinds = sent(ran)
    assert [kinds[0], *kinds[-2:]] == ["display_data", "clear_output", "display_data"]
    assert set(kinds[1:-2]) == {"update_display_data"}
    painted = [text for text in ran.of_type("text/html") if "progressbar" in text]
    assert painted == []
    live = [message["content"]["data"]["text/plain"] for message in ran.messages if "data" in message["content"]]
    assert live[0] == "vllm:m\n0 of 20 rows · 20 left\nunfinished: rows are still being asked"
    assert all("unfinished: rows are still being asked" in text for text in live[:-1])


def test_among_other_lines_it_stands_in_its_place(kernel: Kernel) -> None:
    ran = kernel.run("print('before')\ndrive(pause=0.03)\nprint('after')").check()
    assert [output["output_type"] for output in ran.outputs] == ["stream", "display_data", "stream"]
    assert ran.outputs[1]["data"]["text/plain"] == TABLE
    assert "clear_output" not in sent(ran)


def test_rows_that_end_at_once_cost_a_few_messages(kernel: Kernel) -> None:
    ran = kernel.run("%%llm total=5_000\nx").check()
    assert len(sent(ran)) < 4 * ran.seconds + 5
    assert ran.outputs[0]["data"]["text/plain"].endswith(
        "10 of 5,000 rows\nvllm:m · 5,000 rows, p50 0.20 s, p95 0.41 s"
    )


def test_where_no_front_end_looks_there_is_one_message(kernel: Kernel) -> None:
    for cell in ("%%llm pause=0.05\nx", "drive(pause=0.05)"):
        ran = kernel.run(cell, allow_stdin=False).check()
        assert sent(ran) == ["display_data"]
        assert ran.outputs[0]["data"]["text/plain"] == TABLE


def test_interrupted_what_came_stays_marked(kernel: Kernel) -> None:
    ran = kernel.run("%%llm stop=4\nx")
    stood, error = ran.outputs
    assert error["ename"] == "KeyboardInterrupt"
    lines = stood["data"]["text/plain"].splitlines()
    assert lines[:3] == [
        "vllm:m",
        "5 of 20 rows · 1 failed: 1 ValueError · 15 left",
        "10/s · 80 → 20 tokens · $0.0004 so far",
    ]
    assert lines[-3:] == ["3    failed: ValueError: not a <label>", "4    quality", "Interrupted."]
    assert 'aria-valuenow="5"' in stood["data"]["text/html"]


def test_from_another_thread_it_goes_to_the_cell_that_began_it(kernel: Kernel) -> None:
    began = kernel.run("thread = drive_later(total=12, pause=0.1)").check()
    later = kernel.run("thread.join(); print('over')").check()
    assert later.stdout == "over\n"
    assert [output["output_type"] for output in later.outputs] == ["stream"]
    shown = kernel.outputs_of(began.request, "text/plain")
    assert len(shown) > 3
    assert shown[-1].endswith("10 of 12 rows\nvllm:m · 12 of 12 rows")


def test_a_batch_is_one_output_and_says_that_it_goes_on(kernel: Kernel) -> None:
    ran = kernel.run("drive_batch(0.3)").check()
    live = [message["content"]["data"]["text/plain"] for message in ran.messages if "data" in message["content"]]
    assert [text.splitlines()[1] for text in live[1:-1]] == [
        "batch 3fa1b2c4 uploading 2,000 rows (3.1 MB)",
        "batch 3fa1b2c4 validating",
        "batch 3fa1b2c4 in progress 123/2,000, 3 failed",
        "batch 3fa1b2c4 in progress 1,203/2,000, 3 failed",
    ]
    (table,) = ran.of_type("text/plain")
    assert table.endswith("\n10 of 2,000 rows\nopenai:gpt-x · batch 3fa1b2c4 completed · p50 3 h 2 min")
    (left,) = kernel.run("drive_batch(stop=True, problem='cannot be reached: <b>')").check().of_type("text/plain")
    assert left.splitlines()[-1] == "Interrupted. The batch goes on at the server."


def test_ways_to_show_it_and_notes(kernel: Kernel) -> None:
    assert kernel.run('drive(show="none", notes=("A note.",))').check().outputs == []
    (text,) = kernel.run('drive(show="text", notes=("A note.",))').check().outputs
    assert set(text["data"]) == {"text/plain"}
    assert text["data"]["text/plain"].splitlines()[-2] == "A note."
    (lines,) = kernel.run('drive(show="json")').check().outputs
    assert set(lines["data"]) == {"text/plain", "text/markdown"}
    assert lines["data"]["text/plain"].splitlines()[3] == '{"row": 3, "error": "ValueError: not a <label>"}'


def test_captured_there_is_the_end(kernel: Kernel) -> None:
    kernel.run("%%capture caught\ndrive(pause=0.02)").check()
    assert kernel.value("[each.data['text/plain'] for each in caught.outputs]") == [TABLE]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a notebook as nbconvert has executed it."""
    pytest.importorskip("nbconvert", reason="needs nbconvert: the extra `demo`")
    path = tmp_path_factory.mktemp("executed") / "rows.ipynb"
    cells = [
        f"import sys\nsys.path.insert(0, {str(HERE)!r})\n%load_ext many_rows\nfrom many_rows import drive, drive_batch",
        "%%llm pause=0.03, notes=('The column text wins over the variable text.',)\nx",
        'drive(2_000, failed=(1_733,), value=lambda each: {"city": f"<b>{each}</b>", "people": each, "|": "$x$"})',
        "drive(0)",
        "drive_batch(0.01)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbformat.write(book, path)
    convert(path, "notebook", "--execute", "--inplace")
    return path


def convert(path: Path, to: str, *options: str) -> None:
    command = [sys.executable, "-m", "nbconvert", "--log-level=ERROR", f"--to={to}", *options, str(path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)  # noqa: S603 - our own notebook


def test_an_executed_notebook_holds_one_output_a_run(executed: Path) -> None:
    cells: list[Any] = nbformat.read(executed, as_version=4).cells
    assert [len(cell.outputs) for cell in cells] == [0, 1, 1, 1, 1]
    shown = [cell.outputs[0]["data"] for cell in cells[1:]]
    head, _, last = TABLE.rpartition("\n")
    assert shown[0]["text/plain"] == f"{head}\nThe column text wins over the variable text.\n{last}"
    assert shown[1]["text/plain"].splitlines()[-4:-2] == [
        "8     <b>8</b>       8  $x$",
        "1733                         ValueError: not a <label>",
    ]
    assert shown[2]["text/plain"].startswith("No rows.\n")
    assert not any("unfinished" in str(each) or "progress" in str(each) for each in shown)
    assert executed.stat().st_size < 20_000


def test_its_page_shows_the_values_as_they_are(executed: Path) -> None:
    convert(executed, "html")
    page = executed.with_suffix(".html").read_text(encoding="utf-8")
    assert '<td style="text-align: left">&lt;b&gt;8&lt;/b&gt;</td>' in page
    assert "<b>8</b>" not in page
