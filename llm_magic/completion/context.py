"""The completion context: the option, value or name that is typed at the cursor. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llm_magic import embeddings, input_transformer
from llm_magic.options import BY_FLAG, BY_NAME, Option
from llm_magic.options.reader import BRACKETS, words

_FLAGS = {"llm_embed": {flag: option for option in (*embeddings.OPTIONS, BY_NAME["help"]) for flag in option.flags}}
_LINE = re.compile(r"\s*(?:[^%=#]+=\s*)?%(?P<name>llm\w*)(?P<rest>(?:\s.*)?)$")
_LOOP = re.compile(r"\{%-?\s*(?:for\s+(?P<names>[\w\s,]+?)\s+in|set\s+(?P<name>\w+))\b")


@dataclass(frozen=True, slots=True)
class CompletionContext:
    """Where the cursor stands.

    Attributes
    ----------
    kind
        `flag`, `value` (of `option`), `name` or `filter` (of a template), or `word` (of a command).
    text
        What has been typed of it.
    option
        The option whose value is typed.
    magic
        Name of the magic, without `%`.
    given
        Flags that stand before it; for a command the words.
    names
        Variables that the template itself makes.
    each
        The expression of the rows that the template is for; empty where it is for none.

    """

    kind: str
    text: str
    magic: str = "llm"
    option: Option | None = None
    given: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    each: str = ""


def flags_of(magic: str) -> Mapping[str, Option]:
    """Return the options of a magic by their flags."""
    return _FLAGS.get(magic, BY_FLAG)


def context_of(before: str) -> CompletionContext | None:
    r"""Return what is being typed; None where it is nothing of ours.

    Parameters
    ----------
    before
        The text of the cell, up to the cursor.

    >>> context_of("%%llm -t 0 --mo").text, context_of("%%llm --model l").option.name
    ('--mo', 'model')
    >>> context_of("%%llm\nDescribe {{ df.sh").text
    'df.sh'

    """
    lines = before.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), 0)
    if input_transformer.CELL_MAGIC.match(lines[first]):
        head = lines[first].lstrip()[2:]
        name = re.split(r"\s", head, maxsplit=1)[0]
        if first == len(lines) - 1:
            return _on_line(head[len(name) :], name, prompt=False)
        raw = any(word.text == "--raw" for word in words(head))
        return None if raw or name == "llm_embed" else _in_template("\n".join(lines[first + 1 :]), name, head)
    match = _LINE.match(lines[-1])
    if match is None or not match["rest"]:
        return None
    if match["name"] in {"llm", "llm_embed"}:
        return _on_line(match["rest"], match["name"], prompt=match["name"] == "llm")
    *given, text = match["rest"].split(" ")
    return CompletionContext("word", text, match["name"], given=tuple(word for word in given if word))


def _on_line(rest: str, magic: str, *, prompt: bool) -> CompletionContext | None:
    """Return what is being typed at the end of a line of options."""
    given: list[str] = []
    at = 0
    while True:
        word = next(words(rest[at:]), None)
        if word is None:
            return CompletionContext("flag", "", magic, given=tuple(given)) if rest[-1:].isspace() else None
        start, end = at + word.start, at + word.end
        if word.quoted and not word.text.startswith("--"):
            return None
        if not word.text.startswith("-"):
            return _in_template(rest[start:], magic, rest[:start]) if prompt else None
        flag, equals, _ = word.text.partition("=")
        option = flags_of(magic).get(flag)
        if not equals and end == len(rest):
            return CompletionContext("flag", word.text, magic, given=tuple(given))
        given.append(flag)
        if option is not None and option.read is not None:
            begin = start + len(flag) + 1 if equals else end + len(rest[end:]) - len(rest[end:].lstrip())
            if _unfinished(rest[begin:]):
                quote = rest[begin : begin + 1]
                text = rest[begin + 1 :] if quote in {"'", '"'} else rest[begin:]
                return CompletionContext("value", text, magic, option, tuple(given))
            end = begin + next(words(rest[begin:])).end
        at = end


def _unfinished(text: str) -> bool:
    """Tell whether a value that begins where `text` begins is still being typed at its end."""
    word = next(words(text), None)
    if word is None or (word.end == len(text) and not word.quoted):
        return True
    if not word.quoted and word.text[0] in "'\"":
        return True  # a quote that is open
    return not word.quoted and _open_brackets(word.text)


def _open_brackets(text: str) -> bool:
    expected: list[str] = []
    for character in text:
        if character in BRACKETS:
            expected.append(BRACKETS[character])
        elif expected and character == expected[-1]:
            expected.pop()
    return bool(expected)


def _each(head: str) -> str:
    """Return what `--each` of a line of options names, empty where it has none.

    >>> _each("llm --each 'df[:10]' -o x"), _each("llm -t 0 --each=rows")
    ('df[:10]', 'rows')

    """
    stream = words(head)
    for word in stream:
        flag, equals, value = word.text.partition("=")
        if flag == "--each":
            return value if equals else getattr(next(stream, None), "text", "")
    return ""


def _in_template(body: str, magic: str, head: str) -> CompletionContext | None:
    """Return the name that is being typed within `{{ … }}` or `{% … %}`; `head` is the line of the options."""
    opening = max(body.rfind("{{"), body.rfind("{%"))
    if opening < 0 or body.find("}}" if body[opening + 1] == "{" else "%}", opening) >= 0:
        return None
    tag = body[opening + 2 :]
    text = re.search(r"(?:[^\W\d][\w.]*|\d[\w.]*)?$", tag)[0]  # type: ignore[index] # an empty one is always found
    before = tag[: len(tag) - len(text)]
    if text[:1].isdigit() or before.count("'") % 2 or before.count('"') % 2:
        return None
    kind = "filter" if before.rstrip().endswith("|") else "name"
    own = [name for match in _LOOP.finditer(body) for name in re.findall(r"\w+", match["names"] or match["name"])]
    return CompletionContext(kind, text, magic, names=tuple(dict.fromkeys(own)), each=_each(head))
