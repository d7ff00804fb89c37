"""`LLM.map` and `%%llm --each` on a Dask cluster: the same answers as from one process, and what may go wrong."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from echo import PREAMBLE, echo
from echo import answer as echo_answer
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import BudgetError, ConfigurationError, LLMError, RowsFailedError
from llm_magic.mapping.dask.equal_rows import EqualRows
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session

distributed = pytest.importorskip("distributed")

PATHS = os.pathsep.join(map(str, Path(__file__).parents[1:4]))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


@pytest.fixture
def workers(client: Any) -> Any:
    client.wait_for_workers(2, timeout=60)
    return client


def llm_at(session: Session, server: ScriptedServer, **settings: object) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM("s:m")


def asked(server: ScriptedServer) -> Counter[str]:
    chats = (request for request in server.requests if request.path.endswith("/chat/completions"))
    return Counter(request.json["messages"][-1]["content"] for request in chats)


FRAME = pd.DataFrame({"text": [f"t{each}" for each in range(30)]}, index=[f"r{each % 7}" for each in range(30)])


# What is asked, and what is bound


def test_a_dask_frame_comes_back_as_a_pandas_frame_of_the_same_rows(
    workers: Any, session: Session, server: ScriptedServer
) -> None:
    dataframe = pytest.importorskip("dask.dataframe")
    frame = dataframe.from_pandas(FRAME, npartitions=4, sort=False)
    answers = llm_at(session, server).map("SAY {{ text }}", frame)
    assert answers.values == list(FRAME.text)
    assert list(answers.to_frame().index) == list(FRAME.index)
    assert asked(server) == Counter(f"SAY {text}" for text in FRAME.text)


def test_a_dask_series_and_a_bag(workers: Any, session: Session, server: ScriptedServer) -> None:
    dataframe, bag = pytest.importorskip("dask.dataframe"), pytest.importorskip("dask.bag")
    llm = llm_at(session, server)
    series = dataframe.from_pandas(FRAME, npartitions=3, sort=False).text
    answers = llm.map("SAY {{ item }}", series)
    assert (answers.values, list(answers.labels)) == (list(FRAME.text), list(FRAME.index))
    items = bag.from_sequence([{"word": f"w{each}"} for each in range(10)], npartitions=3)
    assert llm.map("SAY {{ word }}", items).values == [f"w{each}" for each in range(10)]


def test_an_empty_dask_frame(workers: Any, session: Session, server: ScriptedServer) -> None:
    dataframe = pytest.importorskip("dask.dataframe")
    frame = dataframe.from_pandas(FRAME.iloc[:0], npartitions=1)
    assert llm_at(session, server).map("SAY {{ text }}", frame).values == []
    assert asked(server) == Counter()


def test_where_dask_is_not_installed_a_line_says_what_to_install(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "distributed":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError) as caught:
        llm_at(session, server).map("SAY {{ item }}", ["a"], on="dask")
    assert str(caught.value) == (
        'Rows are asked from the workers of a Dask cluster, and dask is not installed.\npip install "llm_magic[dask]"'
    )


def test_types_tools_and_functions_of_this_module_travel(workers: Any, session: Session) -> None:
    offset = 41

    def f(x: int) -> int:
        """Add a number."""
        return x + offset

    def answer(request: Received) -> Answer:
        if request.path.endswith("/models"):
            return echo_answer(request)
        results = [each for each in request.json["messages"] if each["role"] == "tool"]
        if results:
            return stream(chunk(json.dumps({"value": results[-1]["content"]})), chunk(finish="stop"))
        call = {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
        return stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))

    with ScriptedServer(answer) as server:
        answers = llm_at(session, server).map("Call f. {{ item }}", ["a", "b"], tools=[f], on=workers)
    assert [value.replace(" ", "") for value in answers.values] == ['{"value":"42"}'] * 2


def test_the_prompt_may_be_a_function_of_the_row(workers: Any, session: Session, server: ScriptedServer) -> None:
    handle = threading.Lock()  # it is called here, and need not travel

    def prompt(row: Any) -> str:
        with handle:
            return f"SAY {row.text}"

    answers = llm_at(session, server).map(prompt, FRAME, on=workers)
    assert answers.values == list(FRAME.text)


def test_choices_are_validated_there(workers: Any, session: Session, server: ScriptedServer) -> None:
    answers = llm_at(session, server).map(
        "SAY {{ item }}", ['{"value":"yes"}', "perhaps"], output_type=Literal["yes", "no"], on=workers, on_error="keep"
    )
    assert answers.values == ["yes", None]
    assert "InvalidValueError" in type(answers.errors[1]).__name__


def test_a_function_that_cannot_travel_is_said_before_anything_is_sent(
    workers: Any, session: Session, server: ScriptedServer
) -> None:
    lock = threading.Lock()

    def f(x: int) -> int:
        """Add one."""
        with lock:
            return x + 1

    with pytest.raises(LLMError, match="cannot be sent to the workers") as caught:
        llm_at(session, server).map("SAY {{ item }}", ["a"], tools=[f], on=workers)
    assert str(caught.value).count("\n") <= 1
    assert asked(server) == Counter()


# What is kept, counted and limited


def test_equal_rows_are_asked_once(workers: Any, session: Session, server: ScriptedServer) -> None:
    answers = llm_at(session, server).map("SAY {{ item }}", ["a", "b", "a", "a"], on=workers, dedup=True)
    assert answers.values == ["a", "b", "a", "a"]
    assert asked(server) == {"SAY a": 1, "SAY b": 1}


def test_only_what_failed_is_asked_again_and_nobody_is_looked_at_where_nothing_is(
    workers: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = True

    def answer(request: Received) -> Answer:
        if not request.path.endswith("/models") and fails and request.json["messages"][-1]["content"] == "SAY b":
            return Answer([b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"])
        return echo_answer(request)

    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        with pytest.raises(RowsFailedError):
            llm.map("SAY {{ item }}", ["a", "b", "c"], on=workers)
        fails = False
        answers = llm.map("SAY {{ item }}", ["a", "b", "c"], on=workers)
        assert answers.values == ["a", "b", "c"]
        assert asked(server) == {"SAY a": 1, "SAY b": 2, "SAY c": 1}


def test_a_budget_of_the_run_holds_for_all_workers(workers: Any, session: Session, server: ScriptedServer) -> None:
    answers = llm_at(session, server).map(
        "SAY {{ item }}", [f"t{each}" for each in range(40)], on=workers, budget={"requests": 10}, on_error="keep"
    )
    assert len(answers) == 40
    sent = sum(asked(server).values())
    assert 1 <= sent <= 10
    assert sum(value is not None for value in answers.values) == sent  # what was in flight is waited for
    assert sum(row.requests for row in session.spending.ledger.rows()) == sent
    said = next(str(error) for error in answers.errors if isinstance(error, BudgetError))
    assert said.startswith("A worker's share of a budget is spent. The budget of 5 requests (budget=) does not cover")
    assert said.endswith("\nRaise budget=.")


def test_the_workers_write_nothing_and_recordings_are_read_here(
    workers: Any, session: Session, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    llm = llm_at(session, server)
    answers = llm.map("SAY {{ item }}", ["a", "b"], on=workers, record="once")
    assert answers.values == ["a", "b"]
    before = len(server.requests)
    again = llm.map("SAY {{ item }}", ["a", "b"], on=workers, record="only")
    assert again.values == ["a", "b"]
    assert len(server.requests) == before  # no worker was looked at, either


# What goes wrong


def test_a_worker_that_dies_costs_no_row(workers: Any, session: Session) -> None:
    pids = list(workers.run(os.getpid).values())
    killed = threading.Event()

    def answer(request: Received) -> Answer:
        made = echo_answer(request)
        if not request.path.endswith("/models") and len(server.requests) > 60 and not killed.is_set():
            killed.set()
            os.kill(pids[0], signal.SIGKILL)
        return made if request.path.endswith("/models") else Answer([0.02, *made.steps])

    with ScriptedServer(answer) as server:
        answers = llm_at(session, server).map("SAY {{ item }}", [f"t{each}" for each in range(300)], on=workers)
        assert max(asked(server).values()) <= 2
    assert answers.values == [f"t{each}" for each in range(300)]


CLUSTER = """
import sys, time, distributed
if __name__ == "__main__":
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


def test_a_scheduler_that_dies_ends_the_run_in_a_line(session: Session, tmp_path: Path) -> None:
    (tmp_path / "cluster.py").write_text(CLUSTER)
    with subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, str(tmp_path / "cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PATHS},
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with distributed.Client(address, set_as_default=False) as its:

            def answer(request: Received) -> Answer:
                if not request.path.endswith("/models") and sum(asked(server).values()) > 20:
                    process.kill()
                    return Answer([HANG])
                return echo_answer(request)

            with ScriptedServer(answer) as server, pytest.raises(LLMError) as caught:
                llm_at(session, server).map("SAY {{ item }}", [f"t{each}" for each in range(300)], on=its)
    assert str(caught.value).count("\n") <= 1
    assert "scheduler" in str(caught.value)


# Equal rows


def test_rows_that_wait_for_an_equal_one() -> None:
    equal = EqualRows()
    first, second, third, other = (
        RowRequest(number, number, (), key) for number, key in enumerate(["a", "a", "a", ""])
    )
    assert [equal.is_first(each) for each in (first, second, other, other)] == [True, False, True, True]
    assert equal.known(second) is None
    (copy,) = equal.ended(first, Outcome(0, Response(text="x", value="x")))
    assert (copy.number, copy.value, copy.duplicate) == (1, "x", True)
    assert not equal.is_first(third)
    found = equal.known(third)
    assert found is not None
    assert (found.number, found.value, found.duplicate) == (2, "x", True)
    assert equal.ended(other, Outcome(3)) == []


def test_equal_rows_of_a_generator_without_end_can_be_stopped(
    workers: Any, session: Session, server: ScriptedServer
) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a"

    async def some() -> int:
        stream = llm_at(session, server).amap("SAY {{ item }}", endless(), on=workers, dedup=True)
        found = 0
        async for outcome in stream:
            assert outcome.value == "a"
            found += 1
            if found == 5_000:
                break
        await stream.aclose()
        return found

    assert asyncio.run(some()) == 5_000
    assert asked(server) == {"SAY a": 1}


# Cells

ADD = "get_ipython()._llm_magic.registry.add({!r}, 'compatible', base_url={!r}, max_retries=0)"


@pytest.fixture(scope="module")
def kernel(cluster: Any) -> Iterator[Kernel]:
    with Kernel(PYTHONPATH=PATHS) as kernel, echo() as server:
        kernel.run(PREAMBLE).check()
        kernel.run(ADD.format("s", server.url)).check()
        kernel.run(f"on = {cluster.scheduler_address!r}\nletters = ['a', 'b', 'c']").check()
        yield kernel


def test_a_cell_over_a_dask_frame_binds_a_pandas_frame(kernel: Kernel) -> None:
    kernel.run(
        "import pandas as pd, dask.dataframe as dd\nfrom distributed import Client\nclient = Client(on)\n"
        "frame = pd.DataFrame({'text': list('abcdef')}, index=list('uvwxyz'))\n"
        "ddf = dd.from_pandas(frame, npartitions=3, sort=False)"
    ).check()
    kernel.run("%%llm -m s:m --each ddf -o said\nSAY {{ text }}").check()
    assert kernel.value("[type(said).__module__.partition('.')[0], list(said.index), list(said.columns)]") == [
        "pandas",
        list("uvwxyz"),
        ["text", "said"],
    ]
    assert kernel.value("list(said.said)") == list("abcdef")


def test_a_cell_with_an_address_and_a_type_of_the_notebook(kernel: Kernel, cluster: Any) -> None:
    kernel.run("from pydantic import BaseModel\nclass Label(BaseModel):\n    topic: str").check()
    address = cluster.scheduler_address
    body = 'SAY {"topic": "{{ item }}"}'
    kernel.run(f"%%llm -m s:m --each letters --as Label --on {address} -o labels\n{body}").check()
    assert kernel.value("[[type(each) is Label, each.topic] for each in labels.values]") == [
        [True, "a"],
        [True, "b"],
        [True, "c"],
    ]


def test_executed_cells_travel_with_each_row(kernel: Kernel, cluster: Any) -> None:
    address = cluster.scheduler_address
    kernel.run("seen = 'of an executed cell'  # SAY it was sent").check()
    kernel.run(f"%%llm -m s:m --each letters --context seen --on {address} -o told\n{{{{ item }}}}").check()
    assert kernel.value("told.values") == ["it was sent"] * 3


def test_a_cell_in_the_background(kernel: Kernel, cluster: Any) -> None:
    kernel.run(
        f"job = %llm -b -m s:m --each letters --on {cluster.scheduler_address} -o later SAY {{{{ item }}}}"
    ).check()
    assert kernel.value("job.result().values") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--on tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("--on nowhere", "--on takes dask (the current client)"),
        ("--on {address} --forward-env NO_SUCH_NAME", "NO_SUCH_NAME"),
        ("--forward-env NO_SUCH_NAME", "--forward-env needs --on"),
    ],
)
def test_a_wrong_cluster_is_said_in_a_line_and_nothing_is_sent(
    kernel: Kernel, cluster: Any, options: str, says: str
) -> None:
    line = options.format(address=cluster.scheduler_address)
    ran = kernel.run(f"%%llm -m s:m --each letters {line}\nSAY {{{{ item }}}}", timeout=30)
    assert ran.status == "error"
    assert says in ran.error
    assert ran.error.count("\n") <= 1


def test_an_interrupted_cell_closes_the_requests_on_the_workers(kernel: Kernel, cluster: Any) -> None:
    def answer(request: Received) -> Answer:
        if request.path.endswith("/models"):
            return echo_answer(request)
        if sum(asked(server).values()) == 4:
            threading.Thread(target=kernel.interrupt).start()
        return Answer([HANG])

    with ScriptedServer(answer) as server:
        kernel.run(ADD.format("hangs", server.url)).check()
        line = f"%%llm -m hangs:m --each range(50) --concurrency 4 --on {cluster.scheduler_address}"
        ran = kernel.run(f"{line}\nSAY {{{{ item }}}}")
        chats = [each for each in server.requests if each.path.endswith("/chat/completions")]
        assert len(chats) == 4
        assert all(each.left.wait(5) for each in chats)
    assert ran.error_name == "RowsInterrupted"
