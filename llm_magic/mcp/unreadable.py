"""Messages of a server that the official client cannot read: mended, or answered in the server's place.

The client passes such a line over, and whoever asked would wait for an answer until his time is up.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

_PARSE_ERROR = -32700
"""The code of JSON-RPC 2.0 (https://www.jsonrpc.org/specification#error_object) for what is no JSON."""
_ANSWER = re.compile(r'"(?:result|error)"\s*:')
_NUMBER = re.compile(r'"id"\s*:\s*(\d{1,18})\s*[,}]')
_PROTOCOL = re.compile(r'"jsonrpc"\s*:\s*"2\.0"')
_BEGINNING = 200  # characters in which an answer says which request it is for; many write the result last


def mended(problem: Exception) -> Any | None:
    """Return the message that a line was meant to be, as the client has it; None for what is none.

    Parameters
    ----------
    problem
        What the client's reader says of the line.

    Returns
    -------
    SessionMessage or None
        The message with `�` for halves of characters (a text cut within an emoji, as JavaScript cuts it); or an error
        in the place of an answer that cannot be read.

    """
    line = _line(problem)
    if not line.lstrip().startswith("{"):
        return None
    from mcp.shared.message import SessionMessage
    from mcp.types import ErrorData, JSONRPCError, jsonrpc_message_adapter

    try:
        written = json.dumps(json.loads(line), ensure_ascii=False)
        whole = written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return SessionMessage(jsonrpc_message_adapter.validate_json(whole, by_name=False))
    except (ValueError, RecursionError) as error:
        why = "it is no answer of the protocol" if isinstance(error, ValidationError) else "it is no JSON"
        if isinstance(error, RecursionError) or "recursion" in str(error):
            why = "it is nested too deeply"
    beginning, ending = line[:_BEGINNING], line[-_BEGINNING:]
    known = _NUMBER.search(beginning) or _NUMBER.search(ending)
    if known is None or not any(map(_PROTOCOL.search, (beginning, ending))) or not _ANSWER.search(line):
        return None
    data = ErrorData(code=_PARSE_ERROR, message=f"its answer cannot be read, for {why}")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(known[1]), error=data))


def _line(problem: Exception) -> str:
    """Return the line that could not be read; empty where it is not known."""
    if not isinstance(problem, ValidationError):
        return ""
    first = problem.errors(include_url=False)[0]
    given = first["input"]
    if first["type"] == "json_invalid" and isinstance(given, str):
        return given
    if isinstance(given, dict):  # read, but no message; one that says what it is missing is seen in each attempt
        try:
            return json.dumps(given)
        except (ValueError, RecursionError, TypeError):
            return ""
    return ""
