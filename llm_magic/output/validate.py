"""What pydantic lets through even in strict mode, and a JSON Schema that does not.

Python holds `True` and `1` for equal, and pydantic with it: `Literal[1]` would take `true`. And a string of digits
passes for a date, as seconds since 1970.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pydantic

from llm_magic.errors import InvalidValueError
from llm_magic.output import json_text
from llm_magic.output.schema import SHOWN_ERRORS, listed, path_text, validator
from llm_magic.output.schema.formats import NAIVE_DATETIME, NAIVE_TIME
from llm_magic.output.schema.references import pruned

if TYPE_CHECKING:
    from llm_magic.output.spec import OutputSpec

Schema = Mapping[str, Any]

_STRUCTURE = frozenset(
    {"$defs", "$ref", "properties", "items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf", "enum"}
)
_DATE = {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"}
_TIME = {"pattern": ":"}
_LOOKS: Mapping[str, Schema] = {
    "date": _DATE, "date-time": _DATE, NAIVE_DATETIME: _DATE, "time": _TIME, NAIVE_TIME: _TIME,
    "duration": {"pattern": "[:PDdYy]"},
}  # fmt: skip
"""What strings of a format, or of our own pattern for one, have to look like at the least."""


def guard(schema: Schema) -> Schema | None:
    """Return the schema of what pydantic alone would let through; None where there is nothing to guard.

    It is looser than `schema` everywhere else: pydantic knows better what its types take.

    >>> guard({"type": "array", "items": {"enum": [0, 1]}})
    {'items': {'enum': [0, 1]}}

    """
    if not _needs_one(schema):
        return None
    kept: Schema = _kept(schema, named=False)
    return kept


def _needs_one(node: Any) -> bool:
    if isinstance(node, Mapping):
        values = node.get("enum")
        if isinstance(values, list) and any(type(value) in (int, float) and value in (0, 1) for value in values):
            return True
        if _look(node) is not None:
            return True
        return any(_needs_one(value) for value in node.values())
    return isinstance(node, list) and any(_needs_one(value) for value in node)


def _look(node: Schema) -> Schema | None:
    for key in ("format", "pattern"):
        name = node.get(key)
        if isinstance(name, str) and name in _LOOKS:
            return _LOOKS[name]
    return None


def _kept(node: Any, *, named: bool) -> Any:
    """Keep the keywords that lead to what is guarded; `named`: the keys of `node` are names, not keywords."""
    if isinstance(node, Mapping):
        if named:
            return {key: _kept(value, named=False) for key, value in node.items()}
        look = _look(node)
        if look is not None:
            return look
        return {
            key: value if key in {"enum", "$ref"} else _kept(value, named=key in {"properties", "$defs"})
            for key, value in node.items()
            if key in _STRUCTURE
        }
    return [_kept(value, named=False) for value in node] if isinstance(node, list) else node


_WRAP = "value"
_LONG = 50_000
"""Characters from which on an answer makes so many objects that collecting garbage meanwhile is felt."""


def parse_json(spec: OutputSpec, text: str) -> Any:
    """Return the value of a JSON answer; of several readings the first that validates counts."""
    with _no_collection() if len(text) > _LONG else nullcontext():
        return _first_valid(spec, text)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Put off the collection of garbage: it goes through all that is being made, again and again.

    Of a list of 14,000 records it took more time than reading and validating them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _first_valid(spec: OutputSpec, text: str) -> Any:
    first: InvalidValueError | None = None
    readings = _readings(spec, text)
    while True:
        try:
            return _value(spec, *next(readings))
        except StopIteration:
            break
        except InvalidValueError as error:
            first = first or error
    assert first is not None  # noqa: S101 - there is at least one reading, or an error of reading
    raise first


def _readings(spec: OutputSpec, text: str) -> Iterator[tuple[Any, str | None]]:
    """Yield what an answer may say, as plain data and as it is written: the wrapping undone first, then as it stands.

    How it is written is None for what is a part of the document only.
    """
    bare = json_text.unfenced(text)
    if spec.schema.get("type") == "string" and bare and not bare.startswith(('"', "{", "[")):
        yield bare, None  # a date, a UUID, a decimal: models leave the quotes out
    data, written = json_text.read(text, object_root=spec.object_root or spec.always_wrapped)
    if not spec.object_root and isinstance(data, dict) and list(data) == [_WRAP]:
        yield data[_WRAP], None
    yield data, written


def _value(spec: OutputSpec, data: Any, written: str | None) -> Any:
    """Return the validated value of plain data.

    An optional property that came as null, as OpenAI's strict schemas make models write it, counts as absent.
    """
    try:
        return _checked(spec, data, written)
    except InvalidValueError:
        smaller = pruned(data, spec.schema)
        if smaller is data:
            raise
        return _checked(spec, smaller, None)


def _checked(spec: OutputSpec, data: Any, written: str | None) -> Any:
    if spec.shape is None:
        validator(json.dumps(spec.schema))(data)
        return data
    if "guard" not in spec.made:
        spec.made["guard"] = guard(spec.schema)
    if spec.made["guard"] is not None:
        validator(json.dumps(spec.made["guard"]))(data)
    try:
        return spec.shape.adapter.validate_json(json.dumps(data) if written is None else written, strict=True)
    except pydantic.ValidationError as error:
        raise InvalidValueError(told(error)) from error
    except Exception as error:  # a validator of the user's own type
        raise InvalidValueError(f"A validator of {spec.title} raised {type(error).__name__}: {error}.") from error


def told(error: pydantic.ValidationError) -> str:
    """Return pydantic's findings as a line: where, what is wrong, and what was there."""
    problems = []
    for found in error.errors(include_url=False, include_context=False)[: SHOWN_ERRORS + 1]:
        where = path_text([step for step in found["loc"] if not _is_tag(step)]) or "the value"
        shown = "" if found["type"] == "missing" else f" (got {_short(found['input'])})"
        problems.append(f"{where}: {found['msg'][:1].lower()}{found['msg'][1:].rstrip('.')}{shown}")
    return listed(problems)


def _is_tag(step: str | int) -> bool:
    """Tell the names that pydantic gives to the branches of a union from keys of the document."""
    return isinstance(step, str) and bool(re.search(r"[\[(]|^function-", step))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - a line's worth


def parse_choice(spec: OutputSpec, text: str) -> Any:
    """Return the choice that an answer names: exactly, or but for case, quotes and a full stop."""
    for reading in _texts(text):
        if reading in spec.choices:
            return _member(spec, reading)
    for reading in _texts(text):
        loose = _loose(reading)
        matches = [choice for choice in spec.choices if _loose(choice) == loose]
        if len(matches) == 1:
            return _member(spec, matches[0])
    raise InvalidValueError(f"The answer {_short(text.strip())} is none of: {', '.join(spec.choices)}.")


def _loose(text: str) -> str:
    return text.strip().strip("\"'`*").strip().removesuffix(".").strip("\"'`*").strip().casefold()


def _member(spec: OutputSpec, word: str) -> Any:
    if spec.shape is None:
        return word
    try:
        return spec.shape.adapter.validate_python(word)
    except pydantic.ValidationError as error:
        raise InvalidValueError(told(error)) from error


def parse_regex(spec: OutputSpec, text: str) -> str:
    """Return the reading of an answer that the pattern matches as a whole."""
    pattern = re.compile(spec.pattern)
    for reading in _texts(text):
        if pattern.fullmatch(reading):
            return reading
    raise InvalidValueError(f"The answer {_short(text.strip())} does not match {spec.pattern!r} as a whole.")


def parse_grammar(spec: OutputSpec, text: str) -> str:
    """Return the reading of an answer that the grammar accepts."""
    assert spec.grammar is not None  # noqa: S101 - the kind says so
    for reading in _texts(text):
        if spec.grammar.accepts(reading):
            return reading
    reached = spec.grammar.reach(text)
    where = (
        "it ends too early"
        if reached == len(text)
        else f"character {reached + 1}, {_short(text[reached : reached + 20])}"
    )
    raise InvalidValueError(f"The answer is not in the grammar: {where}.")


def _texts(text: str) -> Iterator[str]:
    """Yield the readings of an answer as one text, the most literal one first."""
    yield text
    stripped = text.strip()
    if stripped != text:
        yield stripped
    inner = json_text.unfenced(text)
    if inner != stripped:
        yield inner
    try:
        data = json_text.loads(inner)
    except ValueError:
        return
    if isinstance(data, dict) and list(data) == [_WRAP]:
        data = data[_WRAP]
    if isinstance(data, str):
        yield data


PARSERS: Mapping[str, Callable[[OutputSpec, str], Any]] = {
    "json": parse_json,
    "choices": parse_choice,
    "regex": parse_regex,
    "grammar": parse_grammar,
}
