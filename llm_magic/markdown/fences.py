"""Fenced code (CommonMark 0.31, 4.5): opening and closing fences, info strings, a fence for a text.

What stands before an opening fence on its line says in which quotes and list items the code is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

RUN = r"`{3,}(?=[^`\n]*$)|~{3,}"
"""What an opening fence is made of; as much of the same character, or more, closes it."""
OPENING = re.compile(
    rf"^(?P<before>[ \t>]*(?:(?:[-+*]|\d{{1,9}}[.)])[ \t][ \t>]*)*)(?P<run>{RUN})[ \t]*(?P<info>[^\n]*)$", re.MULTILINE
)
"""The line that opens fenced code, in whatever containers."""
_RUN = re.compile(RUN)


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Fenced code, from `start` to `end` of a text; not `closed` where the text ends before it does."""

    info: str
    code: str
    start: int
    end: int
    closed: bool

    @property
    def language(self) -> str:
        """The first word of the info string in lower case, without the braces of Pandoc."""
        return self.info.split()[0].strip("{}.").lower() if self.info.strip() else ""


def code_blocks(text: str) -> Iterator[CodeBlock]:
    r"""Yield the fenced code of a text, without the indentation and quote marks around it.

    >>> [(block.language, block.code) for block in code_blocks("- Do\n\n  ```py\n  x = 1\n  ```\n")]
    [('py', 'x = 1\n')]

    """
    at = 0
    while opened := OPENING.search(text, at):
        begin = min(opened.end() + 1, len(text))
        closed = closing(opened).search(text, begin)
        code = text[begin : closed.start() if closed else len(text)]
        if before := opened["before"]:
            outside = r"[ \t>]" if ">" in before else r"[ \t]"
            code = re.sub(rf"^{outside}{{0,{len(before)}}}", "", code, flags=re.MULTILINE)
        at = closed.end() if closed else len(text)
        yield CodeBlock(opened["info"].strip(), code, opened.start(), at, closed is not None)


def closing(opened: re.Match[str]) -> re.Pattern[str]:
    """Return what closes the code that a match of `OPENING` opens: a run at least as long."""
    before = "[ >]*" if opened["before"] else " {0,3}"
    return re.compile(rf"^{before}{opened['run'][0]}{{{len(opened['run'])},}}[ \t]*$", re.MULTILINE)


def opening_run(content: str) -> str:
    """Return the run with which a line's content opens fenced code; empty where it does not."""
    found = _RUN.match(content) if content.startswith(("```", "~~~")) else None
    return found[0] if found else ""


def closes(content: str, run: str) -> bool:
    """Tell whether a line, stripped of white space, closes the code that a run opened."""
    return len(content) >= len(run) and not content.strip(run[0])


def fence_for(text: str) -> str:
    """Return a fence that is longer than any run of backticks in the text.

    >>> fence_for("a `b` ```` c")
    '`````'

    """
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def fenced(text: str, info: str = "") -> str:
    r"""Return text as a code block.

    >>> fenced("x = 1\n", "python")
    '```python\nx = 1\n```\n'

    """
    fence = fence_for(text)
    return f"{fence}{info}\n{text.removesuffix(chr(10))}\n{fence}\n"
