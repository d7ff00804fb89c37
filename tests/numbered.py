"""A server whose answers are never equal: it numbers them, so that a replayed one is told from one asked anew.

The last prompt may say how to answer: `REASON`, `CUT`, `FILTERED`, `REFUSE`, `BREAK`, `FAIL`, `HANG`, `INVALID` (no
number at first), `NUMBER`, `SAY …`; a body with tools gets a call of `f` first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from echo import texts
from servers import HANG, RESET, Answer, Received, ScriptedServer, document, stream

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


class NumberedServer(ScriptedServer):
    """The server; `asked` are the requests for answers and vectors, without those for the list of models."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count(1)
        super().__init__(self._numbered)

    @property
    def asked(self) -> list[Received]:
        return [received for received in self.requests if not received.path.endswith("/models")]

    def _numbered(self, received: Received) -> Answer:
        if received.path.endswith("/models"):
            return document({"data": [{"id": "first"}, {"id": "second"}]})
        number, asked = next(self._numbers), received.json
        headers = {"x-request-id": f"req-{number}"}
        if received.path.endswith("/embeddings"):
            rows = [
                {"index": at, "embedding": [number + 0.1, at + 1 / 3, float(len(text))]}
                for at, text in enumerate(asked["input"])
            ]
            usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
            return document({"data": rows, "model": "embedder", "usage": usage}, 200, headers)
        words = texts(asked)
        if received.path.endswith("/responses"):
            return self._response(number, words, headers)
        if received.path.endswith("/completions") and not received.path.endswith("/chat/completions"):
            choice = {"index": 0, "text": f"Answer {number}", "finish_reason": "stop"}
            whole = {"id": "a", "model": "served", "choices": [choice], "usage": USAGE}
            return stream(whole, headers=headers) if asked.get("stream") else document(whole, 200, headers)
        return self._chat(number, asked, words, headers)

    def _response(self, number: int, words: list[str], headers: dict[str, str]) -> Answer:
        content = [{"type": "output_text", "text": f"Answer {number}"}]
        item = {"type": "message", "role": "assistant", "content": content}
        done = {"object": "response", "status": "completed", "model": "served", "output": [item]}
        if "REASON" in words[-1]:
            summary = [{"type": "summary_text", "text": f"Thought {number}"}]
            reasoning = {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": "c2Vh"}
            done["output"] = [reasoning, item]
        return stream({"type": "response.completed", "response": done}, done=False, headers=headers)

    def _chat(self, number: int, asked: Any, words: list[str], headers: dict[str, str]) -> Answer:
        prompt = next((text for text in reversed(words) if text), "")
        if "FAIL" in prompt:
            return document({"error": {"message": "broken"}}, 500, {"retry-after": "0"})
        returned = any(message["role"] == "tool" for message in asked["messages"])
        delta: dict[str, Any] = {"content": f"Answer {number}"}
        finish = "stop"
        if asked.get("tools") and not returned:
            delta, finish = {"tool_calls": [{**CALL, "id": f"call_{number}"}]}, "tool_calls"
        elif "SAY " in prompt:
            delta["content"] = prompt.partition("SAY ")[2].partition("\n")[0]
        elif "NUMBER" in prompt or "That answer is not valid" in prompt:
            delta["content"] = str(number)
        elif "INVALID" in prompt:
            delta["content"] = "none at all"
        elif "CUT" in prompt:
            finish = "length"
        elif "FILTERED" in prompt:
            finish = "content_filter"
        elif "REFUSE" in prompt:
            delta = {"refusal": f"Never {number}"}
        elif "REASON" in prompt:
            delta["reasoning_content"] = f"Thought {number}"
        head = {"id": f"chat-{number}", "model": "served"}
        several = range(asked.get("n", 1))
        named = [{**delta, "content": f"{delta['content']}.{at}"} if len(several) > 1 else delta for at in several]
        if not asked.get("stream"):
            choices = [
                {"index": at, "message": {"role": "assistant", **each}, "finish_reason": finish}
                for at, each in enumerate(named)
            ]
            return document({**head, "choices": choices, "usage": USAGE}, 200, headers)
        parts = [{**head, "choices": [{"index": at, "delta": each}]} for at, each in enumerate(named)]
        if "BREAK" in prompt:
            return stream(*parts, RESET, done=False, headers=headers)
        if "HANG" in prompt:
            return stream(*parts, HANG, done=False, headers=headers)
        ends = [{**head, "choices": [{"index": at, "delta": {}, "finish_reason": finish}]} for at in several]
        return stream(*parts, *ends, {**head, "choices": [], "usage": USAGE}, headers=headers)


def lines(file: Any) -> list[Any]:
    """Return the entries of a recordings file, each line read as JSON."""
    return [json.loads(line) for line in file.read_text().splitlines()]
