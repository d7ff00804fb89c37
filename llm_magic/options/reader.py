"""From the line of a magic to options: quotes and brackets keep words together, and nothing is ever ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from llm_magic.errors import OptionError
from llm_magic.options import BY_FLAG, OPTIONS, Option, Options

_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the line: its text without outer quotes, whether it had any, and where it began and ended."""

    text: str
    quoted: bool
    start: int
    end: int


def words(line: str) -> Iterator[Word]:
    """Split a line into words.

    White space separates, but not within quotes nor within brackets: `list[str, int]`, `Literal["a", "b"]`
    and `'{"a": 1}'` are one word each. Quotes around a whole word, or around what follows `--option=`, are
    taken off; a backslash is kept, but before that quote. A quote or bracket that is never closed is an
    ordinary character.

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
    """Return where the quote that opens at `opening` closes; None where none opens or it never closes."""
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


def parse(
    line: str,
    *,
    magic: str = "%%llm",
    prompt: bool = False,
    expand: Callable[[str], str] | None = None,
) -> tuple[Options, str]:
    """Read the options of a line and return them with what follows them.

    Parameters
    ----------
    line
        What stands behind the magic's name.
    magic
        Its name, for errors.
    prompt
        Whether a prompt may follow the options (`%llm`); it begins at the first word that is no option, or
        behind `--`, and is returned as it stands.
    expand
        Applied to each value that stands unquoted: IPython's `$name` and `{expression}`.

    Raises
    ------
    OptionError
        An unknown option, a missing or wrong value, one given twice, or words that belong to no option.

    >>> options, rest = parse("-t 0 What's up?", magic="%llm", prompt=True)
    >>> options.temperature, rest
    (0.0, "What's up?")

    """
    options = Options()
    seen: set[str] = set()
    stream = words(line)
    for word in stream:
        if (word.quoted and not word.text.startswith("--")) or not word.text.startswith("-") or word.text == "-":
            return options, _rest(line[word.start :], magic, prompt=prompt)
        if word.text == "--":
            return options, _rest(line[word.end :].lstrip(), magic, prompt=prompt)
        flag, equals, attached = word.text.partition("=")
        option = BY_FLAG.get(flag)
        if option is None:
            raise _unknown(flag, magic)
        if option.read is None:
            if equals:
                raise OptionError(f"{flag} takes no value.", f"Write {flag} alone.")
            setattr(options, option.name, True)
            continue
        if not equals:
            following = next(stream, None)
            if following is None or (not following.quoted and following.text.partition("=")[0] in BY_FLAG):
                raise OptionError(f"{flag} needs a value: {flag} {option.metavar}.", option.help.capitalize() + ".")
            attached, word = following.text, following  # noqa: PLW2901 - the value's word, for its quotes
        if expand is not None and not word.quoted:
            attached = expand(attached)
        _set(options, option, flag, attached, seen)
    return options, ""


def _set(options: Options, option: Option, flag: str, text: str, seen: set[str]) -> None:
    """Read one value and put it in its place."""
    assert option.read is not None  # noqa: S101 - switches were handled by the caller
    try:
        value: Any = option.read(text)
    except ValueError as error:
        raise OptionError(
            f"{flag} takes {error}, not {text!r}.", f"{option.flags[-1]} {option.metavar}: {option.help}."
        ) from None
    if option.pairs:
        getattr(options, option.name).update([value])
    elif option.repeats:
        setattr(options, option.name, (*(getattr(options, option.name) or ()), value))
    elif option.name in seen:
        raise OptionError(f"{flag} is given twice.", "Keep one of them.")
    else:
        setattr(options, option.name, value)
    seen.add(option.name)


def _rest(text: str, magic: str, *, prompt: bool) -> str:
    if not prompt and text:
        first = text.split(maxsplit=1)[0]
        raise OptionError(
            f"{magic} does not know what to do with {first!r} on its first line.",
            "The prompt goes on the lines below; a value with spaces needs quotes.",
        )
    return text


def _unknown(flag: str, magic: str) -> OptionError:
    close = get_close_matches(flag, BY_FLAG, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"{magic} --help lists the options."
    return OptionError(f"{magic} has no option {flag}.", hint)


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
