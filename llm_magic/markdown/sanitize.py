"""A model's markdown as text that can do nothing: a CommonMark parser says what it is, `unsafe` what in it could act.

JupyterLab trusts the outputs of a cell that the user has run and does not sanitize their markdown. So whatever could
act in some reader of markdown is written so that it is only text for all of them: `&lt;` in prose, `< ` in maths,
entities in code. Images that would load from elsewhere become links, diagrams their source. Only fenced code at the
left margin keeps its text, and its fence is then written so that all readers agree on where it begins and ends.
Text in which nothing could act stays byte for byte.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

from llm_magic.control_characters import visible
from llm_magic.markdown import unsafe
from llm_magic.markdown.constructs import Code, Span, parsed
from llm_magic.markdown.fences import fenced

_ATTEMPTS = 3
"""How often a text is written before it is shown as code."""
_COSTLY = "\n|[]!`<$@\\"
_MOST_COSTLY = 40_000
"""Of these characters; a text that has more, and in which something acts, is shown as code: it would take long."""
_MATHS = re.compile(r"\$\$(?:(?!\$\$|\n\s*\n)[\s\S])+\$\$|(?<![\\$])\$(?![\s$])(?:\\[^\n]|[^$\n\\])*\$")
_MATHS_ENDS = re.compile(r"\$\$|\\\\\]|\\end\{")
_MATHS_BEGINS = re.compile(r"\$\$|\\\\\[|\\begin\{")
_WHOLE_MATHS = re.compile(  # on one line, or in lines of its own
    r"(?<!\\)\$\$[^\n$]+(?<!\\)\$\$|^[ \t]*\$\$(?:(?!\$\$|\n[ \t]*\n)[\s\S])+(?<!\\)\$\$[ \t]*$"
    r"|^[ \t]*\\begin\{(?P<name>[a-z]*\*?)\}(?:(?!\\end\{(?P=name)\}|\n[ \t]*\n)[\s\S])+\\end\{(?P=name)\}[ \t]*$",
    re.MULTILINE,
)
_BRACKET = re.compile(r"\\[\s\S]|[\[\]]")
_INVISIBLE = str.maketrans({"\u2028": "\n", "\u2029": "\n", "\x0b": " ", "\x0c": " ", "\ufeff": None})


def sanitize(text: str, *, external_images: bool = False, bounded: bool = True) -> str:
    """Return markdown that shows what `text` says and can do nothing.

    With `external_images`, images of the web and mermaid diagrams stay: these load from wherever they say.
    A text that would take more than a second or so is shown as code, unless it is not to be `bounded`.

    >>> sanitize("a < b, x<sub>1</sub>"), sanitize("<script>alert(1)</script>")
    ('a < b, x<sub>1</sub>', '&lt;script>alert(1)&lt;/script>')
    >>> sanitize("![a cat](https://example.org/cat.png) [b](javascript:c)")
    '[a cat](https://example.org/cat.png) [b]&#40;javascript:c)'

    """
    plain = re.sub(r"\r\n?", "\n", text) if "\r" in text else text
    acts = unsafe.acts(plain, external_images=external_images)
    if not acts and not unsafe.lone_tags(plain):
        return text
    plain = visible(plain.translate(_INVISIBLE))
    if bounded and sum(map(plain.count, _COSTLY)) > _MOST_COSTLY:
        return _as_code(plain) if acts else text
    for _ in range(_ATTEMPTS):
        plain = _Writer(plain, external_images=external_images).written()
        if not unsafe.acts(plain, external_images=external_images) or not unsafe.acts(
            _without_margin_code(plain, external_images=external_images), external_images=external_images
        ):
            return plain
    return _as_code(plain)


def _as_code(text: str) -> str:
    """Return a text as one block of code: it is beyond us."""
    return fenced(text).removesuffix("\n")


def _without_margin_code(text: str, *, external_images: bool) -> str:
    """Return a text without what a parser finds to be fenced code at the margin, closed, with blank lines around."""
    pieces = []
    at = 0
    for code in parsed(text, inline=False)[0]:
        harmless = unsafe.is_harmless(code.info, drawn=external_images)
        if code.at_margin and code.closed and harmless and _stands_apart(text, code):
            pieces.append(text[at : code.start])
            at = code.end
    return "".join([*pieces, text[at:]])


def _stands_apart(text: str, code: Code) -> bool:
    """Tell whether there are blank lines, or nothing, above and below code."""
    above, below = text[max(0, code.start - 2_000) : code.start], text[code.end : code.end + 2_000]
    return (
        not above.removesuffix("\n").rpartition("\n")[2].strip()
        and not below.removeprefix("\n").partition("\n")[0].strip()
    )


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


class _Writer:
    """Writes one text anew."""

    def __init__(self, text: str, *, external_images: bool) -> None:
        self._text = text
        self._external_images = external_images
        self._mixed = unsafe.chunk_mixes(text)
        self._pieces: list[str] = []
        self._fresh: list[str] = []  # and in what of this no open maths has been looked for
        self._without_code = ""
        self._opened_maths = self._opened_bracket = self._poisoned = False

    def written(self) -> str:
        """Return the whole text."""
        codes, spans = parsed(self._text)
        self._without_code = _blanked(self._text, [*codes, *(span for span in spans if span.kind == "code")])
        edits = [*self._edits(codes, spans), None]
        at = 0
        codes_left = iter([*codes, None])
        code = next(codes_left)
        for edit in edits:
            while code is not None and (edit is None or code.start < edit.start):
                self._add_prose(self._text[at : code.start])
                at = max(at, code.end)
                self._add_code(code)
                code = next(codes_left)
            if edit is not None and edit.start >= at:
                self._add_prose(self._text[at : edit.start] + edit.text)
                at = edit.end
        self._add_prose(self._text[at:])
        return "".join(self._pieces)

    # Code

    def _add_prose(self, text: str) -> None:
        if not text:
            return
        self._pieces.append(text)
        self._fresh.append(text)
        for found in _BRACKET.finditer(text):
            if found[0] in "[]":
                self._opened_bracket = found[0] == "["

    def _add_code(self, code: Code) -> None:
        whole = self._text[code.start : code.end]
        if not code.at_margin:
            acts = self._acts(whole) or self._is_mixed(code.start, code.end)
            self._add_prose(
                f"{code.before}<pre><code>{_encoded(code.code.removesuffix(chr(10)))}</code></pre>" if acts else whole
            )
            return
        self._poison(whole, code.start)
        if not self._acts(whole) and not self._is_mixed(code.start, code.end):
            self._pieces.append(whole)
        elif self._poisoned:
            self._add_prose(f"{self._gap()}<pre><code>{_encoded(code.code.removesuffix(chr(10)))}</code></pre>")
        else:
            info = unsafe.language(code.info, drawn=self._external_images)
            written = fenced(code.code, info, least=len(code.run) if code.run[0] == "`" else 0).removesuffix("\n")
            rest = self._text[code.end : self._text.find("\n", code.end + 1) + 1 or None]
            self._pieces += [self._gap(), written, "\n" if rest.strip() else ""]

    def _acts(self, text: str) -> bool:
        return unsafe.acts(text, external_images=self._external_images)

    def _gap(self) -> str:
        """Return what makes the next line follow a blank one."""
        before = ""
        for piece in reversed(self._pieces):
            before = piece + before
            if "\n" in before.removesuffix("\n"):
                break
        return "\n" if before.removesuffix("\n").rpartition("\n")[2].strip() else ""

    def _poison(self, code: str, start: int) -> None:
        """Take note where some reader may see the end of something in code that began before: it loses the fence."""
        self._look_for_maths()
        if self._opened_maths and _MATHS_ENDS.search(self._text, start):
            self._poisoned = True
        if self._opened_bracket:
            first = next((found for found in _BRACKET.finditer(code) if found[0] in "[]"), None)
            if first is not None and code.startswith("]:", first.start()):
                self._poisoned = True

    def _look_for_maths(self) -> None:
        text = "".join(self._fresh)
        self._fresh.clear()
        if not self._opened_maths and _MATHS_BEGINS.search(text):
            self._opened_maths = _MATHS_BEGINS.search(_WHOLE_MATHS.sub("", text)) is not None

    # Prose

    def _edits(self, codes: list[Code], spans: list[Span]) -> list[_Edit]:
        """Return what is written otherwise in prose, in order and apart from each other."""
        taken = _Taken([(code.start, code.end) for code in codes])
        edits = [edit for edit in self._inline(spans) if taken.take(edit.start, edit.end)]
        edits += [edit for edit in self._what_acts() if taken.take(edit.start, edit.end)]
        return sorted(edits)

    def _is_mixed(self, start: int, end: int) -> bool:
        place = bisect_left(self._mixed, (end, end)) - 1
        return place >= 0 and self._mixed[place][1] > start

    def _inline(self, spans: list[Span]) -> Iterator[_Edit]:
        """Yield code spans in which something acts, and images."""
        in_link = _Within(sorted((span.start, span.end) for span in spans if span.kind == "link"))
        for span in spans:
            source = self._text[span.start : span.end]
            if span.kind == "code":
                if self._acts(source) or (self._is_mixed(span.start, span.end) and re.search(r'["$\\]', source)):
                    yield _Edit(span.start, span.end, f"<code>{_encoded(span.content.strip())}</code>")
            elif span.kind == "image" and not unsafe.is_shown(
                self._text, span.start, external_images=self._external_images
            ):
                if in_link(span.start):
                    yield _Edit(span.start, span.end, _plain_label(span.content))
                elif span.content.strip():
                    yield _Edit(span.start, span.start + 1, "")
                else:
                    yield _Edit(span.start, span.start + 3, "[image]")

    def _what_acts(self) -> Iterator[_Edit]:
        text = self._text
        maths = [(found.start(), found.end()) for found in _MATHS.finditer(text)]
        in_maths = _Within(maths)
        lone = unsafe.lone_tags(self._without_code) if unsafe.lone_tags(text) else frozenset()
        for found in unsafe.BEGINS_TAG.finditer(text):
            at = found.start()
            if tag := unsafe.SAFE_TAG.match(text, at):
                yield _Edit(at, tag.end(), f"&lt;{tag[0][1:]}" if at in lone else tag[0])
            elif link := unsafe.AUTOLINK.match(text, at):
                address = link["url"]
                yield _Edit(at, link.end(), f"[{address}]({'mailto:' * (link['mail'] is not None)}{address})")
            elif in_maths(at):
                yield _Edit(at, at + 1, "< ")
            else:
                yield _escaped(text, at, at + 1, "&lt;")
        for found in unsafe.bad_links(text):
            yield _Edit(found.start(), found.end(), "] (" if in_maths(found.start()) else "]&#40;")
        for found in unsafe.DEFINITION.finditer(text):
            if unsafe.defines_danger(found):
                yield _Edit(found.start("mark"), found.end("mark"), "&#58;")
        for at in unsafe.possible_images(text, external_images=self._external_images):
            yield _escaped(text, at, at + 1, "&#33;")
        for found in unsafe.fences(text):
            if not unsafe.is_harmless(found["info"], drawn=self._external_images):
                yield _Edit(found.start("info"), found.end("info"), unsafe.language(found["info"]))
        if unsafe.BEGINS_TAG.search(text):
            for found in unsafe.LONE_REFERENCE.finditer(text):
                yield _Edit(found.start(), found.end(), "&amp;#")
        for found in unsafe.MATHS_MARK.finditer(text):
            yield _Edit(found.start(), found.end(), "@&#64;")
        yield from self._commands(in_maths)
        for begin, end in self._mixed:
            for found in re.compile('"').finditer(text, begin, end):
                yield _Edit(found.start(), found.end(), "''" if in_maths(found.start()) else "&quot;")

    def _commands(self, in_maths: _Within) -> Iterator[_Edit]:
        text = self._text
        if not unsafe.has_commands(text):
            return
        for found in unsafe.COMMAND.finditer(text):
            yield _Edit(found.start(), found.end(), "\\backslash " if in_maths(found.start()) else "\\\u2060")
        for found in unsafe.ENTITY.finditer(text):
            character = unescape(text[found.start() : found.start() + 40])[:1]
            if character == "\\" or (character.isascii() and character.isalpha()):
                yield _Edit(found.start(), found.end(), "&amp;")


def _blanked(text: str, codes: list[Code | Span]) -> str:
    """Return a text of the same length in which no tag stands in code."""
    pieces, at = [], 0
    for code in sorted(codes, key=lambda code: code.start):
        if code.start >= at:
            pieces += [text[at : code.start], text[code.start : code.end].replace("<", " ")]
            at = code.end
    return "".join([*pieces, text[at:]])


def _escaped(text: str, start: int, end: int, written: str) -> _Edit:
    """Return an edit of a character, without the backslash that escapes it."""
    before = text[max(0, start - 100) : start]
    slashes = len(before) - len(before.rstrip("\\"))
    return _Edit(start - slashes % 2, end, written)


def _plain_label(label: str) -> str:
    return re.sub(r"[\[\]!]", " ", label).strip() or "image"


def _encoded(text: str) -> str:
    """Return text in which everything that could mean something is an entity."""
    return re.sub(r"[^A-Za-z0-9 \u00a1-\U0010ffff]", lambda found: f"&#{ord(found[0])};", text)


class _Within:
    """Tells whether a place is within one of several ranges; asked in any order."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in ranges]
        self._ends = [end for _, end in ranges]

    def __call__(self, at: int) -> bool:
        place = bisect_right(self._starts, at) - 1
        return place >= 0 and at < self._ends[place]


class _Taken:
    """Ranges of a text that are spoken for: who comes first has it."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._starts = sorted(start for start, _ in ranges)
        self._ends = dict(ranges)

    def take(self, start: int, end: int) -> bool:
        """Take a range, unless some of it is taken."""
        place = bisect_right(self._starts, start) - 1
        if place >= 0 and self._ends[self._starts[place]] > start:
            return False
        if place + 1 < len(self._starts) and self._starts[place + 1] < end:
            return False
        insort(self._starts, start)
        self._ends[start] = end
        return True
