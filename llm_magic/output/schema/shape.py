"""The JSON Schema of a Python type: for models to write, so more exact than pydantic's."""

from __future__ import annotations

import enum
import json
import re
import typing
from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from llm_magic.errors import OutputTypeError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.formats import NAIVE_DATETIME, NAIVE_TIME
from llm_magic.output.schema.python_types import ALIASES, refusal, taken, unaliased
from llm_magic.output.schema.references import check_references


class _SchemaGenerator(GenerateJsonSchema):
    """Decimals are strings, to lose no digit; named tuples are objects, to tell the names."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> Schema:
        places = schema.get("decimal_places")
        digits = schema.get("max_digits")
        whole = max(digits - (places or 0), 1) if digits is not None else 15
        sign = "" if (schema.get("ge") or 0) > 0 or (schema.get("gt") or -1) >= 0 else "-?"
        fraction = "" if places == 0 else rf"(\.[0-9]{{1,{places or 15}}})?"
        return {"type": "string", "pattern": f"^{sign}(0|[1-9][0-9]{{0,{whole - 1}}}){fraction}$"}

    def named_tuple_schema(self, schema: Any) -> Schema:
        fields = {part["name"]: self.generate_inner(part["schema"]) for part in schema["fields"]}
        required = [part["name"] for part in schema["fields"] if part["schema"]["type"] != "default"]
        return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}

    def call_schema(self, schema: core_schema.CallSchema) -> Schema:
        arguments = schema["arguments_schema"]  # of a named tuple, before pydantic 2.13 or so
        if arguments["type"] != "arguments":
            return super().call_schema(schema)
        return self.kw_arguments_schema(arguments["arguments_schema"], None)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> Schema:
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "pattern": NAIVE_DATETIME}
        return super().datetime_schema(schema)

    def time_schema(self, schema: core_schema.TimeSchema) -> Schema:
        if schema.get("tz_constraint") == "aware":
            return super().time_schema(schema)
        return {"type": "string", "pattern": NAIVE_TIME}  # the format `time` has a zone

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        return _plain_enum(super().literal_schema(schema))

    def enum_schema(self, schema: core_schema.EnumSchema) -> Schema:
        return _plain_enum(super().enum_schema(schema))


def _plain_enum(schema: Schema) -> Schema:
    """Write `const` as an enumeration of one, which every server knows."""
    return {"enum" if key == "const" else key: [value] if key == "const" else value for key, value in schema.items()}


class Shape:
    """A Python type, its JSON Schema, and the check that makes a value of it."""

    def __init__(self, kind: Any, name: str) -> None:
        self.name = name
        self.kind = kind
        if reason := refusal(kind):
            raise OutputTypeError(f"--as {name}: {reason}", "Examples: int, list[City], date | None.")
        try:
            self.adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(taken(kind))
            self.schema: Schema = self.adapter.json_schema(schema_generator=_SchemaGenerator)
            json.dumps(self.schema, allow_nan=False)
            check_references(self.schema)
        except OutputTypeError as error:
            raise OutputTypeError(f"--as {name}: {error.message}", error.hint) from None
        except pydantic.errors.PydanticUndefinedAnnotation as error:
            reason = f"it refers to {error.name!r}, which is not defined."
            raise OutputTypeError(f"--as {name}: {reason}", "Define that type first, then this one again.") from error
        except pydantic.errors.PydanticInvalidForJsonSchema as error:
            reason = f"no JSON Schema can say this type: {_first_line(error)}"
            raise OutputTypeError(f"--as {name}: {reason}", "Use types that JSON can hold.") from error
        except Exception as error:  # whatever a type's own hooks raise
            kind_of = "" if isinstance(error, pydantic.errors.PydanticUserError) else f"{type(error).__name__}: "
            raise OutputTypeError(f"--as {name}: this type cannot be used: {kind_of}{_first_line(error)}") from error
        if _is_lazy(self.adapter.core_schema):
            raise OutputTypeError(f"--as {name}: it has an Iterable, which is not validated.", "Write list[…] there.")

    @property
    def plain_schema(self) -> Schema:
        """The JSON Schema of the type as pydantic writes it, whatever is made of it for models."""
        try:
            return self.adapter.json_schema()
        except Exception:  # noqa: BLE001 - of a type that only ours can say
            return self.schema


def _first_line(error: Exception) -> str:
    text = str(error).split("\n", 1)[0].strip()
    if "Unable to generate pydantic-core schema for" in text:
        named = re.search(r"<class '(?:[\w.<>]*\.)?(\w+)'>", text)
        what = f"{named[1]} is" if named else "it is, or holds,"
        return f"{what} a class that pydantic does not validate; make it a dataclass or a pydantic model."
    return text if text.endswith(".") else f"{text}."


def _is_lazy(schema: Any) -> bool:
    """Tell whether pydantic would give an iterator that validates when it is read, and perhaps never."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "generator":
                return True
            waiting += node.values()
        elif isinstance(node, (list, tuple)):
            waiting += node
    return False


def words_of(kind: Any) -> tuple[str, ...] | None:
    """Return the strings that a type allows, if it is an enumeration of only strings."""
    values: tuple[Any, ...] = ()
    kind = unaliased(kind)
    if typing.get_origin(kind) is typing.Literal:
        values = typing.get_args(kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag):
        values = tuple(member.value for member in kind)
    strings = all(type(value) is str and value.strip() == value != "" for value in values)
    return tuple(dict.fromkeys(values)) if values and strings else None


def type_name(kind: Any) -> str:
    """Return a type as a user would write it: `list[City]`.

    >>> type_name(list[int])
    'list[int]'

    """
    if isinstance(kind, ALIASES):
        return str(kind.__name__)  # type: ignore[attr-defined]  # of either class
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__name__
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and origin.__module__ == "builtins":
        inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in typing.get_args(kind))
        return f"{origin.__name__}[{inner}]"
    return repr(kind).replace("typing.", "").replace("__main__.", "").replace("NoneType", "None")
