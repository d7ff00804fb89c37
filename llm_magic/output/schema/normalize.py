"""Strings, numbers and lists of values as a constrained decoder takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.regex import Chars, Repeat, read_regex, width
from llm_magic.output.grammar.regex_to_gbnf import in_json, to_regex
from llm_magic.output.schema.formats import PATTERNS_BY_ALIAS
from llm_magic.output.schema.merge import ANNOTATIONS, Schema, integer_bounds, merged
from llm_magic.output.schema.references import pointed, target_of

_MAX_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class Target:
    """What one kind of decoder knows beyond the common ground."""

    formats: frozenset[str] = frozenset()
    """Formats that it knows itself; others become patterns."""
    number_bounds: bool = False
    """Whether `minimum` and its like work on numbers that are not whole."""
    integer_limit: int = 0
    """Bound of integers without bounds, so that a weak model does not write digits for ever; 0: none is needed."""
    descriptions: bool = False
    """Whether it reads descriptions (the model sees the schema)."""
    escapes: bool = False
    """Whether patterns are about the JSON text, so that `"` is written with its backslash."""


def scalar(kind: str, flat: Schema, target: Target, unsaid: set[str]) -> Schema:
    """Write a schema of one scalar type; what cannot be said is added to `unsaid`."""
    if kind == "string":
        return _string(flat, target, unsaid)
    if kind == "integer":
        bounds = integer_bounds(flat)
        limit = target.integer_limit
        if limit and bounds.get("minimum", 0) < limit and bounds.get("maximum", 0) > -limit:
            bounds = {"minimum": -limit, "maximum": limit} | bounds
        return {"type": "integer", **bounds}
    if kind == "number":
        bounds = {
            key: flat[key] for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if key in flat
        }
        if bounds and not target.number_bounds:
            unsaid.update(bounds)
            bounds = {}
        return {"type": "number", **{key: value for key, value in bounds.items() if not isinstance(value, bool)}}
    return {"type": kind}


def _string(flat: Schema, target: Target, unsaid: set[str]) -> Schema:
    written: Schema = {"type": "string"}
    low = int(flat.get("minLength") or 0)
    high = int(flat["maxLength"]) if isinstance(flat.get("maxLength"), (int, float)) else None
    name = flat.get("format")
    pattern = flat.get("pattern")
    if pattern is None and name in target.formats:
        return {"type": "string", "format": name}
    if pattern is None and isinstance(name, str) and name in PATTERNS_BY_ALIAS:
        pattern = PATTERNS_BY_ALIAS[name]
    if isinstance(pattern, str):
        plain = _pattern(pattern, low, high, target, unsaid)
        if plain is not None:
            return {"type": "string", "pattern": plain}
    if 0 < low <= _MAX_LENGTH:
        written["minLength"] = low
    if high is not None and high <= _MAX_LENGTH:
        written["maxLength"] = high
    return written


def _pattern(pattern: str, low: int, high: int | None, target: Target, unsaid: set[str]) -> str | None:
    """Return a pattern in plain notation, anchored; None where it cannot be said."""
    try:
        node = read_regex(pattern, search=True)
        if isinstance(node, Repeat) and isinstance(node.part, Chars):
            most = node.high if high is None else high if node.high is None else min(high, node.high)
            node = Repeat(node.part, max(low, node.low), most)
        least, longest = width(node)
        if least < low:
            unsaid.add("minLength")
        if high is not None and (longest is None or longest > high):
            unsaid.add("maxLength")
        return f"^({to_regex(in_json(node, escapes=target.escapes))})$"
    except UnsupportedError:
        unsaid.add("pattern")
        return None


def enumeration(flat: Schema) -> Schema:
    """Write a schema that lists its values."""
    values = [flat["const"]] if "const" in flat else list(flat["enum"])
    kinds = flat.get("type")
    if kinds is not None:
        fitting = [value for value in values if _fits(value, [kinds] if isinstance(kinds, str) else kinds)]
        values = fitting or values
    types = {_type_of(value) for value in values}
    return {"type": types.pop(), "enum": values} if len(types) == 1 else {"enum": values}


def _fits(value: Any, kinds: list[str]) -> bool:
    kind = _type_of(value)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _type_of(value: Any) -> str:
    """Return JSON Schema's name for the type of a JSON value."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]


_ANY = ("string", "number", "boolean", "null", "array", "object")
_BY_KEYWORD: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
        ),
        "object",
    ),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}
_ONLY_CHECKED_HERE = (
    "not", "if", "dependentRequired", "dependentSchemas", "dependencies", "contains", "uniqueItems", "multipleOf",
    "minProperties", "maxProperties", "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_MAX_BRANCHES = 24
_MAX_DEPTH = 60


@dataclass
class Normal:
    """A schema in normal form, and the keywords that are left to the check here."""

    schema: Schema
    unsaid: tuple[str, ...] = ()


def normal(schema: Mapping[str, Any], target: Target) -> Normal:
    """Return the normal form of a schema for a kind of decoder."""
    writer = _NormalWriter(schema, target)
    root = writer.node(schema)
    if "$ref" in root:
        root = dict(writer.defs[root["$ref"].removeprefix("#/$defs/")])
    if writer.defs:
        root["$defs"] = writer.defs
    return Normal(root, tuple(sorted(writer.unsaid)))


@dataclass
class _NormalWriter:
    root: Mapping[str, Any]
    target: Target
    defs: dict[str, Schema] = field(default_factory=dict)
    unsaid: set[str] = field(default_factory=set)
    _names: dict[str, str] = field(default_factory=dict)

    def node(self, schema: Any, depth: int = 0) -> Schema:
        """Write one schema."""
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return {"anyOf": [{"type": kind} for kind in _ANY]}
        if isinstance(schema.get("$ref"), str) and not (schema.keys() - ANNOTATIONS - {"$ref"}):
            return self._reference(schema["$ref"], depth)
        flat = self._flat(schema, depth)
        written = self._written(flat, depth)
        if self.target.descriptions and isinstance(schema.get("description"), str) and "$ref" not in written:
            written["description"] = schema["description"]
        return written

    def _reference(self, reference: str, depth: int) -> Schema:
        target = target_of(reference, self.root)
        if not isinstance(target, Mapping):
            self.unsaid.add("$ref")
            return self.node(True, depth)
        if reference not in self._names:
            base = re.sub(r"[^A-Za-z0-9]+", "-", reference.rsplit("/", 1)[-1]).strip("-") or "root"
            name, count = base, 1
            while name in self.defs:
                count += 1
                name = f"{base}-{count}"
            self._names[reference] = name
            self.defs[name] = {}
            self.defs[name] = self.node(target, depth + 1)
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _flat(self, schema: Mapping[str, Any], depth: int) -> Schema:
        """Return a schema without `$ref` and `allOf` of its own: what they name is merged in."""
        flat: Schema = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        for _ in range(_MAX_DEPTH - min(depth, _MAX_DEPTH - 1)):
            parts: list[Any] = list(flat.pop("allOf", ()))
            if isinstance(flat.get("$ref"), str):
                target = target_of(flat.pop("$ref"), self.root)
                if not isinstance(target, Mapping):
                    self.unsaid.add("$ref")
                parts.insert(0, target)
            if not parts:
                break
            for part in parts:
                if isinstance(part, Mapping):
                    known = {key: value for key, value in part.items() if key not in ANNOTATIONS}
                    flat = self._joined(flat, known)
        if isinstance(flat.get("if"), Mapping):
            condition, then, otherwise = flat.pop("if"), flat.pop("then", {}), flat.pop("else", {})
            self.unsaid.add("if")
            apart = self._opposite(condition, flat)
            ways = [{"allOf": [condition, then]}, {"allOf": [apart, otherwise]}]
            flat = self._joined(flat, {"anyOf": ways})
        return flat

    def _opposite(self, condition: Mapping[str, Any], flat: Schema) -> Schema:
        """Return what does not meet a condition on one property whose values are listed; else anything."""
        tested = condition.get("properties")
        if not isinstance(tested, Mapping) or len(tested) != 1:
            return {}
        ((name, test),) = tested.items()
        known = flat.get("properties", {}).get(name)
        if not (isinstance(test, Mapping) and isinstance(known, Mapping)):
            return {}
        met = [test["const"]] if "const" in test else test.get("enum", [])
        rest = [value for value in self._flat(known, 1).get("enum", ()) if value not in met]
        return {"properties": {name: {"enum": rest}}, "required": [name]} if rest and met else {}

    def _joined(self, one: Schema, other: Schema) -> Schema:
        """Merge two schemas; where both have alternatives, the pairs of these are the alternatives."""
        result = merged(one, other)
        for key in ("anyOf", "oneOf"):
            if key in one and key in other:
                pairs = [{"allOf": [left, right]} for left in one[key] for right in other[key]]
                if len(pairs) <= _MAX_BRANCHES:
                    result[key] = pairs
                else:
                    self.unsaid.add(key)
        return result

    def _written(self, flat: Schema, depth: int) -> Schema:
        self.unsaid.update(key for key in _ONLY_CHECKED_HERE if key in flat and flat[key] not in (False, None))
        for key in ("anyOf", "oneOf"):
            if key in flat:
                return self._alternatives(flat, key, depth)
        if "const" in flat or "enum" in flat:
            return enumeration(flat)
        kinds = flat.get("type")
        if kinds is None:
            kinds = next((kind for key, kind in _BY_KEYWORD.items() if key in flat), None) or list(_ANY)
        if isinstance(kinds, list):
            kinds = ["number" if kind == "integer" and "number" in kinds else kind for kind in dict.fromkeys(kinds)]
            if len(kinds) > 1:
                return {"anyOf": [self._typed(kind, flat, depth) for kind in dict.fromkeys(kinds)]}
            kinds = kinds[0]
        return self._typed(kinds, flat, depth)

    def _alternatives(self, flat: Schema, key: str, depth: int) -> Schema:
        base = {name: value for name, value in flat.items() if name != key}
        ways = [way for way in flat[key] if way is not False]
        if not base:
            written = [self.node(way, depth + 1) for way in ways]
        else:
            written = [
                self._written(
                    self._flat({"allOf": [base, way]} if isinstance(way, Mapping) else base, depth + 1), depth + 1
                )
                for way in ways
            ]
        unique = list({json.dumps(way, sort_keys=True): way for way in written}.values())
        return unique[0] if len(unique) == 1 else {"anyOf": unique}

    def _typed(self, kind: str, flat: Schema, depth: int) -> Schema:
        if kind == "object":
            return self._object(flat, depth)
        if kind == "array":
            return self._array(flat, depth)
        return scalar(kind, flat, self.target, self.unsaid)

    def _object(self, flat: Schema, depth: int) -> Schema:
        properties = {key: value for key, value in flat.get("properties", {}).items() if value is not False}
        required = (
            [key for key in flat.get("required", ()) if isinstance(key, str)]
            if flat.get("required") is not True
            else []
        )
        rest = flat.get("additionalProperties")
        patterns = flat.get("patternProperties")
        names = flat.get("propertyNames")
        if isinstance(patterns, Mapping) and patterns and not properties:
            self.unsaid.add("patternProperties")
            rest = next(iter(patterns.values()))
        if isinstance(names, Mapping):
            allowed = names.get("enum")
            if isinstance(allowed, list) and not properties:
                properties, rest = (
                    {key: rest if rest is not None else True for key in allowed if isinstance(key, str)},
                    False,
                )
            elif names.keys() - ANNOTATIONS - {"type"}:
                self.unsaid.add("propertyNames")
        for key in required:
            properties.setdefault(key, rest if isinstance(rest, Mapping) else True)
        written: Schema = {"type": "object"}
        if properties:
            written["properties"] = {key: self.node(value, depth + 1) for key, value in properties.items()}
            written["required"] = required
        if isinstance(rest, Mapping) and (not properties or rest):
            written["additionalProperties"] = self.node(rest, depth + 1)
        elif properties or rest is False:
            written.setdefault("properties", {})
            written["additionalProperties"] = False  # a model that may add keys, adds keys
        return written

    def _array(self, flat: Schema, depth: int) -> Schema:
        items = flat.get("items", True)
        prefix = items if isinstance(items, list) else flat.get("prefixItems")
        bounds = {key: int(flat[key]) for key in ("minItems", "maxItems") if isinstance(flat.get(key), (int, float))}
        if isinstance(prefix, list) and prefix:
            length = min(bounds.get("maxItems", len(prefix)), len(prefix))
            places = [self.node(part, depth + 1) for part in prefix[:length]]
            return {"type": "array", "prefixItems": places, "minItems": length, "maxItems": length}
        written: Schema = {"type": "array", "items": self.node(items, depth + 1), **bounds}
        values = (pointed(written["items"].get("$ref", ""), {"$defs": self.defs}) or written["items"]).get("enum")
        if flat.get("uniqueItems") and isinstance(values, list):
            written["maxItems"] = min(bounds.get("maxItems", len(values)), len(values))
        return written
