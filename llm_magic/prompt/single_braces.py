r"""Single braces that look like a template's: `{df}` where a variable of that name exists is sent as it is, and noted.

Other extensions and f-strings write variables so. JSON, sets, LaTeX and code are no such thing: in the braces has to
be a variable, with nothing but attributes, items, a conversion or a format behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from llm_magic.markdown.fences import code_blocks

_MOST = 3
"""Notes on one text: one of code would have hundreds."""

_FIELD = re.compile(
    r"(?<![\\{}\w$^\]])\{"  # neither \{, {{ nor ${, nor what follows a command (\frac{a}{b}, x^{i})
    r"(?P<expression>(?P<name>[^\W\d]\w*)"
    r"(?:\.[^\W\d]\w*|\[(?:-?\d+|'[^'\n]{0,80}'|\"[^\"\n]{0,80}\"|[^\W\d]\w*)\])*)"
    r"=?(?:![rsa])?"
    r"(?::(?:[^\s{}]{0,20}[.,%<>^+][^\s{}]{0,20}|\d+[bcdeEfFgGnoxX]|[^{}\n]{0,20}%[A-Za-z][^{}\n]{0,40}))?"
    r"\}(?![}{])"
)
_ELSEWHERE = (
    re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}", re.DOTALL),
    re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL),
    re.compile(r"(`+)[^`\n]+\1"),
    re.compile(r"\b[rR]?[fF][rR]?(\"[^\"\n]*\"|'[^'\n]*')"),  # an f-string of code
    re.compile(
        r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\([^\n]{1,1000}?\\\)|\\\[.{1,1000}?\\\]|\\begin\{(\w{1,20}\*?)\}.{1,2000}?\\end\{\1\}",
        re.DOTALL,
    ),
)
"""Tags, code and maths, in which single braces are no habit."""

_OF_IPYTHON = frozenset({"exit", "quit", "open", "get_ipython"})
_NUMBERED = frozenset({"In", "Out"})


def notes_on(text: str, namespace: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note on each variable in single braces of a prompt, outside of its tags, code and maths.

    >>> list(notes_on('Is {x:.2f} in {"x": 1} or {y}?', {"x": 1.5}))
    ['{x:.2f} is sent as it is: did you mean {{ x }}?']

    """
    if "{" not in text:
        return
    found: dict[str, str] = {}
    for match in _FIELD.finditer(_prose(text)):
        if meant := _meant(match["name"], match["expression"], namespace):
            found[match[0]] = meant
    for written, meant in list(found.items())[:_MOST]:
        yield f"{written} is sent as it is: did you mean {meant}?"
    if len(found) > _MOST:
        yield f"{len(found) - _MOST:,} more variables stand in single braces and are sent as they are."


def _meant(name: str, expression: str, namespace: Mapping[str, Any]) -> str:
    """Return what would be expanded; empty where the braces hold no variable."""
    if name == "Err" and "[" in expression:  # Jupyter AI numbers errors
        return "{{ error }}"
    if (name in _NUMBERED and expression == name) or name in _OF_IPYTHON or not name.strip("_"):
        return ""
    if name not in namespace or isinstance(namespace[name], ModuleType):
        return ""
    return f"{{{{ {expression} }}}}"


def _prose(text: str) -> str:
    """Return a text with blanks in the place of tags, code and maths."""
    for block in reversed(list(code_blocks(text))):
        text = f"{text[: block.start]}\n{text[block.end :]}"
    for pattern in _ELSEWHERE:
        text = pattern.sub(" ", text)
    return text
