"""The options of a cell, a line for each: the parser, `--help`, completion and `LLMMagics.params` all read this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_magic.options import values


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
        values.nonempty,
    ),
    Option("base_url", ("--base-url",), WHERE, "another URL for this call; no key travels along", "URL", values.url),
    Option(
        "api",
        ("--api",),
        WHERE,
        "chat, responses or completions",
        "API",
        values.one_of("chat", "responses", "completions"),
    ),
    Option("timeout", ("--timeout",), WHERE, "seconds without a sign of life", "SECONDS", values.seconds),
    Option("retries", ("--retries",), WHERE, "further attempts after a passing failure", "N", values.whole(0)),
    Option(
        "header",
        ("--header",),
        WHERE,
        "a header of this request (env:X reads a variable); repeatable",
        "NAME=VALUE",
        values.header,
        pairs=True,
    ),
    Option("out", ("-o", "--out"), VALUE, "variable to bind the value to", "NAME", values.variable),
    Option(
        "output_type",
        ("--as",),
        VALUE,
        "type of the value: int, list[City], Literal['a', 'b'], …",
        "TYPE",
        values.nonempty,
    ),
    Option(
        "schema", ("--schema",), VALUE, "JSON Schema: a file, a dict, or 'name, age int'", "SCHEMA", values.nonempty
    ),
    Option("choices", ("--choices",), VALUE, "exactly one of these", "A,B,C", values.words),
    Option("regex", ("--regex",), VALUE, "text that matches this pattern as a whole", "PATTERN", values.nonempty),
    Option("grammar", ("--grammar",), VALUE, "text of this grammar: a file or a variable", "GRAMMAR", values.nonempty),
    Option(
        "retries_invalid",
        ("--retries-invalid",),
        VALUE,
        "how often to ask again for a valid value",
        "N",
        values.whole(0),
    ),
    Option("temperature", ("-t", "--temperature"), PARAMETERS, "0 is the most likely answer", "T", values.number(0)),
    Option(
        "top_p",
        ("--top-p",),
        PARAMETERS,
        "keep the most likely tokens of this probability",
        "P",
        values.number(0, 1),
    ),
    Option("max_tokens", ("--max-tokens",), PARAMETERS, "tokens of the answer at most", "N", values.whole(1)),
    Option(
        "seed", ("--seed",), PARAMETERS, "the same seed, the same answer, where the server can", "N", values.integer
    ),
    Option(
        "stop",
        ("--stop",),
        PARAMETERS,
        r"end before this text (\n is a line end); repeatable",
        "TEXT",
        values.escaped,
        repeats=True,
    ),
    Option("presence_penalty", ("--presence-penalty",), PARAMETERS, "-2 to 2", "X", values.number(-2, 2)),
    Option("frequency_penalty", ("--frequency-penalty",), PARAMETERS, "-2 to 2", "X", values.number(-2, 2)),
    Option("n", ("--n",), PARAMETERS, "several answers, bound as a list", "N", values.whole(1)),
    Option(
        "logprobs",
        ("--logprobs",),
        PARAMETERS,
        "log probabilities, with this many alternatives a token",
        "N",
        values.whole(0),
    ),
    Option(
        "reasoning_effort",
        ("--reasoning-effort",),
        PARAMETERS,
        "minimal, low, medium, high, …",
        "LEVEL",
        values.nonempty,
    ),
    Option(
        "param",
        ("-p", "--param"),
        PARAMETERS,
        "any other field of the body, read as JSON; repeatable",
        "NAME=VALUE",
        values.parameter,
        pairs=True,
    ),
    Option("system", ("-s", "--system"), PROMPT, "system prompt", "TEXT", values.nonempty),
    Option(
        "image",
        ("-i", "--image"),
        PROMPT,
        "an image: path, URL or variable; repeatable",
        "IMAGE",
        values.nonempty,
        repeats=True,
    ),
    Option("raw", ("--raw",), PROMPT, "send the body as it stands, no {{ }}"),
    Option("chat", ("-c", "--chat"), PROMPT, "the conversation that the cell belongs to", "NAME", values.nonempty),
    Option("once", ("--once",), PROMPT, "neither send nor keep history"),
    Option("tools", ("--tools",), TOOLS, "Python functions that the model may call", "F,G", values.words),
    Option(
        "tool_choice", ("--tool-choice",), TOOLS, "auto, none, required, or the name of one", "CHOICE", values.nonempty
    ),
    Option("max_tool_rounds", ("--max-tool-rounds",), TOOLS, "rounds of calls at most", "N", values.whole(1)),
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
        values.one_of("markdown", "text", "code", "json", "none"),
    ),
    Option("dry_run", ("--dry-run",), SHOWN, "show the exact request, send nothing"),
    Option("help", ("-h", "--help"), SHOWN, "this page"),
)

BY_FLAG: Mapping[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS} | {"as": BY_FLAG["--as"]}
