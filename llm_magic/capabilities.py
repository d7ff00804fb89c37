"""Capabilities of a model at an endpoint, as data: nobody asks a class what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llm_magic.options.parameters import PARAMETERS, Api

__all__ = ["ALL_PARAMETERS", "Api", "Capabilities", "Dialect", "Kind"]

Kind = Literal["json", "choices", "regex", "grammar"]
"""Kinds of constraint on an answer."""

Dialect = Literal[
    "json_schema",  # response_format / text.format of OpenAI
    "structured_outputs",  # vLLM
    "llama_json_schema",  # llama.cpp: response_format json_schema, never strict
    "llama_grammar",  # llama.cpp: grammar (GBNF)
    "json_object",  # response_format json_object, the schema in the prompt
    "tool_call",  # a forced call of one function whose parameters are the schema
    "prompt",  # asked for in words only
]
"""Ways in which a server takes a constraint."""

ALL_PARAMETERS = frozenset(PARAMETERS)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities of one model at one endpoint.

    `dialects` says which dialect is used for each kind of constraint; a kind that is absent is refused
    before sending. `parameters` are those that the API takes, by our names. `context` is the model's
    context in tokens where the server told it.
    """

    api: Api = "chat"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens", "max_output_tokens"] = "max_tokens"
    dialects: dict[Kind, Dialect] = field(default_factory=lambda: {"json": "prompt", "choices": "prompt"})
    parameters: frozenset[str] = ALL_PARAMETERS
    stream_usage: bool = True
    """Whether `stream_options.include_usage` may be sent."""
    images: bool | None = None
    """Whether the model takes images; None where nobody told."""
    tools: bool = True
    strict_tools: bool = True
    """Whether `strict: true` may be sent with a tool."""
    store: bool | None = None
    """What to send as `store` on the Responses API; None sends nothing."""
    encrypted_reasoning: bool = False
    """Whether reasoning is asked for in encrypted form on the Responses API, to go back with the next request."""
    send_reasoning: bool = True
    """Whether reasoning goes back to the server that sent it."""
    batches: bool | None = None
    """Whether offline batches are taken, by the routes /files and /batches; None where nobody told: it is tried."""
    batch_prefix: str = "/v1"
    """What stands before the path of the API in each line of a batch: `/v1/chat/completions`."""
    batch_endpoint: str | None = None
    """The `endpoint` that a batch is created with; None for the one that its lines name."""
    context: int | None = None
    system_role: Literal["system", "developer"] = "system"
