"""Ten thousand attacks on JupyterLab, Notebook and nbconvert's HTML: nothing of a model or a server acts in the page.

Payloads stand in the place of everything that these write. What the page is made of then is compared with what
harmless texts make of it (`oracle.js`); nothing runs, and nothing is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hostile
import lab
import oracle
import pytest
from payloads import COUNT, SEED, payloads
from servers import ScriptedServer

PAGE = 2_000
"""Payloads of one page load."""
CELL = 200
"""Payloads of one cell."""
ERRORS = 8
"""Of so many payloads one is an error message, too."""
LOADED, CONTROL, FIRST = 1, 2, 3
"""Cells: the extension, harmless texts, payloads from here on."""


@pytest.fixture(scope="module")
def front_ends(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[oracle.FrontEnd, ...]]:
    """Return JupyterLab and Notebook, which show all outputs at once and pass on as many as there are."""
    pytest.importorskip("notebook", reason="needs Notebook 7: the extra `demo`")
    with ExitStack() as stack:
        found = []
        for app in ("lab", "notebook"):
            root = oracle.unlimited(tmp_path_factory.mktemp(app))
            found.append(oracle.FrontEnd(app, stack.enter_context(lab.server(root, app)), root))
        yield tuple(found)


@contextmanager
def opened(
    browser: Any, front_ends: Sequence[oracle.FrontEnd], cells: Sequence[str]
) -> Iterator[list[oracle.Attacked]]:
    """Open a notebook in each front end: the first cell loads, the second shows what is harmless."""
    with ExitStack() as stack:
        yield [stack.enter_context(oracle.opened(browser, each, cells)) for each in front_ends]


def run(pages: Sequence[oracle.Attacked], number: int) -> None:
    """Run a cell in all front ends, side by side."""
    for each in pages:
        each.notebook.start(number)
    for each in pages:
        each.notebook.wait(number, 240)


def report(what: str, judged: Sequence[oracle.Watch], started: float, pictures: Path) -> None:
    """Fail with what acts, by front end and payload; a file next to the pictures has all of it."""
    outputs = ", ".join(f"{watch.name} {watch.outputs:,} outputs, {watch.acting:,} act" for watch in judged)
    print(f"\n{what}, seed {SEED}: {outputs}; {time.perf_counter() - started:.0f} s")  # noqa: T201 - the figures
    if any(watch.problems for watch in judged):
        everything = pictures / f"attacks-{what.replace(' ', '-').replace(',', '')}.txt"
        everything.write_text("\n\n".join(watch.verdict(COUNT) for watch in judged), encoding="utf-8")
        pytest.fail("\n".join([*(watch.verdict() for watch in judged), f"All of them: {everything}"]), pytrace=False)


@pytest.mark.parametrize("first", range(0, COUNT, PAGE))
def test_no_payload_acts(browser: Any, front_ends: tuple[oracle.FrontEnd, ...], pictures: Path, first: int) -> None:
    started = time.perf_counter()
    last = min(first + PAGE, COUNT)
    cells = [f"channels.show({at}, {min(at + CELL, last)}, {ERRORS})" for at in range(first, last, CELL)]
    numbers = range(FIRST, FIRST + len(cells))
    with opened(browser, front_ends, ["%load_ext llm_magic\nimport channels", "channels.control()", *cells]) as pages:
        run(pages, LOADED)
        run(pages, CONTROL)
        for each in pages:
            each.learn([CONTROL])
        for number in numbers:
            run(pages, number)
        for each in pages:
            each.judge([CONTROL, *numbers])
            assert each.watch.outputs > 3 * (last - first)
        converted = oracle.converted(browser, pages[0].notebook.saved(), CONTROL, front_ends[0].root)
        assert converted.outputs >= pages[0].watch.outputs
        report(f"Payloads {first:,} to {last:,}", [*(each.watch for each in pages), converted], started, pictures)


SET_UP = """\
%load_ext llm_magic
%llm_provider add harmless --base-url {host}/harmless/v1
%llm_provider add hostile --base-url {host}/v1
%config LLMMagics.timeout = 20"""


def test_no_payload_acts_through_the_whole_program(
    browser: Any, front_ends: tuple[oracle.FrontEnd, ...], pictures: Path
) -> None:
    """Some payloads come from a server, over HTTP, through cells as users write them."""
    started = time.perf_counter()
    with ScriptedServer(hostile.answering) as server:
        cells = [*hostile.cells("harmless"), *hostile.cells("hostile")]
        half = len(cells) // 2
        harmless, attacks = range(CONTROL, CONTROL + half), range(CONTROL + half, CONTROL + len(cells))
        with opened(browser, front_ends, [SET_UP.format(host=server.host), *cells]) as pages:
            run(pages, LOADED)
            for number in harmless:
                run(pages, number)
            for each in pages:
                _pick(each, harmless[-1], "harmless")
                each.learn(harmless)
            for number in attacks:
                run(pages, number)
            for each in pages:
                _pick(each, attacks[-1], "hostile")
                each.judge([*harmless, *attacks])
            assert len({request.body for request in server.requests}) > 1_000
            report(f"{len(hostile.NUMBERS)} payloads by a server", [each.watch for each in pages], started, pictures)


def _pick(page: oracle.Attacked, number: int, provider: str) -> None:
    """Open the list of a provider in the picker, pick a model, and try it."""
    picker = page.notebook.cell(number).locator(".llm-picker")
    picker.evaluate("oracle.show")
    picker.get_by_label("Provider", exact=True).select_option(provider)
    models = picker.get_by_label("Models", exact=True)
    page.notebook.page.wait_for_function(
        "select => select.options.length > 3", arg=models.element_handle(), timeout=30_000
    )
    models.select_option(index=3)
    picker.get_by_label("Search models", exact=True).fill("a")
    picker.get_by_label("Try a prompt", exact=True).fill(hostile.prompt("answer", provider))
    picker.get_by_role("button", name="Try it").click()
    picker.locator(".llm-answer").wait_for(timeout=30_000)


def test_the_oracle_sees_what_acts(browser: Any, front_ends: tuple[oracle.FrontEnd, ...]) -> None:
    """A page without any defence: script, loads, foreign elements and attributes are found and named."""
    show = (
        "display({{'text/markdown': channels.payloads()[{0}].text}}, raw=True,"
        " metadata={{'attack': {{'payloads': [{0}], 'channel': 'bare'}}}})"
    )
    names = {each.name: each.number for each in payloads()[:2_000]}
    chosen = {
        "handler 1": "script ran",
        "scheme 0 in link 0": "target href=javascript:",
        "fence 2 of ~~~": "attribute onanimationstart of code",
        "load 0": "a request: GET https://evil.test/pwned",
        "load 7": "a request: GET",
        "pose 0": "attribute data-commandlinker-command of a",
        "pose 7": "element form",
        "pose 28": "style position",
    }
    cells = ["\n".join(show.format(names[name]) for name in chosen)]
    with opened(browser, front_ends, ["%load_ext llm_magic\nimport channels", "channels.control()", *cells]) as pages:
        run(pages, LOADED)
        run(pages, CONTROL)
        for each in pages:
            each.learn([CONTROL])
        run(pages, FIRST)
        for each in pages:
            each.judge([FIRST])
            for name, what in chosen.items():
                assert any(what in problem for problem in each.watch.problems[names[name],]), (name, what)


def test_a_link_of_plain_text_runs_nothing(browser: Any, front_ends: tuple[oracle.FrontEnd, ...]) -> None:
    """Front ends make links of plain text themselves, of any scheme; a script is lost in the window that these open."""
    cells = ["text = 'javascript://x.test/%0atop.__pwned=1;localStorage.pwned=1'", "print(text)"]
    with opened(browser, front_ends, cells) as pages:
        run(pages, LOADED)
        run(pages, CONTROL)
        for each in pages:
            page = each.notebook.page
            page.evaluate("oracle.hiding.remove()")
            each.notebook.cell(CONTROL).locator("a").click()
            page.wait_for_timeout(300)
            assert page.evaluate("[oracle.hits.length, localStorage.pwned ?? null]") == [0, None]


ORDINARY = r"""
![from elsewhere](https://example.org/a.png)

```mermaid
graph TD
  A --> B
```
"""


def test_ordinary_markdown_looks_as_ever(browser: Any, front_ends: tuple[oracle.FrontEnd, ...], pictures: Path) -> None:
    """The pictures are to be looked at: formulas, tables, code in colours; what would load is a link, or its source."""
    show = f"channels._answer(get_ipython(), channels.HARMLESS + {ORDINARY!r}, 'markdown')"
    with opened(browser, front_ends, ["%load_ext llm_magic\nimport channels", show]) as pages:
        run(pages, LOADED)
        for each in pages:
            each.notebook.page.evaluate("oracle.hiding.remove()")
        run(pages, CONTROL)
        for each in pages:
            page, area = each.notebook.page, each.notebook.cell(CONTROL)
            page.evaluate("oracle.quiet(1000)")
            names = ("table", "mjx-container", "details", "ul ul", "blockquote blockquote")
            count = {name: area.locator(name).count() for name in names}
            assert count == dict(zip(names, (2, 6, 2, 1, 1), strict=True))
            assert area.locator("code.language-python span").count() > 10
            assert area.locator("input[type=checkbox]").count() == 2
            images = area.locator("img").evaluate_all("images => images.map(each => each.src.slice(0, 14))")
            assert images == ["data:image/gif", "data:image/png"]
            assert area.get_by_text("from elsewhere").get_attribute("href") == "https://example.org/a.png"
            assert "graph TD" in area.locator("pre code").last.inner_text()
            page.set_viewport_size({"width": 1000, "height": 3600})
            page.wait_for_timeout(500)
            page.screenshot(path=pictures / f"ordinary-{each.watch.name}.png")
            assert each.watch.problems == {}
