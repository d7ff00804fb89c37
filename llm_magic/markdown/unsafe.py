r"""What in a markdown text could run, load or restyle something in any of its readers, whatever stands around it.

Readers of markdown disagree on what is code, maths, a list, a link. So each construct that could act is looked for by
its characters alone, as its most generous reader would find it; what these patterns do not find can only be text.
The readers are JupyterLab and Notebook (marked, with maths cut out before and put back after it), nbconvert
(mistune), VS Code (markdown-it), GitHub. Outputs of a cell that was run are not sanitized by the first two.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from html import unescape

_ELEMENTS = (
    "abbr b blockquote br caption center cite code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i ins kbd li mark "
    "ol p q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
)
_ATTRIBUTE = r"""[ \t]+(?:open|(?:align|valign|colspan|rowspan|start|width|height|title|lang|dir)="[\w .,:;%+-]*")"""
_TAG = rf"</?(?:{_ELEMENTS.replace(' ', '|')})(?:{_ATTRIBUTE})*[ \t]*/?>"
_LINK_TAG = r"""<a[ \t]+href="https?://[\w.,:;%/?#&=+~-]*"[ \t]*>|</a>"""
_CODE_ELEMENT = r"<pre><code>[^<>\n]*</code></pre>"
SAFE_TAG = re.compile(rf"{_TAG}|{_LINK_TAG}|{_CODE_ELEMENT}", re.IGNORECASE)
"""Whole tags, and code as HTML, that may stay: nothing in them acts, and all readers agree."""
AUTOLINK = re.compile(
    r"<(?P<url>https?://(?:[\w.,:;%/?#&=+~!*-]|@(?!@))*|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)*))>", re.IGNORECASE
)
"""A link in angle brackets; in a block of HTML a browser reads it as a tag with attributes."""
BEGINS_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_NO_TAG = re.compile(r"<[A-Za-z][A-Za-z0-9_-]*(?![\w\s/>:@.+&*#!?~'\"=%`-]|\Z)")
"""What no reader takes for a tag, `x<y, z`, as long as nothing opens a block of HTML, which a browser reads alone."""

_TAG_NAME = re.compile(r"<(?P<closing>/?)(?P<name>\w+)[^<>]*?(?P<closed>/?)>\Z")
_ENDS_ALONE = frozenset(["br", "hr", "p", "li", "dt", "dd", "tr", "td", "th", "tbody"])
"""Elements that have no end, or end with what they stand in."""
_DEEPEST = 20
"""Tags within each other that are paired."""
_QUOTED = re.compile(r"(?P<lead>[ \t>]*)[^\s>*+\-\d|#~`]")
"""What begins a line that begins no item, cell or heading."""

_SCHEMES = frozenset({"http", "https", "mailto", "ftp", "ftps", "tel"})
_PLAIN_BEGINNING = re.compile(r"https?://|[\w.%-]*[/?#]", re.IGNORECASE)
_IGNORED = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_LONGEST_TARGET = 80
LINK = re.compile(rf"\](?P<mark>\()(?=[\s>]*<?(?P<target>[^\s)>]{{0,{_LONGEST_TARGET}}}))")
"""What begins the target of a link; all its characters after this many say nothing on where it leads."""
_LEAD = r"(?:[^A-Za-z`~\[\\\n]|\[\^[^\]\n]*\]:|\[[ xX]\](?=[ \t]))*"
"""What may stand before a block on its line: marks of quotes, items, definitions, footnotes, tasks."""
DEFINITION = re.compile(
    rf"^{_LEAD}\[(?:[^\[\]\\]|\\[\s\S])++\](?P<mark>:)"
    r"(?=[\s>]*(?:<(?P<angled>[^\n>]*)|(?P<target>[^\s<]\S*+)(?=[ \t]*(?:$|[\"'(]))))",
    re.MULTILINE,
)
_DEFINES = re.compile(rf"^{_LEAD}\[(?:[^\[\]\\]|\\[\s\S])++\]:", re.MULTILINE)
IMAGE = re.compile(r"!(?=\[)")
_BLANK = re.compile(r"\n[ \t>]*\n")
_ALT = r"(?<!\S)!\[[\w .,:;?+%/-]*\]"
DATA_IMAGE = re.compile(rf"{_ALT}\(data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*\)")
_WEB_IMAGE = re.compile(rf"{_ALT}\((?:https?://(?:[\w.,:;%/?#&=+~-]|@(?!@))+|(?!data:|attachment:)[\w./-]+)\)")

_FENCE = re.compile(rf"^(?P<lead>{_LEAD})(?P<run>`{{3,}}(?=[^`\n]*$)|~{{3,}})(?P<info>[^\n]*)$", re.MULTILINE)
_INFO = re.compile(r"[ \t]*[\w+#.,={}:/-]*(?:[ \t]+[\w+#.-]*[={},:/][\w+#.,={}:/-]*)*[ \t]*")
"""A language, and words that cannot be classes of the front end's own, such as that of its dialogs."""
_LANGUAGE = re.compile(r"[ \t]*([\w+#.-]*)")
_DRAWN = frozenset(
    {"mermaid", "mmd", "geojson", "topojson", "stl", "plantuml", "puml", "uml", "kroki", "vega", "vega-lite", "d2"}
)
"""Languages that some reader draws, or sends to a server that does."""

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
LONE_REFERENCE = re.compile(r"&#(?!(?:\d+|[xX][0-9a-fA-F]+)(?:[^0-9a-fA-F]|\Z))")
"""In a block of HTML, nbconvert's page ends as HTML here, and what follows in it is text."""
MATHS_MARK = re.compile(r"@\\?@(?=\d)")
"""What JupyterLab puts in the place of maths, whose text would then come back here."""
_COMMANDS = (
    "DeclareMathOperator DeclarePairedDelimiter DeclarePairedDelimiters DeclarePairedDelimiterX "
    "DeclarePairedDelimiterXPP DeclareRobustCommand bbox class csname cssId data def edef futurelet gdef href "
    "htmlClass htmlData htmlId htmlStyle includegraphics input let mathtip mathtoolsset mmlToken newcommand "
    "newenvironment newtagform providecommand renewcommand renewenvironment renewtagform require style texttip "
    "unicode url usetagform xdef"
)
COMMAND = re.compile(rf"\\(?=(?:{_COMMANDS.replace(' ', '|')})(?![A-Za-z]))")
"""TeX that links, loads, styles, names elements, or changes what the commands of later maths mean."""
ENTITY = re.compile(r"&(?=(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,31});?)")
_ATTRIBUTE_BEGINS = re.compile(r"\](?:\(|:)|://|www\.|<[A-Za-z]|```|~~~", re.IGNORECASE)
_MATHS_BEGINS = re.compile(r"\$|\\begin\{|\\\\[(\[]")
_CHUNKS = re.compile(r"\n(?:[^\S\n]*\n)+")
_MARGIN_RUN = re.compile(r"^(?P<run>`{3,}|~{3,})(?P<info>[^`\n]*)(?P<ticks>`*)$", re.MULTILINE)


def acts(text: str, *, external_images: bool = False) -> bool:
    """Tell whether anything in a text, in its code, too, could act in some reader.

    >>> acts("a < b"), acts("<script>"), acts("[a](javascript:b)"), acts("![a](https://example.org/b.png)")
    (False, True, True, True)

    """
    return (
        CONTROL.search(text) is not None
        or ("<" in text and _has_tags(text))
        or ("](" in text and any(True for _ in bad_links(text)))
        or ("]:" in text and any(map(defines_danger, DEFINITION.finditer(text))))
        or ("![" in text and _has_images(text, external_images=external_images))
        or any(not is_harmless(found["info"], drawn=external_images) for found in fences(text))
        or ("&#" in text and "<" in text and BEGINS_TAG.search(text) and LONE_REFERENCE.search(text) is not None)
        or ("@" in text and MATHS_MARK.search(text) is not None)
        or has_commands(text)
        or any(chunk_mixes(text))
    )


def _has_tags(text: str) -> bool:
    whole = other = False
    at = 0
    while found := BEGINS_TAG.search(text, at):
        at = found.end()
        if tag := SAFE_TAG.match(text, found.start()):
            whole, at = True, tag.end()
        elif AUTOLINK.match(text, found.start()) or _NO_TAG.match(text, found.start()):
            other = True
        else:
            return True
    return whole and other


def lone_tags(text: str) -> set[int]:
    r"""Return where tags stand that have no partner: in a page, such an element would reach over what follows.

    A partner is on the same line, or both stand where no list, quote or cell can end between them: in lines that
    begin alike, without a blank line between them or first in their lines.

    >>> lone_tags("<b>a</b> <i>b"), lone_tags("<details>\n\n- a\n\n</details>"), sorted(lone_tags("- <b>\n- </b>"))
    ({9}, set(), [2, 8])

    """
    lone: set[int] = set()
    opened: list[tuple[str, int]] = []
    for found in SAFE_TAG.finditer(text):
        tag = _TAG_NAME.match(found[0])
        if tag is None or tag["closed"] or tag["name"].lower() in _ENDS_ALONE:
            continue
        name, at = tag["name"].lower(), found.start()
        if not tag["closing"] and len(opened) < _DEEPEST:
            opened.append((name, at))
            continue
        place = next((place for place in range(len(opened) - 1, -1, -1) if opened[place][0] == name), None)
        if not tag["closing"] or place is None or not _are_level(text, opened[place][1], at):
            lone.add(at)
            continue
        lone.update(between for _, between in opened[place + 1 :])
        del opened[place:]
    return lone.union(at for _, at in opened)


def _are_level(text: str, begin: int, end: int) -> bool:
    """Tell whether two tags stand in the same block, as far as lines tell."""
    if "\n" not in text[begin:end]:
        return True
    lines = [text.rfind("\n", 0, at) + 1 for at in (begin, end)]
    lead = _QUOTED.match(text, lines[0])
    if lead is None or _QUOTED.match(text, lines[1]) is None:
        return False
    within = text[lines[0] : end].split("\n")
    if any(line.strip() and not line.startswith(lead["lead"].rstrip()) for line in within):
        return False
    first = all(text[line:at] == lead["lead"] for line, at in zip(lines, (begin, end), strict=True))
    return first or _BLANK.search(text, begin, end) is None


def leads_to_the_web(target: str) -> bool:
    """Tell whether a link's target is relative, or of a scheme that runs nothing; it may be disguised."""
    if len(target) >= _LONGEST_TARGET:
        return _PLAIN_BEGINNING.match(target) is not None
    if ":" not in target and "&" not in target:
        return True
    plain = _IGNORED.sub("", unescape(unescape(target))).lower()
    scheme, colon, _ = plain.partition(":")
    return not colon or scheme in _SCHEMES or re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) is None


def bad_links(text: str) -> Iterator[re.Match[str]]:
    """Yield what begins the target of a link that leads where none may; that of an image of data is none."""
    for found in LINK.finditer(text):
        if leads_to_the_web(found["target"]):
            continue
        begin = text.rfind("![", 0, found.start()) if found["target"].startswith("data:image/") else -1
        image = DATA_IMAGE.match(text, begin) if begin >= 0 else None
        if image is None or image.end() < found.end():
            yield found


def defines_danger(definition: re.Match[str]) -> bool:
    """Tell whether a reference definition leads where no link may."""
    return not leads_to_the_web(definition["angled"] or definition["target"] or "")


def _has_images(text: str, *, external_images: bool) -> bool:
    return any(True for _ in possible_images(text, external_images=external_images))


def possible_images(text: str, *, external_images: bool) -> Iterator[int]:
    """Yield where a reader may find an image that is not to be shown: at the `!` of each."""
    defines = "]:" in text and _DEFINES.search(text) is not None
    target = blank = 0  # the next of each after the place that is looked at
    for found in IMAGE.finditer(text):
        at = found.end()
        if is_shown(text, found.start(), external_images=external_images):
            continue
        if not defines:
            if 0 <= target < at:
                target = text.find("](", at)
            if target < 0:
                return
            if blank < at:
                gap = _BLANK.search(text, at)
                blank = gap.start() + 1 if gap else len(text)
        if defines or target < blank:
            yield found.start()


def fences(text: str) -> Iterator[re.Match[str]]:
    """Yield the lines that may open fenced code, with what stands before the run, and its info string."""
    for run in ("```", "~~~"):
        begin = end = 0  # of a line
        while (at := text.find(run, end)) >= 0:
            begin = text.rfind("\n", end, at) + 1 or begin
            if found := _FENCE.match(text, begin):
                yield found
            end = text.find("\n", at)
            if end < 0:
                break
            begin = end + 1


def is_shown(text: str, at: int, *, external_images: bool) -> bool:
    """Tell whether what stands at a place is an image that may be shown: one of data, or any that may load."""
    return DATA_IMAGE.match(text, at) is not None or (external_images and _WEB_IMAGE.match(text, at) is not None)


def is_harmless(info: str, *, drawn: bool = False) -> bool:
    """Tell whether an info string is one that every reader may write into an attribute, and that none draws.

    With `drawn`, mermaid is.
    """
    if drawn and info.strip() == "mermaid":
        return True
    return _INFO.fullmatch(info) is not None and _DRAWN.isdisjoint(re.findall(r"[\w-]+", info.lower()))


def language(info: str, *, drawn: bool = False) -> str:
    """Return what of an info string may stay: its first word, unless that is drawn.

    >>> language('python title="a"'), language('x" onclick="y'), language("mermaid")
    ('python', 'x', '')

    """
    if is_harmless(info, drawn=drawn):
        return info.strip()
    found = _LANGUAGE.match(info)
    word = found[1] if found else ""
    return word if is_harmless(word) else ""


def has_commands(text: str) -> bool:
    """Tell whether maths outside of fenced code at the margin may have commands that are not for models."""
    if "\\" not in text and "&" not in text:
        return False
    if COMMAND.search(text) is None and (not ENTITY.search(text) or COMMAND.search(unescape(text)) is None):
        return False
    rest = without_margin_code(text)
    return COMMAND.search(rest) is not None or COMMAND.search(unescape(rest)) is not None


def neutral_maths(text: str) -> str:
    r"""Return a text in which the commands of TeX that are not for models are seen, and are none.

    >>> len(neutral_maths(r"$\href{a}{b}$")) - len(r"$\href{a}{b}$"), neutral_maths(r"$\frac{a}{b}$")
    (1, '$\\frac{a}{b}$')

    """
    return COMMAND.sub("\\\\\u2060", text) if "\\" in text else text


def chunk_mixes(text: str) -> list[tuple[int, int]]:
    """Return from where to where a text may have maths with a quote in it that stands inside of an attribute.

    JupyterLab puts maths back after markdown has become HTML: a quote in it would end the attribute. Maths does not
    reach over a blank line.
    """
    if '"' not in text or not _MATHS_BEGINS.search(text):
        return []
    bare = without_margin_code(text)
    found = []
    at = 0
    for gap in [*_CHUNKS.finditer(bare), None]:
        end = gap.start() if gap else len(bare)
        chunk = bare[at:end]
        if '"' in chunk and _may_be_maths(chunk) and _ATTRIBUTE_BEGINS.search(chunk):
            found.append((at, end))
        at = gap.end() if gap else end
    return found


def _may_be_maths(text: str) -> bool:
    if text.count("$") > 1:
        return True
    return ("\\end{" in text and "\\begin{" in text) or any(f"\\\\{end}" in text for end in ")]")


def without_margin_code(text: str) -> str:
    """Return a text of the same length in which fenced code at the margin has neither dollars nor backslashes.

    The code is that in which JupyterLab looks for no maths: found as its regular expression does, in linear time.
    """
    runs = list(_MARGIN_RUN.finditer(text)) if "```" in text or "~~~" in text else []
    pieces: list[str] = []
    at = number = 0
    closing = _ClosingRuns(runs)
    while number < len(runs):
        last = closing.after(number)
        if last is None:
            number += 1
            continue
        begin, end = runs[number].start(), runs[last].end()
        pieces += [text[at:begin], text[begin:end].translate(_NEITHER)]
        at, number = end, last + 1
    return "".join([*pieces, text[at:]])


_NEITHER = str.maketrans("$\\", "  ")


class _ClosingRuns:
    """The lines that may close fenced code, among all that begin with a run."""

    def __init__(self, runs: list[re.Match[str]]) -> None:
        self._runs = runs
        self._tildes: dict[int, list[int]] = {}  # the numbers of lines, by the length of their run
        self._longest = [0] * (len(runs) + 1)  # of backticks, from each line on
        for number in range(len(runs) - 1, -1, -1):
            length = self._length(number)
            self._longest[number] = max(self._longest[number + 1], length)
            if not length and not runs[number]["info"]:
                self._tildes.setdefault(len(runs[number]["run"]), []).append(number)
        for lines in self._tildes.values():
            lines.reverse()

    def _length(self, number: int) -> int:
        """Return the backticks of a line that has nothing else; 0 for any other."""
        found = self._runs[number]
        return len(found["run"]) if found["run"][0] == "`" and not (found["info"] or found["ticks"]) else 0

    def after(self, number: int) -> int | None:
        """Return the number of the line that closes what a line opens, None where nothing does."""
        found = self._runs[number]
        length = len(found["run"])
        if found["ticks"]:
            return None
        if found["run"][0] == "`":
            if self._longest[number + 1] < length:
                return None
            return next(line for line in range(number + 1, len(self._runs)) if self._length(line) >= length)
        for part in range(length, 2, -1):  # a part of the run may open it, the rest is its info string
            lines = self._tildes.get(part, [])
            if (place := bisect_right(lines, number)) < len(lines):
                return lines[place]
        return None
