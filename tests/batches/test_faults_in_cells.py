"""`%%llm --each … --batch --wait` over a server at fault: what is bound, shown in a line, and asked by the next run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer, Failure
from kernels import Kernel

FRAME = 'import pandas as pd; df = pd.DataFrame({"n": ["1", "x", "3", "4"]}, index=["a", "b", "c", "d"])'
CELL = "%%llm --each df --as int --batch --wait --poll 0.01 -o found\nSAY {{ n }}"


@pytest.fixture
def server(kernel: Kernel, tmp_path: Path) -> Iterator[BatchServer]:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server:
        kernel.run(f"import os; os.environ['XDG_STATE_HOME'] = {str(tmp_path)!r}; found = None").check()
        kernel.run("%reload_ext llm_magic").check()
        add = f"'s', 'compatible', base_url={server.url!r}, max_retries=0, api_key_env='KEY_OF_S'"
        kernel.run(f"os.environ['KEY_OF_S'] = 'sk-one-12345'; get_ipython()._llm_magic.registry.add({add})").check()
        kernel.run("%config LLMMagics.model = 's:m'").check()
        kernel.run(FRAME).check()
        yield server


def lines(ran: Any) -> list[str]:
    """Return the lines of a cell's error, which are two at most."""
    found: list[str] = ran.error.splitlines()
    assert ran.status == "error"
    assert len(found) <= 2, found
    return found


def column(kernel: Kernel, name: str) -> Any:
    return kernel.value(f"[None if pd.isna(each) else each for each in found[{name!r}].tolist()]")


def test_failures_stand_beside_their_rows_and_the_next_run_asks_only_for_them(
    kernel: Kernel, server: BatchServer
) -> None:
    server.failures = {3: Failure("Too long.", 400), 4: Failure("Overloaded.", 503)}
    error = lines(kernel.run(CELL))
    assert error[0] == (
        "3 of 4 failed: 1 InvalidValueError, 1 RequestRefusedError, 1 ServerFailedError; "
        "run the cell again to ask for those."
    )
    assert error[1].startswith("The first of them, row b: InvalidValueError: ")
    assert "Reword the prompt, or run the cell again: only what is missing is asked. _llm.responses[1].text" in error[1]
    assert "--retries-invalid" not in error[1]
    assert column(kernel, "found") == [1, None, None, None]
    told = column(kernel, "error")
    assert told[0] is None
    assert "InvalidValueError" in told[1]
    assert "Too long." in told[2]
    assert "Overloaded." in told[3]
    server.failures = {}
    kernel.run("df.loc['b', 'n'] = '2'").check()
    kernel.run(CELL).check()
    assert column(kernel, "found") == [1, 2, 3, 4]
    assert len(server.rows(server.created[1].id)) == 3
    used = kernel.run("%llm_usage").check().of_type("text/plain")[0].splitlines()[1].split()
    assert used[:7] == ["s", "m", "5", "7", "2", "15", "10"], "each row once, whatever read it"


def test_kept_failures_let_the_cell_end_well(kernel: Kernel, server: BatchServer) -> None:
    server.ends, server.rows_done = "expired", 1
    kernel.run(CELL.replace("--wait", "--wait --on-error keep")).check()
    assert column(kernel, "found") == [1, None, None, None]
    assert "the batch expired before this row's turn" in column(kernel, "error")[3]


def test_a_batch_that_is_refused_binds_nothing(kernel: Kernel, server: BatchServer) -> None:
    told = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
    server._move = lambda batch: batch.about.update(status="failed", errors={"data": [told]})  # type: ignore[method-assign]
    error = lines(kernel.run(CELL))
    assert error[0] == f"s:m ({server.url}) refused the batch: Enqueued token limit reached."
    assert error[1].endswith("and run the cell again: it submits anew.")
    assert kernel.value("found") is None
    assert len(server.created) == 1


def test_a_key_that_expires_and_another_one(kernel: Kernel, server: BatchServer) -> None:
    kernel.run("df.loc['b', 'n'] = '2'").check()
    server.faults["poll"] = []
    server.keys = ["sk-one-12345"]
    created = server._create

    def create(*given: Any) -> Any:
        answer = created(*given)
        server.keys = ["sk-two-12345"]
        return answer

    server._create = create  # type: ignore[method-assign]
    error = lines(kernel.run(CELL))
    assert "401" in error[0]
    assert "The batch batch_2 goes on at s: with a key that is taken, run the cell again" in error[1]
    kernel.run("os.environ['KEY_OF_S'] = 'sk-two-12345'").check()
    kernel.run(CELL).check()
    assert column(kernel, "found") == [1, 2, 3, 4]
    assert len(server.created) == 1


def test_a_batch_of_another_account(kernel: Kernel, server: BatchServer) -> None:
    created = server._create

    def create(*given: Any) -> Any:
        answer = created(*given)
        server.hidden = ["batch_2"]
        return answer

    server._create = create  # type: ignore[method-assign]
    error = lines(kernel.run(CELL))
    assert f"s:m ({server.url}) has no batch batch_2" in error[0]
    assert "--again submits its rows anew" in error[1]


def test_a_budget_refuses_before_anything_is_sent(kernel: Kernel, server: BatchServer) -> None:
    error = lines(kernel.run(CELL.replace("--wait", "--wait --budget requests=3")))
    assert "requests" in error[0]
    assert server.asked == []
    assert kernel.value("found") is None
