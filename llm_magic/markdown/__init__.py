"""A model's markdown as a notebook may show it: maths in dollars, nothing that could act."""

from __future__ import annotations

from llm_magic.markdown.maths import with_dollars
from llm_magic.markdown.sanitize import sanitize


def for_notebook(text: str) -> str:
    r"""Return a model's text for the media type `text/markdown`: the same, but for maths and for dangerous HTML.

    >>> for_notebook(r"\(a\) <img src=x onerror=alert(1)>")
    '$a$ &lt;img src=x onerror=alert(1)>'

    """
    return sanitize(with_dollars(text))
