"""The footer: the quiet line below an answer."""

from __future__ import annotations

from llm_magic.response import Response

_CENT = 0.01


def footer(response: Response) -> str:
    """Return the quiet line below an answer: model, tokens, time, cost, history.

    >>> from llm_magic.response import Response
    >>> from llm_magic.events import Usage
    >>> footer(Response(model="local:smollm2", usage=Usage(12, 34), seconds=1.23, history_turns=2))
    'local:smollm2 · 12 → 34 tokens · 1.2 s · 2 turns of history'
    >>> footer(Response(model="vllm:", provider="vllm", model_reported="smollm2", seconds=0.5))
    'vllm:smollm2 · 0.5 s'

    """
    open_model = response.model.rstrip(":") == response.provider  # the provider's first one, whatever that is
    facts = [f"{response.provider}:{response.model_reported}" if open_model else response.model]
    if response.usage is not None:
        facts.append(f"{response.usage.input_tokens:,} → {response.usage.output_tokens:,} tokens")
    facts.append(f"{response.seconds:.1f} s")
    if response.cost is not None:
        facts.append(f"${response.cost:.2g}" if response.cost < _CENT else f"${response.cost:.2f}")
    if response.history_turns:
        facts.append(f"{response.history_turns} turn{'s' * (response.history_turns > 1)} of history")
    return " · ".join(facts)
