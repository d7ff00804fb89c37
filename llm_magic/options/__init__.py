"""The options of a cell, each said once: parser, `--help` and completion follow these fields."""
# ruff: noqa: RUF009 - `_option` makes a field

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from os import PathLike
from typing import Any, Literal, get_args

from llm_magic.messages import ToolCall
from llm_magic.options import option as take
from llm_magic.options.option import Option, exclude_each_other, refuse_keys
from llm_magic.options.parameters import PARAMETERS, Api, RequestParameters

__all__ = [
    "BY_FLAG",
    "BY_NAME",
    "OF_BATCHES",
    "OF_ROWS",
    "OPTIONS",
    "PARAMETERS",
    "AskOptions",
    "BatchOptions",
    "DefaultOptions",
    "MapOptions",
    "OnError",
    "Option",
    "Options",
    "Order",
    "Record",
    "RequestParameters",
    "exclude_each_other",
    "refuse_keys",
]


def _option(
    flags: str,
    purpose: str,
    metavar: str = "",
    read: Callable[[str], Any] | None = None,
    words: tuple[str, ...] = (),
    **more: Any,
) -> Any:
    """Return the field of an option: a switch, or what `read`, else one of `words`, else any text.

    `trusted_only` says whether a project's file sets it only once it is trusted, `could` what for: see `Option`.
    """
    if metavar and read is None:
        read = take.one_of(*words) if words else take.nonempty
    said = {"flags": tuple(flags.split()), "help": purpose, "metavar": metavar, "read": read, "words": words, **more}
    return field(default_factory=dict, metadata=said) if "pairs" in more else field(default=None, metadata=said)


Record = Literal["off", "once", "only", "new"]
"""Whether answers are recorded, and answered from recordings: see `LLMMagics.record`."""

Context = int | Literal["all"] | tuple[str, ...]
"""Which executed cells are sent along: the last so many, all, or those that define these names."""

OnError = Literal["fail", "keep"]
"""What becomes of a run of many rows of which some failed: it fails at its end, or the errors are kept as values."""

Order = Literal["given", "prefix"]
"""The order in which rows are sent: as they are given, or those together that begin with the same text."""

_GROUPS = {
    "model": "Which model", "out": "The value", "parameters": "Request parameters", "system": "The prompt",
    "tools": "Tools", "each": "Many rows", "batch": "Offline batches", "code": "How it runs and is shown",
}  # fmt: skip
"""Titles of the help page, by the field that each begins with."""


@dataclass(slots=True)
class Options:
    """What the options of one cell say; None (or empty) where an option was not given."""

    model: str | None = _option(
        "-m --model",
        "an alias, provider:model, or a name that a route knows; a,b asks several side by side",
        "NAME",
        joined=True,
        trusted_only=False,
    )
    base_url: str | None = _option(
        "--base-url",
        "another URL for this call; no key travels along",
        "URL",
        take.url,
        trusted_only=True,
        could="send",
    )
    api: Api | None = _option("--api", "chat, responses or completions", "API", words=get_args(Api), trusted_only=False)
    timeout: float | None = _option(
        "--timeout", "seconds without a sign of life", "SECONDS", take.seconds, trusted_only=False
    )
    retries: int | None = _option(
        "--retries", "further attempts after a passing failure", "N", take.whole(0), trusted_only=False
    )
    header: dict[str, str] = _option(
        "--header",
        "a header of this request (env:X reads a variable); repeatable",
        "NAME=VALUE",
        take.header,
        pairs=True,
        trusted_only=True,
        could="send",
    )
    out: str | None = _option("-o --out", "variable to bind the value to", "NAME", take.variable, trusted_only=False)
    output_type: Any = _option(
        "--as",
        "type of the value: int, list[City], Literal['a', 'b'], DataFrame[City], [name, age int], …",
        "TYPE",
        trusted_only=True,
        could="run",
    )
    schema: Any = _option(
        "--schema",
        "JSON Schema: a .json file, a dict, 'name, age int', or [name, age int] for a list",
        "SCHEMA",
        trusted_only=True,
        could="read",
    )
    choices: tuple[str, ...] | None = _option(
        "--choices", "exactly one of these", "A,B,C", take.words, trusted_only=False
    )
    regex: str | None = _option("--regex", "text that matches this pattern as a whole", "PATTERN", trusted_only=False)
    grammar: str | None = _option(
        "--grammar", "text of this grammar: a file or a variable", "GRAMMAR", trusted_only=True, could="read"
    )
    retries_invalid: int | None = _option(
        "--retries-invalid", "how often to ask again for a valid value", "N", take.whole(0), trusted_only=False
    )
    parameters: RequestParameters = field(default_factory=RequestParameters)
    param: dict[str, Any] = _option(
        "-p --param",
        "any other field of the body, read as JSON; repeatable",
        "NAME=VALUE",
        take.parameter,
        pairs=True,
        trusted_only=True,
        could="send",
    )
    system: str | None = _option("-s --system", "system prompt; '' sends none", "TEXT", take.text, trusted_only=False)
    image: tuple[Any, ...] | None = _option(
        "-i --image",
        "an image: path, URL or variable; repeatable",
        "IMAGE",
        repeats=True,
        trusted_only=True,
        could="read",
    )
    raw: bool | None = _option("--raw", "send the body as it stands, no {{ }}", trusted_only=False)
    context: Context | None = _option(
        "--context",
        "cells to send along, code and outputs: the last N, all, or those that define NAMES (a,b)",
        "N",
        take.context,
        ("all",),
        trusted_only=True,
        could="send",
    )
    chat: str | None = _option("-c --chat", "the conversation that the cell belongs to", "NAME", trusted_only=False)
    once: bool | None = _option("--once", "neither send nor keep history", trusted_only=False)
    tools: Any = _option(
        "--tools",
        "Python functions, and tools of MCP servers (mcp:NAME[.TOOL]), that the model may call",
        "F,G",
        take.words,
        trusted_only=True,
        could="run",
    )
    tool_choice: str | None = _option(
        "--tool-choice",
        "auto, none, required, or the name of one",
        "CHOICE",
        take.nonempty,
        ("auto", "none", "required"),
        trusted_only=False,
    )
    max_tool_rounds: int | None = _option(
        "--max-tool-rounds", "rounds of calls at most", "N", take.whole(1), trusted_only=False
    )
    confirm: bool | None = _option("--confirm", "ask before each call", trusted_only=True, could="run")
    each: str | None = _option(
        "--each",
        "ask for each row of a DataFrame, or item of a list: {{ column }}, {{ item }}; a column for each of -m a,b",
        "EXPR",
        trusted_only=True,
        could="run",
    )
    concurrency: int | Literal["auto"] | None = _option(
        "--concurrency",
        "rows in flight at most; auto finds the number",
        "N",
        take.concurrency,
        ("auto",),
        trusted_only=False,
    )
    patience: float | None = _option(
        "--patience",
        "seconds to wait for an endpoint that stops answering (60)",
        "SECONDS",
        take.number(0),
        trusted_only=False,
    )
    on_error: OnError | None = _option(
        "--on-error",
        "where rows, or some of several models, failed: fail ends the cell with an error once all are done, keep ends it well",
        "WHAT",
        words=get_args(OnError),
        trusted_only=False,
    )
    again: bool | None = _option(
        "--again", "ask for all rows, also those that a stopped run has answers to", trusted_only=False
    )
    sample: int | None = _option(
        "--sample",
        "ask for N rows, spread evenly, and say what all would cost and take",
        "N",
        take.whole(1),
        trusted_only=False,
    )
    dedup: bool | None = _option(
        "--dedup", "ask once for all rows of the same prompt; so it is at -t 0, or with a seed", trusted_only=False
    )
    order: Order | None = _option(
        "--order",
        "given, or prefix: rows together that begin alike, for a server's prefix cache",
        "HOW",
        words=get_args(Order),
        trusted_only=False,
    )
    budget: dict[str, float] | None = _option(
        "--budget",
        "what all rows may use at most: 2.50 (US dollars), or tokens=100000,requests=500",
        "USD",
        take.budget,
        trusted_only=True,
        could="spend",
    )
    on: Any = _option(
        "--on",
        "ask from the workers of a Dask cluster: dask (the current client), or tcp://host:port",
        "CLUSTER",
        take.cluster,
        ("dask",),
        trusted_only=True,
        could="send",
    )
    forward_env: tuple[str, ...] | None = _option(
        "--forward-env",
        "environment variables, such as keys, that are sent to the workers of the cluster",
        "A,B",
        take.environment_names,
        trusted_only=True,
        could="send",
    )
    batch: bool | None = _option(
        "--batch",
        "send the rows as an offline batch (the Batch API), cheaper and within 24 hours",
        trusted_only=True,
        could="send",
    )
    wait: bool | None = _option(
        "--wait", "wait here for the batch; interrupting leaves it at the server", trusted_only=False
    )
    poll: float | None = _option(
        "--poll",
        "seconds between two looks at the batch (30); they grow while nothing changes",
        "SECONDS",
        take.seconds,
        trusted_only=False,
    )
    batch_file: str | None = _option(
        "--batch-file",
        "write the batch's file for a program such as vLLM's run_batch, and send nothing",
        "FILE",
        trusted_only=True,
        could="write",
    )
    code: bool | None = _option("--code", "put the answer's code into the next cell", trusted_only=False)
    background: bool | None = _option(
        "-b --background", "return at once with a job; the answer goes on here", trusted_only=False
    )
    stream: bool | None = _option("--stream", "show the answer while it arrives", trusted_only=False)
    no_stream: bool | None = _option("--no-stream", "show the answer when it is complete", trusted_only=False)
    show: str | None = _option(
        "--show",
        "markdown, text, code, json or none",
        "HOW",
        words=("markdown", "text", "code", "json", "none"),
        trusted_only=False,
    )
    record: Record | None = _option(
        "--record",
        "answers from recordings: once asks and records what is not there, only sends nothing, new asks anew, off",
        "MODE",
        words=get_args(Record),
        trusted_only=True,
        could="write",
    )
    record_tools: bool | None = _option(
        "--record-tools", "record the results of tools, too: replayed, none is called", trusted_only=True, could="write"
    )
    dry_run: bool | None = _option("--dry-run", "show the exact request, send nothing", trusted_only=False)
    help: bool | None = _option("-h --help", "this page", trusted_only=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """Return the options that have these values, by their names."""
        given: Any = {name: values[name] for name in PARAMETERS if name in values}
        return cls(parameters=given, **{name: value for name, value in values.items() if name not in PARAMETERS})

    def over(self, defaults: Options) -> Options:
        """Return these options, each one not given here taken from `defaults`; dicts add up."""
        merged: dict[str, Any] = {}
        for item in fields(self):
            ours, theirs = getattr(self, item.name), getattr(defaults, item.name)
            if item.default_factory is not MISSING:
                merged[item.name] = {**theirs, **ours}
            else:
                merged[item.name] = theirs if ours is None else ours
        return Options(**merged)


class _AnyOptions(RequestParameters, total=False):
    """The options that have a meaning however a prompt is sent: at once, for many rows, in an offline batch."""

    system: str
    images: Any
    context: int | str | Sequence[str]
    output_type: Any
    schema: Any
    choices: Sequence[str]
    regex: str
    grammar: str
    param: dict[str, Any]
    header: dict[str, str]
    base_url: str
    timeout: float
    retries: int
    api: Api
    no_stream: bool
    chat: str
    once: bool
    tools: Sequence[Callable[..., Any] | str] | Callable[..., Any] | str
    tool_choice: str
    record: Record


class AskOptions(_AnyOptions, total=False):
    """The options of `%%llm` as keyword arguments of `LLM.ask`, which describes them."""

    retries_invalid: int
    max_tool_rounds: int
    confirm: bool
    record_tools: bool
    on_confirm: Callable[[ToolCall], bool | Awaitable[bool]]


class CompareOptions(AskOptions, total=False):
    """The options of `%%llm -m a,b` as keyword arguments of `LLM.compare`, which describes them."""

    on_error: OnError


class _RunOptions(AskOptions, total=False):
    """What runs of many rows may share."""

    concurrency: int | Literal["auto"]
    patience: float
    on_error: OnError
    dedup: bool
    order: Order
    budget: float | Mapping[str, float]
    on: Any
    forward_env: str | Sequence[str]


class DefaultOptions(_RunOptions, total=False):
    """The options that `LLM` takes for all its calls: those of `LLM.ask`, and of many rows what each run may share."""

    poll: float


class MapOptions(_RunOptions, total=False):
    """The options of `%%llm --each` as keyword arguments of `LLM.map`, which describes them."""

    again: bool
    sample: int
    on_progress: Callable[[Any], object]


class BatchOptions(_AnyOptions, total=False):
    """The options of `%%llm --each --batch` as keyword arguments of `LLM.batch`, which describes them."""

    on_error: OnError
    dedup: bool
    budget: float | Mapping[str, float]
    again: bool
    poll: float
    batch_file: str | PathLike[str]
    on_progress: Callable[[Any], object]


def _declared() -> Iterator[Option]:
    group = ""
    for item in fields(Options):
        group = _GROUPS.get(item.name, group)
        if item.name == "parameters":
            yield from (parameter.option(group) for parameter in PARAMETERS.values())
        else:
            yield Option(item.name, group=group, **item.metadata)


OPTIONS: tuple[Option, ...] = tuple(_declared())
BY_FLAG: Mapping[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS} | {"as": BY_FLAG["--as"]}
OF_ROWS = tuple(option.name for option in OPTIONS if option.group == _GROUPS["each"] and option.name != "each")
"""Options that say how many rows are asked for."""
OF_BATCHES = tuple(option.name for option in OPTIONS if option.group == _GROUPS["batch"])
"""Options that say how rows are sent as an offline batch."""
