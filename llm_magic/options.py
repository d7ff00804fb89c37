"""The options of a cell, as one table: the parser, `--help`, completion and `LLMMagics.params` all read it."""

from __future__ import annotations

import csv
import json
import keyword
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llm_magic.errors import OptionError
from llm_magic.profile import Api


@dataclass(slots=True)
class Options:
    """What the options of one cell say; None (or empty) where an option was not given."""

    model: str | None = None
    base_url: str | None = None
    api: Api | None = None
    timeout: float | None = None
    retries: int | None = None
    header: dict[str, str] = field(default_factory=dict)
    out: str | None = None
    output_type: Any = None
    schema: Any = None
    choices: tuple[str, ...] | None = None
    regex: str | None = None
    grammar: str | None = None
    retries_invalid: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    logprobs: int | None = None
    reasoning_effort: str | None = None
    param: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    image: tuple[Any, ...] | None = None
    raw: bool | None = None
    chat: str | None = None
    once: bool | None = None
    tools: Any = None
    tool_choice: str | None = None
    max_tool_rounds: int | None = None
    confirm: bool | None = None
    code: bool | None = None
    background: bool | None = None
    no_stream: bool | None = None
    show: str | None = None
    dry_run: bool | None = None
    help: bool | None = None

    def over(self, defaults: Options) -> Options:
        """Return these options, each one not given here taken from `defaults`."""
        merged = Options()
        for item in fields(Options):
            ours, theirs = getattr(self, item.name), getattr(defaults, item.name)
            if isinstance(ours, dict):
                value: Any = {**theirs, **ours}
            else:
                value = theirs if ours is None else ours
            setattr(merged, item.name, value)
        return merged


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its flags, what it takes, and what it is for.

    `read` turns the text of the line into the value, raising ValueError with what was expected; an option
    without it is a switch. `repeats` collects several into a tuple, `pairs` into a dict.
    """

    name: str
    flags: tuple[str, ...]
    group: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] | None = None
    repeats: bool = False
    pairs: bool = False


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError("a whole number") from None
        if number < least:
            raise ValueError(f"a whole number of at least {least}")
        return number

    return read


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _number(least: float, most: float = math.inf) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError("a number") from None
        if not least <= number <= most or math.isinf(number):
            raise ValueError(
                f"a number from {least:g} to {most:g}" if most < math.inf else f"a number of at least {least:g}"
            )
        return number

    return read


def _seconds(text: str) -> float:
    seconds = _number(0)(text)
    if seconds == 0:
        raise ValueError("more than 0 seconds")
    return seconds


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def _text(text: str) -> str:
    if not text:
        raise ValueError("a value that is not empty")
    return text


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("the name of a variable")
    return text


def _words(text: str) -> tuple[str, ...]:
    """Read one line of CSV, quotes respected."""
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise ValueError('a list with commas, such as a,b,"c, d"') from None
    words = tuple(word.strip() for word in row)
    if not words or not all(words):
        raise ValueError("a list with commas and no empty item")
    return words


def _escaped(text: str) -> str:
    r"""Read `\n`, `\r`, `\t` as the characters that they stand for."""
    return re.sub(r"\\([nrt\\])", lambda match: {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], "\\"), _text(text))


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _header(text: str) -> tuple[str, str]:
    """Read NAME=VALUE and check both by RFC 9110, sections 5.1 and 5.5."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("NAME=VALUE")
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("NAME=VALUE, the name of letters, digits and hyphens")
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?", value):
        raise ValueError("NAME=VALUE, the value of printable ASCII characters")
    if re.search(r"(?i)authorization|api-?key|token|secret|cookie", name) and not value.startswith(
        ("env:", "os.environ/")
    ):
        raise ValueError(f"{name}=env:VARIABLE: a secret written here would be saved in the notebook")
    return name, value


def _url(text: str) -> str:
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError("a URL that starts with http:// or https://")
    if re.match(r"https?://[^/@]*@", text):
        raise ValueError("a URL without user name or password: a cell is saved as it stands")
    return text


WHERE, PARAMETERS, VALUE = "Which model", "Request parameters", "The value"
PROMPT, TOOLS, SHOWN = "The prompt", "Tools", "How it runs and is shown"

OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        ("-m", "--model"),
        WHERE,
        "an alias, provider:model, or a name that a route knows",
        "NAME",
        _text,
    ),
    Option("base_url", ("--base-url",), WHERE, "another URL for this call; no key travels along", "URL", _url),
    Option(
        "api",
        ("--api",),
        WHERE,
        "chat, responses or completions",
        "API",
        _one_of("chat", "responses", "completions"),
    ),
    Option("timeout", ("--timeout",), WHERE, "seconds without a sign of life", "SECONDS", _seconds),
    Option("retries", ("--retries",), WHERE, "further attempts after a passing failure", "N", _whole(0)),
    Option(
        "header",
        ("--header",),
        WHERE,
        "a header of this request (env:X reads a variable); repeatable",
        "NAME=VALUE",
        _header,
        pairs=True,
    ),
    Option("out", ("-o", "--out"), VALUE, "variable to bind the value to", "NAME", _variable),
    Option(
        "output_type",
        ("--as",),
        VALUE,
        "type of the value: int, list[City], Literal['a', 'b'], …",
        "TYPE",
        _text,
    ),
    Option("schema", ("--schema",), VALUE, "JSON Schema: a file, a dict, or 'name, age int'", "SCHEMA", _text),
    Option("choices", ("--choices",), VALUE, "exactly one of these", "A,B,C", _words),
    Option("regex", ("--regex",), VALUE, "text that matches this pattern as a whole", "PATTERN", _text),
    Option("grammar", ("--grammar",), VALUE, "text of this grammar: a file or a variable", "GRAMMAR", _text),
    Option(
        "retries_invalid",
        ("--retries-invalid",),
        VALUE,
        "how often to ask again for a valid value",
        "N",
        _whole(0),
    ),
    Option("temperature", ("-t", "--temperature"), PARAMETERS, "0 is the most likely answer", "T", _number(0)),
    Option(
        "top_p",
        ("--top-p",),
        PARAMETERS,
        "keep the most likely tokens of this probability",
        "P",
        _number(0, 1),
    ),
    Option("max_tokens", ("--max-tokens",), PARAMETERS, "tokens of the answer at most", "N", _whole(1)),
    Option("seed", ("--seed",), PARAMETERS, "the same seed, the same answer, where the server can", "N", _integer),
    Option(
        "stop",
        ("--stop",),
        PARAMETERS,
        r"end before this text (\n is a line end); repeatable",
        "TEXT",
        _escaped,
        repeats=True,
    ),
    Option("presence_penalty", ("--presence-penalty",), PARAMETERS, "-2 to 2", "X", _number(-2, 2)),
    Option("frequency_penalty", ("--frequency-penalty",), PARAMETERS, "-2 to 2", "X", _number(-2, 2)),
    Option("n", ("--n",), PARAMETERS, "several answers, bound as a list", "N", _whole(1)),
    Option(
        "logprobs",
        ("--logprobs",),
        PARAMETERS,
        "log probabilities, with this many alternatives a token",
        "N",
        _whole(0),
    ),
    Option(
        "reasoning_effort",
        ("--reasoning-effort",),
        PARAMETERS,
        "minimal, low, medium, high, …",
        "LEVEL",
        _text,
    ),
    Option(
        "param",
        ("-p", "--param"),
        PARAMETERS,
        "any other field of the body, read as JSON; repeatable",
        "NAME=VALUE",
        _parameter,
        pairs=True,
    ),
    Option("system", ("-s", "--system"), PROMPT, "system prompt", "TEXT", _text),
    Option(
        "image",
        ("-i", "--image"),
        PROMPT,
        "an image: path, URL or variable; repeatable",
        "IMAGE",
        _text,
        repeats=True,
    ),
    Option("raw", ("--raw",), PROMPT, "send the body as it stands, no {{ }}"),
    Option("chat", ("-c", "--chat"), PROMPT, "the conversation that the cell belongs to", "NAME", _text),
    Option("once", ("--once",), PROMPT, "neither send nor keep history"),
    Option("tools", ("--tools",), TOOLS, "Python functions that the model may call", "F,G", _words),
    Option("tool_choice", ("--tool-choice",), TOOLS, "auto, none, required, or the name of one", "CHOICE", _text),
    Option("max_tool_rounds", ("--max-tool-rounds",), TOOLS, "rounds of calls at most", "N", _whole(1)),
    Option("confirm", ("--confirm",), TOOLS, "ask before each call"),
    Option("code", ("--code",), SHOWN, "put the answer's code into the next cell"),
    Option("background", ("-b", "--background"), SHOWN, "return at once with a job; the answer goes on here"),
    Option("no_stream", ("--no-stream",), SHOWN, "show the answer when it is complete"),
    Option(
        "show",
        ("--show",),
        SHOWN,
        "markdown, text, code, json or none",
        "HOW",
        _one_of("markdown", "text", "code", "json", "none"),
    ),
    Option("dry_run", ("--dry-run",), SHOWN, "show the exact request, send nothing"),
    Option("help", ("-h", "--help"), SHOWN, "this page"),
)

BY_FLAG: Mapping[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS} | {"as": BY_FLAG["--as"]}

NOT_A_DEFAULT = frozenset({"model", "base_url", "out", "dry_run", "help"})
"""Options that belong to one cell: a default of them would change what a cell says."""


def from_mapping(values: Mapping[str, Any], source: str) -> Options:
    """Return the options that a configured mapping stands for; a name that is no option is a field of the body.

    Parameters
    ----------
    values
        Long names of options, with `-` or `_`, to values as text or of their own type.
    source
        What to name in an error: `LLMMagics.params`.

    Raises
    ------
    OptionError
        A value that the option does not take.

    >>> from_mapping({"max-tokens": 5, "min_p": 0.1}, "LLMMagics.params").param
    {'min_p': 0.1}

    """
    options = Options()
    for key, value in values.items():
        option = BY_NAME.get(key.replace("-", "_"))
        if option is None:
            options.param[key] = value
        elif option.name in NOT_A_DEFAULT:
            raise OptionError(f"{source} cannot set {key!r}.", f"Say {option.flags[-1]} in the cell.")
        elif value is not None:
            setattr(options, option.name, _configured(option, value, source))
    return options


def _configured(option: Option, value: Any, source: str) -> Any:
    """Check one configured value as the line's text would be, keeping objects that are no text."""
    if option.pairs:
        if not isinstance(value, Mapping):
            raise OptionError(f"{source}: {option.name} must be a dict, not {type(value).__name__}.")
        return dict(value)
    if option.read is None:
        if not isinstance(value, bool):
            raise OptionError(f"{source}: {option.name} must be True or False, not {value!r}.")
        return value
    if option.repeats and isinstance(value, (list, tuple)):
        return tuple(_configured_one(option, item, source) for item in value)
    read = _configured_one(option, value, source)
    return (read,) if option.repeats else read


def _configured_one(option: Option, value: Any, source: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return (
            value
            if option.name in {"output_type", "schema", "choices", "tools", "image"}
            else _reject(option, value, source)
        )
    try:
        assert option.read is not None  # noqa: S101 - switches were handled by the caller
        return option.read(str(value))
    except ValueError as error:
        raise OptionError(f"{source}: {option.name} must be {error}, not {value!r}.") from None


def _reject(option: Option, value: Any, source: str) -> Any:
    raise OptionError(f"{source}: {option.name} cannot be {value!r}.")
