"""Rows asked of several models: each by a run of its own, side by side; one table, one budget, one end."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell
from kernels import Kernel
from pydantic import BaseModel
from rich.console import Console
from servers import HANG, Answer, Received, ScriptedServer, document
from terminal_screen import Screen
from traitlets.config import Config

from llm_magic import LLM, ComparedAnswers, api
from llm_magic.comparison.rows.run import together
from llm_magic.display.rows import RowsProgress, row_line
from llm_magic.display.rows_markup import live
from llm_magic.display.rows_plain import PlainRowsView
from llm_magic.display.rows_terminal import TerminalRowsView
from llm_magic.errors import (
    BudgetError,
    InputError,
    LLMError,
    NotAskedError,
    OptionError,
    RowsFailedError,
    ServerFailedError,
)
from llm_magic.mapping.screen import RowsInterrupted
from llm_magic.session.job import Job

ROWS = ["good", "bad", "ugly"]


def said(request: Received) -> str:
    return str(request.json["messages"][-1]["content"])


def completion(text: str) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def echo(request: Received) -> Answer:
    """Say which model was asked, and what."""
    return completion(f"{request.json['model']}: {said(request)}")


def failing(*models: str, at: str = "") -> Callable[[Received], Answer]:
    """Return a script in which these models fail, at rows that say `at`."""

    def answer(request: Received) -> Answer:
        if request.json["model"] in models and at in said(request):
            return document({"error": {"message": "broken"}}, 500, {"retry-after": "0"})
        return echo(request)

    return answer


class Notebook:
    """A shell with the extension, and what it shows."""

    def __init__(self, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
        self.shell, self._capsys = shell, capsys
        self.magics: Any = shell._llm_magic  # type: ignore[attr-defined]
        self.err = ""

    def cell(self, line: str, body: str = "{{ item }}") -> Any:
        """Run a cell; raises what it raises."""
        return self.shell.run_cell_magic("llm", line, body)

    def shown(self) -> str:
        out = self._capsys.readouterr()
        self.err = out.err
        return out.out

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def __setitem__(self, name: str, value: object) -> None:
        self.shell.user_ns[name] = value


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Notebook]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "llm_magic")
    shell.user_ns["rows"] = list(ROWS)
    made = Notebook(shell, capsys)
    yield made
    shell.run_line_magic("unload_ext", "llm_magic")
    api.activate(None)
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def server(notebook: Notebook) -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        at(notebook, server)
        yield server


def at(notebook: Notebook, server: ScriptedServer, **settings: object) -> None:
    notebook.magics.registry.add("s", "compatible", base_url=server.url, max_retries=0, **settings)
    notebook.magics.registry.aliases = {"a": {"model": "s:m", "temperature": 0}, "b": {"model": "s:n", "system": "x"}}


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    return sorted((request.json["model"], said(request)) for request in server.requests)


# What is asked, and what comes back


def test_each_model_is_asked_for_each_row_with_its_own_options(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.cell("--each rows -m a,b -o rated")
    assert asked(server) == [(model, row) for model in "mn" for row in sorted(ROWS)]
    (of_m, *_), (of_n, *_) = ([each.json for each in server.requests if each.json["model"] == model] for model in "mn")
    assert (of_m["temperature"], len(of_m["messages"])) == (0, 1)
    assert ("temperature" in of_n, of_n["messages"][0]) == (False, {"role": "system", "content": "x"})
    assert list(notebook["rated"]) == [{"a": f"m: {row}", "b": f"n: {row}"} for row in ROWS]
    assert notebook["_llm"] is notebook["rated"]


def test_the_option_may_be_said_twice(notebook: Notebook, server: ScriptedServer) -> None:
    answers = notebook.cell("--each rows -m a -m s:n")
    assert answers[0] == {"a": "m: good", "s:n": "n: good"}


def test_the_setting_may_name_several(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.magics.session.settings.model = "a, b"
    assert notebook.cell("--each rows")[2] == {"a": "m: ugly", "b": "n: ugly"}
    assert notebook.cell("--each rows -m b").values == [f"n: {row}" for row in ROWS]


def test_a_text_that_is_an_alias_as_a_whole_is_one_model(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.magics.registry.aliases = {"a,b": "s:m"}
    assert notebook.cell("--each rows -m a,b").values == [f"m: {row}" for row in ROWS]


def test_one_table_has_a_column_a_model_and_a_line_with_the_statistics_of_each(
    notebook: Notebook, server: ScriptedServer
) -> None:
    notebook.magics.registry.get("s").prices = {"m": {"input": 1e6, "output": 0}, "n": {"input": 0, "output": 1e6}}
    notebook.cell("--each rows -m a,b")
    head, *table = notebook.shown().splitlines()
    assert head.split() == ["row", "a", "b"]
    assert table[0].split() == ["0", "m:", "good", "n:", "good"]
    assert len(table) == 3
    assert notebook.err.startswith("2 models · $30.00 in all · a: 3 rows in ")
    assert " · b: 3 rows in " in notebook.err
    assert notebook["_llm"].cost == 30


def test_a_frame_has_a_column_a_model(notebook: Notebook, server: ScriptedServer) -> None:
    notebook["df"] = pd.DataFrame({"text": ROWS}, index=["x", "y", "z"])
    notebook.cell("--each df -m a,b -o rated", "{{ text }}")
    assert notebook["rated"].to_dict("list") == {
        "text": ROWS,
        "a": ["m: good", "m: bad", "m: ugly"],
        "b": ["n: good", "n: bad", "n: ugly"],
    }
    assert list(notebook["rated"].index) == ["x", "y", "z"]
    assert list(notebook["df"]) == ["text"]
    assert notebook["_llm"].labels == ["x", "y", "z"]


@pytest.mark.parametrize("made", [pd.DataFrame, pl.DataFrame, pa.table])
def test_fields_of_records_are_columns_of_each_model(
    notebook: Notebook, server: ScriptedServer, made: Callable[[Any], Any]
) -> None:
    def answer(request: Received) -> Answer:
        stars = 5 if request.json["model"] == "m" else 1
        return completion(json.dumps({"tone": said(request).split()[0], "stars": stars}))

    server.script[:] = [answer]
    notebook["df"] = made({"text": ROWS})
    notebook.cell("--each df -m a,b --schema 'tone, stars int' -o rated", "{{ text }}")
    rated = notebook["rated"]
    columns = rated.column_names if isinstance(rated, pa.Table) else list(rated.columns)
    assert columns == ["text", "a.tone", "a.stars", "b.tone", "b.stars"]
    found = rated["b.stars"]
    assert (found.to_pylist() if isinstance(rated, pa.Table) else found.to_list()) == [1, 1, 1]
    assert notebook.shown().splitlines()[0].split() == ["row", *columns[1:]]


def test_a_series_and_a_dict_keep_their_labels(notebook: Notebook, server: ScriptedServer) -> None:
    notebook["named"] = {"x": "good", "y": "bad"}
    answers = notebook.cell("--each named -m a,b -o found", "{{ index }} {{ item }}")
    assert (answers.labels, answers[1]) == (["x", "y"], {"a": "m: y bad", "b": "n: y bad"})
    assert answers.to_frame().loc["y", "b"] == "n: y bad"


def test_a_generator_and_a_file_are_read_once(notebook: Notebook, server: ScriptedServer, tmp_path: Path) -> None:
    read: list[str] = []

    def lines() -> Iterator[str]:
        for row in ROWS:
            read.append(row)
            yield row

    notebook["lines"] = lines()
    assert list(notebook.cell("--each lines -m a,b")) == [{"a": f"m: {row}", "b": f"n: {row}"} for row in ROWS]
    assert read == ROWS
    (tmp_path / "reviews.txt").write_text("one\ntwo\n")
    with (tmp_path / "reviews.txt").open() as file:
        notebook["file"] = file
        answers = notebook.cell("--each file -m a,b", "{{ item.strip() }}")
    assert answers[1] == {"a": "m: two", "b": "n: two"}


def test_an_iterable_whose_rows_change_gives_all_models_the_same(notebook: Notebook, server: ScriptedServer) -> None:
    class Growing:
        times = 0

        def __iter__(self) -> Iterator[str]:
            self.times += 1
            return iter([f"{self.times} {row}" for row in ROWS])

    notebook["growing"] = Growing()
    found = notebook.cell("--each growing -m a,b")
    assert all(row["a"][2:] == row["b"][2:] for row in found)


def test_a_generator_that_raises_ends_all_and_says_so_once(notebook: Notebook, server: ScriptedServer) -> None:
    def lines() -> Iterator[str]:
        yield "good"
        raise ValueError("torn")

    notebook["lines"] = lines()
    with pytest.raises(InputError, match="lines raised ValueError: torn after 1 row"):
        notebook.cell("--each lines -m a,b")


def test_tools_go_to_each(notebook: Notebook, server: ScriptedServer) -> None:
    def length(text: str) -> int:
        """Return the length of a text."""
        return len(text)

    def answer(request: Received) -> Answer:
        if any(message["role"] == "tool" for message in request.json["messages"]):
            return completion(f"{request.json['model']}: {request.json['messages'][-1]['content']}")
        call = {"id": "c", "type": "function", "function": {"name": "length", "arguments": '{"text": "four"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return document({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    server.script[:] = [answer]
    notebook["length"] = length
    answers = notebook.cell("--each rows -m a,b --tools length")
    assert list(answers) == [{"a": "m: 4", "b": "n: 4"}] * 3


def test_cells_of_the_context_go_to_each(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.shell.run_cell("secret_word = 'heron'", store_history=True)
    notebook.cell("--each rows -m a,b --context 1")
    assert len(server.requests) == 6
    assert all("heron" in said(request) for request in server.requests)


def test_names_and_values_that_are_hostile_do_nothing(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.magics.registry.aliases = {"a": "s:m", "<b>\x1b[31m": "s:n"}
    server.script[:] = [lambda _: completion("\x1b[2J<script>\ud800</script>")]
    notebook.cell("--each rows -m 'a,<b>\x1b[31m'")
    assert "\x1b" not in notebook.shown() + notebook.err
    html = notebook["_llm"]._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert notebook["_llm"].to_frame().shape == (3, 2)


# What is wrong is said before anything is sent


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m a,a", "a stands twice in"),
        ("-m a,", "a name is missing after the last comma"),
        ("-m a,c", "No provider answers to the model 'c'"),
        ("-m a,b --batch", "--batch and several models exclude each other: one model a batch"),
        ("-m a,b --batch-file x.jsonl", "--batch-file and several models exclude each other: one model a batch"),
        ("-m a,b --code", "--code"),
        ("-m a,b -o rows", "--out rows would replace rows"),
        ("-m a,b --confirm --tools len", "nobody can be asked for each row"),
        ("-m a,b --budget 1", "needs a price for"),
    ],
)
def test_mistakes(notebook: Notebook, server: ScriptedServer, line: str, said: str) -> None:
    with pytest.raises(LLMError) as raised:
        notebook.cell(f"--each rows {line}")
    assert said in str(raised.value)
    assert server.requests == []
    assert "_llm" not in notebook.shell.user_ns


@pytest.mark.parametrize("taken", ["a", "b.error"])
def test_a_column_that_is_there_already(notebook: Notebook, server: ScriptedServer, taken: str) -> None:
    notebook["df"] = pd.DataFrame({"text": ROWS, taken: 1})
    with pytest.raises(OptionError, match=f"The input has a column '{taken}' already"):
        notebook.cell("--each df -m a,b -o rated", "{{ text }}")
    assert server.requests == []


def test_a_dry_run_shows_the_first_request_to_each(notebook: Notebook, server: ScriptedServer) -> None:
    assert notebook.cell("--each rows -m a,b -o rated --dry-run") is None
    shown = notebook.shown()
    assert shown.count("POST ") == 2
    assert shown.index('"model": "m"') < shown.index('"model": "n"')
    assert shown.count("Nothing was sent, rated is not bound.") == 2
    assert server.requests == []


# Failures


def test_rows_that_fail_at_one_model_fail_in_place(notebook: Notebook, server: ScriptedServer) -> None:
    server.script[:] = [failing("n", at="bad")]
    notebook["df"] = pd.DataFrame({"text": ROWS})
    with pytest.raises(RowsFailedError) as raised:
        notebook.cell("--each df -m a,b -o rated", "{{ text }}")
    assert raised.value.message == "b: 1 of 3 failed: 1 ServerFailedError; run the cell again to ask for those."
    assert raised.value.hint.startswith("b: The first of them, row 1: ServerFailedError: s:n (")
    rated = notebook["rated"]
    assert list(rated) == ["text", "a", "b", "b.error"]
    assert rated.b.tolist()[::2] == ["n: good", "n: ugly"]
    assert rated["b.error"][1].startswith("ServerFailedError: s:n")
    assert raised.value.answers is notebook["_llm"]
    assert [list(errors) for errors in notebook["_llm"].errors] == [[], ["b"], []]
    assert notebook["_llm"].failed == [1]
    assert "ServerFailedError: s:n" in notebook.shown().splitlines()[2]


def test_failures_are_kept_as_values(notebook: Notebook, server: ScriptedServer) -> None:
    server.script[:] = [failing("n", "m")]
    answers = notebook.cell("--each rows -m a,b --on-error keep")
    assert list(answers) == [{"a": None, "b": None}] * 3
    assert {type(error) for error in answers.responses["a"].errors} == {ServerFailedError}


def test_a_model_that_cannot_be_reached_leaves_the_others_alone(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.magics.registry.add("gone", "compatible", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(RowsFailedError) as raised:
        notebook.cell("--each rows -m gone:m,b --patience 0 -o found")
    assert raised.value.message.startswith("gone:m: 3 of 3 failed: ")
    assert notebook["found"].responses["b"].values == [f"n: {row}" for row in ROWS]
    assert "NotAskedError" in str(raised.value) or "ConnectionFailedError" in str(raised.value)


def test_of_a_generator_all_rows_are_there_for_both_where_one_has_stopped(
    notebook: Notebook, server: ScriptedServer
) -> None:
    notebook.magics.registry.add("gone", "compatible", base_url="http://127.0.0.1:9/v1", max_retries=0)
    notebook["lines"] = (f"row {number}" for number in range(60))
    answers = notebook.cell("--each lines -m gone:m,b --patience 0 --concurrency 2 --on-error keep")
    assert answers.responses["b"].values == [f"n: row {number}" for number in range(60)]
    assert len(answers.responses["gone:m"]) == 60
    assert type(answers.responses["gone:m"].errors[-1]) is NotAskedError


# Options


def test_one_budget_for_all(notebook: Notebook, server: ScriptedServer) -> None:
    with pytest.raises(RowsFailedError) as raised:
        notebook.cell("--each rows -m a,b --budget requests=4 --concurrency 1")
    assert len(server.requests) == 4
    errors = [error for row in notebook["_llm"].errors for error in row.values()]
    assert len(errors) == 2
    assert any(isinstance(error, BudgetError) for error in errors)
    assert "larger budget" in str(raised.value)


def test_a_sample_is_bound_to_nothing(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.cell("--each rows -m a,b --sample 2 -o rated")
    assert len(server.requests) == 4
    assert "rated" not in notebook.shell.user_ns
    notebook.shown()
    assert "a: A sample of 2 rows" in notebook.err
    assert "b: A sample of 2 rows" in notebook.err
    assert notebook.err.endswith("rated is not bound.\n")


def test_equal_rows_are_asked_once_of_each_model(notebook: Notebook, server: ScriptedServer) -> None:
    notebook["rows"] = ["same"] * 4
    answers = notebook.cell("--each rows -m a,b --dedup")
    assert asked(server) == [("m", "same"), ("n", "same")]
    assert list(answers) == [{"a": "m: same", "b": "n: same"}] * 4


def test_order_and_concurrency_are_those_of_each_model(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.cell("--each rows -m a,b --concurrency 1 --order prefix")
    for model in "mn":
        assert [said(each) for each in server.requests if each.json["model"] == model] == sorted(ROWS)


def test_a_later_run_asks_each_model_for_what_it_has_not_answered(notebook: Notebook, server: ScriptedServer) -> None:
    server.script[:] = [failing("n", at="bad")]
    with pytest.raises(RowsFailedError):
        notebook.cell("--each rows -m a,b")
    server.requests.clear()
    server.script[:] = [echo]
    answers = notebook.cell("--each rows -m a,b")
    assert asked(server) == [("n", "bad")]
    assert answers[1] == {"a": "m: bad", "b": "n: bad"}
    notebook.shown()
    server.requests.clear()
    notebook.cell("--each rows -m a,b --again")
    assert len(server.requests) == 6


def test_rows_are_recorded_and_replayed_by_model(notebook: Notebook, server: ScriptedServer) -> None:
    notebook.cell("--each rows -m a,b --record once")
    server.requests.clear()
    answers = notebook.cell("--each rows -m a,b --record only")
    assert server.requests == []
    assert list(answers) == [{"a": f"m: {row}", "b": f"n: {row}"} for row in ROWS]
    notebook.shown()
    assert "3 from recordings" in notebook.err


def test_show_json_has_a_value_a_model(notebook: Notebook, server: ScriptedServer) -> None:
    server.script[:] = [failing("n", at="bad")]
    notebook.cell("--each rows -m a,b --show json --on-error keep")
    lines = [json.loads(line) for line in notebook.shown().splitlines()]
    assert lines[0] == {"row": 0, "value": {"a": "m: good", "b": "n: good"}}
    assert lines[1]["value"]["b"].startswith("ServerFailedError: ")


def test_in_the_background(notebook: Notebook, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    job = notebook.cell("--each rows -m a,b -o rated -b")
    assert isinstance(job, Job)
    assert repr(job).startswith("<Job a, b: ")
    assert job.result(10)[0] == {"a": "m: good", "b": "n: good"}
    assert notebook["rated"] is job.result()


def test_an_interrupt_stops_all_and_what_came_is_kept(
    notebook: Notebook, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hanging(request: Received) -> Answer:
        return Answer([HANG]) if said(request) == "ugly" else echo(request)

    server.script[:] = [hanging]

    def update(_: PlainRowsView, progress: RowsProgress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(PlainRowsView, "update", update)
    with pytest.raises(RowsInterrupted) as raised:
        notebook.cell("--each rows -m a,b -o rated")
    monkeypatch.undo()
    assert raised.value._line == (
        "stopped; a 2 of 3 rows, b 2 of 3 rows are answered, and kept: run it again to go on from there."
    )
    assert all(request.left.wait(5) for request in server.requests if said(request) == "ugly")
    assert "rated" not in notebook.shell.user_ns
    server.requests.clear()
    server.script[:] = [echo]


# From Python


def test_map(notebook: Notebook, server: ScriptedServer) -> None:
    told: list[RowsProgress] = []
    answers = LLM(temperature=0.5).map(
        "Rate {{ item }}", (row for row in ROWS), models=["a", "b"], on_progress=told.append
    )
    assert isinstance(answers, ComparedAnswers)
    assert answers.values == [{"a": f"m: Rate {row}", "b": f"n: Rate {row}"} for row in ROWS]
    assert {each.json["temperature"] for each in server.requests} == {0.5}
    assert (told[-1].done, told[-1].total, list(told[-1].models)) == (6, None, ["a", "b"])
    assert answers[1:].values == answers.values[1:]
    assert {model: each.rows for model, each in answers.statistics.items()} == {"a": 3, "b": 3}
    assert answers.usage is not None
    assert answers.usage.input_tokens == 42
    assert repr(answers) == "ComparedAnswers of 3 rows by a, b"
    assert pickle.loads(pickle.dumps(answers)).values == answers.values  # noqa: S301 - our own
    assert '<th scope="col" style="text-align: left">b</th>' in answers._repr_html_()
    with pytest.raises(TypeError, match="responses"):
        answers["a"]  # type: ignore[call-overload]


async def _awaited(models: Any) -> ComparedAnswers:
    return await LLM().amap("{{ item }}", ROWS, models=models)


def test_amap(notebook: Notebook, server: ScriptedServer) -> None:
    import asyncio

    assert asyncio.run(_awaited(["a", "b"]))[0] == {"a": "m: good", "b": "n: good"}

    async def one_by_one() -> None:
        async for _ in LLM().amap("{{ item }}", ROWS, models=["a", "b"]):  # type: ignore[attr-defined]
            pass

    with pytest.raises(InputError, match="awaited"):
        asyncio.run(one_by_one())


@pytest.mark.parametrize("models", ["a,b", [], ["a", "a"], ["a", 1], 3, [""], {"a": 1}])
def test_models_are_a_list_of_names(notebook: Notebook, server: ScriptedServer, models: Any) -> None:
    with pytest.raises(OptionError, match=r"^models"):
        LLM().map("{{ item }}", ROWS, models=models)
    assert server.requests == []


def test_a_call_of_one_model_says_where_several_are_asked(notebook: Notebook, server: ScriptedServer) -> None:
    llm: Any = LLM("a,b")
    for call in (lambda: llm.map("{{ item }}", ROWS), lambda: LLM("a").batch("{{ item }}", ROWS, models=["a", "b"])):  # type: ignore[call-arg]
        with pytest.raises(OptionError, match=r"LLM\.map\(.*models=\["):
            call()
    assert server.requests == []


def test_rows_that_failed_are_asked_again_of_the_model_at_which_they_did(
    notebook: Notebook, server: ScriptedServer
) -> None:
    server.script[:] = [failing("n", at="bad")]
    with pytest.raises(RowsFailedError) as raised:
        LLM().map("{{ item }}", ROWS, models=["a", "b"], output_type=Literal["m: bad", "n: bad", "m: good"])
    server.script[:] = [echo]
    server.requests.clear()
    with pytest.raises(RowsFailedError) as again:
        raised.value.answers.retry()
    assert ("n", "bad") in asked(server)
    assert again.value.answers[1] == {"a": "m: bad", "b": "n: bad"}
    assert "answers.retry()" in str(again.value)


def test_typed_values_of_a_class(notebook: Notebook, server: ScriptedServer) -> None:
    class Tone(BaseModel):
        tone: str

    server.script[:] = [lambda request: completion(json.dumps({"tone": request.json["model"]}))]
    answers = LLM().map("{{ item }}", ROWS, models=["a", "b"], output_type=Tone)
    assert answers[0] == {"a": Tone(tone="m"), "b": Tone(tone="n")}
    assert answers.to_frame().to_dict("list") == {"a.tone": ["m"] * 3, "b.tone": ["n"] * 3}


# Real models


def test_a_real_model_under_two_names(notebook: Notebook) -> None:
    notebook.magics.registry.aliases = {
        "calm": {"model": "local:smollm2", "temperature": 0, "max_tokens": 5},
        "wild": {"model": "local:smollm2", "temperature": 2, "seed": 3, "max_tokens": 5, "system": "Shout."},
    }
    notebook.cell("--each rows -m calm,wild -o found", "Say one word about {{ item }}.")
    found = notebook["found"]
    assert len(found) == 3
    assert all(row["calm"] and row["wild"] for row in found)
    assert found.responses["calm"].statistics.answered == 3
    notebook.shown()
    assert notebook.err.count("3 rows in") == 2


def test_labels_of_a_real_vllm_and_of_the_embedded_model(notebook: Notebook, vllm_url: str) -> None:
    notebook.magics.registry.add("real", "vllm", base_url=vllm_url)
    notebook["df"] = pd.DataFrame({"item": ROWS})
    notebook.cell("--each df -m real:smollm2,local:smollm2 --choices good,bad -o rated --max-tokens 8")
    assert list(notebook["rated"]) == ["item", "real:smollm2", "local:smollm2"]
    assert notebook["rated"]["real:smollm2"].dtype.name == "category"
    assert set(notebook["rated"]["local:smollm2"]) <= {"good", "bad"}


# Where it is seen


PREAMBLE = """
%reload_ext llm_magic
registry = get_ipython()._llm_magic.registry
registry.add("s", "compatible", base_url={url!r}, max_retries=0)
registry.aliases = {{"a": "s:m", "b": "s:n"}}
rows = ["good", "bad", "ugly"]
"""


def test_a_notebook_executed_without_a_screen(kernel: Kernel, tmp_path: Path) -> None:
    with ScriptedServer(failing("n", at="bad")) as server:
        kernel.run(f"%env XDG_STATE_HOME={tmp_path}", allow_stdin=False)
        kernel.run(PREAMBLE.format(url=server.url), allow_stdin=False).check()
        ran = kernel.run("%%llm --each rows -m a,b -o rated -b --on-error keep\n{{ item }}", allow_stdin=False).check()
        (html,), (plain,) = ran.of_type("text/html"), ran.of_type("text/plain")[:1]
        assert "ServerFailedError: s:n" in html
        assert "2 models · a: 3 rows in" in plain
        assert kernel.value("(rated[1]['b'], rated.responses['b'].failed, len(rated))") == (None, [1], 3)


def test_an_interrupt_in_a_kernel_ends_all_within_the_live_output(kernel: Kernel, tmp_path: Path) -> None:
    def hanging(request: Received) -> Answer:
        return Answer([HANG]) if said(request) == "ugly" else echo(request)

    with ScriptedServer(hanging) as server:
        kernel.run(f"%env XDG_STATE_HOME={tmp_path}")
        kernel.run(PREAMBLE.format(url=server.url)).check()
        request = kernel.start("%%llm --each rows -m a,b --concurrency 1\n{{ item }}")
        while len([each for each in server.requests if said(each) == "ugly"]) < 2:
            time.sleep(0.02)
        kernel.interrupt()
        ran = kernel.collect(request)
        assert ran.error_name == "RowsInterrupted"
        assert all(each.left.wait(5) for each in server.requests if said(each) == "ugly")
        server.script[:] = [echo]
        server.requests.clear()
        again = kernel.run("%%llm --each rows -m a,b\n{{ item }}").check()
    assert asked(server) == [("m", "ugly"), ("n", "ugly")]
    assert "2 of 3 answered before" in again.of_type("text/plain")[-1]
    assert again.of_type("text/html")[-1].count("ugly") == 2


def test_a_process_that_is_killed_has_kept_what_each_model_answered(notebook: Notebook, tmp_path: Path) -> None:
    script = """
import os, sys
from llm_magic import LLM, registry
registry().add("s", "compatible", base_url=sys.argv[1], max_retries=0)
def end(progress):
    if progress.done == 4: os.kill(os.getpid(), 9)
LLM(temperature=0.5).map("{{ item }}", ["good", "bad", "ugly"], models=["s:m", "s:n"], on_progress=end)
"""

    def hanging(request: Received) -> Answer:
        return Answer([HANG]) if said(request) == "ugly" else echo(request)

    with ScriptedServer(hanging) as server:
        asks = [sys.executable, "-c", script, server.url]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        killed = subprocess.run(asks, env=environment, timeout=60, check=False)  # noqa: S603 - our own script
        assert killed.returncode == -9
        server.script[:] = [echo]
        server.requests.clear()
        at(notebook, server)
        assert LLM(temperature=0.5).map("{{ item }}", ROWS, models=["s:m", "s:n"])[0] == {
            "s:m": "m: good",
            "s:n": "n: good",
        }
    assert asked(server) == [("m", "ugly"), ("n", "ugly")]


PROGRESS = together(
    {
        "a": RowsProgress(9, 4, 1, rate=2, cost=0.5, last=(row_line(3, "x"),)),
        "b": RowsProgress(9, 1, waiting="waits for s: connection refused"),
    }
)


def test_while_they_are_asked_it_is_seen_how_far_each_is() -> None:
    shown = live("2 models", PROGRESS)["text/plain"]
    assert "5 of 18 answers of 2 models · 1 failed · 13 left" in shown
    assert "a      4 of 9, 1 failed, 2/s, $0.50\nb      1 of 9, waits for s: connection refused" in shown
    assert "3 · a  x" in shown
    file = io.StringIO()
    view = TerminalRowsView("markdown", 20, console=Console(file=file, force_terminal=True, width=80, height=12))
    view.begin("2 models", 18)
    view.update(PROGRESS)  # too early
    screen = Screen(12)
    screen.write(file.getvalue())
    assert "0 of 18" in screen.text
    view.fail(PROGRESS, "")
    plain = PlainRowsView("markdown", clock=iter([0.0, 9.0, 9.0, 9.0]).__next__)
    told: list[str] = []
    plain._say = told.append  # type: ignore[method-assign]
    plain.begin("2 models", 18)
    plain.update(PROGRESS)
    assert told == [
        "5 of 18, 1 failed, 2/s, $0.50 · a: 4 of 9, 1 failed, 2/s, $0.50 · b: 1 of 9, waits for s: connection refused"
    ]


def test_rows_of_a_dask_frame(notebook: Notebook) -> None:
    distributed = pytest.importorskip("distributed", reason="needs Dask: the extra `dask`")
    frames = pytest.importorskip("dask.dataframe")

    def answer(request: Received) -> Answer:
        models = document({"data": [{"id": "m"}, {"id": "n"}]})
        return models if request.path.endswith("/models") else echo(request)

    of_one = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (
        ScriptedServer(answer) as server,
        distributed.LocalCluster(**of_one) as cluster,
        distributed.Client(cluster),
    ):
        at(notebook, server)
        notebook["frame"] = frames.from_pandas(pd.DataFrame({"text": ROWS}), npartitions=2)
        notebook.cell("--each frame -m a,b -o rated", "{{ text }}")
        assert notebook["rated"].to_dict("list") == {
            "text": ROWS,
            "a": ["m: good", "m: bad", "m: ugly"],
            "b": ["n: good", "n: bad", "n: ugly"],
        }
        with pytest.raises(OptionError, match="--budget and --on exclude each other where several models"):
            notebook.cell("--each frame -m a,b --budget requests=9", "{{ text }}")
