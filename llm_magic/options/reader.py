"""The reader of a magic's line: words, kept together by quotes and brackets, become options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import OptionError
from llm_magic.options import BY_FLAG, OPTIONS, Option, Options, refuse_keys

BRACKETS = {"(": ")", "[": "]", "{": "}"}
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<text>(?:\\(?P=quote)|(?!(?P=quote)).)*+)(?P=quote)""", re.DOTALL)
_QUOTED_WORD = re.compile(rf"(?P<option>--(?:-*[^\W_])+-*=)?{_QUOTED.pattern}(?!\S)", re.DOTALL)
_NO_SPACE = re.compile(r"\S")

_PLAIN = frozenset("${").isdisjoint
"""Whether a text has nothing that IPython expands."""


class Word(NamedTuple):
    """A word of the line: its text without outer quotes, whether it had any, and its place."""

    text: str
    quoted: bool
    start: int
    end: int


class Line(NamedTuple):
    """What a line says: its words that are no option, in order, and the values of its options by name."""

    words: tuple[str, ...]
    values: Mapping[str, Any]


def words(line: str) -> Iterator[Word]:
    """Split a line into words.

    White space separates, but not within quotes nor within brackets: `list[str, int]`,
    `Literal["a", "b"]` and `'{"a": 1}'` are one word each. Quotes around a whole word, or around what
    follows `--option=`, are taken off; a backslash is kept, but before that quote. A quote or bracket
    that is never closed is an ordinary character.

    >>> [word.text for word in words("--as Literal['a', 'b'] -s 'Be brief.'")]
    ['--as', "Literal['a', 'b']", '-s', 'Be brief.']

    """
    end = 0
    while beginning := _NO_SPACE.search(line, end):
        start = beginning.start()
        if found := _QUOTED_WORD.match(line, start):
            quote, end = found["quote"], found.end()
            yield Word((found["option"] or "") + found["text"].replace("\\" + quote, quote), True, start, end)
        else:
            end = _bare_end(line, start)
            yield Word(line[start:end], False, start, end)


def _bare_end(line: str, start: int) -> int:
    """Return where the unquoted word at `start` ends."""
    position = start
    expected: list[str] = []  # the brackets that close those that are open
    first_space = len(line)
    while position < len(line):
        character = line[position]
        if character.isspace():
            if not expected:
                return position
            first_space = min(first_space, position)
        elif character in BRACKETS:
            expected.append(BRACKETS[character])
        elif expected and character == expected[-1]:
            expected.pop()
        elif expected and (quoted := _QUOTED.match(line, position)):
            position = quoted.end() - 1
        position += 1
    return first_space if expected else position


def read(
    text: str,
    options: Mapping[str, Option],
    magic: str,
    *,
    prompt: bool = False,
    expand: Callable[[str], str] = str,
    repeat_wrong: bool = False,
) -> Line:
    """Read a line by a table of options.

    Parameters
    ----------
    text, magic
        What stands behind the magic's name, and that name, for errors.
    options
        Those that it takes, by their flags.
    prompt
        Whether the first word that is no option, or `--`, ends the options; the rest of the line is
        then the only word, as it stands. Else words stand between options, and behind `--` are only
        words.
    expand
        Applied to each word that stands unquoted: IPython's `$name` and `{expression}`.
    repeat_wrong
        Whether an error repeats the value that an option does not take.

    Raises
    ------
    OptionError
        An unknown option, a missing or wrong value, or one given twice.

    >>> from llm_magic.options import BY_FLAG
    >>> read("add eu -m a", BY_FLAG, "%llm_x")
    Line(words=('add', 'eu'), values={'model': 'a'})

    """
    values: dict[str, Any] = {}
    found: list[str] = []
    only_words = False
    stream = words(text)
    for word in stream:
        if word.text == "--" and not only_words:
            if prompt:
                return Line((text[word.end :].lstrip(),), values)
            only_words = True
            continue
        dashes = "--" if word.quoted else "-"
        if only_words or word.text == "-" or not word.text.startswith(dashes):
            if prompt:
                return Line((text[word.start :],), values)
            found.append(word.text if word.quoted or _PLAIN(word.text) else expand(word.text))
            continue
        flag, equals, said = word.text.partition("=")
        option = options.get(flag)
        if option is None:
            refuse_keys([flag.lstrip("-")], magic)
            hint = did_you_mean(flag, options, f"{magic} --help lists the options.")
            raise OptionError(f"{magic} has no option {flag}.", hint)
        name = option.name
        if option.read is None:
            if equals:
                raise OptionError(f"{flag} takes no value.", f"Write {flag} alone.")
            values[name] = True
            continue
        holder = word if equals else next(stream, None)
        if holder is None or (not equals and not holder.quoted and holder.text.partition("=")[0] in options):
            hint = f"{option.help[:1].upper()}{option.help[1:]}."
            raise OptionError(f"{flag} needs a value: {flag} {option.metavar}.", hint)
        said = said if equals else holder.text
        said = said if holder.quoted or _PLAIN(said) else expand(said)
        try:
            value = option.read(said)
        except ValueError as error:
            wrong = f", not {said!r}" if repeat_wrong and not option.pairs else ""  # a header may be a key
            hint = f"{option.flags[-1]} {option.metavar}: {option.help}."
            raise OptionError(f"{flag} takes {error}{wrong}.", hint) from None
        if option.pairs:
            values[name] = {**values.get(name, {}), value[0]: value[1]}
        elif option.repeats:
            values[name] = (*values.get(name, ()), value)
        elif option.joined and name in values:
            values[name] = f"{values[name]},{value}"
        elif name in values:
            raise OptionError(f"{flag} is given twice.", "Keep one of them.")
        else:
            values[name] = value
    return Line(tuple(found), values)


def parse(
    line: str, *, magic: str = "%%llm", prompt: bool = False, expand: Callable[[str], str] = str
) -> tuple[Options, str]:
    """Read the options of a cell, and return them with the prompt that follows them on `%llm`.

    Parameters and errors are those of `read`; without `prompt`, words that are no option are an
    error, too.

    >>> options, rest = parse("-t 0 What's up?", magic="%llm", prompt=True)
    >>> options.parameters, rest
    ({'temperature': 0.0}, "What's up?")

    """
    found, values = read(line, BY_FLAG, magic, prompt=True, expand=expand, repeat_wrong=True)
    rest = found[0] if found else ""
    if rest and not prompt:
        word, model = rest.split(maxsplit=1)[0], values.get("model") or ""
        raise OptionError(
            f"{magic} does not know what to do with {word!r} on its first line.",
            f"Names of several models stand without spaces: -m {model}{word.lstrip(',')}."
            if model.endswith(",")
            else "The prompt goes on the lines below; a value with spaces needs quotes.",
        )
    return Options.of(values), rest


def help_text() -> str:
    """Return the page of `%%llm --help`: options by group, and examples."""
    lines = [
        "%%llm [options]        the lines below are the prompt, with {{ expressions }} of your variables",
        "%llm [options] prompt  the same on one line; x = %llm … works",
    ]
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ["", group]
        flags = ", ".join(option.flags) + (f" {option.metavar}" if option.metavar else "")
        lines.append(f"  {flags:<29} {option.help}")
    return "\n".join([*lines, "", *_EXAMPLES])


_EXAMPLES = (
    "Examples",
    "  %%llm -m openai:gpt-5 -o summary          bind the text to `summary`",
    '  %%llm --as "list[City]" -o cities         bind a validated list of your pydantic model',
    "  %%llm --choices yes,no -t 0 -o verdict    one of these words",
    "  %%llm --each reviews --as Label -o rated  an answer for each row of a DataFrame, list, …",
    "  %%llm --dry-run                           see the request, send nothing",
    "  %llm_picker                               pick model and parameters for all cells",
)
