"""`LLM.batch` over a server that does everything right: values, what a `Batch` tells, and what a second call uses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from batch_calls import AT_ONCE, SAY, answered, asking, names, own_session, records, refused
from batch_server import NO_ROUTE, BatchServer, Failure, Fault, said

from llm_magic import LLM
from llm_magic.batches.batch import Batch
from llm_magic.batches.remembered import RememberedBatches
from llm_magic.display.batches import left_behind, problems
from llm_magic.errors import ConfigurationError, InvalidValueError, OptionError, RequestRefusedError, RowsFailedError
from llm_magic.mapping.answers.answers import Answers
from llm_magic.session import Session


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


def prompts(server: BatchServer, number: int = 0) -> list[str]:
    rows = server.rows(server.created[number].id)
    return [row["body"]["messages"][-1]["content"] for row in rows]


# What comes


def test_values_come_in_the_order_of_the_inputs(llm: LLM, server: BatchServer) -> None:
    server.order = "shuffled"
    answers = answered(llm, list(range(300)), output_type=int)
    assert answers.values == list(range(300))
    assert type(answers) is Answers
    assert len(server.created) == len(server.uploads) == 1
    assert "direct" not in server.asked, "nothing is asked beside the batch"
    assert answers.responses[7] is not None
    assert (answers.responses[7].text, answers.responses[7].model) == ("7", "s:m")
    assert answers.usage is not None
    assert (answers.usage.input_tokens, answers.usage.output_tokens) == (900, 600)
    assert answers.responses[7].seconds == 0.0


@pytest.mark.parametrize(
    ("options", "item", "value"),
    [
        ({}, "Hello", "Hello"),
        ({"output_type": int}, "4", 4),
        ({"output_type": "list[int]"}, "[4, 5]", [4, 5]),
        ({"output_type": bool}, "true", True),
        ({"choices": ["yes", "no"]}, "no", "no"),
        ({"schema": "tone, stars int"}, '{"tone": "x", "stars": 3}', {"tone": "x", "stars": 3}),
    ],
)
def test_values_are_of_their_type(llm: LLM, options: dict[str, Any], item: str, value: Any) -> None:
    found = answered(llm, [item], **options).values[0]
    assert getattr(found, "model_dump", lambda: found)() == value


def test_several_answers_of_a_row_are_a_list(llm: LLM) -> None:
    assert answered(llm, ["a", "b"], n=3).values == [["a"] * 3, ["b"] * 3]


def test_each_line_is_the_request_that_a_row_would_be(llm: LLM, server: BatchServer) -> None:
    answered(llm, ["a"], temperature=0.5, max_tokens=9, system="Be brief.")
    line = server.rows("batch_2")[0]
    assert line["body"] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "SAY a"}],
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")


def test_a_frame_of_pandas_keeps_its_labels(llm: LLM) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b", "c"]}, index=["x", "y", "z"])
    answers = answered(llm, frame, "SAY {{ text }}{{ index }}")
    assert answers.labels == ["x", "y", "z"]
    assert answers.to_frame()["value"].to_dict() == {"x": "ax", "y": "by", "z": "cz"}


def test_a_frame_of_polars(llm: LLM) -> None:
    polars = pytest.importorskip("polars")
    assert answered(llm, polars.DataFrame({"text": ["a", "b"]}), "SAY {{ text }}").values == ["a", "b"]


def test_a_mapping_a_generator_and_a_function(llm: LLM, server: BatchServer) -> None:
    answers = answered(llm, {"k": "v", "l": "w"})
    assert (answers.labels, answers.values) == (["k", "l"], ["v", "w"])
    assert answered(llm, (f"g{each}" for each in range(3))).values == ["g0", "g1", "g2"]
    assert answered(llm, [1, 2], lambda item: f"SAY {item * 10}").values == ["10", "20"]
    assert len(server.created) == 3


def test_equal_rows_are_asked_once_at_temperature_0(llm: LLM, server: BatchServer) -> None:
    answers = answered(llm, ["a", "b", "a", "a"], temperature=0)
    assert answers.values == ["a", "b", "a", "a"]
    assert prompts(server) == ["SAY a", "SAY b"]
    assert [outcome.duplicate for outcome in answers.outcomes] == [False, False, True, True]
    assert answers.statistics.usage is not None
    assert answers.statistics.usage.input_tokens == 6, "an answer for several rows was asked once"


def test_equal_rows_are_each_asked_where_answers_differ(llm: LLM, server: BatchServer) -> None:
    assert answered(llm, ["a", "a"]).values == ["a", "a"]
    assert prompts(server) == ["SAY a", "SAY a"]
    assert answered(llm, ["a", "a"], dedup=True).values == ["a", "a"]


def test_no_rows_are_no_batch(llm: LLM, server: BatchServer) -> None:
    batch = llm.batch(SAY, [])
    assert batch.result(5).values == []
    assert (batch.id, batch.ids, batch.status, tuple(batch.counts)) == ("", (), "completed", (0, 0, 0))
    assert server.asked == []
    assert records() == []


# What a batch tells


def test_what_a_batch_tells_on_its_way_and_at_its_end(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ["1", "2", "FAIL"], on_error="keep")
    assert batch.ids == (batch.id,) == ("batch_2",)
    assert tuple(batch.counts) == (0, 0, 3)
    assert not batch.done()
    with pytest.raises(TimeoutError) as raised:
        batch.result(0.05)
    assert str(raised.value) == (
        f"<Batch {batch._name} of s:m: in progress, 0 of 3> has no answer yet, after 0.05 s; it goes on."
    )
    assert batch.status == "in_progress"
    server.in_progress = 0
    answers = batch.result(5)
    assert answers.values == ["1", "2", None]
    assert batch.result() is answers
    assert (batch.status, tuple(batch.counts)) == ("completed", (2, 1, 3))
    assert repr(batch) == f"<Batch {batch._name} of s:m: completed, 1 of 3 failed>"
    assert batch.done()
    assert batch.cancel() is False


def test_it_is_awaited(llm: LLM) -> None:
    async def work() -> Any:
        return await llm.batch(SAY, ["1"])

    assert asyncio.run(work()).values == ["1"]


def test_cancelled_it_gives_what_is_there(llm: LLM, server: BatchServer) -> None:
    server.in_progress, server.rows_done = 10**9, 2
    batch = llm.batch(SAY, ["1", "2", "3"], on_error="keep")
    with pytest.raises(TimeoutError):
        batch.result(0.05)
    assert batch.cancel() is True
    answers = batch.result(5)
    assert server.cancelled == ["batch_2"]
    assert answers.values == ["1", "2", None]
    assert batch.status == "cancelled"
    error = answers.errors[2]
    assert error is not None
    assert error.message == "Not asked: the batch was cancelled before this row's turn."
    server.in_progress, server.rows_done = 0, None
    assert answered(llm, ["1", "2", "3"]).values == ["1", "2", "3"]
    assert prompts(server, 1) == ["SAY 3"]


def test_a_cancelled_batch_is_looked_at_at_once(session: Session, server: BatchServer) -> None:
    server.in_progress, server.rows_done = 10**9, 0
    batch = LLM(asking(session, server).model, poll=3_600).batch(SAY, ["1"], on_error="keep")
    assert batch.cancel()
    assert names(batch.result(5)) == ["NotAskedError"]


def test_who_stops_waiting_leaves_it_at_the_server(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 10**9
    batch = llm.batch(SAY, ["1"])
    batch._future.cancel()
    with pytest.raises(CancelledError):
        batch.result(5)
    assert server.cancelled == []
    server.in_progress = 0
    again = llm.batch(SAY, ["1"])
    assert again.result(5).values == ["1"]
    assert len(server.created) == 1
    assert again.result().notes[0].startswith("A batch of ")
    assert again.result().notes[0].endswith(" has 1 row of this cell: not submitted again.")


def test_two_calls_at_once_are_one_batch(llm: LLM, server: BatchServer) -> None:
    server.in_progress = 3
    found: list[Batch] = []
    threads = [threading.Thread(target=lambda: found.append(llm.batch(SAY, ["1", "2"]))) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert [batch.result(10).values for batch in found] == [["1", "2"]] * 3
    assert len(server.created) == 1


def test_progress_is_told(llm: LLM) -> None:
    told: list[Any] = []
    answered(llm, ["1", "2", "FAIL"], on_progress=told.append)
    assert (told[-1].done, told[-1].total, told[-1].failed, told[-1].in_flight) == (3, 3, 1, 0)


def test_results_that_cannot_be_fetched_yet_are_told_of_until_they_are(llm: LLM, server: BatchServer) -> None:
    server.faults["content"] = [Fault(500, lasts=True)]
    batch = llm.batch(SAY, ["1"])
    assert batch._state is not None
    deadline = time.monotonic() + 10
    while not (said := problems(batch._state.progress())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "500" in said[0]
    assert said[0].endswith("; trying again")
    server.faults.clear()
    assert batch.result(10).values == ["1"]
    assert problems(batch._state.progress()) == []


def test_a_batch_that_the_server_does_not_have_does_not_go_on_there(llm: LLM, server: BatchServer) -> None:
    server.faults["poll"] = [NO_ROUTE]
    batch = llm.batch(SAY, ["1"])
    with pytest.raises(RequestRefusedError, match=r"has no batch batch_\d"):
        batch.result(10)
    assert repr(batch) == f"<Batch {batch._name} of s:m: not found>"
    assert batch._state is not None
    assert left_behind(batch._state.progress()) == ""


def test_a_batch_is_looked_for_at_its_own_url_alone(session: Session, llm: LLM, server: BatchServer) -> None:
    answered(llm, ["1"])
    session.registry.add("s", "compatible", base_url="http://127.0.0.1:9/v1")
    asked = len(server.asked)
    with pytest.raises(ConfigurationError) as raised:
        session.loop.run(RememberedBatches(session).refresh(records()[0]))
    assert raised.value.hint == "Set the provider's URL as it was; the cell of the batch finds it there, too."
    assert len(server.asked) == asked


def test_what_a_batch_cannot_do_is_refused_before_anything(llm: LLM, server: BatchServer) -> None:
    for options in ({"retries_invalid": 2, "output_type": int}, {"concurrency": 3}, {"batch": True}, {"wait": True}):
        with pytest.raises(OptionError):
            llm.batch(SAY, ["1"], **options)  # type: ignore[call-overload]
    assert server.asked == []


# Called once more


def test_the_same_call_uses_what_a_finished_batch_has(llm: LLM, server: BatchServer) -> None:
    answered(llm, ["1", "2"])
    answers = answered(llm, ["2", "1", "1"])
    assert answers.values == ["2", "1", "1"]
    assert prompts(server, 1) == ["SAY 1"], "the second of two equal rows is another one"
    assert answers.notes == (
        "2 rows are answered by a batch of an earlier run, and cost nothing more (again=True asks anew).",
    )
    assert [outcome.known for outcome in answers.outcomes] == [True, True, False]


def test_one_row_that_is_answered_is_one(llm: LLM) -> None:
    answered(llm, ["1"])
    said = "1 row is answered by a batch of an earlier run, and costs nothing more (again=True asks anew)."
    assert answered(llm, ["1"]).notes == (said,)


def test_again_submits_all_anew(llm: LLM, server: BatchServer) -> None:
    answered(llm, ["1", "2"])
    answered(llm, ["1", "2"], again=True)
    assert prompts(server, 1) == ["SAY 1", "SAY 2"]


def test_another_prompt_type_or_model_is_another_batch(llm: LLM, server: BatchServer) -> None:
    answered(llm, ["1"])
    answered(llm, ["1"], output_type=int)
    answered(llm, ["1"], "SAY {{ item }}.")
    answered(LLM("s:other", poll=0.01), ["1"])
    assert len(server.created) == 4


def test_failures_are_values_and_are_asked_again_alone(llm: LLM, server: BatchServer) -> None:
    server.failures = {2: Failure("Overloaded.", 503, None, "server_error"), 3: Failure("Too long.", 400)}
    with pytest.raises(RowsFailedError) as raised:
        llm.batch(SAY, ["1", "2", "3"]).result(10)
    lines = str(raised.value).splitlines()
    assert lines[0] == ("2 of 3 failed: 1 ServerFailedError, 1 RequestRefusedError; answers.retry() asks for those.")
    assert lines[1].startswith("The first of them, row 1: ServerFailedError: s:m (")
    assert "Overloaded." in lines[1]
    assert len(lines) == 2
    answers = raised.value.answers
    assert answers.values == ["1", None, None]
    assert "Too long." in str(answers.errors[2])
    server.failures = {}
    assert answered(llm, ["1", "2", "3"]).values == ["1", "2", "3"]
    assert prompts(server, 1) == ["SAY 2", "SAY 3"]


def test_failures_of_a_batch_are_asked_directly_without_it(llm: LLM, server: BatchServer) -> None:
    server.failures = {2: Failure()}
    answers = answered(llm, ["1", "2", "3"])
    assert names(answers) == ["", "RequestRefusedError", ""]
    server.asked.clear()
    whole = llm.map(SAY, ["1", "2", "3"])
    assert server.asked == ["direct"]
    assert (whole.values[0], whole.values[2]) == ("1", "3")
    server.failures = {1: Failure()}
    answers = answered(llm, ["4"])
    server.asked.clear()
    assert answers.retry().failed == []
    assert server.asked == ["direct"]


def test_a_value_that_is_invalid_is_asked_for_by_the_next_call(llm: LLM, server: BatchServer) -> None:
    answers = answered(llm, ["1", "x"], output_type=int)
    error = answers.errors[1]
    assert type(error) is InvalidValueError
    assert (
        error.hint
        == "Reword the prompt, or call it again: only what is missing is asked. error.response.text has what came."
    )
    assert error.response.text == "x"
    assert answers.responses[1] is not None
    assert "direct" not in server.asked
    server.answer = lambda line: said({**line, "body": {**line["body"], "messages": [{"content": "SAY 2"}]}})
    assert answered(llm, ["1", "x"], output_type=int).values == [1, 2]
    assert prompts(server, 1) == ["SAY x"]


def test_what_cannot_be_rendered_fails_alone(llm: LLM, server: BatchServer) -> None:
    answers = answered(llm, ["1", " ", "3"], "{{ item }}")
    assert names(answers) == ["", "PromptError", ""]
    assert prompts(server) == ["1", "3"]


def test_where_no_prompt_can_be_rendered_nothing_is_sent(llm: LLM, server: BatchServer) -> None:
    batch = llm.batch("{{ item }}", [" ", "", "\ud800"], on_error="keep")
    assert names(batch.result(5)) == ["PromptError"] * 3
    assert server.asked == []
    assert batch.status == "completed"
    with pytest.raises(RowsFailedError):
        llm.batch("{{ item }}", [" ", "\ud800"]).result(5)


def test_an_input_that_raises_is_one_error_and_nothing_is_sent(llm: LLM, server: BatchServer) -> None:
    def rows() -> Iterator[str]:
        yield "1"
        raise ValueError("the source broke")

    error = refused(llm, rows())
    assert "the source broke" in str(error)
    assert len(str(error).splitlines()) <= 2
    assert server.asked == []
    assert records() == []


def test_two_files_are_one_result(llm: LLM, server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_most(monkeypatch, 3)
    batch = llm.batch(SAY, list(range(8)), output_type=int)
    answers = batch.result(10)
    assert answers.values == list(range(8))
    assert batch.ids == tuple(each.id for each in server.created)
    assert [len(server.rows(each)) for each in batch.ids] == [3, 3, 2]
    assert tuple(batch.counts) == (8, 0, 8)


def _at_most(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let a file hold so many rows."""
    from llm_magic.batches.jsonl.input_file import InputFileWriter
    from llm_magic.batches.remote import batches_of_run

    def writer(path_of: Any, url: str, **_: int) -> InputFileWriter:
        return InputFileWriter(path_of, url, most_rows=rows)

    monkeypatch.setattr(batches_of_run, "InputFileWriter", writer)
