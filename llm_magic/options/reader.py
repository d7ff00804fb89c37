"""The reader of a magic's line: words, kept together by quotes and brackets, become options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import OptionError
from llm_magic.options import BY_FLAG, OPTIONS, Option, Options

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Word(NamedTuple):
    """A word of the line: its text without outer quotes, whether it had any, and its place."""

    text: str
    quoted: bool
    start: int
    end: int


def words(line: str) -> Iterator[Word]:
    """Split a line into words.

    White space separates, but not within quotes nor within brackets: `list[str, int]`,
    `Literal["a", "b"]` and `'{"a": 1}'` are one word each. Quotes around a whole word, or around what
    follows `--option=`, are taken off; a backslash is kept, but before that quote. A quote or bracket
    that is never closed is an ordinary character.

    >>> [word.text for word in words("--as Literal['a', 'b'] -s 'Be brief.'")]
    ['--as', "Literal['a', 'b']", '-s', 'Be brief.']

    """
    position = 0
    while True:
        while position < len(line) and line[position].isspace():
            position += 1
        if position == len(line):
            return
        start = position
        prefix = _option_prefix(line, start)
        opening = start + len(prefix)
        end = _closing_quote(line, opening)
        if end is not None and (end + 1 == len(line) or line[end + 1].isspace()):
            quote = line[opening]
            position = end + 1
            yield Word(prefix + line[opening + 1 : end].replace("\\" + quote, quote), True, start, position)
        else:
            position = _bare_end(line, start)
            yield Word(line[start:position], False, start, position)


def _option_prefix(line: str, start: int) -> str:
    """Return the `--option=` that the word at `start` begins with, or nothing."""
    if not line.startswith("--", start):
        return ""
    head, equals, _ = line[start:].partition("=")
    return head + equals if equals and head[2:].replace("-", "").isalnum() else ""


def _closing_quote(line: str, opening: int) -> int | None:
    """Return where the quote at `opening` closes; None where none opens or it never closes."""
    if opening >= len(line) or line[opening] not in "'\"":
        return None
    position = opening + 1
    while position < len(line):
        if line[position] == "\\" and line[position + 1 : position + 2] == line[opening]:
            position += 2
        elif line[position] == line[opening]:
            return position
        else:
            position += 1
    return None


def _bare_end(line: str, start: int) -> int:
    """Return where the unquoted word at `start` ends."""
    position = start
    open_brackets: list[str] = []
    first_space: int | None = None
    while position < len(line):
        character = line[position]
        if character.isspace():
            if not open_brackets:
                return position
            first_space = first_space or position
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif open_brackets and character == open_brackets[-1]:
            open_brackets.pop()
        elif open_brackets and (end := _closing_quote(line, position)) is not None:
            position = end
        position += 1
    return first_space if open_brackets and first_space is not None else position


def read(
    line: str,
    options: Mapping[str, Option],
    magic: str,
    *,
    prompt: bool = False,
    expand: Callable[[str], str] = str,
    repeat_wrong: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Read a line by a table of options: their values by name, and the words that are no option.

    Parameters
    ----------
    line, magic
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
    ({'model': 'a'}, ['add', 'eu'])

    """
    values: dict[str, Any] = {}
    found: list[str] = []
    stream = words(line)
    for word in stream:
        if word.text == "--":
            found += [line[word.end :].lstrip()] if prompt else [_expanded(rest, expand) for rest in stream]
            break
        if (word.quoted and not word.text.startswith("--")) or not word.text.startswith("-") or word.text == "-":
            if prompt:
                return values, [line[word.start :]]
            found.append(_expanded(word, expand))
            continue
        flag, equals, text = word.text.partition("=")
        option = options.get(flag)
        if option is None:
            hint = did_you_mean(flag, options, f"{magic} --help lists the options.")
            raise OptionError(f"{magic} has no option {flag}.", hint)
        if option.read is None:
            if equals:
                raise OptionError(f"{flag} takes no value.", f"Write {flag} alone.")
            values[option.name] = True
            continue
        if equals:
            text = text if word.quoted else expand(text)
        else:
            following = next(stream, None)
            if following is None or (not following.quoted and following.text.partition("=")[0] in options):
                hint = f"{option.help[:1].upper()}{option.help[1:]}."
                raise OptionError(f"{flag} needs a value: {flag} {option.metavar}.", hint)
            text = _expanded(following, expand)
        try:
            _put(values, option, flag, option.read(text))
        except ValueError as error:
            wrong = f", not {text!r}" if repeat_wrong else ""
            hint = f"{option.flags[-1]} {option.metavar}: {option.help}."
            raise OptionError(f"{flag} takes {error}{wrong}.", hint) from None
    return values, found


def _expanded(word: Word, expand: Callable[[str], str]) -> str:
    return word.text if word.quoted else expand(word.text)


def _put(values: dict[str, Any], option: Option, flag: str, value: Any) -> None:
    """Put a value with the others."""
    if option.pairs:
        values.setdefault(option.name, {}).update([value])
    elif option.repeats:
        values[option.name] = (*values.get(option.name, ()), value)
    elif option.name in values:
        raise OptionError(f"{flag} is given twice.", "Keep one of them.")
    else:
        values[option.name] = value


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
    values, found = read(line, BY_FLAG, magic, prompt=True, expand=expand, repeat_wrong=True)
    rest = found[0] if found else ""
    if rest and not prompt:
        raise OptionError(
            f"{magic} does not know what to do with {rest.split(maxsplit=1)[0]!r} on its first line.",
            "The prompt goes on the lines below; a value with spaces needs quotes.",
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
    "  %%llm --dry-run                           see the request, send nothing",
    "  %llm_picker                               pick model and parameters for all cells",
)
