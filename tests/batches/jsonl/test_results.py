"""Files of results: each shape in which servers say that a row was answered or failed, and what is no result."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.batches.jsonl import results
from llm_magic.batches.jsonl.results import ResultError, RowResult, UnreadableLine, error_of, hide_secrets, read_results
from llm_magic.errors import (
    AuthenticationError,
    ContentFilteredError,
    ContextOverflowError,
    LLMError,
    ModelNotFoundError,
    NotAskedError,
    Origin,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.private_files import NotPlainError

ORIGIN = Origin("openai", "m", "https://api.example.org/v1")
WHO = "openai:m (https://api.example.org/v1)"
ID = "7-0123456789abcdef0123456789abcdef"
ANSWER = {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}}]}


def read(tmp_path: Path, data: bytes) -> list[RowResult | UnreadableLine]:
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    return list(read_results(path))


@pytest.fixture
def row(tmp_path: Path) -> Any:
    """What one line says."""

    def of(**fields: Any) -> RowResult:
        (result,) = read(tmp_path, json.dumps({"custom_id": ID, **fields}).encode() + b"\n")
        assert isinstance(result, RowResult)
        assert (result.body is None) != (result.error is None)
        return result

    return of


def response(body: Any = ANSWER, status_code: Any = 200, request_id: Any = "req_1") -> dict[str, Any]:
    return {"status_code": status_code, "request_id": request_id, "body": body}


# What servers write


def test_openai_answered(row: Any) -> None:
    assert row(id="batch_req_1", response=response(), error=None) == RowResult(ID, ANSWER, 200, "req_1", None)


def test_azure_answered(row: Any) -> None:
    fields = {"body": ANSWER, "request_id": "req_1", "status_code": 200}
    assert row(response=fields, error=None) == RowResult(ID, ANSWER, 200, "req_1", None)


def test_llama_stack_answered_as_a_string(row: Any) -> None:
    assert row(id="batch_req_1", response=response(json.dumps(ANSWER))) == RowResult(ID, ANSWER, 200, "req_1", None)


def test_openai_refused(row: Any) -> None:
    error = {
        "message": "max_tokens is too large: 1000000.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "invalid_value",
    }
    result = row(id="batch_req_1", response=response({"error": error}, 400), error=None)
    assert (result.status, result.request_id) == (400, "req_1")
    assert result.error == ResultError(
        error["message"], "invalid_value", "invalid_request_error", 400, "req_1", {"error": error}
    )
    ours = error_of(result.error, ORIGIN, body={"max_tokens": 1_000_000})
    assert type(ours) is RequestRefusedError
    assert ours.message == f"{WHO} answered 400: max_tokens is too large: 1000000. [request req_1]"
    assert ours.hint == "Change or leave out --max-tokens."
    assert (ours.origin, ours.status, ours.request_id, ours.body) == (ORIGIN, 400, "req_1", {"error": error})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("batch_expired", "Not asked: the batch expired before this row's turn."),
        ("batch_cancelled", "Not asked: the batch was cancelled before this row's turn."),
    ],
)
def test_rows_whose_turn_did_not_come(row: Any, code: str, message: str) -> None:
    details = {"code": code, "message": "This request could not be executed."}
    result = row(id="batch_req_1", response=None, error=details)
    assert (result.status, result.request_id) == (None, None)
    assert result.error == ResultError(details["message"], code, "", None, None, details)
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is NotAskedError
    assert (ours.message, ours.hint) == (message, "Run the cell again: only what is missing is asked.")


def test_a_row_that_timed_out_within_the_batch(row: Any) -> None:
    details = {"code": "request_timeout", "message": "The model took too long."}
    ours = error_of(row(response=None, error=details).error, ORIGIN)
    assert type(ours) is TimedOutError
    assert ours.message == f"{WHO} did not answer this row in time: The model took too long."
    assert ours.hint == "Run the cell again: only what is missing is asked."


def test_llama_stack_tells_an_exception(row: Any) -> None:
    said = "request (20031 tokens) exceeds the available context size (4096 tokens), try increasing it"
    details = {"type": "request_failed", "message": f"Error code: 400 - {said}"}
    result = row(id="batch_req_5", error=details)
    assert (result.status, result.request_id) == (400, None)
    assert result.error == ResultError(said, "", "request_failed", 400, None, details)
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is ContextOverflowError
    assert ours.message == f"The prompt has 20,031 tokens, and the context of {WHO} holds 4,096."


def test_llama_stack_tells_the_document_of_an_exception(row: Any) -> None:
    inner = {"error": {"message": 'It\'s "bad"\nhere', "type": "invalid", "param": None, "code": "content_filter"}}
    result = row(error={"type": "request_failed", "message": f"Error code: 400 - {inner}"})
    assert result.error.message == 'It\'s "bad" here'
    assert (result.error.code, result.error.kind, result.status) == ("content_filter", "invalid", 400)
    assert type(error_of(result.error, ORIGIN)) is ContentFilteredError


def test_llama_stack_tells_json_of_an_exception(row: Any) -> None:
    inner = json.dumps({"error": {"message": "Slow down.", "code": 429}})
    result = row(error={"type": "request_failed", "message": f"Error code: 429 - {inner}"})
    assert (result.error.message, result.error.code, result.error.status) == ("Slow down.", "429", 429)
    assert type(error_of(result.error, ORIGIN)) is RateLimitedError


def test_llama_stack_refuses_without_a_status(row: Any) -> None:
    said = "1 validation error for Request\ntemperature\n  Input should be a valid number"
    result = row(error={"type": "request_failed", "message": said})
    assert (result.status, result.error.message) == (None, " ".join(said.split()))
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is ServerFailedError
    assert ours.message == f"{WHO} failed while answering: {' '.join(said.split())}"


def test_vllm_refused_within_the_output_file(row: Any) -> None:
    error = {
        "error": {
            "message": "This model's maximum context length is 4096 tokens. However, your prompt contains at least "
            "4097 input tokens, which exceeds this limit even without any output tokens.",
            "type": "BadRequestError",
            "param": "input_tokens",
            "code": 400,
        }
    }
    result = row(id="vllm-1", response=response(None, 400, "vllm-batch-1"), error=error)
    assert (result.status, result.request_id) == (400, "vllm-batch-1")
    assert result.error == ResultError(error["error"]["message"], "400", "BadRequestError", 400, "vllm-batch-1", error)
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is ContextOverflowError
    assert ours.message == (
        f"The prompt has at least 4,097 tokens, and the context of {WHO} holds 4,096. [request vllm-batch-1]"
    )


def test_vllm_refused_in_a_word(row: Any) -> None:
    said = "Request must not be sent in stream mode"
    result = row(id="vllm-1", response=response(None, 400), error=said)
    assert result.error == ResultError(said, "", "", 400, "req_1", said)
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is RequestRefusedError
    assert ours.message == f"{WHO} answered 400: {said} [request req_1]"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "context_length_exceeded", "message": "Too long."}, ContextOverflowError),
        (400, {"code": "content_filter", "message": "Filtered.", "innererror": {}}, ContentFilteredError),
        (429, {"code": "rate_limit_exceeded", "message": "Slow down."}, RateLimitedError),
        (429, {"code": "insufficient_quota", "message": "Pay."}, QuotaExceededError),
        (401, {"code": "invalid_api_key", "message": "No."}, AuthenticationError),
        (404, {"code": "model_not_found", "message": "No such model."}, ModelNotFoundError),
        (408, {"message": "Late."}, TimedOutError),
        (500, {"message": "Oh."}, ServerFailedError),
        (503, {"message": ""}, ServerFailedError),
        (422, {"message": "No."}, RequestRefusedError),
    ],
)
def test_a_refusal_is_of_the_class_that_it_has_outside_a_batch(
    row: Any, status: int, error: dict[str, Any], kind: type[LLMError]
) -> None:
    ours = error_of(row(response=response({"error": error}, status), error=None).error, ORIGIN)
    assert type(ours) is kind
    assert isinstance(ours, ProviderError)
    assert ours.status == status


def test_a_page_of_a_gateway(row: Any) -> None:
    result = row(response=response("<html><title>502 Bad Gateway</title></html>", 502))
    assert result.error.message == "an HTML page titled “502 Bad Gateway”"
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is ServerFailedError
    assert ours.message == f"{WHO} answered 502: an HTML page titled “502 Bad Gateway” [request req_1]"


def test_secrets_that_a_server_repeats_are_masked(row: Any) -> None:
    for fields in (
        {"response": response({"error": {"message": "the key s3cret-value-1234 is wrong"}}, 401)},
        {"response": response("s3cret-value-1234", 200)},
    ):
        ours = error_of(row(**fields).error, ORIGIN, known=["s3cret-value-1234"])
        assert "s3cret" not in f"{ours!r} {ours} {vars(ours)}"
        assert "***" in ours.message


def test_half_of_a_secret_is_masked_as_well(row: Any) -> None:
    text = "x " * 190 + "s3cret-value-1234-that-is-long-enough-to-be-cut"
    for fields in (
        {"response": response({"error": {"message": text}}, 400)},
        {"response": response(text, 200)},
        {"error": {"message": text, "code": "request_timeout"}},
        {"error": {"message": f"Error code: 400 - {{'message': '{text}'}}"}},
        {"response": text},
    ):
        ours = error_of(row(**fields).error, ORIGIN, known=[text.rsplit(maxsplit=1)[-1]])
        assert "s3cret" not in f"{ours} {vars(ours)}"
        assert "***" in ours.message


# What may be written as well


@pytest.mark.parametrize(
    "status", [200, 201, "200", 200.0, None, True, "ok", [200], 0, 10**400, -1, "\uff12\uff10\uff10"]
)
def test_statuses_of_an_answer(row: Any, status: Any) -> None:
    result = row(response=response(status_code=status))
    assert result.body == ANSWER
    assert result.status == (201 if status == 201 else 200 if status in (200, "200") else None)


def test_an_answer_without_a_status(row: Any) -> None:
    assert row(response={"body": ANSWER}) == RowResult(ID, ANSWER, None, None, None)


def test_an_answer_that_is_the_response_itself(row: Any) -> None:
    assert row(response=ANSWER) == RowResult(ID, ANSWER, None, None, None)


def test_a_response_that_is_json_in_a_string(row: Any) -> None:
    assert row(response=json.dumps(response(json.dumps(ANSWER)))) == RowResult(ID, ANSWER, 200, "req_1", None)


@pytest.mark.parametrize("error", [None, "", {}, [], 0, False, {"code": None, "message": None}, {"message": ""}])
def test_an_error_in_name_only_is_none(row: Any, error: Any) -> None:
    assert row(response=response(), error=error).body == ANSWER


def test_an_error_beside_an_answer_is_one(row: Any) -> None:
    result = row(response=response(), error={"code": "server_error", "message": "Cut off."})
    assert (result.body, result.status, result.error.status) == (None, 200, None)
    assert error_of(result.error, ORIGIN).message == f"{WHO} failed while answering: Cut off. [request req_1]"


def test_an_error_with_a_good_status_is_one(row: Any) -> None:
    body = {"error": {"message": "Overloaded.", "code": 503}}
    result = row(response=response(body))
    assert result.error == ResultError("Overloaded.", "503", "", 503, "req_1", body)
    assert type(error_of(result.error, ORIGIN)) is ServerFailedError
    body = {"object": "error", "message": "No."}
    result = row(response=response(body))
    assert result.error == ResultError("No.", "", "", None, "req_1", body)


def test_an_error_as_json_in_a_string(row: Any) -> None:
    result = row(response=None, error='{"code": "batch_expired", "message": "Late."}')
    assert type(error_of(result.error, ORIGIN)) is NotAskedError


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("that is no JSON", "that is no JSON"),
        ('{"choices": [', '{"choices": ['),
        ("[1]", "[1]"),
        ("", "neither an answer nor an error"),
        (None, "neither an answer nor an error"),
        ({}, "neither an answer nor an error"),
        ([ANSWER], "no JSON object"),
        (7, "no JSON object"),
        ("<html><title>Sign in</title>", "an HTML page titled “Sign in”"),
    ],
)
def test_a_good_status_without_an_answer(row: Any, body: Any, said: str) -> None:
    result = row(response=response(body), error=None)
    assert result.error == ResultError(said, "", "", 200, "req_1", body)
    ours = error_of(result.error, ORIGIN)
    assert type(ours) is ProtocolError
    assert ours.message == f"{WHO} wrote a result of this row that is no answer: {said}"
    assert ours.hint == "The fault is the server's. Run the cell again: only what is missing is asked."
    assert (ours.status, ours.request_id) == (200, "req_1")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response": None, "error": None},
        {"response": {}},
        {"response": []},
        {"response": {"status_code": None, "body": None}},
    ],
)
def test_a_row_of_which_nothing_is_said(row: Any, fields: dict[str, Any]) -> None:
    ours = error_of(row(**fields).error, ORIGIN)
    assert type(ours) is ProtocolError
    assert ours.message.endswith("is no answer: neither an answer nor an error")


@pytest.mark.parametrize("text", ["Internal error", "x" * 5_000])
def test_a_response_that_is_a_text(row: Any, text: str) -> None:
    result = row(response=text)
    assert (result.status, result.error.details) == (None, text)
    assert type(error_of(result.error, ORIGIN)) is ServerFailedError
    assert len(error_of(result.error, ORIGIN).message) <= 600


@pytest.mark.parametrize("error", ["no", ["no"], [{"message": "no"}], 7, True, {"detail": "no"}, {"error": ["no"]}])
@pytest.mark.parametrize("status", [None, 418, 302, 599])
def test_errors_of_any_shape_have_an_exception(row: Any, error: Any, status: Any) -> None:
    for fields in ({"error": error, "response": response(None, status)}, {"response": response(error, status)}):
        result = row(**fields)
        assert result.error.status == status
        assert isinstance(error_of(result.error, ORIGIN), ProviderError)


@pytest.mark.parametrize("request_id", [None, "", 7, ["req"], {}])
def test_a_request_without_a_name(row: Any, request_id: Any) -> None:
    assert row(response=response(request_id=request_id)).request_id is None


def test_what_is_said_beside_a_told_exception_counts(row: Any) -> None:
    result = row(error={"type": "request_failed", "code": "content_filter", "message": "Error code: 400 - No."})
    assert (result.error.code, result.error.kind, result.error.message) == ("content_filter", "request_failed", "No.")


def test_texts_that_look_like_a_told_exception_end(row: Any) -> None:
    for tail in ("{'message': '" + "\\" * 100_001, "{'message': " * 50_000, "{" * 100_000, "{'code': 10" * 9_999, ""):
        result = row(error={"message": f"Error code: 400 - {tail}"})
        assert result.error.status == 400
        assert isinstance(error_of(result.error, ORIGIN), ProviderError)


def test_a_result_can_travel(row: Any) -> None:
    for result in (row(response=response()), row(error="no")):
        assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own


# Lines


def line(custom_id: str = ID, content: str = "Hi") -> bytes:
    body = {"choices": [{"message": {"content": content}}]}
    return json.dumps({"custom_id": custom_id, "response": response(body)}, ensure_ascii=False).encode()


def ids(read: list[RowResult | UnreadableLine]) -> list[str | int]:
    return [each.custom_id if isinstance(each, RowResult) else each.number for each in read]


def test_lines_by_their_order_and_duplicates_too(tmp_path: Path) -> None:
    assert ids(read(tmp_path, b"\n".join(map(line, ["b", "a", "b"])) + b"\n")) == ["b", "a", "b"]


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == read(tmp_path, b"\n\r\n \t\n") == read(tmp_path, b"\xef\xbb\xbf") == []


def test_a_mark_at_the_beginning_and_other_ends_of_lines(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + line("a") + b"\r\n\r\n  \n" + line("b") + b"\r\n{\r\n"
    assert read(tmp_path, data)[2] == UnreadableLine(5, "it is no JSON")
    assert ids(read(tmp_path, data)) == ["a", "b", 5]


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    assert ids(read(tmp_path, line("a") + b"\n" + line("b"))) == ["a", "b"]


def test_a_torn_last_line(tmp_path: Path) -> None:
    for end in (1, 10, len(line("b")) - 1):
        found = read(tmp_path, line("a") + b"\n" + line("b")[:end])
        assert found[1:] == [UnreadableLine(2, "the file ends in the midst of it")]


def test_what_unicode_calls_the_end_of_a_line_is_none(tmp_path: Path) -> None:
    (found,) = read(tmp_path, line(content="a\u2028b\u2029c\x85d\x1ce"))
    assert isinstance(found, RowResult)
    assert found.body == {"choices": [{"message": {"content": "a\u2028b\u2029c\x85d\x1ce"}}]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"hello", "it is no JSON"),
        (b"<html>", "it is no JSON"),
        (b"\x00" * 100, "it is no JSON"),
        (b"\x1f\x8b\x08\x00\x00", "it is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "it is no JSON"),
        (b'{"custom_id":"a","response":' * 100_000, "it is no JSON"),
        (b'{"custom_id":' + b"9" * 5_000 + b"}", "it is no JSON"),
        (line() + line(), "it is no JSON"),
        (b"[]", "it is no JSON object"),
        (b"7", "it is no JSON object"),
        (b"null", "it is no JSON object"),
        (b'"text"', "it is no JSON object"),
        (b"{}", "it names no row"),
        (b'{"custom_id":null,"response":{}}', "it names no row"),
        (b'{"custom_id":7}', "it names no row"),
        (b'{"custom_id":""}', "it names no row"),
        (b'{"custom_id":["a"]}', "it names no row"),
        (b'{"error":{"message":"Over\\nloaded"}}', "it names no row; it says: Over loaded"),
    ],
)
def test_lines_that_are_no_result(tmp_path: Path, text: bytes, reason: str) -> None:
    found = read(tmp_path, line("a") + b"\n" + text + b"\n" + line("b"))
    assert found[1] == UnreadableLine(2, reason)
    assert ids(found) == ["a", 2, "b"]


@pytest.mark.parametrize(
    ("written", "is_read"),
    [
        (b"caf\xe9", "caf\ufffd"),
        (b"\\ud800", "\ufffd"),
        (b"x\\udc00y", "x\ufffdy"),
        (b"\\ud83d\\ude00", "😀"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\\u0000", "\x00"),
    ],
)
def test_characters_that_are_none(tmp_path: Path, written: bytes, is_read: str) -> None:
    (found,) = read(tmp_path, line(content="HERE").replace(b"HERE", written))
    assert isinstance(found, RowResult)
    assert found.body == {"choices": [{"message": {"content": is_read}}]}


def test_numbers_that_are_none(tmp_path: Path) -> None:
    data = b'{"custom_id":"a","response":{"status_code":NaN,"body":{"choices":[],"usage":{"a":1e999,"b":-Infinity}}}}'
    (found,) = read(tmp_path, data)
    assert isinstance(found, RowResult)
    assert found.body == {"choices": [], "usage": {"a": float("inf"), "b": float("-inf")}}
    assert found.status is None
    for value in ("NaN", "1e999", "-1e999"):
        (found,) = read(
            tmp_path, b'{"custom_id":"a","error":{"code":%s,"status":%s}}' % (value.encode(), value.encode())
        )
        assert isinstance(found, RowResult)
        assert found.error is not None
        assert isinstance(error_of(found.error, ORIGIN), LLMError)


@pytest.mark.parametrize("depth", [50, 190, 400, 900])
@pytest.mark.parametrize("half", ["", "\\ud800"])
def test_errors_that_are_nested_deeply(tmp_path: Path, depth: int, half: str) -> None:
    nested = '{"error":' * depth + f'"no{half}"' + "}" * depth
    for text in (nested, json.dumps(nested)):
        for data in (f'{{"custom_id":"a","error":{text}}}', f'{{"custom_id":"a","response":{{"body":{text}}}}}'):
            for found in read(tmp_path, data.encode()):
                if isinstance(found, RowResult):
                    assert found.error is not None
                    assert isinstance(error_of(found.error, ORIGIN), LLMError)


@pytest.mark.parametrize(
    ("status", "kind"), [(200, ProtocolError), (400, RequestRefusedError), (None, ServerFailedError)]
)
def test_details_that_are_nested_too_deeply_to_be_masked(status: int | None, kind: type[LLMError]) -> None:
    details: Any = "s3cret-value-1234"
    for _ in range(5_000):
        details = {"error": details}
    error = ResultError("No s3cret-value-1234.", "c", "k", status, None, details)
    ours = error_of(error, ORIGIN, known=["s3cret-value-1234"])
    assert type(ours) is kind
    assert "s3cret" not in f"{ours} {vars(ours)}"
    if status != 200:
        assert ours.message.endswith(": an error that is nested too deeply to be read")
        assert ours.body == {"message": "an error that is nested too deeply to be read", "code": "c", "type": "k"}  # type: ignore[attr-defined]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([200, 400, "200", "{}", "error"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "body", "status_code", "choices"]), inner
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.fixed_dictionaries({"custom_id": st.just(ID)}, optional={"response": VALUES, "error": VALUES}))
def test_whatever_a_line_says_it_is_an_answer_or_an_error(fields: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (result,) = read(Path(folder), json.dumps(fields).encode())
    assert isinstance(result, RowResult)
    assert (result.body is None) != (result.error is None)
    if result.error is not None:
        assert isinstance(error_of(result.error, ORIGIN), LLMError)


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results.MOST_LINE_BYTES == 64 * 2**20
    most = len(line("a"))
    monkeypatch.setattr(results, "MOST_LINE_BYTES", most)
    reason = f"it is longer than {most} bytes"
    found = read(
        tmp_path, line("a") + b"\n" + line("aa") + b"\n" + line("b") + b"\n" + b"x" * 10**6 + b"\n" + line("c")
    )
    assert ids(found) == ["a", 2, "b", 4, "c"]
    assert found[1] == UnreadableLine(2, reason)
    assert read(tmp_path, line("aa")) == [UnreadableLine(1, reason)]
    assert ids(read(tmp_path, line("aa") + b"\n" + line("b"))) == [1, "b"]


# Files


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(NotPlainError):
            next(read_results(path))
    with pytest.raises(FileNotFoundError):
        next(read_results(tmp_path / "none"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the files that are open")
def test_a_file_is_closed_when_its_reading_ends(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(line("a") + b"\n" + line("b"))
    before = open_files()
    reading = read_results(path)
    next(reading)
    assert open_files() == before + 1
    reading.close()  # type: ignore[attr-defined]  # a generator
    assert open_files() == before


MEASURED = """
import resource, sys
from pathlib import Path
from llm_magic.batches.jsonl.results import RowResult, read_results
reading = read_results(Path(sys.argv[1]))
next(reading)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(isinstance(each, RowResult) for each in reading), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_many_results_stay_out_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes((line(content="x" * 4_000) + b"\n") * 12_000)
    command = [sys.executable, "-W", "error", "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    rows, grown = map(int, done.stdout.split())
    assert rows == 11_999
    assert grown < 5_000  # kB


def test_secrets_that_a_server_repeats_are_masked_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "output.jsonl"
    plain = b'{"custom_id": "0-a", "response": {"body": {"choices": []}}}\n\xff\n'
    path.write_bytes(plain)
    before = path.stat()
    hide_secrets(path, ["hush-hush-1"])
    assert (path.read_bytes(), path.stat().st_ino) == (plain, before.st_ino), "nothing is to be masked"
    path.write_bytes(plain + b'{"error": "key hush-hush-1, hush%2Dhush%2D1"}\nlast')
    hide_secrets(path, ["hush-hush-1"])
    assert path.read_bytes() == plain + b'{"error": "key ***, ***"}\nlast'
    assert path.stat().st_mode & 0o777 == 0o600
