"""Many rows in JupyterLab and Notebook: a bar that grows, the table in the end, in both themes; pictures to look at."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import pytest
from accessibility import violations
from batch_server import BatchServer

DISPLAY = Path(__file__).parents[1] / "display"
SET_UP = f"""\
import sys
sys.path.insert(0, {str(DISPLAY)!r})
%load_ext many_rows
from many_rows import drive, drive_later
people = lambda number: {{"city": f"City <b>{{number}}</b>", "people": number * 1_000, "note": "long " * 50}}"""
CELLS = (
    "%%llm total=200, pause=0.04, notes=('The column text wins over the variable text.',)\nx",
    "%%llm total=200, pause=0.04, known=False, waiting='waits for vllm: connection refused'\nx",
    "%%llm total=2_000, failed=(1_733,), value=people\nx",
    "%%llm total=200, pause=0.01, stop=123\nx",
    "job = drive_later(total=60, pause=0.05)",
    "job.join()\nprint('over')",
)
KNOWN, UNKNOWN, RECORDS, STOPPED, LATER, OVER = range(2, 8)
THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}  # in this order: the front end keeps the last


def until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_many_rows_are_seen(
    app: str, browser: Any, folder: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("jupyterlab" if app == "lab" else "notebook7")
    with lab.Page(browser, url, folder, [SET_UP, *CELLS], app=app) as notebook:
        page = notebook.page
        faults = list(notebook.faults)  # of the front end itself, as it starts
        notebook.run(1)
        for theme, name in THEMES.items():
            notebook.command("apputils:change-theme", {"theme": name})
            light = str(theme == "light").lower()
            until(lambda light=light: page.evaluate("document.body.dataset.jpThemeLight") == light)
            notebook.start(KNOWN)
            until(lambda: _part(notebook, KNOWN) > 0.3)
            page.mouse.move(5, 5)
            notebook.cell(KNOWN).screenshot(path=pictures / f"rows-{app}-{theme}-live.png")
            assert violations(page, ".jp-OutputArea-output:has(progress)") == []
            assert re.search(r"\$0\.\d+ so far, about \$0\.02 in all", notebook.cell(KNOWN).inner_text())  # no formula
            notebook.wait(KNOWN)
            notebook.cell(KNOWN).screenshot(path=pictures / f"rows-{app}-{theme}-end.png")
            assert notebook.cell(KNOWN).locator("progress").count() == 0

            notebook.start(UNKNOWN)
            until(lambda: "waits for vllm" in notebook.cell(UNKNOWN).inner_text())
            bar = notebook.cell(UNKNOWN).get_by_role("progressbar")
            assert bar.get_attribute("aria-valuenow") is None
            assert bar.evaluate("bar => bar.position") == -1
            notebook.cell(UNKNOWN).screenshot(path=pictures / f"rows-{app}-{theme}-unknown.png")
            notebook.wait(UNKNOWN)

            notebook.run(RECORDS)
            notebook.start(STOPPED)
            until(lambda: "Interrupted." in notebook.cell(STOPPED).inner_text())
            page.wait_for_timeout(300)
            for number, what in ((RECORDS, "records"), (STOPPED, "stopped")):
                notebook.cell(number).screenshot(path=pictures / f"rows-{app}-{theme}-{what}.png")
            assert violations(page, ".jp-OutputArea-output:has(table)") == []
        _check_ends(notebook)
        assert notebook.faults == faults


def _part(notebook: lab.Page, number: int) -> float:
    """Return how far the bar of a cell is, 0 where there is none."""
    bars = notebook.cell(number).locator("progress")
    try:
        return float(bars.evaluate_all("bars => bars.length ? bars[0].position : 0"))
    except ValueError:
        return 0.0


def _check_ends(notebook: lab.Page) -> None:
    """See what stays, in the page and in the file."""
    saved = notebook.saved()
    counts = [len(saved.cells[number].outputs) for number in (KNOWN, UNKNOWN, RECORDS, STOPPED)]
    assert counts == [1, 1, 1, 2]
    texts = notebook.cell(RECORDS).locator("td").all_inner_texts()
    assert texts[:2] == ["City <b>0</b>", "0"]
    assert notebook.cell(RECORDS).locator("td b").count() == 0
    assert notebook.cell(STOPPED).locator("progress").evaluate("bar => bar.position") == 124 / 200
    notebook.run(LATER)
    until(lambda: _part(notebook, LATER) > 0.1)
    notebook.run(OVER)
    until(lambda: "10 of 60 rows" in notebook.cell(LATER).inner_text())
    saved = notebook.saved()
    assert [output["output_type"] for output in saved.cells[LATER].outputs] == ["display_data"]
    assert "10 of 60 rows" in saved.cells[LATER].outputs[0]["data"]["text/plain"]
    assert saved.cells[OVER].outputs[0]["text"] == "over\n"


def test_fast_rows_leave_the_page_its_time(browser: Any, jupyterlab: str, folder: Path) -> None:
    """20,000 rows in a few seconds: the outputs change about four times a second."""
    cells = [SET_UP, "%%llm total=20_000, value=people\nx"]
    with lab.Page(browser, jupyterlab, folder, cells) as notebook:
        notebook.run(1)
        notebook.watch(2)
        begun = time.time()
        notebook.run(2)
        seconds = time.time() - begun
        notebook.page.wait_for_timeout(300)
        seen = notebook.seen()
        assert len(seen["painted"]) <= 2 * (4 * seconds + 4)  # the prompt of the cell changes, too
        assert seen["outputs"] == 1


BATCH = "%%llm --each rows --as int --batch --poll 0.05 -o out\nSAY {{ item }}"


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_an_offline_batch_is_seen_and_goes_on_after_a_reload(
    app: str, browser: Any, folder: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("jupyterlab" if app == "lab" else "notebook7")
    with BatchServer(in_progress=10**9) as server:
        first = (
            "%load_ext llm_magic\n"
            f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)\n"
            f"%config LLMMagics.model = 's:m'\nrows = {[app, '2', '3']!r}"
        )
        with lab.Page(browser, url, folder, [first, BATCH, "print('other')"], app=app) as notebook:
            page, said = notebook.page, notebook.cell(2)
            faults = list(notebook.faults)
            notebook.run(1)
            notebook.run(2)
            until(lambda: "in progress 0/3" in said.inner_text())
            notebook.run(3)
            assert notebook.cell(3).inner_text().strip() == "other"
            for theme, name in THEMES.items():
                notebook.command("apputils:change-theme", {"theme": name})
                light = str(theme == "light").lower()
                until(lambda light=light: page.evaluate("document.body.dataset.jpThemeLight") == light)
                page.mouse.move(5, 5)
                until(lambda: page.locator("#jupyterlab-splash").count() == 0)
                said.screenshot(path=pictures / f"batch-{app}-{theme}-live.png")
                assert violations(page, ".jp-OutputArea-output:has(progress)") == []
            notebook.saved()
            page.reload()
            notebook.ready()
            assert "the batch goes on at the server; run this cell again to go on" in said.inner_text()
            notebook.run(2)
            until(lambda: "has 3 rows of this cell: not submitted again." in said.inner_text())
            server.in_progress = 1
            until(lambda: said.locator("table").count() == 1)
            assert said.locator("progress").count() == 0
            until(lambda: "RowsFailedError: 1 of 3 failed" in said.inner_text())
            said.screenshot(path=pictures / f"batch-{app}-end.png")
            assert set(notebook.faults) <= set(faults)  # a reload starts the front end again
        assert len(server.created) == 1
