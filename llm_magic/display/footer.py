"""The quiet line below an answer, and how tokens, seconds and dollars are written everywhere."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from llm_magic.model_names import shown_model
from llm_magic.records import records_of

if TYPE_CHECKING:
    from llm_magic.response import Response

_CENT = 0.01
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400  # seconds


def footer(response: Response) -> str:
    """Return the quiet line below an answer: model, tokens, time, cost, history.

    >>> from llm_magic.response import Response
    >>> from llm_magic.events import Usage
    >>> footer(Response(model="local:smollm2", usage=Usage(12, 34), seconds=1.23, history_turns=2))
    'local:smollm2 · 12 → 34 tokens · 1.2 s · 2 turns of history'
    >>> footer(Response(model="vllm:", provider="vllm", model_reported="smollm2", seconds=0.5))
    'vllm:smollm2 · 0.5 s'

    """
    usage = response.usage
    facts = [
        model_name(response),
        tokens(usage.input_tokens, usage.output_tokens) if usage is not None else "",
        seconds(response.seconds),
        money(response.cost),
        f"{counted(response.history_turns, 'turn')} of history" if response.history_turns else "",
        "as a DataFrame: _llm.to_frame()" if _is_table(response.value) else "",
    ]
    return " · ".join(filter(None, facts))


def model_name(response: Response) -> str:
    """Return the model that answered, as it is shown: the one asked for, or that which a provider alone led to.

    >>> from llm_magic.response import Response
    >>> model_name(Response(model="llama:/models/tiny.gguf"))
    'llama:tiny.gguf'

    """
    if response.model_reported and response.model.rstrip(":") == response.provider:
        return shown_model(f"{response.provider}:{response.model_reported}")
    return shown_model(response.model)


def _is_table(value: object) -> bool:
    """Tell whether a value is a list of records in a notebook that uses pandas."""
    return "pandas" in sys.modules and isinstance(value, (list, tuple, set)) and records_of(value) is not None


def tokens(given: int, taken: int) -> str:
    """Return the tokens of a request and of its answer."""
    return f"{given:,} → {taken:,} tokens"


def seconds(elapsed: float) -> str:
    """Return a time in seconds."""
    return f"{elapsed:,.1f} s"


def money(dollars: float | None) -> str:
    """Return an amount as it is read: two figures of less than a cent; empty where it is not known.

    >>> money(0.00123), money(1.5), money(0.0000123), money(None)
    ('$0.0012', '$1.50', '$0.000012', '')

    """
    if dollars is None:
        return ""
    if dollars >= _CENT or dollars == 0:
        return f"${dollars:.2f}"
    figures, _, exponent = f"{dollars:.2g}".partition("e")
    return f"${dollars:.{1 - int(exponent)}f}".rstrip("0") if exponent else f"${figures}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things; `plural` where that is not the noun with an s.

    >>> counted(1, "word"), counted(2_000, "word"), counted(2, "batch", "batches")
    ('1 word', '2,000 words', '2 batches')

    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def file_size(size: int) -> str:
    """Return the size of a file as it is read.

    >>> file_size(900), file_size(1_234_567)
    ('1 kB', '1.2 MB')

    """
    return f"{max(1, round(size / 1e3)):,} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"  # noqa: PLR2004 - a million


def duration(seconds: float) -> str:
    """Return a time in the two largest of its units; empty for none and for what is no time.

    >>> duration(16.4), duration(200), duration(4_800), duration(180_000), duration(0.2), duration(float("inf"))
    ('16 s', '3 min 20 s', '1 h 20 min', '2 d 2 h', '', '')

    """
    if not math.isfinite(seconds) or seconds < 1:
        return ""
    for unit, name, below, part in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s")):
        if seconds >= unit:
            more = int(seconds % unit // below)
            return f"{int(seconds // unit):,} {name}" + (f" {more} {part}" if more else "")
    return f"{int(seconds)} s"
