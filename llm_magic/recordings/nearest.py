"""What differs between a request and the nearest one that is recorded, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from heapq import heappush, heappushpop
from itertools import zip_longest
from typing import Any

from llm_magic.recordings.readable import asked_text, message_text, model_of
from llm_magic.recordings.recording import plain
from llm_magic.secrets import hidden

_LONGEST = 200
"""Characters of the line."""
_CANDIDATES = 20
"""Recorded requests with the fewest differences whose texts are compared."""
_COMPARED = 1_000
"""Characters of a text that are compared, of its beginning and of its end."""
_EXCERPT = 24
_VALUE = 40
_NONE: Mapping[str, Any] = {}
_ASKED = b'"asked": {"'
_AFTER = ', "at": "'
_decode = json.JSONDecoder().raw_decode

Data = Mapping[str, Any]


def explain(asked: Data, lines: Iterable[bytes], secrets: Iterable[str] = ()) -> str:
    """Return what differs from the nearest recorded request, of lines of a file; empty where there is no line.

    The nearest is the one with the fewest differences, then with the most similar texts, then the latest.
    Of both no `secrets` are shown, and nothing that looks like a key.
    """
    wanted, kind = plain(asked), asked.get("kind")
    words = _words(wanted)
    best: list[tuple[int, int, int, Data]] = []
    number = -1
    for number, recorded in enumerate(map(_asked_in, lines)):
        if recorded is None or recorded.get("kind") != kind:
            continue
        apart = -_distance(wanted, recorded)
        if len(best) == _CANDIDATES and apart < best[0][0]:
            continue
        found = (apart, len(words & _words(recorded)), number, recorded)
        heappush(best, found) if len(best) < _CANDIDATES else heappushpop(best, found)
    if not best:
        return f"no {_KINDS.get(str(kind), 'such request')} recorded." if number >= 0 else ""
    nearest = max(best, key=lambda each: (each[0], _likeness(wanted, each[3]), each[2]))[3]
    known = tuple(secrets)
    said = "; ".join(differences(hidden(wanted, known), hidden(nearest, known)))  # masked whole, before it is cut
    if not said:
        is_equal = wanted == nearest
        said = "an equal one is recorded, but cannot be read" if is_equal else "it differs in what looks like a key"
    return _shortened(said) + "."


_KINDS = {
    "answer": "answers are",
    "embeddings": "embeddings are",
    "model": "model of a provider is",
    "tool": "results of tools are",
}


def _asked_in(line: bytes) -> Data | None:
    """Return what was asked, without reading the answer before it."""
    at = line.find(_ASKED)
    try:
        if at >= 0:
            text = line[at + len(_ASKED) - 2 :].decode()
            found, end = _decode(text)
            if text.startswith(_AFTER, end):
                return found if isinstance(found, dict) else None
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = document.get("asked") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else None


def _parts(asked: Data, name: str, kind: type[Any]) -> Any:
    """Return a part of what was asked; of a hand-made one that has another type, an empty one."""
    value = asked.get(name)
    return value if isinstance(value, kind) else kind()


def _distance(wanted: Data, recorded: Data) -> int:
    """Return how many parts differ."""
    count = 0
    for name in {*wanted, *recorded}:
        mine, other = wanted.get(name), recorded.get(name)
        if mine == other:
            continue
        if isinstance(mine, dict) and isinstance(other, dict) and name == "parameters":
            count += sum(mine.get(each) != other.get(each) for each in {*mine, *other})
        elif isinstance(mine, list) and isinstance(other, list):
            if name == "messages" and _has_system(mine) != _has_system(other):
                count, mine, other = count + 1, _without_system(mine), _without_system(other)
            count += sum(one != two for one, two in zip_longest(mine, other))
        else:
            count += 1
    return count


def _words(asked: Data) -> frozenset[str]:
    """Return the words of what was asked last."""
    return frozenset(asked_text(asked)[-_COMPARED:].split())


def _likeness(wanted: Data, recorded: Data) -> float:
    mine, other = (text[:_COMPARED] + text[-_COMPARED:] for text in (asked_text(wanted), asked_text(recorded)))
    return SequenceMatcher(None, mine, other, autojunk=False).ratio()


def differences(wanted: Data, recorded: Data) -> Iterator[str]:
    """Yield what differs, in words.

    >>> [*differences({"parameters": {"temperature": 0.2}}, {"parameters": {"temperature": 0}})]
    ['recorded with temperature 0, asked with 0.2']

    """
    if model_of(wanted) != model_of(recorded):
        yield f"asked of {model_of(wanted)}, recorded of {model_of(recorded)}"
    elif wanted.get("url") != recorded.get("url"):
        yield "another --base-url"
    yield from _parameters(_parts(wanted, "parameters", dict), _parts(recorded, "parameters", dict))
    for name, described in _DESCRIBED.items():
        mine, other = wanted.get(name), recorded.get(name)
        if mine != other:
            yield described(mine, other)
    yield from _messages(_parts(wanted, "messages", list), _parts(recorded, "messages", list))
    yield from _texts(_parts(wanted, "input", list), _parts(recorded, "input", list))
    for name in sorted({*wanted, *recorded} - _NAMED):
        if wanted.get(name) != recorded.get(name):
            yield _other(name, wanted.get(name), recorded.get(name))


_NAMED = frozenset(
    {"kind", "provider", "url", "model", "parameters", "output", "tools", "tool_choice", "api", "messages", "input"}
)


def _other(name: str, mine: Any, other: Any) -> str:
    if mine is None or other is None:
        with_it = "asked" if other is None else "recorded"
        without = "recorded" if other is None else "asked"
        value = _value(mine if other is None else other)
        return f"{with_it} with {name} {value}, {without} without"
    return f"recorded with {name} {_value(other)}, asked with {_value(mine)}"


def _parameters(mine: Data, other: Data) -> Iterator[str]:
    for name in sorted({*mine, *other}):
        if mine.get(name) != other.get(name):
            yield _other(name, mine.get(name), other.get(name))


def _value(value: Any) -> str:
    return _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _VALUE)


def _output(mine: Any, other: Any) -> str:
    names = _output_name(mine), _output_name(other)
    if names[0] == names[1]:
        return f"output type {names[0]}, otherwise defined"
    return f"output type {names[0]}, recorded {names[1]}"


def _output_name(output: Any) -> str:
    """Return what a user calls an output type."""
    if not isinstance(output, dict) or not output:
        return "text"
    if isinstance(output.get("choices"), list):
        return _shortened(f"choices {', '.join(map(str, output['choices']))}", _VALUE)
    if "regex" in output:
        return _shortened(f"regex {output['regex']}", _VALUE)
    schema = output.get("schema")
    if not isinstance(schema, dict):
        return str(next(iter(output)))
    if isinstance(schema.get("title"), str):
        return _shortened(schema["title"], _VALUE)
    items = schema.get("items")
    if schema.get("type") == "array" and isinstance(items, dict):
        return f"list[{_output_name({'schema': items})}]"
    kind = schema.get("type")
    return _TYPES.get(kind, kind) if isinstance(kind, str) else "schema"


_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list", "object": "dict"}


def _tools(mine: Any, other: Any) -> str:
    asked, recorded = _tool_names(mine), _tool_names(other)
    if asked != recorded:
        return f"tools {', '.join(asked) or 'none'}, recorded {', '.join(recorded) or 'none'}"
    return "a tool is described otherwise"


def _tool_names(tools: Any) -> list[str]:
    return [str(each.get("name")) for each in tools if isinstance(each, dict)] if isinstance(tools, list) else []


_DESCRIBED: Mapping[str, Callable[[Any, Any], str]] = {
    "output": _output,
    "tools": _tools,
    "tool_choice": lambda mine, other: _other("tool choice", mine, other),
    "api": lambda mine, other: _other("API", mine, other),
}


def _messages(mine: Sequence[Any], other: Sequence[Any]) -> Iterator[str]:
    if (system := _has_system(mine)) != _has_system(other):
        with_it, without = ("asked", "recorded") if system else ("recorded", "asked")
        yield f"{with_it} with a system prompt, {without} without"
        mine, other = _without_system(mine), _without_system(other)
    if len(mine) != len(other):
        yield f"{_counted(mine, 'message')}, recorded {len(other)}"
    for number, (one, two) in enumerate(zip(mine, other, strict=False)):
        if one == two:
            continue
        is_last = number == len(mine) - 1 and len(mine) == len(other)
        yield _message(_name(mine, number, is_last=is_last), one, two)


def _has_system(messages: Sequence[Any]) -> bool:
    return bool(messages) and isinstance(messages[0], dict) and messages[0].get("role") == "system"


def _without_system(messages: Sequence[Any]) -> Sequence[Any]:
    return messages[1:] if _has_system(messages) else messages


def _counted(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _name(messages: Sequence[Any], number: int, *, is_last: bool) -> str:
    """Return what a user calls a message."""
    message = messages[number] if isinstance(messages[number], dict) else _NONE
    role = message.get("role")
    if role == "system":
        return "the system prompt"
    if role == "user" and is_last:
        return "the prompt"
    if role == "tool":
        calls = [call for each in messages if isinstance(each, dict) for call in _parts(each, "tool_calls", list)]
        place = message.get("call")
        call = calls[place] if isinstance(place, int) and 0 <= place < len(calls) else None
        of = f" of {call['name']}" if isinstance(call, dict) and isinstance(call.get("name"), str) else ""
        return f"message {number + 1} (the result{of})"
    return f"message {number + 1}{' (an answer)' if role == 'assistant' else ''}"


def _message(name: str, mine: Any, other: Any) -> str:
    if not isinstance(mine, dict) or not isinstance(other, dict) or mine.get("role") != other.get("role"):
        return f"{name} differs"
    one, two = message_text(mine), message_text(other)
    if one != two and name in {"the prompt", "the system prompt"}:
        return _text_differs(name, one, two)
    if one == two and _images(mine) != _images(other):
        return f"another image in {name}"
    return f"{name} differs"


def _images(message: Data) -> list[Any]:
    return [part for part in _parts(message, "content", list) if isinstance(part, dict) and "text" not in part]


def _texts(mine: Sequence[Any], other: Sequence[Any]) -> Iterator[str]:
    if len(mine) != len(other):
        yield f"{_counted(mine, 'text')}, recorded {len(other)}"
    for number, (one, two) in enumerate(zip(mine, other, strict=False), 1):
        if one != two:
            yield _text_differs(f"text {number}", str(one), str(two))


def _text_differs(name: str, mine: str, other: str) -> str:
    """Say where a text differs first."""
    shortest = min(len(mine), len(other))
    at = next((place for place in range(shortest) if mine[place] != other[place]), shortest)
    return f"{name} differs: {_excerpt(mine, at)}, recorded {_excerpt(other, at)}"


def _excerpt(text: str, at: int) -> str:
    """Return a piece of a text around the character at which it differs."""
    begin = max(0, at - _EXCERPT // 2)
    piece = " ".join(text[begin : begin + _EXCERPT].split())
    return f"'{'…' * (begin > 0)}{piece}{'…' * (begin + _EXCERPT < len(text))}'"


def _shortened(text: str, length: int = _LONGEST) -> str:
    line = " ".join(text.split())
    return line if len(line) < length else line[: length - 2] + "…"
