"""Links to what a server names: only pages of the web are links, and nothing in a title or an address is markup."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_readers import what_acts

from llm_magic.markdown.links import as_markdown, sources, web_url
from llm_magic.messages import Citation

HOSTILE = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "//evil.example/x",
    "evil.example",
    "https://",
    "https:///path",
    "https://e.example:99999/",
    "http://[::1",
    "https://e.example/\u202egnp.exe",
    "https://e.example/\x00",
    "",
    "https://e.example/" + "a" * 2_000,
]


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_what_is_no_page_of_the_web_is_no_link(url: str) -> None:
    assert web_url(url) is None
    (source,) = sources([Citation(url, "Title", file_id="f")])
    assert source.url is None
    assert "](" not in as_markdown([source])


def test_an_address_holds_nothing_that_ends_it() -> None:
    url = web_url("https://e.example/a b\"'<>()[]{}`\\$^|?q=é&r=%20#f")
    assert url == "https://e.example/a%20b%22%27%3C%3E%28%29%5B%5D%7B%7D%60%5C%24%5E%7C?q=%C3%A9&r=%20#f"
    assert web_url(f" {url}\n") == url


def test_each_source_once_in_their_order() -> None:
    found = sources(
        [
            Citation("https://b.example/x", start=0, end=1),
            Citation("https://a.example", "A", 2, 3),
            Citation("https://b.example/x", "B", 4, 5),
            Citation(file_id="f1", filename="a.txt", start=0),
            Citation(file_id="f1", filename="a.txt", start=9),
            Citation(file_id="f2", filename="a.txt"),
        ]
    )
    assert [(each.title, each.place, each.url) for each in found] == [
        ("B", "b.example", "https://b.example/x"),
        ("A", "a.example", "https://a.example"),
        ("a.txt", "", None),
        ("a.txt", "", None),
    ]


WORDS = st.text(alphabet="[]()<>!*_`#$\\&;:/'\" \n\t\x1b\u202eabhref=onerrorimgscript123.-+|~^", max_size=60)


@given(WORDS, WORDS)
def test_no_title_acts_or_leads_elsewhere(title: str, path: str) -> None:
    page = as_markdown(sources([Citation(f"https://e.example/{path}", title), Citation(path, title, file_id="f")]))
    assert what_acts(page) == {}
    tokens = [child for token in MarkdownIt().parse(page) for child in token.children or ()]
    links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
    assert all(str(link).startswith("https://e.example/") for link in links)
    assert "image" not in {token.type for token in tokens}
