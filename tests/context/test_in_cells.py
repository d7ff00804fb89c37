"""`--context` through its doors, in a real kernel: what is sent is what ran, and is no part of the conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from echo import echo, texts
from executed import a_shell
from kernels import Kernel
from servers import ScriptedServer

from llm_magic.config.settings import Settings
from llm_magic.context.executed_cells import ExecutedCells
from llm_magic.errors import OptionError
from llm_magic.messages import assistant, user
from llm_magic.options import Options
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

BEGIN = "These are executed cells of a Jupyter notebook"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


@pytest.fixture(scope="module")
def notebook(server: ScriptedServer) -> Iterator[Kernel]:
    with Kernel(KEY_OF_S="sk-only-for-s-0123456789") as kernel:
        kernel.run("early = 'before the extension'\nprint(early)", "early").check()
        kernel.run("%load_ext llm_magic", "load").check()
        kernel.run(
            "from llm_magic import LLM, registry\n"
            f"registry().add('s', 'compatible', base_url={server.url!r}, api_key_env='KEY_OF_S', max_retries=0)\n"
            "session = get_ipython()._llm_magic.session",
            "registry",
        ).check()
        kernel.run("%config LLMMagics.model = 's:m'", "config").check()
        yield kernel


@pytest.fixture
def fresh(notebook: Kernel, server: ScriptedServer) -> Kernel:
    notebook.run("session.conversations.get('main').reset()\nsession.settings.params = {}", "reset").check()
    server.requests.clear()
    return notebook


def bodies(server: ScriptedServer) -> list[Any]:
    return [each.json for each in server.requests if not each.path.endswith("/models")]


def test_a_cell_and_a_line(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("def half(x):\n    return x / 2", "half")
    fresh.run("half('a')", "call")
    for door in ("%%llm --context half\nSAY Hello", "%llm --context half -- SAY Hello"):
        fresh.run(door, "ask").check()
    sent = [texts(body)[-1] for body in bodies(server)]
    assert sent[0] == sent[1]
    assert sent[0].startswith(BEGIN)
    assert "\n```python\ndef half(x):\n    return x / 2\n```\n" in sent[0]
    assert sent[0].endswith("\nEnd of the executed cells.\n\nSAY Hello")
    fresh.run("%%llm --context 1\nSAY Hello", "ask").check()
    assert "TypeError: unsupported operand" in texts(bodies(server)[-1])[-1]
    assert "In[" not in texts(bodies(server)[-1])[-1]


def test_it_is_no_part_of_the_conversation(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("%%llm --context early\nSAY one", "one").check()
    fresh.run("%%llm\nSAY two", "two").check()
    assert [BEGIN in text for body in bodies(server) for text in texts(body)] == [True, False, False, False]
    assert texts(bodies(server)[1]) == ["SAY one", "one", "SAY two"]
    shown = fresh.run("%llm_chat show").check()
    assert BEGIN not in shown.stdout + "".join(shown.of_type("text/plain"))


def test_all_is_each_cell_once_without_prompts(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("n = 1\nprint('first run')", "n").check()
    fresh.run("n = 2\nprint('second run')", "n").check()
    fresh.run("%%llm --context all\nSAY all", "all").check()
    (text,) = texts(bodies(server)[-1])
    assert "second run" in text
    assert "first run" not in text
    assert "print(early)" in text
    assert not any(word in text for word in ("SAY one", "%load_ext", "%config", "%%llm"))


def test_secrets_that_are_configured_are_masked(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("import os\nprint('my key', os.environ['KEY_OF_S'], 'sk-another-one-12345')", "key").check()
    fresh.run("%%llm --context 1\nSAY Hello", "ask").check()
    (text,) = texts(bodies(server)[-1])
    assert "my key *** sk-another-one-12345" in text
    assert "only-for-s" not in server.requests[-1].body.decode()


def test_rich_displays_and_what_a_cell_prints_that_awaits(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("%%llm --context 1\nSAY Hello", "ask").check()  # from here on they are kept
    source = (
        "import asyncio, sys\nfrom IPython.display import display, Image\nawait asyncio.sleep(0)\nprint('awaited')\n"
        "print('loud', file=sys.stderr)\ndisplay({'a': 1})\n'result'"
    )
    fresh.run(source, "awaits").check()
    fresh.run("%matplotlib inline\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])", "plot").check()
    fresh.run("for _ in range(3):\n    print(f'{_}0%', end='\\r')\nprint('100%')", "bar").check()
    fresh.run("%%llm --context 3\nSAY Hello", "ask").check()
    (content,) = [message["content"] for message in bodies(server)[-1]["messages"] if BEGIN in str(message)]
    kinds = [part["type"] for part in content]
    assert kinds == ["text", "image_url", "text", "text"]
    before, after = content[0]["text"], content[2]["text"]
    places = [before.rindex(f"\n{text}\n```") for text in ("awaited", "loud", "{'a': 1}", "'result'")]
    assert places == sorted(places)
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert "\n```\n100%\n```\n" in after
    assert fresh.value("session.cells._displays._written") == []


def test_a_setting_and_a_cell_that_wants_none(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("session.settings.params = {'context': ['early']}", "set").check()
    fresh.run("%%llm --once\nSAY Hello", "ask").check()
    fresh.run("%%llm --once --context 0\nSAY Hello", "ask").check()
    assert [BEGIN in texts(body)[0] for body in bodies(server)] == [True, False]


def test_python(fresh: Kernel, server: ScriptedServer) -> None:
    source = (
        "llm = LLM('s:m', context='early')\nllm.ask('SAY a')\nawait llm.aask('SAY a', context=['early'])\n"
        "async for event in llm.stream('SAY a'): pass\nllm.map('SAY {{ item }}', ['a', 'b'])\n"
        "LLM('s:m').ask([{'role': 'user', 'content': 'SAY x'}, {'role': 'assistant', 'content': 'x'},"
        " {'role': 'user', 'content': 'SAY a'}], context='early')"
    )
    fresh.run(source, "python").check()
    found = [texts(body) for body in bodies(server)]
    assert len(found) == 6
    context = found[0][0].removesuffix("SAY a")
    assert context.startswith(BEGIN)
    assert "print(early)" in context
    assert sorted(each[-1] for each in found) == [*[f"{context}SAY a"] * 5, f"{context}SAY b"]
    assert found[-1][:2] == ["SAY x", "x"]
    failed = fresh.run("LLM('s:m').ask([{'role': 'assistant', 'content': 'x'}], context=1)", "python")
    assert failed.error == "context= needs a user's message at the end of the messages.\nAdd one, or leave it out."


def test_rows(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("letters = ['a', 'b']", "letters").check()
    fresh.run("%%llm --each letters --context letters -o got\nSAY {{ item }}", "rows").check()
    assert fresh.value("list(got)") == ["a", "b"]
    found = sorted(texts(body)[-1] for body in bodies(server))
    assert [text.partition("End of")[2] for text in found] == [
        " the executed cells.\n\nSAY a", " the executed cells.\n\nSAY b"
    ]  # fmt: skip
    assert all(text.count("letters = ['a', 'b']") == 1 for text in found)
    dry = fresh.run("%%llm --each letters --context letters --dry-run --again\nSAY {{ item }}", "rows").check()
    assert "letters = ['a', 'b']" in "".join(dry.of_type("text/plain"))


def test_several_models_are_asked_the_same(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("%%llm -m s:m,s:other --context early --once\nSAY Hello", "ask").check()
    first, second = bodies(server)
    assert {first["model"], second["model"]} == {"m", "other"}
    assert first["messages"] == second["messages"]
    assert texts(first)[-1].startswith(BEGIN)


def test_a_batch_file(fresh: Kernel, server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fresh.run(f"%%llm --each ['a','b'] --batch-file {path} --context early\nSAY {{{{ item }}}}", "rows").check()
    assert bodies(server) == []
    written = [texts(json.loads(line)["body"])[-1] for line in path.read_text().splitlines()]
    assert [text.startswith(BEGIN) and text.partition("End of")[2] for text in written] == [
        " the executed cells.\n\nSAY a", " the executed cells.\n\nSAY b"
    ]  # fmt: skip


def test_in_the_background_it_is_taken_when_the_cell_begins(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("word = 'then'", "word").check()
    fresh.run("%%llm -b --context word\nSAY Hello", "ask").check()
    fresh.run("word = 'now'", "word").check()
    fresh.run("_llm, session.jobs and [job.result(20) for job in list(session.jobs)]", "wait").check()
    assert "word = 'then'" in texts(bodies(server)[-1])[-1]


def test_a_replay_finds_it_whatever_the_execution_counts_are(
    fresh: Kernel, server: ScriptedServer, tmp_path: Path
) -> None:
    fresh.run(f"session.settings.record_file = {str(tmp_path / 'llm.jsonl')!r}", "record").check()
    for _ in range(2):
        fresh.run("def fails(): 1 / 0", "fails")
        fresh.run("fails()", "failed")
        fresh.run("%%llm --record once --once --context fails,2\nSAY Hello".replace("fails,2", "2"), "ask").check()
    assert len(bodies(server)) == 1
    (line,) = (tmp_path / "llm.jsonl").read_text().splitlines()
    (message,) = json.loads(line)["asked"]["messages"]
    assert "Cell 2, line 1" in str(message["content"])
    fresh.run("session.settings.record_file = ''", "record").check()


def test_a_dry_run_shows_it_and_estimates_it(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("print('x' * 30_000)", "long").check()
    shown = "".join(fresh.run("%%llm --context 1 --dry-run\nSAY Hello", "dry").check().of_type("text/plain"))
    assert "x" * 30_000 in shown
    assert bodies(server) == []
    fresh.run("session.settings.context_chars = 1000", "set").check()
    shown = "".join(fresh.run("%%llm --context 2 --dry-run\nSAY Hello", "dry").check().of_type("text/plain"))
    fresh.run("session.settings.context_chars = 40_000", "set").check()
    assert "characters left out" in shown
    assert "outputs of 1 cell are cut (LLMMagics.context_chars is 1,000)." in shown


def test_where_it_does_not_fit_the_next_step_is_to_send_less_of_it(fresh: Kernel) -> None:
    for door, option in (
        ("%%llm --once --context early\nSAY LONG", "--context"),
        ("LLM('s:m').ask('SAY LONG', context='early')", "context="),
    ):
        refused = fresh.run(door, "ask")
        assert refused.error_name == "ContextOverflowError"
        (hint,) = refused.error.splitlines()[1:]
        assert re.sub(r"\d+", "N", hint) == (
            f"The cells of {option} are N characters of it: send fewer of them, or set LLMMagics.context_chars lower."
        )
    refused = fresh.run("%%llm --once\nSAY LONG", "ask")
    assert refused.error.splitlines()[1:] == ["Shorten the prompt, or send fewer turns (--once, history_turns)."]


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    yield session
    session.close()


def test_before_anything_has_run(session: Session) -> None:
    session.cells = ExecutedCells(a_shell())
    plan = session.plan(Cell("Hello", Options(model="vllm:m", context=3)))
    assert plan.context == ()
    assert plan.notes == ("--context: no cell has run yet that could be sent along.",)


def test_where_no_history_is_kept(session: Session) -> None:
    """nbval executes all cells so."""
    session.cells = ExecutedCells(a_shell())
    session.cells.began(SimpleNamespace(store_history=False, cell_id=None, raw_cell="x = 1"))
    told = "--context: what executes this notebook keeps no history of its cells, so none can be sent."
    assert session.plan(Cell("Hello", Options(model="vllm:m", context=3))).notes == (told,)
    with pytest.raises(OptionError) as caught:
        session.plan(Cell("Hello", Options(model="vllm:m", context=("x",))))
    assert caught.value.message == told


def test_where_there_is_no_notebook(session: Session) -> None:
    with pytest.raises(OptionError) as caught:
        session.plan(Cell("Hello", Options(model="vllm:m", context=3)))
    assert caught.value.message == "--context sends executed cells of a notebook, and there is none here."
    session.settings.params = {"context": 3}  # of a project's file, say, that holds for scripts, too
    plan = session.plan(Cell("Hello", Options(model="vllm:m")))
    assert plan.notes == ("--context, which is a default, is left out: there is no notebook.",)
    last = (user("Hello"), assistant("Hi"))
    session.cells = ExecutedCells(a_shell("x = 1"))
    plan = session.plan(Cell("", Options(model="vllm:m"), messages=last))
    assert plan.notes == ("--context, which is a default, is left out: the last message is no user's.",)
    session.settings.params = {"context": ["xs"]}
    session.cells = ExecutedCells(a_shell("x = 1"))
    plan = session.plan(Cell("Hello", Options(model="vllm:m")))
    assert plan.context == ()
    assert plan.notes == ("--context xs, which is a default, is left out: no executed cell defines xs.",)
