"""Conversations as files: JSON there and back, Markdown, notebooks; and paths that cannot be."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.conversation import Conversations, Turn
from llm_magic.conversation.turns import from_document, to_document
from llm_magic.errors import HistoryError
from llm_magic.messages import Citation, Image, Message, Text, ToolCall, assistant, tool, user

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


CITED = assistant(
    "It rains.",
    citations=(
        Citation("https://e.example/rain", "Rain", 0, 2),
        Citation("javascript:alert(1)", "<img src=x onerror=y>"),
        Citation(file_id="f1", filename="a.txt"),
    ),
)


def test_sources_are_kept_and_listed(tmp_path: Path) -> None:
    chats = Conversations(tmp_path / "chats.db")
    chats.get().record(Turn("c", (user("Rain?"), CITED), "m", 1.0))
    assert Conversations(tmp_path / "chats.db").get().turns()[0].messages[1] == CITED
    assert chats.load(chats.get().export(tmp_path / "talk.json")).turns()[0].messages[1] == CITED
    listed = (
        "It rains.\n\nSources\n\n1. [Rain](https://e.example/rain) (e.example)\n"
        "2. &#60;img src=x onerror=y&#62; (javascript:alert(1))\n3. a.txt"
    )
    assert listed in chats.get().export(tmp_path / "talk.md").read_text("utf-8")
    book = nbformat.read(chats.get().export(tmp_path / "talk.ipynb"), as_version=4)
    nbformat.validate(book)
    assert book.cells[1].outputs[0].data["text/markdown"] == listed


@pytest.mark.parametrize(
    "annotations",
    [None, 3, "x", {}, [None, 3, [], {}], [{"type": "url_citation"}], [{"type": [], "url_citation": {"url": "x"}}]],
    ids=repr,
)
def test_annotations_of_other_programs_that_are_none(annotations: object) -> None:
    assert from_document({"role": "assistant", "content": "x", "annotations": annotations}) == assistant("x")


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
        "**Model**\n\né 🙂\n\n"
        f"<!-- exported by llm_magic: {hashlib.sha256(text.partition('<!-- exported')[0].encode()).hexdigest()} -->\n"
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


@pytest.mark.parametrize("ending", ["json", "md", "ipynb"])
def test_an_export_replaces_an_earlier_one_and_no_other_file(chats: Conversations, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talk.{ending}"
    chats.get().export(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    first = path.read_bytes()
    chats.get().record(Turn("more", (user("And now?"), assistant("Now."))))
    chats.get().export(path)
    assert b"And now?" in path.read_bytes() != first
    assert path.stat().st_mode & 0o777 == 0o644  # the user's choice
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    for other in (
        path.read_text("utf-8").replace("And now?", "My own words."),
        path.read_text("utf-8") + "\nMine.\n",
        "",
        "{}",
        "[]",
        "# main\n",
        '{"name": "main", "messages": [], "turns": []}',
        "\ud800",
    ):
        path.write_text(other, "utf-8", "surrogatepass")
        before = path.read_bytes()
        with pytest.raises(HistoryError) as caught:
            chats.get().export(path)
        assert caught.value.message == f"{path} is there already, and is no export, or was changed since."
        assert caught.value.hint == "Name another file, or remove that one first."
        assert path.read_bytes() == before


def test_a_notebook_saved_by_jupyter_is_still_an_export_until_its_cells_change(
    chats: Conversations, tmp_path: Path
) -> None:
    path = chats.get().export(tmp_path / "talk.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.write(notebook, path)
    chats.get().export(path)
    notebook.cells.append(nbformat.v4.new_code_cell("mine"))
    nbformat.write(notebook, path)
    with pytest.raises(HistoryError, match="is there already"):
        chats.get().export(path)


def test_an_export_goes_over_no_link_pipe_or_device(chats: Conversations, tmp_path: Path) -> None:
    private = tmp_path / "private.md"
    chats.get().export(private)
    before = private.read_bytes()
    link, nowhere, pipe = tmp_path / "link.md", tmp_path / "nowhere.md", tmp_path / "pipe.md"
    link.symlink_to(private)
    nowhere.symlink_to(tmp_path / "made.md")
    os.mkfifo(pipe)
    for path in (link, nowhere, pipe):
        with pytest.raises(HistoryError, match="is there already"):
            chats.get().export(path)
    assert private.read_bytes() == before
    assert link.is_symlink()
    assert not (tmp_path / "made.md").exists()


def test_a_file_that_appears_meanwhile_is_not_replaced(
    chats: Conversations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "talk.md", os.link

    def slow(source: Any, target: Any, **more: Any) -> None:
        path.write_text("mine")
        link(source, target, **more)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(HistoryError, match="is there already"):
        chats.get().export(path)
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.md"]


@pytest.mark.parametrize(
    "url",
    ["https://example.org/x.png", "http://localhost:8000/admin", "file:///etc/hostname", "/etc/hostname", "secret.png"],
)
def test_an_imported_conversation_opens_no_file_and_no_url(tmp_path: Path, url: str) -> None:
    path = tmp_path / "theirs.json"
    content = [{"type": "text", "text": "See "}, {"type": "image_url", "image_url": {"url": url}}]
    path.write_text(json.dumps([{"role": "user", "content": content}, {"role": "assistant", "content": "Seen."}]))
    (turn,) = Conversations().load(path).turns()
    assert turn.messages[0].parts == (Text("See "), Text(f"[an image that was not imported: {url}]"))
    embedded = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    path.write_text(json.dumps([{"role": "user", "content": [embedded]}]))
    (turn,) = Conversations().load(path, "own").turns()
    assert turn.messages[0].parts == (Image(b"\x89PNG", "image/png"),)


def test_an_import_reads_plain_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, Path("/dev/zero")):
        with pytest.raises(HistoryError, match="cannot be read"):
            Conversations().load(path, "x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("talk.docx", "Conversations are not written as '.docx'."),
        ("talk", "Conversations are not written as 'talk'."),
        ("no/talk.md", "talk.md cannot be written: No such file or directory."),
        ("folder.md", "folder.md is there already, and is no export, or was changed since."),
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
