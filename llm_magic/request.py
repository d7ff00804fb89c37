"""What is asked, as data that belongs to no API: the wire writes it as the body of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llm_magic.messages import Message


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a request. None means not given, and is not sent.

    `max_tokens` caps the answer, `logprobs` asks for that many alternatives per token (0: the token's own
    only), `extra` holds further fields of the body by the server's own names.
    """

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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """Return the parameters that were given, by our names, `extra` apart."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function as the model sees it: `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One request, independent of the API that will carry it.

    `structure` are the body fields that constrain the answer, already in the dialect of the endpoint (see
    `llm_magic.output.dialects`). `tool_choice` is `auto`, `none`, `required` or the name of a tool.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    structure: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Values among the headers that are never shown."""
