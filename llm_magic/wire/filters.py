"""What a content filter found, in words: which category and how severe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.wire.documents import found_by_filter

_NAMES = {
    "self_harm": "self-harm",
    "jailbreak": "an attempt at jailbreaking",
    "indirect_attack": "an indirect attack",
    "protected_material_text": "protected text",
    "protected_material_code": "protected code",
}


def filter_words(details: Mapping[str, Any]) -> str:
    """Return the findings of Azure's content filter, from its results or from an error that holds them.

    >>> filter_words({"violence": {"filtered": True, "severity": "medium"}, "hate": {"filtered": False}})
    'violence (severity medium)'
    """
    results = _results(details)
    words = []
    for category, found in results.items():
        if not isinstance(found, dict) or not found_by_filter({category: found}):
            continue
        name = _NAMES.get(category, category.replace("_", " "))
        severity = found.get("severity")
        words.append(f"{name} (severity {severity})" if severity else name)
    return ", ".join(words)


def _results(details: Mapping[str, Any]) -> Mapping[str, Any]:
    for place in ("innererror", "inner_error", "content_filter_result", "content_filter_results"):
        inside = details.get(place)
        if isinstance(inside, Mapping):
            return _results(inside)
    return details
