"""From a field of a body that a server refused back to the option of a cell that put it there."""

from __future__ import annotations

import re
from typing import Any

from llm_magic.wire.complaint import Complaint

_OPTIONS = {
    "temperature": "--temperature",
    "top_p": "--top-p",
    "max_tokens": "--max-tokens",
    "max_completion_tokens": "--max-tokens",
    "max_output_tokens": "--max-tokens",
    "seed": "--seed",
    "stop": "--stop",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "n": "--n",
    "logprobs": "--logprobs",
    "top_logprobs": "--logprobs",
    "reasoning_effort": "--reasoning-effort",
    "reasoning": "--reasoning-effort",
    "model": "--model",
    "tools": "--tools",
    "tool_choice": "--tool-choice",
    "response_format": "the output type (--as, --schema, --choices)",
    "text": "the output type (--as, --schema, --choices)",
    "structured_outputs": "the output type (--as, --schema, --choices, --regex, --grammar)",
    "grammar": "--grammar",
    "stream": "--no-stream",
    "stream_options": "--no-stream",
}
_UNMISTAKABLE = frozenset({"temperature", "logprobs", "seed"})
"""Fields whose bare name in a message is no other word."""

_QUOTED = re.compile(r"['\"`“]([A-Za-z_][A-Za-z0-9_.\[\]]*)['\"`”]")


def refused_option(complaint: Complaint, body: Any) -> str:
    """Return the next step after a refused request: leave out, or change, the option behind the refused field.

    The field is the error's `param`, or a name in its message that is a field of the `body` sent.
    """
    names = [complaint.param] if complaint.param else []
    names += _QUOTED.findall(complaint.message)
    sent = body if isinstance(body, dict) else {}
    fields = [re.split(r"[.\[]", name.removeprefix("body."))[0] for name in names]
    said = set(re.findall(r"[A-Za-z_]+", complaint.message))
    fields += [name for name in sent if name in said and ("_" in name or name in _UNMISTAKABLE)]
    for field in fields:
        if field in sent:
            return f"Change or leave out {_OPTIONS.get(field, f'--param {field}')}."
    for field in fields:
        if field in _OPTIONS:
            return f"It is about {_OPTIONS[field]}."
    return "--dry-run shows what was sent."
