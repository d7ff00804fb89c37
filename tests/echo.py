"""A server that says what the prompt tells it to (`SAY Hello`), and so shows what each option does."""

from __future__ import annotations

from typing import Any

from servers import Answer, Received, ScriptedServer, chunk, document, stream

PREAMBLE = r"""
import base64
%load_ext llm_magic
def f(x: int) -> int:
    "Add one."
    return x + 1
png = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
yes = 'root ::= "yes" | "no"'
title = "The sea"
"""


def texts(asked: Any) -> list[str]:
    """Return the texts of a body's messages, in any API."""
    if "prompt" in asked:
        return [asked["prompt"]]
    items = asked.get("messages") or asked["input"]
    contents = [item.get("content") or "" for item in items]
    return ["".join(part.get("text", "") for part in each) if isinstance(each, list) else each for each in contents]


def answer(request: Received) -> Answer:
    """Answer as the first prompt that says so wants it."""
    if request.path.endswith("/models"):
        return document({"data": [{"id": "m"}, {"id": "other"}]})
    asked = request.json
    if request.path.endswith("/embeddings"):
        rows = [{"index": at, "embedding": [1.0, 2.0]} for at in range(len(asked["input"]))]
        return document({"data": rows, "model": asked["model"]})
    words = texts(asked)
    told = [text.partition("SAY ")[2].partition("\n")[0].partition("\\end")[0] for text in words if "SAY " in text]
    said = (told[-1] if told else "Hello").replace("\\n", "\n").strip()
    if said == "GONE":
        return document({"error": {"message": "no server behind this proxy"}}, 503, {"retry-after": "0"})
    if said == "LONG":
        message = "This model's maximum context length is 10 tokens. However, your messages resulted in 20 tokens."
        return document({"error": {"message": message, "code": "context_length_exceeded"}}, 400)
    if said == "FAIL":
        return document({"error": {"message": "broken"}}, 500, {"retry-after": "0"})
    called = any(item.get("role") == "tool" for item in asked.get("messages", ()))
    if asked.get("tools") and asked.get("tool_choice") != "none" and (not called or said == "FOREVER"):
        call = {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
        return stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))
    if request.path.endswith("/responses"):
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said}]}
        done = {"object": "response", "status": "completed", "model": "m", "output": [item]}
        return stream({"type": "response.completed", "response": done}, done=False)
    if request.path.endswith("/chat/completions"):
        messages = {"message": {"role": "assistant", "content": said}}
    else:
        messages = {"text": said}
    choices = [{"index": at, **messages, "finish_reason": "stop"} for at in range(asked.get("n", 1))]
    if not asked.get("stream"):
        return document({"id": "a", "model": asked["model"], "choices": choices})
    if "text" in messages:
        return stream({"id": "a", "model": "m", "choices": choices})
    logprobs = {"content": [{"token": said, "logprob": -0.5, "top_logprobs": []}]} if asked.get("logprobs") else None
    parts = [{"index": each["index"], "delta": {"content": said}, "logprobs": logprobs} for each in choices]
    ends = [{"index": each["index"], "delta": {}, "finish_reason": "stop"} for each in choices]
    return stream(*({"id": "a", "model": "m", "choices": [part]} for part in (*parts, *ends)))


def echo() -> ScriptedServer:
    """Return the server; use it as a context manager."""
    return ScriptedServer(answer)
