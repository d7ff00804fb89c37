"""A `%%llm` that replays a text in the kernel at a given speed, through the project's own view; no model is asked."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

from llm_magic import display
from llm_magic.config.settings import Settings
from llm_magic.draft import Draft
from llm_magic.events import Finished, ReasoningDelta, TextDelta, Usage, UsageReport
from llm_magic.markdown import with_dollars

TEXTS: dict[str, str] = {}


def chapter(number: int) -> str:
    """Markdown as models write it about a theorem: prose with formulas, display maths, a list, code, a table."""
    k = number + 2
    return rf"""## {number + 1}. The case $k = {k}$

Let \(f_{{{k}}}(x) = \sum_{{n=1}}^{{\infty}} \frac{{x^n}}{{n^{{{k}}}}}\) for \(|x| < 1\). Since every term is at
most the term of a geometric series, the series converges absolutely, and **term by term** we may differentiate
it inside of the disc:

\[
\int_0^1 \frac{{f_{{{k}}}(x)}}{{x}} \, dx = \sum_{{n=1}}^{{\infty}} \frac{{1}}{{n^{{{k + 1}}}}} = \zeta({k + 1}), \qquad
\begin{{pmatrix}} a & b \\ c & d \end{{pmatrix}}^{{-1}} =
\frac{{1}}{{ad - bc}} \begin{{pmatrix}} d & -b \\ -c & a \end{{pmatrix}}
\]

Three things follow from this, and each of them will be needed again in the next section:

1. The bound \(\zeta({k + 1}) \le 1 + 2^{{-{k}}}\) holds, as one sees by comparing the sum with an integral.
2. The function is continuous up to the boundary, by the theorem of *Abel*, and bounded there.
3. The error after \(N\) terms is \(\mathcal{{O}}(N^{{-{k}}})\), so that a few thousand terms are enough in practice.

```python
def zeta_{k}(terms: int) -> float:
    # the sum, smallest terms first
    return sum(1 / n**{k} for n in range(terms, 0, -1))
```

| terms | last term | partial sum |
|---|---|---|
| 1 | $1$ | 1 |
| 2 | $2^{{-{k}}}$ | a little more |

> Whether \(\zeta({k})\) is **irrational** is known for even numbers and, since Apéry, for three.

"""


def tokens(text: str) -> list[str]:
    """Cut a text into pieces of about the size of tokens."""
    return [text[at : at + 4] for at in range(0, len(text), 4)]


TEXTS["maths"] = "".join(chapter(number) for number in range(14))
TEXTS["warm"] = chapter(0)
TEXTS["twenty"] = "".join(chapter(number) for number in range(200))[:80_000]  # 20,000 tokens


def replay(text: str, speed: float, show: str, *, reasoning: str = "", value: Any = None) -> float:
    """Feed a text to the view of the running cell, `speed` tokens a second; returns when the last token came."""
    from IPython import get_ipython

    view = display.choose(get_ipython(), Settings(), show)
    draft = Draft()
    view.begin("replay")
    for piece in tokens(reasoning):
        draft.add(ReasoningDelta(piece))
        view.update(draft)
        time.sleep(1 / speed)
    for piece in paced(tokens(text), speed, lambda: view.wait):
        for token in piece:
            draft.add(TextDelta(token))
        view.update(draft)
    draft.add(UsageReport(Usage(7, len(tokens(text)))))
    draft.add(Finished("stop"))
    ended = time.time()
    known = {"value": value} if value is not None else {}
    view.finish(draft.response(model="replay", provider="test", **known), f"replay · {len(tokens(text)):,} tokens")
    return ended


def repaint_whole(text: str, speed: float, repaints: float) -> float:
    """Do what most extensions do: update one output with the whole text, so many times a second."""
    from IPython.display import Markdown
    from IPython.display import display as show

    handle = show(Markdown(""), display_id=True)
    arrived = ""
    shown = float("-inf")
    for piece in paced(tokens(with_dollars(text)), speed, lambda: 1 / speed):
        arrived += "".join(piece)
        if time.perf_counter() - shown >= 1 / repaints:
            shown = time.perf_counter()
            handle.update(Markdown(arrived))
    ended = time.time()
    handle.update(Markdown(arrived))
    show(Markdown("replay ·"))
    return ended


def paced(pieces: list[str], speed: float, pause: Callable[[], float]) -> Iterator[list[str]]:
    """Yield pieces as they would arrive."""
    begun = time.perf_counter()
    sent = 0
    while sent < len(pieces):
        due = min(len(pieces), int((time.perf_counter() - begun) * speed) + 1)
        yield pieces[sent:due]
        sent = due
        time.sleep(min(pause(), 1 / speed))


def load_ipython_extension(shell: Any) -> None:
    """Register the magic; its words are `name=value`, and `text` and `reasoning` name variables or `TEXTS`."""

    def llm(line: str, _cell: str | None = None) -> None:
        given = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
        namespace = shell.user_ns
        text = TEXTS.get(given.get("text", "")) or namespace.get(given.get("text", ""), "")
        speed = float(given.get("speed", 400))
        if "repaints" in given:
            namespace["ended"] = repaint_whole(text, speed, float(given["repaints"]))
            return
        namespace["ended"] = replay(
            text,
            speed,
            given.get("show", "markdown"),
            reasoning=namespace.get(given.get("reasoning", ""), ""),
            value=namespace.get(given.get("value", "")),
        )

    shell.register_magic_function(llm, "line_cell")
