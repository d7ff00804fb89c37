"""What the options take: each function reads the text of a line, or raises ValueError with what was expected."""

from __future__ import annotations

import csv
import json
import keyword
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def whole(least: int) -> Callable[[str], int]:
    """Read a whole number of at least `least`."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise ValueError("a whole number") from None
        if found < least:
            raise ValueError(f"a whole number of at least {least}")
        return found

    return read


def integer(text: str) -> int:
    """Read any whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Read a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            raise ValueError("a number") from None
        if not least <= found <= most or math.isinf(found):
            raise ValueError(
                f"a number from {least:g} to {most:g}" if most < math.inf else f"a number of at least {least:g}"
            )
        return found

    return read


def seconds(text: str) -> float:
    """Read a length of time."""
    found = number(0)(text)
    if found == 0:
        raise ValueError("more than 0 seconds")
    return found


def one_of(*words: str) -> Callable[[str], str]:
    """Read one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def nonempty(text: str) -> str:
    """Take any text but an empty one."""
    if not text:
        raise ValueError("a value that is not empty")
    return text


def variable(text: str) -> str:
    """Take the name of a Python variable."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("the name of a variable")
    return text


def words(text: str) -> tuple[str, ...]:
    """Read one line of CSV, quotes respected."""
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise ValueError('a list with commas, such as a,b,"c, d"') from None
    found = tuple(word.strip() for word in row)
    if not found or not all(found):
        raise ValueError("a list with commas and no empty item")
    return found


def escaped(text: str) -> str:
    r"""Read `\n`, `\r`, `\t` as the characters that they stand for."""
    return re.sub(r"\\([nrt\\])", lambda match: {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], "\\"), nonempty(text))


def parameter(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def header(text: str) -> tuple[str, str]:
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


def url(text: str) -> str:
    """Take an HTTP URL without credentials."""
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError("a URL that starts with http:// or https://")
    if re.match(r"https?://[^/@]*@", text):
        raise ValueError("a URL without user name or password: a cell is saved as it stands")
    return text


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


WHERE, PARAMETERS, VALUE = "Which model", "Request parameters", "The value"
PROMPT, TOOLS, SHOWN = "The prompt", "Tools", "How it runs and is shown"

OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        ("-m", "--model"),
        WHERE,
        "an alias, provider:model, or a name that a route knows",
        "NAME",
        nonempty,
    ),
    Option("base_url", ("--base-url",), WHERE, "another URL for this call; no key travels along", "URL", url),
    Option(
        "api",
        ("--api",),
        WHERE,
        "chat, responses or completions",
        "API",
        one_of("chat", "responses", "completions"),
    ),
    Option("timeout", ("--timeout",), WHERE, "seconds without a sign of life", "SECONDS", seconds),
    Option("retries", ("--retries",), WHERE, "further attempts after a passing failure", "N", whole(0)),
    Option(
        "header",
        ("--header",),
        WHERE,
        "a header of this request (env:X reads a variable); repeatable",
        "NAME=VALUE",
        header,
        pairs=True,
    ),
    Option("out", ("-o", "--out"), VALUE, "variable to bind the value to", "NAME", variable),
    Option(
        "output_type",
        ("--as",),
        VALUE,
        "type of the value: int, list[City], Literal['a', 'b'], …",
        "TYPE",
        nonempty,
    ),
    Option("schema", ("--schema",), VALUE, "JSON Schema: a file, a dict, or 'name, age int'", "SCHEMA", nonempty),
    Option("choices", ("--choices",), VALUE, "exactly one of these", "A,B,C", words),
    Option("regex", ("--regex",), VALUE, "text that matches this pattern as a whole", "PATTERN", nonempty),
    Option("grammar", ("--grammar",), VALUE, "text of this grammar: a file or a variable", "GRAMMAR", nonempty),
    Option(
        "retries_invalid",
        ("--retries-invalid",),
        VALUE,
        "how often to ask again for a valid value",
        "N",
        whole(0),
    ),
    Option("temperature", ("-t", "--temperature"), PARAMETERS, "0 is the most likely answer", "T", number(0)),
    Option(
        "top_p",
        ("--top-p",),
        PARAMETERS,
        "keep the most likely tokens of this probability",
        "P",
        number(0, 1),
    ),
    Option("max_tokens", ("--max-tokens",), PARAMETERS, "tokens of the answer at most", "N", whole(1)),
    Option("seed", ("--seed",), PARAMETERS, "the same seed, the same answer, where the server can", "N", integer),
    Option(
        "stop",
        ("--stop",),
        PARAMETERS,
        r"end before this text (\n is a line end); repeatable",
        "TEXT",
        escaped,
        repeats=True,
    ),
    Option("presence_penalty", ("--presence-penalty",), PARAMETERS, "-2 to 2", "X", number(-2, 2)),
    Option("frequency_penalty", ("--frequency-penalty",), PARAMETERS, "-2 to 2", "X", number(-2, 2)),
    Option("n", ("--n",), PARAMETERS, "several answers, bound as a list", "N", whole(1)),
    Option(
        "logprobs",
        ("--logprobs",),
        PARAMETERS,
        "log probabilities, with this many alternatives a token",
        "N",
        whole(0),
    ),
    Option(
        "reasoning_effort",
        ("--reasoning-effort",),
        PARAMETERS,
        "minimal, low, medium, high, …",
        "LEVEL",
        nonempty,
    ),
    Option(
        "param",
        ("-p", "--param"),
        PARAMETERS,
        "any other field of the body, read as JSON; repeatable",
        "NAME=VALUE",
        parameter,
        pairs=True,
    ),
    Option("system", ("-s", "--system"), PROMPT, "system prompt", "TEXT", nonempty),
    Option(
        "image",
        ("-i", "--image"),
        PROMPT,
        "an image: path, URL or variable; repeatable",
        "IMAGE",
        nonempty,
        repeats=True,
    ),
    Option("raw", ("--raw",), PROMPT, "send the body as it stands, no {{ }}"),
    Option("chat", ("-c", "--chat"), PROMPT, "the conversation that the cell belongs to", "NAME", nonempty),
    Option("once", ("--once",), PROMPT, "neither send nor keep history"),
    Option("tools", ("--tools",), TOOLS, "Python functions that the model may call", "F,G", words),
    Option("tool_choice", ("--tool-choice",), TOOLS, "auto, none, required, or the name of one", "CHOICE", nonempty),
    Option("max_tool_rounds", ("--max-tool-rounds",), TOOLS, "rounds of calls at most", "N", whole(1)),
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
        one_of("markdown", "text", "code", "json", "none"),
    ),
    Option("dry_run", ("--dry-run",), SHOWN, "show the exact request, send nothing"),
    Option("help", ("-h", "--help"), SHOWN, "this page"),
)

BY_FLAG: Mapping[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS} | {"as": BY_FLAG["--as"]}
