"""What a server's list says of a model, and what a model costs: frozen data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

from llm_magic.capabilities import Dialect, Kind
from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_magic.events import Usage

T = TypeVar("T")

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
    """US dollars per million tokens; cached input tokens cost as others where `cached` is None.

    The prices of offline batches are None where nobody gave them; `batch_cached` alone may be: then cached input tokens
    of a batch cost as its others.
    """

    input: float
    output: float
    cached: float | None = None
    batch_input: float | None = None
    batch_output: float | None = None
    batch_cached: float | None = None

    def of(self, usage: Usage) -> float:
        """Return the US dollars that `usage` costs.

        >>> from llm_magic.events import Usage
        >>> round(Price(2.5, 10, 1.25).of(Usage(1_000_000, 100_000, cached_tokens=400_000)), 6)
        3.0

        """
        return _dollars(usage, self.input, self.output, self.cached)

    def of_batch(self, usage: Usage) -> float | None:
        """Return the US dollars that `usage` costs in an offline batch; None where the prices of batches are not given.

        They are never made from the others: what a vendor takes off differs, and a server of one's own takes nothing
        off.

        >>> from llm_magic.events import Usage
        >>> usage = Usage(1_000_000, 100_000, cached_tokens=400_000)
        >>> round(Price(2.5, 10, batch_input=1, batch_output=5, batch_cached=0.5).of_batch(usage), 6)
        1.3
        >>> Price(2.5, 10, 1.25).of_batch(usage) is None
        True

        """
        of_batches = self.of_batches
        return None if of_batches is None else of_batches.of(usage)

    @property
    def of_batches(self) -> Price | None:
        """The price of offline batches, as one of requests; None where it is not given."""
        if self.batch_input is None or self.batch_output is None:
            return None
        return Price(self.batch_input, self.batch_output, self.batch_cached)


def _dollars(usage: Usage, of_input: float, of_output: float, of_cached: float | None) -> float:
    """Return US dollars, of prices per million tokens."""
    cached = of_input if of_cached is None else of_cached
    fresh = usage.input_tokens - usage.cached_tokens
    return (fresh * of_input + usage.cached_tokens * cached + usage.output_tokens * of_output) / 1e6


PRICES_OF_LITELLM: Mapping[str, str] = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "batch_input": "input_cost_per_token_batches",
    "batch_output": "output_cost_per_token_batches",
    "batch_cached": "cache_read_input_token_cost_batches",
}
"""Our names of prices, and LiteLLM's of the same in dollars per token."""

EXAMPLE_OF_PRICE = '{"input": 2.5, "output": 10, "cached": 1.25, "batch_input": 1.25, "batch_output": 5}'
"""What a price looks like where one is asked for."""
_DIRECT = frozenset({"input", "output"})
_OF_BATCHES = frozenset({"batch_input", "batch_output"})


def price_in(prices: Mapping[str, object], model: str, where: str) -> Price | None:
    """Return the price of a model: the entry of its name, else that of the longest glob; None without one.

    Raises
    ------
    ConfigurationError
        The entry lacks `input` or `output`, has one of `batch_input` and `batch_output` without the other, other keys,
        or values that are no numbers.

    """
    globs = sorted((glob for glob in prices if fnmatchcase(model, glob)), key=len)
    name = model if model in prices else globs[-1] if globs else None
    if name is None:
        return None
    if is_price(entry := prices[name]):
        return read_price(entry)
    raise ConfigurationError(
        f"{where}[{name!r}] is no price.",
        f"Write US dollars per million tokens: {EXAMPLE_OF_PRICE}.",
    )


def is_price(entry: object) -> TypeGuard[Mapping[str, float]]:
    """Whether an entry is `input` and `output`, perhaps `cached`, and perhaps the same of batches; numbers from 0.

    >>> is_price({"input": 2.5, "output": 10}), is_price({"input": 2.5}), is_price({"input": True, "output": 10})
    (True, False, False)
    >>> is_price({"input": 2, "output": 8, "batch_input": 1, "batch_output": 4})
    True
    >>> is_price({"input": 2, "output": 8, "batch_input": 1})
    False

    """
    return (
        isinstance(entry, Mapping)
        and _DIRECT <= set(entry) <= set(PRICES_OF_LITELLM)
        and batch_prices_are_complete(entry)
        and all(type(value) in (int, float) and 0 <= value < _MOST_DOLLARS for value in entry.values())
    )


def batch_prices_are_complete(entry: Iterable[str]) -> bool:
    """Whether these names of prices have both of those that a batch is paid by, or nothing of batches.

    >>> batch_prices_are_complete(["input", "output"]), batch_prices_are_complete(["input", "output", "batch_cached"])
    (True, False)

    """
    named = {name for name in entry if isinstance(name, str) and name.startswith("batch_")}
    return not named or named >= _OF_BATCHES


def without_partial_batch_prices(costs: Mapping[str, T]) -> dict[str, T]:
    """Return costs without those of batches where these name one side only, as some entries of LiteLLM's do.

    >>> without_partial_batch_prices({"input": 2, "output": 8, "batch_input": 1})
    {'input': 2, 'output': 8}

    """
    if batch_prices_are_complete(costs):
        return dict(costs)
    return {name: cost for name, cost in costs.items() if not name.startswith("batch_")}


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

AZURE_BATCH_ENDPOINT = "/chat/completions"
"""What every offline batch of Azure's is created for, whatever its lines ask (`llm_magic.providers.azure`)."""

_REASONING = re.compile(r"(?:.*/)?(?:ft:)?(?:o[1-9](?:-|:|$)|gpt-(?:[5-9]|\d\d)(?!.*-chat)|codex-)")


def is_reasoning(model: str) -> bool:
    """Whether a model of OpenAI's reasons, by its name: o1, o3, o4, gpt-5 and later, their fine-tunes too.

    >>> names = ("o3-mini", "gpt-5-nano", "gpt-4o", "ft:o4-mini:org::id", "gpt-5-chat-latest")
    >>> [name for name in names if is_reasoning(name)]
    ['o3-mini', 'gpt-5-nano', 'ft:o4-mini:org::id']

    """
    return _REASONING.match(model) is not None
