"""Fenced code (CommonMark 0.31, 4.5): found in a text, written, and the code of an answer for the next cell.

What stands before an opening fence on its line says in which quotes and list items the code is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

RUN = re.compile(r"`{3,}(?=[^`\n]*$)|~{3,}", re.MULTILINE)
"""What an opening fence is made of; as much of the same character, or more, closes it."""
_OPENING = re.compile(  # in whatever containers
    rf"^(?P<before>[ \t>]*(?:(?:[-+*]|\d{{1,9}}[.)])[ \t][ \t>]*)*)(?P<run>{RUN.pattern})[ \t]*(?P<info>[^\n]*)$",
    re.MULTILINE,
)
_PYTHON = frozenset({"", "python", "python3", "py", "py3", "ipython", "ipython3", "pycon"})
_MAGICS = {
    **{name: name for name in ("bash", "sh", "html", "javascript", "latex", "markdown", "svg", "perl", "ruby")},
    "shell": "bash",
    "console": "bash",
    "js": "javascript",
    "tex": "latex",
    "md": "markdown",
}
"""Languages for which IPython has a cell magic: https://ipython.readthedocs.io/en/stable/interactive/magics.html"""


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Fenced code, from `start` to `end` of a text; not `closed` where the text ends before it does."""

    before: str
    """What stands before it on its first line: the marks of quotes and list items."""
    info: str
    code: str
    start: int
    end: int
    closed: bool

    @property
    def language(self) -> str:
        """The first word of the info string in lower case, without the braces of Pandoc."""
        return self.info.split()[0].strip("{}.").lower() if self.info else ""


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code for a cell, empty where there is none, and what the user should know about it."""

    code: str
    notes: tuple[str, ...] = ()


def code_blocks(text: str) -> Iterator[CodeBlock]:
    r"""Yield the fenced code of a text, without the indentation and quote marks around it.

    >>> [(block.language, block.code) for block in code_blocks("- Do\n\n  ```py\n  x = 1\n  ```\n")]
    [('py', 'x = 1\n')]

    """
    at = 0
    while opened := _OPENING.search(text, at):
        before, run = opened["before"], opened["run"]
        begin = min(opened.end() + 1, len(text))
        indent = "[ >]*" if before else " {0,3}"
        closed = re.compile(rf"^{indent}{run[0]}{{{len(run)},}}[ \t]*$", re.MULTILINE).search(text, begin)
        code = text[begin : closed.start() if closed else len(text)]
        if before:
            outside = r"[ \t>]" if ">" in before else r"[ \t]"
            code = re.sub(rf"^{outside}{{0,{len(before)}}}", "", code, flags=re.MULTILINE)
        at = closed.end() if closed else len(text)
        yield CodeBlock(before, opened["info"].strip(), code, opened.start(), at, closed is not None)


def opening_run(content: str) -> str:
    """Return the run with which a line's content opens fenced code; empty where it does not."""
    found = RUN.match(content) if content.startswith(("```", "~~~")) else None
    return found[0] if found else ""


def closes(content: str, run: str) -> bool:
    """Tell whether a line, stripped of white space, closes the code that a run opened."""
    return len(content) >= len(run) and not content.strip(run[0])


def fence_for(text: str, least: int = 3) -> str:
    """Return a fence that is longer than any run of backticks in the text, and has `least` of them.

    >>> fence_for("a `b` ```` c")
    '`````'

    """
    return "`" * max(3, least, 1 + max(map(len, re.findall("`+", text)), default=0))


def fenced(text: str, info: str = "", *, least: int = 3) -> str:
    r"""Return text as a code block, whose fence has `least` backticks.

    >>> fenced("x = 1\n", "python")
    '```python\nx = 1\n```\n'

    """
    fence = fence_for(text, least)
    return f"{fence}{info}\n{text.removesuffix(chr(10))}\n{fence}\n"


def snippet(text: str, *, cut: bool = False) -> Snippet:
    r"""Return the code of an answer in markdown.

    Blocks of Python are joined, in their order, with a blank line between. Where there is none, the first block
    of a language that has a cell magic goes under it. An answer with no block at all is taken whole if it is Python.
    Code that is not whole is none: of an answer that was `cut`, or whose last fence is open.

    >>> snippet("Do this:\n```python\nx = 1\n```\nthen\n```py\nprint(x)\n```")
    Snippet(code='x = 1\n\nprint(x)', notes=())
    >>> snippet("```bash\nls\n```").code
    '%%bash\nls'

    """
    blocks = [block for block in code_blocks(text) if block.code.strip()]
    if cut:
        return Snippet("", ("The answer was cut, so no code of it is put into a cell; copy it from above.",))
    if not all(block.closed for block in blocks):
        return Snippet("", ("The answer ends within its code, so it is not put into a cell; copy it from above.",))
    if not blocks:
        whole = text.strip()
        return Snippet(whole) if whole and _problem(whole) is None else Snippet("", ("The answer has no code.",))
    others = [block for block in blocks if block.language not in _PYTHON]
    if len(others) < len(blocks):
        code = "\n\n".join(_without_prompts(block.code).strip("\n") for block in blocks if block.language in _PYTHON)
        notes = [f"Left out: code in {', '.join(sorted({block.language for block in others}))}."] if others else []
        if problem := _problem(code):
            notes.append(f"The code is not valid Python: {problem}.")
        return Snippet(code, tuple(notes))
    language = others[0].language
    if language not in _MAGICS:
        return Snippet("", (f"The answer's code is {language}, which a cell cannot run; copy it from above.",))
    more = (f"Only the first of {len(others)} blocks is taken.",) if len(others) > 1 else ()
    return Snippet(f"%%{_MAGICS[language]}\n{others[0].code.strip(chr(10))}", more)


def _without_prompts(code: str) -> str:
    """Take off `>>> ` and `... `, and what was printed between them."""
    lines = code.splitlines()
    if not lines or not lines[0].startswith(">>>"):
        return code
    return "\n".join(line[4:] for line in lines if line.startswith((">>>", "...")))


def _problem(code: str) -> str | None:
    """Return what keeps `code` from being Python, IPython's own syntax allowed; None if nothing does."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        ast.parse(TransformerManager().transform_cell(code))
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    return None
