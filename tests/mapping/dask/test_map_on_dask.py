"""`LLM.map` and `%%llm --each` on a Dask cluster: the same answers as from one process, and what may go wrong."""

from __future__ import annotations

import builtins
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from echo import answer as echo_answer
from echo import echo
from servers import HANG, Answer, Received, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, LLMError, RowsFailedError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

distributed = pytest.importorskip("distributed")


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
    assert len(answers.failed) >= 1
    assert sum(asked(server).values()) <= 10
    assert sum(value is not None for value in answers.values) == sum(asked(server).values())
    used = session.spending.ledger.rows()
    assert sum(row.requests for row in used) == sum(asked(server).values())


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


def test_a_scheduler_that_dies_ends_the_run_in_a_line(session: Session) -> None:
    import subprocess
    import sys

    program = "import distributed, time\nif __name__ == '__main__':\n c = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=':0'); print(c.scheduler_address, flush=True); time.sleep(600)"
    from conftest_paths import PATHS

    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PATHS}
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with distributed.Client(address, set_as_default=False) as its:

            def answer(request: Received) -> Answer:
                if not request.path.endswith("/models") and len(asked(server)) > 20:
                    process.kill()
                    return Answer([HANG])
                return echo_answer(request)

            with ScriptedServer(answer) as server, pytest.raises(LLMError) as caught:
                llm_at(session, server).map("SAY {{ item }}", [f"t{each}" for each in range(300)], on=its)
    assert str(caught.value).count("\n") <= 1
    assert "scheduler" in str(caught.value)
