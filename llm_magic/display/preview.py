"""A request that is not sent, as the lines that would go over the wire."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_magic.wire.call import Preview

_LONGEST = 400
"""Characters of one text in the body that are shown: an image would fill the page."""


class RequestPage:
    """A preview that displays itself: preformatted in a notebook, plain in a terminal."""

    def __init__(self, preview: Preview) -> None:
        body = json.dumps(_without_data(preview.body), indent=2, ensure_ascii=False, default=str)
        headers = "\n".join(f"{name}: {value}" for name, value in preview.headers.items())
        self._text = f"{preview.method} {preview.url}\n{headers}\n\n{body}"

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        style = "white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--jp-code-font-family, monospace)"
        return f'<pre style="{style}">{escape(self._text)}</pre>'


def show(preview: Preview) -> None:
    """Display a request."""
    from IPython.display import display

    display(RequestPage(preview))


def _without_data(value: Any) -> Any:
    """Return a body whose data URLs are cut: how long they are is said."""
    if isinstance(value, dict):
        return {name: _without_data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_data(item) for item in value]
    if isinstance(value, str) and value.startswith("data:") and len(value) > _LONGEST:
        return f"{value[:60]}… ({len(value):,} characters)"
    return value
