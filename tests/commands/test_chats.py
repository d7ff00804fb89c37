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


def test_turns_are_dropped(kernel: Kernel, server: ScriptedServer, folder: Path) -> None:
    kernel.run("session.settings.chat_file = 'chats.sqlite'").check()
    for name in "abcdef":
        kernel.run(f"%%llm\n{name}", cell_id=name).check()
    kernel.run("%%llm -c talk\ng", cell_id="g").check()
    shown = plain(kernel.run("%llm_chat show"))
    assert "main, turn 2 of 6" in shown
    assert plain(kernel.run("%llm_chat drop 2")) == "main: turn 2 dropped; it has 5 turns now."
    kernel.run("%%llm\nd", cell_id="d").check()
    assert asked(server)[::2] == ["a", "c", "d"]
    assert plain(kernel.run("%llm_chat drop 1,3-4 4 1")) == "main: 3 turns dropped; it has 2 turns now."
    again = f"Conversations({str(folder / 'chats.sqlite')!r}).get().turns()"
    kernel.run("from llm_magic.conversation import Conversations").check()
    assert kernel.value(f"[turn.messages[0].text for turn in {again}]") == ["c", "f"]
    kernel.run("%%llm\nB", cell_id="b").check()
    assert asked(server)[::2] == ["c", "f", "B"]
    kernel.run("%%llm\nF", cell_id="f").check()
    assert asked(server)[::2] == ["c", "F"]
    assert plain(kernel.run("%llm_chat drop 1 talk")) == "talk: turn 1 dropped; it has 0 turns now."
    assert plain(kernel.run("%llm_chat drop 1-3")) == "main: 3 turns dropped; it has 0 turns now."
    assert failed(kernel, "%llm_chat drop 1 talk")[1].startswith("HistoryError: There is no conversation 'talk'.")
    kernel.run("session.settings.chat_file = ''").check()


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
        ("%llm_chat drop", "OptionError", "%llm_chat drop needs N.\n%llm_chat drop N [N …] [NAME]."),
        ("%llm_chat drop 1", "OptionError", "The conversation main has no turn 1.\nIt has no turns."),
        ("%llm_chat drop main", "OptionError", "'main' is no number of a turn.\n%llm_chat drop 2 3 forgets"),
        ("%llm_chat drop two 3", "OptionError", "'two' is no number of a turn."),
        ("%llm_chat drop 1 2,,3 main", "OptionError", "'2,,3' is no number of a turn."),
        ("%llm_chat drop 1.5 main", "OptionError", "'1.5' is no number of a turn."),
        ("%llm_chat drop ² main", "OptionError", "'²' is no number of a turn."),
        ("%llm_chat drop 1 mian", "HistoryError", "There is no conversation 'mian'.\nDid you mean main?"),
        ("%llm_chat drop -1", "OptionError", "%llm_chat has no option -1."),
        ("%llm_chat drop 5-3", "OptionError", "5-3 is no range of turns."),
        (f"%llm_chat drop {'9' * 5000}", "OptionError", "The conversation main has no turn 999"),
        (f"%llm_chat drop 1-{'9' * 5000}", "OptionError", "The conversation main has no turn 1."),
        (f"%llm_chat drop {'1' * 50_000}x 1", "OptionError", "is no number of a turn."),
        ("%llm_chat drp 1", "OptionError", "Did you mean drop?"),
        ("%llm_chat list --all", "OptionError", "%llm_chat has no option --all."),
    ],
)
def test_what_is_wrong(kernel: Kernel, server: ScriptedServer, code: str, error: str, message: str) -> None:
    name, text = failed(kernel, code)
    assert name == error
    assert message in text
    assert kernel.value("session.settings.chat") == "main"


def test_a_number_beyond_the_last_changes_nothing(kernel: Kernel, server: ScriptedServer) -> None:
    for name in "ab":
        kernel.run(f"%%llm\n{name}", cell_id=name).check()
    for words, number in (("1 3", "3"), ("0 1", "0"), ("1-4", "4")):
        _, text = failed(kernel, f"%llm_chat drop {words}")
        assert text == (
            f"OptionError: The conversation main has no turn {number}.\n"
            "It has 2 turns; %llm_chat show main numbers them."
        )
    assert rows(plain(kernel.run("%llm_chat list")))["main"][2] == "2"


def test_the_help_page_tells_of_it(kernel: Kernel, server: ScriptedServer) -> None:
    for code in ("%llm_chat --help", "%llm_chat drop --help"):
        assert "%llm_chat drop N [N …] [NAME]  forget turns by their numbers" in kernel.run(code).check().stdout
    kernel.run("%llm_chat?").check()
    (page,) = kernel.last_reply["payload"]
    assert "each run is a new turn" in " ".join(page["data"]["text/plain"].split())
