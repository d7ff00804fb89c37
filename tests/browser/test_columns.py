"""Two real models side by side in JupyterLab and Notebook: they stream, wrap on a narrow page, stay, and do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import pytest
from accessibility import violations
from servers import Answer, Received, ScriptedServer, chunk, stream
from test_safety import EVIL

LOAD = """\
%load_ext llm_magic
add = get_ipython()._llm_magic.registry.add
add("fast", "vllm", base_url="VLLM")
get_ipython()._llm_magic.registry.aliases = {"warm": {"model": "fast:smollm2", "temperature": 1}}
add("evil", "compatible", base_url="EVIL", max_retries=0)
add("gone", "compatible", base_url="http://127.0.0.1:9/v1", max_retries=0)"""
ASKED = "Write a short Python function that adds two numbers, and explain it."
CELLS = (
    f"%%llm -m fast:smollm2,warm --once --max-tokens 20 -o said\n{ASKED}",
    "%%llm -m evil:a,evil:b --once -o evil\nx",
    '%%llm -m evil:v,evil:w,gone:m --once --as "dict[str, int]" --on-error keep\nAges of two people.',
    "[list(said), [len(text) > 9 for text in said.values()]]",
)
STREAMED, HOSTILE, TYPED, BOUND = range(2, 6)
THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}  # in this order: the front end keeps the last
TEXT = f"{EVIL}\n\n# Title\n\nLet $x_1$ be, `a<b` and $5 or $6.\n\n```python\nif a < b:  # <b>\n    pass\n```\n"
GROWING = """number => {
    const area = document.querySelectorAll('.jp-Notebook .jp-Cell')[number].querySelector('.jp-OutputArea');
    window.grown = [];
    new MutationObserver(() => {
        const columns = [...area.querySelectorAll('section')];
        window.grown.push(columns.map(each => each.innerText.length));
    }).observe(area, {subtree: true, childList: true, characterData: true});
}"""
PLACES = "area => [...area.querySelectorAll('section')].map(each => each.getBoundingClientRect().toJSON())"


def answer(request: Received) -> Answer:
    """Answer with something hostile, or with a value."""
    text = TEXT if request.json["model"] in {"a", "b"} else '{"Ada": 36, "Bo<b>": 41}'
    pieces = [text[at : at + 40] for at in range(0, len(text), 40)]
    return stream(*map(chunk, pieces), chunk(finish="stop"))


@pytest.fixture(scope="module")
def evil() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        yield server


def test_two_real_models_side_by_side(  # noqa: PLR0917 - fixtures
    browser: Any, folder: Path, pictures: Path, evil: ScriptedServer, vllm_url: str, jupyterlab: str, notebook7: str
) -> None:
    load = LOAD.replace("VLLM", vllm_url).replace("EVIL", evil.url)
    with lab.Page(browser, jupyterlab, folder, [load, *CELLS]) as notebook:
        notebook.run(1)
        _run_all(notebook)
        assert notebook.faults == []
        _look(notebook, pictures, "lab")
        notebook.open_in(notebook7, "notebook")  # with the same kernel; it has some faults of its own
        _run_all(notebook)
        _look(notebook, pictures, "notebook")


def _run_all(notebook: lab.Page) -> None:
    """Run the cells, and check what is seen while and after they run, and when the page is loaded anew."""
    page = notebook.page
    page.evaluate(GROWING, STREAMED)
    notebook.run(STREAMED)
    both = [lengths for lengths in page.evaluate("window.grown") if len(lengths) == 2]
    assert len({first for first, _ in both}) > 2  # each grew
    assert len({second for _, second in both}) > 2
    assert _columns(notebook, STREAMED) == ["fast:smollm2", "warm"]
    first, second = notebook.cell(STREAMED).evaluate(PLACES)
    assert (first["top"], first["right"] < second["left"]) == (second["top"], True)

    for number in (HOSTILE, TYPED):
        notebook.run(number)
    page.wait_for_function("document.querySelectorAll('mjx-container').length >= 4", timeout=20_000)
    maths = notebook.cell(HOSTILE).locator("mjx-container").count()
    assert maths == 4  # `$x_1$`, and a link that is none; `$5 or $6` is no maths
    _check_hostile(notebook)
    table = notebook.cell(TYPED)
    assert table.locator("tbody th").all_inner_texts() == ["evil:v", "evil:w", "gone:m"]
    assert "ConnectionFailedError" in table.locator("tbody tr").nth(2).inner_text()
    notebook.run(BOUND)
    assert "[['fast:smollm2', 'warm'], [True, True]]" in notebook.cell(BOUND).inner_text()

    saved = [cell.outputs for cell in notebook.saved().cells]
    assert [sorted(output["data"]) for output in saved[STREAMED]] == [["text/html", "text/markdown", "text/plain"]]
    page.reload()
    notebook.ready()
    assert [cell.outputs for cell in notebook.saved().cells] == saved
    assert _columns(notebook, STREAMED) == ["fast:smollm2", "warm"]
    _check_hostile(notebook)


def _look(notebook: lab.Page, pictures: Path, app: str) -> None:
    """Check, and keep as pictures, how it looks: dark and light, and on a narrow page."""
    page = notebook.page
    page.set_viewport_size({"width": 1200, "height": 1700})
    for name, theme in THEMES.items():
        notebook.command("apputils:change-theme", {"theme": theme})
        page.wait_for_timeout(500)
        page.screenshot(path=pictures / f"columns-{app}-{name}.png")
        assert [each for each in violations(page, ".jp-OutputArea section") if "scrollable" not in each] == []
    page.set_viewport_size({"width": 390, "height": 1200})
    if app == "lab":
        page.evaluate("jupyterapp.shell.collapseLeft()")
    page.wait_for_timeout(500)
    first, second = notebook.cell(STREAMED).evaluate(PLACES)
    assert (first["left"], first["bottom"] < second["top"]) == (second["left"], True)
    page.screenshot(path=pictures / f"columns-{app}-390.png")
    page.set_viewport_size({"width": 1200, "height": 900})


def _columns(notebook: lab.Page, number: int) -> list[str]:
    """Return the names of the columns of a cell's output, as a screen reader finds them."""
    return [str(name) for name in notebook.cell(number).get_by_role("heading", level=3).all_inner_texts()]


def _check_hostile(notebook: lab.Page) -> None:
    """Check that a hostile answer is only seen."""
    area = notebook.cell(HOSTILE)
    notebook.page.wait_for_timeout(300)
    assert notebook.page.evaluate("window.acted") is None
    found = area.evaluate(
        "area => [...area.querySelectorAll('section :is(script, img, svg, iframe, form, style, details)')]"
        ".map(each => each.outerHTML)"
    )
    assert found == []
    assert area.inner_text().count("<script>window.acted=1</script>") == 2
    for link in area.locator("a").all():
        assert (link.get_attribute("href") or "").startswith(("https://", "http://", "mailto:"))
