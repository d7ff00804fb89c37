"""Quiet lines, marks, folded texts as HTML and plain text; whatever a model wrote is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from llm_magic.control_characters import visible
from llm_magic.display.footer import counted
from llm_magic.markdown.unsafe import neutral_maths
from llm_magic.response import Response, ToolRun
from llm_magic.text_buffer import whole

Bundle = dict[str, str]
"""An output by media type."""

WRAP = "white-space: pre-wrap; overflow-wrap: anywhere"
"""Lines stay, and long ones go on below (CSS)."""

CODE_FONT = "font-family: var(--jp-code-font-family, monospace)"
"""Each character as wide as any other (CSS): an exported page does not do that for `<pre>` by itself."""

NO_MATHS = 'class="mathjax_ignore tex2jax_ignore"'
"""Marks an element in whose text MathJax (3, 2) finds no formulas: two amounts of dollars would be one."""

_BAR = "width: 100%; max-width: 40em; height: 0.9em; margin: 0.3em 0; accent-color: var(--jp-brand-color1, #1976d2)"
_QUIET = "color: var(--jp-ui-font-color2, gray); font-size: var(--jp-ui-font-size1, 0.85em)"
_MARK = "border-left: 3px solid var(--jp-warn-color1, orange); padding-left: 0.6em"
_INDENTED = (
    f"{WRAP}; {CODE_FONT}; margin: 0.4em 0 0.4em 1.2em; "
    "font-size: var(--jp-code-font-size, 0.9em); color: var(--jp-ui-font-color2, gray)"
)

UNFINISHED = "unfinished: the answer is still arriving"
"""What stands below an answer until it is complete: a notebook may be saved, or its page reloaded, in between."""

MARKS = {
    "length": "Cut off: the answer reached its token limit.",
    "content_filter": "Cut off by a content filter.",
    "refusal": "The model refused to answer.",
    "interrupted": "Interrupted.",
    "truncated": "Cut off: the connection ended before the answer did.",
}
"""What is said below an answer that is not whole, by its finish reason."""


def escaped(text: str) -> str:
    """Return text as HTML that is only text, also to MathJax, which reads what stands in the page."""
    return escape(neutral_maths(visible(text)))


def displayable(bundle: Bundle) -> Bundle:
    """Return an output whose plain text holds no control characters, which consoles and front ends obey."""
    plain = bundle.get("text/plain")
    return bundle if plain is None else {**bundle, "text/plain": visible(plain)}


def quiet(text: str) -> Bundle:
    """Return a line that does not ask for attention."""
    return {"text/plain": text, "text/html": f'<div{_no_maths(text)} style="{_QUIET}">{escaped(text)}</div>'}


def mark(text: str) -> Bundle:
    """Return a line that is to be seen."""
    return {"text/plain": text, "text/html": f'<div{_no_maths(text)} style="{_MARK}">{escaped(text)}</div>'}


def _no_maths(text: str) -> str:
    return f" {NO_MATHS}" if text.count("$") > 1 else ""


def folded(title: str, text: str) -> Bundle:
    """Return a text of which only the title is seen until it is unfolded."""
    html = unfolding(title, f'<pre style="{_INDENTED}">{escaped(text)}</pre>')
    return {"text/plain": "\n    ".join([title, *text.splitlines()]), "text/html": html}


def unfolding(title: str, html: str, *, opened: bool = False) -> str:
    """Return HTML of which only the title is seen until it is unfolded; `opened` it is from the start."""
    summary = f'<summary style="cursor: pointer; {_QUIET}">{escaped(title)}</summary>'
    return f"<details{' open' if opened else ''}>{summary}{html}</details>"


def joined(bundles: Sequence[Bundle]) -> Bundle:
    """Return one output that shows several, one below the other."""
    plain, html = [bundle["text/plain"] for bundle in bundles], [bundle["text/html"] for bundle in bundles]
    return {"text/plain": "\n".join(plain), "text/html": "".join(html)}


def reasoning(text: str) -> Bundle:
    """Return the model's reasoning, folded."""
    return folded(reasoning_line(text), text.strip())


def reasoning_line(text: str) -> str:
    """Return what is seen of reasoning that is folded."""
    return f"Reasoning ({counted(len(text.split()), 'word')})"


def tool_run(run: ToolRun) -> Bundle:
    """Return a tool call with its result, folded."""
    try:
        values = json.loads(run.arguments or "{}")
    except ValueError:
        values = None
    python = (f"{name}={value!r}" for name, value in values.items()) if isinstance(values, dict) else [run.arguments]
    call = shortened(f"{run.name}({', '.join(python)})", 100)
    outcome = "failed" if run.failed else "not run" if run.result is None else shortened(run.result, 60)
    result = "" if run.result is None else f"\n→ {run.result}"
    return folded(f"{call} → {outcome}", f"{run.name} {indented(run.arguments)}{result}")


def marks(response: Response) -> Bundle | None:
    """Return what is to be said of an answer that is not whole, None where it is."""
    said = MARKS.get(response.finish_reason)
    if said is None:
        return None
    if response.finish_reason == "refusal" and response.refusal and not response.text:
        said = f"{said[:-1]}: {response.refusal}"
    return mark(said)


def preformatted(text: str) -> str:
    """Return text as HTML that shows it as it stands."""
    return f'<pre style="{WRAP}; {CODE_FONT}">{escaped(text)}</pre>'


def prewrapped(text: str) -> str:
    """Return text as HTML that keeps its lines, in the font of text."""
    return f'<div style="{WRAP}">{escaped(text)}</div>'


def progress_bar(done: int, total: int | None, label: str, said: str) -> str:
    """Return a bar as HTML, for screen readers with a label and in words.

    It moves from end to end where nobody knows the total (None); a total of 0 is reached.
    """
    told = f'aria-label="{escaped(label)}" aria-valuetext="{escaped(said)}"'
    if total is None:
        return f'<div><progress role="progressbar" {told} style="{_BAR}"></progress></div>'
    most = max(total, 1)
    now = min(done, most) if total > 0 else most
    bounds = f'value="{now}" max="{most}" aria-valuenow="{now}" aria-valuemin="0" aria-valuemax="{most}"'
    return f'<div><progress role="progressbar" {bounds} {told} style="{_BAR}">{now / most:.0%}</progress></div>'


def side_by_side(answers: Sequence[str], titles: Sequence[str]) -> str:
    """Return several answers, given as HTML, next to each other as HTML."""
    cell = (
        "flex: 1 1 18em; min-width: 0; overflow: auto; padding: 0.4em 0.6em; "
        "border: 1px solid var(--jp-border-color2, lightgray); border-radius: 3px"
    )
    cells = "".join(
        f'<div style="{cell}"><div style="{_QUIET}">{escaped(title)}</div>{answer}</div>'
        for title, answer in zip(titles, answers, strict=True)
    )
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0.6em">{cells}</div>'


def indented(document: str) -> str:
    """Return a JSON document with a member a line; text that is none as it is."""
    try:
        return json.dumps(json.loads(document), indent=2, ensure_ascii=False)
    except ValueError:
        return document


def shortened(text: str, length: int) -> str:
    """Return text on one line of `length` characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def one_line(text: str, length: int) -> str:
    r"""Return text on one line of `length` characters at most, in which nothing acts on a screen.

    >>> one_line("\x1b[31mred\n\nand more", 9), one_line("\ud800", 9)
    ('␛[31mred…', '\ufffd')

    """
    return shortened(visible(whole(text.lstrip()[: 4 * length])), length)
