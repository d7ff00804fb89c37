"""No constraint grows without bound, and no answer keeps the check of it busy for ever: parts are counted, not seconds.

Each test that could hang on a version without bounds runs in a process of its own, which is stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Annotated, Any, Literal

import pydantic
import pytest

from llm_magic.capabilities import Capabilities
from llm_magic.errors import InvalidValueError, LLMError, OutputTypeError, UnsupportedError
from llm_magic.output.dialects import LLAMA, VLLM, WRITERS, apply
from llm_magic.output.grammar import Grammar
from llm_magic.output.grammar.regex_to_gbnf import matches
from llm_magic.output.json_text import PartialJSON
from llm_magic.output.schema.normalize import MAX_PARTS, normalize
from llm_magic.output.schema.strict import SUPPORT, strict
from llm_magic.output.spec import spec_from
from llm_magic.tools import describe

JSON_DIALECTS = [dialect for dialect, kind in WRITERS if kind == "json"]
SUPPORTS = {"openai": SUPPORT, "llama": LLAMA, "vllm": VLLM}


class Extra(pydantic.BaseModel):
    name: str
    left: Extra | None = pydantic.Field(None, json_schema_extra={"x-order": 1})
    right: Extra = pydantic.Field(None, json_schema_extra={"x-order": 2})
    others: list[Annotated[Extra, pydantic.Field(json_schema_extra={"x-order": 3})]] = []


class Described(pydantic.BaseModel):
    """A node."""

    below: list[Described] = pydantic.Field([], title="Below", description="what hangs on it", examples=[[]])
    first: Described | None = pydantic.Field(None, description="the first", json_schema_extra={"nullable": True})


class Husband(pydantic.BaseModel):
    wife: Wife | None = pydantic.Field(None, json_schema_extra={"x": 1})


class Wife(pydantic.BaseModel):
    husband: Husband | None = pydantic.Field(None, json_schema_extra={"x": 1})
    lovers: list[Husband | Wife] = []


def node(**sibling: Any) -> dict[str, Any]:
    """Return the schema of a tree, each branch of which is a `$ref` with siblings."""
    branch = {"$ref": "#/$defs/Node", **sibling}
    properties = {"name": {"type": "string"}, "left": branch, "right": branch, "middle": branch}
    return {
        "$ref": "#/$defs/Node",
        "$defs": {"Node": {"type": "object", "properties": properties, "required": ["name"]}},
    }


def all_of(*more: Any) -> dict[str, Any]:
    schema = node()
    properties = schema["$defs"]["Node"]["properties"]
    for key in ("left", "right", "middle"):
        properties[key] = {"allOf": [{"$ref": "#/$defs/Node"}, *more]}
    return schema


RECURSIVE: dict[str, dict[str, Any]] = {
    "annotations": node(title="T", description="d", default=None, examples=[1], deprecated=True, **{"$comment": "c"}),
    "a vendor's keyword": node(**{"x-order": 3, "nullable": True, "discriminator": {"propertyName": "name"}}),
    "allOf alone": all_of(),
    "allOf with a constraint": all_of({"minProperties": 1}),
    "allOf twice": all_of({"$ref": "#/$defs/Node"}),
    "constraint beside it": node(required=["name", "left"]),
    "properties beside it": node(properties={"more": {"$ref": "#/$defs/Node"}}),
    "anyOf beside it": node(anyOf=[{"required": ["left"]}, {"required": ["right"]}]),
    "anyOf of references": {
        "$ref": "#/$defs/N",
        "$defs": {
            "N": {
                "type": "object",
                "properties": {"n": {"anyOf": [{"$ref": "#/$defs/N"}, {"$ref": "#/$defs/M"}], "title": "N"}},
            },
            "M": {"type": "object", "properties": {"m": {"allOf": [{"$ref": "#/$defs/N"}], "nullable": True}}},
        },
    },
    "growing at each turn": {
        "$ref": "#/$defs/A",
        "$defs": {
            "A": {
                "type": "object",
                "properties": {
                    "x": {"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"x": {"$ref": "#/$defs/B"}}}]},
                    "y": {"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"y": {"$ref": "#/$defs/B"}}}]},
                },
            },
            "B": {"type": "object", "properties": {"x": {"$ref": "#/$defs/A", "minProperties": 1}}},
        },
    },
    "by an anchor": {
        "$ref": "#node",
        "$defs": {"N": {"$anchor": "node", "type": "object", "properties": {"n": {"$ref": "#node", "minItems": 0}}}},
    },
    "of the whole document": {
        "$id": "https://example.org/tree", "type": "object", "properties": {"n": {"$ref": "#", "x": 1}},
    },
}  # fmt: skip


def laughs(levels: int, keyword: str = "anyOf") -> dict[str, Any]:
    """Return a schema without recursion: two references a level."""
    definitions: dict[str, Any] = {f"d{levels}": {"type": "integer"}}
    for level in range(levels):
        definitions[f"d{level}"] = {keyword: [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def wide(levels: int, **sibling: Any) -> dict[str, Any]:
    """Return a schema of 2 ** `levels` leaves."""
    definitions: dict[str, Any] = {f"d{levels}": {"type": "integer"}}
    for level in range(levels):
        below = {"$ref": f"#/$defs/d{level + 1}", **sibling}
        definitions[f"d{level}"] = {"type": "object", "properties": {"a": below, "b": below}}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def size(schema: Any) -> int:
    return len(json.dumps(schema))


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("name", RECURSIVE)
def test_the_normal_form_of_a_recursive_schema_is_small_and_recursive(name: str, support: str) -> None:
    plain = normalize(RECURSIVE[name], SUPPORTS[support])
    assert size(plain.schema) < 40 * size(RECURSIVE[name])
    assert '"$ref"' in json.dumps(plain.schema)
    assert "$ref" not in plain.unenforced
    assert not any("deeper" in each for each in plain.unenforced)


@pytest.mark.parametrize("name", ["annotations", "a vendor's keyword", "allOf alone"])
def test_a_reference_that_nothing_constrains_stays_one(name: str) -> None:
    plain = normalize(RECURSIVE[name], VLLM).schema
    assert plain["properties"]["left"] == {"$ref": "#/$defs/Node"}
    assert list(plain["$defs"]) == ["Node"]


def test_what_is_constrained_beside_a_reference_is_written_once() -> None:
    plain = normalize(RECURSIVE["constraint beside it"], VLLM).schema
    written = json.dumps(plain)
    assert plain["required"] == ["name"]
    assert written.count('["name", "left"]') <= 2
    inner = plain["properties"]["left"]
    while "$ref" in inner:
        inner = plain["$defs"][inner["$ref"].removeprefix("#/$defs/")]
    assert inner["required"] == ["name", "left"]


@pytest.mark.parametrize("dialect", JSON_DIALECTS)
@pytest.mark.parametrize("kind", [Extra, Described, Husband, list[Extra], dict[str, Wife], Extra | int])
def test_recursive_types_in_each_dialect(dialect: Any, kind: Any) -> None:
    spec = spec_from(kind)
    assert spec is not None
    for api in ("chat", "responses"):
        structure = apply(spec, Capabilities(api=api, dialects={"json": dialect}, strict_tools=True))
        assert size([*structure.fields.values(), *(tool.parameters for tool in structure.tools)]) < 20_000


@pytest.mark.parametrize("dialect", JSON_DIALECTS)
@pytest.mark.parametrize("name", RECURSIVE)
def test_recursive_schemas_in_each_dialect(dialect: Any, name: str, tmp_path: Any) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(RECURSIVE[name]), encoding="utf-8")
    for source in (RECURSIVE[name], str(path)):
        structure = apply(spec_from(schema=source), Capabilities(dialects={"json": dialect}))
        assert size([*structure.fields.values(), *(tool.parameters for tool in structure.tools)]) < 40_000


def test_a_recursive_type_is_strict_and_its_value_is_parsed() -> None:
    closed = strict(spec_from(Described).schema)  # type: ignore[union-attr]
    assert closed.reason == ""
    assert closed.schema is not None
    value = spec_from(Extra).parse('{"name": "a", "left": {"name": "b", "left": null, "right": null}}')  # type: ignore[union-attr]
    assert value.left.name == "b"


def test_the_parameters_of_a_tool_may_be_recursive() -> None:
    def plant(tree: Extra, other: Wife) -> str:
        """Plant it."""
        return tree.name

    tool = describe(plant)
    assert size(tool.tool.parameters) < 10_000
    assert tool.arguments('{"tree": {"name": "a"}, "other": {}}')["tree"].name == "a"


@pytest.mark.parametrize("support", SUPPORTS)
def test_exponentially_many_references_stay_references(support: str) -> None:
    for schema in (wide(30), wide(30, **{"x-order": 1}), laughs(30, "allOf"), wide(30, minProperties=0)):
        assert size(normalize(schema, SUPPORTS[support]).schema) < 40 * size(schema)


def test_a_form_that_would_grow_without_end_is_an_error() -> None:
    names = [f"p{at}" for at in range(16)]
    definitions: dict[str, Any] = {  # each step down adds one of 16 constraints to those that hold already: 2 ** 16
        name: {"minProperties": at, "properties": {each: {"$ref": f"#/$defs/{name}"} for each in names}}
        for at, name in enumerate(names)
    }
    below = {name: {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": f"#/$defs/{name}"}]} for name in names}
    schema = {"$ref": "#/$defs/A", "$defs": {**definitions, "A": {"type": "object", "properties": below}}}
    message = f"The schema stands for more than {MAX_PARTS:,} parts once its references are written out."
    with pytest.raises(UnsupportedError) as caught:
        apply(spec_from(schema=schema), Capabilities(dialects={"json": "structured_outputs"}))
    assert caught.value.message == message
    assert "$ref" in caught.value.hint
    structure = apply(spec_from(schema=schema), Capabilities(dialects={"json": "json_schema"}))
    assert structure.fields["response_format"]["json_schema"]["strict"] is False  # sent as it stands
    assert f"more than {MAX_PARTS:,} parts" in structure.notes[0]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (laughs(30), "branch into more than 100,000 checks of one value"),
        (laughs(30, "oneOf"), "branch into more than 100,000 checks"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "circle: #/$defs/"),
        ({"$ref": "#"}, "in a circle: #"),
        ({"allOf": [{"$ref": "#"}]}, "in a circle"),
        ({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"type": "null"}]}}}, "in a circle"),
        ({"not": {"$ref": "#"}}, "in a circle"),
        ({"$ref": "#/$defs/nowhere"}, "/$defs/nowhere"),
        ({"properties": {"a": {"$ref": "#gone"}}}, "gone"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "http://127.0.0.1:9/x.json"),
        ({"$ref": "file:///etc/hostname"}, "file:///etc/hostname"),
        ({"$ref": "other.json"}, "other.json"),
        ({"properties": {"a": {"$dynamicRef": "http://example.org/x"}}}, "example.org"),
        ({"$id": "http://example.org/a", "$ref": "b"}, "example.org/b"),
    ],
)  # fmt: skip
def test_references_that_lead_nowhere_are_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(OutputTypeError) as caught:
        spec_from(schema=schema)
    assert message in caught.value.message
    assert len(str(caught.value).splitlines()) <= 2


def test_no_reference_is_fetched_or_opened(tmp_path: Any) -> None:
    from servers import ScriptedServer, document

    path = tmp_path / "int.json"
    path.write_text('{"type": "integer"}', encoding="utf-8")
    with ScriptedServer(document({"type": "integer"})) as server:
        for reference in (f"{server.host}/int.json", path.as_uri(), str(path)):
            with pytest.raises(OutputTypeError):
                spec_from(schema={"properties": {"a": {"$ref": reference}}})
    assert (server.requests, server.connections) == ([], 0)


def test_a_long_chain_of_references_is_refused() -> None:
    definitions: dict[str, Any] = {f"d{at}": {"$ref": f"#/$defs/d{at + 1}"} for at in range(3000)}
    with pytest.raises(OutputTypeError, match="chain of more than 200 references"):
        spec_from(schema={"$ref": "#/$defs/d0", "$defs": {**definitions, "d3000": {"type": "integer"}}})


@pytest.mark.parametrize("levels", [100, 300, 900, 10_000])
def test_deep_nesting_is_an_error_or_a_schema(levels: int) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    try:
        structure = apply(spec_from(schema=schema), Capabilities(dialects={"json": "structured_outputs"}))
    except OutputTypeError as error:
        assert levels > 100
        assert "ecursion" in error.message or "nested" in error.message  # noqa: PT017
    else:
        assert structure.notes == (
            "The server is not told about what lies deeper than 60 levels in the schema; the answer is checked here.",
        )


def test_definitions_that_follow_each_other_are_all_said() -> None:
    definitions: dict[str, Any] = {
        f"d{at}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{at + 1}"}}} for at in range(3000)
    }
    plain = normalize({"$ref": "#/$defs/d0", "$defs": {**definitions, "d3000": {"type": "integer"}}}, VLLM)
    assert len(plain.schema["$defs"]) == 3001
    assert plain.schema["$defs"]["d3000"]["type"] == "integer"
    assert plain.unenforced == ()


def test_dynamic_references_are_checked_here() -> None:
    schema = {"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "integer"}}}
    spec = spec_from(schema=schema)
    (note,) = apply(spec, Capabilities(dialects={"json": "structured_outputs"})).notes
    assert "$dynamicRef" in note
    assert spec.parse("3") == 3  # type: ignore[union-attr]
    with pytest.raises(InvalidValueError):
        spec.parse('"x"')  # type: ignore[union-attr]


def test_a_reference_that_a_type_adds_is_an_error_of_the_type() -> None:
    class Odd(pydantic.BaseModel):
        a: int = pydantic.Field(json_schema_extra=lambda schema: schema.update({"$ref": "#/properties/a"}))

    with pytest.raises(OutputTypeError, match="--as Odd: "):
        spec_from(Odd)


# Patterns and grammars


@pytest.mark.parametrize("pattern", ["(a{1,1000}){1,1000}", "((a{100}){100}){100}", "(" * 40 + "a" + "{9})" * 40])
@pytest.mark.parametrize("dialect", ["json_schema", "structured_outputs", "llama_grammar"])
def test_repetitions_of_repetitions_are_counted(pattern: str, dialect: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        apply(spec_from(regex=pattern), Capabilities(dialects={"regex": dialect}))
    assert "parts once its repetitions are written out; at most 20,000" in caught.value.message
    assert len(str(caught.value).splitlines()) == 2


def test_a_pattern_of_a_schema_that_is_too_large_is_only_checked_here() -> None:
    schema = {"type": "string", "pattern": "^((a{1,100}){1,30}){1,10}$"}
    structure = apply(spec_from(schema=schema), Capabilities(dialects={"json": "structured_outputs"}))
    assert structure.fields["structured_outputs"]["json"] == {"type": "string"}
    assert "not told about pattern" in structure.notes[0]


@pytest.mark.parametrize(
    "grammar",
    [
        f'root ::= "{"x" * 10_000}"{{2000}}',
        'root ::= a{2000} b{2000}\na ::= "x"{0,2000}\nb ::= ' + " ".join(['"xyz"{1,2000}'] * 60),
    ],
)
def test_the_repetitions_of_a_grammar_are_counted(grammar: str) -> None:
    with pytest.raises(OutputTypeError, match="more than 200,000"):
        spec_from(grammar=grammar)


def test_an_ambiguous_grammar_does_not_keep_the_check_busy() -> None:
    grammar = Grammar('root ::= s\ns ::= s s s | s s | "a" | ""')
    with pytest.raises(InvalidValueError, match="too ambiguous"):
        grammar.accepts("a" * 5_000)


def test_deep_groups_of_a_grammar_are_an_error() -> None:
    with pytest.raises(OutputTypeError, match="nested too deeply"):
        Grammar("root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000)


def stopped(code: str, seconds: float = 20) -> str:
    """Run code in a process of its own and return what it printed; it fails where it takes too long."""
    run = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(run, capture_output=True, text=True, timeout=seconds, check=True).stdout  # noqa: S603


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a|aa)+", "a" * 5000 + "b"),
        ("(a+)+", "a" * 5000 + "b"),
        ("a*a*a*a*a*b", "a" * 5000),
        (r"(\w+\s?)*", "ab " * 2000 + "!"),
    ],
)
def test_no_text_keeps_a_pattern_busy(pattern: str, text: str) -> None:
    code = f"from llm_magic.output.spec import spec_from\ntry:\n    spec_from(regex={pattern!r}).parse({text!r})\n"
    code += "except Exception as error:\n    print(type(error).__name__)"
    assert stopped(code) == "InvalidValueError\n"


PATTERNS = [
    r"\w+", r"[^\W\d_]{2}", r"(?i:v)\d{1,3}", r".*", r"[\s\S]*", r"\S+", r"a$", r"[a\-\]^&~]+", r"[^a]+", r"(?i)straße",
    r"\D*", r"x{,3}y", r"\W+", r"(a|b|)c", r"[\[\]]+", r"[--/]+", r"[&&a]+", r"(?s).+", r"\x41\u00e9", "(?x) a b # c",
]  # fmt: skip
TEXTS = [
    "", "a", "ab", "½²", "v12", "V1", "straße", "STRASSE", "a\n", "a b", "\x1c", "١٢", "日本", "ǆ", "é", "a&&", "[]",
    "--/", "xxy", "c", "ac", "A\u00e9", "a\nb", "_", "\u200b", "😀", "-^]a&~", "\u0301", "x\0y",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Possible")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_python_has_it(pattern: str) -> None:
    import re

    assert [matches(pattern, text) for text in TEXTS] == [bool(re.fullmatch(pattern, text)) for text in TEXTS]


# Answers


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (list[int], "[" * 100_000, "nested too deeply"),
        (Any, "[" * 900 + "]" * 900, "nested too deeply"),
        (Extra, '{"name": "a", "left": ' * 600 + "null" + "}" * 600, "nested too deeply|recursion limit"),
        (int, "1" * 10**6, "a number of 1,000,000 digits is too long"),
        (list[int], f"[{'1' * 5000}]", "a number of 5,000 digits is too long"),
        (float, "1e999999", "1e999999 is too large"),
        (float, "9" * 400, "A number of 400 digits is too large"),
        (list[float], f"[1, -{'9' * 400}]", "A number of 400 digits is too large"),
        (float, "NaN", "NaN is not JSON"),
        (dict[str, int], f'{{"{"k" * 10**5}": 1, "{"k" * 10**5}": 2}}', "appears twice"),
        (dict[str, int], f'{{"{"k" * 10**5}": "x"}}', "valid integer"),
        (list[str], '["\\ud800"]', "surrogate"),
        (list[str], '["\x00"]', "control character"),
        (Literal["a", "b"], "x" * 10**6, "is none of"),
        (list[int], "[1}" * 50_000, "not JSON"),
        (Extra, "{" * 10_000, "not JSON|nested"),
    ],
)
def test_hostile_answers_are_one_line(kind: Any, text: str, message: str) -> None:
    import re

    with pytest.raises(InvalidValueError) as caught:
        spec_from(kind).parse(text)  # type: ignore[union-attr]
    assert re.search(message, caught.value.message)
    assert len(caught.value.message) < 600
    assert "\n" not in caught.value.message


def test_what_looks_hostile_and_is_not() -> None:
    assert spec_from(int).parse("9" * 4000) == int("9" * 4000)  # type: ignore[union-attr]
    assert spec_from(list[str]).parse('["\\u0000", "\\ud83d\\ude00"]') == ["\0", "😀"]  # type: ignore[union-attr]
    assert spec_from(list[str]).parse(f'["{"1" * 400}"]') == ["1" * 400]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        "1" * 10**6,
        f"[{'1' * 10**6},",
        "[NaN, 1e999999",
        '["\ud800',
        '{"a": "' + "\\" * 10_001,
        "[1}" * 50_000,
        "\0" * 1000,
    ],
)
def test_a_hostile_answer_is_painted_as_far_as_it_goes(text: str) -> None:
    partial = PartialJSON()
    partial.feed(text)
    partial.value  # noqa: B018 - nothing is raised


def test_alternatives_within_alternatives_do_not_keep_the_check_busy() -> None:
    """Each level of the answer is held against both alternatives: at 40 levels, a million million times."""
    code = """
        from __future__ import annotations
        import pydantic
        from llm_magic.output.spec import spec_from

        class A(pydantic.BaseModel):
            below: A | B | None = None

        class B(pydantic.BaseModel):
            below: B | A | None = None

        both = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}
        schema = {"$defs": {"a": {"type": "object", "properties": {"below": both}, "required": ["below"]},
                            "b": {"type": "object", "properties": {"below": both}, "required": ["x", "below"]}}, **both}
        for spec in (spec_from(A), spec_from(schema=schema)):
            for end in ("3", "null"):
                try:
                    print(type(spec.parse('{"below": ' * 60 + end + "}" * 60)).__name__)
                except Exception as error:
                    print(type(error).__name__, error)
            print(bool(spec.parse('{"below": ' * 4 + '{"below": null}' + "}" * 4)) if spec.shape else "")
    """
    refused = "InvalidValueError The answer is nested too deeply for a type with alternatives within alternatives."
    lines = stopped(code).splitlines()
    assert lines == [refused, refused, "True", refused, refused, ""]


def test_deep_answers_of_a_type_with_one_alternative_are_fine() -> None:
    text = '{"name": "a", "left": ' * 40 + "null" + "}" * 40
    assert spec_from(Extra).parse(text).left.left.name == "a"  # type: ignore[union-attr]


def test_errors_of_bounds_are_of_the_tree() -> None:
    assert issubclass(UnsupportedError, LLMError)
