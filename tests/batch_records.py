"""A record of a batch, for tests."""

from __future__ import annotations

from typing import Any

from llm_magic.batches.kept.record import BatchRecord

RUN = "ab" * 32


def record(number: int = 1, **values: Any) -> BatchRecord:
    """Return a record whose id ends with a number; it was made at noon of 1 January 2026."""
    return BatchRecord(
        **{
            "id": f"20260101T120000Z-{number:08x}",
            "run": RUN,
            "provider": "openai",
            "url": "https://api.example.org/v1",
            "model": "small",
            "asked": "openai:small",
            "api": "chat",
            "endpoint": "/v1/chat/completions",
            "rows": 3,
            "size": 900,
            "digest": "cd" * 32,
            "created": 1767268800.0,
            "step": "written",
            **values,
        }
    )
