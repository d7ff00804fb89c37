"""Dialects: how each kind of server takes each constraint, `{(dialect, kind): function}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magic.capabilities import Capabilities, Dialect, Kind
from llm_magic.errors import UnsupportedError
from llm_magic.output import instructions
from llm_magic.output.grammar.regex import read_regex
from llm_magic.output.grammar.regex_to_gbnf import to_gbnf, to_regex
from llm_magic.output.json_text import WRAP
from llm_magic.output.schema import Schema
from llm_magic.output.schema.normalize import SchemaSupport, normalize
from llm_magic.output.schema.strict import strict
from llm_magic.output.spec import OutputSpec
from llm_magic.request import Tool

LLAMA = SchemaSupport(formats=frozenset({"uuid"}), escapes=True)
"""llama.cpp's converter: common/json-schema-to-grammar.cpp."""
VLLM = SchemaSupport(formats=frozenset({"uuid", "ipv4", "ipv6"}), number_bounds=True, integer_limit=10**18 - 1)
"""vLLM's default backends, xgrammar and llguidance."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A constraint as one endpoint takes it."""

    dialect: Dialect
    """The dialect used, for `Response.structured`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request's body."""
    instruction: str = ""
    """Text to append to the prompt; empty where the server tells the model itself."""
    tools: tuple[Tool, ...] = ()
    """For the dialect `tool_call` the one tool that has to be called; the answer is then the
    arguments of that call, not the text."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    nulls: bool = False
    """Whether optional properties that are absent come as null: OpenAI's strict schemas require all."""


def apply(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    """Return the constraint of an output type as an endpoint takes it.

    An endpoint that has no way to take this kind of constraint is an `UnsupportedError`.

    >>> from llm_magic.output.spec import spec_from
    >>> apply(spec_from(bool), Capabilities(dialects={"json": "structured_outputs"})).fields
    {'structured_outputs': {'json': {'type': 'boolean'}}}

    """
    dialect = capabilities.dialects.get(spec.kind)
    if dialect is None or (dialect, spec.kind) not in WRITERS:
        raise UnsupportedError(
            f"This endpoint takes no {_NAMES[spec.kind]}.",
            "Say --as with a type, or use a server that does: vLLM, llama.cpp, the embedded model."
            if spec.kind in ("regex", "grammar")
            else "Leave the output type out, and read the text.",
        )
    key = (dialect, capabilities.api, capabilities.strict_tools)
    if key not in spec.structures:
        spec.structures[key] = WRITERS[dialect, spec.kind](spec, capabilities)
    structure: Structure = spec.structures[key]
    return structure


_NAMES: Mapping[Kind, str] = {
    "json": "JSON Schema", "choices": "list of choices", "regex": "regular expression", "grammar": "grammar",
}  # fmt: skip


def schema_name(title: str) -> str:
    """Return a title as a name that OpenAI takes: at most 64 of letters, digits, `_` and `-`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", title).strip("_")[:64] or "answer"


def _wrapped(schema: Schema) -> Schema:
    """Return the schema of `{"value": …}`, of a schema whose references all lead to `$defs`."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    root = {"type": "object", "properties": {WRAP: inner}, "required": [WRAP], "additionalProperties": False}
    return root | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def _wrapped_whole(schema: Schema) -> Schema:
    """Return the schema of `{"value": …}`, of any schema, with all that it says."""
    own = {schema.get("$id"), schema.get("id")} - {None}

    def moved(node: Any) -> Any:
        if isinstance(node, list):
            return [moved(each) for each in node]
        if not isinstance(node, dict):
            return node
        written = {key: moved(value) for key, value in node.items()}
        if isinstance(reference := node.get("$ref"), str):
            document, _, place = reference.partition("#")
            if (not document or document in own) and (not place or place.startswith("/")):
                written["$ref"] = f"#/properties/{WRAP}{place}"
        return written

    inner = {key: value for key, value in moved(schema).items() if key not in ("$schema", "$id", "id")}
    said = {"$schema": schema["$schema"]} if "$schema" in schema else {}
    return said | _wrapped({}) | {"properties": {WRAP: inner}}


def _objects_only(spec: OutputSpec) -> Schema:
    """Return the schema of a root that has to be an object, with all that it says."""
    if spec.kind == "choices":
        return _wrapped({"type": "string", "enum": list(spec.choices)})
    if spec.kind == "regex":
        return _wrapped({"type": "string", "pattern": f"^({to_regex(read_regex(spec.pattern))})$"})
    return spec.schema if spec.object_root else _wrapped_whole(spec.schema)


@dataclass(frozen=True, slots=True)
class _Objects:
    """A schema of an object for OpenAI, strict if it can be, and what the user should know about it."""

    schema: Schema
    strict: bool
    notes: tuple[str, ...]


def _strict_or_not(spec: OutputSpec) -> _Objects:
    loose = _objects_only(spec)
    closed = strict(loose, of_type=spec.shape is not None)
    if closed.schema is not None:
        return _Objects(closed.schema, True, _notes(spec, closed.unenforced, closed.narrowed))
    return _Objects(
        loose, False, (f"The schema was sent non-strict, because {closed.reason}; the answer is checked here.",)
    )


def _notes(spec: OutputSpec, unenforced: Sequence[str], narrowed: Sequence[str]) -> tuple[str, ...]:
    """Return what the user should know of a schema that was not said as it is. A Python set takes items twice."""
    untold = ", ".join(key for key in unenforced if not (key == "uniqueItems" and spec.shape is not None))
    less = ", ".join(narrowed)
    return (
        *((f"The server is not told about {untold} in the schema; the answer is checked here.",) if untold else ()),
        *((f"The server allows less than the schema does by {less}; what it allows is valid.",) if less else ()),
    )


def _response_format(kind: str, capabilities: Capabilities, schema: Mapping[str, Any]) -> Schema:
    """Return the field of the body that asks for JSON; `schema` is empty for any object."""
    if capabilities.api == "completions":
        what = "JSON Schema" if schema else "response format"
        raise UnsupportedError(f"The completions API takes no {what}.", "Say --api chat.")
    if capabilities.api == "responses":
        return {"text": {"format": {"type": kind, **schema}}}
    return {"response_format": {"type": kind, **({kind: schema} if schema else {})}}


def _openai(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    asked = _strict_or_not(spec)
    named = {"name": schema_name(spec.title), "schema": asked.schema, "strict": asked.strict}
    fields = _response_format("json_schema", capabilities, named)
    return Structure("json_schema", fields, notes=asked.notes, nulls=asked.strict)


def _decoder_schema(spec: OutputSpec, support: SchemaSupport) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema for a decoder that takes any root, and notes of what it is not told.

    A list and a number go into an object all the same: small models close a bare `[` at once, and write digits
    without end; both are right more often where they have a name. Items of a Python set may well come twice.
    """
    plain = normalize(spec.schema, support, of_type=spec.shape is not None)
    schema = plain.schema
    if spec.always_wrapped or schema.get("type") == "array" or instructions.is_number(schema):
        schema = _wrapped(schema)
    return schema, _notes(spec, plain.unenforced, plain.narrowed)


def _vllm(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    constraint: Schema
    notes: tuple[str, ...] = ()
    if spec.kind == "json":
        schema, notes = _decoder_schema(spec, VLLM)
        constraint = {"json": schema}
    elif spec.kind == "choices":
        constraint = {"choice": list(spec.choices)}
    elif spec.kind == "regex":
        constraint = {"regex": to_regex(read_regex(spec.pattern))}
    else:
        constraint = {"grammar": _gbnf(spec)}
    return Structure(
        "structured_outputs", {"structured_outputs": constraint}, instructions.of_constraint(spec), notes=notes
    )


def _llama_schema(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    schema, notes = _decoder_schema(spec, LLAMA)
    if capabilities.api == "completions":  # its own field, which its other APIs do not read
        fields = {"json_schema": schema}
    else:
        fields = _response_format("json_schema", capabilities, {"name": schema_name(spec.title), "schema": schema})
    return Structure("llama_json_schema", fields, instructions.of_constraint(spec), notes=notes)


def _llama_grammar(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    return Structure("llama_grammar", {"grammar": _gbnf(spec)}, instructions.of_constraint(spec))


def _gbnf(spec: OutputSpec) -> str:
    """Return the GBNF of choices, a pattern, or a grammar as it is."""
    if spec.grammar is not None:
        return spec.grammar.text
    ways = [re.escape(choice) for choice in spec.choices] or [spec.pattern]
    return f"root ::= {' | '.join(to_gbnf(read_regex(way)) for way in ways)}"


def _json_object(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    fields = _response_format("json_object", capabilities, {})
    return Structure("json_object", fields, instructions.of_schema("a JSON object", _objects_only(spec)))


def _tool_call(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    asked = _strict_or_not(spec) if capabilities.strict_tools else _Objects(_objects_only(spec), False, ())
    tool = Tool(schema_name(spec.title), "Give the answer.", asked.schema, strict=asked.strict)
    return Structure("tool_call", tools=(tool,), notes=asked.notes, nulls=asked.strict)


def _prompt(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    if spec.kind == "choices":
        return Structure("prompt", instruction=instructions.of_constraint(spec))
    schema = _wrapped_whole(spec.schema) if spec.always_wrapped else spec.schema
    return Structure("prompt", instruction=instructions.of_schema("JSON", schema))


Writer = Callable[[OutputSpec, Capabilities], Structure]

_ROWS: tuple[tuple[Dialect, Writer, tuple[Kind, ...]], ...] = (
    ("json_schema", _openai, ("json", "choices", "regex")),
    ("structured_outputs", _vllm, ("json", "choices", "regex", "grammar")),
    ("llama_json_schema", _llama_schema, ("json",)),
    ("llama_grammar", _llama_grammar, ("choices", "regex", "grammar")),
    ("json_object", _json_object, ("json", "choices")),
    ("tool_call", _tool_call, ("json", "choices")),
    ("prompt", _prompt, ("json", "choices")),
)
WRITERS: Mapping[tuple[Dialect, Kind], Writer] = {(name, kind): write for name, write, kinds in _ROWS for kind in kinds}
