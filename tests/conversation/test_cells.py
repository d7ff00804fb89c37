"""Cells and their turns in a real kernel: what leaves no turn behind, the order of turns, and what is said of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel, Ran
from servers import HANG, Answer, Received, ScriptedServer, chunk, document, stream
from shown import plain


def answer(request: Received) -> Answer:
    """Answer with the prompt; `slow N` takes N tenths of a second, `fail` fails."""
    said = request.json["messages"][-1]["content"]
    if "fail" in said:
        return document({"error": {"message": "melted"}}, status=400)
    wait = float(said.split("slow ")[1]) / 10 if "slow" in said else 0.0
    return stream(chunk(f"re {said}"), wait, chunk(finish="stop"))


@pytest.fixture
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        begin(kernel, server)
        yield server


def begin(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%reload_ext llm_magic\nsession = get_ipython()._llm_magic.session").check()
    kernel.run(f"session.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
    kernel.run("%config LLMMagics.model = 's:m'\n%config LLMMagics.chat_file = ''").check()


def prompts(kernel: Kernel, chat: str = "main") -> list[str]:
    """Return the prompts that a conversation holds, in their order."""
    code = f"[turn.messages[0].text for turn in session.conversations.get({chat!r}).turns()]"
    found: list[str] = kernel.value(code)
    return found


def contents(request: Received) -> list[str]:
    return [message["content"] for message in request.json["messages"]]


def sent(server: ScriptedServer) -> list[str]:
    return contents(server.requests[-1])


@pytest.mark.parametrize(
    "code",
    [
        "%%llm --once\nB",
        "%llm --once B",
        "%%llm -c other\nB",
        "print('B')",
        "# B",
        "%%time\n1 + 1",
        "%%bash\ntrue",
        "%llm_chat list",
        "await __import__('asyncio').sleep(0)",
        "'%llm B is a prompt'",
        "1 / 0",
        "raise SystemExit",
        "get_ipython().run_cell('1 + 1');",
    ],
)
def test_a_cell_that_became_something_else_leaves_no_turn(kernel: Kernel, server: ScriptedServer, code: str) -> None:
    for name in "abc":
        kernel.run(f"%%llm\n{name}", cell_id=name).check()
    kernel.run(code, cell_id="b")
    kernel.run("%%llm\nd", cell_id="d").check()
    assert sent(server) == ["a", "re a", "c", "re c", "d"]
    assert prompts(kernel, "other") == (["B"] if "-c" in code else [])
    kernel.run("%%llm\nback", cell_id="b").check()
    assert sent(server) == ["a", "re a", "c", "re c", "d", "re d", "back"]
    assert prompts(kernel, "other") == []


@pytest.mark.parametrize(
    "code",
    [
        "%%llm\nfail",
        "%%llm --modle x\nB",
        "%%llm --once\nfail",
        "%%llm -c other\nfail",
        "%%llm\n{{ nothing_like_it }}",
        "%%lm\nB",
        "%lm B",
        "B B",
        "%%llm --dry-run\nB",
        "%%llm --once --dry-run\nB",
        "%%llm --help\n",
        "%llm --help",
        "1 / 0\n%llm B",
        "try:\n    get_ipython().run_line_magic('llm', '--modle B')\nexcept Exception: pass",
    ],
)
def test_a_prompt_that_failed_leaves_the_conversation_as_it_was(
    kernel: Kernel, server: ScriptedServer, code: str
) -> None:
    for name in "abc":
        kernel.run(f"%%llm\n{name}", cell_id=name).check()
    kernel.run(code, cell_id="b")
    assert prompts(kernel) == ["a", "b", "c"]


def test_an_interrupted_prompt_leaves_the_conversation_as_it_was(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm\na", cell_id="a").check()
    server.script[:] = [stream(chunk("Begun"), HANG, done=False)]
    for number, line in enumerate(("%%llm", "%%llm --once", "%%llm -c other"), 2):
        request = kernel.start(f"{line}\nlong", cell_id="a")
        while len(server.requests) < number:
            time.sleep(0.01)
        kernel.interrupt()
        assert kernel.collect(request).error_name == "Interrupted"
        assert prompts(kernel) == ["a"]


def test_two_prompts_that_are_one_now(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("x = %llm one\ny = %llm two", cell_id="a").check()
    kernel.run("%%llm\nb", cell_id="b").check()
    kernel.run("y = %llm two", cell_id="a").check()
    assert sent(server) == ["two"]
    assert prompts(kernel) == ["two", "b"]
    kernel.run("x = %llm --once one\ny = %llm two\nz = %llm three", cell_id="a").check()
    assert sent(server) == ["two", "re two", "three"]
    kernel.run("x = %llm one\ny = %llm --once two", cell_id="a").check()
    assert prompts(kernel) == ["one", "b"]
    kernel.run("x = %llm -c other one\ny = %llm two", cell_id="a").check()
    assert (prompts(kernel), prompts(kernel, "other")) == (["two", "b"], ["one"])
    kernel.run("y = %llm two", cell_id="a").check()
    assert (prompts(kernel), prompts(kernel, "other")) == (["two", "b"], [])


def test_a_prompt_within_other_code_of_its_cell(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("get_ipython().run_cell('%llm one', store_history=True); get_ipython().run_cell('2')\n%llm two", "a")
    kernel.run("%%time\n%llm three", "b").check()
    assert prompts(kernel) == ["one", "two", "three"]
    kernel.run("get_ipython().run_cell('%llm one');", "a").check()
    assert prompts(kernel) == ["one", "three"]


def test_where_an_alias_or_the_parameters_of_all_say_it(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("session.registry.aliases = {'aside': {'model': 's:m', 'chat': 'other'}, 'lone': {'model': 's:m', "
               "'once': True}}").check()  # fmt: skip
    kernel.run("%%llm\na", cell_id="a").check()
    kernel.run("%%llm -m aside\nb", cell_id="b").check()
    kernel.run("%%llm -m aside\nc", cell_id="c").check()
    assert sent(server) == ["b", "re b", "c"]
    assert (prompts(kernel), prompts(kernel, "other")) == (["a"], ["b", "c"])
    kernel.run("%%llm -m lone\nb", cell_id="b").check()
    assert (prompts(kernel), prompts(kernel, "other")) == (["a"], ["c"])
    kernel.run("%config LLMMagics.params = {'once': True}").check()
    kernel.run("%%llm\na", cell_id="a").check()
    assert prompts(kernel) == []
    kernel.run("%%llm -c other\nd", cell_id="d").check()
    assert sent(server) == ["c", "re c", "d"]
    assert prompts(kernel, "other") == ["c", "d"]
    kernel.run("%config LLMMagics.params = {}").check()


@pytest.mark.parametrize("kept", [False, True])
def test_background_turns_stand_as_they_were_begun(
    kernel: Kernel, server: ScriptedServer, tmp_path: Path, kept: bool
) -> None:
    if kept:
        kernel.run(f"%config LLMMagics.chat_file = {str(tmp_path / 'chats.sqlite')!r}").check()
    kernel.run("one = %llm -b slow 6", cell_id="a").check()
    kernel.run("two = %llm -b slow 2 fail", cell_id="b").check()
    kernel.run("three = %llm -b slow 1", cell_id="c").check()
    kernel.run("%%llm\nat once", cell_id="d").check()
    (at_once,) = [found for request in server.requests if (found := contents(request))[-1] == "at once"]
    assert at_once in (["at once"], ["slow 1", "re slow 1", "at once"])
    kernel.run("three.result(); one.result()").check()
    assert prompts(kernel) == ["slow 6", "slow 1", "at once"]
    kernel.run("%%llm\nC", cell_id="c").check()
    assert sent(server) == ["slow 6", "re slow 6", "C"]
    kernel.run("%%llm\nB", cell_id="b").check()
    assert prompts(kernel) == ["slow 6", "C", "at once", "B"]
    if kept:
        begin(kernel, server)
        kernel.run(f"%config LLMMagics.chat_file = {str(tmp_path / 'chats.sqlite')!r}").check()
        kernel.run("late = %llm -b slow 3", cell_id="c").check()
        kernel.run("%%llm\nE", cell_id="e").check()
        kernel.run("late.result()").check()
        assert prompts(kernel) == ["slow 6", "slow 3", "at once", "B", "E"]


@pytest.mark.parametrize(
    ("code", "kept"), [("%%llm --once\nA", []), ("a = 1", []), ("%%llm\nA", ["A"]), ("%%llm\nfail", ["slow 4"])]
)
def test_a_background_cell_that_was_run_again_meanwhile(
    kernel: Kernel, server: ScriptedServer, code: str, kept: list[str]
) -> None:
    kernel.run("job = %llm -b slow 4", cell_id="a").check()
    kernel.run(code, cell_id="a")
    kernel.run("job.result()").check()
    assert prompts(kernel) == kept


def test_two_background_prompts_of_one_cell(kernel: Kernel, server: ScriptedServer) -> None:
    for texts in (("slow 4", "slow 1"), ("slow 5", "slow 0")):
        kernel.run("\n".join(f"job{n} = %llm -b {text}" for n, text in enumerate(texts)), cell_id="a").check()
        kernel.run("job0.result(), job1.result()").check()
        assert prompts(kernel) == list(texts)


def test_the_model_that_answered(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("session.registry.add('gone', 'compatible', base_url='http://127.0.0.1:9/v1', max_retries=0)").check()
    kernel.run("session.registry.aliases = {'careful': {'model': 'gone:m', 'fallbacks': ['s:second']}}").check()
    kernel.run("%%llm -m careful\na", cell_id="a").check()
    assert "turn 1 of 1 · s:second · " in plain(kernel.run("%llm_chat show"))
    assert " s:second " in plain(kernel.run("%llm_chat list"))


def test_the_name_of_a_providers_first_model(kernel: Kernel, vllm_url: str, server: ScriptedServer) -> None:
    kernel.run(f"session.registry.add('v', 'vllm', base_url={vllm_url!r})").check()
    kernel.run("%llm -m v: --max-tokens 2 a", cell_id="a").check()
    assert "turn 1 of 1 · v:smollm2 · " in plain(kernel.run("%llm_chat show"))


def test_llm_ask_appends(kernel: Kernel, server: ScriptedServer) -> None:
    for _ in range(2):
        kernel.run("from llm_magic import LLM; LLM().ask('a', chat='talk').text", cell_id="a").check()
    assert sent(server) == ["a", "re a", "a"]
    assert prompts(kernel, "talk") == ["a", "a"]


# What is said

RESTARTED = (
    "The kernel was started anew: the model does not know the 2 answers above. Run those cells again; "
    "LLMMagics.chat_file keeps conversations over restarts."
)


def notes(ran: Ran) -> list[str]:
    """Return what stands between the answer and the line below it."""
    return ran.check().of_type("text/plain")[1:-1]


def cell(source: str, name: str, *, answered: bool = True, failed: bool = False, kind: str = "code") -> dict[str, Any]:
    output = {
        "output_type": "display_data",
        "data": {"text/plain": "re"},
        "metadata": {"llm_magic": {"model": "s:m"}} if answered else {},
    }
    error = {"output_type": "error", "ename": "Interrupted", "evalue": "", "traceback": []}
    more = {"outputs": [output, *([error] if failed else [])], "execution_count": 1} if kind == "code" else {}
    return {"cell_type": kind, "id": name, "metadata": {}, "source": source.splitlines(keepends=True)} | more


CELLS = [
    cell("# Title", "title", kind="markdown"),
    cell("%load_ext llm_magic", "load", answered=False),
    cell("%%llm\nA", "a"),
    cell("%%llm -t 0 --once\nB", "b"),
    cell("%%llm\nF", "f", failed=True),
    cell("%%llm\nC", "c"),
    cell("%%llm\nD", "d"),
    cell("%%llm\nE", "e"),
]


@pytest.fixture
def file(server: ScriptedServer, kernel: Kernel, tmp_path: Path) -> Iterator[Path]:
    """The notebook's file, as Jupyter's server tells it."""
    path = tmp_path / "work.ipynb"
    path.write_text(json.dumps({"cells": CELLS, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    kernel.run(f"import os; os.environ['JPY_SESSION_NAME'] = {str(path)!r}").check()
    yield path
    kernel.run("del os.environ['JPY_SESSION_NAME']; globals().pop('__vsc_ipynb_file__', None);").check()


def test_answers_of_an_earlier_kernel_are_said_once(kernel: Kernel, file: Path) -> None:
    kernel.run("1 + 1", "load").check()
    assert notes(kernel.run("%%llm --once\nX", "x")) == []
    kernel.run("%%llm --dry-run\nD", "d").check()
    assert notes(kernel.run("%%llm\nD", "d")) == [RESTARTED]
    assert notes(kernel.run("%%llm\nE", "e")) == []
    assert notes(kernel.run("%%llm\nD", "d")) == []


@pytest.mark.parametrize(
    ("name", "code", "number"),
    [
        ("a", "%%llm\nA", 0),  # Run All
        ("c", "%%llm\nC", 1),
        ("new", "%%llm\nnew", 4),
        ("vscode-notebook-cell:/work.ipynb#W0", "%%llm\nD", 2),
        ("e", "%%llm\nchanged since", 3),
    ],
)
def test_only_answers_above_are_counted(kernel: Kernel, file: Path, name: str, code: str, number: int) -> None:
    which = {0: "", 1: "the answer above. Run that cell again"}.get(
        number, f"the {number} answers above. Run those cells"
    )
    said = notes(kernel.run(code, name))
    assert len(said) == bool(number)
    assert all(which in note for note in said)


def test_the_file_that_vs_code_tells(kernel: Kernel, file: Path) -> None:
    kernel.run(f"del os.environ['JPY_SESSION_NAME']; __vsc_ipynb_file__ = {str(file)!r}").check()
    assert notes(kernel.run("%%llm\nD", "vscode-notebook-cell:x")) == [RESTARTED]
    kernel.run("os.environ['JPY_SESSION_NAME'] = ''").check()


def test_a_background_cell_says_it_too(kernel: Kernel, file: Path) -> None:
    ran = kernel.run("%%llm -b\nD", "d").check()
    kernel.run("_.result()").check()
    kernel.run("1").check()
    assert RESTARTED in kernel.outputs_of(ran.request, "text/plain")


def test_where_nothing_is_to_be_said(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    assert notes(kernel.run("%%llm\nD", "d", allow_stdin=False)) == []  # executed by a program
    kernel.run("%reload_ext llm_magic\nsession = get_ipython()._llm_magic.session").check()


def test_a_file_of_conversations_says_it_only_where_it_is_empty(
    kernel: Kernel, file: Path, server: ScriptedServer, tmp_path: Path
) -> None:
    chats = str(tmp_path / "chats.sqlite")
    kernel.run(f"%config LLMMagics.chat_file = {chats!r}").check()
    assert notes(kernel.run("%%llm\nD", "d")) == [
        "The kernel was started anew: the model does not know the 2 answers above. Run those cells again."
    ]
    begin(kernel, server)
    kernel.run(f"%config LLMMagics.chat_file = {chats!r}").check()
    assert notes(kernel.run("%%llm\nE", "e")) == []


def test_without_history_it_is_of_no_use(kernel: Kernel, file: Path) -> None:
    kernel.run("%config LLMMagics.history_turns = 0").check()
    assert notes(kernel.run("%%llm\nD", "d")) == []
    kernel.run("%config LLMMagics.history_turns = 20").check()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def huge(path: Path) -> None:
    content = path.read_bytes()
    with path.open("wb") as opened:
        opened.write(content[:-1])
        opened.write(b" " * (33 * 2**20))
        opened.write(b"}")


def writing(content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda path: path.write_bytes(data)


ANSWER = '"outputs": [{"metadata": {"llm_magic": {}}}]'


@pytest.mark.parametrize(
    "spoil",
    [
        pipe,
        link_to_itself,
        huge,
        Path.unlink,
        writing('not JSON, but "llm_magic"'),
        writing(b'\xff\xfe"llm_magic"\0'),
        writing('["llm_magic"]'),
        writing('{"cells": {"llm_magic": 1}}'),
        writing('{"cells": ["llm_magic", null, 1]}'),
        writing(f'{{"cells": [{{"cell_type": "code", {ANSWER}}}]}}'),
        writing(f'{{"cells": [{{"cell_type": "code", "source": [1], {ANSWER}}}]}}'),
        writing('{"cells": [{"cell_type": "code", "source": "", "outputs": [{"metadata": ["llm_magic"]}]}]}'),
        writing('{"cells": [{"cell_type": "code", "source": "", "outputs": [{"metadata": {"llm_magic": null}}]}]}'),
        writing('"llm_magic"' + "[" * 100_000),
        writing('{"cells": ' + "[" * 100_000 + '"llm_magic"' + "]" * 100_000 + "}"),
    ],
)
def test_whatever_lies_there_hurts_no_cell(kernel: Kernel, file: Path, spoil: Callable[[Path], object]) -> None:
    spoil(file)
    assert notes(kernel.run("%%llm\nD", "d", timeout=20)) == []


@pytest.mark.parametrize(
    "told", ["'x\\0.ipynb'", "3", "'/dev/zero'", "'/etc/passwd'", "''", "'\\ud800.ipynb'", "object()"]
)
def test_whatever_is_told_hurts_no_cell(kernel: Kernel, server: ScriptedServer, told: str) -> None:
    kernel.run(f"__vsc_ipynb_file__ = {told}").check()
    assert notes(kernel.run("%%llm\nD", "d", timeout=20)) == []
    kernel.run("del __vsc_ipynb_file__").check()


def test_a_link_to_the_notebook_is_the_notebook(kernel: Kernel, file: Path) -> None:
    file.rename(file.with_name("real.ipynb"))
    file.symlink_to("real.ipynb")
    assert notes(kernel.run("%%llm\nD", "d")) == [RESTARTED]


REPEATED = (
    "This prompt is there as a turn already, and is sent along: this front end does not tell which cell runs, so each "
    "run is a new turn. %llm_chat drop N forgets one."
)


def test_without_names_of_cells_a_prompt_run_again_is_said_to_be_a_turn_once(
    kernel: Kernel, server: ScriptedServer
) -> None:
    assert notes(kernel.run("%%llm\na")) == []
    assert notes(kernel.run("%%llm\nb")) == []
    assert notes(kernel.run("%%llm --once\na")) == []
    assert notes(kernel.run("%%llm -c other\na")) == []
    assert notes(kernel.run("%%llm\na")) == [REPEATED]
    assert sent(server) == ["a", "re a", "b", "re b", "a"]
    assert notes(kernel.run("%%llm\na")) == []
    assert plain(kernel.run("%llm_chat drop 3 4")) == "main: 2 turns dropped; it has 2 turns now."


def test_with_names_it_is_not_said_nor_where_a_program_runs_the_cells(kernel: Kernel, server: ScriptedServer) -> None:
    for name in "aab":
        assert notes(kernel.run("%%llm\na", name)) == []
    for _ in range(2):
        assert notes(kernel.run("%%llm\nx", allow_stdin=False)) == []


def test_a_notebook_executed_without_a_screen_says_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    add = f"%llm_provider add s --base-url {server.url}"
    sources = [f"%load_ext llm_magic\n{add}", "%%llm -m s:m\na", "%%llm -m s:m\na"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(book, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [len(each.outputs) for each in book.cells] == [1, 2, 2]
    assert sent(server) == ["a", "re a", "a"]
