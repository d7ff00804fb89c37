"""Conversations as files: JSON there and back, Markdown, notebooks; and paths that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.conversation import Conversations, Turn
from llm_magic.conversation.turns import from_document, to_document
from llm_magic.errors import HistoryError
from llm_magic.messages import Image, Message, Text, ToolCall, assistant, tool, user

CALL = ToolCall("c1", "add", '{"a": 1}')
TURNS = (
    Turn(
        "cell-a",
        (user("What is 1 + 2?"), assistant("", (CALL,)), tool(CALL, "```3```"), assistant("It is **3**.")),
        "m:x",
        86400.0 * 365,
    ),
    Turn("cell b", (user("And this? ", Image(b"\x89PNG", "image/png")), assistant("é 🙂")), "has space", 0.0),
)


@pytest.fixture
def chats() -> Conversations:
    made = Conversations()
    for turn in TURNS:
        made.get().record(turn)
    return made


def test_json_there_and_back(chats: Conversations, tmp_path: Path) -> None:
    path = chats.get().export(tmp_path / "talk.json")
    document = json.loads(path.read_text("utf-8"))
    assert document["messages"] == [
        {"role": "user", "content": "What is 1 + 2?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "```3```", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is **3**."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this? "},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
            ],
        },
        {"role": "assistant", "content": "é 🙂"},
    ]
    loaded = chats.load(path)
    assert loaded.name == "talk"
    assert loaded.turns() == TURNS
    assert chats.get("main").turns() == TURNS
    with pytest.raises(HistoryError, match="There is a conversation 'talk' already"):
        chats.load(path)
    loaded.record(Turn("cell-a", (user("new"),)))
    assert [turn.messages[0].text for turn in loaded.turns()] == ["new", "And this? "]


def test_messages_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.json"
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "user", "content": [{"type": "text", "text": "d"}]},
        {"role": "assistant", "content": "e"},
    ]
    for name, document in (("list", messages), ("object", {"messages": messages, "model": "x"})):
        path.write_text(json.dumps(document))
        turns = Conversations().load(path, name).turns()
        assert [[message.text for message in turn.messages] for turn in turns] == [
            ["Be brief.", "a", "b"],
            ["c", "d", "e"],
        ]
        assert turns[0].messages[0].role == "system"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON."),
        ("[" * 100_000, "is not JSON."),
        ("{}", "holds no messages."),
        ("[]", "holds no messages."),
        ("3", "holds no messages."),
        ('[{"content": "x"}]', "This is no message of a chat: 'role' is missing."),
        ('[{"role": "king", "content": "x"}]', "This is no message of a chat: there is no role 'king'."),
        (
            '[{"role": "user", "content": [{"type": "input_audio"}]}]',
            "This is no message of a chat: a part of type 'input_audio' cannot be kept.",
        ),
        ('["x"]', "This is no message of a chat: "),
    ],
)
def test_files_that_are_no_conversation(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    chats = Conversations()
    with pytest.raises(HistoryError) as caught:
        chats.load(path)
    assert said in caught.value.message
    assert chats.names() == ["main"]


def test_markdown(chats: Conversations, tmp_path: Path) -> None:
    text = chats.get().export(tmp_path / "talk.md").read_text("utf-8")
    assert text.startswith("# main\n\n## 1. m:x, 1971-01-0")
    assert text.partition("\n\n**You**")[2] == (
        "\n\nWhat is 1 + 2?\n\n"
        '**Model**\n\nCalls\n\n```\nadd({"a": 1})\n```\n\n'
        "**Tool**\n\n````\n```3```\n````\n\n"
        "**Model**\n\nIt is **3**.\n\n"
        "## 2. has space\n\n"
        "**You**\n\nAnd this? \n\n![image](data:image/png;base64,iVBORw==)\n\n"
        "**Model**\n\né 🙂\n"
    )


def test_a_notebook(chats: Conversations, tmp_path: Path) -> None:
    path = chats.get().export(tmp_path / "talk.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.id, cell.source) for cell in notebook.cells] == [
        ("markdown", "title", "# main"),
        ("code", "cell-a", "%%llm -m m:x --raw\nWhat is 1 + 2?"),
        ("code", "turn-2", "%%llm --raw\nAnd this? "),
    ]
    assert [output.data["text/markdown"] for output in notebook.cells[1].outputs] == [
        'Calls\n\n```\nadd({"a": 1})\n```',
        "````\n```3```\n````",
        "It is **3**.",
    ]
    image, answer = notebook.cells[2].outputs
    assert image.data == {"image/png": "iVBORw=="}
    assert answer.data == {"text/markdown": "é 🙂", "text/plain": "é 🙂"}


def test_an_export_replaces_the_file_whole(chats: Conversations, tmp_path: Path) -> None:
    path = tmp_path / "talk.md"
    path.write_text("old")
    chats.get().export(path)
    assert path.read_text("utf-8").startswith("# main")
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.md"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("talk.docx", "Conversations are not written as '.docx'."),
        ("talk", "Conversations are not written as 'talk'."),
        ("no/talk.md", "talk.md cannot be written: No such file or directory."),
        ("folder.md", "folder.md cannot be written: Is a directory."),
    ],
)
def test_paths_that_cannot_be_written(chats: Conversations, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(HistoryError) as caught:
        chats.get().export(tmp_path / name)
    assert caught.value.message.endswith(said)
    assert caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.md"]


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="The conversation 'main' has no turns to export"):
        Conversations().get().export(tmp_path / "x.md")
    with pytest.raises(HistoryError, match="There is no conversation 'x'"):
        Conversations().find("x").export(tmp_path / "x.md")


LINKS = st.integers().map(lambda number: Image(url=f"https://example.org/{number}"))
PARTS = st.builds(Text, st.text(min_size=1)) | st.builds(Image, st.binary()) | LINKS
CALLS = st.builds(ToolCall, st.text(), st.text(), st.text())
MESSAGES = (
    st.builds(Message, st.sampled_from(["system", "user"]), st.lists(PARTS).map(tuple))
    | st.builds(Message, st.just("assistant"), st.lists(PARTS, max_size=1).map(tuple), st.lists(CALLS).map(tuple))
    | st.builds(Message, st.just("tool"), st.lists(PARTS, max_size=1).map(tuple), st.just(()), st.text())
)


@given(MESSAGES)
def test_any_message_there_and_back(message: Message) -> None:
    assert from_document(json.loads(json.dumps(to_document(message)))) == message
