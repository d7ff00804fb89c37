"""One recording: what was asked, the answer to it, and the line of the file that holds both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

from llm_magic.errors import RecordingError

VERSION = 1
"""The version of the format that is written; it and all older ones are read."""
_EXACT = 2.0**53  # whole numbers below have one spelling as a float


@dataclass(frozen=True, slots=True)
class Recording:
    """An answer that was received once, with what was asked for it: plain JSON data.

    >>> made = Recording({"kind": "model", "provider": "vllm"}, {"model": "smollm2"}, at="2026-11-29T23:59:01Z")
    >>> Recording.read(made.line()) == made
    True

    """

    asked: Mapping[str, Any]
    answer: Mapping[str, Any]
    cell: str | None = None
    """The front end's name of the cell that asked; None where it has none."""
    at: str = ""
    """When the answer was complete, in UTC: `2026-11-29T23:59:01Z`."""
    replaces: int | None = None
    """The place among the answers of equal requests that it takes; None: the one after the last."""
    known_key: str = field(default="", repr=False, compare=False)
    """Its key, where that is known already."""

    @property
    def key(self) -> str:
        """What it is found by."""
        return self.known_key or key_of(self.asked)

    def line(self) -> bytes:
        """Return the line of the file, with its end: keys sorted, text readable, nothing in it that misleads an eye.

        Raises
        ------
        RecordingError
            What was asked, or the answer, is no JSON data.

        """
        try:
            document = {
                "answer": _sorted(self.answer, _OF_SERVERS),
                "asked": _sorted(plain(self.asked)),
                "at": self.at,
                "cell": self.cell,
                "key": self.key,
                "replaces": self.replaces,
                "version": VERSION,
            }
            absent = {name for name in ("cell", "replaces") if document[name] is None}
            text = json.dumps(
                {name: value for name, value in document.items() if name not in absent}, ensure_ascii=False
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordingError(f"The answer cannot be recorded: {error}.") from None
        return _MISLEADING.sub(_escaped, text).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Recording:
        """Return what a line holds; whether the answer makes sense is found out where it is used.

        Raises
        ------
        RecordingError
            The line is no recording, one of a newer format, or one whose key is not that of what was asked.

        """
        try:
            document = json.loads(line.removeprefix(_MARK).decode("utf-8"))
        except (ValueError, RecursionError):
            raise RecordingError("This is no JSON.") from None
        if not isinstance(document, dict) or not _TYPES.keys() - {"cell", "replaces"} <= document.keys():
            raise RecordingError("This is no recording.")
        version = document["version"]
        if type(version) is int and version > VERSION:
            raise RecordingError(f"This recording is of format {version}, which is newer.", "Update llm_magic.")
        for name, kind in _TYPES.items():
            if name in document and type(document[name]) is not kind:
                raise RecordingError(f"This is no recording: its {name!r} is no {_KINDS[kind]}.")
        if version < 1 or document.get("replaces", 0) < 0:
            raise RecordingError("This is no recording: it holds a number that cannot be.")
        if document["key"] != key_of(document["asked"]):
            raise RecordingError("The key of this recording is not that of what was asked: it was changed by hand.")
        return cls(
            document["asked"], document["answer"], document.get("cell"), document["at"], document.get("replaces")
        )


_TYPES: Mapping[str, type] = {
    "answer": dict,
    "asked": dict,
    "at": str,
    "cell": str,
    "key": str,
    "replaces": int,
    "version": int,
}
_KINDS = {dict: "object", str: "text", int: "whole number"}
_MARK = b"\xef\xbb\xbf"  # that some editors write before a text
_MISLEADING = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Characters that are not seen, end lines for some programs, or turn the direction of text."""


_OF_SERVERS = frozenset({"items", "reasoning_items", "logprobs", "filters", "details"})
"""Fields of an answer that hold documents of a server: they are shown as they came, in the server's order."""


def _sorted(value: Any, as_they_are: frozenset[str] = frozenset()) -> Any:
    """Return data with its keys sorted, but within the fields of some names."""
    kind = type(value)
    if kind is str:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {
            name: value[name] if name in as_they_are else _sorted(value[name], as_they_are) for name in sorted(value)
        }
    return [_sorted(item, as_they_are) for item in value] if isinstance(value, list | tuple) else value


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def key_of(asked: Mapping[str, Any]) -> str:
    """Return what a request is found by: the SHA-256 of its canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(asked)).hexdigest()


class KeyTemplate:
    """The keys of requests that differ in one text alone: what they share is spelled and hashed once.

    Parameters
    ----------
    before, after
        The canonical form up to the text, and from its end.

    Examples
    --------
    >>> template = KeyTemplate.of({"model": "m", "messages": [{"role": "user", "content": "Is this 4711?"}]}, "4711")
    >>> template.key("é") == key_of({"model": "m", "messages": [{"role": "user", "content": "Is this é?"}]})
    True

    """

    __slots__ = ("_after", "_begun")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._begun = hashlib.sha256(before)
        self._after = after

    @classmethod
    def of(cls, asked: Mapping[str, Any], marker: str) -> KeyTemplate | None:
        """Return the template of what is asked with `marker` in the place of the text.

        None where the marker does not stand there exactly once, in a text that is no name of a field: then there is
        no one place for the text.

        Raises
        ------
        RecordingError
            It is no JSON data.

        """
        spelled = encode_basestring_ascii(marker)[1:-1].encode("ascii")
        parts = canonical(asked).split(spelled) if spelled else []
        if len(parts) != 2 or _times(asked, marker) != 1:  # noqa: PLR2004 - once
            return None
        return cls(*parts)

    def key(self, text: str) -> str:
        """Return the key of the request with `text` in the place of the marker: that of `key_of` for the whole."""
        digest = self._begun.copy()
        digest.update(encode_basestring_ascii(text)[1:-1].encode("ascii") + self._after)
        return digest.hexdigest()


def _times(value: Any, marker: str) -> int:
    """Return how often a text stands in the texts of data, names of fields left out."""
    if isinstance(value, str):
        return value.count(marker)
    if isinstance(value, Mapping):
        return sum(_times(item, marker) for item in value.values())
    return sum(_times(item, marker) for item in value) if isinstance(value, list | tuple) else 0


def canonical(asked: Mapping[str, Any]) -> bytes:
    """Return what was asked in one spelling: JSON in ASCII, keys sorted, without spaces, equal numbers alike.

    >>> canonical({"b": 1.0, "a": "é"}) == canonical({"a": "é", "b": 1})
    True

    Raises
    ------
    RecordingError
        It is no JSON data.

    """
    try:
        return json.dumps(plain(asked), sort_keys=True, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordingError(f"What was asked cannot be recorded: {error}.") from None


def plain(value: Any) -> Any:
    """Return data as JSON has it: names of fields are text, and a number that is whole is a whole number."""
    kind = type(value)
    if kind is str:  # nearly all is text, which each request is looked up by
        return value
    if kind is dict or isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if kind is float and abs(value) < _EXACT and value.is_integer():
        return int(value)
    return value
