"""What a server, a network and a disk can do to a batch: what is there is kept, in place, and the same call goes on."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_calls import AT_ONCE, SAY, answered, asking, names, own_session, records, refused
from batch_server import (
    BROKEN,
    CLOSED,
    CUT,
    CUT_UNSEEN,
    NO_ROUTE,
    BatchServer,
    Failure,
    Fault,
    said,
    too_many,
)

from llm_magic import LLM
from llm_magic.batches.batch import Batch
from llm_magic.batches.jsonl.input_file import InputFileWriter
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.remote import batches_of_run, polling
from llm_magic.batches.remote.state import BatchState
from llm_magic.batches.rows.engine import BatchEngine
from llm_magic.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ConnectionFailedError,
    LLMError,
    ModelNotFoundError,
    NotAskedError,
    OptionError,
    ProtocolError,
    QuotaExceededError,
    RecordingError,
    RequestRefusedError,
    RowsFailedError,
    TimedOutError,
    UnsupportedError,
)
from llm_magic.session import Session
from llm_magic.wire import file_download


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    with own_session(tmp_path, monkeypatch) as session:
        yield session


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(**AT_ONCE) as server:
        yield server


@pytest.fixture
def llm(session: Session, server: BatchServer) -> LLM:
    return asking(session, server)


def prompts(server: BatchServer, number: int = -1) -> list[str]:
    """Return the prompts of a batch, by default of the last one."""
    return [row["body"]["messages"][-1]["content"] for row in server.rows(server.created[number].id)]


def error_of(answers: Any, number: int) -> LLMError:
    error = answers.errors[number]
    assert isinstance(error, LLMError)
    assert len(str(error).splitlines()) <= 2, str(error)
    return error


def usage(session: Session) -> tuple[int, int, int, int, int]:
    """Return requests, failed ones, answers, tokens in and out of all."""
    rows = session.ledger.rows()
    return tuple(sum(getattr(row, name) for row in rows) for name in (
        "requests", "failed", "answers", "input_tokens", "output_tokens"
    ))  # type: ignore[return-value]  # fmt: skip


ROWS = ["1", "2", "3", "4"]

# How a batch ends


@pytest.mark.parametrize("ends", ["expired", "cancelled", "failed"])
@pytest.mark.parametrize("lists_undone", [True, False])
@pytest.mark.parametrize("done", [0, 2, 4])
def test_of_a_batch_that_did_not_end_well_what_is_there_is_kept(
    llm: LLM, server: BatchServer, ends: str, lists_undone: bool, done: int
) -> None:
    server.ends, server.rows_done, server.lists_undone = ends, done, lists_undone  # type: ignore[assignment]
    if (ends, done, lists_undone) == ("failed", 0, False):  # it has no file: it was refused
        assert isinstance(refused(llm, ROWS, output_type=int), RequestRefusedError)
    else:
        answers = answered(llm, ROWS, output_type=int)
        assert answers.values == [int(row) for row in ROWS[:done]] + [None] * (4 - done)
        assert names(answers) == [""] * done + ["NotAskedError"] * (4 - done)
        for number in range(done, 4):
            error = error_of(answers, number)
            assert "before this row's turn" in error.message
            assert error.hint.startswith("Call it again")
    server.ends, server.rows_done = "completed", None
    assert answered(llm, ROWS, output_type=int).values == [1, 2, 3, 4]
    assert len(server.created) == 1 + (done < 4)
    if done < 4:
        assert prompts(server) == [f"SAY {row}" for row in ROWS[done:]]


@pytest.mark.parametrize(
    ("shape", "error_file", "string_bodies"),
    [
        ("openai", "needed", False),
        ("openai", "needed", True),
        ("openai", "always", True),
        ("llama-stack", "always", True),
        ("llama-stack", "needed", False),
        ("vllm", "blank", False),
        ("vllm-text", "always", False),
        ("vllm-text", "blank", True),
    ],
)
def test_failed_rows_of_each_shape(
    llm: LLM, server: BatchServer, shape: str, error_file: str, string_bodies: bool
) -> None:
    server.failed_rows, server.error_file, server.string_bodies = shape, error_file, string_bodies  # type: ignore[assignment]
    server.order = "reversed"
    server.failures = {2: Failure("The prompt is too rude.", 400)}
    answers = answered(llm, ROWS, output_type=int)
    assert answers.values == [1, None, 3, 4]
    error = error_of(answers, 1)
    assert isinstance(error, RequestRefusedError) or shape == "llama-stack"
    assert "The prompt is too rude." in error.message
    assert "s:m" in error.message
    server.failures = {}
    assert answered(llm, ROWS, output_type=int).values == [1, 2, 3, 4]
    assert prompts(server) == ["SAY 2"]


def test_an_error_file_that_is_not_there_loses_its_rows_and_no_others(llm: LLM, server: BatchServer) -> None:
    server.error_file, server.failures = "never", {2: Failure()}
    answers = answered(llm, ROWS)
    assert answers.values == ["1", None, "3", "4"]
    error = error_of(answers, 1)
    assert isinstance(error, ProtocolError)
    assert error.message.startswith("s:m (http://")
    assert error.message.endswith("the batch batch_2 is completed, and has no result for this row.")


@pytest.mark.parametrize("output_file", ["none", "blank"])
def test_a_batch_without_any_file(llm: LLM, server: BatchServer, output_file: str) -> None:
    server.output_file = output_file  # type: ignore[assignment]
    server.edit = lambda _: b""
    assert names(answered(llm, ROWS)) == ["ProtocolError"] * 4
    server.output_file, server.edit = "needed", bytes
    assert answered(llm, ROWS).values == ROWS


def test_results_that_are_strange_are_read_as_far_as_they_go(llm: LLM, server: BatchServer, session: Session) -> None:
    server.order, server.twice, server.missing, server.torn = "shuffled", (1, 3), (2,), (4,)
    server.unknown = ("7-" + "ab" * 16, "request-1", "", "\u2028")
    answers = answered(llm, ROWS, output_type=int)
    assert answers.values == [1, None, 3, None]
    assert names(answers) == ["", "ProtocolError", "", "ProtocolError"]
    assert usage(session) == (2, 0, 2, 6, 4), "a line that stands twice counts once"
    server.missing = server.torn = ()
    assert answered(llm, ROWS, output_type=int).values == [1, 2, 3, 4]
    assert prompts(server) == ["SAY 2", "SAY 4"]


def test_a_failure_that_stands_twice_counts_once(llm: LLM, server: BatchServer, session: Session) -> None:
    server.twice, server.failures = (2,), {2: Failure("no", 500)}
    assert names(answered(llm, ["1", "2"])) == ["", "ServerFailedError"]
    assert usage(session)[:3] == (2, 1, 1)


def test_a_row_in_both_files_is_answered(llm: LLM, server: BatchServer, session: Session) -> None:
    server.failures = {2: Failure("no", 500)}
    whole = {"choices": [{"index": 0, "message": {"content": "2"}, "finish_reason": "stop"}]}

    def edit(content: bytes) -> bytes:
        name = server.rows("batch_2")[1]["custom_id"]
        line = {"custom_id": name, "response": {"status_code": 200, "body": whole}}
        return content + json.dumps(line).encode() + b"\n"

    server.edit = edit
    answers = answered(llm, ["1", "2"])
    assert (answers.values, names(answers)) == (["1", "2"], ["", ""])
    assert usage(session)[:3] == (2, 0, 2)


def test_counts_that_stay_0_or_are_none(llm: LLM, server: BatchServer) -> None:
    for counts in ("zero", "null", "late"):
        server.counts = counts  # type: ignore[assignment]
        batch = llm.batch(SAY, [counts])
        assert batch.result(10).values == [counts]
        assert batch.counts.total == 1


# Refused as a whole


def test_a_row_that_validation_refuses_has_the_servers_words_and_the_others_are_submitted_again(
    llm: LLM, server: BatchServer, session: Session
) -> None:
    server.invalid = {1_733: {"message": "Line too long for this model.", "code": "invalid_request"}}
    server.in_progress = 0
    created = len(server.created)

    class Once(dict[Any, Any]):
        def get(self, name: Any, default: Any = None) -> Any:
            return super().get(name, default) if len(server.created) == created else default

    server.invalid = Once(server.invalid)
    numbers = list(range(2_000))
    batch = llm.batch(SAY, numbers, output_type=int, on_error="keep")
    answers = batch.result(30)
    assert answers.failed == [1_732]
    assert [each for each in answers.values if each is not None] == [each for each in numbers if each != 1_732]
    error = error_of(answers, 1_732)
    assert isinstance(error, RequestRefusedError)
    assert error.message.startswith("s:m (http://")
    assert error.message.endswith("refused the batch for this row (line 1733): Line too long for this model.")
    assert [len(server.rows(each.id)) for each in server.created] == [2_000, 1_999]
    assert batch.ids == ("batch_4",)
    assert batch.status == "completed"
    assert tuple(batch.counts) == (1_999, 0, 1_999)
    assert "The server refused a batch for other rows of it: 1,999 rows are submitted again." in answers.notes
    assert usage(session)[:3] == (1_999, 0, 1_999)


def test_a_server_that_refuses_ever_other_rows_is_left_after_a_few_batches(llm: LLM, server: BatchServer) -> None:
    server.invalid = {1: {"message": "Not this one."}}
    answers = answered(llm, list(range(9)))
    assert len(server.created) == 4
    assert names(answers) == ["RequestRefusedError"] * 4 + ["NotAskedError"] * 5
    error = error_of(answers, 8)
    refused = f"s:m ({server.url}) refused 4 batches in a row for other rows"
    assert error.message == f"Not asked: {refused}, and this was not submitted once more."
    assert error.hint.startswith("Call it again")


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("token_limit_exceeded", "Enqueued token limit reached for m. Limit: 90,000.", RequestRefusedError),
        ("model_not_found", "The model 'm' does not exist.", ModelNotFoundError),
        ("insufficient_quota", "You exceeded your current quota.", QuotaExceededError),
        (None, "Something is wrong with\n\x1b[31mthe file.", RequestRefusedError),
    ],
)
def test_a_batch_that_is_refused_as_a_whole_is_one_error(
    llm: LLM, server: BatchServer, code: str | None, message: str, kind: type[LLMError]
) -> None:
    _refusing(server, {"code": code, "message": message, "line": None, "param": None})
    error = refused(llm, ROWS)
    assert type(error) is kind
    assert len(str(error).splitlines()) <= 2
    assert "\x1b" not in str(error)
    assert error.message.startswith("s:m (http://")
    assert "refused the batch" in error.message
    assert " ".join(message.replace("\x1b", " ").split())[:30] in error.message
    assert error.hint
    assert len(server.created) == 1, "it is not submitted once more by itself"
    assert [each.step for each in records()] == ["refused"]
    del server._move
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 2


def _refusing(server: BatchServer, error: dict[str, Any]) -> None:
    """Have the server refuse each batch as a whole."""

    def move(batch: Any) -> None:
        batch.about |= {"status": "failed", "errors": {"object": "list", "data": [error]}}

    server._move = move  # type: ignore[method-assign]


def test_a_refusal_that_says_nothing(llm: LLM, server: BatchServer) -> None:
    server._move = lambda batch: batch.about.update(status="failed", errors=None)  # type: ignore[method-assign]
    error = refused(llm, ROWS)
    assert "refused the batch, and says not why" in error.message


def test_of_two_batches_the_one_that_is_refused_leaves_the_other(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_most(monkeypatch, 2)
    real = server._move

    def move(batch: Any) -> None:
        if batch.about["id"] == server.created[1].id:
            told = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
            batch.about |= {"status": "failed", "errors": {"object": "list", "data": [told]}}
        else:
            real(batch)

    server._move = move  # type: ignore[method-assign]
    answers = answered(llm, ROWS)
    assert answers.values == ["1", "2", None, None]
    assert "Enqueued token limit reached." in error_of(answers, 3).message


@pytest.mark.parametrize("status", [400, 403, 413])
def test_a_creation_that_is_refused_is_one_error(llm: LLM, server: BatchServer, status: int) -> None:
    server.faults["create"] = [Fault(status, body={"error": {"message": "No batches for you.", "code": None}})]
    error = refused(llm, ROWS)
    assert "No batches for you." in error.message
    assert len(str(error).splitlines()) <= 2
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_server_without_the_routes_says_so_before_anything(llm: LLM, server: BatchServer) -> None:
    server.faults["upload"] = [NO_ROUTE]
    error = refused(llm, ROWS)
    assert type(error) is UnsupportedError
    assert "batch_file=" in error.hint
    assert server.asked.count("create") == 0


# While it is waited for


@pytest.mark.parametrize("fault", [CLOSED, BROKEN, too_many(), Fault(502, body="<html>Bad gateway</html>")])
def test_polls_that_fail_are_survived(llm: LLM, server: BatchServer, fault: Fault) -> None:
    server.faults["poll"] = [fault] * 4
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_server_that_is_away_for_a_while_is_waited_for(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS)
    with server.away(), pytest.raises(TimeoutError):
        batch.result(0.2)
    server.in_progress = 0
    assert batch.result(10).values == ROWS


def test_a_key_that_expires_leaves_the_batch_and_another_one_goes_on(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_S", "sk-one-1234567890")
    llm = asking(session, server, api_key_env="KEY_OF_S")
    server.keys, server.in_progress = ["sk-one-1234567890"], 10**9
    batch = llm.batch(SAY, ROWS)
    server.keys = ["sk-two-1234567890"]
    with pytest.raises(AuthenticationError) as raised:
        batch.result(10)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert "401" in lines[0]
    assert "The batch batch_2 goes on at s: with a key that is taken, call it again" in lines[1]
    assert "sk-one" not in str(raised.value)
    monkeypatch.setenv("KEY_OF_S", "sk-two-1234567890")
    server.in_progress = 0
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_batch_that_is_gone_is_said_and_again_submits_anew(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS)
    server.hidden = ["batch_2"]
    with pytest.raises(RequestRefusedError) as raised:
        batch.result(10)
    assert raised.value.status == 404
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert "has no batch batch_2" in lines[0]
    assert "is of another account" in lines[1]
    assert "again=True submits its rows anew" in lines[1]
    error = refused(llm, ROWS)
    assert "has no batch batch_2" in error.message
    server.in_progress = 0
    assert answered(llm, ROWS, again=True).values == ROWS
    server.hidden = ()
    assert len(server.created) == 2


def test_an_output_file_that_is_deleted_is_said_and_again_submits_anew(llm: LLM, server: BatchServer) -> None:
    server.faults["content"] = [Fault(404, body={"error": {"message": "No such File object"}}, lasts=True)]
    error = refused(llm, ROWS)
    assert isinstance(error, RequestRefusedError)
    assert "has no file file-3" in error.message
    assert "again=True submits its rows anew" in error.hint
    server.faults.clear()
    assert answered(llm, ROWS).values == ROWS, "it was there after all"
    assert len(server.created) == 1


@pytest.mark.parametrize("fault", [CUT, CUT_UNSEEN, CLOSED, BROKEN, too_many()])
def test_a_download_that_breaks_off_is_fetched_again(llm: LLM, server: BatchServer, fault: Fault) -> None:
    server.faults["content"] = [fault, fault]
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_download_that_always_breaks_off_loses_nothing(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "LAST_LOOKS", 0.05)
    server.faults["content"] = [Fault(cut="reset", lasts=True)]
    error = refused(llm, ROWS)
    assert isinstance(error, ConnectionFailedError)
    lines = str(error).splitlines()
    assert len(lines) == 2
    assert "broke off while a file was fetched" in lines[0]
    assert "The results of batch_2 are at s: call it again" in lines[1]
    server.faults.clear()
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_slow_server(llm: LLM, server: BatchServer) -> None:
    server.slow = 0.05
    assert answered(llm, ROWS).values == ROWS


class Times:
    """Clocks for a batch that is waited for: each sleep is over at once, and jumps the wall clock as told."""

    def __init__(self, jump: float = 0.0) -> None:
        self.now, self.wall, self.jump = 0.0, time.time(), jump

    async def sleep(self, seconds: float) -> None:
        import asyncio

        self.now += seconds
        self.wall += seconds
        if self.now > 7_200 and self.jump:
            self.wall, self.jump = self.wall + self.jump, 0.0
        await asyncio.sleep(0)

    def clocks(self) -> dict[str, Any]:
        return {"clock": lambda: self.now, "wall_clock": lambda: self.wall, "sleep": self.sleep}


def with_clocks(session: Session, llm: LLM, times: Times, rows: list[str]) -> Batch:
    """Submit rows by a call whose waiting goes by other clocks."""
    engine = BatchEngine(session, BatchState(session, clocks=times.clocks()))
    options: Any = {"on_error": "keep"}
    call = llm._call(SAY, rows, options, "batch", engine)
    return Batch.submitted(call.run.model, session.loop.submit(call.answers()), engine.state)


@pytest.mark.parametrize("jump", [0.0, 20 * 365 * 86_400.0, -20 * 365 * 86_400.0])
def test_a_batch_in_progress_for_ever_ends_with_an_error_and_is_looked_at_again(
    session: Session, server: BatchServer, jump: float
) -> None:
    times, llm = Times(jump), LLM(asking(session, server).model, poll=600)
    server.ends, begun = "never", times.wall
    server.clock = lambda: begun + times.now
    batch = with_clocks(session, llm, times, ROWS)
    with pytest.raises(TimedOutError) as raised:
        batch.result(20)
    assert 25 * 3_600 < times.now < 27 * 3_600
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert "the batch batch_2 is in progress after 1 d 1 h, and overdue" in lines[0]
    assert "again=True" in lines[1]
    server.ends = "completed"
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_validation_of_three_hours(session: Session, server: BatchServer) -> None:
    times, llm = Times(), LLM(asking(session, server).model, poll=60)
    server.validating = 10**9
    real = server._move

    def move(batch: Any) -> None:
        server.validating = 10**9 if times.now < 3 * 3_600 else 0
        real(batch)

    server._move = move  # type: ignore[method-assign]
    assert with_clocks(session, llm, times, ROWS).result(20).values == ROWS
    assert 3 * 3_600 < times.now < 4 * 3_600


# Many rows


def at_most(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let a file hold so many rows."""

    def writer(path_of: Any, url: str, **_: int) -> InputFileWriter:
        return InputFileWriter(path_of, url, most_rows=rows)

    monkeypatch.setattr(batches_of_run, "InputFileWriter", writer)


def test_rows_beyond_a_files_limit_are_two_batches_and_one_result(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_most(monkeypatch, 2_000)
    server.order, server.failures = "shuffled", {7: Failure("no", 500)}
    answers = answered(llm, (number for number in range(3_000)), output_type=int)
    assert answers.failed == [6, 2_006]
    assert [each for each in answers.values if each is not None] == [
        each for each in range(3_000) if each not in {6, 2_006}
    ]
    server.failures = {}
    assert answered(llm, list(range(3_000)), output_type=int).values == list(range(3_000))
    assert [len(server.rows(each.id)) for each in server.created] == [2_000, 1_000, 2]


# Disks


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_input_file_that_cannot_be_written_sends_nothing(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(InputFileWriter, "write", no_space)
        error = refused(llm, ROWS)
    assert type(error) is ConfigurationError
    assert error.message.startswith("Batches cannot be kept in ")
    assert error.message.endswith("llm_magic/batches: No space left on device.")
    assert error.hint
    assert server.asked == []
    assert list(BatchFolder().place.glob("*.input*")) == []
    assert answered(llm, ROWS).values == ROWS


def test_results_that_cannot_be_written_are_still_at_the_server(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any) -> None:
        with file_download._on_disk():
            no_space()

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "_write", write)
        error = refused(llm, ROWS)
    assert type(error) is ConfigurationError
    assert "cannot be written: No space left on device" in error.message
    assert len(str(error).splitlines()) == 2
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1


def test_a_disk_that_is_full_while_it_is_waited_for_does_not_end_the_waiting(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS, on_error="keep")
    monkeypatch.setattr(BatchFolder, "update", no_space)
    server.in_progress = 0
    answers = batch.result(10)
    assert answers.values == ROWS
    assert any("No space left on device" in note for note in answers.notes)


def test_a_full_disk_at_the_very_end_takes_no_answer(
    llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BatchFolder.update

    def update(self: BatchFolder, of: Any, **changes: Any) -> Any:
        return no_space() if changes.get("step") == "read" else real(self, of, **changes)

    monkeypatch.setattr(BatchFolder, "update", update)
    answers = answered(llm, ROWS)
    assert answers.values == ROWS
    assert len(answers.notes) == 1


@pytest.mark.skipif(os.name == "nt", reason="no modes")
def test_a_state_folder_that_others_may_write_is_refused_in_a_line(llm: LLM, server: BatchServer) -> None:
    place = BatchFolder().place
    place.mkdir(parents=True)
    place.chmod(0o777)
    error = refused(llm, ROWS)
    assert type(error) is ConfigurationError
    assert "chmod 700" in str(error)
    assert server.asked == []


def test_a_file_in_the_place_of_the_state_folder(llm: LLM, server: BatchServer) -> None:
    place = BatchFolder().place
    place.parent.mkdir(parents=True)
    place.write_text("")
    error = refused(llm, ROWS)
    assert type(error) is ConfigurationError
    assert str(place) in error.message
    assert len(str(error).splitlines()) <= 2
    assert server.asked == []


# Hostile answers


def test_hostile_texts_are_values_like_any_other(llm: LLM, server: BatchServer) -> None:
    texts = [
        "x" * 5_000_000,
        "\ud800 half",
        "<script>alert(1)</script>",
        "\x1b[2J\x07",
        "NaN",
        "\u2028\x85\r\n",
        "[" * 9_999,
    ]

    def answer(line: Any) -> Any:
        whole = said(line)
        whole["choices"][0]["message"]["content"] = texts[int(line["custom_id"].split("-")[0])]
        return whole

    server.answer = answer
    answers = answered(llm, list(range(len(texts))))
    assert answers.values[2:] == texts[2:]
    assert answers.values[0] == texts[0]
    assert answers.values[1] in ("\ufffd half", "\ud800 half")
    assert repr(answers)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b'{"choices": NaN}',
        b'{"choices": [{"message": {"content": "1"}}], "usage": {"prompt_tokens": NaN, "completion_tokens": -5}}',
        b'{"choices": [{"message": {"content": "1"}}], "usage": {"prompt_tokens": 1e400, "completion_tokens": "9"}}',
        b'{"choices": [{"message": {"content": "1"}}], "usage": [1]}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices": {"a": 1}}',
        b'{"choices": [null]}',
        b'{"choices": []}',
        b"[]",
        b"7",
        b'"words"',
        b"null",
        b'{"choices": [{"message": {"content": {"x": [1]}}}]}',
        b'{"error": {"message": "\\u001b[31m\\ud800 <b>no</b>", "code": {"a": 1}}}',
        b'{"id": 1, "choices": [{"message": {"content": "1", "tool_calls": 7}, "finish_reason": 3}]}',
    ],
)
def test_a_body_that_is_no_answer_is_the_error_of_its_row(llm: LLM, server: BatchServer, body: bytes) -> None:
    def edit(content: bytes) -> bytes:
        lines = content.splitlines()
        name = json.loads(lines[0])["custom_id"].encode()
        head = b'{"custom_id": "' + name + b'", "response": {"status_code": 200, "body": '
        return b"\n".join([head + body + b"}}", *lines[1:], b""])

    server.edit = edit
    answers = answered(llm, ["1", "2"])
    assert answers.values[1] == "2"
    if answers.errors[0] is None:
        assert answers.values[0] in ("1", '{"x": [1]}')
        assert answers.statistics.usage is None or answers.statistics.usage.input_tokens >= 0
    else:
        error = error_of(answers, 0)
        assert "\x1b" not in str(error)
        assert "s:m" in error.message or isinstance(error, ProtocolError)


def test_hostile_statuses_and_counts(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 10**9
    told: dict[str, Any] = {
        "status": "\x1b[31mbusy\x07" + "x" * 9_999,
        "request_counts": {"total": -1, "completed": 10**40, "failed": "many"},
        "errors": {"data": [None, 7, {"message": "\x1b[0m", "line": -1}]},
        "expires_at": "soon",
    }
    real = server._shown
    server._shown = lambda about: {**real(about), **told}  # type: ignore[method-assign]
    batch = llm.batch(SAY, ROWS)
    with pytest.raises(TimeoutError) as raised:
        batch.result(0.1)
    assert "\x1b" not in repr(batch) + batch.status + str(raised.value)
    assert len(repr(batch)) < 300
    assert batch.counts.completed <= batch.counts.total == 4
    server._shown = real  # type: ignore[method-assign]
    server.in_progress = 0
    assert batch.result(10).values == ROWS


# Recordings


@pytest.fixture
def recording(session: Session, tmp_path: Path) -> None:
    session.settings.record_file = str(tmp_path / "answers.jsonl")


@pytest.mark.usefixtures("recording")
def test_what_a_batch_fetched_is_recorded_and_read_without_a_network(
    llm: LLM, server: BatchServer, session: Session
) -> None:
    server.failures = {2: Failure()}
    first = answered(llm, ROWS, record="once", output_type=int)
    assert first.values == [1, None, 3, 4]
    server.failures = {}
    assert answered(llm, ROWS, record="once", output_type=int).values == [1, 2, 3, 4]
    assert prompts(server) == ["SAY 2"]
    before, server.asked = usage(session), []
    with server.away():
        batch = llm.batch(SAY, ROWS, record="only", output_type=int)
        answers = batch.result(10)
        assert answers.values == [1, 2, 3, 4]
        assert [outcome.recorded for outcome in answers.outcomes] == [True] * 4
        assert llm.map(SAY, ROWS, record="only", output_type=int).values == [1, 2, 3, 4]
        missing = answered(llm, ["1", "9"], record="only", output_type=int)
        assert missing.values == [1, None]
        assert type(missing.errors[1]) is RecordingError
    assert usage(session) == before
    assert server.asked == []


@pytest.mark.usefixtures("recording")
def test_what_rows_have_recorded_is_not_submitted(
    llm: LLM, server: BatchServer, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.map(SAY, ["1"], record="once")
    with own_session(tmp_path / "other", monkeypatch) as later:  # as in another kernel
        later.settings.record_file = session.settings.record_file
        answers = answered(asking(later, server), ["1", "2"], record="once")
    assert answers.values == ["1", "2"]
    assert [outcome.recorded for outcome in answers.outcomes] == [True, False]
    assert prompts(server) == ["SAY 2"]


# Budgets and usage


@pytest.mark.parametrize("budget", [{"requests": 3}, {"tokens": 20}])
def test_a_budget_that_does_not_cover_all_rows_refuses_before_anything_is_sent(
    llm: LLM, server: BatchServer, session: Session, budget: dict[str, float]
) -> None:
    error = refused(llm, ROWS, budget=budget, max_tokens=5)
    assert type(error) is BudgetError
    assert len(str(error).splitlines()) <= 2
    session.settings.budget = budget
    assert type(refused(llm, ROWS, max_tokens=5)) is BudgetError
    assert server.asked == []
    assert records() == []
    session.settings.budget = {"requests": 4}
    assert answered(llm, ROWS, max_tokens=5).values == ROWS


def test_what_a_batch_took_settles_what_was_reserved(llm: LLM, server: BatchServer, session: Session) -> None:
    session.settings.budget = {"tokens": 1_000, "requests": 8}
    server.failures = {4: Failure()}
    answered(llm, ROWS, max_tokens=100)
    assert session.batches_in_flight == {}
    assert answered(llm, ["5", "6", "7"], max_tokens=100).values == ["5", "6", "7"], "15 tokens were used, no 400"
    assert type(refused(llm, ["8", "9"], max_tokens=1)) is BudgetError, "7 requests were made"


def test_a_batch_that_goes_on_stays_reserved(llm: LLM, server: BatchServer, session: Session) -> None:
    session.settings.budget = {"requests": 5}
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS)
    batch._future.cancel()
    assert type(refused(llm, ["8", "9"])) is BudgetError
    server.in_progress = 0
    assert answered(llm, ROWS).values == ROWS
    assert answered(llm, ["8"]).values == ["8"]


def test_a_refused_batch_took_nothing(llm: LLM, server: BatchServer, session: Session) -> None:
    session.settings.budget = {"requests": 4}
    _refusing(server, {"code": "x", "message": "No.", "line": None})
    refused(llm, ROWS)
    assert session.batches_in_flight == {}
    del server._move
    assert answered(llm, ROWS).values == ROWS


def test_costs_are_those_of_batches(session: Session, server: BatchServer) -> None:
    prices = {"m": {"input": 10.0, "output": 100.0, "batch_input": 1.0, "batch_output": 2.0}}
    llm = asking(session, server, prices=prices)
    answers = answered(llm, ROWS)
    assert answers.cost == pytest.approx(4 * (3 * 1.0 + 2 * 2.0) / 1e6)
    assert sum(row.cost or 0 for row in session.ledger.rows()) == pytest.approx(answers.cost)


def test_a_cost_is_not_known_without_a_price_of_batches(session: Session, server: BatchServer) -> None:
    llm = asking(session, server, prices={"m": {"input": 10.0, "output": 100.0}})
    answers = answered(llm, ROWS)
    assert answers.cost is None
    row = session.ledger.rows()[0]
    assert (row.cost, row.unpriced) == (None, 4)


def test_a_budget_of_cost(session: Session, server: BatchServer) -> None:
    prices = {"m": {"input": 10.0, "output": 100.0, "batch_input": 1.0, "batch_output": 2.0}}
    llm = asking(session, server, prices=prices)
    assert type(refused(llm, ROWS, budget=0.000_001, max_tokens=50)) is BudgetError
    assert server.asked == []
    assert answered(llm, ROWS, budget=0.005, max_tokens=50).values == ROWS, "at the price of batches it is enough"
    without = asking(session, server, prices={})
    assert type(refused(without, ["9"], budget=5.0)) is BudgetError


def test_a_budget_of_cost_counts_what_came_as_it_was_reserved(session: Session, server: BatchServer) -> None:
    llm = asking(session, server, prices={"m": {"input": 10.0, "output": 100.0}})
    session.settings.budget = {"cost": 0.023}
    assert answered(llm, ROWS, max_tokens=50).cost is None
    error = refused(llm, ["5", "6", "7", "8"], max_tokens=50)
    assert type(error) is BudgetError
    assert f"${4 * (3 * 10 + 2 * 100) / 1e6} used" in str(error)


def test_usage_counts_each_row_once_whatever_reads_it(llm: LLM, server: BatchServer, session: Session) -> None:
    server.failures = {4: Failure("no", 500)}
    answers = answered(llm, ["1", "x", "3", "4"], output_type=int)
    assert names(answers) == ["", "InvalidValueError", "", "ServerFailedError"]
    assert usage(session) == (4, 1, 3, 9, 6)
    server.failures = {}
    again = answered(llm, ["1", "x", "3", "4"], output_type=int)
    assert names(again) == ["", "InvalidValueError", "", ""]
    assert usage(session) == (6, 1, 5, 15, 10)
    assert answered(llm, ["1", "3"], output_type=int).values == [1, 3]
    assert usage(session) == (6, 1, 5, 15, 10)


def test_usage_counts_each_row_once_though_two_wait_for_it(llm: LLM, server: BatchServer, session: Session) -> None:
    server.in_progress = 10**9
    first, second = llm.batch(SAY, ROWS), llm.batch(SAY, ROWS)
    server.in_progress = 0
    assert [batch.result(10).values for batch in (first, second)] == [ROWS, ROWS]
    assert len(server.created) == 1
    assert usage(session) == (4, 0, 4, 12, 8)


def test_a_run_whose_reading_breaks_off_counts_no_row_twice(
    llm: LLM, server: BatchServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS)
    with monkeypatch.context() as patch:
        patch.setattr("llm_magic.batches.rows.result_reader.ResultReader.outcome", no_space)
        server.in_progress = 0
        with pytest.raises(ConfigurationError):
            batch.result(10)
    assert answered(llm, ROWS).values == ROWS
    assert len(server.created) == 1
    assert usage(session) == (4, 0, 4, 12, 8)


@pytest.mark.parametrize("on_error", ["keep", "fail"])
def test_failures_raise_or_are_kept(llm: LLM, server: BatchServer, on_error: str) -> None:
    server.ends, server.rows_done = "expired", 1
    batch = llm.batch(SAY, ROWS, on_error=on_error)  # type: ignore[arg-type]
    if on_error == "keep":
        assert batch.result(10).failed == [1, 2, 3]
        return
    with pytest.raises(RowsFailedError) as raised:
        batch.result(10)
    assert str(raised.value).splitlines()[0] == "3 of 4 failed: 3 NotAskedError; answers.retry() asks for those."
    assert all(isinstance(each, NotAskedError) for each in raised.value.answers.errors[1:])


def test_rows_whose_turn_did_not_come_are_no_requests(llm: LLM, server: BatchServer, session: Session) -> None:
    session.settings.budget = {"requests": 6}
    server.ends, server.rows_done = "expired", 2
    assert names(answered(llm, ROWS)) == ["", "", "NotAskedError", "NotAskedError"]
    assert usage(session) == (2, 0, 2, 6, 4)
    server.ends, server.rows_done = "completed", None
    assert answered(llm, ["5", "6", "7", "8"]).values == ["5", "6", "7", "8"], "4 of 6 requests were left"


@pytest.mark.parametrize("poll", [0, -1, float("nan"), "soon"])
def test_no_seconds_are_no_poll(llm: LLM, server: BatchServer, poll: Any) -> None:
    assert type(refused(llm, ROWS, poll=poll)) is OptionError
    assert server.asked == []


def test_of_two_batches_one_that_is_gone_loses_no_answer_of_the_other(
    llm: LLM, server: BatchServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_most(monkeypatch, 2)
    server.in_progress = 10**9
    batch = llm.batch(SAY, ROWS, on_error="keep")
    server.hidden, server.in_progress = [server.created[0].id], 0
    with pytest.raises(RequestRefusedError):
        batch.result(10)
    assert batch.counts.completed == 2, "the other one was waited for"
    server.hidden = ()
    answers = answered(llm, ROWS)
    assert answers.values == ROWS
    assert len(server.created) == 2
    assert usage(session) == (4, 0, 4, 12, 8)


def test_without_resuming_a_batch_alone_knows_what_it_has(llm: LLM, server: BatchServer, session: Session) -> None:
    session.settings.resume = False
    server.failures = {2: Failure()}
    assert answered(llm, ROWS).failed == [1]
    server.failures = {}
    assert answered(llm, ROWS).values == ROWS
    assert prompts(server) == ["SAY 2"]


def test_a_failure_never_asks_anything_beside_the_batch(llm: LLM, server: BatchServer) -> None:
    told = [
        Failure("response_format is not supported", 400, "unsupported_parameter", param="response_format"),
        Failure("This model's maximum context length is 10 tokens.", 400, "context_length_exceeded"),
        Failure("Invalid schema", 400, None, param="response_format"),
        Failure("The model `m` does not exist", 404, "model_not_found"),
        Failure("Rate limit reached", 429, "rate_limit_exceeded"),
        Failure("key", 401, "invalid_api_key"),
        Failure("blocked", 400, "content_filter"),
    ]
    server.failures = dict(enumerate(told, 1))
    answers = answered(llm, list(range(len(told))), schema="tone, stars int")
    assert len(answers.failed) == len(told)
    assert "direct" not in server.asked
    for number in answers.failed:
        error = error_of(answers, number)
        assert "s:m" in error.message
        assert "retries" not in str(error)
