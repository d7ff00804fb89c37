"""Markdown that arrives in pieces, split into finished blocks, which stay, and a tail that may change.

A boundary is set only where a reader of the whole text would set one, too: fenced code, lists
(loose ones, too), tables, block quotes, maths, HTML elements and footnotes stay whole. In doubt two
blocks stay together. Blocks depend on the text alone, not on the pieces it came in, and the work on
the new text alone.
"""

from __future__ import annotations

import re

from llm_magic.markdown.fences import closes, opening_run
from llm_magic.text_buffer import TextBuffer

_MARKER = re.compile(r"(?:[-+*]|\d{1,9}[.)])(?:[ \t]+|$)")
_INTERRUPTS = re.compile(r"(?:[-+*]|1[.)])[ \t]+\S")  # a list may begin so right after a line of text
_FOOTNOTE = re.compile(r"\[\^[^\]]+\]:")
_RULE = re.compile(r"([-*_])(?:[ \t]*\1){2,}$")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_MATHS_TOKEN = re.compile(r"(`+)(?:(?!\1).)*?(?<!`)\1(?!`)|\\\[|\\\]|\\.|\$\$")
_ENVIRONMENT = re.compile(r"\\begin\{([a-zA-Z]+\*?)\}")
_RAW_HTML = (  # what begins a run of HTML that only its own end closes, blank lines or not
    (re.compile(r"<(?:script|pre|style|textarea)(?=[\s>]|$)", re.IGNORECASE), "</"),
    (re.compile(r"<!--"), "-->"),
    (re.compile(r"<\?"), "?>"),
    (re.compile(r"<!\[CDATA\["), "]]>"),
)
_RAW_END = re.compile(r"</(?:script|pre|style|textarea)>", re.IGNORECASE)
_TAG = re.compile(r"<([A-Za-z][A-Za-z0-9-]*)(?=[\s/>]|$)")
_LONE_TAG = re.compile(r"<[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?>\s*$")
_BLOCK_TAG = re.compile(  # the elements of CommonMark's HTML blocks that have an end tag
    r"address|article|aside|blockquote|body|center|details|dialog|dir|div|dl|fieldset|figcaption|figure|footer|form|"
    r"frameset|h[1-6]|head|header|html|iframe|legend|main|menu|nav|noframes|ol|search|section|summary|table|tbody|"
    r"tfoot|thead|title|ul"
)
_LONE_END = re.compile(  # elements that need no end tag: nothing waits for it
    r"area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|p|li|d[dt]|t[drh]|option|optgroup"
)
_CODE_INDENT = 4  # columns
_MATHS_LINES = 200
"""Lines after which maths without an end was no maths."""


class Splitter:
    r"""Splits text that arrives in pieces.

    >>> splitter = Splitter()
    >>> splitter.feed("# Title\nSome te"), splitter.tail
    (['# Title\n'], 'Some te')
    >>> splitter.feed("xt.\n\n- a\n"), splitter.tail
    (['Some text.\n\n'], '- a\n')
    """

    def __init__(self) -> None:
        self._finished: list[str] = []
        self._partial = TextBuffer()  # the line that has no end yet
        self.length = 0
        """Characters of the tail."""
        self._begin()

    def _begin(self) -> None:
        self._lines: list[str] = []
        self._kind = ""  # of the block that the tail holds: "", text, list, indented, fence
        self._after_blank = False
        self._doubtful = False  # whether the list is one
        self._offsets: list[int] = []  # columns in which the content of open list items begins
        self._code_below = False  # whether the text has an indented line: code, or else more text
        self._fence = ""  # the run that opened the fenced code that is open
        self._inside = 0  # the indentation that its container asks of each line
        self._maths = ""  # what ends the maths that is open
        self._maths_lines = 0
        self._raw_end = ""
        self._element = ""
        self._depth = 0
        self.opener: str | None = None
        """The first line of the code block that the tail is, None where it is something else."""
        self.closing = ""
        """The line that would end that code block."""

    @property
    def tail(self) -> str:
        """The text after the last finished block."""
        if len(self._lines) > 1:
            self._lines[:] = ["".join(self._lines)]
        return "".join(self._lines) + str(self._partial)

    def feed(self, text: str) -> list[str]:
        """Take more text and return the blocks that it finished, each with the line ends that belong to it."""
        self.length += len(text)
        *ended, rest = text.split("\n")
        if ended and len(self._partial):
            ended[0] = str(self._partial) + ended[0]
            self._partial = TextBuffer()
        for line in ended:
            self._take(line + "\n")
        if rest:
            self._partial.append(rest)
        finished, self._finished = self._finished, []
        return finished

    def _finish(self) -> None:
        """Set a boundary after the lines so far."""
        if self._lines:
            block = "".join(self._lines)
            self.length -= len(block)
            self._finished.append(block)
        self._begin()

    def _take(self, line: str) -> None:
        stripped = line.strip()
        indent = _columns(line)
        if self._fence and (not stripped or indent >= self._inside):
            self._take_code(line, stripped)
        elif self._maths:
            self._take_maths(line, stripped)
        elif self._raw_end or self._depth:
            self._take_html(line, stripped)
        elif not stripped:
            self._take_blank(line)
        else:
            if self._fence:  # left by the end of its list item, so this line does not go on with its text
                self._fence, self._after_blank = "", True
            self._take_content(line, stripped, indent)

    def _take_code(self, line: str, stripped: str) -> None:
        self._lines.append(line)
        if closes(stripped, self._fence):
            self._fence = ""
            self._after_blank = True  # no text goes on
            if self._kind == "fence":
                self._finish()

    def _take_maths(self, line: str, stripped: str) -> None:
        self._lines.append(line)
        self._maths_lines += 1
        if self._maths == "$$":
            ended = _maths_tokens(stripped).count("$$") % 2 == 1
        else:
            ended = self._maths in (_maths_tokens(stripped) if self._maths == "\\]" else stripped)
        if ended or self._maths_lines > _MATHS_LINES:
            self._maths = ""

    def _take_html(self, line: str, stripped: str) -> None:
        self._lines.append(line)
        if self._raw_end:
            self._end_raw(stripped)
        elif run := opening_run(stripped):
            self._fence, self._inside = run, 0
        else:
            self._depth = max(0, self._depth + _balance(stripped, self._element))

    def _end_raw(self, text: str) -> None:
        if _RAW_END.search(text) if self._raw_end == "</" else self._raw_end in text:
            self._raw_end = ""

    def _take_blank(self, line: str) -> None:
        self._lines.append(line)
        self._after_blank = True
        if self._kind == "text" and not self._code_below:
            self._finish()

    def _take_content(self, line: str, stripped: str, indent: int) -> None:
        run = opening_run(stripped)
        if self._separates(stripped, indent, opens_code=bool(run)):
            self._finish()
        self._after_blank = False
        self._lines.append(line)
        if self._kind == "text":
            self._code_below = self._code_below or indent >= _CODE_INDENT
        if not self._kind and indent >= _CODE_INDENT:
            self._kind = "indented"
        elif run and not self._kind:
            self._kind = "fence"
            self._fence, self._inside = run, 0
            self.opener, self.closing = line, run + "\n"
        elif not self._kind and (_HEADING.match(stripped) or _RULE.match(stripped)):
            self._finish()
        elif self._kind != "indented":
            self._open_inside(stripped, indent)

    def _separates(self, stripped: str, indent: int, *, opens_code: bool) -> bool:
        """Tell whether a line that has content begins a new block, where a blank line has not ended the old one."""
        if self._kind == "list":
            interrupts = opens_code or stripped[0] == ">" or _HEADING.match(stripped) is not None
            if indent < min(self._offsets, default=4) and (
                interrupts or (_RULE.match(stripped) and not (self._doubtful and stripped.strip("-") == ""))
            ):
                return True
            ended = self._after_blank and indent < min(self._offsets, default=1)
            return ended and not _MARKER.match(stripped)
        if self._kind == "indented":
            return indent < _CODE_INDENT
        if self._code_below and self._after_blank and indent < _CODE_INDENT:
            return True
        return self._kind == "text" and opens_code and indent < _CODE_INDENT

    def _open_inside(self, stripped: str, indent: int) -> None:
        """Look what a line of text or of a list opens that only its own end closes."""
        column, content = indent, stripped
        listed = self._kind == "list" or indent < _CODE_INDENT
        if self._kind == "text" and _MARKER.match(content) and not _INTERRUPTS.match(content):
            self._doubtful = True  # it is no list if a paragraph goes on at this line, but after a table it is one
        elif self._kind == "list" and _INTERRUPTS.match(content):
            self._doubtful = False
        while listed and not _RULE.match(content) and (marker := _MARKER.match(content)):
            self._kind = "list"
            self._offsets = [offset for offset in self._offsets if offset <= column]
            column += len(marker[0].expandtabs(4))
            content = content[marker.end() :]
            self._offsets.append(column if content else column + 1)
        if not self._kind:
            self._kind = "list" if _FOOTNOTE.match(content) else "text"
        if self._kind == "list" and (_HEADING.match(content) or _RULE.match(content)):
            self._after_blank = True  # no text goes on
        if run := opening_run(content):
            if self._kind == "list":
                self._fence = run
                self._inside = max((offset for offset in self._offsets if offset <= column), default=0)
            return
        self._open_html(content)
        self._open_maths(content)

    def _open_html(self, content: str) -> None:
        if not content.startswith("<"):
            return
        for begins, end in _RAW_HTML:
            if begins.match(content):
                self._raw_end = end
                self._end_raw(content)
                return
        name = tag[1].lower() if (tag := _TAG.match(content)) else ""
        if _BLOCK_TAG.fullmatch(name) or (not _LONE_END.fullmatch(name) and _LONE_TAG.match(content)):
            self._element = name
            self._depth = max(0, _balance(content, name))

    def _open_maths(self, content: str) -> None:
        tokens = _maths_tokens(content)
        self._maths_lines = 0
        if tokens.count("$$") % 2 and (content.startswith("$$") or content.endswith("$$")):
            self._maths = "$$"
        elif tokens.count("\\[") > tokens.count("\\]"):
            self._maths = "\\]"
        elif (begun := _ENVIRONMENT.match(content)) and f"\\end{{{begun[1]}}}" not in content:
            self._maths = f"\\end{{{begun[1]}}}"


def _columns(line: str) -> int:
    """Return the column in which the content of a line begins."""
    white = line[: len(line) - len(line.lstrip(" \t"))]
    return len(white.expandtabs(4))


def _maths_tokens(text: str) -> list[str]:
    r"""Return the `$$`, `\[` and `\]` of a line, those in code spans and escaped ones apart."""
    if "$" not in text and "\\" not in text:
        return []
    return [found[0] for found in _MATHS_TOKEN.finditer(text) if found[0] in ("$$", "\\[", "\\]")]


def _balance(text: str, element: str) -> int:
    """Return how many more tags of an element a line opens than it closes."""
    count = 0
    for found in re.finditer(rf"<(/?){re.escape(element)}(?=[\s/>]|$)[^<>]*?(/?)(?:>|$)", text, re.IGNORECASE):
        count += -1 if found[1] else 0 if found[2] else 1
    return count
