"""Embeddings by offline batches: a scripted server for splits, failures and ends; processes that are killed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from batch_server import BROKEN_AFTER, NO_ROUTE, BatchServer, Failure, Fault, said
from servers import Answer, Received, document

from llm_magic import LLM, api
from llm_magic.batches.batch import Batch
from llm_magic.batches.embeddings import embedding
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.remembered import RememberedBatches
from llm_magic.batches.remote import submission
from llm_magic.config.settings import Settings
from llm_magic.embeddings import Vectors
from llm_magic.errors import (
    BudgetError,
    ConfigurationError,
    LLMError,
    NotAskedError,
    OptionError,
    PromptError,
    ProtocolError,
    RecordingError,
    RequestRefusedError,
    UnsupportedError,
)
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

TEXTS = ["x" * length for length in range(1, 8)]  # the scripted vectors are [length, 1]
VECTORS = [[float(length), 1.0] for length in range(1, 8)]


def direct(request: Received) -> Answer:
    """Answer a request that is no batch's: vectors that differ from those of batches in their sign."""
    data = [
        {"index": at, "embedding": [-float(len(text)), 1.0]} for at, text in enumerate(request.json.get("input", ()))
    ]
    return document({"data": data, "model": "m", "usage": {"prompt_tokens": len(data), "total_tokens": len(data)}})


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(submission, "SETTLING", 0.0)
    monkeypatch.setattr(submission, "_WAITS", (0.0,))
    with made() as session:
        yield session


@contextmanager
def made() -> Iterator[Session]:
    """Make the session of another kernel the active one."""
    before, session = api._active, Session(Settings(), ProviderRegistry())
    api.activate(session)
    try:
        yield session
    finally:
        api.activate(before)
        session.close()


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(direct=direct, validating=0, in_progress=0, finalizing=0) as server:
        yield server


def batch(server: BatchServer, texts: Any = TEXTS, **options: Any) -> Batch[Vectors]:
    return LLM("compatible:m", base_url=server.url).embed_batch(texts, **{"batch": 2, "poll": 0.01, **options})


def embedded(server: BatchServer, texts: Any = TEXTS, **options: Any) -> Vectors:
    return batch(server, texts, **options).result(10)


def inputs(server: BatchServer) -> list[list[list[str]]]:
    """Return the texts of each line of each batch."""
    return [[row["body"]["input"] for row in server.rows(each.id)] for each in server.created]


def test_a_file_of_lines_and_its_vectors_in_the_order_of_the_texts(server: BatchServer, session: Session) -> None:
    server.order, server.in_progress = "shuffled", 1
    begun = batch(server, dimensions=2)
    assert begun.ids == (server.created[0].id,)
    assert begun.result(10) == VECTORS
    found = begun.result()
    assert (found.dimensions, found.model, found.model_reported, found.provider) == (
        2,
        "compatible:m",
        "m",
        "compatible",
    )
    assert (found.usage.input_tokens if found.usage else None, found.cost, found.recorded) == (7, None, False)
    assert (begun.status, begun.counts) == ("completed", (4, 0, 4))
    rows = server.rows(begun.id)
    assert [row["body"] for row in rows] == [
        {"model": "m", "input": TEXTS[at : at + 2], "dimensions": 2} for at in (0, 2, 4, 6)
    ]
    assert {row["url"] for row in rows} == {"/v1/embeddings"} == {server.created[0].body["endpoint"]}
    (record,) = BatchFolder().all()
    assert (record.api, record.rows, record.step, record.prompt) == ("embeddings", 4, "read", "7 texts to be embedded")
    assert server.created[0].body["metadata"] == {"llm_magic": record.digest, "llm_magic_id": record.id}
    assert not BatchFolder().input_path(record).exists()
    (row,) = session.ledger.rows()
    assert (row.requests, row.answers, row.failed, row.input_tokens, row.unpriced) == (4, 1, 0, 7, 4)


def test_no_texts_are_no_batch(server: BatchServer) -> None:
    assert embedded(server, []) == []
    assert not server.asked


def test_a_batch_has_no_more_texts_than_it_may(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedding.MOST_EMBEDDED == 50_000
    monkeypatch.setattr(embedding, "MOST_EMBEDDED", 5)
    begun = batch(server)
    assert begun.result(10) == VECTORS
    assert inputs(server) == [[TEXTS[:2], TEXTS[2:4]], [TEXTS[4:6], TEXTS[6:]]]
    assert (len(begun.ids), begun.counts) == (2, (4, 0, 4))
    with pytest.raises(OptionError, match=r"^A line of 6 texts: a whole batch embeds at most 5.\nLower batch=N.$"):
        batch(server, batch=6)


def test_what_failed_is_named_and_asked_for_alone(server: BatchServer, session: Session) -> None:
    server.failures = {2: Failure("too long"), 3: Failure("too long")}
    with pytest.raises(
        RequestRefusedError, match=r"^Texts 2-5 have no vectors: compatible:m .* answered 400: too long"
    ) as told:
        embedded(server)
    assert told.value.hint.endswith("3 of 7 vectors came before and are kept for the next run.")
    (row,) = session.ledger.rows()
    assert (row.requests, row.failed, row.input_tokens) == (4, 2, 3)
    server.failures = {}
    assert embedded(server) == VECTORS
    assert inputs(server)[1:] == [[TEXTS[2:4], TEXTS[4:6]]]


def test_without_a_batch_only_what_is_missing_is_asked(server: BatchServer) -> None:
    server.failures = {4: Failure("too long")}
    with pytest.raises(RequestRefusedError, match=r"^Text 6 has no vector: "):
        embedded(server)
    found = LLM("compatible:m", base_url=server.url).embed(TEXTS, batch=2)
    assert found == [*VECTORS[:6], [-7.0, 1.0]]
    assert len(server.created) == 1


def test_another_kernel_finds_what_a_batch_has(server: BatchServer) -> None:
    server.failures = {1: Failure("no")}
    with pytest.raises(RequestRefusedError):
        embedded(server)
    server.failures = {}
    for _ in range(2):
        with made() as session:
            found = embedded(server)
            assert found == VECTORS
            assert (found.usage.input_tokens if found.usage else None) == 7
            counted = [row.input_tokens for row in session.ledger.rows()]
    assert inputs(server)[1:] == [[TEXTS[:2]]]
    assert sum(counted) == 0
    assert found.notes == ("7 texts embedded by a batch of an earlier run, at no further cost (again=True asks anew).",)
    assert embedded(server, again=True) == VECTORS
    assert len(server.created) == 3
    assert embedded(server, TEXTS[:4]).notes, "lines are found, whatever stands around them"
    assert len(server.created) == 3


def test_a_batch_that_is_under_way_is_waited_for(server: BatchServer) -> None:
    server.ends = "never"
    batch(server)
    server.ends = "completed"
    with made():
        assert embedded(server) == VECTORS
    assert len(server.created) == 1


def test_the_same_call_twice_at_once_submits_once(server: BatchServer) -> None:
    found: list[Vectors] = []
    threads = [threading.Thread(target=lambda: found.append(embedded(server))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [VECTORS, VECTORS]
    assert len(server.created) == 1


KILLED = """
import json, os, signal, sys
from llm_magic import LLM, api
from llm_magic.batches.kept import kept_batches
from llm_magic.batches.kept.kept_batches import BatchFolder
import llm_magic.batches.embeddings.embedding, llm_magic.batches.batch, llm_magic.wire.embeddings, openai

url, steps = sys.argv[1], sys.argv[2].split(",")
update = BatchFolder.update

def child(step):
    def killed(self, of, **changes):
        before = step.endswith("!") and changes.get("step") == step[:-1]
        if before:
            os.kill(os.getpid(), signal.SIGKILL)
        record = update(self, of, **changes)
        if changes.get("step") == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    BatchFolder.update = killed
    texts = [step, step + "x", step + "xy"]
    LLM("compatible:m", base_url=url).embed_batch(texts, batch=2, poll=0.01, param={"user": step}).result(10)
    os._exit(0)

for step in steps:
    pid = os.fork()
    if pid == 0:
        child(step)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL, step
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_killed_after_each_step_none_is_submitted_twice(server: BatchServer) -> None:
    steps = ["uploading", "uploaded", "submitting", "submitted!", "submitted", "ended", "fetched", "read!"]
    subprocess.run([sys.executable, "-c", KILLED, server.url, ",".join(steps)], check=True)  # noqa: S603 - this Python
    created = len(server.created)
    assert created == 5, "all but those that were killed before"
    for step in steps:
        texts = [step, step + "x", step + "xy"]
        found = embedded(server, texts, param={"user": step})
        assert found == [[float(len(text)), 1.0] for text in texts], step
    asked = [tuple(lines[0]) for lines in inputs(server)]
    assert sorted(asked) == sorted((step, step + "x") for step in steps), "each once"
    assert {record.step for record in BatchFolder().all()} == {"read"}


def test_a_submission_that_broke_off_goes_on_only_where_all_of_it_is_wanted(server: BatchServer) -> None:
    server.faults = {"upload": [Fault(403, lasts=True)]}
    for texts in (TEXTS, TEXTS[:5]):
        with pytest.raises(LLMError):
            embedded(server, texts)
    (record,) = BatchFolder().all()
    assert (record.step, record.rows) == ("uploading", 3), "the other one is given up"
    server.faults = {}
    assert embedded(server, TEXTS[:4]) == VECTORS[:4]
    assert inputs(server) == [[TEXTS[:2], TEXTS[2:4]]]
    server.faults = {"create": [Fault(403, lasts=True)]}
    with pytest.raises(LLMError):
        embedded(server, TEXTS[4:])
    server.faults = {}
    assert embedded(server, TEXTS[4:]) == VECTORS[4:]
    assert len(server.uploads) == 2, "what is uploaded is not uploaded again"


def test_submitted_anew_what_goes_on_beside_is_told(server: BatchServer) -> None:
    server.ends = "never"
    before = batch(server)
    before.leave()  # which would see its end
    server.ends = "completed"
    with made():
        found = embedded(server, again=True)
    (note,) = found.notes
    assert re.fullmatch(
        rf"The batch {before.id} of .* is of this cell, too, and goes on beside the new one: "
        rf"%llm_batch cancel {before.id} ends it.",
        note,
    )
    assert (found, len(server.created)) == (VECTORS, 2)


def test_a_creation_whose_answer_is_lost_is_not_repeated(server: BatchServer) -> None:
    server.faults = {"create": [BROKEN_AFTER]}
    assert embedded(server) == VECTORS
    assert len(server.created) == 1


@pytest.mark.parametrize("ends", ["expired", "cancelled", "failed"])
@pytest.mark.parametrize("lists_undone", [True, False])
def test_what_a_batch_that_ended_early_has_is_kept(server: BatchServer, ends: Any, lists_undone: bool) -> None:
    server.ends, server.rows_done, server.lists_undone = ends, 1, lists_undone
    with pytest.raises(NotAskedError, match=r"^Texts 2-6 have no vectors: Not asked: the batch "):
        embedded(server)
    server.ends, server.rows_done = "completed", None
    with made():
        assert embedded(server) == VECTORS
    assert inputs(server)[1:] == [[TEXTS[2:4], TEXTS[4:6], TEXTS[6:]]]


def test_a_line_that_the_server_refuses_is_left_out_of_the_next_batch(server: BatchServer) -> None:
    server.invalid = {4: {"message": "no such field"}}
    with pytest.raises(RequestRefusedError, match=r"^Text 6 has no vector: .* \(line 4\): no such field"):
        embedded(server)
    assert inputs(server)[1:] == [[TEXTS[:2], TEXTS[2:4], TEXTS[4:6]]]
    assert embedded(server) == VECTORS


def test_a_server_without_batches(server: BatchServer, session: Session) -> None:
    server.faults = {"upload": [NO_ROUTE]}
    with pytest.raises(UnsupportedError) as told:
        embedded(server)
    assert told.value.hint == "LLM.embed embeds now."
    session.registry.add("v", cls="vllm", base_url=server.url)
    with pytest.raises(UnsupportedError, match=r"takes no offline batches.*\nLLM.embed embeds now.$"):
        LLM("v:m").embed_batch(TEXTS)
    with pytest.raises(UnsupportedError, match=r"^local:smollm2 .* takes no offline batches.\nLLM.embed embeds now.$"):
        LLM("local:smollm2").embed_batch(TEXTS)


def test_it_is_cancelled_at_its_server(server: BatchServer) -> None:
    server.ends = "never"
    begun = batch(server)
    server.rows_done = 1
    assert begun.cancel()
    with pytest.raises(NotAskedError, match=r"^Texts 2-6 have no vectors: Not asked: the batch was cancelled"):
        begun.result(10)
    assert server.cancelled == [begun.id]


def test_it_is_awaited(server: BatchServer) -> None:
    async def found() -> Vectors:
        return await batch(server)

    assert asyncio.run(found()) == VECTORS


def answering(body: Any) -> Any:
    return lambda line: body(line) if len(line["body"]["input"]) == 1 else said(line)


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        [{"index": 0, "embedding": [float("nan"), 1.0]}],
        [{"index": 0, "embedding": [1e400, 1.0]}],
        [{"index": 0, "embedding": ["1", None]}],
        [{"index": 0, "embedding": [1.0, 2.0, 3.0]}],
        [{"index": 0, "embedding": []}],
        [{"index": 0}, {"index": 1}],
        ["\ud800"],
        {"0": [1.0]},
        [{"index": {"a": []}, "embedding": [[1.0, 2.0], [3.0, 4.0]]}],
    ],
)
def test_a_line_whose_answer_is_none_loses_no_other(server: BatchServer, data: Any) -> None:
    server.answer = answering(lambda _: {"object": "list", "data": data, "model": "m"})
    with pytest.raises(ProtocolError, match=r"^Text 6 has no vector: "):
        embedded(server)
    server.answer = said
    assert embedded(server) == VECTORS
    assert inputs(server)[1:] == [[TEXTS[6:]]]


@pytest.mark.parametrize("shape", ["llama-stack", "vllm", "vllm-text"])
def test_failures_in_the_shapes_of_other_servers(server: BatchServer, shape: Any) -> None:
    server.failed_rows, server.failures, server.string_bodies = shape, {1: Failure("too long")}, True
    with pytest.raises(LLMError, match=r"^Texts 0-1 have no vectors: [^\n]*too long"):
        embedded(server)
    server.failures = {}
    assert embedded(server) == VECTORS


def test_what_stands_in_the_files_besides(server: BatchServer) -> None:
    server.twice, server.unknown, server.torn = {1}, ["0-strange", "9-" + "0" * 32], {4}
    with pytest.raises(ProtocolError, match=r"^Text 6 has no vector: .*he batch \S+ is completed, and has no result"):
        embedded(server)
    server.torn = ()
    assert embedded(server) == VECTORS


def test_shorter_vectors_that_did_not_come(server: BatchServer) -> None:
    with pytest.raises(
        UnsupportedError, match=r"^Texts 0-6 have no vectors: .*gave vectors of 2 dimensions, not of the 3"
    ):
        embedded(server, dimensions=3)


def test_floats_in_base64(server: BatchServer) -> None:
    assert embedded(server, param={"encoding_format": "base64"}) == VECTORS


def test_prices_of_batches_and_a_budget(server: BatchServer, session: Session) -> None:
    prices = {"m": {"input": 2, "output": 2, "batch_input": 1, "batch_output": 1}}
    session.registry.add("s", base_url=server.url, prices=prices)
    llm = LLM("s:m")
    assert llm.embed_batch(TEXTS, batch=2, poll=0.01).result(10).cost == pytest.approx(7e-6)
    session.settings.budget = {"tokens": 30}
    with pytest.raises(BudgetError, match="this batch to s:m"):
        llm.embed_batch(["long " * 30], poll=0.01)
    assert (len(server.uploads), len(BatchFolder().all())) == (1, 1)


def test_recorded_it_is_not_asked_again(server: BatchServer, session: Session, tmp_path: Path) -> None:
    session.settings.record_file = str(tmp_path / "llm.jsonl")
    assert not embedded(server, record="once").recorded
    asked = len(server.asked)
    for record in BatchFolder().all():
        BatchFolder().remove(record)
    with made() as other:
        other.settings.record_file = str(tmp_path / "llm.jsonl")
        found = embedded(server, record="only")
        assert (found, found.recorded, found.usage and found.usage.input_tokens) == (VECTORS, True, 7)
        with pytest.raises(RecordingError):
            embedded(server, ["another"], record="only")
        assert LLM("compatible:m", base_url=server.url).embed(TEXTS, batch=2, record="only") == VECTORS
    assert len(server.asked) == asked


def test_what_cannot_be_sent_is_said_before_anything_is(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT", "top-secret-tenant")
    for texts, options, error, message in (
        (["a", "b", "c\ud800"], {}, PromptError, "Text 2 holds half of a surrogate pair"),
        (["a"], {"param": {"user": "env:TENANT"}}, UnsupportedError, "^A batch writes its fields"),
        (["a"], {"param": {"user": float("nan")}}, OptionError, r"param\['user'\] must be JSON, not nan"),
        (["a"], {"param": {"input": 1}}, OptionError, "is what the option and the texts are for"),
        ("a", {}, PromptError, "texts is one text"),
        (["a", ""], {}, PromptError, "item 1 is an empty text"),
        (["a"], {"poll": 0}, OptionError, "poll"),
        (["a"], {"poll": float("nan")}, OptionError, "poll"),
        (["a"], {"again": "yes"}, OptionError, "again"),
        (["a"], {"batch": True}, OptionError, "^embed_batch: batch must be a whole number"),
        (["a"], {"wait": True}, OptionError, "^embed_batch has no option wait.\nbatch.result"),
        (["a"], {"batch_file": "f"}, OptionError, "The file of a batch is written for rows"),
        (["a"], {"use_batch_api": True}, OptionError, "LLM.embed_batch sends an offline batch in any case"),
        (["a"], {"temperature": 0}, OptionError, "It is for answers in words"),
        (["a"], {"pol": 1}, OptionError, "Did you mean poll"),
    ):
        with pytest.raises(error, match=message) as told:
            batch(server, texts, **options)
        assert len(str(told.value).splitlines()) <= 2
        assert "top-secret" not in str(told.value)
    assert not server.asked
    assert not BatchFolder().all()


def test_a_poll_that_is_a_default_of_all_calls(server: BatchServer) -> None:
    llm = LLM("compatible:m", base_url=server.url, poll=0.01, temperature=0)
    assert llm.embed_batch(TEXTS).result(10) == VECTORS


def test_an_alias_may_say_how_often_it_is_looked_at(server: BatchServer, session: Session) -> None:
    session.registry.add("s", base_url=server.url)
    session.registry.aliases = {"vectors": {"model": "s:m", "poll": 0.01, "dimensions": 2}}
    assert LLM("vectors").embed_batch(TEXTS).result(10) == VECTORS
    assert server.rows(server.created[0].id)[0]["body"]["dimensions"] == 2


def test_a_folder_that_cannot_be_written(server: BatchServer, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"^Batches cannot be kept in .*/state/llm_magic/batches: "):
        batch(server)
    assert not server.asked


def test_a_full_disk(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(BatchFolder, "add", full)
        with pytest.raises(ConfigurationError, match=r": No space left on device\.\nMake room there"):
            batch(server)
    assert not server.asked
    assert not list(BatchFolder().place.glob("*.jsonl")), "no text is left"
    assert embedded(server) == VECTORS


def test_files_that_are_damaged(server: BatchServer, tmp_path: Path) -> None:
    assert embedded(server) == VECTORS
    folder = BatchFolder()
    (record,) = folder.all()
    folder.output_path(record).write_bytes(b'{"custom_id": "0-\\ud800", "response": \n[]\n\x00\n' + b"[" * 100_000)
    assert embedded(server) == VECTORS, "what is not there is asked anew"
    (record,) = [each for each in folder.all() if each.id != record.id]
    folder.ids_path(record).write_text("7\n-\n\x00\n\ud7ff")
    assert embedded(server, again=True) == VECTORS
    folder.ids_path(record).unlink()
    folder.ids_path(record).symlink_to(tmp_path)
    assert embedded(server) == VECTORS


def test_a_file_that_cannot_be_fetched_is_fetched_by_the_next_call(server: BatchServer) -> None:
    server.faults = {"content": [Fault(403, lasts=True)]}
    with pytest.raises(LLMError) as told:
        embedded(server)
    assert not isinstance(told.value, BaseExceptionGroup)
    server.faults = {}
    with made():
        assert embedded(server) == VECTORS
    assert len(server.created) == 1


def test_fetched_by_its_name(server: BatchServer, session: Session) -> None:
    session.registry.add("s", base_url=server.url)
    server.failures = {2: Failure("no")}
    with pytest.raises(RequestRefusedError):
        LLM("s:m").embed_batch(TEXTS, batch=2, poll=0.01).result(10)
    server.failures = {}
    assert LLM("s:m").embed_batch(TEXTS, batch=2, poll=0.01).result(10) == VECTORS
    kept = RememberedBatches(session)
    again, first = sorted(kept.list(), key=lambda record: record.rows)
    found = session.loop.run(kept.fetch(again))
    assert isinstance(found, Vectors)
    assert (found, found.model, found.usage and found.usage.input_tokens) == (VECTORS[2:4], "s:m", 2)
    with pytest.raises(RequestRefusedError, match=r"^1 of 4 lines have no vectors: "):
        session.loop.run(kept.fetch(first))


def test_a_real_server_whose_model_embeds_nothing(batches_url: str) -> None:
    begun = LLM("compatible:lc/smollm2", base_url=batches_url).embed_batch(["sea", "sky", "hill"], batch=2, poll=0.2)
    with pytest.raises(LLMError, match=r"^Texts 0-2 have no vectors: .*is of type 'llm'"):
        begun.result(100)
    assert begun.counts == (0, 2, 2)
