"""A live `%%llm --each` cell in JupyterLab and Notebook: seen as it goes, stopped, gone on with, in both themes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import pytest
from accessibility import violations
from servers import Answer, Received, ScriptedServer, document

LARGEST, REPAINTS = 20_000, 4
"""Bytes of a repaint, and repaints a second, at most."""
ROWS = 80
LOAD = """\
%load_ext llm_magic
get_ipython()._llm_magic.registry.add("s", "compatible", base_url="URL", max_retries=0)
%config LLMMagics.model = "s:m"
import pandas as pd
frame = pd.DataFrame({"text": [f"review {number}" for number in range(80)]})"""
CELLS = (
    "%%llm --each frame --concurrency 4 -o said\nSay {{ text }}",
    "said.said.nunique(), said.columns.tolist()",
    "%%llm --each frame[:30] --concurrency 4 -o partly\nTry {{ text }}",
    "%%llm --each range(10**9) --again --concurrency 4 -o endless\nGo on {{ item }}",
    "job = %llm -b --each frame[:40] --concurrency 4 -o later Later {{ text }}",
    "print(job, 'later' in globals())",
    "print(len(await job), job, 'later' in globals())",
)
SAID, BOUND, PARTLY, ENDLESS, JOB, MEANWHILE, AWAITED = range(2, 9)
THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}  # in this order: the front end keeps the last
HEAR = """() => {
    const size = data => new TextEncoder().encode(JSON.stringify(data)).length;
    window.heard = [];
    jupyterapp.shell.currentWidget.sessionContext.session.kernel.iopubMessage.connect((_, message) => {
        const kind = message.header.msg_type;
        if (kind == 'display_data' || kind == 'update_display_data')
            window.heard.push([kind, Date.parse(message.header.date) / 1000, size(message.content.data)]);
    });
}"""
LONG = "A city **in** <b>the</b> $north$ | " + "with a long history " * 12


def answer(request: Received) -> Answer:
    """Answer after a moment; of what is tried, every seventh row is refused."""
    said = str(request.json["messages"][-1]["content"])
    if said.startswith("Try") and int(said.rsplit(maxsplit=1)[-1]) % 7 == 3:
        return document({"error": {"message": "The input is too <long> for this model."}}, status=400)
    text = LONG if said.endswith("2") else f"you said {said}"
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 12, "completion_tokens": 34}
    made = document({"choices": [choice], "usage": usage})
    made.steps = [0.25, *made.steps]
    return made


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def stop(notebook: lab.Page) -> None:
    """Press the button in the toolbar."""
    notebook.page.locator('.jp-Toolbar-item[data-jp-item-name="interrupt"] jp-button').click()


def now(notebook: lab.Page, number: int) -> int:
    """Return how many rows the bar of a cell says to be done, 0 where there is no bar."""
    script = "area => Number(area.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow') ?? 0)"
    return int(notebook.cell(number).evaluate(script))


def wrong(page: Any, selector: str) -> list[str]:
    """Return what is wrong for some readers, but for that the front end's own outputs scroll, where it is narrow."""
    return [each for each in violations(page, selector) if not each.startswith("scrollable-region-focusable")]


def heard(notebook: lab.Page) -> list[tuple[str, float, int]]:
    """Return the outputs that came since the last time: their kind, when they were sent, their bytes."""
    return [tuple(each) for each in notebook.page.evaluate("window.heard.splice(0)")]


def check_pace(outputs: list[tuple[str, float, int]]) -> None:
    """See that what was repainted was small, and not too often; what stays in the end comes whenever it is there."""
    assert max(size for _, _, size in outputs) <= LARGEST
    times = [at for kind, at, _ in outputs if kind == "update_display_data"]
    assert len(times) > 3
    for first in range(len(times)):
        assert sum(times[first] <= at < times[first] + 1 for at in times) <= REPAINTS + 1, times  # its end among them


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_rows_are_stopped_and_gone_on_with(
    app: str, browser: Any, folder: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("jupyterlab" if app == "lab" else "notebook7")
    with ScriptedServer(answer) as server:
        cells = [LOAD.replace("URL", server.url), *CELLS]
        with lab.Page(browser, url, folder, cells, app=app) as notebook:
            faults = list(notebook.faults)  # of the front end itself, as it starts
            notebook.run(1)
            notebook.page.evaluate(HEAR)
            notebook.start(SAID)
            for done in (1, 9, 17):  # it moves
                until(lambda done=done: done <= now(notebook, SAID) < done + 40)
            cell = notebook.cell(SAID)
            assert cell.get_by_role("progressbar").get_attribute("aria-valuemax") == "80"
            assert 0 < cell.locator("tbody tr").count() <= 5
            assert "you said Say review" in cell.locator("tbody").inner_text()
            until(lambda: now(notebook, SAID) >= 24)
            cell.screenshot(path=pictures / f"each-{app}-live.png")

            stop(notebook)
            notebook.wait(SAID)
            until(lambda: "KeyboardInterrupt" in cell.inner_text())
            check_pace(heard(notebook))
            stood, error = notebook.saved().cells[SAID].outputs
            (line,) = error["traceback"]
            answered = int(re.fullmatch(
                r"KeyboardInterrupt: stopped; (\d+) of 80 rows are answered, and kept: run it again to go on from there\.",
                line,
            )[1])  # fmt: skip
            assert answered >= 24
            assert f"{answered} of 80 rows" in stood["data"]["text/plain"]
            assert stood["data"]["text/plain"].endswith("Interrupted.")
            assert now(notebook, SAID) == answered
            assert "unfinished" not in cell.inner_text()
            cell.screenshot(path=pictures / f"each-{app}-stopped.png")

            asked = len(server.requests)
            notebook.start(SAID)
            until(lambda: f"{answered} of 80 answered before; asking for the rest" in cell.inner_text())
            assert now(notebook, SAID) >= answered
            notebook.wait(SAID)
            assert len(server.requests) - asked == ROWS - answered
            check_pace(heard(notebook))
            (final,) = notebook.saved().cells[SAID].outputs
            assert cell.get_by_role("progressbar").count() == 0
            assert cell.locator("tbody tr").count() == 10
            assert cell.locator("td b, td strong, mjx-container").count() == 0
            assert "10 of 80 rows" in final["data"]["text/plain"]
            assert re.search(r"s:m · 80 rows in [\d.]+ s", final["data"]["text/plain"].splitlines()[-1])
            cell.screenshot(path=pictures / f"each-{app}-end.png")
            notebook.run(BOUND)
            (value,) = notebook.saved().cells[BOUND].outputs
            assert value["data"]["text/plain"] == "(73, ['text', 'said'])"
            assert notebook.faults == faults


def test_rows_that_fail_and_rows_without_an_end(browser: Any, jupyterlab: str, folder: Path, pictures: Path) -> None:
    with ScriptedServer(answer) as server:
        cells = [LOAD.replace("URL", server.url), *CELLS]
        with lab.Page(browser, jupyterlab, folder, cells) as notebook:
            page = notebook.page
            notebook.run(1)
            notebook.command("application:toggle-left-area")
            for theme, name in THEMES.items():
                notebook.command("apputils:change-theme", {"theme": name})
                light = str(theme == "light").lower()
                until(lambda light=light: page.evaluate("document.body.dataset.jpThemeLight") == light)
                for width, what in ((1200, "wide"), (520, "narrow")):
                    page.set_viewport_size({"width": width, "height": 900})
                    notebook.run(PARTLY)
                    cell = notebook.cell(PARTLY)
                    until(lambda cell=cell: "RowsFailedError" in cell.inner_text())
                    assert "4 of 30 failed: 4 RequestRefusedError" in cell.inner_text()
                    assert wrong(page, ".jp-OutputArea-output:has(table)") == []
                    cell.screenshot(path=pictures / f"each-{theme}-{what}-failed.png")
                    notebook.start(ENDLESS)
                    until(lambda: now(notebook, ENDLESS) >= 12, 60)
                    notebook.cell(ENDLESS).screenshot(path=pictures / f"each-{theme}-{what}-live.png")
                    assert wrong(page, ".jp-OutputArea-output:has(progress)") == []
                    stop(notebook)
                    notebook.wait(ENDLESS)
            for number in (PARTLY, ENDLESS):
                assert [each["output_type"] for each in notebook.saved().cells[number].outputs] == [
                    "display_data",
                    "error",
                ]


def test_a_job_shows_its_rows_in_its_own_cell(browser: Any, jupyterlab: str, folder: Path, pictures: Path) -> None:
    with (
        ScriptedServer(answer) as server,
        lab.Page(browser, jupyterlab, folder, [LOAD.replace("URL", server.url), *CELLS]) as notebook,
    ):
        notebook.run(1)
        notebook.run(JOB)
        assert notebook.printed(MEANWHILE) == "<Job s:m: running> False\n"
        until(lambda: now(notebook, JOB) >= 4)
        notebook.cell(JOB).screenshot(path=pictures / "each-job-live.png")
        assert notebook.printed(AWAITED) == "40 <Job s:m: done> True\n"
        until(lambda: "40 rows in" in notebook.cell(JOB).inner_text())
        saved = notebook.saved().cells
        assert ["10 of 40 rows" in each["data"]["text/plain"] for each in saved[JOB].outputs] == [True]
        assert notebook.cell(JOB).get_by_role("progressbar").count() == 0
        notebook.cell(JOB).screenshot(path=pictures / "each-job-end.png")
