"""Random texts of a grammar and values of a schema in normal form: what a decoder so constrained may write."""

from __future__ import annotations

import json
import random
from typing import Any

from llm_magic.output.grammar import Grammar
from llm_magic.output.grammar.regex import read_regex
from llm_magic.output.grammar.regex_to_gbnf import to_gbnf


def text_of(grammar: Grammar, rng: random.Random, budget: int = 60) -> str:
    """A text that the grammar accepts; past the budget the shortest way is taken."""
    rules = grammar._rules
    costs = [10**6] * len(rules)
    changed = True
    while changed:
        changed = False
        for number, rule in enumerate(rules):
            cheapest = min(1 + sum(costs[i] if isinstance(i, int) else 1 for i in way) for way in rule)
            if cheapest < costs[number]:
                costs[number], changed = cheapest, True
    stack: list[Any] = [grammar._root]
    written: list[str] = []
    while stack:
        item = stack.pop()
        if isinstance(item, int):
            ways = rules[item]
            if len(written) + len(stack) > budget:
                ways = [min(ways, key=lambda way: sum(costs[i] if isinstance(i, int) else 1 for i in way))]
            stack.extend(reversed(rng.choice(ways)))
        else:
            low, high = rng.choice(item)
            written.append(chr(rng.randint(low, min(high, low + 500))))
    return "".join(written)


def value_of(schema: dict[str, Any], root: dict[str, Any], rng: random.Random, depth: int = 0) -> Any:
    """A value that a schema in normal form allows."""
    if "$ref" in schema:
        return value_of(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, rng, depth + 1)
    if "anyOf" in schema:
        ways = schema["anyOf"]
        if depth > 6:
            ways = [way for way in ways if way.get("type") in ("null", "string", "integer")] or ways
        return value_of(rng.choice(ways), root, rng, depth + 1)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        return _object(schema, root, rng, depth)
    if kind == "array":
        if "items" not in schema and "prefixItems" not in schema:
            return []
        if "prefixItems" in schema:
            return [value_of(each, root, rng, depth + 1) for each in schema["prefixItems"]]
        low = schema.get("minItems", 0)
        high = low if depth > 4 else min(schema.get("maxItems", low + 2), low + 2)
        return [value_of(schema["items"], root, rng, depth + 1) for _ in range(rng.randint(low, max(low, high)))]
    if kind == "string":
        return _string(schema, rng)
    if kind == "integer":
        low, high = schema.get("minimum", -1000), schema.get("maximum", 1000)
        return rng.randint(min(low, high), max(low, high))
    return {"boolean": rng.random() < 0.5, "null": None, "number": round(rng.uniform(-9, 9), 3)}[kind]


def _object(schema: dict[str, Any], root: dict[str, Any], rng: random.Random, depth: int) -> dict[str, Any]:
    value = {}
    for name, each in schema.get("properties", {}).items():
        if name in schema.get("required", ()) or (depth < 4 and rng.random() < 0.5):
            value[name] = value_of(each, root, rng, depth + 1)
    rest = schema.get("additionalProperties")
    if isinstance(rest, dict) and depth < 4:
        value[f"key{rng.randint(1, 9)}"] = value_of(rest, root, rng, depth + 1)
    return value


def _string(schema: dict[str, Any], rng: random.Random) -> str:
    if "pattern" in schema:
        inside = text_of(Grammar(f"root ::= {to_gbnf(read_regex(schema['pattern']))}"), rng)
        return str(json.loads(f'"{inside}"'))  # llama.cpp's patterns are about the JSON text
    if schema.get("format") == "uuid":
        return "123e4567-e89b-12d3-a456-426614174000"
    low = schema.get("minLength", 0)
    return "x" * rng.randint(low, max(low, min(schema.get("maxLength", low + 5), low + 5)))
