"""The sources of an answer, folded: a list of links, whose titles and addresses are a server's words."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magic.display import markup
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.markdown.links import Source, as_markdown, sources
from llm_magic.messages import Citation

MOST = 100
"""Sources that are listed; how many more there are is said."""


def cited(citations: Sequence[Citation]) -> Bundle | None:
    """Return the sources of an answer by media type, None where it names none.

    >>> print(cited([Citation("https://e.org/a", "A", 0, 3), Citation("https://e.org/a", "A", 9, 12)])["text/plain"])
    1 source
        1. A: https://e.org/a

    """
    found = sources(citations)
    if not found:
        return None
    title, listed = counted(len(found), "source"), found[:MOST]
    more = f"… and {len(found) - MOST:,} more: " if len(found) > MOST else ""
    lines = [f"    {number}. {_plain(each)}" for number, each in enumerate(listed, 1)]
    entries = "".join(f"<li>{_link(each)}</li>" for each in listed)
    bundle = {
        "text/plain": "\n".join([title, *lines]),
        "text/markdown": f"{title}:\n\n{as_markdown(listed)}\n",
        "text/html": f'<ol style="margin: 0.4em 0">{entries}</ol>',
    }
    if more:
        bundle["text/plain"] += f"\n    {more}_llm.citations"
        bundle["text/markdown"] += f"\n{more}`_llm.citations`\n"
        bundle["text/html"] += f"<div>{more}<code>_llm.citations</code></div>"
    return {**bundle, "text/html": markup.unfolding(title, bundle["text/html"])}


def _plain(source: Source) -> str:
    place = source.url or source.place
    return f"{source.title}: {place}" if place and place != source.title else source.title


def _link(source: Source) -> str:
    title = markup.escaped(source.title)
    place = f" ({markup.escaped(source.place)})" if source.place else ""
    if source.url is None:
        return f"{title}{place}"
    return f'<a href="{markup.escaped(source.url)}" target="_blank" rel="noopener noreferrer">{title}</a>{place}'
