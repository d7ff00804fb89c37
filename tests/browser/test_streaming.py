"""An answer that streams into JupyterLab: smooth, complete, saved as one output, whatever the user does meanwhile."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


def test_the_answer_grows_steadily_at_400_tokens_a_second(browser: Any, jupyterlab: str, folder: Path) -> None:
    """How smooth it is, `benchmarks/display.py` measures."""
    import lab
    import replay

    cells = ["%%llm text=warm speed=4000\nx", "%%llm text=maths speed=400\nx"]
    with lab.Page(browser, jupyterlab, folder, cells) as page:
        page.run(1)
        page.command("notebook:clear-all-cell-outputs")
        page.watch(2)
        page.run(2)
        page.page.wait_for_timeout(3000)
        seen = page.seen()
        outputs = page.saved().cells[2].outputs
        assert outputs[0]["data"]["text/plain"] == replay.TEXTS["maths"]
        assert len(outputs) == 2
        assert page.faults == []
        assert 5 < seen["outputs"] < 50  # JupyterLab folds more than 50 away
        # it grew steadily: never by more than the line below and the first lines of the next block did it shrink,
        # which are for one frame in neither of two outputs
        heights = seen["heights"]
        assert max((before - after for before, after in pairwise(heights)), default=0) < 200


def test_clearing_the_output_in_mid_stream_loses_nothing(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab
    import replay

    with lab.Page(browser, jupyterlab, folder, ["%%llm text=maths speed=1500\nx"]) as page:
        page.start(1)
        page.page.wait_for_function("document.querySelector('.jp-Notebook').innerText.includes('Three things')")
        page.command("notebook:clear-cell-output")
        page.wait(1)
        outputs = page.saved().cells[1].outputs
        assert [sorted(output["data"]) for output in outputs] == [
            ["text/markdown", "text/plain"],
            ["text/html", "text/plain"],
        ]
        assert outputs[0]["data"]["text/plain"] == replay.TEXTS["maths"]
        assert page.faults == []


def test_reloading_the_page_in_mid_stream_keeps_what_was_saved(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab
    import replay

    from llm_magic.markdown import for_notebook

    with lab.Page(browser, jupyterlab, folder, ["%%llm text=maths speed=600\nx", "print('next')"]) as page:
        page.start(1)
        page.page.wait_for_function("document.querySelector('.jp-Notebook').innerText.includes('Three things')")
        text = ""
        while len(text) <= 1000:
            page.page.wait_for_timeout(200)
            kept = page.saved().cells[1].outputs
            text = "".join(
                output["data"].get("text/markdown", "") for output in kept
            )  # between two blocks, a line alone
        page.page.reload()
        page.ready()
        assert page.saved().cells[1].outputs == kept
        assert for_notebook(replay.TEXTS["maths"]).startswith(text[:-300])  # maths that was still open is not yet made
        assert page.printed(2) == "next\n"


def test_a_page_that_is_reloaded_in_mid_answer_says_that_there_is_more(
    browser: Any, jupyterlab: str, folder: Path
) -> None:
    import lab

    line = "unfinished: the answer is still arriving"
    cells = ["%%llm text=maths speed=600\nx", "%%llm text=warm speed=2000\nx"]
    with lab.Page(browser, jupyterlab, folder, cells) as page:
        page.start(1)
        page.page.wait_for_function("document.querySelector('.jp-Notebook').innerText.includes('Three things')")
        assert page.cell(1).inner_text().rstrip().endswith(line)
        page.saved()
        page.page.reload()
        page.ready()
        assert page.cell(1).inner_text().rstrip().endswith(line)  # what the file holds, not only what was painted
        page.run(2)
        assert line not in page.cell(2).inner_text()
        assert line not in str(page.saved().cells[2].outputs)


def test_the_page_is_not_scrolled_away_under_the_reader(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    with lab.Page(browser, jupyterlab, folder, ["%%llm text=maths speed=1000\nx"]) as page:
        page.start(1)
        page.page.wait_for_function("document.querySelector('.jp-Notebook').innerText.includes('2. The case')")
        page.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 150")
        places = set()
        while not page.page.evaluate("window.ran[1]"):
            places.add(page.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop"))
            time.sleep(0.1)
        page.page.wait_for_timeout(1000)
        places.add(page.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop"))
        assert max(places) - min(places) < 40  # what is read keeps its place on screen while margins change above it
        assert min(places) > 100


def test_an_output_widget_gets_the_whole_answer(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab
    import replay

    cells = [
        "import ipywidgets\nout = ipywidgets.Output()\nout",
        "with out:\n    print('before')\n    %llm text=warm speed=500",
        "import json\nprint(json.dumps([o.get('text') or o['data'].get('text/markdown') for o in out.outputs]))",
    ]
    with lab.Page(browser, jupyterlab, folder, cells) as page:
        page.run(1)
        page.run(2)
        page.page.wait_for_function("document.querySelector('.jp-Notebook').innerText.includes('replay ·')")
        before, *texts, _footer = __import__("json").loads(page.printed(3))
        from llm_magic.markdown import for_notebook

        assert before == "before\n"
        assert len(texts) > 2
        assert "".join(texts) == for_notebook(replay.TEXTS["warm"])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_looks_at_home(browser: Any, jupyterlab: str, folder: Path, pictures: Path, dark: bool) -> None:
    """The screenshots are to be looked at; what can be asserted is that text and ground differ in both themes."""
    import lab

    setup = (
        "thoughts = 'First this, then that. ' * 8\n"
        "people = [{'name': 'Ada Lovelace', 'born': 1815}, {'name': 'Alan Turing', 'born': 1912}]\n"
        'json_text = \'[{"name": "Ada Lovelace"}]\''
    )
    cells = [setup, "%%llm text=warm speed=2000 reasoning=thoughts\nx", "%%llm text=json_text value=people\nx"]
    with lab.Page(browser, jupyterlab, folder, cells, dark=dark) as page:
        for number in (1, 2, 3):
            page.run(number)
        page.page.wait_for_timeout(1000)
        page.page.screenshot(path=pictures / f"answer-{'dark' if dark else 'light'}.png")
        colours = page.cell(2).evaluate(
            """area => [...area.querySelectorAll('summary, .jp-OutputArea-output > div:not([class])')].map(each => {
                const style = getComputedStyle(each);
                return [style.color, getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor];
            })"""
        )
        assert len(colours) == 2
        for text, ground in colours:
            assert abs(_lightness(text) - _lightness(ground)) > 0.4
        assert page.cell(3).locator("td").all_inner_texts() == ["Ada Lovelace", "1815", "Alan Turing", "1912"]


def test_it_is_the_same_in_notebook_7(browser: Any, notebook7: str, folder: Path) -> None:
    import lab
    import replay

    with lab.Page(browser, notebook7, folder, ["%%llm text=maths speed=2000\nx"], app="notebook") as page:
        page.run(1)
        outputs = page.saved().cells[1].outputs
        assert outputs[0]["data"]["text/plain"] == replay.TEXTS["maths"]
        assert page.cell(1).locator("mjx-container").count() > 50


def _lightness(colour: str) -> float:
    """Return how light a CSS colour `rgb(…)` or `rgba(…)` is, from 0 to 1."""
    red, green, blue, *_ = (float(part) for part in colour[colour.index("(") + 1 : -1].split(","))
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255
