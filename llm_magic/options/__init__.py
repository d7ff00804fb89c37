"""The options of a cell: what they say, and the table of what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llm_magic.capabilities import Api
from llm_magic.errors import OptionError
from llm_magic.options.table import BY_FLAG, BY_NAME, OPTIONS, Option

__all__ = ["BY_FLAG", "BY_NAME", "NOT_A_DEFAULT", "OPTIONS", "Option", "Options", "from_mapping"]


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
