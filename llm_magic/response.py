"""What a cell gives back: the answer with everything known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magic.messages import Citation, Image, Message
from llm_magic.metadata import Attempt, FinishReason, Usage
from llm_magic.records import Records, is_frame, records_of

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less


def rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the `x-ratelimit-*` headers without that prefix."""
    prefix = "x-ratelimit-"
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A tool call and what became of it; `result` is None where it was not carried out."""

    id: str
    name: str
    arguments: str
    result: str | None = None
    failed: bool = False
    images: tuple[Image, ...] = ()
    """The images of the result, of a tool of an MCP server."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of several answers to the same prompt (`n`).

    Its citations, images and items are as the `Response`'s; its calls are those that were not carried out.
    """

    text: str
    finish_reason: FinishReason
    value: Any = None
    citations: tuple[Citation, ...] = ()
    images: tuple[Image, ...] = ()
    items: tuple[Mapping[str, Any], ...] = ()
    tool_calls: tuple[ToolRun, ...] = ()
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
        The tool calls of all rounds, with their results; a call of a tool that was not offered here has none.
    citations
        The sources that the answer names, of all rounds, each once: URL, title, span of the text (of the last round).
    images
        The images that the model made: a notebook displays each, `images[0].save("image.png")` writes it to a file.
        Of an image that the server has elsewhere only the URL is known; it is not fetched.
    items
        What else the server sent, of all rounds, each as a dict whose `type` says what it is: calls of the server's
        own tools (`web_search_call`, …), MCP approvals, audio, …. They are not sent back.
    model, model_reported
        The model as asked for, and as the server names it.
    finish_reason
        `stop`, `length`, `tool_calls`, `content_filter`, `refusal`, `interrupted` or `truncated`.
    usage
        Tokens of all requests of this cell, as the server counted them; None where it did not tell.
    cost
        US dollars, where prices are configured or the endpoint reports it; else None.
    first_token_seconds
        Seconds from the sending of the request that answered to its first token (of reasoning, text or a call): an
        attempt that failed before counts in `seconds` alone. Of several rounds (tools, invalid values) the first one's;
        None where nothing came.
    seconds
        Seconds from the sending of the first request to the end: failed attempts, fallbacks, tools and rounds included,
        but not what comes before any request, such as weights that are fetched or a model that is loaded.
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
    recorded
        Whether all of it comes from a recording: nothing was sent, and seconds, tokens and cost are the recorded ones.

    """

    text: str = ""
    value: Any = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolRun, ...] = ()
    citations: tuple[Citation, ...] = ()
    images: tuple[Image, ...] = ()
    items: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
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
    recorded: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def rate_limits(self) -> dict[str, str]:
        """The `x-ratelimit-*` headers without that prefix."""
        return rate_limits(self.headers)

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
