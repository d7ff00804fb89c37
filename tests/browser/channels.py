"""In the kernel: each payload in the place of everything that a model or a server writes, shown by the program's views.

`show` is called in a cell of the front end. An output says in its metadata which payloads it holds, and as what.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from IPython import get_ipython
from IPython.display import display
from payloads import Payload, payloads

from llm_magic.commands.chats import _message
from llm_magic.commands.models import _page
from llm_magic.display import answer, batches, citations, items, markup, rows_markup, table
from llm_magic.display.batches import BatchProgress
from llm_magic.display.footer import footer
from llm_magic.display.notebook import NotebookView
from llm_magic.display.outputs import CellOutputs, publish
from llm_magic.display.rows import RowsProgress, RowsTable, TableRow, row_line
from llm_magic.draft import Draft
from llm_magic.errors import LLMError, Origin
from llm_magic.events import Finished, TextDelta
from llm_magic.messages import Citation, Image, Message, Text, ToolCall
from llm_magic.providers.model_info import ModelCard
from llm_magic.response import Alternative, Response, ToolRun
from llm_magic.wire.refusals import refused

GROUP = 20
"""Payloads in one output of what is escaped."""

_CITED = 8
"""Of so many payloads one is a source in Markdown, too."""

HARMLESS = r"""# A heading of *level* one

Prose with **bold**, *emphasis*, ~~struck~~, `code`, [a link](https://example.org "a title"), <https://example.org>,
https://example.org, someone@example.org, [within](#here), [a file](notes.txt), a footnote[^1], x<sub>1</sub> and
H<sup>2</sup>, <kbd>Ctrl</kbd>, <mark>marked</mark>, <span title="hint" lang="en" dir="ltr">words</span>.
A line that is broken\
here.

## Code

```python
def f(x: int = 0) -> "str":  # a comment
    return f"{x!r}" + str(1.5e3) if x is not None and True else '''a'''
```

```json
{"a": [1, 2.5, true, null], "b": "text"}
```

```html
<p class="a">text &amp; more</p><!-- comment -->
```

```javascript
const f = async (x) => { return `${x}` + /re/g.test("s"); } // comment
class A extends B { get x() { return this.y ?? null } }
```

```sql
SELECT a, count(*) FROM t WHERE b = 'x' -- comment
```

```
no language
```

~~~bash
ls -l | grep "$x" # comment
~~~

    indented

### Lists

1. one
   - two
     - three

       a paragraph

       ```py
       x = 1
       ```
2. four

3) other
- [ ] to do
- [x] done

> A quotation
>
> > of a quotation with `code`
>
> ```
> code
> ```

#### Tables

| left | right | centre | none |
|:-----|------:|:------:|------|
| a    | 1     | *b*    | `c`  |

##### More
###### Least

A title
=======

Another
-------

---

<details><summary>More of it</summary>

Hidden *text*.

</details>
<details open><summary>Open</summary>x</details>

<table><thead><tr><th align="left">h</th></tr></thead>
<tbody><tr><td colspan="2" rowspan="1">d</td></tr></tbody></table>

![a picture](data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7)
![](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==)

Inline $a^2 + \frac{b}{\sqrt{c}} < \sum_{i=1}^n x_i$ and displayed:

$$\int_0^1 f(x)\,dx = \begin{pmatrix} a & b \\ c & d \end{pmatrix} \tag{1}$$

\[ \left( \overline{x} \underbrace{y}_{z} \xrightarrow{t} \boxed{w} \right) \text{ if } \mathbb{R} \color{red}{r} \]

\begin{align} a &= b \\ c &= \overbrace{d}^{e} \end{align}

$\href{https://example.org}{\text{a link}} \undefined \unknown{a}$
$\binom{n}{k} \hat{a} \vec{b} \stackrel{a}{b} \cases{a\\b}$

[^1]: The note.
"""
"""What models write, of all kinds: what a front end makes of it is what may be in the page."""

TEXTS = (
    "Plain text, https://example.org/a?b=c and www.example.org, /tmp/file.py:3, and more.",
    'Traceback in "File /tmp/x.py, line 3": ./a.py:4 ~/b.py \x1b[31mred\x1b[0m \x1b[1;32;44mbold\x1b[0m',
    *("```\ncode\n```", '{"a": [1]}', "`a`", "a\n\nb", "# Title", "<b>bold</b>"),
)


def control() -> None:
    """Show harmless texts as everything that payloads are shown as."""
    texts = (HARMLESS, *HARMLESS.split("\n\n"), *TEXTS)
    _show([Payload(-1 - number, "control", text) for number, text in enumerate(texts)], errors=1)


def show(first: int, last: int, errors: int) -> None:
    """Show the payloads from `first` to `last`; of `errors` so many one is an error message, too."""
    _show(payloads()[first:last], errors)


def _show(some: Sequence[Payload], errors: int) -> None:
    shell: Any = get_ipython()
    for each in some:
        with _noted([each], "growing"):
            _growing(shell, each)
        with _noted([each], "answer"):
            _answer(shell, each.text, "markdown")
        with _noted([each], "json" if each.number % 4 == 3 else "code"):
            _answer(shell, each.text, "json" if each.number % 4 == 3 else "code")
        if each.number % _CITED == 0:
            with _noted([each], "cited"):
                _cited(shell, each.text)
        if each.number % errors == 0:
            with _noted([each], "error"):
                _error(shell, each.text)
    for group in (some[at : at + GROUP] for at in range(0, len(some), GROUP)):
        with _noted(group, "escaped"):
            publish(markup.joined([bundle for each in group for bundle in _escaped(each.text)]))
        with _noted(group, "text"):
            _answer(shell, "\n".join(each.text for each in group), "text")


@contextmanager
def _noted(some: Iterable[Payload], channel: str) -> Iterator[None]:
    """Say in the metadata of outputs what they hold."""
    shell: Any = get_ipython()
    what = {"payloads": [each.number for each in some], "channel": channel}

    def note(message: dict[str, Any]) -> dict[str, Any]:
        if "metadata" in message["content"]:
            message["content"]["metadata"]["attack"] = what
        return message

    shell.display_pub.register_hook(note)
    try:
        yield
    finally:
        shell.display_pub.unregister_hook(note)


class _Kept(CellOutputs):
    """The outputs of a cell of its own, as those of `%%llm` are; what other payloads have shown is not cleared."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.alone = True

    def clear(self) -> None:
        pass


def _growing(shell: Any, each: Payload) -> None:
    """Show an answer as it is when some of it has arrived."""
    draft, view = Draft(), NotebookView(_Kept(shell), "markdown", 10)
    at = random.Random(each.number).randint(1, len(each.text))  # noqa: S311 - a place, not a secret
    draft.add(TextDelta(each.text[:at]))
    view.update(draft)


def _cited(shell: Any, text: str) -> None:
    """Show sources where their Markdown is what is read."""
    sources = citations.cited([Citation(text, text), Citation(f"https://e.org/{text}", text)])
    assert sources is not None
    CellOutputs(shell).add({"text/markdown": sources["text/markdown"]})


def _answer(shell: Any, text: str, show: str) -> None:
    draft, view = Draft(), NotebookView(CellOutputs(shell), show, 10)
    draft.add(TextDelta(text))
    draft.add(Finished("stop"))
    view.finish(draft.response(), "")


def _error(shell: Any, text: str) -> None:
    try:
        raise refused({"error": {"message": text, "code": text}}, 400, Origin("provider", text, "http://x.test/v1"))
    except LLMError:
        shell.showtraceback()


def _escaped(text: str) -> Iterator[markup.Bundle]:
    """Yield what is not markdown, of one text in all its places."""
    run = ToolRun("1", text, json.dumps({text: text}), text)
    yield markup.tool_run(run)
    yield markup.tool_run(ToolRun("1", "f", text))
    yield markup.reasoning(text)
    yield table.shown([{text: text, "list": [text], "records": [{"inner": text}]}])
    yield table.shown({text: {text: text}, "records": [{text: text}], "list": [{"a": text}, {"a": 1}]})
    yield table.shown([text, 1])
    two = Response(text, alternatives=(Alternative(text, "stop"), Alternative("", "length", value=[{text: text}])))
    for response in (two, Response(text, value=[{text: text}]), Response(text, value=text)):
        shown = answer.finished(response, "markdown", typed=True)
        if "text/html" in shown:
            yield {"text/plain": text, "text/html": shown["text/html"]}
    sources = citations.cited([Citation(text, text), Citation(f"https://e.org/{text}", text), Citation(filename=text)])
    assert sources is not None
    yield sources
    yield from items.folded_items([{"type": text, "name": text, "status": text, text: [text]}])
    web = (Image(url=text), Image(url=f"https://e.org/{text}"), Image(text.encode("utf-8", "replace"), "image/svg+xml"))
    yield from ({"text/html": markup.prewrapped(each["text/plain"]), **each} for each in items.pictures(web))
    yield from _many_rows(text)
    yield markup.quiet(footer(Response(model=text)))
    refusal = markup.marks(Response(refusal=text, finish_reason="refusal"))
    assert refusal is not None
    yield refusal
    yield markup.mark(f"Note: {text}")
    yield _message(Message("assistant", (Text(text),), (ToolCall("1", text, text),)))
    yield _page({text: [ModelCard(text, 1, text, text, text)], "other": LLMError(text)}, "", [text])
    yield {"text/plain": text, "text/html": markup.preformatted(text)}


def _many_rows(text: str) -> Iterator[markup.Bundle]:
    """Yield how far many rows are, and their table."""
    last = (row_line(text, text), row_line(text, error=LLMError(text)))
    yield rows_markup.live(text, RowsProgress(9, 4, 1, failures={text: 1}, last=last, waiting=text), [text])
    batch = BatchProgress(text, 9, text, 4, 1, problem=text, name=text, next_look=9.0)
    yield rows_markup.live(text, RowsProgress(9, batches=(batch, replace(batch, part=2))), [text])
    yield batches.bundle(text, text, [batch])
    rows = [TableRow(text, {text: text, "list": [text]}), TableRow(text, error=text)]
    yield rows_markup.final(RowsTable(rows, 9, text, text), text, [text])
    yield rows_markup.final(RowsTable([TableRow(text, text)], 9, text, text), text)


def echo(text: str) -> str:
    """Return the text, as a tool whose result nobody has checked."""
    return text


def ask(provider: str, place: str, options: str, numbers: Iterable[int]) -> None:
    """Ask a provider with `%llm` for one payload after the other; errors are shown."""
    shell: Any = get_ipython()
    shell.user_ns["echo"] = echo
    model = f"{provider}:" if place == "reported" else f"{provider}:m"
    kept = f"-c {provider}" if place == "kept" else "--once"
    for number in numbers:
        with _numbered(number, place):
            try:
                response = shell.run_line_magic("llm", f"-m {model} {kept} {options} {place} {number}")
            except LLMError:
                shell.showtraceback()
            else:
                if place == "answer":
                    display(response)


def preview(provider: str, numbers: Iterable[int]) -> None:
    """Show the request that would send a payload."""
    shell: Any = get_ipython()
    for number in numbers:
        shell.user_ns["text"] = HARMLESS if number < 0 else payloads()[number].text
        with _numbered(number, "preview"):
            shell.run_line_magic("llm", f"-m {provider}:m --once --dry-run {{{{ text }}}}")


@contextmanager
def _numbered(number: int, channel: str) -> Iterator[None]:
    with _noted([Payload(number, "", "")], channel):
        yield
