"""`%%llm_embed --batch-api` in a real kernel: what is bound, shown and left, in the background, waiting, executed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import BatchServer, Failure
from kernels import Kernel
from servers import Answer, Received, document
from shown import failed, plain

VECTORS = [[3.0, 1.0], [4.0, 1.0], [2.0, 1.0]]
LINES = "sea\nnone\nof\n"


def direct(request: Received) -> Answer:
    data = [{"index": at, "embedding": [-1.0, 1.0]} for at, _ in enumerate(request.json.get("input", ()))]
    return document({"data": data, "model": "m"})


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(direct=direct, validating=0, in_progress=0, finalizing=0) as server:
        yield server


@pytest.fixture
def there(kernel: Kernel, server: BatchServer, tmp_path: Path) -> Kernel:
    """Return the kernel, in which `s:m` is a model of the server, and no batch is remembered."""
    kernel.run(f"import os\nos.environ['XDG_STATE_HOME'] = {str(tmp_path / 'state')!r}").check()
    kernel.run(f"%llm_provider add s --base-url {server.url}\nfor name in ('vectors', '_'): globals().pop(name, 0)")
    return kernel


def bound(kernel: Kernel, name: str = "vectors") -> object:
    """Return what a variable holds, once it is bound."""
    deadline = time.monotonic() + 10
    while not kernel.value(f"{name!r} in globals()"):
        assert time.monotonic() < deadline, "it is not bound"
        time.sleep(0.02)
    return kernel.value(f"[list(map(float, each)) for each in {name}]")


def test_waited_for_it_is_bound_as_ever(there: Kernel, server: BatchServer) -> None:
    cell = f"%%llm_embed -m s:m --batch 2 --batch-api --wait --poll 0.01 -o vectors\n{LINES}"
    ran = there.run(cell)
    (said,) = plain(ran).splitlines()
    assert said.startswith("3 vectors of 2 dimensions · s:m · 3 tokens · ")
    assert bound(there) == VECTORS
    assert [row["body"]["input"] for row in server.rows(server.created[0].id)] == [["sea", "none"], ["of"]]
    assert plain(there.run(cell)).endswith(
        " s · 3 texts embedded by a batch of an earlier run, at no further cost (--again asks anew)."
    )
    there.run(cell.replace("--wait", "--wait --again")).check()
    assert len(server.created) == 2
    assert [row.split()[:3] for row in plain(there.run("%llm_batch")).splitlines() if "3 texts to be embedded" in row]


def test_in_the_background_the_cell_ends_and_a_line_lives_on(there: Kernel, server: BatchServer) -> None:
    pytest.importorskip("numpy")
    server.ends = "never"
    line = "batch = %llm_embed -m s:m --each ['sea', 'none', 'of'] --batch-api --poll 0.01 -o vectors --as ndarray"
    began = there.run(line).check()
    deadline = time.monotonic() + 10
    while "in progress" not in "".join(there.outputs_of(began.request, "text/plain")[-1:]):
        assert time.monotonic() < deadline
        there.run("1")
    assert " of s:m: in progress" in there.value("repr(batch)")
    assert there.value("'vectors' in globals()") is False
    server.ends = "completed"
    assert there.value("batch.result(10).dimensions") == 2
    assert bound(there) == VECTORS
    assert there.value("(vectors.shape, str(vectors.dtype))") == ((3, 2), "float32")
    there.run("1")
    assert there.outputs_of(began.request, "text/plain")[-1].startswith("3 vectors of 2 dimensions · s:m · 3 tokens")


def test_in_the_background_a_failure_stands_below_its_cell(there: Kernel, server: BatchServer) -> None:
    server.failures = {2: Failure("too long")}
    line = "%llm_embed -m s:m --each ['sea', 'no'] --batch 1 -o vectors"
    began = there.run(f"batch = {line} --batch-api --poll 0.01").check()
    there.run("error = batch._future.exception(10)")
    assert there.value("type(error).__name__") == "RequestRefusedError"
    said = "RequestRefusedError: Text 1 has no vector: "
    deadline = time.monotonic() + 10
    while said not in "".join(there.outputs_of(began.request, "text/plain")[-1:]):
        assert time.monotonic() < deadline
        there.run("1")
    assert failed(there, "batch.result()")[0] == "RequestRefusedError"
    there.run(line).check()
    assert bound(there) == [[3.0, 1.0], [-1.0, 1.0]], "what came is kept"


def test_interrupted_it_goes_on_at_the_server(there: Kernel, server: BatchServer) -> None:
    server.ends = "never"
    cell = f"%%llm_embed -m s:m --batch-api --wait --poll 0.01 -o vectors\n{LINES}"
    request = there.start(cell)
    deadline = time.monotonic() + 10
    while len(server.polls) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    there.interrupt()
    ran = there.collect(request)
    (shown,) = [output for output in ran.outputs if output["output_type"] == "error"]
    (line,) = shown["traceback"]
    assert line.startswith(
        "KeyboardInterrupt: the waiting has stopped, and the batch batch_2 goes on at s: run the cell"
    )
    assert not server.cancelled
    server.ends = "completed"
    there.run(cell).check()
    assert bound(there) == VECTORS
    assert len(server.created) == 1


def test_where_nobody_reads_late_outputs_it_is_waited_for(there: Kernel, server: BatchServer) -> None:
    cell = f"%%llm_embed -m s:m --batch-api --poll 0.01 -o vectors\n{LINES}"
    ran = there.run(cell, allow_stdin=False)
    assert ran.error_name == "OptionError"
    assert ran.error.startswith("--batch-api needs --wait here: this notebook is executed by a program")
    assert not server.asked
    there.run(cell.replace("--batch-api", "--batch-api --wait"), allow_stdin=False).check()
    assert bound(there) == VECTORS


def test_fetched_by_its_name(there: Kernel, server: BatchServer) -> None:
    there.run(f"%%llm_embed -m s:m --batch-api --wait --poll 0.01 -o vectors\n{LINES}").check()
    there.run(f"again = %llm_batch fetch {server.created[0].id}").check()
    assert bound(there, "again") == VECTORS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--batch", "--batch needs a value: --batch N.\nTexts in one request (--batch-api is the offline batch)."),
        ("--wait", "--wait needs --batch-api.\n--batch-api embeds the texts by an offline batch."),
        ("--poll 3", "--poll needs --batch-api."),
        ("--again", "--again needs --batch-api."),
        ("--batch-api --poll 0", "--poll"),
        ("--batch-api --wiat", "Did you mean --wait"),
        ("--batch-api yes", "takes no words besides options"),
        ("--batch-api --batch 50001", "A line of 50,001 texts: a whole batch embeds at most 50,000.\nLower --batch N."),
        ("--batch-api -p user=env:HOME", "one of them is a secret"),
        (
            "--batch-api -m local:smollm2",
            "takes no offline batches.\nLeave --batch-api out: the texts are embedded now.",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(there: Kernel, server: BatchServer, options: str, said: str) -> None:
    model = "" if "-m" in options else "-m s:m "
    _, told = failed(there, f"%llm_embed {model}{options} --each ['sea']")
    assert said in told
    assert not server.asked


def test_the_help_page_tells_of_it(there: Kernel) -> None:
    page = there.run("%llm_embed --help").check().stdout
    assert "--batch-api " in page
    assert "--poll SECONDS" in page
