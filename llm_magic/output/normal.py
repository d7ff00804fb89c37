r"""Any JSON Schema in the few keywords that a constrained decoder knows; the rest is left to the check here.

A decoder that meets a keyword beside others that it did not expect drops one side silently. So everything is put in
the form that all of them read alike: `$ref` alone, `anyOf` alone, one `type` with its own keywords, patterns without
classes such as `\d`, anchored at both ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.output.merge import ANNOTATIONS, Schema, merged
from llm_magic.output.reference import pointed, target_of
from llm_magic.output.scalars import Target, enumeration, scalar

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
    writer = _Writer(schema, target)
    root = writer.node(schema)
    if "$ref" in root:
        root = dict(writer.defs[root["$ref"].removeprefix("#/$defs/")])
    if writer.defs:
        root["$defs"] = writer.defs
    return Normal(root, tuple(sorted(writer.unsaid)))


@dataclass
class _Writer:
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
