"""What readers of markdown make of a text: markdown-it and mistune (nbconvert), and what of it is off the list."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

ELEMENTS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "center", "cite", "code", "dd", "del", "details", "div", "dl",
    "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "input", "ins", "kbd", "li", "mark", "ol", "p",
    "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "u", "ul", "var",
}  # fmt: skip
ATTRIBUTES = {
    "align", "alt", "checked", "class", "colspan", "dir", "disabled", "height", "href", "id", "lang", "open", "rowspan",
    "src", "start", "style", "title", "type", "valign", "width",
}  # fmt: skip
SCHEMES = frozenset({"http", "https", "mailto", "ftp", "ftps", "tel"})
WRITTEN = {  # what readers themselves write into these attributes
    "style": re.compile(r"text-align: ?\w+;?"),
    "class": re.compile(
        r"language-[\w+#., ={}:/\t-]*|anchor-link|highlight|task-list-item(?:-checkbox)?|[a-z0-9]{1,3}"
    ),
}


class Page(HTMLParser):
    """Reads a page as a browser does, and finds what is off the list."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ELEMENTS:
            self.found.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES or not _is_harmless(tag, name, value or ""):
                self.found.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"<!--{data}")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"<!{decl}")

    def handle_pi(self, data: str) -> None:
        self.found.append(f"<?{data}")

    def unknown_decl(self, data: str) -> None:
        self.found.append(f"<![{data}")


def _is_harmless(tag: str, name: str, value: str) -> bool:
    if name in WRITTEN:
        return WRITTEN[name].fullmatch(value) is not None
    if name == "src":
        return tag == "img" and re.match(r"data:image/(png|jpeg|gif|webp);base64,", value) is not None
    if name == "href":  # as a browser reads it
        url = re.sub(r"[\t\n\r]", "", value).lstrip("".join(map(chr, range(33))))
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
        return scheme is None or scheme[1].lower() in SCHEMES
    return True


def off_the_list(html: str) -> list[str]:
    """Return the elements, attributes and targets of a page that may not be there."""
    page = Page()
    page.feed(html)
    page.close()
    return page.found


def commonmark(text: str) -> str:
    """Return a text as markdown-it renders it, with tables, and with whatever target links have."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.validateLink = bool  # type: ignore[assignment]
    return str(parser.render(text))


def nbconvert(text: str) -> str:
    """Return a text as nbconvert renders it: mistune, with maths."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return markdown2html_mistune(text)


READERS = {"markdown-it": commonmark, "mistune": nbconvert}


def what_acts(text: str) -> dict[str, list[str]]:
    """Return what each reader finds in a text that may not be there."""
    return {name: found for name, reader in READERS.items() if (found := off_the_list(reader(text)))}
