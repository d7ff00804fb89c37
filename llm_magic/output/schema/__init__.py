"""JSON Schemas: loaded from what `--schema` says, or its short form, and as checks of data."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.schema.drafts import URLS, draft_of, rewritten, with_escaped_brackets
from llm_magic.output.type_expression import evaluate

Schema = dict[str, Any]
Validator = Callable[[Any], None]

_FIELD_NAME = re.compile(r"[A-Za-z_][\w-]*")
_TYPES: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "url": {"type": "string", "format": "uri"},
    "list": {"type": "array", "items": {"type": "string"}},
    "dict": {"type": "object"},
}


def read_schema(source: str | Mapping[str, Any], namespace: Mapping[str, Any]) -> tuple[str, Schema]:
    """Return the title and the schema that `--schema` means.

    That is a mapping; or text: a path that ends in `.json`, a variable or expression that is a
    dict, JSON text that begins with `{`, or the short form `name, age int, bio: one sentence`.

    An unreadable file, text that is none of these, or a schema that is not one (with the path in
    it) is an `OutputTypeError`.

    >>> read_schema("name, age int", {})[1]["properties"]["age"]
    {'type': 'integer'}

    """
    if not isinstance(source, str):
        return _checked("schema", source)
    text = source.strip()
    if not text:
        raise OutputTypeError("--schema is empty.", "Example: --schema 'name, age int, bio: one sentence'.")
    if text.endswith(".json"):
        path = Path(text).expanduser()
        return _checked(path.stem, _from_json(_read(path), f"--schema {path}"))
    if text.startswith("{"):
        return _checked("schema", _from_json(text, "--schema"))
    value = namespace.get(text)
    if re.fullmatch(r"[A-Za-z_]\w*\s*[.\[(].*", text, re.DOTALL):
        value = evaluate(text, namespace, "--schema")
    elif not isinstance(value, (Mapping, type)):
        if _WORD.fullmatch(text):
            what = "is no schema" if text in namespace else "is neither a .json file, nor a variable, nor two fields"
            hint = "The short form is: name, age int, bio: one sentence."
            raise OutputTypeError(f"--schema {text}: this {what}.", did_you_mean(text, _schemas(namespace), hint))
        return _checked("answer", short_form(text))
    if isinstance(value, type):
        hint = f"Say --as {text} to get values of it."
        raise OutputTypeError(f"--schema {text}: this is a type, not a JSON Schema.", hint)
    return _checked(text, value)


_WORD = re.compile(r"[\w./~-]+")


def _schemas(namespace: Mapping[str, Any]) -> list[str]:
    return [name for name, value in namespace.items() if isinstance(value, (Mapping, type)) and name[:1] != "_"]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OutputTypeError(f"--schema {path}: {reason}.", f"Looked for it in {Path.cwd()}.") from None


def _from_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OutputTypeError(f"{where} is not JSON: {error}.") from None


def _checked(name: str, schema: Any) -> tuple[str, Schema]:
    """Return a private copy of `schema`, having made sure that it is one."""
    if not isinstance(schema, Mapping):
        raise OutputTypeError(f"{name} is not a JSON Schema: an object is needed, not {type(schema).__name__}.")
    try:
        copied: Schema = json.loads(json.dumps(dict(schema), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputTypeError(f"{name} is not a JSON Schema: {error}.", "Its values must be plain JSON data.") from None
    try:
        validator(json.dumps(copied))
    except OutputTypeError as error:
        raise OutputTypeError(f"{name} is not a usable JSON Schema{error.message}", error.hint) from None
    title = copied.get("title")
    return (title if isinstance(title, str) and title.strip() else name), copied


def short_form(text: str) -> Schema:
    """Return the JSON Schema that a short form stands for.

    Fields are separated by commas, or by line ends where there are any (descriptions may hold
    commas then). A field is `name` or `name type`, and `: description` behind it. A type is one of
    str, int, float, bool, date, datetime, time, uuid, email, url, list, dict, or `list[…]` of one;
    a `?` behind it allows null. Brackets around it all ask for a list of such objects. After the
    short form of schemas in the `llm` command-line tool.

    A name or type that is none, or a field given twice, is an `OutputTypeError`.

    >>> short_form("[city, people int]")["items"]["required"]
    ['city', 'people']

    """
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        return {"type": "array", "items": short_form(body[1:-1])}
    properties: Schema = {}
    fields = body.split("\n" if "\n" in body else ",")
    if "\n" not in body and not all(map(str.strip, body.rstrip(", ").split(",")[:-1])):
        raise OutputTypeError(f"--schema {text!r} has a field without a name.", "Example: --schema 'name, age int'.")
    for field in filter(str.strip, fields):
        name, schema = _field(field.strip().rstrip(","))
        if name in properties:
            raise OutputTypeError(f"--schema names the field {name!r} twice.")
        properties[name] = schema
    if not properties:
        raise OutputTypeError(f"--schema {text!r} names no field.", "Example: --schema 'name, age int'.")
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _field(text: str) -> tuple[str, Schema]:
    head, _, description = text.partition(":")
    name, _, kind = head.strip().partition(" ")
    if not _FIELD_NAME.fullmatch(name):
        hint = "The short form is: name, age int, bio: one sentence."
        raise OutputTypeError(f"--schema: {name!r} is no name of a field.", hint)
    schema = _type(kind.strip() or "str")
    if description.strip():
        schema["description"] = description.strip()
    return name, schema


def _type(kind: str) -> Schema:
    if kind.endswith("?"):
        return {"anyOf": [_type(kind[:-1].strip()), {"type": "null"}]}
    if kind.startswith("list[") and kind.endswith("]"):
        return {"type": "array", "items": _type(kind[5:-1].strip())}
    if kind not in _TYPES:
        known = f"There are {', '.join(_TYPES)}; a description follows a colon."
        raise OutputTypeError(f"--schema: {kind!r} is no type of the short form.", did_you_mean(kind, _TYPES, known))
    return dict(_TYPES[kind])


@lru_cache(maxsize=64)
def validator(schema_text: str) -> Validator:
    """Return the check of a schema's text, which raises `InvalidValueError` for other data.

    The draft is the one that `$schema` names, else 2020-12. Formats are asserted. No `$ref` is
    fetched from anywhere.
    """
    schema = json.loads(schema_text)
    draft = draft_of(schema)
    if draft is None:
        raise OutputTypeError(f" at $schema: {schema['$schema']!r} is no draft that is known", _DRAFT_HINT)
    if "$schema" in schema:
        schema["$schema"] = URLS[draft]
    try:
        check = _built(schema)
    except jsonschema_rs.ValidationError as error:
        if type(error.kind).__name__ == "Referencing":
            raise OutputTypeError(_unresolved(error.message, schema), _REFERENCE_HINT) from None
        path = _path_text(error.instance_path)
        raise OutputTypeError(f"{f' at {path}' if path else ''}: {_brief(_innermost(error))}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise OutputTypeError(_unresolved(str(error), schema), _REFERENCE_HINT) from None

    def validate(data: Any) -> None:
        problems = ((problem.instance_path, _brief(_innermost(problem))) for problem in check.iter_errors(data))
        if message := listed(problems):
            raise InvalidValueError(message)

    return validate


@cache
def _newer_formats() -> dict[str, Callable[[str], bool]]:
    """Return the checks of formats that older drafts do not have: whoever names one means it."""
    names = (
        "uri-reference",
        "uri-template",
        "json-pointer",
        "idn-hostname",
        "iri",
        "iri-reference",
        "uuid",
        "duration",
    )
    return {name: jsonschema_rs.validator_for({"format": name}, validate_formats=True).is_valid for name in names}


def _built(schema: Schema) -> jsonschema_rs.Validator:
    """Return the validator of a schema, whose patterns may hold brackets that stand for themselves."""
    options: dict[str, Any] = {"validate_formats": True, "retriever": _fetch_nothing, "formats": _newer_formats()}
    try:
        return jsonschema_rs.validator_for(schema, **options)
    except (ValueError, jsonschema_rs.ReferencingError):
        with contextlib.suppress(ValueError, jsonschema_rs.ReferencingError, RecursionError):
            escaped = rewritten(schema, with_escaped_brackets)
            if escaped != schema:
                return jsonschema_rs.validator_for(escaped, **options)
        raise


def _unresolved(message: str, schema: Schema) -> str:
    """Return what is wrong with a reference, and where the first one stands that the message can mean."""
    named = re.search("'([^']*)'", message)
    said = message.partition(" is not present in a registry")
    references = ((path, node["$ref"]) for path, node in _places(schema) if isinstance(node.get("$ref"), str))
    meant = (path for path, reference in references if named and _may_name(reference, named[1]))
    path = next(meant, None)
    where = f" at {_path_text(path)}" if path else ""
    return f"{where}: {_brief(f'{said[0]} is another document' if said[1] else message)}"


def _may_name(reference: str, named: str) -> bool:
    document = reference.partition("#")[0]
    return named in reference or (document != "" and named.endswith(document.rpartition("/")[2]))


def _places(schema: Schema) -> Iterator[tuple[list[str | int], Schema]]:
    """Yield all objects of a schema, each with its path."""
    waiting: list[tuple[list[str | int], Any]] = [([], schema)]
    for path, node in waiting:  # extended while it is walked
        if isinstance(node, dict):
            yield path, node
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        waiting += [([*path, key], value) for key, value in pairs]


_DRAFT_HINT = f"Known are the drafts {', '.join(URLS)}; without $schema it is the last."
_REFERENCE_HINT = "References lead within the schema, no other document is fetched: put what they name under $defs."


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"retrieving {uri} is not allowed")


def _innermost(problem: jsonschema_rs.ValidationError) -> str:
    """Return the message of a problem; of alternatives, the one that came nearest."""
    branches = [branch for branch in getattr(problem.kind, "context", None) or () if branch]
    if not branches:
        return problem.message
    deepest = max((error for branch in branches for error in branch), key=lambda error: len(error.instance_path))
    where = _path_text(deepest.instance_path[len(problem.instance_path) :])
    return f"fits no alternative; nearest: {f'{where}: ' if where else ''}{deepest.message}"


def listed(problems: Iterable[tuple[list[str | int], str]]) -> str:
    """Return where and what problems are: the first three, and that there are more; "" for none."""
    shown = [f"{_path_text(path) or 'the value'}: {problem}" for path, problem in itertools.islice(problems, 4)]
    return "; ".join([*shown[:3], *("and more" for _ in shown[3:])]) + "." if shown else ""


_LONGEST_PATH = 120


def _path_text(path: list[str | int]) -> str:
    """Write a path as a reader would: `cities[0].name`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH // 2]} … {text[-_LONGEST_PATH // 2 :]}"


def _brief(message: str, limit: int = 160) -> str:
    line = message.split("\n", 1)[0].strip().rstrip(".")
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 3 :]}"
