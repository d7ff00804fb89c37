"""The JSON Schema of a Python type: for models to write, so more exact than pydantic's."""

from __future__ import annotations

import enum
import functools
import json
import operator
import sys
import types
import typing
from typing import Any

import pydantic
import typing_extensions
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from llm_magic.errors import OutputTypeError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.formats import NAIVE_DATETIME, NAIVE_TIME
from llm_magic.output.schema.keywords import check_references


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
    return {"enum" if key == "const" else key: value for key, value in schema.items()}


class Shape:
    """A Python type, its JSON Schema, and the check that makes a value of it."""

    def __init__(self, kind: Any, name: str) -> None:
        self.name = name
        try:
            self.adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(with_known_typed_dicts(kind))
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


def with_known_typed_dicts(kind: Any) -> Any:
    """Return the type with `TypedDict` classes that pydantic takes before Python 3.12.

    Values of both are plain dicts.
    """
    if sys.version_info >= (3, 12):
        return kind
    if typing.is_typeddict(kind) and type(kind).__module__ == "typing":
        fields: dict[str, Any] = {}
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            wrapper: Any = typing.Required if name in kind.__required_keys__ else typing.NotRequired
            said = typing.get_origin(hint) in (typing.Required, typing.NotRequired)  # perhaps in a string
            fields[name] = with_known_typed_dicts(hint if said else wrapper[hint])
        replaced = typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[misc]  # the functional form, with names known only now
        replaced.__doc__ = kind.__doc__
        return replaced
    arguments = typing.get_args(kind)
    if not arguments or typing.get_origin(kind) is typing.Literal:
        return kind
    known = tuple(with_known_typed_dicts(argument) for argument in arguments)
    if all(new is old for new, old in zip(known, arguments, strict=True)):
        return kind
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        return functools.reduce(operator.or_, known)
    remade: Any = origin  # a class such as `list`, which mypy does not know to be generic
    return remade[known] if isinstance(origin, type) else kind.copy_with(known)


def _first_line(error: Exception) -> str:
    text = str(error).split("\n", 1)[0].strip()
    if "Unable to generate pydantic-core schema for" in text:
        return "it is, or holds, a class without fields; make it a dataclass or a pydantic model."
    return text if text.endswith(".") else f"{text}."


def words_of(kind: Any) -> tuple[str, ...] | None:
    """Return the strings that a type allows, if it is an enumeration of only strings."""
    values: tuple[Any, ...] = ()
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
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__name__
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and origin.__module__ == "builtins":
        inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in typing.get_args(kind))
        return f"{origin.__name__}[{inner}]"
    return repr(kind).replace("typing.", "").replace("__main__.", "").replace("NoneType", "None")
