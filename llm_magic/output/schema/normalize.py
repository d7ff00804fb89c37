"""Normalization: a JSON Schema with only those keywords that constrained decoders know."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.regex import Chars, Repeat, read_regex, width
from llm_magic.output.grammar.regex_to_gbnf import in_json, to_regex
from llm_magic.output.schema import Schema
from llm_magic.output.schema.keywords import PATTERNS, constraints, merge, resolve, target_of

_MAX_LENGTH = 2000
_MAX_BRANCHES = 24
_MAX_DEPTH = 60
MAX_PARTS = 20_000
"""Parts of a normal form, at most: where keywords beside a `$ref` multiply it, there may be no end of them."""
_ANY = ("string", "number", "boolean", "null", "array", "object")
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TYPE_BY_KEYWORD: Mapping[str, str] = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties"), "object"),
    **dict.fromkeys(("propertyNames", "minProperties", "maxProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys((*_NUMBER_BOUNDS, "multipleOf"), "number"),
}
_ONLY_CHECKED_HERE = (
    "not", "if", "dependentRequired", "dependentSchemas", "dependencies", "contains", "uniqueItems", "multipleOf",
    "minProperties", "maxProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SchemaSupport:
    """What one kind of decoder supports of JSON Schema beyond the common ground."""

    formats: frozenset[str] = frozenset()
    """Formats that it knows itself; others become patterns."""
    number_bounds: bool = False
    """Whether `minimum` and its like work on numbers that are not whole."""
    integer_limit: int = 0
    """Bound of integers without bounds, against endless digits of a weak model; 0: none."""
    descriptions: bool = False
    """Whether it reads descriptions (the model sees the schema)."""
    escapes: bool = False
    """Whether patterns are about the JSON text, so that `"` is written with its backslash."""


@dataclass(frozen=True, slots=True)
class NormalizedSchema:
    """A schema in normal form, and the keywords of the original that are left to the check here."""

    schema: Schema
    unenforced: tuple[str, ...] = ()


def normalize(schema: Schema, support: SchemaSupport) -> NormalizedSchema:
    """Return the normal form of a schema for a kind of decoder.

    References stay references, also of a schema that holds itself; where other keywords beside a `$ref` constrain what
    it names, that is written out once, and referred to from then on.

    Raises
    ------
    UnsupportedError
        The normal form would have more than `MAX_PARTS` parts.

    """
    normalizer = _Normalizer(schema, support)
    root = normalizer.node(schema)
    normalizer.finish()
    if "$ref" in root:
        root = dict(resolve(root, {"$defs": normalizer.definitions}))
    if normalizer.definitions:
        root["$defs"] = normalizer.definitions
    return NormalizedSchema(root, tuple(sorted(normalizer.unenforced)))


@dataclass
class _Normalizer:
    root: Schema
    support: SchemaSupport
    definitions: dict[str, Schema] = field(default_factory=dict)
    unenforced: set[str] = field(default_factory=set)
    _names: dict[str, str] = field(default_factory=dict)  # of the definitions, by reference, or by what is merged
    _merges: dict[str, Schema | None] = field(default_factory=dict)  # what was merged, None while it is being written
    _waiting: list[tuple[str, Schema]] = field(default_factory=list)  # definitions that are not written yet
    _parts: int = 0

    def finish(self) -> None:
        """Write the definitions that are referred to."""
        while self._waiting:
            name, target = self._waiting.pop(0)
            self.definitions[name] = self.node(target)

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise UnsupportedError(
                f"The schema stands for more than {MAX_PARTS:,} parts once its references are written out.",
                "Keep a $ref alone, with no constraint beside it; what it names can say it.",
            )

    def node(self, schema: Any, depth: int = 0) -> Schema:
        """Write one schema."""
        self._count()
        if not isinstance(schema, dict):
            return {"anyOf": [{"type": kind} for kind in _ANY]}
        if depth > _MAX_DEPTH:
            self.unenforced.add(f"what lies deeper than {_MAX_DEPTH} levels")
            return self.node(True)
        leaves = _leaves(schema)
        if len(leaves) == 1 and leaves[0].keys() == {"$ref"} and isinstance(leaves[0]["$ref"], str):
            return self._reference(leaves[0]["$ref"])
        if any("$ref" in leaf for leaf in leaves):
            return self._merge(schema, leaves, depth)
        return self._written(schema, depth)

    def _written(self, schema: Schema, depth: int) -> Schema:
        written = self._flat_node(self._flat(schema), depth)
        if self.support.descriptions and isinstance(schema.get("description"), str) and "$ref" not in written:
            written["description"] = schema["description"]
        return written

    def _reference(self, reference: str) -> Schema:
        target = target_of(reference, self.root)
        if not isinstance(target, dict):
            self.unenforced.add("$ref")
            return self.node(True)
        if reference not in self._names:
            name = self._names[reference] = self._new_name(reference)
            self._waiting.append((name, target))
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _new_name(self, reference: str) -> str:
        """Return a name for a definition, and take it."""
        base = re.sub(r"[^A-Za-z0-9]+", "-", reference.rsplit("/", 1)[-1]).strip("-") or "root"
        names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in self.definitions)
        self.definitions[name] = {}
        return name

    def _merge(self, schema: Schema, leaves: list[Schema], depth: int) -> Schema:
        """Write what references and keywords beside them say together; the second time, refer to it."""
        key = json.dumps(sorted(json.dumps(leaf, sort_keys=True) for leaf in leaves))
        if key not in self._merges:
            self._merges[key] = None
            written = self._merges[key] = self._written(schema, depth)
            if key not in self._names:
                return written
            self.definitions[self._names[key]] = written
        elif key not in self._names:
            named = next(leaf["$ref"] for leaf in leaves if "$ref" in leaf)
            name = self._names[key] = self._new_name(str(named))
            self.definitions[name] = dict(self._merges[key] or {})  # empty while it is being written, one floor above
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _flat(self, schema: Schema) -> Schema:
        """Return a schema with what its own `$ref`, `allOf` and `if` name merged in, each reference once."""
        flat: Schema = {}
        parts: list[Any] = [schema]
        seen: set[str] = set()
        for part in parts:  # extended while it is walked
            if not isinstance(part, dict):
                continue
            self._count()
            said = constraints(part)
            inner = list(said.pop("allOf", ()))
            reference = said.pop("$ref", None)
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                inner.insert(0, target_of(reference, self.root))
                if not isinstance(inner[0], dict):
                    self.unenforced.add("$ref")
            flat = self._merged(flat, said)
            parts += inner
        if isinstance(flat.get("if"), dict):
            condition, then, otherwise = flat.pop("if"), flat.pop("then", {}), flat.pop("else", {})
            self.unenforced.add("if")
            ways = [{"allOf": [condition, then]}, {"allOf": [self._opposite(condition, flat), otherwise]}]
            flat = self._merged(flat, {"anyOf": ways})
        return flat

    def _opposite(self, condition: Schema, flat: Schema) -> Schema:
        """Return what does not meet a condition on one property with listed values; or anything."""
        tested = condition.get("properties")
        if not isinstance(tested, dict) or len(tested) != 1:
            return {}
        ((name, test),) = tested.items()
        known = flat.get("properties", {}).get(name)
        if not (isinstance(test, dict) and isinstance(known, dict)):
            return {}
        met = [test["const"]] if "const" in test else test.get("enum", [])
        rest = [value for value in self._flat(known).get("enum", ()) if value not in met]
        return {"properties": {name: {"enum": rest}}, "required": [name]} if rest and met else {}

    def _merged(self, one: Schema, other: Schema) -> Schema:
        """Merge two schemas; where both have alternatives, the pairs are the alternatives."""
        result = merge(one, other)
        for key in ("anyOf", "oneOf"):
            if key in one and key in other:
                pairs = [{"allOf": [left, right]} for left in one[key] for right in other[key]]
                if len(pairs) <= _MAX_BRANCHES:
                    result[key] = pairs
                else:
                    self.unenforced.add(key)
        return result

    def _flat_node(self, flat: Schema, depth: int) -> Schema:
        self.unenforced.update(key for key in _ONLY_CHECKED_HERE if key in flat and flat[key] not in (False, None))
        for key in ("anyOf", "oneOf"):
            if key in flat:
                return self._alternatives(flat, key, depth)
        if "const" in flat or "enum" in flat:
            return _enumeration(flat)
        kinds = flat.get("type") or next((kind for key, kind in _TYPE_BY_KEYWORD.items() if key in flat), _ANY)
        if isinstance(kinds, str):
            return self._typed(kinds, flat, depth)
        distinct = dict.fromkeys("number" if kind == "integer" and "number" in kinds else kind for kind in kinds)
        written = [self._typed(kind, flat, depth) for kind in distinct]
        return written[0] if len(written) == 1 else {"anyOf": written}

    def _alternatives(self, flat: Schema, key: str, depth: int) -> Schema:
        base = {name: value for name, value in flat.items() if name != key}
        ways = [way for way in flat[key] if way is not False]
        if base:
            ways = [{"allOf": [base, way]} if isinstance(way, dict) else base for way in ways]
        written = [self.node(way, depth + 1) for way in ways]
        unique = list({json.dumps(way, sort_keys=True): way for way in written}.values())
        return unique[0] if len(unique) == 1 else {"anyOf": unique}

    def _typed(self, kind: str, flat: Schema, depth: int) -> Schema:
        if kind == "object":
            return self._object(flat, depth)
        if kind == "array":
            return self._array(flat, depth)
        if kind == "string":
            return self._string(flat)
        if kind == "integer":
            return {"type": kind, **_integer_bounds(flat, self.support.integer_limit)}
        bounds = {key: flat[key] for key in _NUMBER_BOUNDS if key in flat} if kind == "number" else {}
        if self.support.number_bounds:
            return {"type": kind, **{key: value for key, value in bounds.items() if not isinstance(value, bool)}}
        self.unenforced.update(bounds)
        return {"type": kind}

    def _string(self, flat: Schema) -> Schema:
        low = int(flat.get("minLength") or 0)
        high = int(flat["maxLength"]) if isinstance(flat.get("maxLength"), (int, float)) else None
        name, pattern = flat.get("format"), flat.get("pattern")
        if pattern is None and isinstance(name, str):
            if name in self.support.formats:
                return {"type": "string", "format": name}
            pattern = PATTERNS.get(name)
        plain = self._pattern(pattern, low, high) if isinstance(pattern, str) else None
        if plain is not None:
            return {"type": "string", "pattern": plain}
        least = {"minLength": low} if 0 < low <= _MAX_LENGTH else {}
        most = {"maxLength": high} if high is not None and high <= _MAX_LENGTH else {}
        return {"type": "string", **least, **most}

    def _pattern(self, pattern: str, low: int, high: int | None) -> str | None:
        """Return a pattern in plain notation, anchored; None where it cannot be said."""
        try:
            node = read_regex(pattern, search=True)
            if isinstance(node, Repeat) and isinstance(node.part, Chars):
                most = min((limit for limit in (high, node.high) if limit is not None), default=None)
                node = Repeat(node.part, max(low, node.low), most)
            least, longest = width(node)
            if least < low:
                self.unenforced.add("minLength")
            if high is not None and longest > high:
                self.unenforced.add("maxLength")
            return f"^({to_regex(in_json(node, escapes=self.support.escapes))})$"
        except UnsupportedError:
            self.unenforced.add("pattern")
            return None

    def _object(self, flat: Schema, depth: int) -> Schema:
        properties = {key: value for key, value in flat.get("properties", {}).items() if value is not False}
        listed = flat.get("required")  # in draft 3, a flag of the property
        required = [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []
        rest, patterns, names = map(flat.get, ("additionalProperties", "patternProperties", "propertyNames"))
        if isinstance(patterns, dict) and patterns and not properties:
            self.unenforced.add("patternProperties")
            rest = next(iter(patterns.values()))
        if isinstance(names, dict):
            if isinstance(names.get("enum"), list) and not properties:
                allowed = [key for key in names["enum"] if isinstance(key, str)]
                properties, rest = dict.fromkeys(allowed, True if rest is None else rest), False
            elif constraints(names).keys() - {"type"}:
                self.unenforced.add("propertyNames")
        for key in required:
            properties.setdefault(key, rest if isinstance(rest, dict) else True)
        written: Schema = {"type": "object"}
        if properties or rest is False:
            written["properties"] = {key: self.node(value, depth + 1) for key, value in properties.items()}
        if properties:
            written["required"] = required
        if isinstance(rest, dict) and (not properties or rest):
            written["additionalProperties"] = self.node(rest, depth + 1)
        elif "properties" in written:
            written["additionalProperties"] = False  # a model that may add keys, adds keys
        return written

    def _array(self, flat: Schema, depth: int) -> Schema:
        items = flat.get("items", True)
        prefix = items if isinstance(items, list) else flat.get("prefixItems")
        bounds = {key: int(flat[key]) for key in ("minItems", "maxItems") if isinstance(flat.get(key), (int, float))}
        if isinstance(prefix, list) and prefix:
            length = min(bounds.get("maxItems", len(prefix)), len(prefix))
            first = [self.node(part, depth + 1) for part in prefix[:length]]
            return {"type": "array", "prefixItems": first, "minItems": length, "maxItems": length}
        written: Schema = {"type": "array", "items": self.node(items, depth + 1), **bounds}
        values = self._flat(items).get("enum") if isinstance(items, dict) else None
        if flat.get("uniqueItems") and isinstance(values, list):
            written["maxItems"] = min(bounds.get("maxItems", len(values)), len(values))
        return written


def _leaves(schema: Schema) -> list[Schema]:
    """Return what a schema says in its own words and in the parts of `allOf`, references not followed."""
    leaves: list[Schema] = []
    parts = [schema]
    for part in parts:  # extended while it is walked
        if isinstance(part, dict):
            said = constraints(part)
            parts += said.pop("allOf", ())
            if said and said not in leaves:
                leaves.append(said)
    return leaves


def _enumeration(flat: Schema) -> Schema:
    """Write a schema that lists its values."""
    values = [flat["const"]] if "const" in flat else list(flat["enum"])
    kinds = flat.get("type")
    if kinds is not None:
        known = {kinds} if isinstance(kinds, str) else set(kinds)
        known |= {"integer"} if "number" in known else set()
        values = [value for value in values if _type_of(value) in known] or values
    types = {_type_of(value) for value in values}
    return {"type": types.pop(), "enum": values} if len(types) == 1 else {"enum": values}


def _type_of(value: Any) -> str:
    """Return JSON Schema's name for the type of a JSON value."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _integer_bounds(schema: Schema, limit: int) -> Schema:
    """Return `minimum` and `maximum` of whole numbers for bounds in the words of any draft.

    >>> _integer_bounds({"exclusiveMinimum": 0, "maximum": 9.5}, 0)
    {'minimum': 1, 'maximum': 9}

    """
    low, high, above, below = (schema.get(key) for key in _NUMBER_BOUNDS)
    above = low if above is True else above  # draft 4: a flag beside `minimum`
    below = high if below is True else below
    lows = [*map(math.ceil, _numbers(low)), *(math.floor(above) + 1 for above in _numbers(above))]
    highs = [*map(math.floor, _numbers(high)), *(math.ceil(below) - 1 for below in _numbers(below))]
    bounds = ({"minimum": max(lows)} if lows else {}) | ({"maximum": min(highs)} if highs else {})
    if limit and bounds.get("minimum", 0) < limit and bounds.get("maximum", 0) > -limit:
        return {"minimum": -limit, "maximum": limit} | bounds
    return bounds


def _numbers(value: Any) -> list[float]:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
