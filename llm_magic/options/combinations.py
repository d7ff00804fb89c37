"""Combinations of options: which exclude each other, and which default gives way to what is nearer to the cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import combinations
from typing import Any, NamedTuple

from llm_magic.errors import OptionError
from llm_magic.options import BY_NAME, OF_BATCHES, OF_ROWS, PARAMETERS, Options
from llm_magic.options.batches import NOT_IN_BATCH_FILES, NOT_IN_BATCHES, is_batch

TYPED = ("output_type", "schema", "choices", "regex", "grammar")
"""Options that ask for a value."""


class Exclusion(NamedTuple):
    """Two options of which one leaves the other without a meaning, and why; empty where that is plain."""

    one: str
    other: str
    why: str = ""


_OF_ONE_MODEL = {
    "code": "each model has an answer of its own",
    "batch": "a batch is one model's",
    "batch_file": "a file of requests is one model's",
}
"""Options that are for one model alone, and why."""

_OF_WHOLE_CELLS = ("show", "background", "out", "code", "dry_run", "each", "batch", "batch_file", "wait")
"""Options that say how a cell runs and is shown, whichever models it asks."""

_NO_CODE = "the answer is a value, which holds no code"

EXCLUSIONS = (
    *(Exclusion(*pair) for pair in combinations(TYPED, 2)),
    Exclusion("chat", "once"),
    Exclusion("stream", "no_stream"),
    Exclusion("output_type", "code", _NO_CODE),
    Exclusion("schema", "code", _NO_CODE),
    Exclusion("choices", "code", _NO_CODE),
    Exclusion("background", "dry_run", "nothing is sent, so nothing goes on"),
    Exclusion("each", "code", "each row has an answer of its own"),
    Exclusion("each", "stream", "rows are shown when they are complete"),
    *(Exclusion("batch", other, why) for other, why in NOT_IN_BATCHES.items()),
    *(Exclusion("batch_file", other, why) for other, why in NOT_IN_BATCH_FILES.items()),
)
"""All pairs that are an error in one cell; any other pair is sensible, or a matter of the endpoint or the value."""

OURS: Mapping[str, str] = {
    "model": "Say -m NAME.",
    "messages": "The cell's text is the prompt, -s the system prompt; -c NAME continues a conversation.",
    "input": "The cell's text is the prompt; -i adds an image.",
    "prompt": "The cell's text is the prompt.",
    "stream": "Say --stream or --no-stream.",
}
"""Fields of the body that a cell always sets itself, and what to say in place of them."""

_OF_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "system": ("instructions",),
    "tools": ("tools", "functions"),
    "tool_choice": ("tool_choice", "function_call"),
    "no_stream": ("stream_options",),
    **dict.fromkeys(TYPED, ("response_format", "text", "structured_outputs", "grammar", "json_schema")),
}
"""Fields of the body that options set which are no request parameters, in any API."""
_JOINED: Mapping[str, tuple[str, ...]] = {
    "text": ("format",),
    "reasoning": ("effort",),
    "structured_outputs": ("json", "regex", "choice", "grammar", "json_object", "structural_tag"),
}
"""Fields that are objects, of which an option sets only these members: others may stand beside them."""


def check(options: Options, source: str = "") -> None:
    """Refuse what cannot be meant together, and fields of the body that a cell sets itself.

    `source` is what set these options, for errors; empty for the cell itself.

    Raises
    ------
    OptionError
        Names both.

    """
    before = f"{source}: " if source else ""
    for name, value in options.param.items():
        if name in OURS and not (name == "prompt" and isinstance(value, Mapping)):  # a stored prompt of Responses
            raise OptionError(f"{before}-p {name} is refused: the cell sets this field itself.", OURS[name])
    given = _given(options)
    for one, other, why in EXCLUSIONS:
        if one in given and other in given:
            reason = f": {why}" if why else ""
            raise OptionError(f"{before}{flag(one)} and {flag(other)} exclude each other{reason}.", "Keep one of them.")
    for option, name in _set_twice(options, options):
        raise OptionError(f"{before}{flag(option)} and -p {name} set the same field.", "Keep one of them.")


def put_over(nearer: Options, farther: Options) -> Options:
    """Return the nearer options over the farther ones, of which those go that the nearer ones leave no meaning.

    >>> put_over(Options(regex="a+"), Options(output_type=int, raw=True)) == Options(regex="a+", raw=True)
    True

    """
    given = _given(nearer)
    pairs = [pair for one, other, _ in EXCLUSIONS for pair in ((one, other), (other, one))]
    gone = {other for one, other in pairs if one in given}
    gone |= {option for option, _ in _set_twice(farther, nearer)}
    fields_gone = {name for _, name in _set_twice(nearer, farther)}
    left: dict[str, Any] = {name: {} if BY_NAME[name].pairs else None for name in gone - set(PARAMETERS)}
    parameters: Any = {name: value for name, value in farther.parameters.items() if name not in gone}
    param = {name: value for name, value in farther.param.items() if name not in fields_gone}
    return nearer.over(replace(farther, parameters=parameters, param=param, **left))


def need_tools(given: Options, in_force: Options) -> None:
    """Refuse what is given for tools where none are in force, or none may be called; defaults are not meant then."""
    asked = [name for name in ("tool_choice", "max_tool_rounds", "confirm", "record_tools") if name in _given(given)]
    if asked and not in_force.tools:
        raise OptionError(f"{flag(asked[0])} needs --tools.", "--tools F,G names the Python functions.")
    if given.tool_choice == "none" and asked[1:]:
        raise OptionError(
            f"--tool-choice none and {flag(asked[1])} exclude each other: no tool is called.", "Keep one of them."
        )


def need_each(given: Options, *, several: bool = False) -> None:
    """Refuse what is given for many rows, or for a batch, where one cell is asked; defaults are not meant then.

    `several` says that several models are asked, of which some may fail.
    """
    asked = [name for name in (*OF_ROWS, *OF_BATCHES) if name in _given(given)]
    if several and "on_error" in asked:
        asked.remove("on_error")
    alone = [] if is_batch(given) else [name for name in asked if name in {"wait", "poll"}]
    if alone:
        raise OptionError(f"{flag(alone[0])} needs --batch.", "--batch sends the rows of --each as an offline batch.")
    if asked and given.each is None:
        raise OptionError(
            f"{flag(asked[0])} needs --each.", "--each EXPR gives the inputs: a DataFrame, a list, any iterable."
        )
    if given.again and given.record == "only":
        raise OptionError("--again and --record only exclude each other: nothing is sent.", "Keep one of them.")


def need_one_model(given: Options, names: Iterable[str]) -> None:
    """Refuse what is given for one model where several are asked; defaults are not meant then."""
    for name, why in _OF_ONE_MODEL.items():
        if name in _given(given):
            raise OptionError(
                f"{flag(name)} and several models ({', '.join(names):.200}) exclude each other: {why}.",
                "Name one model.",
            )


def need_alike(in_force: Mapping[str, Options]) -> None:
    """Refuse models whose own options say different things of the cell as a whole, which is one."""
    (first, options), *others = in_force.items()
    given = _given(options)
    for name in _OF_WHOLE_CELLS:
        other = next((model for model, each in others if _given(each).get(name) != given.get(name)), None)
        if other is not None:
            raise OptionError(
                f"{flag(name)} holds for the whole cell, and {first} and {other} set it differently.",
                f"Say {flag(name)} in the cell, or ask them in two cells.",
            )


def need_cluster(given: Options, *, on_cluster: bool, servers: tuple[str, ...] = ()) -> None:
    """Refuse what is given for the workers of a cluster where rows are asked from here; defaults are not meant then.

    `servers` are the MCP servers whose tools are offered, which workers have not.
    """
    if servers and on_cluster:
        raise OptionError(
            f"--tools mcp:{servers[0]} and --on exclude each other: MCP servers run beside this kernel.",
            "Leave out one of them.",
        )
    if given.forward_env and not on_cluster:
        raise OptionError(
            "--forward-env needs --on: rows are asked from this process, which has its variables.",
            "Leave it out, or say --on dask.",
        )


def need_type(given: Options) -> None:
    """Refuse what is given for values where the answer is text."""
    if given.retries_invalid is not None:
        raise OptionError(
            "--retries-invalid needs an output type: text is never invalid.",
            "Say --as, --schema, --choices, --regex or --grammar; --retries is for failures.",
        )


def flag(name: str) -> str:
    """Return the long flag of an option.

    >>> flag("output_type"), flag("max_tokens")
    ('--as', '--max-tokens')

    """
    return BY_NAME[name].flags[-1]


def _given(options: Options) -> dict[str, Any]:
    """Return the options that say something, by name: a switch that is off does not."""
    named = {item.name: getattr(options, item.name) for item in fields(options) if item.name != "parameters"}
    named |= options.parameters
    return {name: value for name, value in named.items() if value is not None and value is not False and value != {}}


def _set_twice(options: Options, others: Options) -> Iterator[tuple[str, str]]:
    """Yield each option, and the field of the others' `param` that it sets, too."""
    for name in _given(options):
        for field in _fields(name):
            if field in others.param and _overlaps(field, others.param[field]):
                yield name, field


def _fields(name: str) -> tuple[str, ...]:
    """Return the names that an option's field has in the APIs."""
    return PARAMETERS[name].all_fields if name in PARAMETERS else _OF_OPTIONS.get(name, ())


def _overlaps(field: str, value: Any) -> bool:
    """Return whether a value of the body takes the place of what an option writes into the same field."""
    if field == "include":  # a list of what to answer with: what an option needs joins what is asked for
        return False
    members = _JOINED.get(field)
    return members is None or not isinstance(value, Mapping) or not set(members).isdisjoint(value)
