"""An answer as an output of a notebook or as plain text: what is new while it streams, and as it is saved."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from llm_magic.display import citations, items, markup, table
from llm_magic.display.footer import model_name
from llm_magic.display.markup import Bundle
from llm_magic.draft import Draft
from llm_magic.markdown import fences, for_notebook
from llm_magic.markdown.sanitize import sanitize
from llm_magic.messages import Citation, Image
from llm_magic.records import record_of
from llm_magic.response import Alternative, Response
from llm_magic.text_buffer import TextBuffer

ValueSoFar = Callable[[], Any]
"""Returns the typed value as far as it can be read, None before it begins; call it only to paint."""


class DraftReader:
    """Follows the text of the first answer of a draft, and counts characters of all answers."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        """That of the draft; each one is read to its end, also when the draft is further."""
        self._buffer = TextBuffer()  # that of the draft
        self._position = 0  # in it
        self._read = 0  # characters of it
        self.length = 0
        """Characters of all answers."""
        self.grew = False
        """Whether the last call of `read` found something."""

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return str(self._buffer)

    def read(self, draft: Draft) -> str:
        """Return what the first answer has more than at the last call."""
        self._buffer = draft.buffer(0, self.generation)
        fresh, self._position = self._buffer.read(self._position)
        self._read += len(fresh)
        length = draft.length
        self.grew, self.length = length != self.length, length
        return fresh

    def rest(self, text: str) -> str:
        """Return what a whole text has more than what was read."""
        return text[self._read :]


def metadata(response: Response) -> dict[str, Any]:
    """Return what the notebook keeps about an answer."""
    about = {
        "model": model_name(response),
        "provider": response.provider,
        "finish_reason": response.finish_reason,
        "usage": asdict(response.usage) if response.usage is not None else None,
        "seconds": round(response.seconds, 3),
        "request_id": response.request_id,
    }
    return {"llm_magic": {**about, "recorded": True} if response.recorded else about}


def finished(response: Response, show: str, *, typed: bool = False, external_images: bool = False) -> Bundle:
    """Return the saved output of an answer.

    `text/plain` is the model's exact text, or the value of a typed answer. Where the answer is a value or several
    answers, `text/html`, which front ends prefer, shows these, and `text/markdown` is still the text.
    """
    typed = typed or response.structured is not None
    first = response.alternatives[0].value if response.alternatives else response.value
    text = said(response.text, first) if typed else response.text
    if show == "text":
        return {"text/plain": text}
    if show in {"code", "json"}:
        return {"text/plain": text, "text/markdown": fenced(text, show, whole=True)}
    bundle = {"text/plain": text, "text/markdown": for_notebook(text, external_images=external_images)}
    html = _alternatives(response, typed=typed) if response.alternatives else _value(response, text, typed=typed)
    return bundle if html is None else {**bundle, "text/html": html}


def said(text: str, value: Any) -> str:
    """Return what a typed answer says: its value, or of one with parts the JSON of it, without what it was wrapped in.

    >>> said('{"value": "yes"}', "yes"), said('{"value": [1]}', [1]), said('{"value": 1}', {"value": 1})
    ('yes', '[1]', '{"value": 1}')

    """
    if value is not None and not table.is_structured(value) and not isinstance(value, (list, tuple, set, frozenset)):
        return table.shown(value)["text/plain"]
    inner = _wrapped_value(text)
    if value is None or inner is None or list(record_of(value) or ()) == ["value"]:
        return text
    return json.dumps(inner, ensure_ascii=False)


def _wrapped_value(text: str) -> Any:
    """Return what stands in the `{"value": …}` of a text; None where it is not that."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data["value"] if isinstance(data, dict) and list(data) == ["value"] else None


def streaming(draft: Draft, value: Any, show: str, *, external_images: bool = False) -> Bundle:
    """Return the output of an answer that is not complete, where it is painted as a whole."""
    if show == "text":
        return {"text/plain": draft.text}
    if show in {"code", "json"}:
        return {"text/markdown": fenced(draft.text, show)}
    if len(draft.indexes) > 1:
        unwrap = _WRAPPING.sub if value is not None else lambda _by, text: text
        texts = [markup.prewrapped(unwrap("", str(draft.buffer(index)))) for index in draft.indexes]
        return {"text/html": markup.side_by_side(texts, _titles(len(texts)))}
    if value is not None:
        return table.shown(value)
    return {"text/markdown": for_notebook(draft.text, external_images=external_images)}


def unfinished(bundle: Bundle) -> Bundle:
    """Return an output of an answer that still grows: its last line says so."""
    below = {
        "text/markdown": f"\n{open_fence(bundle.get('text/markdown', ''))}\n*{markup.UNFINISHED}*",
        "text/html": markup.quiet(markup.UNFINISHED)["text/html"],
        "text/plain": f"\n\n{markup.UNFINISHED}",
    }
    return {kind: text + below[kind] for kind, text in bundle.items()}


def open_fence(markdown: str) -> str:
    """Return the line that would end the code that markdown leaves open; in a quote or list any text outside does."""
    last = deque(fences.code_blocks(markdown), maxlen=1)
    if not last or last[0].closed or last[0].before.strip():
        return ""
    run = fences.RUN.search(markdown, last[0].start)
    return f"{run[0]}\n" if run else ""


_WRAPPING = re.compile(r'\A\s*\{\s*("(v(a(l(u(e("\s*(:\s*)?)?)?)?)?)?)?)?"?|"?\s*\}\s*\Z')
"""What stands around a value that is asked for as `{"value": …}`, as far as it has come."""


def begins_as_json(draft: Draft) -> bool:
    """Tell whether the first answer so far is the beginning of a document, of which there is no value yet."""
    begin = draft.text[:20].lstrip()
    return begin == "" or begin[0] in '{["`-0123456789'


def called(draft: Draft) -> str:
    """Return a line on the tools that an answer without text is about to call, or the server calls; empty for none."""
    calls = ", ".join(call.name for call in draft.tool_calls if call.name)
    if calls:
        return f"calling {calls} …"
    going_on = [item for item in draft.items if item.get("status") not in _ENDED]
    return f"{items.item_line(going_on[-1])} …" if going_on else ""


_ENDED = ("completed", "failed", "incomplete", None)
"""What an item says of itself that does not go on."""


def has_come(response: Response) -> bool:
    """Return whether anything of an answer that failed can be seen."""
    beside = response.citations or response.images or response.items
    return bool(response.text or response.reasoning or response.tool_calls or beside)


def beside(response: Response) -> tuple[list[Citation], list[Image], list[Mapping[str, Any]]]:
    """Return the citations, images and items of an answer, or of all where there are several."""
    answers = response.alternatives or (response,)
    return (
        [cited for each in answers for cited in each.citations],
        [image for each in answers for image in each.images],
        [item for each in answers for item in each.items],
    )


def beside_as_text(response: Response) -> list[str]:
    """Return what an answer holds beside its text, where neither images nor what is folded can be shown."""
    found, images, others = beside(response)
    lines = [*items.image_lines(images), *items.item_lines(others)]
    listed = citations.cited(found)
    return [*lines, listed["text/plain"]] if listed is not None else lines


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
        return sanitize(fences.fenced(markup.indented(text) if whole else text, "json"))
    info = next((block.info for block in fences.code_blocks(text)), "")
    return sanitize(fences.fenced(code_of(text), info))


def _value(response: Response, text: str, *, typed: bool) -> str | None:
    """Return a value as HTML, None where the text says it as well."""
    value = response.value
    if value is None or (isinstance(value, str) and not typed):
        return markup.preformatted(response.text) if typed and response.text else None
    shown = table.shown(value)
    says_more = table.is_structured(value) or shown["text/plain"] not in ("", text.strip())
    return shown["text/html"] if says_more else None


def _alternatives(response: Response, *, typed: bool) -> str:
    answers, titles = [], _titles(len(response.alternatives))
    for number, each in enumerate(response.alternatives):
        is_text = each.value is None or isinstance(each.value, str)
        text = (said(each.text, each.value) if typed else each.text) or _called(each)
        answers.append(markup.prewrapped(text) if is_text else table.shown(each.value)["text/html"])
        if mark := markup.MARKS.get(each.finish_reason):
            titles[number] += f": {mark}"
    return markup.side_by_side(answers, titles)


def _called(each: Alternative) -> str:
    """Return the calls of an answer that is no text, in words."""
    return "\n".join(f"calls {call.name}({call.arguments})" for call in each.tool_calls)


def _titles(count: int) -> list[str]:
    return [f"Answer {number + 1}" for number in range(count)]


def as_text(response: Response, show: str) -> str:
    """Return an answer as plain text, where it is not written as it arrives."""
    if show == "code":
        return code_of(response.text)
    if show == "json":
        return markup.indented(response.text)
    typed = response.structured is not None
    if response.alternatives:
        answers = [_plain(each.text, each.value, typed=typed) or _called(each) for each in response.alternatives]
        return "\n\n".join(f"[{title}]\n{text}" for title, text in zip(_titles(len(answers)), answers, strict=True))
    if show == "text":
        return said(response.text, response.value) if typed else response.text
    return _plain(response.text, response.value, typed=typed)


def _plain(text: str, value: Any, *, typed: bool) -> str:
    if table.is_structured(value):
        return table.shown(value)["text/plain"]
    return said(text, value) if typed else text
