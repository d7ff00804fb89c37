"""Normalization: a JSON Schema with only those keywords that constrained decoders know.

What it allows the schema allows, but for the keywords that are reported as `unenforced`; and it
allows what the schema allows, but for those reported as `narrowed`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.errors import InvalidValueError, OutputTypeError, UnsupportedError
from llm_magic.output.grammar.regex import Chars, Node, Repeat, read_regex, width
from llm_magic.output.grammar.regex_to_gbnf import in_json, to_regex
from llm_magic.output.schema import Schema, validator
from llm_magic.output.schema.drafts import LATEST, Draft, draft_of, modern
from llm_magic.output.schema.formats import CHECKED, PATTERNS
from llm_magic.output.schema.keywords import canonical, constraints, merge, resolve, subschemas, target_of

_MAX_LENGTH = 2000
_MAX_BRANCHES = 24
_MAX_DEPTH = 60
MAX_PARTS = 20_000
"""Parts of a normal form, at most: where keywords beside a `$ref` multiply it, there may be no end of them."""
_MAX_PLACES = 100
_ANY = ("string", "number", "boolean", "null", "array", "object")
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TYPE_BY_KEYWORD: Mapping[str, str] = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties"), "object"),
    **dict.fromkeys(("propertyNames", "minProperties", "maxProperties", "unevaluatedProperties"), "object"),
    **dict.fromkeys(("dependentRequired", "dependentSchemas"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("unevaluatedItems", "minContains", "maxContains"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys((*_NUMBER_BOUNDS, "multipleOf"), "number"),
}
_ONLY_CHECKED_HERE: Mapping[str, tuple[Any, ...]] = {
    "not": (False,), "dependentRequired": ({},), "dependentSchemas": ({},), "contains": (), "uniqueItems": (False,),
    "multipleOf": (), "minProperties": (0,), "maxProperties": (), "patternProperties": ({},),
    "unevaluatedProperties": (True, {}), "unevaluatedItems": (True, {}), "$dynamicRef": (), "$recursiveRef": (),
}  # fmt: skip
"""Keywords that no decoder is told, each with the values that ask for nothing."""


@dataclass(frozen=True, slots=True)
class SchemaSupport:
    """What one kind of decoder supports of JSON Schema beyond the common ground."""

    formats: frozenset[str] = frozenset()
    """Formats that it knows itself; others become patterns."""
    number_bounds: bool = False
    """Whether `minimum` and its like work on numbers that are not whole."""
    multiples: bool = False
    """Whether it knows `multipleOf`."""
    integer_limit: int = 0
    """Bound of integers without bounds, against endless digits of a weak model; 0: none."""
    descriptions: bool = False
    """Whether it reads descriptions (the model sees the schema)."""
    escapes: bool = False
    """Whether patterns are about the JSON text, so that `"` is written with its backslash."""
    closes: bool = False
    """Whether objects that list their properties have to be closed."""


@dataclass(frozen=True, slots=True)
class NormalizedSchema:
    """A schema in normal form, and the keywords of the original that it does not say as they are."""

    schema: Schema
    unenforced: tuple[str, ...] = ()
    """Those that are left to the check here: the normal form allows more."""
    narrowed: tuple[str, ...] = ()
    """Those of which the normal form allows less."""


def normalize(schema: Schema, support: SchemaSupport, *, of_type: bool = False) -> NormalizedSchema:
    """Return the normal form of a schema for a kind of decoder.

    `of_type` is whether it is that of a Python type: the properties that it lists are then all that
    count, and what is narrower is no news.

    References stay references, also of a schema that holds itself; where other keywords beside a `$ref` constrain what
    it names, that is written out once, and referred to from then on.

    Raises
    ------
    OutputTypeError
        No value fits the schema.
    UnsupportedError
        The normal form would have more than `MAX_PARTS` parts.

    """
    empty: set[str] = set()
    while True:
        normalizer = _Normalizer(schema, support, draft_of(schema) or LATEST, of_type, frozenset(empty))
        root = normalizer.whole()
        if normalizer.found_empty <= empty:
            break
        empty |= normalizer.found_empty  # references were written that nothing fits: now they are known
    if root is None:
        where, reason = normalizer.contradictions[0]
        raise OutputTypeError(f"No value fits the schema{f', at {where}' if where else ''}: {reason}.")
    narrowed = () if of_type else tuple(sorted(normalizer.narrowed))
    return NormalizedSchema(root, tuple(sorted(normalizer.unenforced)), narrowed)


_Path = tuple[str, ...]


@dataclass
class _Normalizer:
    root: Schema
    support: SchemaSupport
    draft: Draft
    of_type: bool
    empty: frozenset[str]
    """References that lead to what nothing fits."""
    definitions: dict[str, Schema] = field(default_factory=dict)
    unenforced: set[str] = field(default_factory=set)
    narrowed: set[str] = field(default_factory=set)
    contradictions: list[tuple[str, str]] = field(default_factory=list)
    found_empty: set[str] = field(default_factory=set)
    _names: dict[str, str] = field(default_factory=dict)  # of the definitions, by reference, or by what is merged
    _merges: dict[str, Schema | None] = field(default_factory=dict)  # what was merged, None while it is being written
    _waiting: list[tuple[str, Any]] = field(default_factory=list)  # references whose definition is not written yet
    _parts: int = 0

    def __post_init__(self) -> None:
        key = "id" if self.draft == "4" else "$id"
        nested = (each for each in subschemas(self.root) if each is not self.root and isinstance(each.get(key), str))
        if any("$ref" in part for each in nested for part in subschemas(each)):
            self.unenforced.add("$ref")  # such a one counts from that place; the check here knows

    def whole(self) -> Schema | None:
        """Write the root, and the definitions that are referred to."""
        root = self.node(self.root)
        while self._waiting:
            reference, target = self._waiting.pop(0)
            written = self.node(target, (reference,))
            if written is None:
                self.found_empty.add(reference)
            self.definitions[self._names[reference]] = written or {}
        if root is not None and "$ref" in root:
            root = dict(resolve(root, {"$defs": self.definitions}))
        if root is not None and self.definitions:
            root["$defs"] = self.definitions
        return root

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise UnsupportedError(
                f"The schema stands for more than {MAX_PARTS:,} parts once its references are written out.",
                "Keep a $ref alone, with no constraint beside it; what it names can say it.",
            )

    def node(self, schema: Any, path: _Path = ()) -> Schema | None:
        """Write one schema; None: nothing fits it."""
        self._count()
        if schema is False:
            return self._nothing(path, "it is false")
        if not isinstance(schema, dict):
            return _anything()
        if len(path) > _MAX_DEPTH:
            self.unenforced.add(f"what lies deeper than {_MAX_DEPTH} levels")
            return _anything()
        leaves = self._leaves(schema)
        if len(leaves) == 1 and leaves[0].keys() == {"$ref"}:
            return self._reference(leaves[0]["$ref"])
        if any("$ref" in leaf for leaf in leaves):
            return self._merge(schema, leaves, path)
        return self._written(schema, path)

    def _said(self, schema: Schema) -> Schema:
        """Return what one schema says about values, in the words of 2020-12."""
        said = constraints(modern(schema, self.draft))
        return said if isinstance(said.get("$ref", ""), str) else {}

    def _leaves(self, schema: Schema) -> list[Schema]:
        """Return what a schema says in its own words and in the parts of `allOf`, references not followed."""
        leaves: list[Schema] = []
        parts: list[Any] = [schema]
        for part in parts:  # extended while it is walked
            if isinstance(part, dict):
                said = self._said(part)
                parts += said.pop("allOf", ())
                if said and said not in leaves:
                    leaves.append(said)
            elif part is False:
                leaves.append({"enum": []})
        return leaves

    def _nothing(self, path: _Path, reason: str) -> Schema | None:
        self.contradictions.append((".".join(path), reason))
        return None

    def _written(self, schema: Schema, path: _Path) -> Schema | None:
        flat = self._flat(schema, path)
        written = None if flat is None else self._flat_node(flat, path)
        if written is not None and "$ref" not in written and self.support.descriptions:
            written |= {"description": schema["description"]} if isinstance(schema.get("description"), str) else {}
        return written

    def _reference(self, reference: str) -> Schema | None:
        target = target_of(reference, self.root)
        if target is None:
            self.unenforced.add("$ref")
            return _anything()
        if reference in self.empty:
            return self._nothing((reference,), "nothing fits what it names")
        if reference not in self._names:
            self._names[reference] = self._new_name(reference)
            self._waiting.append((reference, target))
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _new_name(self, reference: str) -> str:
        """Return a name for a definition, and take it."""
        base = re.sub(r"[^A-Za-z0-9]+", "-", reference.rsplit("/", 1)[-1]).strip("-") or "root"
        names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in self.definitions)
        self.definitions[name] = {}
        return name

    def _merge(self, schema: Schema, leaves: list[Schema], path: _Path) -> Schema | None:
        """Write what references and keywords beside them say together; the second time, refer to it."""
        key = json.dumps(sorted(json.dumps(leaf, sort_keys=True) for leaf in leaves))
        if key in self.empty:
            return self._nothing(path, "nothing fits all of its parts")
        if key not in self._merges:
            self._merges[key] = None
            written = self._merges[key] = self._written(schema, path)
            if written is None:
                self.found_empty.add(key)
            if key not in self._names:
                return written
            self.definitions[self._names[key]] = written or {}
        elif key not in self._names:
            named = next(leaf["$ref"] for leaf in leaves if "$ref" in leaf)
            name = self._names[key] = self._new_name(str(named))
            self.definitions[name] = dict(self._merges[key] or {})  # empty while it is being written, one floor above
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _flat(self, schema: Schema, path: _Path) -> Schema | None:
        """Return a schema with what its own `$ref`, `allOf` and `if` name merged in."""
        flat: Schema = {}
        waiting: list[Any] = [schema]
        seen: set[str] = set()
        conditions: list[tuple[Schema, Any, Any]] = []
        while waiting:
            part = waiting.pop(0)
            if part is False:
                return self._nothing(path, "it is false")
            if not isinstance(part, dict):
                continue
            self._count()
            part = self._said(part)
            named = part.pop("$ref", None)
            if isinstance(named, str) and named not in seen:
                seen.add(named)
                target = target_of(named, self.root)
                if target is None:
                    self.unenforced.add("$ref")
                waiting.insert(0, target)
            waiting += part.pop("allOf", ())
            condition, then, otherwise = part.pop("if", None), part.pop("then", True), part.pop("else", True)
            if isinstance(condition, dict):
                conditions.append((condition, then, otherwise))
            elif condition is not None:
                waiting.append(then if condition else otherwise)
            merged = self._merged(flat, _listed(part), path)
            if merged is None:
                return None
            flat = merged
        for condition, then, otherwise in conditions:
            self.unenforced.add("if")
            ways = [{"allOf": [condition, then]}, {"allOf": [self._opposite(condition, flat), otherwise]}]
            merged = self._merged(flat, {"anyOf": ways}, path)
            if merged is None:
                return None
            flat = merged
        return flat

    def _opposite(self, condition: Schema, flat: Schema) -> Schema:
        """Return what does not meet a condition on one property with listed values; or anything."""
        tested = condition.get("properties")
        if not isinstance(tested, dict) or len(tested) != 1 or condition.keys() - {"properties", "required", "type"}:
            return {}
        ((name, test),) = tested.items()
        known = flat.get("properties", {}).get(name)
        if not (isinstance(test, dict) and isinstance(known, dict)) or "required" in condition:
            return {}
        met = _listed(test).get("enum", [])
        known = self._flat(known, (name,)) or {}
        rest = [value for value in known.get("enum", ()) if value not in met]
        return {"properties": {name: {"enum": rest}}, "required": [name]} if rest and met else {}

    def _merged(self, one: Schema, other: Schema, path: _Path) -> Schema | None:
        """Merge two schemas; where both have alternatives, the pairs are the alternatives."""
        result = merge(one, other, self.unenforced)
        if result is None:
            return self._nothing(path, "its parts have no type, or no listed value, in common")
        for key in ("anyOf", "oneOf"):
            if key in one and key in other:
                pairs = [{"allOf": [left, right]} for left in one[key] for right in other[key]]
                if len(pairs) <= _MAX_BRANCHES:
                    result[key] = pairs
                else:
                    self.unenforced.add(key)
        return result

    def _flat_node(self, flat: Schema, path: _Path) -> Schema | None:
        self.unenforced.update(key for key, idle in _ONLY_CHECKED_HERE.items() if self._is_untold(key, flat, idle))
        for key in ("anyOf", "oneOf"):
            if key in flat:
                return self._alternatives(flat, key, path)
        if "enum" in flat:
            return self._enumeration(flat, path)
        said = flat.get("type")
        kinds = [said] if isinstance(said, str) else said
        if kinds is None:
            kinds = list(dict.fromkeys(kind for key, kind in _TYPE_BY_KEYWORD.items() if self._implies(key, flat)))
            self.narrowed |= {"type"} if kinds else set()
        kinds = kinds or _ANY
        distinct = dict.fromkeys("number" if kind == "integer" and "number" in kinds else kind for kind in kinds)
        written = [each for kind in distinct if (each := self._typed(kind, flat, path)) is not None]
        if not written:
            return None
        return written[0] if len(written) == 1 else {"anyOf": written}

    def _is_untold(self, key: str, flat: Schema, idle: tuple[Any, ...]) -> bool:
        if key not in flat or flat[key] in idle or (key == "maxProperties" and flat[key] == 0):
            return False
        return not (key == "multipleOf" and self.support.multiples)

    def _implies(self, key: str, flat: Schema) -> bool:
        """Tell whether a keyword is there, and says something about values of its type."""
        return key in flat and (key != "format" or flat[key] in CHECKED)

    def _alternatives(self, flat: Schema, key: str, path: _Path) -> Schema | None:
        base = {name: value for name, value in flat.items() if name != key}
        if key == "oneOf" and not self._disjoint(flat[key]):
            self.unenforced.add(key)
        written = [
            self.node({"allOf": [base, way]} if base else way, (*path, f"{key}[{at}]"))
            for at, way in enumerate(flat[key])
        ]
        unique = list({json.dumps(way, sort_keys=True): way for way in written if way is not None}.values())
        if not unique:
            return self._nothing(path, f"none of its {key} can be met")
        return unique[0] if len(unique) == 1 else {"anyOf": unique}

    def _disjoint(self, ways: list[Any]) -> bool:
        """Tell whether no value can fit two of these, as far as types and listed values show it."""
        shapes = [self._shape(way) for way in ways]
        return all(
            any(not one[key] & other[key] for key in one.keys() & other.keys())
            for one, other in itertools.combinations(shapes, 2)
        )

    def _shape(self, way: Any) -> dict[str, frozenset[str]]:
        """Return the types, the listed values, and those of required members, of what fits a schema."""
        known, contradictions = set(self.unenforced), list(self.contradictions)
        flat = self._flat(way, ()) if isinstance(way, dict) else None
        self.unenforced, self.contradictions = known, contradictions
        if flat is None:
            return {}
        shape = {key: frozenset(values) for key, values in _facts(flat)}
        if flat.get("type") == "object":
            for name in flat.get("required", ()):
                part = flat.get("properties", {}).get(name)
                inner = _listed(self._said(part)) if isinstance(part, dict) else {}
                shape |= {f"{name}.{key}": frozenset(values) for key, values in _facts(inner)}
        return shape

    def _enumeration(self, flat: Schema, path: _Path) -> Schema | None:
        """Write a schema that lists its values: those that its other keywords allow, too."""
        checks = {key: value for key, value in flat.items() if key in _OF_SCALARS}
        if checks.get("format") not in CHECKED:
            checks.pop("format", None)
        values = [value for value in flat["enum"] if not checks or _fits(value, checks)]
        if not values:
            return self._nothing(path, f"none of the values it lists is allowed by its {', '.join(checks)}")
        if any(isinstance(value, (dict, list)) for value in values):
            self.unenforced.update(key for key in flat if _TYPE_BY_KEYWORD.get(key) in ("object", "array"))
        types = {type_of(value) for value in values}
        return {"type": types.pop(), "enum": values} if len(types) == 1 else {"enum": values}

    def _typed(self, kind: str, flat: Schema, path: _Path) -> Schema | None:
        if kind == "object":
            return self._object(flat, path)
        if kind == "array":
            return self._array(flat, path)
        if kind == "string":
            return self._string(flat, path)
        multiple = {"multipleOf": flat["multipleOf"]} if "multipleOf" in flat and self.support.multiples else {}
        if kind == "integer":
            bounds = _integer_bounds(flat, self.support.integer_limit)
            if bounds.get("minimum", -math.inf) > bounds.get("maximum", math.inf):
                return self._nothing(path, "no whole number lies within its bounds")
            return {"type": kind, **bounds, **multiple}
        bounds = {key: flat[key] for key in _NUMBER_BOUNDS if key in flat} if kind == "number" else {}
        if self.support.number_bounds:
            return {"type": kind, **bounds, **(multiple if kind == "number" else {})}
        self.unenforced.update(bounds)
        return {"type": kind}

    def _string(self, flat: Schema, path: _Path) -> Schema | None:
        low = int(flat.get("minLength") or 0)
        high = int(flat["maxLength"]) if isinstance(flat.get("maxLength"), (int, float)) else None
        if high is not None and high < low:
            return self._nothing(path, "minLength is more than maxLength")
        name, pattern = flat.get("format"), flat.get("pattern")
        if isinstance(name, str) and (pattern is not None or name not in self.support.formats):
            if pattern is None and name in PATTERNS:
                pattern = PATTERNS[name]
            elif name in CHECKED:
                self.unenforced.add("format")
        elif isinstance(name, str):
            return {"type": "string", "format": name, **self._lengths(low, high)}
        plain = self._pattern(pattern, low, high) if isinstance(pattern, str) else None
        return {"type": "string", **({"pattern": plain} if plain is not None else self._lengths(low, high))}

    def _lengths(self, low: int, high: int | None) -> Schema:
        """Return the bounds of a length, as far as a decoder counts."""
        self.unenforced |= {"minLength"} if low > _MAX_LENGTH else set()
        self.unenforced |= {"maxLength"} if high is not None and high > _MAX_LENGTH else set()
        least = {"minLength": low} if 0 < low <= _MAX_LENGTH else {}
        return least | ({"maxLength": high} if high is not None and high <= _MAX_LENGTH else {})

    def _pattern(self, pattern: str, low: int, high: int | None) -> str | None:
        """Return a pattern in plain notation, anchored; None where it cannot be said."""
        try:
            node = read_regex(pattern, search=True)
            if isinstance(node, Repeat) and isinstance(node.part, Chars):
                most = min((limit for limit in (high, node.high) if limit is not None), default=None)
                if most is None or max(low, node.low) <= most:
                    node = Repeat(node.part, max(low, node.low), most)
            least, longest = width(node)
            if least < low:
                self.unenforced.add("minLength")
            if high is not None and longest > high:
                self.unenforced.add("maxLength")
            if _loses_quotes(node):
                self.narrowed.add("pattern")
            return f"^({to_regex(in_json(node, escapes=self.support.escapes))})$"
        except UnsupportedError:
            self.unenforced.add("pattern")
            return None

    def _object(self, flat: Schema, path: _Path) -> Schema | None:
        rest, names = flat.get("additionalProperties", True), flat.get("propertyNames", True)
        patterns: Schema = flat.get("patternProperties", {})
        said: Schema = dict(flat.get("properties", {}))
        required: list[str] = list(flat.get("required", ()))
        if names is False or flat.get("maxProperties") == 0:
            said, patterns, rest = dict.fromkeys(said, False), {}, False
        elif isinstance(names, dict):
            names = self._said(names)
            allowed = _listed(names).get("enum")
            if isinstance(allowed, list) and not said and not patterns:
                said, rest = {key: rest for key in allowed if isinstance(key, str) and rest is not False}, False
            elif names.keys() - {"type"} or names.get("type", "string") != "string":
                self.unenforced.add("propertyNames")
        if (left := flat.get("unevaluatedProperties", True)) is not True and rest is True:
            rest = left
        for key in required:
            if key not in said:
                fitting = [value for pattern, value in patterns.items() if _fits(key, {"pattern": pattern})]
                said[key] = {"allOf": fitting} if fitting else rest
        if not said and patterns:
            rest = {"anyOf": [*patterns.values(), *(() if rest in (True, False) else (rest,))]}
        return self._members(said, required, rest, path)

    def _members(self, said: Schema, required: list[str], rest: Any, path: _Path) -> Schema | None:
        """Write an object of the members `said`, and of any others that fit `rest`."""
        properties = {key: self.node(value, (*path, key)) for key, value in said.items()}
        missing = next((key for key in required if properties[key] is None), None)
        if missing is not None:
            return self._nothing(path, f"it requires {missing!r}, which can have no value")
        written: Schema = {"type": "object"}
        others = self.node(rest, path) if isinstance(rest, dict) and rest else None
        is_open = rest is True or rest == {}
        if any(value is None for value in properties.values()) and (is_open or others):
            self.unenforced.add("properties")
        properties = {key: value for key, value in properties.items() if value is not None}
        if properties or not (is_open or others):
            written["properties"] = properties
        if properties:
            written["required"] = required
        if others is not None:
            written["additionalProperties"] = others
        elif "properties" in written and (not is_open or self.of_type or self.support.closes):
            written["additionalProperties"] = False
            self.narrowed |= {"additionalProperties"} if is_open else set()
        return written

    def _array(self, flat: Schema, path: _Path) -> Schema | None:
        items, prefix = flat.get("items", True), flat.get("prefixItems") or []
        if prefix and items is True and flat.get("unevaluatedItems", True) is not True:
            items = flat["unevaluatedItems"]
        low = int(flat.get("minItems", 0))
        high = int(flat["maxItems"]) if "maxItems" in flat else None
        if high is not None and low > high:
            return self._nothing(path, "minItems is more than maxItems")
        if prefix:
            return self._places(prefix, items, low, high, path)
        bounds: Schema = {key: int(flat[key]) for key in ("minItems", "maxItems") if key in flat}
        inner = self.node(items, (*path, "[]"))
        if inner is None:
            nothing = {"type": "array", "items": {"type": "null"}, "maxItems": 0}
            return nothing if not low else self._nothing(path, "it needs items, and none is allowed")
        written: Schema = {"type": "array", "items": inner, **bounds}
        flat_items = self._flat(items, path) if isinstance(items, dict) else None
        values = (flat_items or {}).get("enum")
        if flat.get("uniqueItems") and isinstance(values, list):
            written["maxItems"] = min(bounds.get("maxItems", len(values)), len(values))
            if low > len(values):
                return self._nothing(path, "it needs more different items than there are")
        return written

    def _places(self, prefix: list[Any], rest: Any, low: int, high: int | None, path: _Path) -> Schema | None:
        """Write an array of fixed places, which is all that decoders know beside one schema for all items."""
        length = max(len(prefix), min(low, _MAX_PLACES))
        length = length if high is None else min(length, high)
        first: list[Schema] = []
        for at, place in enumerate([*prefix, *[rest] * length][:length]):
            written = self.node(place, (*path, f"[{at}]"))
            if written is None:
                break
            first.append(written)
        if len(first) < low:
            if low > _MAX_PLACES:
                self.unenforced.add("minItems")
            else:
                return self._nothing(path, "it needs more items than are allowed")
        if low < len(first) or (rest is not False and (high is None or high > len(first))):
            self.narrowed.add("prefixItems")
        if not first:
            return {"type": "array", "items": {"type": "null"}, "maxItems": 0}
        return {"type": "array", "prefixItems": first, "minItems": len(first), "maxItems": len(first)}


def _loses_quotes(node: Node) -> bool:
    """Tell whether a pattern allows quotes or backslashes that a JSON string would have to escape, among others."""
    if isinstance(node, Chars):
        return len(node.ranges) > 1 and any(low <= code <= high for low, high in node.ranges for code in (34, 92))
    return any(map(_loses_quotes, [node.part] if isinstance(node, Repeat) else node.parts))


def _anything() -> Schema:
    return {"anyOf": [{"type": kind} for kind in _ANY]}


def _listed(schema: Schema) -> Schema:
    """Return a schema whose `const` is an enumeration of one value."""
    if "const" not in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key != "const"}
    return merge(rest, {"enum": [schema["const"]]}, set()) or {**rest, "enum": []}


def _facts(flat: Schema) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the types and the listed values of a schema, where it says them."""
    said = flat.get("type")
    if said is not None:
        kinds = {said} if isinstance(said, str) else set(said)
        yield "type", iter(kinds | ({"integer"} if "number" in kinds else set()))
    if "enum" in flat:
        yield "enum", map(canonical, flat["enum"])


def _fits(value: Any, schema: Schema) -> bool:
    try:
        validator(json.dumps(schema))(value)
    except InvalidValueError:
        return False
    return True


_OF_SCALARS = frozenset(("type", "pattern", "format", "minLength", "maxLength", "multipleOf", *_NUMBER_BOUNDS))


def type_of(value: Any) -> str:
    """Return JSON Schema's name for the type of a JSON value."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _integer_bounds(schema: Schema, limit: int) -> Schema:
    """Return `minimum` and `maximum` of whole numbers for bounds of any kind.

    >>> _integer_bounds({"exclusiveMinimum": 0, "maximum": 9.5}, 0)
    {'minimum': 1, 'maximum': 9}

    """
    low, high, above, below = (schema.get(key) for key in _NUMBER_BOUNDS)
    lows = [*map(math.ceil, _numbers(low)), *(math.floor(above) + 1 for above in _numbers(above))]
    highs = [*map(math.floor, _numbers(high)), *(math.ceil(below) - 1 for below in _numbers(below))]
    bounds = ({"minimum": max(lows)} if lows else {}) | ({"maximum": min(highs)} if highs else {})
    if limit and bounds.get("minimum", 0) < limit and bounds.get("maximum", 0) > -limit:
        return {"minimum": -limit, "maximum": limit} | bounds
    return bounds


def _numbers(value: Any) -> list[float]:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
