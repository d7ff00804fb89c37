"""What is asked, as data that belongs to no API: the wire writes it as the body of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

from llm_magic.messages import Message
from llm_magic.options.parameters import PARAMETERS, RequestParameters


@dataclass(frozen=True, slots=True, init=False)
class Parameters:
    """Parameters of a request: those `given` by our names, and `extra` fields by the server's.

    >>> parameters = Parameters({"max_tokens": 5}, temperature=0)
    >>> parameters.given, parameters.max_tokens, parameters.seed
    ({'max_tokens': 5, 'temperature': 0}, 5, None)

    """

    given: RequestParameters
    extra: Mapping[str, Any]

    def __init__(
        self,
        given: RequestParameters | None = None,
        extra: Mapping[str, Any] | None = None,
        **named: Unpack[RequestParameters],
    ) -> None:
        both = {**(given or {}), **named}
        object.__setattr__(self, "given", {name: value for name, value in both.items() if value is not None})
        object.__setattr__(self, "extra", extra or {})

    def __getattr__(self, name: str) -> Any:
        if name in PARAMETERS:
            return self.given.get(name)
        raise AttributeError(name)

    def without(self, name: str) -> Parameters:
        """Return all but one parameter."""
        given: Any = {**self.given, name: None}
        return Parameters(given, self.extra)


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

    `structure` are the body fields that constrain the answer, already in the dialect of the endpoint
    (see `llm_magic.output.dialects`). `tool_choice` is `auto`, `none`, `required` or the name of a tool.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    structure: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
