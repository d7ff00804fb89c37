"""Offline batches in real kernels: a cell ends at once, its line lives on, and nothing that was sent is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_server import NO_ROUTE, BatchServer
from kernels import Kernel, Ran

CELL = "%%llm --each rows --as int --batch --poll 0.02 -o out\nSAY {{ item }}"
FOR_EVER = 10**9


def load(kernel: Kernel, server: BatchServer) -> None:
    kernel.run("%load_ext llm_magic\n%config LLMMagics.model = 's:m'").check()
    kernel.run(
        f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)"
    ).check()


@pytest.fixture(scope="module")
def server() -> Iterator[BatchServer]:
    with BatchServer() as server:
        yield server


@pytest.fixture(scope="module")
def kernel(server: BatchServer) -> Iterator[Kernel]:
    with Kernel() as kernel:
        load(kernel, server)
        yield kernel


@pytest.fixture(autouse=True)
def _well(server: BatchServer) -> Iterator[None]:
    yield
    server.in_progress, server.faults = 1, {}


def rows(kernel: Kernel, *values: str) -> None:
    kernel.run(f"rows = {values!r}").check()


def until(kernel: Kernel, ran: Ran, text: str, *, within: float = 20) -> str:
    """Return what a cell shows last, once a text stands in it; late outputs are heard, too."""
    deadline = time.monotonic() + within
    while True:
        kernel.run("pass").check()
        shown = kernel.outputs_of(ran.request, "text/plain")
        if shown and text in shown[-1]:
            return shown[-1]
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)


def met(condition: Callable[[], bool], *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cell_ends_at_once_and_its_output_lives_on(kernel: Kernel, server: BatchServer) -> None:
    server.in_progress = FOR_EVER
    rows(kernel, "1", "2")
    ran = kernel.run(CELL).check()
    assert ran.seconds < 5
    assert ran.of_type("text/plain")[0] == (
        "s:m\npreparing the batch\nunfinished: the rows are being submitted; run this cell again if that stops"
    )
    live = until(kernel, ran, "in progress")
    name = kernel.value("_._name")
    assert live == (
        f"s:m\nbatch {name} in progress 0/2\nunfinished: the batch goes on at the server; run this cell again to go on,"
        " here or in another kernel, any day"
    )
    between = kernel.run("print('other'); print(_, 'out' in globals(), _ is Out[max(Out)])").check()
    assert between.stdout == f"other\n<Batch {name} of s:m: in progress, 0 of 2> False True\n"
    server.in_progress = 1
    table = until(kernel, ran, "row  out")
    assert table.startswith(f"row  out\n0      1\n1      2\ns:m · batch {name} completed · 2 rows in ")
    assert table.endswith(", 6 → 4 tokens")
    assert kernel.value("(out.values, _.result().values, _llm.values, repr(_))") == (
        [1, 2], [1, 2], [1, 2], f"<Batch {name} of s:m: completed>",
    )  # fmt: skip
    said = kernel.heard[kernel.heard.index(between.messages[-1]) :]
    assert {each["parent_header"]["msg_id"] for each in said if "data" in each["content"]} == {ran.request}


def test_the_same_cell_again_goes_on(kernel: Kernel, server: BatchServer) -> None:
    """Run All twice: while the first run waits, and once all is there."""
    server.in_progress, made = FOR_EVER, len(server.created)
    rows(kernel, "3", "4")
    first = kernel.run(CELL).check()
    until(kernel, first, "in progress")
    second = kernel.run(CELL).check()
    until(kernel, second, "has 2 rows of this cell: not submitted again.")
    server.in_progress = 1
    for ran in (first, second):
        assert until(kernel, ran, "row  out").startswith("row  out\n0      3\n1      4\n")
    third = kernel.run(CELL).check()
    assert "2 answered before" in until(kernel, third, "row  out")
    assert len(server.created) == made + 1
    assert kernel.value("(out.values, repr(_))") == ([3, 4], "<Batch of s:m: nothing is asked>")


def test_executed_cells_go_along_with_each_row(kernel: Kernel, server: BatchServer) -> None:
    kernel.run("seen = 1  # SAY 77").check()
    rows(kernel, "31", "32")
    ran = kernel.run("%%llm --each rows --as int --context seen --batch --poll 0.02 -o out\n{{ item }}").check()
    assert until(kernel, ran, "row  out").startswith("row  out\n0     77\n1     77\n")


def test_two_at_once(kernel: Kernel, server: BatchServer) -> None:
    server.in_progress = FOR_EVER
    rows(kernel, "5", "6")
    first = kernel.run(CELL).check()
    second = kernel.run(CELL.replace("-o out", "-o more").replace("SAY", "Now SAY")).check()
    until(kernel, first, "in progress")
    until(kernel, second, "in progress")
    server.in_progress = 1
    assert until(kernel, second, "row  more").startswith("row  more\n0       5\n")
    assert until(kernel, first, "row  out").startswith("row  out\n0      5\n")


def test_rows_that_fail_are_asked_again_by_the_same_cell(kernel: Kernel, server: BatchServer) -> None:
    rows(kernel, "7", "no number", "8")
    ran = kernel.run(CELL).check()
    said = until(kernel, ran, "RowsFailedError")
    assert said == (
        "RowsFailedError: 1 of 3 failed: 1 InvalidValueError; run the cell again to ask for those. The first of them, "
        "row 1: InvalidValueError: The answer is not JSON: Expecting value at line 1, column 1. Reword the prompt, "
        "or run the cell again: only what is missing is asked. _llm.responses[1].text has what came."
    )
    failed = kernel.run("_.result()")
    assert (failed.error_name, failed.error.replace("\n", " ")) == ("RowsFailedError", said.partition(": ")[2])
    assert len(failed.outputs[0]["traceback"]) == 2
    assert kernel.value("out.values") == [7, None, 8]
    again = kernel.run(CELL).check()
    until(kernel, again, "RowsFailedError")
    assert [row["body"]["messages"][0]["content"] for row in server.rows(server.created[-1].id)] == ["SAY no number"]


def test_what_cannot_be_submitted_says_so_in_its_cell(kernel: Kernel, server: BatchServer) -> None:
    server.faults = {"upload": [NO_ROUTE]}
    rows(kernel, "9")
    ran = kernel.run(CELL).check()
    said = until(kernel, ran, "Error: ")
    assert said.startswith(f"UnsupportedError: s:m ({server.url}) has no Files and Batches routes: it answered 404")
    assert "\n" not in said
    assert kernel.run("_.result()").error_name == "UnsupportedError"
    stood = [text for text in kernel.outputs_of(ran.request, "text/plain") if "Error" not in text][-1]
    assert "unfinished" not in stood


def test_a_server_that_is_away_is_told_until_it_is_back(kernel: Kernel, server: BatchServer) -> None:
    server.in_progress = FOR_EVER
    rows(kernel, "18", "19")
    ran = kernel.run(CELL).check()
    until(kernel, ran, "in progress")
    with server.away():
        away = until(kernel, ran, "trying again")
    assert f"Nothing listens at s:m ({server.url}): the connection was refused; trying again" in away
    server.in_progress = 1
    assert "trying again" not in until(kernel, ran, "row  out")


def test_waited_for_it_is_interrupted_and_goes_on(kernel: Kernel, server: BatchServer) -> None:
    server.in_progress, made = FOR_EVER, len(server.created)
    rows(kernel, "10", "11")
    waiting = CELL.replace("--batch", "--batch --wait")

    interrupted: list[bool] = []

    def interrupt(message: dict[str, object]) -> None:
        if "in progress" in str(message["content"]) and not interrupted:
            interrupted.append(True)
            kernel.interrupt()

    ran = kernel.run(waiting, on_message=interrupt)
    batch = server.created[-1].id
    (said,) = ran.outputs[-1]["traceback"]
    assert said == (
        f"KeyboardInterrupt: the waiting has stopped, and the batch {batch} goes on at s: run the cell again, here or "
        "in another kernel, any day, and it goes on; %llm_batch cancel ends it."
    )
    assert ran.of_type("text/plain")[-1].endswith("\nInterrupted. The batch goes on at the server.")
    server.in_progress = 1
    again = kernel.run(waiting).check()
    (table,) = again.of_type("text/plain")
    assert table.startswith("row  out\n0     10\n1     11\n")
    assert len(server.created) == made + 1
    assert server.cancelled == []


def test_on_a_line_and_assigned(kernel: Kernel) -> None:
    rows(kernel, "12")
    line = kernel.run("%llm --each rows --as int --batch --poll 0.02 SAY {{ item }}").check()
    assert until(kernel, line, "row  answer").startswith("row  answer\n0        12\n")
    assigned = kernel.run("x = %llm --each rows --as int --batch --poll 0.02 SAY {{ item }} now").check()
    until(kernel, assigned, "InvalidValueError")
    assert kernel.value("type(x).__name__") == "Batch"


def test_a_dry_run_says_what_would_be_submitted(kernel: Kernel, server: BatchServer) -> None:
    """The price is that of batches, which the user gives: it is never taken from that of requests."""
    asked = len(server.asked)
    rows(kernel, "16", "17")
    cell = CELL.replace("--batch", "--batch --dry-run --max-tokens 50")
    prices = '{"m": {"input": …, "output": …, "batch_input": …, "batch_output": …}}'
    try:
        for given, price in (
            (
                {},
                f"No price of batches is known for m (US dollars per million tokens): %llm_config s.prices = {prices}.",
            ),
            ({"batch_input": 1, "batch_output": 4}, "Price: about $0.00013 for the prompts, at most $0.00053 in all."),
        ):
            known = {"m": {"input": 1_000, "output": 4_000, **given}}
            kernel.run(f"get_ipython()._llm_magic.registry.get('s').prices = {known!r}").check()
            (shown,) = kernel.run(cell).check().of_type("text/plain")
            lines = shown.splitlines()
            at = lines.index("This is the request of the first row.")
            assert lines[at + 1] == "2 rows, 2 different prompts: 2 requests to send."
            assert lines[at + 3 : at + 6] == [
                price,
                (
                    "With --batch, its body is one line of a file that is uploaded (POST /files) and worked through "
                    "within 24 hours (POST /batches)."
                ),
                "Nothing was sent, out is not bound.",
            ]
    finally:
        kernel.run("get_ipython()._llm_magic.registry.get('s').prices = {}").check()
    assert [route for route in server.asked[asked:] if route != "direct"] == []


def test_a_dry_run_counts_no_row_that_a_batch_has(kernel: Kernel, server: BatchServer) -> None:
    rows(kernel, "18", "19")
    kernel.run(CELL).check()
    assert kernel.value("_.result(20).values") == [18, 19]
    rows(kernel, "18", "19", "20")
    (shown,) = kernel.run(CELL.replace("--batch", "--batch --dry-run")).check().of_type("text/plain")
    assert "3 rows, 2 answered before, 1 different prompt: 1 request to send." in shown.splitlines()
    (shown,) = kernel.run(CELL.replace("--batch", "--batch --dry-run --again")).check().of_type("text/plain")
    assert "3 rows, 3 different prompts: 3 requests to send." in shown.splitlines()


def test_nothing_is_shown_where_nothing_is_to_be_shown(kernel: Kernel) -> None:
    rows(kernel, "13")
    ran = kernel.run(CELL.replace("--batch", "--batch --show none")).check()
    assert kernel.value("_.result(20).values") == [13]
    assert kernel.outputs_of(ran.request, "text/plain") == []


def test_taken_out_or_restarted_while_one_is_waited_for(server: BatchServer, tmp_path: Path) -> None:
    """Nothing is left of it in the kernel, and the batch goes on: whoever leaves has not cancelled what is paid."""
    server.in_progress, made = FOR_EVER, len(server.created)
    with Kernel() as kernel:
        load(kernel, server)
        rows(kernel, "14", "15")
        ran = kernel.run(CELL).check()
        until(kernel, ran, "in progress")
        kernel.run("%unload_ext llm_magic").check()
        threads = "sorted(each.name for each in __import__('threading').enumerate() if 'llm_magic' in each.name)"
        assert kernel.value(threads) == []
        left = until(kernel, ran, "Interrupted.")
        assert left.endswith("Interrupted. The batch goes on at the server.")
        load(kernel, server)
        until(kernel, kernel.run(CELL).check(), "in progress")
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        load(kernel, server)
        rows(kernel, "14", "15")
        found = kernel.run(CELL).check()
        until(kernel, found, "has 2 rows of this cell: not submitted again.")
        kernel.client.shutdown()
        met(lambda: not kernel.manager.is_alive())
        said = [each["content"] for each in kernel.heard if each["msg_type"] in {"stream", "error"}]
        assert [each for each in said if "out" not in str(each.get("name"))] == []
    assert server.cancelled == []
    assert len(server.created) == made + 1
