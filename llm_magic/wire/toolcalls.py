"""The tool calls of one answer, put together from deltas by position, whatever a server leaves out or repeats."""

from __future__ import annotations

import json
from typing import Any

from llm_magic.events import Event, ToolCallDelta


class ToolCalls:
    """Deltas of the Chat Completions API in, `ToolCallDelta` out: id and name once, arguments in pieces.

    A call is known by its `index`. Servers that send none, or 0 for every call, begin a new call with a new id
    beside a name. A call that never got an id is given one at the end, for its result to refer to.
    """

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self._positions: dict[int, int] = {}  # the server's index → position
        self._ids: list[str] = []
        self._names: list[str] = []
        self._begun: list[bool] = []  # whether arguments have come

    def read(self, deltas: list[Any], out: list[Event]) -> None:
        """Take the `tool_calls` of one delta or message."""
        for delta in deltas:
            if not isinstance(delta, dict):
                continue
            function = delta.get("function")
            function = function if isinstance(function, dict) else {}
            identity, name = _word(delta.get("id")), _word(function.get("name"))
            arguments = function.get("arguments")
            if isinstance(arguments, dict | list):  # some servers send the object itself
                arguments = json.dumps(arguments, ensure_ascii=False)
            arguments = arguments if isinstance(arguments, str) else ""
            position = self._position(delta.get("index"), identity, name)
            new_id = identity if identity and not self._ids[position] else ""
            new_name = name if name and not self._names[position] else ""
            self._ids[position] = self._ids[position] or identity
            self._names[position] = self._names[position] or name
            self._begun[position] = self._begun[position] or bool(arguments)
            if new_id or new_name or arguments:
                out.append(ToolCallDelta(position, new_id, new_name, arguments, self._answer))

    def _position(self, index: object, identity: str, name: str) -> int:
        if isinstance(index, int) and not isinstance(index, bool):
            known = self._positions.get(index)
            if known is not None and not (name and identity and self._ids[known] not in ("", identity)):
                return known
            position = self._positions[index] = self._new()
            return position
        if identity:
            return self._ids.index(identity) if identity in self._ids else self._new()
        last = len(self._ids) - 1
        if last < 0 or (name and self._begun[last] and name != self._names[last]):
            return self._new()
        return last

    def _new(self) -> int:
        self._ids.append("")
        self._names.append("")
        self._begun.append(False)
        return len(self._ids) - 1

    def end(self, out: list[Event]) -> None:
        """Name the calls that the server left without an id."""
        for position, identity in enumerate(self._ids):
            if not identity:
                self._ids[position] = f"call_{position}"
                out.append(ToolCallDelta(position, self._ids[position], "", "", self._answer))


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
