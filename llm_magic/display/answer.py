"""An answer as an output of a notebook or as plain text: while it streams, and as it is saved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle
from llm_magic.draft import Draft
from llm_magic.markdown import fences, for_notebook
from llm_magic.response import Response


def metadata(response: Response) -> dict[str, Any]:
    """Return what the notebook keeps about an answer."""
    return {
        "llm_magic": {
            "model": response.model,
            "provider": response.provider,
            "finish_reason": response.finish_reason,
            "usage": asdict(response.usage) if response.usage is not None else None,
            "seconds": round(response.seconds, 3),
            "request_id": response.request_id,
        }
    }


def finished(response: Response, show: str, *, typed: bool = False) -> Bundle:
    """Return the saved output of an answer.

    `text/plain` is always the model's exact text. Where the answer is a value or several answers, `text/html`, which
    front ends prefer, shows these, and `text/markdown` is still the text.
    """
    text = response.text
    if show == "text":
        return {"text/plain": text}
    if show in {"code", "json"}:
        return {"text/plain": text, "text/markdown": fenced(text, show, whole=True)}
    bundle = {"text/plain": text, "text/markdown": for_notebook(text)}
    html = _alternatives(response) if response.alternatives else _value(response, typed=typed)
    return bundle if html is None else {**bundle, "text/html": html}


def streaming(draft: Draft, value: Any, show: str) -> Bundle:
    """Return the output of an answer that is not complete, where it is painted as a whole."""
    if show == "text":
        return {"text/plain": draft.text}
    if show in {"code", "json"}:
        return {"text/markdown": fenced(draft.text, show)}
    if len(draft.indexes) > 1:
        texts = [str(draft.buffer(index)) for index in draft.indexes]
        return markup.side_by_side([markup.prewrapped(each) for each in texts], _titles(len(texts)))
    if value is not None:
        return table.shown(value)
    return {"text/markdown": for_notebook(draft.text)}


def called(draft: Draft) -> str:
    """Return a line on the tools that an answer without text is about to call; empty for none."""
    calls = ", ".join(call.name for call in draft.tool_calls if call.name)
    return f"calling {calls} …" if calls else ""


def is_text(response: Response) -> bool:
    """Tell whether an answer is shown as its text: it is one, and no value that has parts."""
    return not response.alternatives and not table.is_structured(response.value)


def code_of(text: str) -> str:
    r"""Return the code of an answer: that of its fenced blocks, else the whole text.

    >>> code_of("Use this:\n```python\nx = 1\n```\nDone.")
    'x = 1\n'

    """
    blocks = [block.code for block in fences.code_blocks(text)]
    return "\n".join(blocks) if blocks else text


def fenced(text: str, show: str, *, whole: bool = False) -> str:
    """Return the code or the JSON of an answer as a fenced block."""
    if show == "json":
        return fences.fenced(markup.indented(text) if whole else text, "json")
    first = next(fences.code_blocks(text), None)
    return fences.fenced(code_of(text), first.info if first is not None else "")


def _value(response: Response, *, typed: bool) -> str | None:
    """Return a value as HTML, None where the text says it as well."""
    value = response.value
    if value is None or (isinstance(value, str) and not typed):
        return markup.preformatted(response.text) if typed and response.text else None
    if not table.is_structured(value) and table.shown(value)["text/plain"] == response.text.strip():
        return None
    return table.shown(value)["text/html"]


def _alternatives(response: Response) -> str:
    answers = [
        markup.prewrapped(each.text)
        if each.value is None or isinstance(each.value, str)
        else table.shown(each.value)["text/html"]
        for each in response.alternatives
    ]
    titles = [
        title if each.finish_reason not in markup.MARKS else f"{title}: {markup.MARKS[each.finish_reason]}"
        for title, each in zip(_titles(len(answers)), response.alternatives, strict=True)
    ]
    return markup.side_by_side(answers, titles)["text/html"]


def _titles(count: int) -> list[str]:
    return [f"Answer {number + 1}" for number in range(count)]


def as_text(response: Response, show: str) -> str:
    """Return an answer as plain text, where it is not written as it arrives."""
    if show == "code":
        return code_of(response.text)
    if show == "json":
        return markup.indented(response.text)
    if response.alternatives:
        answers = [_plain(each.text, each.value) for each in response.alternatives]
        return "\n\n".join(f"[{title}]\n{text}" for title, text in zip(_titles(len(answers)), answers, strict=True))
    return response.text if show == "text" else _plain(response.text, response.value)


def _plain(text: str, value: Any) -> str:
    return table.shown(value)["text/plain"] if table.is_structured(value) else text
