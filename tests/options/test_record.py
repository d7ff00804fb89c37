"""Recordings through each door: whichever says so, the answer is recorded, and then given without a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Ran
from servers import Received, ScriptedServer, document
from traitlets import TraitError

from llm_magic.config.settings import Settings

FILE = "llm.jsonl"


def answer(request: Received) -> object:
    """Answer with a number that grows, or with a vector."""
    if request.path.endswith("/embeddings"):
        vectors = [{"index": at, "embedding": [1.0, 2.0]} for at, _ in enumerate(request.json["input"])]
        return document({"object": "list", "data": vectors, "model": "m", "usage": {"prompt_tokens": 1}})
    message = {"role": "assistant", "content": str(request.json.get("seed", "answer"))}
    return document({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def server(kernel: Kernel, folder: Path) -> Iterator[ScriptedServer]:
    kernel.run("import os; os.environ.pop('LLM_MAGIC_RECORD', None)").check()
    kernel.run("%config LLMMagics.params = {}\n%config LLMMagics.model_params = {}").check()
    kernel.run("%config LLMMagics.record = 'off'\n%reload_ext llm_magic").check()
    with ScriptedServer(answer) as server:  # type: ignore[arg-type]  # an answer
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'\n%config LLMMagics.stream = False").check()
        kernel.run("from llm_magic import LLM").check()
        yield server


DOORS = {
    "a cell": ("", "%%llm --once --record once\nHi"),
    "a line": ("", "%llm --once --record once -- Hi"),
    "a line with a value": ("", "x = %llm --once --record=once Hi"),
    "in the background": ("", "%%llm -b --once --record once\nHi"),
    "ask": ("", "_llm = LLM('s:m').ask('Hi', record='once')"),
    "LLM": ("", "_llm = LLM('s:m', record='once').ask('Hi')"),
    "aask": ("", "_llm = await LLM('s:m').aask('Hi', record='once')"),
    "stream": ("", "async for each in LLM('s:m').stream('Hi', record='once'): _llm = getattr(each, 'response', None)"),
    "%config": ("%config LLMMagics.record = 'once'", "%%llm --once\nHi"),
    "%config, asked from Python": ("%config LLMMagics.record = 'once'", "_llm = LLM('s:m').ask('Hi')"),
    "%llm_config": ("%llm_config record=once", "%%llm --once\nHi"),
    "params": ("%config LLMMagics.params = {'record': 'once'}", "%%llm --once\nHi"),
    "model_params": ("%config LLMMagics.model_params = {'s:*': {'record': 'once'}}", "%%llm --once\nHi"),
    "an alias": (
        "get_ipython()._llm_magic.registry.aliases = {'mine': {'model': 's:m', 'record': 'once'}}",
        "%%llm --once -m mine\nHi",
    ),
    "the variable": ("%env LLM_MAGIC_RECORD=once", "%%llm --once\nHi"),
    "the variable, asked from Python": ("%env LLM_MAGIC_RECORD=once", "_llm = LLM('s:m').ask('Hi')"),
}


@pytest.mark.parametrize("door", DOORS)
def test_it_is_recorded_and_given_again(kernel: Kernel, server: ScriptedServer, folder: Path, door: str) -> None:
    before, code = DOORS[door]
    if before:
        kernel.run(before).check()
    for recorded in (False, True):
        kernel.run(code, "cell").check()
        if door == "in the background":
            kernel.run("_.result(20)").check()
        assert kernel.value("(_llm.text, _llm.recorded)") == ("answer", recorded)
    assert len(server.requests) == 1
    (line,) = (folder / FILE).read_text().splitlines()
    assert json.loads(line)["answer"]["choices"][0]["text"] == "answer"


EMBEDDINGS = {
    "a cell": ("", "%%llm_embed -m s:m --record once -o v\nsea"),
    "embed": ("", "v = LLM('s:m').embed(['sea'], record='once')"),
    "LLM": ("", "v = LLM('s:m', record='once').embed(['sea'])"),
    "%config": ("%config LLMMagics.record = 'once'", "%%llm_embed -m s:m -o v\nsea"),
    "the variable": ("%env LLM_MAGIC_RECORD=once", "v = LLM('s:m').embed(['sea'])"),
}


@pytest.mark.parametrize("door", EMBEDDINGS)
def test_vectors_are_recorded_and_given_again(kernel: Kernel, server: ScriptedServer, folder: Path, door: str) -> None:
    before, code = EMBEDDINGS[door]
    if before:
        kernel.run(before).check()
    for _ in range(2):
        kernel.run(code, "cell").check()
        assert kernel.value("[list(map(float, each)) for each in v]") == [[1.0, 2.0]]
    assert len(server.requests) == 1
    (line,) = (folder / FILE).read_text().splitlines()
    assert json.loads(line)["asked"]["kind"] == "embeddings"


def test_off_is_off(kernel: Kernel, server: ScriptedServer, folder: Path) -> None:
    kernel.run("%%llm --once\nHi").check()
    kernel.run("%config LLMMagics.record = 'once'").check()
    kernel.run("%%llm --once --record off\nHi").check()
    kernel.run("LLM('s:m').ask('Hi', record='off')").check()
    assert len(server.requests) == 3
    assert list(folder.iterdir()) == []


def failed(ran: Ran) -> str:
    assert ran.status == "error"
    (shown,) = [output for output in ran.outputs if output["output_type"] == "error"]
    assert len(shown["traceback"]) <= 2
    return f"{ran.error_name}: {' '.join(shown['traceback'])}"


TOOL = "def f() -> str:\n    'F.'\n    return ''"


@pytest.mark.parametrize(
    ("before", "code", "words"),
    [
        ("", "%%llm --record onse\nHi", "--record takes one of off, once, only, new"),
        ("", "%%llm --record\nHi", "--record"),
        ("", "%%llm --record once --record new\nHi", "--record"),
        ("", "LLM('s:m').ask('Hi', record='onse')", "record"),
        ("", "LLM('s:m').ask('Hi', record=True)", "record"),
        ("", "LLM('s:m', record=None, record_tools='yes')", "record_tools"),
        ("", "LLM('s:m').ask('Hi', recrod='once')", "record"),
        ("", "LLM('s:m').embed(['Hi'], record='onse')", "record"),
        ("", "%%llm --record-tools\nHi", "--record-tools needs --tools"),
        (TOOL, "%%llm --tools f --record-tools\nHi", "--record-tools needs --record"),
        (TOOL, "LLM('s:m').ask('Hi', tools=[f], record_tools=True)", "record_tools=True needs record="),
        ("", "%%llm --tools f --tool-choice none --record-tools --record once\nHi", "exclude each other"),
        ("%config LLMMagics.params = {'record': 'onse'}", "%%llm\nHi", "LLMMagics.params: record must be"),
        ("%env LLM_MAGIC_RECORD=onse", "%%llm\nHi", "LLM_MAGIC_RECORD is 'onse', which is no mode. Did you mean once"),
        ("%env LLM_MAGIC_RECORD=onse", "LLM('s:m').ask('Hi')", "LLM_MAGIC_RECORD is 'onse'"),
        ("%env LLM_MAGIC_RECORD=onse", "LLM('s:m').embed(['Hi'])", "LLM_MAGIC_RECORD is 'onse'"),
    ],
)  # fmt: skip
def test_wrong(kernel: Kernel, server: ScriptedServer, before: str, code: str, words: str) -> None:
    if before:
        kernel.run(before).check()
    assert words in failed(kernel.run(code))
    assert server.requests == []
    assert kernel.value("os.listdir()") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("record", "onse"), ("record", True), ("record_file", None), ("replay_pace", -1), ("replay_pace", "fast"),
        ("replay_pace", float("nan")), ("replay_pace", float("inf")),
    ],
)  # fmt: skip
def test_wrong_settings(name: str, value: object) -> None:
    with pytest.raises(TraitError, match=name):
        setattr(Settings(), name, value)


def test_a_dry_run_says_what_would_be(kernel: Kernel, server: ScriptedServer, folder: Path) -> None:
    def shown(line: str) -> str:
        return "".join(kernel.run(f"%%llm --once --dry-run {line}\nHi").check().of_type("text/plain"))

    assert "record" not in shown("")
    assert "It would be sent, and its answer recorded." in shown("--record once")
    assert "the cell would fail" in shown("--record only")
    assert list(folder.iterdir()) == []
    kernel.run("%%llm --once -t 0 --record once\nHi").check()
    assert "It is recorded: the answer would come from the recordings" in shown("-t 0 --record once")
    assert "It is recorded: the answer would come from the recordings" in shown("-t 0 --record only")
    assert "It would be sent, and its answer recorded." in shown("-t 0 --record new")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("magic", "flags"), [("llm", ["--record MODE", "--record-tools"]), ("llm_embed", ["--record MODE"])]
)
def test_help_lists_them(kernel: Kernel, magic: str, flags: list[str]) -> None:
    ran = kernel.run(f"%%{magic} --help\nx").check()
    page = ran.stdout + "".join(ran.of_type("text/plain"))
    assert [flag for flag in flags if flag not in page] == []


def test_a_file_of_a_project_waits_for_trust(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.llm_magic]\nrecord = 'once'\nreplay_pace = 2\n")
    with ScriptedServer(answer) as server, Kernel(HOME=str(folder / "home")) as kernel:
        kernel.run(f"import os; os.chdir({str(folder)!r})").check()
        kernel.run("%load_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        first = kernel.run("%%llm --once -m s:m\nHi").check()
        assert "record" in str(first.outputs)
        assert not (folder / FILE).exists()
        assert kernel.value("get_ipython()._llm_magic.session.settings.replay_pace") == 2.0
        kernel.run("%llm_config trust", on_input=lambda _: "y").check()
        kernel.run("%%llm --once -m s:m\nHi", "cell").check()
        kernel.run("%%llm --once -m s:m\nHi", "cell").check()
        assert kernel.value("_llm.recorded") is True
        assert len(server.requests) == 2
