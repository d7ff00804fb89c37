"""The output type of a cell, as data: one kind of constraint, and what parses its answer."""

from __future__ import annotations

import ast
import csv
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from llm_magic.capabilities import Kind
from llm_magic.errors import OutputTypeError
from llm_magic.options import exclude_each_other
from llm_magic.output import json_text
from llm_magic.output.columns import Column, columns_of
from llm_magic.output.dataframe import frame_of, require_pandas
from llm_magic.output.grammar import Grammar, load_grammar
from llm_magic.output.schema import Schema, read_schema, short_form
from llm_magic.output.schema.keywords import is_object, may_be
from llm_magic.output.schema.python_types import unaliased
from llm_magic.output.schema.references import check_references
from llm_magic.output.schema.shape import Shape, type_name, words_of
from llm_magic.output.type_expression import FrameType, evaluate, offered, require_type
from llm_magic.output.validate import parse_choice, parse_grammar, parse_json, parse_regex


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One output type: the kind of constraint, and what it is for its kind."""

    kind: Kind
    title: str
    """What to call it: `list[City]`, the schema's title, the pattern."""
    schema: Schema = field(default_factory=dict)
    """The JSON Schema of the value (kind `json`), not yet in any server's dialect."""
    shape: Shape | None = None
    """The Python type behind it, where there is one; else the value is plain data."""
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """The regular expression, by Python's rules (kind `regex`)."""
    grammar: Grammar | None = None
    columns: Mapping[str, Column] | None = None
    """Of a DataFrame, what each column is; the records are `schema` and `shape`."""
    structures: dict[Any, Any] = field(default_factory=dict, repr=False)
    """How the dialects put it, kept for the next request."""

    @cached_property
    def object_root(self) -> bool:
        """Whether the value is an object and nothing else, so that nothing is to be wrapped."""
        return self.kind == "json" and is_object(self.schema, self.schema)

    @cached_property
    def always_wrapped(self) -> bool:
        """Whether every dialect asks for `{"value": …}`: an object is one of several possibilities.

        Only so can `{"value": 3}` be told from a value that looks the same.
        """
        return self.kind == "json" and not self.object_root and may_be("object", self.schema, self.schema)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What is asked for, as plain data that does not depend on how it is written for a server."""
        if self.choices:
            return {"choices": list(self.choices)}
        if self.pattern:
            return {"regex": self.pattern}
        if self.grammar is not None:
            return {"grammar": self.grammar.text}
        schema = self.schema if self.shape is None else self.shape.plain_schema
        return {"schema": schema}

    @cached_property
    def _schema_text(self) -> str:
        """The schema as JSON: each answer is checked by what is known of it, and it may be long."""
        return json.dumps(self.schema)

    def parse(self, text: str, *, nulls: bool = False) -> Any:
        """Return the value of the whole text of an answer, having validated it here.

        White space around it, one code fence and the wrapping `{"value": …}` are taken off. The
        value is of the Python type; plain data for `--schema`; `str` for choices, regex and grammar.
        A text that is no such value is an `InvalidValueError`, which says where. With `nulls`, and of
        a Python type, the null of an optional property that may not be null is its absence.
        """
        if self.kind == "choices":
            return parse_choice(text, self.choices, self.shape)
        if self.kind == "regex":
            return parse_regex(text, self.pattern)
        if self.grammar is not None:
            return parse_grammar(text, self.grammar)
        value = parse_json(
            text,
            self.schema,
            self.shape,
            schema_text=self._schema_text,
            object_root=self.object_root,
            always_wrapped=self.always_wrapped,
            nulls=nulls or self.shape is not None,
        )
        return value if self.columns is None else frame_of(value, self.columns)

    def so_far(self, partial: Any, text: str) -> Any:
        """Return the value so far of an answer, without the wrapping; None before it begins.

        `partial` is its JSON so far, `text` all of it.
        """
        if self.kind != "json" and not text.lstrip().startswith(("{", '"', "`")):
            return text.strip() or None
        if self.object_root or not isinstance(partial, dict):
            return partial
        return json_text.unwrapped(partial) if partial else None


def spec_from(
    as_: Any = None,
    *,
    schema: str | Mapping[str, Any] | None = None,
    choices: str | Sequence[str] | None = None,
    regex: str | None = None,
    grammar: str | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> OutputSpec | None:
    r"""Return the output type that the options of a cell ask for; None for plain text.

    `as_` is a Python type or an expression of one (`str` is plain text), `schema` what
    `read_schema` reads, `choices` quoted CSV or strings, `regex` a pattern by Python's rules for
    the whole text, `grammar` GBNF: a variable that holds it, a file, or its text. `namespace` holds
    the user's variables; it is only read. More than one, or what cannot be one, is an
    `OutputTypeError`.

    >>> spec_from(int).parse(" 42\n")
    42
    >>> spec_from(choices="yes,no").parse("Yes.")
    'yes'

    """
    names = namespace if namespace is not None else {}
    kinds = {"--as": as_, "--schema": schema, "--choices": choices, "--regex": regex, "--grammar": grammar}
    exclude_each_other(kinds, OutputTypeError)
    if as_ is not None:
        return _from_type(as_, names)
    if schema is not None:
        title, document = read_schema(schema, names)
        check_references(document)
        return OutputSpec("json", title, schema=document)
    if choices is not None:
        return _from_choices(choices)
    if regex is not None:
        return _from_regex(regex)
    if grammar is not None:
        title, rules = load_grammar(grammar, names)
        return OutputSpec("grammar", title, grammar=rules)
    return None


_FRAME = re.compile(r"(?:\w+\.)?DataFrame\s*\[(.*)\]", re.DOTALL)


def _from_type(as_: Any, namespace: Mapping[str, Any]) -> OutputSpec | None:
    written = isinstance(as_, str)
    if written and (spec := _from_fields(as_.strip(), namespace)) is not None:
        return spec
    kind = require_type(evaluate(as_, namespace) if written else as_, as_ if written else repr(as_))
    if isinstance(kind, FrameType):
        return _from_frame(kind, namespace)
    if unaliased(kind) is str:
        return None
    try:
        return _spec_of(kind)
    except TypeError:  # the type cannot be a key
        return _spec_of.__wrapped__(kind)


def _from_fields(text: str, namespace: Mapping[str, Any]) -> OutputSpec | None:
    """Return the records that the short form of `--schema` stands for: `[name, age int]`; None for another expression.

    Fields in brackets are one where they are no Python, or where they are several names that are all unknown.
    """
    frame = _FRAME.fullmatch(text)
    fields = frame[1] if frame else text[1:-1] if text.startswith("[") and text.endswith("]") else ""
    try:
        names = ast.parse(f"[{fields}]", mode="eval").body.elts  # type: ignore[attr-defined]  # a list, by its brackets
    except (SyntaxError, ValueError):
        if not _FIELDS.fullmatch(fields):
            return None
    else:
        unknown = [isinstance(name, ast.Name) and name.id not in namespace and not offered(name.id) for name in names]
        if len(unknown) < 2 or not all(unknown):  # noqa: PLR2004 - one word may be a type that is misspelled
            return None
    document = short_form(f"[{fields}]")
    return _of_frame(text, document, None) if frame else OutputSpec("json", text, schema=document)


_FIELDS = re.compile(r"\s*[A-Za-z_]\w*(\s+[A-Za-z]+(\[\w+\])?\??)?\s*(:[^,\n]*)?([,\n]\s*[A-Za-z_].*)?", re.DOTALL)


def _from_frame(frame: FrameType, namespace: Mapping[str, Any]) -> OutputSpec:
    record = frame.record
    if isinstance(record, tuple):
        raise OutputTypeError(
            "--as DataFrame[…]: one record type is needed.", "Examples: DataFrame[A], DataFrame[A | B]."
        )
    if isinstance(record, str):
        if namespace.get(record) is None:
            return _of_frame(repr(frame), short_form(f"[{record}]"), None)
        record = namespace[record]
    record = require_type(record, repr(frame))
    records: Any = list
    inner = _spec_of(records[record])
    return _of_frame(f"DataFrame[{type_name(record)}]", inner.schema, record, inner.shape)


def _of_frame(title: str, schema: Schema, record: Any, shape: Shape | None = None) -> OutputSpec:
    require_pandas(title)
    columns = columns_of(record, schema["items"], schema)
    return OutputSpec("json", title, schema=schema, shape=shape, columns=columns)


@lru_cache(maxsize=128)
def _spec_of(kind: Any) -> OutputSpec:
    name = type_name(kind)
    shape = Shape(kind, name)
    if shape.schema.get("type") == "null":
        raise OutputTypeError(f"--as {name}: there is only one such value.", "Examples: int, list[City], date | None.")
    words = words_of(kind)
    return OutputSpec("choices" if words else "json", name, schema=shape.schema, shape=shape, choices=words or ())


def _from_choices(choices: str | Sequence[str]) -> OutputSpec:
    words = next(csv.reader([choices], skipinitialspace=True), []) if isinstance(choices, str) else list(choices)
    if any(not isinstance(word, str) for word in words):
        raise OutputTypeError("--choices takes strings only.", "Say --as 'Literal[1, 2]' for other values.")
    words = [word.strip() for word in words]
    if not words or not all(words):
        raise OutputTypeError("--choices has an empty choice.", "Example: --choices yes,no,'not sure'.")
    twice = next((word for word in words if words.count(word) > 1), None)
    if twice is not None:
        raise OutputTypeError(f"--choices names {twice!r} twice.")
    return OutputSpec("choices", "choices", choices=tuple(words))


def _from_regex(regex: str) -> OutputSpec:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise OutputTypeError(f"--regex {regex!r} is no regular expression: {error}.") from None
    return OutputSpec("regex", regex, pattern=regex)
