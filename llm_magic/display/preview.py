"""A request that is not sent, as the lines that would go over the wire."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llm_magic.display import markup

if TYPE_CHECKING:
    from llm_magic.wire.call import Preview

_LONGEST = 400
"""Characters of one text in the body that are shown: an image would fill the page."""


def shown(preview: Preview) -> markup.Bundle:
    """Return a request: its method and URL, its headers, its body with long data cut."""
    body = json.dumps(_without_data(preview.body), indent=2, ensure_ascii=False, default=str)
    headers = "\n".join(f"{name}: {value}" for name, value in preview.headers.items())
    text = f"{preview.method} {preview.url}\n{headers}\n\n{body}"
    return {"text/plain": text, "text/html": markup.preformatted(text)}


def _without_data(value: Any) -> Any:
    """Return a body whose data URLs are cut: how long they are is said."""
    if isinstance(value, dict):
        return {name: _without_data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_data(item) for item in value]
    if isinstance(value, str) and value.startswith("data:") and len(value) > _LONGEST:
        return f"{value[:60]}… ({len(value):,} characters)"
    return value
