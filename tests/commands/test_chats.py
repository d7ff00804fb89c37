"""`%llm_chat` in a kernel: conversations are listed, shown, forked, switched, reset, written and read."""

import json
from pathlib import Path

import pytest
from kernels import Kernel
from servers import Received, ScriptedServer, chunk, stream
from shown import failed, html, plain

ANSWER = stream(chunk("Fine <b>day</b>"), chunk(finish="stop"))


@pytest.fixture
def server(kernel: Kernel) -> ScriptedServer:
    with ScriptedServer(ANSWER) as server:
        kernel.run(
            "session = get_ipython()._llm_magic.session\n"
            "session.settings.chat = 'main'\n"
            "for name in session.conversations.names(): session.conversations.get(name).reset()\n"
            f"session.registry.add('there', 'compatible', base_url={server.url!r})\n"
            "session.settings.model = 'there:m'"
        ).check()
        yield server


def asked(server: ScriptedServer) -> list[str]:
    """Return what the last request said, message by message."""
    last: Received = server.requests[-1]
    return [message["content"] for message in last.json["messages"]]


def rows(text: str) -> dict[str, list[str]]:
    return {line.replace("→", " ").split()[0]: line.split() for line in text.splitlines()[1:-1]}


def test_fork_switch_and_list(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm\nOne").check()
    assert plain(kernel.run("%llm_chat fork idea")).startswith("idea is a copy of main now (1 turn).")
    kernel.run("%%llm\nTwo").check()
    assert asked(server) == ["One", "Fine <b>day</b>", "Two"]
    said = plain(kernel.run("%llm_chat switch idea"))
    assert said == "Cells without -c belong to idea from now on (1 turn)."
    assert kernel.value("session.settings.chat") == "idea"
    kernel.run("%%llm\nThree").check()
    assert asked(server) == ["One", "Fine <b>day</b>", "Three"]
    text = plain(kernel.run("%llm_chat"))
    assert text == plain(kernel.run("%llm_chat list"))
    assert text.splitlines()[0].split() == [
        "conversation",
        "turns",
        "tokens,",
        "about",
        "last",
        "model",
        "last",
        "turn",
    ]
    assert rows(text)["main"][:2] == ["main", "2"]
    assert rows(text)["idea"][:3] == ["→", "idea", "2"]
    assert rows(text)["idea"][4] == "there:m"


def test_show_escapes_what_a_model_wrote(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm -c talk\nHow is\nit <i>today</i>?").check()
    ran = kernel.run("%llm_chat show talk")
    lines = plain(ran).splitlines()
    assert lines[0].startswith("talk, turn 1 of 1 · there:m · ")
    assert lines[1:] == ["You:", "    How is", "    it <i>today</i>?", "Model:", "    Fine <b>day</b>"]
    assert "<b>day</b>" not in html(ran)
    assert "Fine &lt;b&gt;day&lt;/b&gt;" in html(ran)
    assert plain(kernel.run("%llm_chat show")) == "The conversation main has no turns yet."


def test_reset_and_a_new_one(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm\nOne").check()
    assert plain(kernel.run("%llm_chat reset")) == "main: 1 turn forgotten."
    assert plain(kernel.run("%llm_chat reset")) == "main: 0 turns forgotten."
    assert plain(kernel.run("%llm_chat switch fresh --new")).startswith("Cells without -c belong to fresh")
    kernel.run("%%llm\nTwo").check()
    assert asked(server) == ["Two"]
    assert failed(kernel, "%llm_chat switch fresh --new")[0] == "OptionError"


def test_export_and_import(kernel: Kernel, server: ScriptedServer, folder: Path) -> None:
    kernel.run("%%llm\nOne").check()
    assert plain(kernel.run("%llm_chat export talk.json")) == "1 turn of main written to talk.json."
    assert [turn["content"] for turn in json.loads((folder / "talk.json").read_text())["messages"]] == [
        "One",
        "Fine <b>day</b>",
    ]
    said = plain(kernel.run("%llm_chat import talk.json again"))
    assert said == "1 turn read as again. %llm_chat switch again goes on there."
    kernel.run("%%llm -c again\nTwo").check()
    assert asked(server) == ["One", "Fine <b>day</b>", "Two"]
    for name in ("talk.md", "talk.ipynb"):
        kernel.run(f"%llm_chat export {name} again").check()
        assert "Two" in (folder / name).read_text()
    assert plain(kernel.run("%llm_chat import talk.json")).startswith("1 turn read as talk.")


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("%llm_chat swich x", "OptionError", "%llm_chat has no command swich.\nDid you mean switch?"),
        ("%llm_chat switch", "OptionError", "%llm_chat switch needs NAME.\n%llm_chat switch NAME [--new]."),
        ("%llm_chat switch a b", "OptionError", "takes 1 word besides options, not 2"),
        ("%llm_chat switch nowhere", "HistoryError", "There is no conversation 'nowhere'."),
        ("%llm_chat show mian", "HistoryError", "Did you mean main?"),
        ("%llm_chat fork", "OptionError", "%llm_chat fork needs NEW."),
        ("%llm_chat fork main", "HistoryError", "There is a conversation 'main' already."),
        ("%llm_chat fork x nowhere", "HistoryError", "There is no conversation 'nowhere'."),
        ("%llm_chat export", "OptionError", "%llm_chat export needs FILE."),
        ("%llm_chat export empty.md", "HistoryError", "has no turns to export"),
        ("%llm_chat import nowhere.json", "HistoryError", "nowhere.json cannot be read"),
        ("%llm_chat list --all", "OptionError", "%llm_chat has no option --all."),
    ],
)
def test_what_is_wrong(kernel: Kernel, server: ScriptedServer, code: str, error: str, message: str) -> None:
    name, text = failed(kernel, code)
    assert name == error
    assert message in text
    assert kernel.value("session.settings.chat") == "main"
