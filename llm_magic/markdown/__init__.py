r"""A model's markdown as a notebook may show it: maths in dollars, and nothing in it that could act or load.

Maths written `\(…\)` and `\[…\]` becomes `$…$` and `$$…$$`, which notebooks render; code stays as it is.
"""

from __future__ import annotations

import re

from llm_magic.markdown.fences import code_blocks
from llm_magic.markdown.sanitize import sanitize

_TOKEN = re.compile(
    r"(?P<ticks>`+)"
    r"|(?P<escape>\\[\\`$])"
    r"|(?P<open>\\[(\[])"
    r"|(?P<raw><(?P<element>pre|code|script|style|textarea)(?=[\s>]))"
    r"|(?P<dollars>\$\$)",
    re.IGNORECASE,
)
_ENDS = {"\\(": "\\)", "\\[": "\\]"}
_LONGEST_CODE = 500
"""Lines of indented code that are looked at; a longer block is not taken for code."""
_LONGEST_SPAN = 10_000
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_LONGEST = {"\\(": 2_000, "\\[": 20_000}
"""Characters that a formula may have; a search for an end that is nowhere must not be long."""


def for_notebook(text: str, *, external_images: bool = False) -> str:
    r"""Return a model's text for the media type `text/markdown`: the same, but for maths and for what could act.

    `external_images` lets images of the web and mermaid diagrams load.

    >>> for_notebook(r"\(a\) <img src=x onerror=alert(1)>")
    '$a$ &lt;img src=x onerror=alert(1)>'

    """
    return sanitize(with_dollars(text), external_images=external_images)


def with_dollars(text: str) -> str:
    r"""Return markdown with its maths as notebooks want it.

    >>> print(with_dollars(r"Let \( a \) be \[ b \] but `\(c\)`"))
    Let $a$ be $$ b $$ but `\(c\)`

    """
    if "\\(" not in text and "\\[" not in text:
        return text
    pieces: list[str] = []
    at = 0
    for block in code_blocks(text):
        pieces += [_converted(text[at : block.start]), text[block.start : block.end]]
        at = block.end
    pieces.append(_converted(text[at:]))
    return "".join(pieces)


def _converted(text: str) -> str:
    """Convert the maths of a text without fenced code; code spans and literal elements stay as they are."""
    pieces: list[str] = []
    barren = dict.fromkeys(_ENDS, 0)  # up to where no end of a formula is
    unclosed: set[str] = set()  # elements that have no end tag further on
    verdicts: dict[int, bool] = {}  # whether a line, by where it begins, is indented code
    at = copied = 0
    while token := _TOKEN.search(text, at):
        at = token.end()
        if token["ticks"]:
            at = _end_of_span(text, token["ticks"], at)
        elif token["raw"]:
            at = _end_of_element(text, token["element"].lower(), at, unclosed)
        elif token["dollars"]:
            end = text.find("$$", at)
            at = end + 2 if end >= 0 else at
        elif (
            token["open"]
            and not _in_indented_code(text, token.start(), verdicts)
            and (formula := _formula(text, token["open"], at, barren))
        ):
            pieces += [text[copied : token.start()], formula[0]]
            at = copied = formula[1]
    pieces.append(text[copied:])
    return "".join(pieces)


def _end_of_span(text: str, ticks: str, at: int) -> int:
    """Return where the code span ends that these ticks open; where none does, they are text."""
    close = re.compile(rf"(?<!`){ticks}(?!`)").search(text, at, at + _LONGEST_SPAN)
    return at if close is None or _BLANK_LINES.search(text, at, close.start()) else close.end()


def _end_of_element(text: str, name: str, at: int, unclosed: set[str]) -> int:
    """Return where an element ends whose text is literal; where it does not, nothing of it is."""
    close = None if name in unclosed else re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, at)
    if close is None:
        unclosed.add(name)
    return at if close is None else close.end()


def _in_indented_code(text: str, at: int, verdicts: dict[int, bool]) -> bool:
    """Tell whether a line is indented code: four columns, after a blank line or another such line, outside of lists."""
    line_begin = begin = text.rfind("\n", max(0, at - _LONGEST_SPAN), at) + 1  # 0 also on a line too long to be code
    if not text.startswith(("    ", "\t"), begin, at):
        return False
    verdict = False
    for _ in range(_LONGEST_CODE):
        if begin in verdicts or begin == 0:
            verdict = verdicts.get(begin, True)
            break
        end = begin - 1
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end]
        if line.strip() and not line.startswith(("    ", "\t")):
            verdict = (
                not re.match(r"\s*(?:[-+*]|\d{1,9}[.)]|\[\^[^\]]+\]:)(?:\s|$)", line) and text[end : end + 2] == "\n\n"
            )
            break
    verdicts[line_begin] = verdict
    return verdict


def _formula(text: str, opened: str, at: int, barren: dict[str, int]) -> tuple[str, int] | None:
    """Return a formula as notebooks write it, and where it ends; None where it does not end, or is no formula."""
    end_mark = _ENDS[opened]
    end = max(at, barren[opened])
    while True:
        end = text.find(end_mark, end, at + _LONGEST[opened])
        if end < 0:
            barren[opened] = at + _LONGEST[opened] - 1
            return None
        inner = text[at:end]
        if (len(inner) - len(inner.rstrip("\\"))) % 2 == 0:
            break
        end += 1  # it is escaped
    after = end + len(end_mark)
    if not inner.strip() or (text[after : after + 1] == "(" and opened == "\\[" and "\n" not in inner):
        return None  # `\[text\](url)` is a link, escaped
    if opened == "\\(":
        return None if "\n\n" in inner else (f"${inner.strip()}$", after)
    return f"$${_BLANK_LINES.sub(chr(10), inner)}$$", after
