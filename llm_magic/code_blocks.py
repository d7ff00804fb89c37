"""The code of an answer for the next cell: Python joined, others under their cell magic."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from llm_magic.markdown.fences import code_blocks

PYTHON = frozenset({"", "python", "python3", "py", "py3", "ipython", "ipython3", "pycon"})
MAGICS = {
    **{name: name for name in ("bash", "sh", "html", "javascript", "latex", "markdown", "svg", "perl", "ruby")},
    "shell": "bash",
    "console": "bash",
    "js": "javascript",
    "tex": "latex",
    "md": "markdown",
}
"""Languages for which IPython has a cell magic: https://ipython.readthedocs.io/en/stable/interactive/magics.html"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code for a cell, empty where there is none, and what the user should know about it."""

    code: str
    notes: tuple[str, ...] = ()


def snippet(text: str) -> Snippet:
    r"""Return the code of an answer in markdown.

    Blocks of Python are joined, in their order, with a blank line between. Where there is none, the first block
    of a language that has a cell magic goes under it. An answer with no block at all is taken whole if it is Python.

    >>> snippet("Do this:\n```python\nx = 1\n```\nthen\n```py\nprint(x)\n```")
    Snippet(code='x = 1\n\nprint(x)', notes=())
    >>> snippet("```bash\nls\n```").code
    '%%bash\nls'

    """
    blocks = [(block.language, block.code) for block in code_blocks(text) if block.code.strip()]
    if not blocks:
        whole = text.strip()
        if whole and _problem(whole) is None:
            return Snippet(whole)
        return Snippet("", ("The answer has no code.",))
    python = [_without_prompts(code) for language, code in blocks if language in PYTHON]
    others = [(language, code) for language, code in blocks if language not in PYTHON]
    if python:
        code = "\n\n".join(block.strip("\n") for block in python)
        left = sorted({language for language, _ in others})
        notes = [f"Left out: code in {', '.join(left)}."] if left else []
        problem = _problem(code)
        return Snippet(code, (*notes, *([f"The code is not valid Python: {problem}."] if problem else ())))
    language, code = others[0]
    if language not in MAGICS:
        return Snippet("", (f"The answer's code is {language}, which a cell cannot run; copy it from above.",))
    more = (f"Only the first of {len(others)} blocks is taken.",) if len(others) > 1 else ()
    return Snippet(f"%%{MAGICS[language]}\n{code.strip(chr(10))}", more)


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
