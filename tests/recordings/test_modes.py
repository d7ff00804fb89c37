"""Each mode in real kernels, one after the other, before a server that counts: what is sent, kept, and replayed."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from kernels import Kernel, Ran
from numbered import NumberedServer, lines
from shown import failed

DEAD = "http://127.0.0.1:9/v1"
SETUP = """
import base64, os
os.chdir({folder!r})
%load_ext llm_magic
from llm_magic import LLM, LLMError
from llm_magic.events import Done, TextDelta
from pydantic import BaseModel
registry = get_ipython()._llm_magic.registry
for name in ("s", "other"):
    registry.add(name, "compatible", base_url={url!r}, max_retries=0)
registry.add("v", "vllm", base_url={url!r}, max_retries=0)
registry.add("dead", "compatible", base_url="http://127.0.0.1:9/v1", max_retries=0)
registry.aliases = {{"team": {{"model": "dead:m", "fallbacks": ["s:m"]}}}}
ran = []
def f(x: int) -> int:
    "Add one."
    ran.append(x)
    return x + len(ran)
class City(BaseModel):
    name: str
    people: int
png = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
def everything(response):
    from dataclasses import fields
    left_out = ("headers", "recorded", "messages")
    told = {{each.name: repr(getattr(response, each.name)) for each in fields(response) if each.name not in left_out}}
    return told | {{"messages": [(message.role, message.text) for message in response.messages]}}
"""


@pytest.fixture
def server() -> Iterator[NumberedServer]:
    with NumberedServer() as server:
        yield server


@contextmanager
def session(folder: Path, url: str, record: str = "once", **environment: str) -> Iterator[Kernel]:
    """Start a kernel that works in this folder and asks this server, in this mode."""
    with Kernel(**environment) as kernel:
        kernel.run(SETUP.format(folder=str(folder), url=url)).check()
        if record:
            kernel.run(f"%config LLMMagics.record = {record!r}").check()
        yield kernel


def answers(kernel: Kernel, *codes: str) -> list[str]:
    """Run cells, each with an id of its own, and return the answers' texts."""
    found = []
    for number, code in enumerate(codes):
        kernel.run(code, f"cell-{number}").check()
        found.append(kernel.value("_llm.text"))
    return found


def shown(ran: Ran) -> list[dict[str, Any]]:
    """Return the outputs of a cell, without the one thing that tells a replayed answer."""
    outputs = copy.deepcopy(ran.outputs)
    for output in outputs:
        if "llm_magic" in output.get("metadata", {}):
            output["metadata"]["llm_magic"].pop("recorded", None)
    return outputs


def wait_for(server: NumberedServer, requests: int) -> None:
    """Wait until so many requests arrived."""
    deadline = time.monotonic() + 30
    while len(server.asked) < requests:
        assert time.monotonic() < deadline, "nothing was sent"
        time.sleep(0.01)


class Asked(NamedTuple):
    """A cell that asks: how many requests it sends, and what it leaves behind."""

    code: str
    requests: int = 1
    value: str = "everything(_llm)"


EVERYTHING = {
    "a cell": Asked("%%llm -m s:m -o said\nHi"),
    "a line": Asked("%llm -m s:m On a line"),
    "a line that is assigned": Asked("x = %llm -m s:m Assigned", 1, "x.text"),
    "ask": Asked("r = LLM('s:m').ask('From Python'); print(r.text)", 1, "everything(r)"),
    "aask": Asked("r = await LLM('s:m').aask('Awaited'); print(r.text)", 1, "everything(r)"),
    "stream": Asked(
        "told = [e async for e in LLM('s:m').stream('Streamed')]\n"
        "print(''.join(e.text for e in told if isinstance(e, TextDelta)))",
        1,
        "everything(told[-1].response)",
    ),
    "an LLM with defaults": Asked("print(LLM('s:m', temperature=0.5, system='Short').ask('Defaults').text)", 1, "1"),
    "options": Asked("%%llm -m s:m -t 0.7 --max-tokens 50 --seed 3 -s Brief. -p top_k=4 --stop END\nWith options"),
    "a variable": Asked("%%llm -m s:m\nThe class {{ City.__name__ }}"),
    "not streamed": Asked("%%llm -m s:m --no-stream\nWhole"),
    "tools": Asked("%%llm -m s:m --tools f\nUse a tool", 2),
    "asked again": Asked("%%llm -m s:m --as int -o number\nINVALID", 2, "(number, everything(_llm))"),
    "several": Asked("%%llm -m s:m --n 3 -o three\nThree times", 1, "(three, everything(_llm))"),
    "reasoning": Asked("%%llm -m s:m\nREASON"),
    "reasoning of the Responses API": Asked("%%llm -m s:m --api responses\nREASON"),
    "the Responses API": Asked("%%llm -m s:m --api responses\nResponses"),
    "the completions API": Asked("%%llm -m s:m --api completions --once\nCompletions"),
    "an image": Asked("%%llm -m s:m -i png\nWhat is this?"),
    "a refusal": Asked("%%llm -m s:m\nREFUSE"),
    "a number": Asked("%%llm -m s:m --as int -o number\nNUMBER", 1, "(number, everything(_llm))"),
    "a list": Asked("%%llm -m s:m --as list[int] -o listed\nSAY [1, 2]", 1, "(listed, everything(_llm))"),
    "a choice": Asked("%%llm -m s:m --choices yes,no -o chosen\nSAY yes", 1, "(chosen, everything(_llm))"),
    "a record": Asked(
        '%%llm -m s:m --as City -o city\nSAY {"name": "Oslo", "people": 7}', 1, "(repr(city), everything(_llm))"
    ),
    "a schema": Asked(
        '%%llm -m s:m --schema "name, age int" -o one\nSAY {"name": "Ann", "age": 7}', 1, "(one, everything(_llm))"
    ),
    "a pattern": Asked(
        "%%llm -m v:m --regex [a-z]+[0-9] -o matched\nSAY abc1", 1, "(matched, everything(_llm))"
    ),
    "a turn": Asked("%%llm -m s:m -c talk\nThe first turn"),
    "the next turn": Asked("%%llm -m s:m -c talk\nThe next turn", 1, "(_llm.history_turns, everything(_llm))"),
    "a fallback": Asked("%%llm -m team\nWho answers?", 1, "everything(_llm) | {'attempts': _llm.attempts[-1].status}"),
    "a provider alone": Asked("%%llm -m s:\nWhichever", 1, "(_llm.model, everything(_llm))"),
    "without history": Asked("%%llm -m s:m --once\nOnce"),
    "vectors": Asked("%%llm_embed -m s:m -o vectors\nsea\nsky", 1, "[list(map(float, each)) for each in vectors]"),
    "vectors from Python": Asked(
        "v = LLM('s:m').embed(['a', 'bc']); print(len(v))", 1, "[list(map(float, each)) for each in v]"
    ),
    "code": Asked("%%llm -m s:m --code\nSAY print(1)"),
    "plain": Asked("%%llm -m s:m --show text\nPlainly"),
}  # fmt: skip


def test_everything_is_replayed_as_it_was_with_nobody_to_ask(tmp_path: Path) -> None:
    recorded: dict[str, tuple[list[dict[str, Any]], Any]] = {}
    with NumberedServer() as server, session(tmp_path, server.url) as kernel:
        for name, asked in EVERYTHING.items():
            before = len(server.asked)
            ran = kernel.run(asked.code, name).check()
            recorded[name] = shown(ran), kernel.value(asked.value)
            assert (name, len(server.asked) - before) == (name, asked.requests)
        tools_ran = kernel.value("ran")
        dead = server.url
        received = len(server.requests)
    (file,) = tmp_path.iterdir()
    assert file.name == "llm.jsonl"
    before_replay = file.read_bytes()
    assert b"127.0.0.1" not in before_replay
    with session(tmp_path, dead, record="", LLM_MAGIC_RECORD="only") as kernel:
        for name, asked in EVERYTHING.items():
            ran = kernel.run(asked.code, name).check()
            assert (name, shown(ran)) == (name, recorded[name][0])
            assert (name, kernel.value(asked.value)) == (name, recorded[name][1])
            assert not any(message["msg_type"] == "clear_output" for message in ran.messages)
        assert kernel.value("ran") == tools_ran, "tools run again"
    assert len(server.requests) == received
    assert file.read_bytes() == before_replay


def test_off_keeps_nothing(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, record="") as kernel:
        assert answers(kernel, "%%llm -m s:m --once\nHi", "%%llm -m s:m --once\nHi") == ["Answer 1", "Answer 2"]
    assert list(tmp_path.iterdir()) == []


def test_once_asks_only_for_what_is_not_there(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 1"]
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, "%%llm -m s:m --once\nHi", "%%llm -m s:m --once\nHo") == ["Answer 1", "Answer 2"]
        assert kernel.value("_llm.recorded") is False
    assert len(server.asked) == 2
    assert len(lines(tmp_path / "llm.jsonl")) == 2


def test_only_says_who_said_only_and_the_next_step(tmp_path: Path, server: NumberedServer) -> None:
    key = "sk-proj-0123456789abcdef0123456789"
    with session(tmp_path, server.url, "once") as kernel:
        answers(kernel, "%%llm -m s:m --once\nHi")
        assert failed(kernel, "%%llm -m s:m --once --record only\nHo")[1] == (
            "RecordingError: Not recorded, and --record only sends nothing: "
            "the prompt differs: 'Ho', recorded 'Hi'.\nRun it once with --record once."
        )
        kernel.run(f"import os\nos.environ['LLM_MAGIC_RECORD'] = 'only'\nos.environ['MINE_API_KEY'] = '{key}'").check()
        for option in ("", "--record once", "--record new"):
            assert failed(kernel, f"%%llm -m s:m --once {option}\nIt is {{{{ os.environ['MINE_API_KEY'] }}}}")[1] == (
                "RecordingError: Not recorded, and LLM_MAGIC_RECORD=only sends nothing: the prompt differs: "
                "'It is ***', recorded 'Hi'.\nRun it once with LLM_MAGIC_RECORD=once."
            )
        assert "and LLM_MAGIC_RECORD=only sends" in failed(kernel, "%%llm_embed -m s:m\nHo")[1]
        ran = kernel.run("%%llm -m s:m --once --dry-run\nHo").check()
        assert "It is not recorded, and LLM_MAGIC_RECORD=only sends nothing" in ran.outputs[0]["data"]["text/plain"]
    assert len(server.requests) == 1


def test_only_says_what_is_not_there_and_sends_nothing(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        answers(kernel, "%%llm -m s:m -t 0 --once\nHi")
    with session(tmp_path, server.url, "only") as kernel:
        assert answers(kernel, "%%llm -m s:m -t 0 --once\nHi") == ["Answer 1"]
        assert kernel.value("_llm.recorded") is True
        name, text = failed(kernel, "%%llm -m s:m -t 0.2 --once\nHi")
        assert name == "RecordingError"
        assert "temperature" in text
        assert "0.2" in text
        assert "_llm" not in text
        assert kernel.run("LLM('s:m').ask('Never asked')").error_name == "RecordingError"
        assert kernel.run("await LLM('s:m').aask('Never asked')").error_name == "RecordingError"
        assert kernel.run("[e async for e in LLM('s:m').stream('Never asked')]").error_name == "RecordingError"
        assert kernel.run("%llm -m s:m Never asked").error_name == "RecordingError"
        assert kernel.run("%%llm_embed -m s:m\nNever asked").error_name == "RecordingError"
        assert kernel.run("%%llm -m s:\nNever asked").error_name == "RecordingError"
    assert len(server.requests) == 1


def test_only_without_a_file(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, "only") as kernel:
        name, text = failed(kernel, "%%llm -m s:m\nHi")
    assert name == "RecordingError"
    assert "llm.jsonl" in text
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_new_asks_again_and_replaces(tmp_path: Path, server: NumberedServer) -> None:
    twice = ["%%llm -m s:m --once\nHi", "%%llm -m s:m --once\nHi"]
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, *twice) == ["Answer 1", "Answer 2"]
    with session(tmp_path, server.url, "new") as kernel:
        assert answers(kernel, *twice) == ["Answer 3", "Answer 4"]
    with session(tmp_path, DEAD, "only") as kernel:
        assert answers(kernel, *twice) == ["Answer 3", "Answer 4"]
        assert answers(kernel, *reversed(twice)) == ["Answer 3", "Answer 4"]
    assert len(server.asked) == 4


def test_new_replaces_one_of_several(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, *["%%llm -m s:m --once\nHi"] * 3) == ["Answer 1", "Answer 2", "Answer 3"]
        kernel.run("%%llm -m s:m --once --record new\nHi", "cell-1").check()
        assert kernel.value("_llm.text") == "Answer 4"
    with session(tmp_path, DEAD, "only") as kernel:
        assert answers(kernel, *["%%llm -m s:m --once\nHi"] * 3) == ["Answer 1", "Answer 4", "Answer 3"]


DOORS = {
    "%%llm --record": "%%llm -m s:m --once --record {mode}\nHi",
    "%llm --record": "_ = %llm -m s:m --once --record {mode} Hi",
    "LLM.ask": "_llm = LLM('s:m').ask('Hi', record='{mode}')",
    "LLM": "_llm = LLM('s:m', record='{mode}').ask('Hi')",
    "aask": "_llm = await LLM('s:m').aask('Hi', record='{mode}')",
    "stream": "_llm = [e async for e in LLM('s:m').stream('Hi', record='{mode}')][-1].response",
    "params": "get_ipython()._llm_magic.session.settings.params = {{'record': '{mode}'}}\n_llm = LLM('s:m').ask('Hi')",
}


@pytest.mark.parametrize("door", DOORS)
def test_the_mode_of_one_call(door: str, tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, record="") as kernel:
        for mode, text, requests in [
            ("once", "Answer 1", 1), ("only", "Answer 1", 1), ("off", "Answer 2", 2), ("new", "Answer 3", 3),
            ("only", "Answer 3", 3),
        ]:  # fmt: skip
            kernel.run(DOORS[door].format(mode=mode), "the cell").check()
            assert (mode, kernel.value("_llm.text"), len(server.asked)) == (mode, text, requests)
        ran = kernel.run(DOORS[door].format(mode="onse"))
        assert ran.status == "error"
        assert "once" in ran.error
        assert len(server.asked) == 3


def test_a_mode_that_is_none(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, record="") as kernel:
        kernel.run("%config LLMMagics.record = 'onse'")
        assert kernel.value("get_ipython()._llm_magic.session.settings.record") == "off"
    with session(tmp_path, server.url, record="", LLM_MAGIC_RECORD="onse") as kernel:
        ran = kernel.run("%%llm -m s:m\nHi")
        assert ran.status == "error"
        assert "LLM_MAGIC_RECORD" in ran.error
    assert server.requests == []


def test_the_environment_stands_over_the_trait_and_below_the_option(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, "off", LLM_MAGIC_RECORD="once") as kernel:
        assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 1"]
        assert answers(kernel, "%%llm -m s:m --once --record off\nHi") == ["Answer 2"]
    assert len(lines(tmp_path / "llm.jsonl")) == 1
    with session(tmp_path, server.url, "new", LLM_MAGIC_RECORD="only") as kernel:
        for option in ("", "--record off", "--record new", "--record once"):
            assert answers(kernel, f"%%llm -m s:m --once {option}\nHi") == ["Answer 1"]
        assert kernel.run("%%llm -m s:m --once --record new\nNever").error_name == "RecordingError"
        assert kernel.run("LLM('s:m').ask('Never', record='off')").error_name == "RecordingError"
    assert len(server.asked) == 2


def test_a_projects_file_sets_the_mode_where_it_is_trusted(tmp_path: Path, server: NumberedServer) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nrecord = "once"\n')
    for number in range(2):
        with Kernel(LLM_MAGIC_TRUST="1") as kernel:
            kernel.run(SETUP.format(folder=str(tmp_path), url=server.url)).check()
            assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 1"]
            assert kernel.value("_llm.recorded") is bool(number)
    assert len(server.asked) == 1


def test_the_file_of_a_notebook_has_its_name(tmp_path: Path, server: NumberedServer) -> None:
    (tmp_path / "notebooks").mkdir()
    book = str(tmp_path / "notebooks" / "Analysis 1.ipynb")
    with session(tmp_path, server.url, JPY_SESSION_NAME=book) as kernel:
        answers(kernel, "%%llm -m s:m --once\nHi")
    assert len(lines(tmp_path / "notebooks" / "Analysis 1.llm.jsonl")) == 1
    with session(tmp_path / "notebooks", DEAD, "only") as kernel:  # as nbclient, nbval and papermill run it
        assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 1"]
    with session(tmp_path / "notebooks", server.url) as kernel:
        assert answers(kernel, "%%llm -m s:m --once\nHi", "%%llm -m s:m --once\nHo") == ["Answer 1", "Answer 2"]
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir()) == ["Analysis 1.llm.jsonl", "llm.jsonl"]


def test_the_file_that_is_configured(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        kernel.run(f"%config LLMMagics.record_file = {str(tmp_path / 'mine.jsonl')!r}").check()
        answers(kernel, "%%llm -m s:m --once\nHi")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_a_notebook_that_a_program_executes(tmp_path: Path, server: NumberedServer) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    sources = [
        SETUP.format(folder=str(tmp_path), url=server.url), *["%%llm -m s:m -c a\nHi"] * 3, "%%llm -b -m s:m\nLater",
        "[LLM('s:m').ask('In a loop', temperature=1).text for _ in range(3)]",
    ]  # fmt: skip
    books = []
    for mode in ("once", "only", "only"):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
        for number, cell in enumerate(book.cells):
            cell["id"] = f"cell-{number}"
        client = nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
        client.execute(env={**os.environ, "LLM_MAGIC_RECORD": mode})
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            for output in cell.outputs:
                told = output.get("metadata", {}).get("llm_magic", {})
                assert told.pop("recorded", False) is (bool(told) and mode == "only")
        books.append(nbformat.writes(book))
    assert len(server.asked) == 7
    assert books[0] == books[1] == books[2]
    assert "Answer 3" in books[0]


LOOP = "told = [LLM('s:m').ask('A number', temperature=1).text for _ in range(5)]"
FIVE = [f"Answer {number}" for number in range(1, 6)]


def test_equal_prompts_of_one_cell_keep_their_answers(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        for _ in range(2):  # the cell run again gets what it had
            kernel.run(LOOP, "loop").check()
            assert kernel.value("told") == FIVE
    assert len(server.asked) == 5
    for cell_id in ("loop", "another", None):
        with session(tmp_path, DEAD, "only") as kernel:
            kernel.run(LOOP, cell_id).check()
            assert kernel.value("told") == FIVE
            kernel.run(LOOP.replace("range(5)", "range(7)"), cell_id).check()  # past the last, the last one
            assert kernel.value("told")[5:] == ["Answer 5", "Answer 5"]


def test_equal_prompts_of_five_cells_keep_their_answers(tmp_path: Path, server: NumberedServer) -> None:
    five = ["%%llm -m s:m -t 1 --once\nA number"] * 5
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, *five) == FIVE
        kernel.run(five[0], "cell-2").check()
        assert kernel.value("_llm.text") == "Answer 3"
    with session(tmp_path, DEAD, "only") as kernel:
        assert answers(kernel, *five) == FIVE
    with session(tmp_path, DEAD, "only") as kernel:  # in any order each cell has its own
        for number in (3, 0, 4, 1, 2, 3):
            kernel.run(five[0], f"cell-{number}").check()
            assert kernel.value("_llm.text") == f"Answer {number + 1}"
    with session(tmp_path, DEAD, "only") as kernel:  # cells that nobody knows take them as they come
        for number in range(5):
            kernel.run(five[0], f"unknown {number}").check()
            assert kernel.value("_llm.text") == f"Answer {number + 1}"
        kernel.run(five[0], "one more").check()
        assert kernel.value("_llm.text") == "Answer 5"
    assert len(server.asked) == 5


def test_past_the_last_one_more_is_asked_for_and_kept(tmp_path: Path, server: NumberedServer) -> None:
    ask = "%%llm -m s:m -t 1 --once\nA number"
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, ask, ask) == ["Answer 1", "Answer 2"]
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, ask, ask, ask) == ["Answer 1", "Answer 2", "Answer 3"]
    with session(tmp_path, DEAD, "only") as kernel:
        assert answers(kernel, ask, ask, ask, ask) == ["Answer 1", "Answer 2", "Answer 3", "Answer 3"]
    assert len(server.asked) == 3


@pytest.mark.parametrize("option", ["-t 0", "--seed 7"])
def test_a_deterministic_request_has_one_answer(option: str, tmp_path: Path, server: NumberedServer) -> None:
    ask = f"%%llm -m s:m {option} --once\nA number"
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, ask, ask) == ["Answer 1", "Answer 1"]
    with session(tmp_path, server.url) as kernel:
        assert answers(kernel, ask, ask, ask) == ["Answer 1"] * 3
    assert len(server.asked) == 1


def test_many_at_once_keep_an_answer_each(tmp_path: Path, server: NumberedServer) -> None:
    gather = (
        "import asyncio\n"
        "told = [r.text for r in await asyncio.gather(*(LLM('s:m').aask(f'Number {n % 10}') for n in range(40)))]"
    )
    with session(tmp_path, server.url) as kernel:
        kernel.run(gather, "many").check()
        told = kernel.value("told")
    assert len(set(told)) == len(server.asked) == len(lines(tmp_path / "llm.jsonl")) == 40
    with session(tmp_path, DEAD, "only") as kernel:
        kernel.run(gather, "many").check()
        assert sorted(kernel.value("told")) == sorted(told)
        assert all(set(kernel.value("told")[number::10]) == set(told[number::10]) for number in range(10))


def test_streams_and_whole_answers_share_their_recordings(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        answers(kernel, "%%llm -m s:m --once\nStreamed", "%%llm -m s:m --once --no-stream\nWhole")
    with session(tmp_path, DEAD, "only") as kernel:
        codes = "%%llm -m s:m --once --no-stream\nStreamed", "%%llm -m s:m --once\nWhole"
        assert answers(kernel, *codes) == ["Answer 1", "Answer 2"]


def test_tools_run_again_unless_they_are_recorded(tmp_path: Path, server: NumberedServer) -> None:
    ask = "%%llm -m s:m --tools f --once --record-tools\nUse a tool"
    with session(tmp_path, server.url) as kernel:
        answers(kernel, ask)
        assert kernel.value("(ran, _llm.tool_calls[0].result)") == ([1], "2")
    with session(tmp_path, DEAD, "only") as kernel:
        answers(kernel, ask)
        assert kernel.value("(ran, _llm.tool_calls[0].result)") == ([], "2")
        assert kernel.value("_llm.text") == "Answer 2"


def test_a_tool_that_says_something_else_is_another_request(tmp_path: Path, server: NumberedServer) -> None:
    ask = "%%llm -m s:m --tools f --once\nUse a tool"
    with session(tmp_path, server.url) as kernel:
        answers(kernel, ask)
    with session(tmp_path, DEAD, "only") as kernel:
        kernel.run("ran.append(0)").check()
        name, text = failed(kernel, ask)
        assert name == "RecordingError"
        assert text.endswith(
            "message 3 (the result of f) differs.\n"
            "A tool may have said something else. Run it once with --record once and --record-tools."
        )


def test_the_background(tmp_path: Path, server: NumberedServer) -> None:
    ask = "%%llm -b -m s:m -o later --once\nIn the background"
    found = []
    for url, mode in ((server.url, "once"), (DEAD, "only")):
        with session(tmp_path, url, mode) as kernel:
            ran = kernel.run(ask, "job").check()
            kernel.run("job = _; job.result()").check()
            kernel.run("pass").check()
            found.append((kernel.outputs_of(ran.request, "text/markdown")[-1:], kernel.value("later")))
            assert kernel.value("_llm.recorded") is (mode == "only")
    assert found[0] == found[1]
    assert found[0][1] == "Answer 1"
    assert len(server.asked) == 1


def test_a_url_of_the_call_is_part_of_what_was_asked(tmp_path: Path) -> None:
    with NumberedServer() as server, session(tmp_path, DEAD) as kernel:
        ask = f"%%llm -m s:m --once --base-url {server.url}\nHi"
        answers(kernel, ask)
        port = str(server.port)
    with session(tmp_path, DEAD, "only") as kernel:
        assert answers(kernel, ask) == ["Answer 1"]
        assert failed(kernel, "%%llm -m s:m --once\nHi")[0] == "RecordingError"
        assert failed(kernel, ask.replace("/v1", "/v2"))[0] == "RecordingError"
    text = (tmp_path / "llm.jsonl").read_text()
    assert "127.0.0.1" not in text
    assert port not in text.replace('"at"', "")


NOT_KEPT = {
    "a failure": ("%%llm -m s:m --once\nFAIL", "error", 1),
    "one that broke off": ("%%llm -m s:m --once\nBREAK", "error", 1),
    "one that was cut": ("%%llm -m s:m --once\nCUT", "ok", 1),
    "one that was filtered": ("%%llm -m s:m --once\nFILTERED", "ok", 1),
    "a refusal of a typed value": ("%%llm -m s:m --once --as int\nREFUSE", "error", 1),
    "an invalid value": ("%%llm -m s:m --once --as int --retries-invalid 0\nnone", "error", 1),
    "a cut value": ("%%llm -m s:m --once --as list[int]\nCUT", "error", 1),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_is_no_answer_is_asked_for_again(name: str, tmp_path: Path, server: NumberedServer) -> None:
    code, status, requests = NOT_KEPT[name]
    with session(tmp_path, server.url) as kernel:
        for times in (1, 2):
            assert kernel.run(code, "cell").status == status
            assert len(server.asked) == times * requests
    file = tmp_path / "llm.jsonl"
    assert not file.exists() or lines(file) == []


def test_an_invalid_value_leaves_nothing_of_what_was_asked_again(tmp_path: Path, server: NumberedServer) -> None:
    code = "%%llm -m s:m --once --as 'Literal[\"never\"]' --retries-invalid 1\nINVALID"
    with session(tmp_path, server.url) as kernel:
        assert kernel.run("from typing import Literal").status == "ok"
        assert kernel.run(code, "cell").error_name == "InvalidValueError"
        assert len(server.asked) == 2
        assert kernel.run(code, "cell").error_name == "InvalidValueError"
    file = tmp_path / "llm.jsonl"
    kept = lines(file) if file.exists() else []
    assert len(kept) <= 1, "at most the first, which led to being asked again"


def test_an_interrupted_answer_is_not_kept(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url) as kernel:
        request = kernel.start("%%llm -m s:m --once\nHANG", "cell")
        wait_for(server, 1)
        kernel.interrupt()
        assert kernel.collect(request).status == "error"
        answers(kernel, "%%llm -m s:m --once\nHi")
    (entry,) = lines(tmp_path / "llm.jsonl")
    assert json.dumps(entry).count("Answer 2") == 1


def test_an_interrupted_loop_keeps_what_was_whole(tmp_path: Path, server: NumberedServer) -> None:
    loop = "told = []\nfor n in range(3):\n    told.append(LLM('s:m').ask('HANG' if n == 2 else f'Number {n}').text)"
    with session(tmp_path, server.url) as kernel:
        request = kernel.start(loop, "loop")
        wait_for(server, 3)
        kernel.interrupt()
        assert kernel.collect(request).status == "error"
    assert len(lines(tmp_path / "llm.jsonl")) == 2
    with session(tmp_path, DEAD, "only") as kernel:
        assert kernel.run(loop, "loop").error_name == "RecordingError"
        assert kernel.value("told") == ["Answer 1", "Answer 2"]


def test_two_kernels_share_one_file(tmp_path: Path, server: NumberedServer) -> None:
    loop = "told = [LLM('s:m').ask(f'{who} {n}').text for n in range(30)]\nsame = LLM('s:m').ask('Same').text"
    with session(tmp_path, server.url) as one, session(tmp_path, server.url) as two:
        requests = [(kernel, kernel.start(f"who = {name!r}\n{loop}")) for kernel, name in ((one, "a"), (two, "b"))]
        told = []
        for kernel, request in requests:
            kernel.collect(request).check()
            told.append(kernel.value("(told, same)"))
    assert len(lines(tmp_path / "llm.jsonl")) == len(server.asked)
    for name, before in zip("ab", told, strict=True):
        with session(tmp_path, DEAD, "only") as kernel:
            kernel.run(f"who = {name!r}\n{loop}").check()
            assert kernel.value("told") == before[0]
            assert kernel.value("same") in {told[0][1], told[1][1]}


def test_a_mode_that_is_changed_in_the_session(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, server.url, "off") as kernel:
        answers(kernel, "%%llm -m s:m --once\nHi")
        kernel.run("%config LLMMagics.record = 'once'").check()
        assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 2"]
        kernel.run("%config LLMMagics.record = 'only'").check()
        assert answers(kernel, "%%llm -m s:m --once\nHi") == ["Answer 2"]
        requests = "[(row.requests, row.recorded, row.input_tokens) for row in __import__('llm_magic').usage()]"
        assert kernel.value(requests) == [(2, 1, 14)], "what was replayed was not used again"
    assert len(server.asked) == 2
