"""What a server's list says of a model, and what a model costs: frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from llm_magic.capabilities import Dialect, Kind
from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_magic.events import Usage

_CONTEXT = ("max_model_len", "context_length", "max_input_tokens", "context_window", "n_ctx")
"""Names of the context's length: vLLM, OpenRouter, LiteLLM, Groq, llama.cpp (there in `meta`)."""

_RETIRES = ("expiration_date", "shutdown_date", "retirement_date", "deprecation_date")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as its server lists it.

    `context` in tokens; `retires` an ISO date; `parent` the base model of an adapter (LoRA); None or empty
    where the server does not tell.
    """

    id: str
    context: int | None = None
    retires: str | None = None
    owned_by: str = ""
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; cached input tokens cost as others where `cached` is None."""

    input: float
    output: float
    cached: float | None = None

    def of(self, usage: Usage) -> float:
        """Return the US dollars that `usage` costs.

        >>> from llm_magic.events import Usage
        >>> round(Price(2.5, 10, 1.25).of(Usage(1_000_000, 100_000, cached_tokens=400_000)), 6)
        3.0

        """
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / 1e6


PRICES_OF_LITELLM: Mapping[str, str] = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
}
"""Our names of prices, and LiteLLM's of the same in dollars per token."""


def price_in(prices: Mapping[str, object], model: str, where: str) -> Price | None:
    """Return the price of a model: the entry of its name, else that of the longest glob; None without one.

    Raises
    ------
    ConfigurationError
        The entry lacks `input` or `output`, has other keys, or values that are no numbers.

    """
    globs = sorted((glob for glob in prices if fnmatchcase(model, glob)), key=len)
    name = model if model in prices else globs[-1] if globs else None
    if name is None:
        return None
    if is_price(entry := prices[name]):
        return read_price(entry)
    raise ConfigurationError(
        f"{where}[{name!r}] is no price.",
        'Write US dollars per million tokens: {"input": 2.5, "output": 10, "cached": 1.25}.',
    )


def is_price(entry: object) -> TypeGuard[Mapping[str, float]]:
    """Whether an entry is `input`, `output` and perhaps `cached`, each a number from 0.

    >>> is_price({"input": 2.5, "output": 10}), is_price({"input": 2.5}), is_price({"input": True, "output": 10})
    (True, False, False)

    """
    return (
        isinstance(entry, Mapping)
        and {"input", "output"} <= set(entry) <= {"input", "output", "cached"}
        and all(type(value) in (int, float) and 0 <= value < _MOST_DOLLARS for value in entry.values())
    )


def read_price(entry: Mapping[str, float]) -> Price:
    """Return the price of an entry that is one."""
    return Price(**{name: float(value) for name, value in entry.items()})


_MOST_DOLLARS = 1e9


def card(raw: Mapping[str, Any]) -> ModelCard:
    """Return the card for a raw one, whichever server wrote it."""
    meta = raw.get("meta")
    places = (raw, meta if isinstance(meta, Mapping) else {})
    lengths = (place.get(name) for place in places for name in _CONTEXT)
    context = next((int(value) for value in lengths if isinstance(value, int | float) and value > 0), None)
    return ModelCard(
        id=str(raw.get("id") or raw.get("name") or ""),
        context=context,
        retires=_retirement(raw),
        owned_by=str(raw.get("owned_by") or ""),
        parent=str(raw.get("parent") or ""),
    )


def _retirement(raw: Mapping[str, Any]) -> str | None:
    """Return the day on which a model stops answering; Azure writes it in seconds, in `deprecation.inference`."""
    deprecation = raw.get("deprecation")
    if isinstance(deprecation, Mapping) and isinstance(deprecation.get("inference"), int | float):
        return datetime.fromtimestamp(deprecation["inference"], UTC).date().isoformat()
    return next((str(raw[name])[:10] for name in _RETIRES if raw.get(name)), None)


Dialects = Mapping[Kind, Dialect]
Structured = Literal["json_schema", "json_object", "grammar", "none"]

OPENAI: Dialects = {"json": "json_schema", "choices": "json_schema"}
"""OpenAI and Azure: schemas only, no free regex or grammar."""

_ALL: tuple[Kind, ...] = ("json", "choices", "regex", "grammar")
VLLM: Dialects = dict.fromkeys(_ALL, "structured_outputs")
LLAMA: Dialects = {**dict.fromkeys(_ALL, "llama_grammar"), "json": "llama_json_schema"}
"""llama.cpp: schemas by `response_format`, the rest by its grammars (GBNF)."""

COMPATIBLE: Mapping[Structured, Dialects] = {
    "json_schema": OPENAI,
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
