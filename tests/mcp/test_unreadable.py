"""Lines that the official client cannot read: mended, answered in the server's place, or passed over."""

from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the package mcp")

from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError

from llm_magic.mcp.unreadable import mended


def read(line: str) -> Any:
    """Return what becomes of a line that cannot be read."""
    with pytest.raises(ValidationError) as problem:
        jsonrpc_message_adapter.validate_json(line, by_name=False)
    message = mended(problem.value)
    return None if message is None else message.message.model_dump(exclude_none=True)


def test_halves_of_characters_are_replaced_and_nothing_else() -> None:
    line = r'{"jsonrpc": "2.0", "id": 7, "result": {"a\\ud800": "cut \ud83d", "b": "\ud83d\ude00 é \n"}}'
    assert read(line) == {"jsonrpc": "2.0", "id": 7, "result": {"a\\ud800": "cut �", "b": "😀 é \n"}}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"jsonrpc": "2.0", "id": 7, "result": null}', "it is no answer of the protocol"),
        ('{"result": [1, 2], "jsonrpc": "2.0", "id": 7}', "it is no answer of the protocol"),
        ('{"jsonrpc": "2.0", "id": 7, "result": {"a": ' + "[" * 5_000 + "]" * 5_000 + "}}", "it is nested too deeply"),
        ('{"result": {"text": "' + "x" * 1_000 + '" oops}, "jsonrpc": "2.0", "id": 7}', "it is no JSON"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_to_who_asked(line: str, why: str) -> None:
    error = {"code": -32700, "message": f"its answer cannot be read, for {why}"}
    assert read(line) == {"jsonrpc": "2.0", "id": 7, "error": error}


@pytest.mark.parametrize(
    "line",
    [
        "Welcome!",
        "{}",
        "null",
        "[1, 2",
        '{"level": "info", "id": 7, "result": "a log line"}',
        '{"jsonrpc": "2.0", "result": {}}',
        '{"jsonrpc": "2.0", "id": "7", "result"',
    ],
)
def test_what_is_no_answer_is_passed_over(line: str) -> None:
    assert read(line) is None


def test_what_is_no_problem_of_reading_is_left() -> None:
    assert mended(OSError("gone")) is None
