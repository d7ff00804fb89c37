"""What a docstring says of a function and its parameters, in numpydoc, Google or Sphinx style."""

from __future__ import annotations

import re
import textwrap

_SECTIONS = (
    "Parameters|Other Parameters|Args|Arguments|Keyword Args|Attributes|Returns|Yields|Raises|Warns|Notes|See Also"
    "|Examples?|References"
)
_HEADING = re.compile(rf"^({_SECTIONS})(:?)[ \t]*$", re.MULTILINE)
_SPHINX = re.compile(r"^:param\s+(?:[^:\n]*\s)?(\w+):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_FIELD = re.compile(r"^:\w+[^:\n]*:", re.MULTILINE)


def summary(docstring: str) -> str:
    r"""Return what stands before the first section, as paragraphs.

    >>> summary("Add two numbers.\n\nParameters\n----------\na\n    One.")
    'Add two numbers.'

    """
    starts = [match.start() for pattern in (_HEADING, _FIELD) if (match := pattern.search(docstring))]
    text = docstring[: min(starts)] if starts else docstring
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def parameter_descriptions(docstring: str) -> dict[str, str]:
    r"""Return the descriptions of parameters by name; of those that are described.

    >>> parameter_descriptions("Add.\n\nArgs:\n    a (int): One number.\n    b: Another.")
    {'a': 'One number.', 'b': 'Another.'}

    """
    found = {name: " ".join(text.split()) for name, text in _SPHINX.findall(docstring)}
    headings = list(_HEADING.finditer(docstring))
    for place, heading in enumerate(headings):
        if heading[1] not in ("Parameters", "Other Parameters", "Args", "Arguments", "Keyword Args"):
            continue
        end = headings[place + 1].start() if place + 1 < len(headings) else len(docstring)
        body = docstring[heading.end() : end].strip("\n")
        first, _, rest = body.partition("\n")
        found.update(_numpydoc(rest) if set(first.strip()) == {"-"} else _google(body))
    return {name: text for name, text in found.items() if text}


def _numpydoc(body: str) -> dict[str, str]:
    """Read `name, other : type` with the description indented below."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(body).splitlines():
        if line and not line[0].isspace():
            names = [name.strip().lstrip("*") for name in line.split(":", 1)[0].split(",")]
        elif line.strip():
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _google(body: str) -> dict[str, str]:
    """Read `name (type): description`, further lines indented deeper."""
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(body).splitlines():
        match = re.match(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)", line)
        if match:
            name = match[1]
            found[name] = match[2].strip()
        elif name and line.strip() and line[0].isspace():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
