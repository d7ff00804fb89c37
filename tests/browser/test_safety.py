"""Nothing that a model writes runs in the page."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

EVIL = r"""Hello <script>window.acted=1</script> <img src=x onerror="window.acted=2"> [a](javascript:window.acted=3)

<img src=x onerror="window.acted=4">

<svg onload="window.acted=5"></svg><iframe srcdoc="<script>parent.acted=6</script>"></iframe>

<details open ontoggle="window.acted=7"><summary>x</summary></details> $\href{javascript:window.acted=8}{x}$

<form action=javascript:window.acted=9><button>b</button></form><style>body{display:none}</style>
"""
SEEDS = [
    "<script>window.acted=1</script>", "<img src=x onerror=window.acted=1>", "<svg onload=window.acted=1>",
    "<b>", "</b>", "<div>", "</div>", "<details open>", "`", "``", "```\n", "```html\n", "~~~\n", "````\n",
    "```~\n", "\n", "\n\n", "- ", "  ", "    ", "> ", "1. ", "|", "$", "$$", "\\", "<!--", "-->", "text ",
    "\t", "<pre>", "</pre>", "]: ", '<a title="`">', "](", "<", ">", "|-|-|\n", "\\(", "\\)", "\\[", "\\]",
    "<details><summary>x</summary>\n\n", "[^1]: ", "&lt;", "@@0@@",
]  # fmt: skip


def test_html_of_a_model_does_nothing(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    setup = f"evil = {EVIL!r}\nfrom llm_magic.response import Response\nresponse = Response(text=evil)"
    cells = [
        setup,
        *(f"%%llm text=evil speed=400 show={show}\nx" for show in ("markdown", "text", "code", "json")),
        "response",
    ]
    cells.append("thoughts = evil\nvalue = [{evil: evil}]")
    cells.append("%%llm text=evil speed=4000 reasoning=thoughts value=value\nx")
    with lab.Page(browser, jupyterlab, folder, cells) as page:
        for number in range(1, len(cells) + 1):
            page.run(number)
            page.page.wait_for_timeout(300)
            assert page.page.evaluate("window.acted") is None, cells[number - 1]
        for link in page.page.locator(".jp-OutputArea-output a").all():
            assert not (link.get_attribute("href") or "").startswith("javascript:")


def test_no_mixture_of_markdown_and_html_does_anything(browser: Any, jupyterlab: str, folder: Path) -> None:
    """JupyterLab's own reader of markdown is asked, with random mixtures of what may confuse it."""
    import lab

    source = random.Random(7)  # noqa: S311 - mixtures, not secrets
    texts = ["".join(source.choices(SEEDS, k=source.randint(2, 14))) for _ in range(400)]
    show = (
        "from IPython.display import display\nfrom llm_magic.markdown import for_notebook\n"
        "for text in texts[{}:{}]:\n    display({{'text/markdown': for_notebook(text)}}, raw=True)"
    )
    cells = [f"texts = {texts!r}", *(show.format(at, at + 40) for at in range(0, 400, 40))]
    with lab.Page(browser, jupyterlab, folder, cells) as page:
        for number in range(1, len(cells) + 1):
            page.run(number)
            page.page.wait_for_timeout(200)
            page.page.evaluate("document.querySelector('.jp-Notebook-cell:last-child')?.scrollIntoView()")
            assert page.page.evaluate("window.acted") is None, f"texts[{40 * (number - 2)}:{40 * (number - 1)}]"
        page.page.wait_for_timeout(1000)
        assert page.page.evaluate("window.acted") is None
