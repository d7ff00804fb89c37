"""The options of a cell, each said once: what `Options` holds is what the parser, `--help` and completion know."""
# ruff: noqa: RUF009 - `_option` makes the field

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from llm_magic.errors import OptionError
from llm_magic.options import option as take
from llm_magic.options.option import Option
from llm_magic.options.parameters import GROUP, PARAMETERS, Api, RequestParameters

Show = Literal["markdown", "text", "code", "json", "none"]

WHERE, VALUE, PROMPT, TOOLS = "Which model", "The value", "The prompt", "Tools"
SHOWN = "How it runs and is shown"


def _option(group: str, flags: str, purpose: str, metavar: str = "", **more: Any) -> Any:
    """Return the field of an option; `flags` are separated by spaces, `more` is as in `Option`."""
    said = {"flags": tuple(flags.split()), "group": group, "help": purpose, "metavar": metavar, **more}
    return field(default_factory=dict, metadata=said) if "pairs" in more else field(default=None, metadata=said)


@dataclass(slots=True)
class Options:
    """What the options of one cell say; None (or empty) where an option was not given."""

    model: str | None = _option(
        WHERE, "-m --model", "an alias, provider:model, or a name that a route knows", "NAME", read=take.nonempty
    )
    base_url: str | None = _option(
        WHERE, "--base-url", "another URL for this call; no key travels along", "URL", read=take.url
    )
    api: Api | None = _option(
        WHERE,
        "--api",
        "chat, responses or completions",
        "API",
        read=take.one_of(*get_args(Api)),
        words=get_args(Api),
    )
    timeout: float | None = _option(WHERE, "--timeout", "seconds without a sign of life", "SECONDS", read=take.seconds)
    retries: int | None = _option(
        WHERE, "--retries", "further attempts after a passing failure", "N", read=take.whole(0)
    )
    header: dict[str, str] = _option(
        WHERE,
        "--header",
        "a header of this request (env:X reads a variable); repeatable",
        "NAME=VALUE",
        read=take.header,
        pairs=True,
    )
    out: str | None = _option(VALUE, "-o --out", "variable to bind the value to", "NAME", read=take.variable)
    output_type: Any = _option(
        VALUE, "--as", "type of the value: int, list[City], Literal['a', 'b'], …", "TYPE", read=take.nonempty
    )
    schema: Any = _option(
        VALUE, "--schema", "JSON Schema: a file, a dict, or 'name, age int'", "SCHEMA", read=take.nonempty
    )
    choices: tuple[str, ...] | None = _option(VALUE, "--choices", "exactly one of these", "A,B,C", read=take.words)
    regex: str | None = _option(
        VALUE, "--regex", "text that matches this pattern as a whole", "PATTERN", read=take.nonempty
    )
    grammar: str | None = _option(
        VALUE, "--grammar", "text of this grammar: a file or a variable", "GRAMMAR", read=take.nonempty
    )
    retries_invalid: int | None = _option(
        VALUE, "--retries-invalid", "how often to ask again for a valid value", "N", read=take.whole(0)
    )
    parameters: RequestParameters = field(default_factory=RequestParameters)
    param: dict[str, Any] = _option(
        GROUP,
        "-p --param",
        "any other field of the body, read as JSON; repeatable",
        "NAME=VALUE",
        read=take.parameter,
        pairs=True,
    )
    system: str | None = _option(PROMPT, "-s --system", "system prompt", "TEXT", read=take.nonempty)
    image: tuple[Any, ...] | None = _option(
        PROMPT, "-i --image", "an image: path, URL or variable; repeatable", "IMAGE", read=take.nonempty, repeats=True
    )
    raw: bool | None = _option(PROMPT, "--raw", "send the body as it stands, no {{ }}")
    chat: str | None = _option(
        PROMPT, "-c --chat", "the conversation that the cell belongs to", "NAME", read=take.nonempty
    )
    once: bool | None = _option(PROMPT, "--once", "neither send nor keep history")
    tools: Any = _option(TOOLS, "--tools", "Python functions that the model may call", "F,G", read=take.words)
    tool_choice: str | None = _option(
        TOOLS,
        "--tool-choice",
        "auto, none, required, or the name of one",
        "CHOICE",
        read=take.nonempty,
        words=("auto", "none", "required"),
    )
    max_tool_rounds: int | None = _option(
        TOOLS, "--max-tool-rounds", "rounds of calls at most", "N", read=take.whole(1)
    )
    confirm: bool | None = _option(TOOLS, "--confirm", "ask before each call")
    code: bool | None = _option(SHOWN, "--code", "put the answer's code into the next cell")
    background: bool | None = _option(SHOWN, "-b --background", "return at once with a job; the answer goes on here")
    no_stream: bool | None = _option(SHOWN, "--no-stream", "show the answer when it is complete")
    show: str | None = _option(
        SHOWN,
        "--show",
        "markdown, text, code, json or none",
        "HOW",
        read=take.one_of(*get_args(Show)),
        words=get_args(Show),
    )
    dry_run: bool | None = _option(SHOWN, "--dry-run", "show the exact request, send nothing")
    help: bool | None = _option(SHOWN, "-h --help", "this page")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """Return the options that have these values, by their names."""
        own = {name: value for name, value in values.items() if name not in PARAMETERS}
        given: Any = {name: value for name, value in values.items() if name in PARAMETERS}
        return cls(**own, parameters=given)

    def values(self) -> dict[str, Any]:
        """Return the values by the names of their options, without those that are None."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "parameters"}
        return {name: value for name, value in {**own, **self.parameters}.items() if value is not None}

    def over(self, defaults: Options) -> Options:
        """Return these options, each one not given here taken from `defaults`."""
        ours, theirs = self.values(), defaults.values()
        pairs = {option.name: {**theirs[option.name], **ours[option.name]} for option in OPTIONS if option.pairs}
        return Options.of({**theirs, **ours, **pairs})


class AskOptions(RequestParameters, total=False):
    """The options of `%%llm` as keyword arguments of `LLM.ask`, which describes them."""

    system: str
    images: Sequence[Any]
    output_type: Any
    schema: Any
    choices: Sequence[str]
    regex: str
    grammar: str
    retries_invalid: int
    param: dict[str, Any]
    header: dict[str, str]
    base_url: str
    timeout: float
    retries: int
    api: Api
    chat: str
    tools: Sequence[Callable[..., Any]]
    tool_choice: str
    max_tool_rounds: int


def _declared() -> Iterator[Option]:
    for item in fields(Options):
        if item.name == "parameters":
            yield from (parameter.option for parameter in PARAMETERS.values())
        else:
            yield Option(item.name, **item.metadata)


OPTIONS: tuple[Option, ...] = tuple(_declared())
BY_FLAG: Mapping[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS} | {"as": BY_FLAG["--as"]}

_OF_ONE_CELL = frozenset({"model", "base_url", "out", "dry_run", "help"})
"""Options of which a default would change what a cell says."""
_OBJECTS = frozenset({"output_type", "schema", "choices", "tools", "image"})
"""Options whose configured value may be an object that is no text."""


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
    known: dict[str, Any] = {}
    fields_of_body: dict[str, Any] = {}
    for key, value in values.items():
        option = BY_NAME.get(key.replace("-", "_"))
        if option is None:
            fields_of_body[key] = value
        elif option.name in _OF_ONE_CELL:
            raise OptionError(f"{source} cannot set {key!r}.", f"Say {option.flags[-1]} in the cell.")
        elif value is not None:
            known[option.name] = _configured(option, value, source)
    return Options.of({**known, "param": {**known.get("param", {}), **fields_of_body}})


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
        return tuple(_configured_one(option, option.read, item, source) for item in value)
    read = _configured_one(option, option.read, value, source)
    return (read,) if option.repeats else read


def _configured_one(option: Option, read: Callable[[str], Any], value: Any, source: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        if option.name in _OBJECTS:
            return value
        raise OptionError(f"{source}: {option.name} cannot be {value!r}.")
    try:
        return read(str(value))
    except ValueError as error:
        raise OptionError(f"{source}: {option.name} must be {error}, not {value!r}.") from None
