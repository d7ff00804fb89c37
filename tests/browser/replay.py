"""A `%%llm` that replays a text in the kernel at a given speed, through the project's own view; no model is asked."""

from __future__ import annotations

import shlex
import time
from typing import Any

from llm_magic import display
from llm_magic.events import Finished, ReasoningDelta, TextDelta, Usage, UsageReport
from llm_magic.response import Draft
from llm_magic.settings import Settings

TEXTS: dict[str, str] = {}


def chapter(number: int) -> str:
    """Markdown as models write it about a theorem: prose with formulas, display maths, a list, code, a table."""
    k = number + 2
    return rf"""## {number + 1}. The case $k = {k}$

Let \(f_{{{k}}}(x) = \sum_{{n=1}}^{{\infty}} \frac{{x^n}}{{n^{{{k}}}}}\) for \(|x| < 1\). Since \(\left|x^n / n^{{{k}}}\right| \le |x|^n\), the
series converges absolutely, and **term by term** we may differentiate: \(x f_{{{k}}}'(x) = f_{{{k - 1}}}(x)\).

\[
\int_0^1 \frac{{f_{{{k}}}(x)}}{{x}} \, dx = \sum_{{n=1}}^{{\infty}} \frac{{1}}{{n^{{{k + 1}}}}} = \zeta({k + 1}), \qquad
\begin{{pmatrix}} a & b \\ c & d \end{{pmatrix}}^{{-1}} = \frac{{1}}{{ad - bc}} \begin{{pmatrix}} d & -b \\ -c & a \end{{pmatrix}}
\]

Three things follow:

1. The bound \(\zeta({k + 1}) \le 1 + 2^{{-{k}}}\) holds, because \(\int_2^\infty t^{{-{k + 1}}} dt = \frac{{2^{{-{k}}}}}{{{k}}}\).
2. For \(\alpha, \beta \in \mathbb{{R}}\) one has \(\langle \alpha f, \beta f \rangle = \alpha \beta \lVert f \rVert^2\).
3. The error after \(N\) terms is \(\mathcal{{O}}(N^{{-{k}}})\).

```python
def zeta_{k}(terms: int) -> float:
    # the sum, smallest terms first
    return sum(1 / n**{k} for n in range(terms, 0, -1))
```

| \(n\) | \(n^{{-{k}}}\) | partial sum |
|---|---|---|
| 1 | 1 | $1$ |
| 2 | $2^{{-{k}}}$ | $1 + 2^{{-{k}}}$ |

> So \(\zeta({k})\) is **irrational** for \(k = 3\), which is Apéry's theorem.

"""


def tokens(text: str) -> list[str]:
    """Cut a text into pieces of about the size of tokens."""
    return [text[at : at + 4] for at in range(0, len(text), 4)]


TEXTS["maths"] = "".join(chapter(number) for number in range(15))


def replay(text: str, speed: float, show: str, *, reasoning: str = "") -> Any:
    """Feed a text to the view of the running cell, `speed` tokens a second."""
    from IPython import get_ipython

    view = display.choose(get_ipython(), Settings(), show)
    draft = Draft()
    view.begin("replay")
    for piece in tokens(reasoning):
        draft.add(ReasoningDelta(piece))
        view.update(draft)
        time.sleep(1 / speed)
    pieces = tokens(text)
    begun = time.perf_counter()
    sent = 0
    while sent < len(pieces):
        due = min(len(pieces), int((time.perf_counter() - begun) * speed) + 1)
        for piece in pieces[sent:due]:
            draft.add(TextDelta(piece))
        sent = due
        view.update(draft)
        time.sleep(min(view.wait, 1 / speed))
    draft.add(UsageReport(Usage(7, len(pieces))))
    draft.add(Finished("stop"))
    ended = time.time()
    view.finish(draft.response(model="replay", provider="test"), f"replay · {len(pieces):,} tokens")
    return ended


def load_ipython_extension(shell: Any) -> None:
    def llm(line: str, _cell: str | None = None) -> None:
        options = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
        text = TEXTS.get(options.get("text", ""), shell.user_ns.get(options.get("text", ""), ""))
        reasoning = shell.user_ns.get(options.get("reasoning", ""), "")
        shell.user_ns["ended"] = replay(
            text, float(options.get("speed", 400)), options.get("show", "markdown"), reasoning=reasoning
        )

    shell.register_magic_function(llm, "line_cell")
