"""What endpoints can do, as tables; a provider picks a row, and nothing else asks which server it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from llm_magic.profile import Dialect, Kind

Dialects = Mapping[Kind, Dialect]
Structured = Literal["json_schema", "json_object", "grammar", "none"]

OPENAI: Dialects = {"json": "json_schema", "choices": "json_schema"}
"""OpenAI and Azure: schemas only, no free regex or grammar."""

VLLM: Dialects = {
    "json": "structured_outputs",
    "choices": "structured_outputs",
    "regex": "structured_outputs",
    "grammar": "structured_outputs",
}

LLAMA: Dialects = {
    "json": "llama_json_schema",
    "choices": "llama_grammar",
    "regex": "llama_grammar",
    "grammar": "llama_grammar",
}
"""llama.cpp: schemas by `response_format`, the rest by its grammars (GBNF)."""

COMPATIBLE: Mapping[Structured, Dialects] = {
    "json_schema": {"json": "json_schema", "choices": "json_schema"},
    "json_object": {"json": "json_object", "choices": "prompt"},
    "grammar": LLAMA,
    "none": {"json": "prompt", "choices": "prompt"},
}
"""By the trait `structured` of a compatible provider."""

_REASONING = re.compile(r"(?:.*/)?(?:ft:)?(?:o[1-9](?:-|:|$)|gpt-(?:[5-9]|\d\d)(?!.*-chat)|codex-)")


def is_reasoning(model: str) -> bool:
    """Whether a model of OpenAI's reasons, by its name: o1, o3, o4, gpt-5 and later, their fine-tunes too.

    >>> names = ("o3-mini", "gpt-5-nano", "gpt-4o", "ft:o4-mini:org::id", "gpt-5-chat-latest")
    >>> [name for name in names if is_reasoning(name)]
    ['o3-mini', 'gpt-5-nano', 'ft:o4-mini:org::id']

    """
    return _REASONING.match(model) is not None
