"""What a cell gives back: the answer with everything known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magic.events import Attempt, FinishReason, Usage
from llm_magic.messages import Message
from llm_magic.records import Records, is_frame, records_of

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A tool call and what became of it; `result` is None where it was not carried out."""

    id: str
    name: str
    arguments: str
    result: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of several answers to the same prompt (`n`)."""

    text: str
    finish_reason: FinishReason
    value: Any = None
    reasoning: str = ""


@dataclass
class Response:
    """An answer with everything known about it.

    Attributes
    ----------
    text
        The model's text, exactly.
    value
        What is bound to a variable: the text, the validated value of the output type, or with `n` a list of these.
    reasoning
        The model's reasoning of all rounds, apart from the answer.
    tool_calls
        The tool calls of all rounds, with their results.
    model, model_reported
        The model as asked for, and as the server names it.
    finish_reason
        `stop`, `length`, `tool_calls`, `content_filter`, `refusal`, `interrupted` or `truncated`.
    usage
        Tokens of all requests of this cell, as the server counted them; None where it did not tell.
    cost
        US dollars, where prices are configured or the endpoint reports it; else None.
    first_token_seconds, seconds
        From sending to the first token, and to the end.
    headers
        Response headers, names in lower case.
    messages
        What was sent, conversation included.
    alternatives
        All answers, where several were asked for.
    attempts
        Every HTTP request made, failed ones included.
    structured
        The dialect in which the output type was asked for (`json_schema`, `structured_outputs`, …), or None.
    notes
        What the user should know: rows cut, a schema sent non-strict, a fallback taken.

    """

    text: str = ""
    value: Any = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolRun, ...] = ()
    model: str = ""
    model_reported: str = ""
    provider: str = ""
    finish_reason: FinishReason = "truncated"
    usage: Usage | None = None
    cost: float | None = None
    first_token_seconds: float | None = None
    seconds: float = 0.0
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    logprobs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    alternatives: tuple[Alternative, ...] = ()
    messages: tuple[Message, ...] = field(default=(), repr=False)
    attempts: tuple[Attempt, ...] = field(default=(), repr=False)
    filters: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    structured: str | None = None
    notes: tuple[str, ...] = ()
    history_turns: int = 0
    """Turns of the conversation that were sent with the prompt."""

    def __str__(self) -> str:
        return self.text

    @property
    def rate_limits(self) -> dict[str, str]:
        """The `x-ratelimit-*` headers without that prefix."""
        prefix = "x-ratelimit-"
        return {name.removeprefix(prefix): value for name, value in self.headers.items() if name.startswith(prefix)}

    def frame(self) -> Records:
        """Return a value that is a list of records as columns and rows.

        Raises
        ------
        TypeError
            The value is no list of records.

        """
        found = records_of(self.value)
        if found is None:
            raise TypeError(f"The value is no list of records but {type(self.value).__name__}.")
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return a value that is a list of records as a pandas `DataFrame`; pandas has to be installed."""
        return self.value if is_frame(self.value) else self.frame().to_frame()

    def _repr_markdown_(self) -> str:
        from llm_magic.markdown import for_notebook

        return for_notebook(self.text)
