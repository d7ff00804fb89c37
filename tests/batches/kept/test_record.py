"""What is remembered of a batch: which documents are records, what never stands in one, and how changes are merged."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from batch_records import record
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.batches.kept.record import (
    CHANGEABLE,
    MAX_RECORD,
    MAX_REFUSALS,
    STEPS,
    AnotherBatchError,
    BatchRecord,
    BatchRefusal,
    excerpt,
    merged,
)

NOW = 1_767_300_000.0


def document(**values: Any) -> bytes:
    return json.dumps({**json.loads(record().document()), **values}).encode()


def test_a_record_is_read_as_it_was_written() -> None:
    full = record(
        step="ended",
        base_url="http://localhost:8321/v1",
        file_id="file-1",
        batch_id="batch_1",
        status="failed",
        completed=0,
        failed=3,
        output_file_id="file-2",
        error_file_id="file-3",
        expires_at=NOW + 86_400,
        refusals=(BatchRefusal(1733, "Invalid 'ä' ", "invalid_json"), BatchRefusal(None, "", "")),
        changed=NOW,
        submitting_at=NOW - 1,
        prompt="Is this about price? {{ text }}",
        out="labelled",
        file="/home/me/b.jsonl",
        structured={"dialect": "json_schema", "nulls": True},
    )
    assert BatchRecord.read(full.document()) == full
    assert BatchRecord.read(record().document()) == record()
    assert not full.is_over
    assert record(step="read").is_over
    assert record(step="refused").is_over


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is no JSON (Expecting value: line 1 column 1 (char 0))"),
    "torn": (record().document()[:100], "it is no JSON"),
    "no UTF-8": (b'{"id": "\xff"}', "it is no JSON"),
    "a list": (b"[]", "it is no record of a batch"),
    "another document": (b'{"record_of": "rows"}', "it is no record of a batch"),
    "nested": (b"[" * 200_000, "it is nested too deeply"),
    "huge": (b" " * (MAX_RECORD + 1), "it is larger than 1 MB"),
    "newer": (document(version=2), "a newer version of llm_magic wrote it"),
    "no version": (document(version=True), "it has no version"),
    "a field of tomorrow": (document(colour="red"), "it has a field that is not known: 'colour'"),
    "an id that is a path": (document(id="../../etc/passwd"), "its 'id' is none"),
    "an id and more": (document(id="20260101T120000Z-00000001\n"), "its 'id' is none"),
    "an id in other digits": (document(id="\u0662\u0660\u0662\u06660101T120000Z-00000001"), "its 'id' is none"),
    "a run that is none": (document(run="AB" * 32), "its 'run' is none"),
    "a step of tomorrow": (document(step="paused"), "its 'step' is none"),
    "a step that is a list": (document(step=["read"]), "its 'step' is none"),
    "another API": (document(api="images"), "its 'api' is none"),
    "rows that are true": (document(rows=True), "its 'rows' is none"),
    "fewer than no rows": (document(rows=-1), "its 'rows' is none"),
    "rows beyond reason": (document(rows=10**400), "its 'rows' is none"),
    "no number of rows": (document(rows=None), "its 'rows' is none"),
    "NaN": (document(created=float("nan")), "it is no JSON (NaN is no number)"),
    "infinite": (document(created=1).replace(b'"created": 1,', b'"created": 1e999,'), "its 'created' is none"),
    "after all years": (document(created=1e12), "its 'created' is none"),
    "a null for a text": (document(batch_id=None), "its 'batch_id' is none"),
    "refusals that are a text": (document(refusals="no"), "its 'refusals' is none"),
    "a refusal without its message": (document(refusals=[{"line": 1, "code": ""}]), "its 'refusals' is none"),
    "structured as a list": (document(structured=[]), "its 'structured' is none"),
    "structured with more": (document(structured={"dialect": None, "nulls": 1}), "its 'structured' is none"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_record(name: str) -> None:
    data, why = DAMAGED[name]
    with pytest.raises(ValueError, match=r"^(it|a newer)") as raised:
        BatchRecord.read(data)
    assert str(raised.value).startswith(why)


@pytest.mark.parametrize("name", ["id", "run", "url", "rows", "created", "step"])
def test_a_record_that_lacks_a_field(name: str) -> None:
    data = {key: value for key, value in json.loads(record().document()).items() if key != name}
    with pytest.raises(ValueError, match=f"it has no '{name}'"):
        BatchRecord.read(json.dumps(data).encode())


def test_a_record_of_an_earlier_version_lacks_what_has_a_default() -> None:
    data = {key: value for key, value in json.loads(record().document()).items() if key not in {"out", "structured"}}
    assert BatchRecord.read(json.dumps(data).encode()) == record()


def test_halves_of_characters_are_named() -> None:
    found = BatchRecord.read(record(out="a\ud800", refusals=(BatchRefusal(1, "\udfff", ""),)).document())
    assert (found.out, found.refusals[0].message) == ("a\\ud800", "\\udfff")
    assert BatchRecord.read(document(asked="\ud800")).asked == "\\ud800"


def test_no_secret_and_no_more_of_the_prompt_than_its_beginning() -> None:
    shown = record(
        url="https://me:pass@h.example/v1?sub=abc",
        base_url="https://h.example/v1?key=abcdef",
        prompt="s3cret-value: " + "word " * 100,
        status="sk-abcdefgh12345",
        refusals=(BatchRefusal(1, "no s3cret-value " + "x" * 10_000, "s3cret-value"),),
    ).document(["s3cret-value"])
    found = BatchRecord.read(shown)
    assert found.url == "https://***@h.example/v1?sub=***"
    assert found.base_url == "https://h.example/v1?key=***"
    assert found.prompt == "***: " + "word " * 14 + "word…"
    assert len(found.prompt) == 80
    assert found.status == "***"
    assert found.refusals == (BatchRefusal(1, "no *** " + "x" * 493, "***"),)
    for secret in (b"s3cret", b"pass", b"abcdef"):
        assert secret not in shown


def test_a_server_that_refuses_each_row_leaves_a_record_that_can_be_read() -> None:
    many = tuple(BatchRefusal(line, "ä" * 1_000, "invalid") for line in range(50_000))
    found = BatchRecord.read(record(refusals=many, status="x" * MAX_RECORD).document())
    assert found.refusals[-1].line == MAX_REFUSALS - 1


def test_what_cannot_be_read_again_is_not_written() -> None:
    with pytest.raises(ValueError, match="its 'rows' is none"):
        record(rows="3").document()
    with pytest.raises(ValueError, match="larger than 1 MB"):
        record(batch_id="x" * MAX_RECORD).document()


def test_the_beginning_of_a_template() -> None:
    assert excerpt("") == ""
    assert excerpt("a" * 80) == "a" * 80
    assert excerpt("a" * 81) == "a" * 79 + "…"


# Merging


def steps(*names: str) -> BatchRecord:
    found = record()
    for name in names:
        found = merged(found, {"step": name}, NOW)
    return found


def test_steps_never_go_back() -> None:
    for before, after in pairwise(STEPS):
        assert steps(before, after).step == after
        assert steps(after, before).step == after


def test_a_batch_that_is_submitted_may_be_refused_still() -> None:
    submitted = merged(record(), {"step": "submitted", "batch_id": "batch_1"}, NOW)
    refused = merged(submitted, {"step": "refused", "status": "failed"}, NOW)
    assert (refused.step, refused.status, refused.batch_id) == ("refused", "failed", "batch_1")
    assert merged(refused, {"step": "submitted", "batch_id": "batch_1"}, NOW).step == "refused"
    for further in ("ended", "fetched", "read"):
        assert steps(further, "refused").step == further


def test_a_kernel_that_is_behind_undoes_nothing() -> None:
    ahead = merged(
        record(),
        {"step": "ended", "batch_id": "batch_1", "status": "completed", "completed": 3, "output_file_id": "file-2"},
        NOW,
    )
    late = {"status": "in_progress", "completed": 1, "failed": 0, "output_file_id": "", "batch_id": "batch_1"}
    for update in (late, {**late, "step": "submitted"}):
        found = merged(ahead, update, NOW + 1)
        assert (found.step, found.status, found.completed, found.failed) == ("ended", "completed", 3, 0)
        assert (found.output_file_id, found.batch_id, found.changed) == ("file-2", "batch_1", NOW + 1)


def test_what_is_behind_adds_what_is_not_known() -> None:
    found = merged(record(step="ended"), {"step": "submitted", "batch_id": "batch_1", "expires_at": NOW}, NOW)
    assert (found.step, found.batch_id, found.expires_at) == ("ended", "batch_1", NOW)


def test_counts_do_not_fall_until_the_end_corrects_them() -> None:
    found = merged(record(step="submitted"), {"completed": 120, "failed": 2}, NOW)
    found = merged(found, {"completed": 100, "failed": None}, NOW)
    assert (found.completed, found.failed) == (120, 2)
    found = merged(found, {"step": "ended", "completed": 90, "failed": 30}, NOW)
    assert (found.completed, found.failed) == (90, 30)


def test_a_file_may_be_uploaded_again_until_the_batch_is_submitted() -> None:
    found = merged(record(step="uploading"), {"step": "uploaded", "file_id": "file-1"}, NOW)
    found = merged(found, {"step": "uploaded", "file_id": "file-2"}, NOW)
    assert found.file_id == "file-2"
    found = merged(found, {"step": "submitted", "batch_id": "b"}, NOW)
    assert merged(found, {"file_id": "file-3"}, NOW).file_id == "file-2"
    assert merged(found, {"step": "uploaded", "file_id": "file-3"}, NOW).file_id == "file-2"


def test_two_batches_of_one_record_are_an_error() -> None:
    found = merged(record(), {"step": "submitted", "batch_id": "batch_1"}, NOW)
    with pytest.raises(AnotherBatchError, match=f"The record {found.id} is of the batch batch_1, not of batch_2."):
        merged(found, {"batch_id": "batch_2"}, NOW)


def test_what_a_batch_is_does_not_change() -> None:
    with pytest.raises(TypeError, match="A record's 'rows' does not change"):
        merged(record(), {"rows": 4, "step": "submitted"}, NOW)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1, True, "3", None, 10**400, []])
def test_a_number_that_is_none_does_not_lose_a_batch(number: Any) -> None:
    told = {"batch_id": "batch_1", "completed": number, "failed": number, "expires_at": number}
    found = BatchRecord.read(merged(record(), told, NOW).document())
    assert (found.batch_id, found.completed, found.failed, found.expires_at) == ("batch_1", None, None, None)


UPDATES = st.fixed_dictionaries(
    {},
    optional={
        "step": st.sampled_from(STEPS),
        "file_id": st.sampled_from(["", "file-1"]),
        "batch_id": st.sampled_from(["", "batch_1"]),
        "status": st.sampled_from(["", "in_progress", "completed"]),
        "completed": st.sampled_from([None, 0, 3]),
        "output_file_id": st.sampled_from(["", "file-2"]),
        "expires_at": st.sampled_from([None, NOW]),
        "refusals": st.sampled_from([(), (BatchRefusal(1, "no", ""),)]),
    },
)


@given(st.lists(UPDATES, max_size=6), st.randoms(use_true_random=False))
def test_in_whatever_order_updates_come_the_same_is_known(updates: list[dict[str, Any]], order: random.Random) -> None:
    ends = []
    for _ in range(2):
        found = record()
        for update in updates:
            after = merged(found, update, NOW)
            assert STEPS.index(after.step) >= STEPS.index(found.step)
            for name in CHANGEABLE:
                assert getattr(after, name) not in (None, "", ()) or getattr(found, name) in (None, "", ())
            found = BatchRecord.read(after.document())
            assert found == after
        ends.append((found.step, found.file_id, found.batch_id, found.output_file_id, found.refusals))
        order.shuffle(updates)
    assert ends[0] == ends[1]
