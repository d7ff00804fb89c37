"""HTML of a model can do nothing: what is not a plain, known element is shown as text, links lead only to the web.

JupyterLab trusts the outputs of a cell that the user has run and does not sanitize their markdown.
So, whatever the context, each `<` that could begin a tag is either part of a whole tag from the
list below or written so that no reader takes it for one: `&lt;` in prose, `< ` in maths, entities
in code. Only fenced code at the left margin keeps its text, and its fence is then written so that
all readers of markdown agree on where it begins and ends. Text without such tags and links stays
exactly as it is.
"""

from __future__ import annotations

import re
from html import unescape

from llm_magic.markdown.fences import CodeBlock, code_blocks, fenced

_ELEMENTS = (
    "abbr b blockquote br caption center cite code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i ins kbd li mark "
    "ol p q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
)
_ATTRIBUTE = r"""\s+(?:open|(?:align|valign|colspan|rowspan|start|width|height|title|lang|dir)\s*=\s*"[\w .,:;%+-]*")"""
_TAG = rf"</?(?:{_ELEMENTS.replace(' ', '|')})(?:{_ATTRIBUTE})*\s*/?>"
_LINK_TAG = r"""<a\s+href\s*=\s*"https?://[\w.,:;%/?#&=+~-]*"\s*>|</a>"""
_AUTOLINK = r"<https?://[^\s<>`\"'\\]*>|<[\w.+-]+@[\w.-]+>"
_SAFE = rf"(?P<safe>{_TAG}|{_LINK_TAG}|{_AUTOLINK})"
_BEGIN = r"<(?=[A-Za-z/!?])"
_TARGET = r"(?P<before>\](?:\(|:)\s*)(?P<target>[^\s<>]*)"
_SUSPECT = re.compile(rf"{_BEGIN}|\](?:\(|:)")
_TAG_OR_TARGET = re.compile(rf"{_SAFE}|(?P<begin>{_BEGIN})|{_TARGET}", re.IGNORECASE)
_INLINE = re.compile(
    r"(?P<span>(?<![`\\])(?P<ticks>`+)(?!`)(?P<code>[^\n]*?[^`\n])(?P=ticks)(?!`))"
    r"|(?P<maths>\$\$(?:(?!\$\$|\n\s*\n)[\s\S])+\$\$|(?<![\\$])\$(?![\s$])(?:\\[^\n]|[^$\n\\])*\$)"
    rf"|{_SAFE}"
    rf"|(?P<begin>\\?{_BEGIN})"
    rf"|{_TARGET}",
    re.IGNORECASE,
)
_TEXT_BELOW = re.compile(r"\n[^\S\n]*\S")
_SCHEMES = frozenset({"http", "https", "mailto", "ftp", "ftps", "tel", "attachment"})


def sanitize(text: str) -> str:
    """Return markdown that shows what `text` says and can do nothing.

    >>> sanitize("a < b, x<sub>1</sub>"), sanitize("<script>alert(1)</script>")
    ('a < b, x<sub>1</sub>', '&lt;script>alert(1)&lt;/script>')

    """
    if not _dangerous(text):
        return text
    text = re.sub(r"\r\n?", "\n", text)
    written: list[str] = []
    at = 0
    for block in code_blocks(text):
        written.append(_INLINE.sub(_written, text[at : block.start]))
        line_before = "".join(written[-2:]).removesuffix("\n").rpartition("\n")[2]
        apart = "\n" if line_before.strip() and not block.before else ""
        written.append(apart + _code(block, text))
        at = block.end
    return "".join(written) + _INLINE.sub(_written, text[at:])


def _dangerous(text: str) -> bool:
    """Tell whether anything in a text, in its code, too, would have to be written otherwise elsewhere."""
    if not _SUSPECT.search(text):
        return False
    last = text.rfind(">")
    for found in _TAG_OR_TARGET.finditer(text):
        if found["target"] is not None:
            if not _leads_to_the_web(found["target"]):
                return True
        elif (at := found.start("begin")) >= 0:
            line_so_far = text[text.rfind("\n", 0, at) + 1 : at]
            if at < last or not re.search(r"\w", line_so_far):
                return True
    return False


def _leads_to_the_web(target: str) -> bool:
    """Tell whether the target of a link is relative or of a scheme that runs nothing; it may be disguised."""
    plain = re.sub(r"[\x00-\x20\x7f-\xa0\\]", "", unescape(unescape(target))).lower()
    scheme, colon, _ = re.split(r"[/?#]", plain, maxsplit=1)[0].partition(":")
    return not colon or scheme in _SCHEMES or re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) is None


def _written(found: re.Match[str]) -> str:
    """Return a piece of prose as it may be shown."""
    text = found[0]
    if found["span"] is not None:
        return f"<code>{_encoded(found['code'].strip())}</code>" if _SUSPECT.search(text) else text
    if found["maths"] is not None:
        return re.sub(_BEGIN, "< ", text.replace("](", "] ("))
    if found["safe"] is not None:
        return text
    if found["begin"] is not None:
        return "&lt;"
    return text if _leads_to_the_web(found["target"]) else f"{found['before']}#{found['target']}"


def _code(block: CodeBlock, text: str) -> str:
    """Return fenced code of a text so that all readers agree on where it begins and ends."""
    if block.before:
        return f"{block.before}<pre><code>{_encoded(block.code.removesuffix(chr(10)))}</code></pre>"
    code = fenced(block.code, re.sub(r"[^\w+#.-].*", "", block.info))
    return code if _TEXT_BELOW.match(text, block.end) else code.removesuffix("\n")


def _encoded(text: str) -> str:
    """Return text in which everything that could mean something is an entity."""
    return re.sub(r"[^A-Za-z0-9 \u0080-\U0010ffff]", lambda found: f"&#{ord(found[0])};", text)
