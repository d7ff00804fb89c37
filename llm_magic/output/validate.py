"""Validation: the text of an answer becomes a value of the output type, or an error."""

from __future__ import annotations

import gc
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pydantic

from llm_magic.errors import InvalidValueError
from llm_magic.output import json_text
from llm_magic.output.grammar import Grammar
from llm_magic.output.grammar.regex_to_gbnf import matches
from llm_magic.output.schema import Schema, Validator, listed, validator
from llm_magic.output.schema.formats import NAIVE_DATETIME, NAIVE_TIME
from llm_magic.output.schema.keywords import subschemas, without_nulls
from llm_magic.output.schema.references import MAX_WORK, branching, depth, work
from llm_magic.output.schema.shape import Shape

_STRUCTURE = frozenset(
    {
        "$defs",
        "$ref",
        "properties",
        "items",
        "prefixItems",
        "additionalProperties",
        "patternProperties",
        "anyOf",
        "oneOf",
        "allOf",
        "enum",
    }
)
_DATE = {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"}
_TIME = {"pattern": ":"}
_LOOKS: Mapping[str, Schema] = {
    "date": _DATE, "date-time": _DATE, NAIVE_DATETIME: _DATE, "time": _TIME, NAIVE_TIME: _TIME,
    "duration": {"pattern": "[:PDdYy]"},
}  # fmt: skip
"""What strings of a format, or of our own pattern for one, have to look like at the least."""
_BRANCH = re.compile(r"[\[(]|^function-")
"""What pydantic calls the branches of a union, among the keys of the document."""
_LONG_NUMBER = re.compile('(?<!["0-9])[0-9]{309,}')
"""Whole numbers that a float cannot hold: pydantic would make them infinite."""
_LONG = 50_000
"""Characters from which on no garbage is collected while an answer is read: for a list of 14,000
records, going through all that is being made, again and again, took longer than reading and
validating it."""


def parse_json(
    text: str,
    schema: Schema,
    shape: Shape | None,
    *,
    schema_text: str,
    object_root: bool,
    always_wrapped: bool,
    nulls: bool,
) -> Any:
    """Return the value of a JSON answer.

    Without a `shape` it is plain data. `schema_text` is the schema as JSON, for the last three see `OutputSpec`. What
    is not JSON, or not of this schema and type, is an `InvalidValueError`.
    """
    collects = gc.isenabled() and len(text) > _LONG
    if collects:
        gc.disable()
    try:
        data, written = _document(text, schema, object_root=object_root, always_wrapped=always_wrapped)
        _check_work(data, schema, shape, schema_text)
        return _value(data, schema, shape, schema_text, written, nulls=nulls)
    except RecursionError:
        raise InvalidValueError("The answer is nested too deeply.") from None
    finally:
        if collects:
            gc.enable()


def _check_work(data: Any, schema: Schema, shape: Shape | None, text: str) -> None:
    """Refuse data whose check would not end: pydantic and jsonschema_rs hold each value against each alternative."""
    if (ways := _branching(text)) > 1 and ways ** depth(data) > MAX_WORK:
        tagged = shape is not None and _coercion_check(text) is None
        if work(data, schema, tagged=tagged) > MAX_WORK:
            raise InvalidValueError("The answer is nested too deeply for a type with alternatives within alternatives.")


@lru_cache(maxsize=64)
def _branching(schema_text: str) -> int:
    return branching(json.loads(schema_text))


def _document(text: str, schema: Schema, *, object_root: bool, always_wrapped: bool) -> tuple[Any, str | None]:
    """Return what an answer says, as data and, if it is a whole document, as text."""
    try:
        data, written = json_text.read(text, object_root=object_root or always_wrapped)
    except InvalidValueError:
        bare = json_text.unfenced(text)
        if schema.get("type") != "string" or not bare or bare.startswith(('"', "{", "[")):
            raise
        return bare, None  # a date, a UUID: models leave the quotes out
    inner = data if object_root else json_text.unwrapped(data)
    return inner, written if inner is data else None  # never the wrapping itself, whatever is in it


def _value(data: Any, schema: Schema, shape: Shape | None, text: str, written: str | None, *, nulls: bool) -> Any:
    """Return the validated value of plain data; with `nulls`, the null of an optional property is its absence."""
    try:
        return _checked(data, shape, text, written)
    except InvalidValueError:  # OpenAI's strict schemas make models write such nulls
        smaller = without_nulls(data, schema) if nulls else data
        if smaller == data:
            raise
        return _checked(smaller, shape, text)


def _checked(data: Any, shape: Shape | None, text: str, written: str | None = None) -> Any:
    """Return the value of data that the schema, whose `text` this is, and the type allow."""
    if shape is None:
        validator(text)(data)
        return data
    if '"number"' in text and (digits := _LONG_NUMBER.search(json.dumps(data) if written is None else written)):
        raise InvalidValueError(f"A number of {len(digits[0]):,} digits is too large.")
    check = _coercion_check(text)
    if check is not None:
        check(data)
    try:
        value = shape.adapter.validate_json(json.dumps(data) if written is None else written, strict=True)
    except pydantic.ValidationError as error:
        raise InvalidValueError(validation_message(error)) from error
    except Exception as error:  # a validator of the user's own type
        raise InvalidValueError(f"A validator of {shape.name} raised {type(error).__name__}: {error}.") from error
    if check is not None:
        _check_truth(data, shape, value)
    return value


def _check_truth(data: Any, shape: Shape, value: Any) -> None:
    """Refuse a value in which true or false became a number, or the other way round: one branch of a union may."""
    written: Any = None
    with warnings.catch_warnings(), suppress(Exception):  # what cannot be written again cannot be compared
        warnings.simplefilter("ignore")
        written = shape.adapter.dump_python(value, mode="json", by_alias=True)
    if (found := _confused(data, written)) is not None:
        path, was, became = found
        raise InvalidValueError(listed([(path, f"{json.dumps(was)} is not {json.dumps(became)}")]))


def _confused(data: Any, value: Any) -> tuple[list[str | int], Any, Any] | None:
    """Return where one of two documents has a truth value and the other a number, and these; None for nowhere."""
    waiting: list[tuple[list[str | int], Any, Any]] = [([], data, value)]
    for path, one, other in waiting:  # extended while it is walked
        if isinstance(one, dict) and isinstance(other, dict):
            waiting += [([*path, key], one[key], other[key]) for key in one.keys() & other.keys()]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            waiting += [([*path, at], *pair) for at, pair in enumerate(zip(one, other, strict=True))]
        elif isinstance(one, (int, float)) and one == other and isinstance(one, bool) != isinstance(other, bool):
            return path, one, other
    return None


@lru_cache(maxsize=64)
def _coercion_check(schema_text: str) -> Validator | None:
    """Return the check that refuses what even strict pydantic coerces; None: it coerces nothing.

    Python holds `True` and `1` for equal, and pydantic with it: `Literal[1]` would take `true`. And
    a string of digits passes for a date, as seconds since 1970. Everywhere else it is looser than
    `schema`: pydantic knows better what its types take.
    """
    schema = json.loads(schema_text)
    return validator(json.dumps(_structure(schema))) if any(map(_is_coerced, subschemas(schema))) else None


def _is_coerced(node: Schema) -> bool:
    values = node.get("enum")
    zero_or_one = isinstance(values, list) and any(
        type(value) in (bool, int, float) and value in (0, 1) for value in values
    )
    return zero_or_one or _look(node) is not None


def _look(node: Schema) -> Schema | None:
    names = (name for key in ("format", "pattern") if isinstance(name := node.get(key), str))
    return next((_LOOKS[name] for name in names if name in _LOOKS), None)


def _structure(node: Any, key: str = "") -> Any:
    """Keep of what stands at a keyword what leads to what is refused."""
    if key == "enum" or not isinstance(node, (list, dict)):
        return node
    if isinstance(node, list):
        return [_structure(value) for value in node]
    if key in {"properties", "patternProperties", "$defs"}:  # its own keys are names
        return {name: _structure(value) for name, value in node.items()}
    return _look(node) or {name: _structure(value, name) for name, value in node.items() if name in _STRUCTURE}


def validation_message(error: pydantic.ValidationError) -> str:
    """Return pydantic's findings as a line: where, what is wrong, and what was there."""
    problems: list[tuple[list[str | int], str]] = []
    for found in error.errors(include_url=False, include_context=False)[:4]:  # one more than is shown
        path = [step for step in found["loc"] if not _BRANCH.search(str(step))]
        shown = "" if found["type"] == "missing" else f" (got {_short(found['input'])})"
        problems.append((path, f"{found['msg'][:1].lower()}{found['msg'][1:].rstrip('.')}{shown}"))
    return listed(problems)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - a line's worth


def parse_choice(text: str, choices: tuple[str, ...], shape: Shape | None) -> Any:
    """Return the choice that an answer names: exactly, or but for case, quotes and a full stop."""
    exact = ([words] for words in _words(text) if words in choices)
    loose = ([choice for choice in choices if _loose(choice) == _loose(words)] for words in _words(text))
    named = next((matches for matches in (*exact, *loose) if len(matches) == 1), None)
    if named is None:
        raise InvalidValueError(f"The answer {_short(text.strip())} is none of: {', '.join(choices)}.")
    try:
        return named[0] if shape is None else shape.adapter.validate_python(named[0])
    except pydantic.ValidationError as error:
        raise InvalidValueError(validation_message(error)) from error


def _loose(text: str) -> str:
    return text.strip().strip("\"'`*").strip().removesuffix(".").strip("\"'`*").strip().casefold()


def parse_regex(text: str, pattern: str) -> str:
    """Return the words of an answer that the pattern matches as a whole."""
    matching = next((words for words in _words(text) if matches(pattern, words)), None)
    if matching is None:
        raise InvalidValueError(f"The answer {_short(text.strip())} does not match {pattern!r} as a whole.")
    return matching


def parse_grammar(text: str, grammar: Grammar) -> str:
    """Return the words of an answer that the grammar accepts."""
    accepted = next(filter(grammar.accepts, _words(text)), None)
    if accepted is None:
        end = grammar.reach(text)
        where = f"character {end + 1}, {_short(text[end : end + 20])}" if end < len(text) else "it ends too early"
        raise InvalidValueError(f"The answer is not in the grammar: {where}.")
    return accepted


def _words(text: str) -> Iterator[str]:
    """Yield what an answer may mean as one text, the most literal first."""
    inner = json_text.unfenced(text)
    yield from dict.fromkeys((text, text.strip(), inner))
    try:
        data = json_text.unwrapped(json_text.loads(inner))
    except ValueError:
        return
    if isinstance(data, str):
        yield data
