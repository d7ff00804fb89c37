"""How each kind of constraint is put to each kind of server: one table, `{(dialect, kind): function}`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.capabilities import Capabilities, Dialect, Kind
from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.regex import read_regex
from llm_magic.output.grammar.regex_to_gbnf import to_gbnf, to_regex
from llm_magic.output.schema.normalize import Normal, Target, normal
from llm_magic.output.schema.strict import TARGET as OPENAI
from llm_magic.output.schema.strict import strict
from llm_magic.output.spec import WRAP, OutputSpec
from llm_magic.request import Tool

LLAMA = Target(formats=frozenset({"uuid"}), escapes=True)
"""llama.cpp's converter: common/json-schema-to-grammar.cpp."""
VLLM = Target(formats=frozenset({"uuid", "ipv4", "ipv6"}), number_bounds=True, integer_limit=10**18 - 1)
"""vLLM's default backends, xgrammar and llguidance."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A constraint as one endpoint takes it.

    Attributes
    ----------
    dialect
        The dialect used, for `Response.structured`.
    fields
        Fields of the request's body.
    instruction
        Text to append to the prompt; empty where the server tells the model itself.
    tools
        For the dialect `tool_call` the one tool that has to be called (`tool_choice` is its name); the answer is then
        the arguments of that call, not the text.
    notes
        What the user should know.

    """

    dialect: Dialect
    fields: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    tools: tuple[Tool, ...] = ()
    notes: tuple[str, ...] = ()


def apply(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    """Return the constraint of an output type as an endpoint takes it.

    Parameters
    ----------
    spec
        The output type.
    capabilities
        The endpoint: `dialects` and `api` are read.

    Raises
    ------
    UnsupportedError
        The endpoint has no way to take this kind of constraint.

    >>> from llm_magic.output.spec import spec_from
    >>> apply(spec_from(bool), Capabilities(dialects={"json": "structured_outputs"})).fields
    {'structured_outputs': {'json': {'type': 'boolean'}}}

    """
    dialect = capabilities.dialects.get(spec.kind)
    write = WRITERS.get((dialect, spec.kind)) if dialect is not None else None
    if dialect is None or write is None:
        raise UnsupportedError(
            f"This endpoint takes no {_NAMES[spec.kind]}.",
            "Say --as with a type, or use a server that does: vLLM, llama.cpp, the embedded model."
            if spec.kind in ("regex", "grammar")
            else "Leave the output type out, and read the text.",
        )
    key = (dialect, capabilities.api, capabilities.strict_tools)
    made: Structure | None = spec.made.get(key)
    if made is None:
        made = spec.made[key] = write(spec, capabilities)
    return made


_NAMES: Mapping[Kind, str] = {
    "json": "JSON Schema", "choices": "list of choices", "regex": "regular expression", "grammar": "grammar",
}  # fmt: skip


def schema_name(title: str) -> str:
    """Return a title as a name that OpenAI takes: at most 64 of letters, digits, `_` and `-`.

    >>> schema_name("list[City]")
    'list_City'

    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", title).strip("_")[:64] or "answer"


def wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of `{"value": …}` around a schema in normal form, whose references all lead to `$defs`."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    root = {"type": "object", "properties": {WRAP: inner}, "required": [WRAP], "additionalProperties": False}
    return root | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def _objects_only(spec: OutputSpec) -> dict[str, Any]:
    """Return the schema of a root that has to be an object."""
    if spec.kind == "choices":
        return wrapped({"type": "string", "enum": list(spec.choices)})
    if spec.kind == "regex":
        return wrapped({"type": "string", "pattern": f"^({to_regex(read_regex(spec.pattern))})$"})
    return spec.schema if spec.object_root else wrapped(normal(spec.schema, OPENAI).schema)


def _openai(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    schema, reason = strict(_objects_only(spec))
    notes: tuple[str, ...] = ()
    if schema is None:
        notes = (f"The schema was sent non-strict, because {reason}; the answer is checked here.",)
    named = {"name": schema_name(spec.title), "schema": schema or _objects_only(spec), "strict": schema is not None}
    if capabilities.api == "completions":
        raise UnsupportedError("The completions API takes no JSON Schema.", "Say --api chat.")
    if capabilities.api == "responses":
        return Structure("json_schema", {"text": {"format": {"type": "json_schema", **named}}}, notes=notes)
    return Structure("json_schema", {"response_format": {"type": "json_schema", "json_schema": named}}, notes=notes)


def _decoder_schema(spec: OutputSpec, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the schema for a decoder that takes any root, and what it is not told.

    A list goes into an object all the same: small models close a bare `[` at once, and fill one that has a name.
    """
    plain = normal(spec.schema, target)
    wraps = spec.always_wrapped or plain.schema.get("type") == "array"
    return wrapped(plain.schema) if wraps else plain.schema, _unsaid(spec, plain)


def _unsaid(spec: OutputSpec, plain: Normal) -> tuple[str, ...]:
    """Return the note that names what the server was not told; items of a Python set may well come twice."""
    unsaid = [key for key in plain.unsaid if not (key == "uniqueItems" and spec.shape is not None)]
    if not unsaid:
        return ()
    return (f"The server is not told about {', '.join(unsaid)} in the schema; the answer is checked here.",)


def _vllm(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    notes: tuple[str, ...] = ()
    constraint: dict[str, Any]
    if spec.kind == "json":
        schema, notes = _decoder_schema(spec, VLLM)
        constraint = {"json": schema}
    elif spec.kind == "choices":
        constraint = {"choice": list(spec.choices)}
    elif spec.kind == "regex":
        constraint = {"regex": to_regex(read_regex(spec.pattern))}
    else:
        constraint = {"grammar": _grammar_text(spec)}
    return Structure("structured_outputs", {"structured_outputs": constraint}, _told_fields(spec), notes=notes)


def _llama_schema(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    schema, notes = _decoder_schema(spec, LLAMA)
    fields: dict[str, Any]
    if capabilities.api == "completions":
        fields = {"json_schema": schema}  # a field of llama.cpp's own, which its other APIs do not read
    elif capabilities.api == "responses":
        fields = {"text": {"format": {"type": "json_schema", "name": schema_name(spec.title), "schema": schema}}}
    else:
        named = {"name": schema_name(spec.title), "schema": schema}
        fields = {"response_format": {"type": "json_schema", "json_schema": named}}
    return Structure("llama_json_schema", fields, _told_fields(spec), notes=notes)


def _llama_grammar(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    return Structure("llama_grammar", {"grammar": _grammar_text(spec)}, _told_fields(spec))


def _grammar_text(spec: OutputSpec) -> str:
    """Return the GBNF of choices, a pattern, or a grammar as it is."""
    if spec.grammar is not None:
        return spec.grammar.text
    if spec.kind == "choices":
        ways = " | ".join(to_gbnf(read_regex(re.escape(choice))) for choice in spec.choices)
        return f"root ::= {ways}"
    return f"root ::= {to_gbnf(read_regex(spec.pattern))}"


def _json_object(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    if capabilities.api == "completions":
        raise UnsupportedError("The completions API takes no response format.", "Say --api chat.")
    asked = "Answer with a JSON object that fits this JSON Schema, and nothing else:\n" + _compact(_objects_only(spec))
    if capabilities.api == "responses":
        return Structure("json_object", {"text": {"format": {"type": "json_object"}}}, asked)
    return Structure("json_object", {"response_format": {"type": "json_object"}}, asked)


def _tool_call(spec: OutputSpec, capabilities: Capabilities) -> Structure:
    plain, reason = strict(_objects_only(spec)) if capabilities.strict_tools else (None, "")
    notes = (f"The schema was sent non-strict, because {reason}; the answer is checked here.",) if reason else ()
    tool = Tool(schema_name(spec.title), "Give the answer.", plain or _objects_only(spec), strict=plain is not None)
    return Structure("tool_call", tools=(tool,), notes=notes)


def _prompt(spec: OutputSpec, _capabilities: Capabilities) -> Structure:
    if spec.kind == "choices":
        return Structure("prompt", instruction=_told_fields(spec))
    schema = wrapped(normal(spec.schema, OPENAI).schema) if spec.always_wrapped else spec.schema
    return Structure(
        "prompt", instruction="Answer with JSON that fits this JSON Schema, and nothing else:\n" + _compact(schema)
    )


def _compact(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _told_fields(spec: OutputSpec) -> str:
    """Return what a constraint alone does not tell the model: the choices, and the descriptions of fields."""
    if spec.kind == "choices":
        return f"Answer with exactly one of: {', '.join(spec.choices)}"
    lines = list(dict.fromkeys(_descriptions(spec.schema)))
    return "\n".join(["The fields of the answer:", *lines]) if lines else ""


def _descriptions(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        properties = node.get("properties")
        if isinstance(properties, Mapping):
            for name, value in properties.items():
                if isinstance(value, Mapping) and isinstance(value.get("description"), str):
                    yield f"- {name}: {' '.join(value['description'].split())}"
        for key, value in node.items():
            if key not in ("default", "examples", "enum", "const"):
                yield from _descriptions(value)
    elif isinstance(node, list):
        for value in node:
            yield from _descriptions(value)


WRITERS: Mapping[tuple[Dialect, Kind], Callable[[OutputSpec, Capabilities], Structure]] = {
    ("json_schema", "json"): _openai,
    ("json_schema", "choices"): _openai,
    ("json_schema", "regex"): _openai,
    ("structured_outputs", "json"): _vllm,
    ("structured_outputs", "choices"): _vllm,
    ("structured_outputs", "regex"): _vllm,
    ("structured_outputs", "grammar"): _vllm,
    ("llama_json_schema", "json"): _llama_schema,
    ("llama_grammar", "choices"): _llama_grammar,
    ("llama_grammar", "regex"): _llama_grammar,
    ("llama_grammar", "grammar"): _llama_grammar,
    ("json_object", "json"): _json_object,
    ("json_object", "choices"): _json_object,
    ("tool_call", "json"): _tool_call,
    ("tool_call", "choices"): _tool_call,
    ("prompt", "json"): _prompt,
    ("prompt", "choices"): _prompt,
}
