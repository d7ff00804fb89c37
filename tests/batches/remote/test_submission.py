"""The submission of a batch: what is not certain is looked for, what is created is remembered, and nothing is twice."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from batch_records import record as new_record
from batch_server import (
    BROKEN,
    BROKEN_AFTER,
    CLOSED,
    CLOSED_AFTER,
    NO_ROUTE,
    SILENT_AFTER,
    BatchServer,
    Fault,
    too_many,
)
from openai import AsyncOpenAI

from llm_magic.batches.kept import kept_batches
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.batches.remote.submission import SETTLING, Submission, is_of
from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    LLMError,
    Origin,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    UnsupportedError,
)
from llm_magic.wire.batches import BatchRoutes
from llm_magic.wire.remote_batch import RemoteBatch

NOON = 1_800_000_000.0
LINE = json.dumps(
    {
        "custom_id": "0-" + "a" * 32,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": "SAY Hello"}]},
    }
).encode()


class _KilledError(BaseException):
    """In the place of the end of the process."""


class Trial:
    """A batch that is written, its folder and its server, on a clock that only waiting moves."""

    def __init__(self, server: BatchServer, place: Path) -> None:
        self.server, self.folder = server, BatchFolder(place / "batches")
        self.now = NOON
        server.clock = lambda: self.now
        self.waits: list[float] = []
        self.said: list[str] = []
        self.on_wait: Callable[[float], object] = float
        content = LINE + b"\n"
        self.record = new_record(
            rows=1, size=len(content), digest=hashlib.sha256(content).hexdigest(), created=self.now, url=server.url
        )
        with self.folder.new_file(self.folder.input_path(self.record)) as file:
            file.write(content)
        with self.folder.new_file(self.folder.ids_path(self.record)) as file:
            file.write(b"0-" + b"a" * 32 + b"\n")
        self.folder.add(self.record)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        self.on_wait(self.now)

    def do(self, what: Callable[[Submission], Awaitable[Any]], **known: Any) -> Any:
        """Do something with a submission of its own."""

        async def work() -> Any:
            async with AsyncOpenAI(base_url=self.server.url, api_key="k", max_retries=0) as client:
                routes = BatchRoutes(client, Origin("there", "m", self.server.url), **known)
                submission = Submission(
                    routes, self.folder, say=self.said.append, wall_clock=lambda: self.now, sleep=self._sleep
                )
                return await what(submission)

        return asyncio.run(work())

    def submit(self, **known: Any) -> BatchRecord:
        """Submit the batch as it is remembered."""
        found = self.folder.get(self.record.id) or self.record
        done = self.do(lambda submission: submission.submit(found), **known)
        assert isinstance(done, BatchRecord)
        assert self.folder.get(done.id) == done
        return done

    def fails(self, kind: type[LLMError], **known: Any) -> LLMError:
        with pytest.raises(kind) as raised:
            self.submit(**known)
        assert type(raised.value) is kind
        return raised.value

    def killed(self, *, created: bool) -> None:
        """Submit it in a process that ends while the batch is created, before or after the server has done that."""
        create = BatchRoutes.create

        async def ends(*arguments: Any, **known: Any) -> RemoteBatch:
            if created:
                await create(*arguments, **known)
            raise _KilledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BatchRoutes, "create", ends)
            with pytest.raises(_KilledError):
                self.submit()

    @property
    def step(self) -> str:
        found = self.folder.get(self.record.id)
        return "" if found is None else found.step

    def create_elsewhere(self, times: int = 1) -> None:
        """Create the batch as a process did that was killed, or a proxy that repeats what it is asked."""
        for _ in range(times):
            self.do(lambda submission: submission._created(self.folder.get(self.record.id) or self.record))


@pytest.fixture
def trial(tmp_path: Path) -> Any:
    with BatchServer() as server:
        yield Trial(server, tmp_path)


def test_it_is_uploaded_and_created(trial: Trial) -> None:
    done = trial.submit()
    [created] = trial.server.created
    assert (done.step, done.batch_id, done.status) == ("submitted", created.id, "validating")
    assert done.expires_at
    [upload] = trial.server.uploads
    assert created.body == {
        "input_file_id": upload.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"llm_magic": trial.record.digest, "llm_magic_id": trial.record.id},
    }
    assert created.headers["idempotency-key"] == trial.record.id
    assert upload.filename == f"llm_magic-{trial.record.id}.jsonl"
    assert not trial.folder.input_path(done).exists()
    assert trial.folder.ids_path(done).exists()
    assert (trial.waits, trial.said) == ([], [])
    assert trial.server.asked == ["upload", "create"]


# It is not known whether a batch was created


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        (BROKEN_AFTER, {}),
        (Fault(502, after=True), {}),
        (CLOSED_AFTER, {}),
        (SILENT_AFTER, {"timeout": 0.7}),
        (Fault(200, after=True, body={"ok": True}), {}),
        (Fault(200, after=True, body="<html>Welcome</html>"), {}),
        (Fault(409, after=True), {}),
        (Fault(408, after=True), {}),
        (Fault(cut="reset"), {}),
    ],
)
def test_one_that_was_created_is_found(trial: Trial, fault: Fault, known: dict[str, Any]) -> None:
    trial.server.faults["create"] = [fault]
    assert trial.submit(**known).batch_id == trial.server.created[0].id
    assert trial.server.asked[:3] == ["upload", "create", "list"]
    assert len(trial.server.created) == 1
    assert trial.waits == [SETTLING / 10]


@pytest.mark.parametrize("fault", [BROKEN, CLOSED, Fault(504), Fault(200, body={"ok": True})])
def test_one_that_was_not_created_is_created_when_that_is_certain(trial: Trial, fault: Fault) -> None:
    trial.server.faults["create"] = [fault]
    trial.submit()
    assert len(trial.server.created) == 1
    assert sum(trial.waits) == pytest.approx(SETTLING)
    assert trial.server.asked == ["upload", "create", "list", "list", "list", "create"]


def test_one_that_is_listed_late_is_found(trial: Trial) -> None:
    trial.server.faults["create"] = [Fault(504, after=True)]
    trial.server.hidden = {"batch_2"}

    def show(now: float) -> None:
        if now - NOON > SETTLING / 2:
            trial.server.hidden = ()

    trial.on_wait = show
    assert trial.submit().batch_id == "batch_2"
    assert len(trial.server.created) == 1


@pytest.mark.parametrize("metadata", ["dropped", "null"])
def test_it_is_found_by_its_file_where_a_server_keeps_no_metadata(trial: Trial, metadata: Any) -> None:
    trial.server.metadata = metadata
    trial.server.faults["create"] = [BROKEN_AFTER]
    assert trial.submit().batch_id == trial.server.created[0].id
    assert len(trial.server.created) == 1


def test_it_is_found_on_a_later_page(trial: Trial) -> None:
    trial.server.page_size = 1
    trial.server.faults["create"] = [BROKEN_AFTER]
    others = [new_record(number, file_id="file-x") for number in (2, 3)]

    def create_others(_now: float) -> None:
        trial.on_wait = float
        about = next(iter(trial.server.batches.values())).about
        for other in others:
            stranger = type(trial.server.batches["batch_2"])(
                {**about, "id": f"other-{other.id}", "metadata": {"llm_magic_id": other.id}}, []
            )
            trial.server.batches[stranger.about["id"]] = stranger

    trial.on_wait = create_others
    assert trial.submit().batch_id == "batch_2"
    assert len(trial.server.created) == 1


def test_a_server_that_fails_on(trial: Trial) -> None:
    trial.server.faults["create"] = [Fault(500, lasts=True)]
    trial.fails(ServerFailedError)
    assert trial.server.asked.count("create") == 5
    assert trial.step == "submitting"
    trial.server.faults.clear()
    trial.waits.clear()
    trial.submit()
    assert trial.waits == [], "what was tried last has been looked for long enough"
    assert len(trial.server.created) == 1


def test_a_server_that_has_no_list(trial: Trial) -> None:
    trial.server.faults |= {"create": [BROKEN_AFTER], "list": [NO_ROUTE]}
    error = trial.fails(ProviderError)
    assert error.message.startswith("It is not known whether a batch was created: ")
    assert f"%llm_batch remove {trial.record.id} forgets this one" in error.hint
    assert "list of batches of your provider" in error.hint
    again = trial.fails(ProviderError)
    assert again.message == error.message
    assert len(trial.server.created) == 1
    assert trial.server.asked.count("create") == 1


def test_a_list_that_fails(trial: Trial) -> None:
    trial.server.faults |= {"create": [BROKEN_AFTER], "list": [BROKEN]}
    error = trial.fails(ServerFailedError)
    assert error.hint.endswith(
        "A batch may have been created: run the cell again, it looks for that before it creates one."
    )
    assert trial.submit().batch_id == trial.server.created[0].id
    assert len(trial.server.created) == 1


# After a process that was killed


def test_what_another_process_created_is_found(trial: Trial) -> None:
    trial.killed(created=True)
    assert trial.step == "submitting"
    assert trial.submit().batch_id == trial.server.created[0].id
    assert trial.waits == []
    assert len(trial.server.created) == 1


@pytest.mark.parametrize(
    ("later", "wait"), [(0.0, SETTLING), (4.0, SETTLING - 4.0), (SETTLING + 1, None), (-86_400.0, SETTLING)]
)
def test_what_another_process_may_still_create_is_waited_for(trial: Trial, later: float, wait: float | None) -> None:
    """The more so where the clock was set back meanwhile."""
    trial.killed(created=False)
    trial.now += later
    trial.submit()
    assert trial.waits == ([] if wait is None else [wait])
    assert len(trial.server.created) == 1


def test_the_time_begins_anew_with_each_attempt(trial: Trial) -> None:
    trial.killed(created=False)
    trial.now += 3600
    trial.killed(created=False)
    trial.waits.clear()
    trial.submit()
    assert trial.waits == [SETTLING]


def test_a_file_that_the_server_has_lost_is_sent_again(trial: Trial) -> None:
    trial.killed(created=False)
    trial.server.files.clear()
    done = trial.submit()
    assert done.file_id == trial.server.uploads[1].id == trial.server.created[0].body["input_file_id"]


def test_a_file_that_is_nowhere(trial: Trial) -> None:
    trial.killed(created=False)
    trial.server.files.clear()
    trial.folder.input_path(trial.record).unlink()
    assert "No such File object" in trial.fails(RequestRefusedError).message
    assert len(trial.server.uploads) == 1


def test_after_a_refusal_nothing_is_waited_for(trial: Trial) -> None:
    trial.server.faults["create"] = [Fault(403)]
    trial.fails(AuthenticationError)
    trial.submit()
    assert trial.waits == []
    assert len(trial.server.created) == 1


# Several batches bear its name


def test_a_proxy_has_repeated_the_creation(trial: Trial) -> None:
    trial.killed(created=True)
    trial.create_elsewhere(2)
    first, second, third = (each.id for each in trial.server.created)
    trial.now += 3600
    done = trial.submit()
    assert done.batch_id == first
    assert len(trial.server.created) == 3
    [said] = trial.said
    assert said == (
        f"The server has this batch 3 times: {first} is waited for; {third} and {second} would be paid, too: "
        f"%llm_batch cancel {third} and %llm_batch cancel {second} ends that."
    )
    for name in (second, third):
        [other] = trial.folder.find(name)
        assert (other.step, other.batch_id, other.rows) == ("submitted", name, 1)
        assert other.run != trial.record.run, "no cell waits for it"
        assert trial.folder.ids_path(other).read_bytes() == trial.folder.ids_path(done).read_bytes()
    assert [each.batch_id for each in trial.folder.of_run(trial.record.run)] == [first]


def test_one_that_goes_on_is_rather_waited_for_than_one_that_was_cancelled(trial: Trial) -> None:
    trial.killed(created=True)
    trial.create_elsewhere()
    first, second = (each.id for each in trial.server.created)
    trial.server.batches[first].about["status"] = "cancelled"
    assert trial.submit().batch_id == second
    assert trial.said == []
    assert len(trial.folder.all()) == 1


def test_a_server_whose_clock_is_years_behind(trial: Trial) -> None:
    trial.server.clock = lambda: 1_000_000_000.0
    trial.killed(created=True)
    assert trial.submit().batch_id == trial.server.created[0].id
    assert trial.said == []


def test_batches_of_others_are_none_of_ours(trial: Trial) -> None:
    ours = trial.record
    assert is_of(RemoteBatch("b", metadata={"llm_magic_id": ours.id}), ours)
    assert not is_of(RemoteBatch("b", metadata={"llm_magic_id": "another", "llm_magic": ours.digest}), ours)
    assert not is_of(RemoteBatch("b"), ours)
    sent = new_record(file_id="file-1")
    assert is_of(RemoteBatch("b", input_file_id="file-1"), sent)
    assert is_of(RemoteBatch("b", input_file_id="file-1", metadata={"mine": "x"}), sent)
    assert not is_of(RemoteBatch("b", input_file_id="file-1", metadata={"llm_magic_id": "another"}), sent)


# It is turned away


def test_too_many_requests_are_waited_out(trial: Trial) -> None:
    trial.server.faults["create"] = [too_many("7"), too_many("0")]
    trial.submit()
    assert trial.waits == [7.0, 2.0]
    assert trial.server.asked == ["upload", "create", "create", "create"]


def test_a_server_that_asks_for_hours_is_not_waited_for(trial: Trial) -> None:
    trial.server.faults["create"] = [too_many("7200")]
    trial.fails(RateLimitedError)
    assert trial.waits == []
    trial.now += 7200
    trial.submit()
    assert len(trial.server.created) == 1


def test_too_many_requests_for_ever(trial: Trial) -> None:
    trial.server.faults["create"] = [Fault(429, lasts=True)]
    trial.fails(RateLimitedError)
    assert trial.waits == [1.0, 2.0, 5.0, 10.0]


def test_an_account_without_money_is_not_asked_again(trial: Trial) -> None:
    body = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
    trial.server.faults["create"] = [Fault(429, body=body)]
    trial.fails(QuotaExceededError)
    assert trial.waits == []


@pytest.mark.parametrize("route", ["upload", "create"])
def test_a_key_that_is_refused(trial: Trial, route: str) -> None:
    trial.server.faults[route] = [Fault(401)]
    trial.fails(AuthenticationError)
    assert trial.step == {"upload": "uploading", "create": "submitting"}[route]
    known = trial.folder.get(trial.record.id)
    assert known is not None
    assert not known.may_be_created, "the server has said that it is not"
    trial.now += 60
    trial.submit()
    assert len(trial.server.created) == 1
    assert len(trial.server.uploads) == 1


def test_a_server_that_is_away(trial: Trial) -> None:
    with trial.server.away():
        trial.fails(ConnectionFailedError)
    assert trial.step == "uploading"
    trial.submit()
    assert len(trial.server.created) == 1


def test_a_server_that_goes_away_before_the_creation(trial: Trial) -> None:
    """Nobody has heard what was never sent: it is sent again, and nothing is looked for."""
    trial.server.faults["upload"] = []
    found: list[BatchRecord] = []

    async def upload(submission: Submission) -> None:
        found.append(await submission._uploaded(trial.record))

    trial.do(upload)
    with trial.server.away():
        trial.fails(ConnectionFailedError)
    assert trial.waits == [1.0, 2.0, 5.0, 10.0]
    trial.now += 60
    trial.submit()
    assert len(trial.server.created) == 1


@pytest.mark.parametrize("fault", [Fault(200, body={"object": "file"}), Fault(200, body="<html>")])
def test_an_upload_that_is_answered_by_something_else(trial: Trial, fault: Fault) -> None:
    trial.server.faults["upload"] = [fault]
    with pytest.raises((ProtocolError, UnsupportedError)):
        trial.submit()
    assert trial.step == "uploading"
    assert trial.server.created == []


# The disk is full, or what is remembered is gone


@pytest.mark.parametrize("write", range(1, 5))
def test_a_full_disk_at_each_write(trial: Trial, monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    """Nothing is paid that is not remembered, and the next run finds what was paid."""
    count = 0
    replace = kept_batches.replace

    def full(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == write:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, data)

    monkeypatch.setattr(kept_batches, "replace", full)
    with pytest.raises((OSError, ConfigurationError)) as raised:
        trial.submit()
    assert "No space left on device" in str(raised.value)
    assert trial.step == ("written", "uploading", "uploaded", "submitting")[write - 1]
    assert len(trial.server.created) == (write == 4)
    if write == 4:
        assert isinstance(raised.value, ConfigurationError)
        assert trial.server.created[0].id in raised.value.message
        assert "it finds the batch in the list of its server" in raised.value.hint
    trial.submit()
    assert len(trial.server.created) == 1


def test_it_is_forgotten_while_it_is_created(trial: Trial) -> None:
    def forget(_now: float) -> None:
        trial.folder.remove(trial.record)

    trial.server.faults["create"] = [BROKEN_AFTER]
    trial.on_wait = forget
    done = trial.submit()
    assert done.batch_id == trial.server.created[0].id


def test_another_process_has_submitted_it_meanwhile(trial: Trial) -> None:
    """Where a file system has no locks, both may have been created: both are remembered."""

    def submit(_now: float) -> None:
        trial.folder.update(trial.record, step="submitted", batch_id="batch_x")

    trial.server.faults["create"] = [too_many()]
    trial.on_wait = submit
    done = trial.submit()
    assert done.batch_id == "batch_x"
    [created] = trial.server.created
    [said] = trial.said
    assert said == (
        f"The server has this batch 2 times: batch_x is waited for; {created.id} would be paid, too: "
        f"%llm_batch cancel {created.id} ends that."
    )
    assert [each.batch_id for each in trial.folder.find(created.id)] == [created.id]


# Looked for alone


def test_one_that_nobody_wants_is_looked_for(trial: Trial) -> None:
    trial.killed(created=True)
    known = trial.folder.get(trial.record.id)
    assert known
    found = trial.do(lambda submission: submission.adopted(known))
    assert (found.step, found.batch_id) == ("submitted", trial.server.created[0].id)
    assert not trial.folder.input_path(found).exists()


def test_one_that_nobody_has_created_is_not_found(trial: Trial) -> None:
    trial.killed(created=False)
    known = trial.folder.get(trial.record.id)
    assert known
    assert trial.do(lambda submission: submission.adopted(known)) is None
    assert trial.waits == [SETTLING]
