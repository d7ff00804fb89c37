"""Recordings of many rows: who may read what, what asks all anew, what the variable says, and where nothing is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, OptionError, RecordingError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


def echo(request: Received) -> Any:
    text = f"you said {request.json['messages'][-1]['content']}"
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    session = Session(Settings(), ProviderRegistry())
    session.settings.record_file = str(tmp_path / "answers.jsonl")
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        yield server


@pytest.fixture
def llm(session: Session, server: ScriptedServer) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    return LLM("s:m")


def test_rows_read_what_ask_has_recorded_and_it_reads_what_they_have(llm: LLM, server: ScriptedServer) -> None:
    llm.ask("1", record="once")
    llm.map("{{ item }}", [2, 3], record="once")
    llm.map(lambda number: f"{number}", [4], record="once")
    assert len(server.requests) == 4
    assert llm.map("{{ item }}", [1, 2, 3, 4], record="only").values == [
        f"you said {number}" for number in (1, 2, 3, 4)
    ]
    assert [llm.ask(f"{number}", record="only").text for number in (2, 4)] == ["you said 2", "you said 4"]
    assert len(server.requests) == 4


def test_a_typed_row_is_read_by_ask_as_its_value(llm: LLM) -> None:
    choices = ["you said 1", "you said 2"]
    llm.map("{{ item }}", [1, 2], choices=choices, record="once")
    assert llm.ask("2", choices=choices, record="only").value == "you said 2"
    assert llm.map("{{ item }}", [2, 1], choices=choices, record="only").to_frame()["value"].dtype.name == "category"


def test_what_is_not_recorded_is_the_error_of_its_row(llm: LLM, server: ScriptedServer) -> None:
    llm.map("{{ item }}", [1], record="once")
    answers = llm.map("{{ item }}", [1, 2], record="only", on_error="keep")
    assert answers.values == ["you said 1", None]
    error = answers.errors[1]
    assert type(error) is RecordingError
    assert error.message == "Not recorded, and record=\"only\" sends nothing: the prompt differs: '2', recorded '1'."
    assert len(server.requests) == 1


def test_again_asks_for_all_and_replaces_what_was_recorded(llm: LLM, session: Session, server: ScriptedServer) -> None:
    llm.map("{{ item }}", [1, 2], record="once", temperature=0)
    llm.map("{{ item }}", [1, 2], record="once", temperature=0)
    assert len(server.requests) == 2
    later = Session(Settings(record_file=session.settings.record_file), ProviderRegistry())  # after a restart
    later.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    api.activate(later)
    LLM("s:m").map("{{ item }}", [1, 2], record="once", temperature=0, again=True)
    assert len(server.requests) == 4
    assert len(later.recordings.listed()) == 2
    later.close()


@pytest.mark.parametrize("given", ["option", "setting"])
def test_again_and_only_exclude_each_other(llm: LLM, session: Session, server: ScriptedServer, given: str) -> None:
    options: Any = {"record": "only"} if given == "option" else {}
    session.settings.record = "only" if given == "setting" else "off"
    with pytest.raises(OptionError, match=r'^again=True and record="only" exclude each other: nothing is sent'):
        llm.map("{{ item }}", [1], again=True, **options)
    assert server.requests == []


def test_the_variable_holds_for_rows(llm: LLM, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGIC_RECORD", "once")
    llm.map("{{ item }}", [1], temperature=0)
    llm.map("{{ item }}", [1], temperature=0)
    assert len(server.requests) == 1
    monkeypatch.setenv("LLM_MAGIC_RECORD", "only")
    assert llm.map("{{ item }}", [1], temperature=0, again=True).values == ["you said 1"]  # nothing is sent in any case
    assert llm.map("{{ item }}", [1, 2], temperature=0, record="new", on_error="keep").failed == [1]
    assert len(server.requests) == 1
    monkeypatch.setenv("LLM_MAGIC_RECORD", "all")
    with pytest.raises(ConfigurationError, match=r"^The variable LLM_MAGIC_RECORD is 'all', which is no mode"):
        llm.map("{{ item }}", [1])


# Where nothing can be kept


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full for answers, and for nothing else."""
    write = os.write

    def written(file: int, data: Any) -> int:
        if b'"answer":' in bytes(data[:20]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", written)


def test_rows_go_on_where_the_disk_is_full(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    answers = llm.map("{{ item }}", range(20))
    assert answers.values == [f"you said {number}" for number in range(20)]
    (note,) = answers.notes
    assert note == (
        f"Answers are not kept, to go on with if this run stops: {tmp_path}/state/llm_magic/rows: "
        "No space left on device. LLMMagics.resume = False does without."
    )


def test_rows_go_on_where_no_recording_can_be_written(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch)
    answers = llm.map("{{ item }}", range(20), record="once")
    assert answers.failed == []
    (note,) = answers.notes
    assert note == f"Not recorded: {tmp_path}/answers.jsonl cannot be written: No space left on device."


@pytest.mark.parametrize("place", ["a file", "a folder that nobody may write to", "nowhere"])
def test_rows_go_on_where_there_is_no_folder(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "a file":
        (tmp_path / "state").write_text("mine")
    elif place == "nowhere":
        (tmp_path / "state").symlink_to(tmp_path / "none" / "such")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", "/proc/1")  # for root, too
    answers = llm.map("{{ item }}", range(20))
    assert answers.failed == []
    (note,) = answers.notes
    assert note.startswith("Answers are not kept, to go on with if this run stops: ")
    assert note.endswith(" LLMMagics.resume = False does without.")


def test_a_file_that_may_grow_no_further_ends_nothing(llm: LLM, session: Session) -> None:
    resource = pytest.importorskip("resource")
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        answers = llm.map("{{ item }}", range(40), on_error="keep")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert answers.failed == []
    (note,) = answers.notes
    assert "File too large" in note


def test_nothing_is_said_where_nothing_is_to_be_kept(llm: LLM, session: Session, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")
    session.settings.resume = False
    assert llm.map("{{ item }}", range(3)).notes == ()
