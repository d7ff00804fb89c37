"""What `--schema`, `--choices`, `--regex` and `--grammar` accept, refuse, and make of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.spec import spec_from

NAMESPACE: dict[str, Any] = {"City": type("City", (), {}), "number": 3}


class TestSchemas:
    def test_the_short_form(self) -> None:
        spec = spec_from(schema="name, age int, bio: one sentence")
        assert spec.schema["properties"] == {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "bio": {"type": "string", "description": "one sentence"},
        }
        assert spec.parse('{"name": "a", "age": 1, "bio": "b"}') == {"name": "a", "age": 1, "bio": "b"}
        with pytest.raises(InvalidValueError, match=r'age: "1" is not of type "integer"'):
            spec.parse('{"name": "a", "age": "1", "bio": "b"}')

    def test_lines_lists_and_nulls_in_the_short_form(self) -> None:
        schema = spec_from(schema="tags list[str]\nborn date?: the day, if known").schema
        assert schema["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
        assert schema["properties"]["born"]["anyOf"][1] == {"type": "null"}
        assert schema["properties"]["born"]["description"] == "the day, if known"
        assert spec_from(schema="[name, age int]").parse('[{"name": "a", "age": 1}]') == [{"name": "a", "age": 1}]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name strng", "'strng' is no type"),
            ("1a int", "'1a' is no name"),
            ("a, a", "'a' twice"),
            ("a,,b", "a field without a name"),
            (", b", "a field without a name"),
            ("  ", "empty"),
            ("name, , ", ""),
        ],
    )
    def test_a_short_form_that_is_none(self, text: str, message: str) -> None:
        if not message:
            assert list(spec_from(schema=text).schema["properties"]) == ["name"]
            return
        with pytest.raises(OutputTypeError, match=message):
            spec_from(schema=text)

    def test_a_file_a_variable_an_expression_and_text(self, tmp_path: Path) -> None:
        schema = {"title": "Thing", "type": "object", "properties": {"a": {"type": "integer"}}}
        file = tmp_path / "thing.json"
        file.write_text(json.dumps(schema), encoding="utf-8")
        spaces = {"thing": schema, "all": {"of": schema}}
        for source in (str(file), "thing", "all['of']", json.dumps(schema), schema):
            spec = spec_from(schema=source, namespace=spaces)
            assert (spec.title, spec.parse('{"a": 1}')) == ("Thing", {"a": 1})

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("missing.json", "No such file"),
            ("{broken", "is not JSON"),
            ("City", "is a type"),
            ("number + 1", "is no name of a field|is no type of the short form"),
            ({"type": "object", "properties": {"a": {"type": 5}}}, r"at properties\.a\.type"),
            ({"$ref": "https://example.org/x.json"}, "example.org"),
            ({"enum": {1}}, "not JSON serializable"),
        ],
    )
    def test_a_schema_that_is_none(
        self, source: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OutputTypeError, match=message):
            spec_from(schema=source, namespace=NAMESPACE)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "latin.json").write_bytes(b'{"title": "\xe4"}')
        with pytest.raises(OutputTypeError, match="not UTF-8"):
            spec_from(schema=str(tmp_path / "latin.json"))

    def test_formats_are_asserted(self) -> None:
        spec = spec_from(schema={"type": "string", "format": "date"})
        assert spec.parse('"2026-02-28"') == "2026-02-28"
        with pytest.raises(InvalidValueError, match='is not a "date"'):
            spec.parse('"2026-02-30"')

    def test_the_draft_that_is_named_counts(self) -> None:
        old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]}
        with pytest.raises(InvalidValueError, match=r"\[0\]"):
            spec_from(schema=old).parse('["a"]')

    def test_of_alternatives_the_nearest_one_is_explained(self) -> None:
        ways = [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "null"}]
        with pytest.raises(
            InvalidValueError, match=r'x: fits no alternative; nearest: a: "b" is not of type "integer"'
        ):
            spec_from(schema={"type": "object", "properties": {"x": {"anyOf": ways}}}).parse('{"x": {"a": "b"}}')


class TestChoices:
    @pytest.mark.parametrize(
        "text",
        ["not sure", " Not Sure.\n", '"not sure"', '{"value": "not sure"}', "**not sure**", "```\nnot sure\n```"],
    )
    def test_one_of_them(self, text: str) -> None:
        assert spec_from(choices='yes,no,"not sure"').parse(text) == "not sure"

    @pytest.mark.parametrize("text", ["", "maybe", "yes or no", "yes no", '{"value": 1}', "yesyes"])
    def test_none_of_them(self, text: str) -> None:
        with pytest.raises(InvalidValueError, match="is none of: yes, no"):
            spec_from(choices="yes,no").parse(text)

    def test_case_counts_where_it_has_to(self) -> None:
        spec = spec_from(choices=("US", "us"))
        assert spec.parse("us") == "us"
        with pytest.raises(InvalidValueError):
            spec.parse("Us")

    @pytest.mark.parametrize("choices", ["", "a,,b", "a,a", [], ["a", 1]])
    def test_lists_that_are_none(self, choices: Any) -> None:
        with pytest.raises(OutputTypeError):
            spec_from(choices=choices)


class TestRegexAndGrammar:
    def test_the_whole_text_matches(self) -> None:
        spec = spec_from(regex=r"\d{4}-[a-z]+")
        assert spec.parse("2026-ab\n") == "2026-ab"
        assert spec.parse('{"value": "2026-ab"}') == "2026-ab"
        for text in ("x 2026-ab", "2026-", ""):
            with pytest.raises(InvalidValueError, match="does not match"):
                spec.parse(text)

    def test_a_pattern_that_does_not_compile(self) -> None:
        with pytest.raises(OutputTypeError, match="unterminated"):
            spec_from(regex="(a")

    def test_a_grammar_from_a_variable_a_file_and_text(self, tmp_path: Path) -> None:
        text = 'root ::= "a" [0-9]{2} # two digits\n'
        (tmp_path / "g.gbnf").write_text(text, encoding="utf-8")
        for source in ("g", text, str(tmp_path / "g.gbnf")):
            spec = spec_from(grammar=source, namespace={"g": text})
            assert spec.parse("a12 ") == "a12"
            with pytest.raises(InvalidValueError, match='character 3, "x"'):
                spec.parse("a1x")
            with pytest.raises(InvalidValueError, match="ends too early"):
                spec.parse("a1")

    @pytest.mark.parametrize(
        ("grammar", "message"),
        [
            ("nothing.gbnf", "neither a variable"),
            ('start ::= "a"', "no rule 'root'"),
            ("root ::= other", "no rule 'other'"),
            ('root ::= "a', "line 1, column 12"),
            ("root ::= [a", "expected in line 1"),
            ('root ::= ("a"', r"`\)` expected"),
            ("root ::= *", "something to repeat"),
            ('root ::= "a"{9999}', "at most 2000"),
            (r'root ::= "\q"', "an escape"),
            ('root ::= "a"\nroot ::= "b"', "not defined yet"),
        ],
    )
    def test_a_grammar_that_is_none(self, grammar: str, message: str) -> None:
        with pytest.raises(OutputTypeError, match=message):
            spec_from(grammar=grammar)
