"""The request of one model before anything is known of its endpoint; as plain data, what a recording is found by.

Provider, model, messages, parameters, output type and tools are in it; the URL, keys, headers, hints in the prompt,
the dialect of a constraint, streaming and deadlines are not, so that another server, key or version finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magic.messages import Image, Message, Part, Text, system, user
from llm_magic.request import Request
from llm_magic.secrets import reveal
from llm_magic.session.plan import BoundModel, Plan, PlannedModel

_HASHED = 12
"""Characters of the hash that stands for a URL."""


class Feedback(Message):
    """A user's message that says what is wrong with a value: its words may change, what it asks for does not."""

    __slots__ = ()


def feedback(reason: str) -> Feedback:
    """Return the message that asks for a valid value."""
    text = f"That answer is not valid: {reason} Answer again, with the valid value only."
    return Feedback("user", (Text(text),))


def in_words(message: Message) -> Message:
    """Return the result of a tool without its images, which its text names; any other message as it is."""
    if message.role != "tool" or all(isinstance(part, Text) for part in message.parts):
        return message
    return replace(message, parts=tuple(part for part in message.parts if isinstance(part, Text)))


@dataclass(frozen=True, slots=True)
class NeutralRequest:
    """One request of a run, for one model and any endpoint: the plan, and what rounds have added to it."""

    plan: Plan
    planned: PlannedModel
    added: tuple[Message, ...] = ()
    """Answers, results of tools and feedback of the rounds before."""
    alone: bool = False
    """Whether one answer of several (`n`) is asked for again, by itself."""

    def request(self, bound: BoundModel) -> Request:
        """Return the request for a model whose endpoint is known."""
        request = bound.compose(self.plan)
        if bound.capabilities.images is False:
            request = replace(request, messages=tuple(map(in_words, request.messages)))
        if not self.added:
            return request
        after_tools = any(message.role == "tool" for message in self.added)
        return replace(
            request,
            messages=(
                *request.messages,
                *(map(in_words, self.added) if bound.capabilities.images is False else self.added),
            ),
            tool_choice=None if after_tools else request.tool_choice,
            parameters=request.parameters.without("n") if self.alone else request.parameters,
        )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages, as they are asked before a hint is added or the conversation is cut to fit."""
        plan, options = self.plan, self.planned.options
        first = (system(options.system),) if options.system else ()
        turns = (message for turn in plan.turns for message in turn.messages)
        parts = (*plan.context, *plan.parts)
        prompt = (user(*parts),) if parts else ()
        return (*first, *turns, *plan.before, *prompt, *self.added)

    def data(self, model: str) -> dict[str, Any]:
        """Return it as plain data; `model` is the one that a provider alone leads to, where none was named."""
        plan, options = self.plan, self.planned.options
        parameters = {name: value for name, value in options.parameters.items() if not (self.alone and name == "n")}
        data: dict[str, Any] = {
            "kind": "answer",
            **endpoint(self.planned.target.provider.name, options.base_url),
            "model": self.planned.target.model or model,
            "messages": documents(self.messages),
        }
        told = {
            "parameters": {**options.param, **parameters},
            "output": plan.spec.identity if plan.spec is not None else {},
            "tools": [
                {"name": each.name, "description": each.tool.description, "parameters": each.tool.parameters}
                for each in plan.tools.values()
            ],
            "tool_choice": options.tool_choice if plan.tools else None,
            "api": "completions" if self._api == "completions" else None,
        }
        return data | {name: value for name, value in told.items() if value}

    @property
    def _api(self) -> str:
        """The API; of it only this matters, that Completions applies no template to the prompt."""
        return self.planned.options.api or str(getattr(self.planned.target.provider, "api", ""))


def endpoint(provider: str, base_url: str | None) -> dict[str, Any]:
    """Return whom is asked: the provider's name, and for `--base-url` a hash of the URL."""
    if not base_url:
        return {"provider": provider}
    url = str(reveal(base_url)).rstrip("/")
    return {"provider": provider, "url": hashlib.sha256(url.encode()).hexdigest()[:_HASHED]}


def documents(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return messages as plain data: images by their hash, tool calls by their order in place of the server's ids."""
    order = {call.id: number for number, call in enumerate(call for each in messages for call in each.tool_calls)}
    return [_document(message, order) for message in messages]


def _document(message: Message, order: Mapping[str, int]) -> dict[str, Any]:
    if isinstance(message, Feedback):
        return {"role": "user", "again": True}
    parts = [_part(part) for part in message.parts]
    lone = len(parts) == 1 and isinstance(message.parts[0], Text)
    document: dict[str, Any] = {"role": message.role, "content": parts[0]["text"] if lone else parts}
    if message.tool_calls:
        document["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    if message.tool_call_id is not None:
        document["call"] = order.get(message.tool_call_id, message.tool_call_id)
    if message.reasoning is not None and not message.reasoning.sender:  # written out by the user
        document["reasoning"] = list(message.reasoning.items)
    return document


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        if part.data is None:
            return {"image_url": part.url}
        return {"image": hashlib.sha256(part.data).hexdigest(), "media_type": part.media_type}
    return {"text": part.text}
