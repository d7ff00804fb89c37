"""What was asked, and what was answered, as text to read; what a hand has changed is read as far as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Data = Mapping[str, Any]


def model_of(asked: Data) -> str:
    """Return whom was asked, as `provider:model`."""
    provider, model = str(asked.get("provider", "")), str(asked.get("model", ""))
    return f"{provider}:{model}" if provider or model else ""


def message_text(message: Any) -> str:
    """Return the text of a message, or a text as it is; images are left out."""
    if isinstance(message, str):
        return message
    if isinstance(message, Mapping) and message.get("again") is True:
        return "(asked again)"
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and "text" in part)


def asked_text(asked: Data) -> str:
    """Return the text that was asked last; of embeddings each, on a line of its own.

    >>> asked_text({"kind": "answer", "messages": [{"role": "user", "content": "Hi"}]})
    'Hi'

    """
    if asked.get("kind") == "tool":
        return f"{asked.get('name', '')}({asked.get('arguments', '')})"
    is_each = asked.get("kind") == "embeddings"
    texts = asked.get("input") if is_each else asked.get("messages")
    asked_last = (texts if is_each else texts[-1:]) if isinstance(texts, list) else []
    return "\n".join(map(message_text, asked_last))


def answered_text(asked: Data, answer: Data) -> str:
    """Return what was answered: the text, and of several answers each.

    >>> answered_text({"kind": "answer"}, {"choices": [{"text": "Hello"}]})
    'Hello'

    """
    kind = asked.get("kind")
    if kind == "answer":
        choices = answer.get("choices")
        said = [_choice(each) for each in (choices if isinstance(choices, list) else ()) if isinstance(each, Mapping)]
        return "\n\n".join(filter(None, [*said, str(answer.get("refusal") or "")]))
    if kind == "embeddings":
        dimensions, texts = answer.get("dimensions"), asked.get("input")
        of = f" of {dimensions} numbers" if isinstance(dimensions, int) else ""
        count = len(texts) if isinstance(texts, list) else 0
        return f"{count} vector{'s' * (count != 1)}{of}"
    return str(answer.get("result" if kind == "tool" else "model") or "")


def _choice(choice: Data) -> str:
    """Return what one answer says, its calls included."""
    calls = choice.get("tool_calls")
    called = [
        f"{call.get('name', '')}({call.get('arguments', '')})"
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, Mapping)
    ]
    images = choice.get("images")
    shown = ["[image]"] * len(images) if isinstance(images, list) else []
    return "\n".join(filter(None, [str(choice.get("text") or ""), *shown, *called]))
