"""The picker in a real browser: what is picked there is what the server receives; by keyboard, in both themes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import pytest
from accessibility import violations
from picker.backends import ANSWER, answering
from servers import ScriptedServer

MODELS = [
    {"id": "smollm2", "max_model_len": 8192},
    {"id": "qwen3-8b", "max_model_len": 32_768},
    {"id": "granite-4-tiny", "context_length": 128_000, "retirement_date": "2999-01-31"},
]
THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}  # in this order: the front end keeps the last
SET_UP = """\
%load_ext llm_magic
%llm_provider add lab --base-url {url}
%llm_picker"""
CELLS = (
    "%%llm\nSay hello in one word.",
    '%config LLMMagics.model = "lab:smollm2"\n%config LLMMagics.params = {"top_p": 0.5}',
    "%reload_ext llm_magic",
)
PICKER, ASK, CONFIG, RELOAD = 1, 2, 3, 4  # cells, by number


def until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def field(picker: Any, label: str) -> Any:
    return picker.get_by_label(label, exact=True)


def type_into(picker: Any, label: str, text: str) -> None:
    field(picker, label).fill(text)
    field(picker, label).press("Tab")


def focused(page: Any) -> str:
    """Return the label of the element that has the focus."""
    return str(page.evaluate("document.activeElement.labels?.[0]?.textContent ?? document.activeElement.textContent"))


def asked(server: ScriptedServer) -> list[Any]:
    return [json.loads(request.body) for request in server.requests if request.method == "POST"]


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_what_is_picked_is_what_the_server_receives(
    app: str, browser: Any, folder: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("jupyterlab" if app == "lab" else "notebook7")
    with (
        ScriptedServer(answering(MODELS, pause=0.1)) as server,
        lab.Page(browser, url, folder, [SET_UP.format(url=server.url), *CELLS], app=app) as notebook,
    ):
        page = notebook.page
        faults = list(notebook.faults)  # of the front end itself, as it starts
        notebook.run(PICKER)
        picker = page.locator(".llm-picker")
        picker.wait_for()

        models = field(picker, "Models")
        _check_picking(picker, models)
        page.evaluate(
            """() => {
                window.shown = [];
                new MutationObserver(() => {
                    const text = document.querySelector('.llm-picker .llm-answer')?.textContent;
                    if (text && text !== window.shown.at(-1)) window.shown.push(text);
                }).observe(document.querySelector('.llm-picker'), {subtree: true, childList: true});
            }"""
        )
        picker.get_by_role("button", name="Try it").click()
        until(lambda: picker.get_by_role("button", name="Stop").is_visible())
        until(lambda: "Used so far" in picker.inner_text())
        shown = page.evaluate("window.shown")
        assert shown[-1] == ANSWER
        assert len(shown) >= 3
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))

        notebook.run(ASK)
        tried, cell = asked(server)
        picked = {"model": "qwen3-8b", "temperature": 0.25, "max_tokens": 200}
        assert tried == {
            **picked,
            "messages": [
                {"role": "system", "content": "Answer in one short sentence."},
                {"role": "user", "content": "Why is the sky blue? Answer in one sentence."},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert cell == {
            **tried,
            "messages": [tried["messages"][0], {"role": "user", "content": "Say hello in one word."}],
        }
        until(lambda: "Used so far: 2 requests" in picker.inner_text())

        for theme, name in THEMES.items():
            notebook.command("apputils:change-theme", {"theme": name})
            until(
                lambda theme=theme: page.evaluate("document.body.dataset.jpThemeLight") == str(theme == "light").lower()
            )
            page.mouse.move(5, 5)
            picker.screenshot(path=pictures / f"picker-{app}-{theme}.png")
            assert violations(page, ".llm-picker") == []

        _check_keyboard(page, picker, models, notebook)

        notebook.run(CONFIG)
        until(lambda: field(picker, "Top p").input_value() == "0.5")
        assert field(picker, "Temperature").input_value() == ""
        assert models.input_value() != ""
        assert "lab:smollm2" in picker.locator(".llm-title").inner_text()

        _check_several(page, picker, server)
        picker.screenshot(path=pictures / f"picker-{app}-several.png")
        assert violations(page, ".llm-picker") == []

        notebook.run(RELOAD)
        until(lambda: "run %llm_picker again" in picker.inner_text())
        assert picker.get_by_role("button", name="Try it").is_disabled()

        notebook.run(PICKER)
        until(lambda: picker.get_by_role("button", name="Try it").is_enabled())
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        before = "getComputedStyle(document.querySelector('.llm-picker'), '::before').content"
        until(lambda: "kernel is gone" in page.evaluate(before))
        page.screenshot(path=pictures / f"picker-{app}-gone.png")
        assert notebook.faults == faults


REAL = """\
%load_ext llm_magic
%config VLLMProvider.base_url = "{url}"
%config LLMMagics.model = "vllm:smollm2"
%llm_picker"""


def test_real_servers_behind_the_picker(
    browser: Any, jupyterlab: str, folder: Path, pictures: Path, vllm_url: str
) -> None:
    """A vLLM server and the model inside the kernel: listed, tried, and used by the next cell."""
    ask, tell = "%%llm -o said\nSay hello.", "print(_llm.model, _llm.usage.output_tokens, said)"
    with lab.Page(browser, jupyterlab, folder, [REAL.format(url=vllm_url), ask, tell]) as notebook:
        notebook.run(1)
        picker = notebook.page.locator(".llm-picker")
        picker.wait_for()
        models = field(picker, "Models")
        for provider, length, tokens in (("vllm", "4,096", 7), ("local", "8,192", 5)):
            field(picker, "Provider").select_option(provider)
            until(lambda length=length: models.inner_text().split() == ["smollm2", "·", length, "tokens"])
            models.select_option(index=0)
            until(lambda name=f"{provider}:smollm2": name in picker.locator(".llm-title").inner_text())
            type_into(picker, "Temperature", "0")
            type_into(picker, "Max tokens", str(tokens))
            until(lambda tokens=tokens: f"'max_tokens': {tokens}" in picker.locator("pre").inner_text())
            picker.get_by_role("button", name="Try it").click()
            until(lambda tokens=tokens: f"→ {tokens} tokens" in picker.inner_text(), 90)
            assert picker.locator(".llm-answer").inner_text().strip()
            picker.screenshot(path=pictures / f"picker-{provider}.png")
            notebook.run(2)
            name, used, *said = notebook.printed(3).split()
            assert (name, used) == (f"{provider}:smollm2", str(tokens))
            assert said


def _check_picking(picker: Any, models: Any) -> None:
    """Pick provider, model and parameters, and see them in force."""
    field(picker, "Provider").select_option("lab")
    until(lambda: models.locator("option").count() == 3)
    assert [" ".join(row.split()) for row in models.locator("option").all_inner_texts()] == [
        "granite-4-tiny · 128k tokens · retires 2999-01-31",
        "qwen3-8b · 32,768 tokens",
        "smollm2 · 8,192 tokens",
    ]
    type_into(picker, "Search models", "qwen")
    until(lambda: models.locator("option").count() == 1)
    models.select_option(index=0)
    until(lambda: "lab:qwen3-8b" in picker.locator(".llm-title").inner_text())
    type_into(picker, "Search models", "")
    type_into(picker, "Temperature", "0.25")
    type_into(picker, "Max tokens", "200")
    type_into(picker, "System prompt", "Answer in one short sentence.")
    until(lambda: "Answer in one short" in picker.locator("pre").inner_text())


def _check_keyboard(page: Any, picker: Any, models: Any, notebook: lab.Page) -> None:
    """Everything is reached by Tab in the order of reading, and keys act on the panel and not on the notebook."""
    field(picker, "Provider").focus()
    order = [focused(page)]
    for _ in range(17):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == [
        *("Provider", "Search models", "Refresh", "Models", "Compare several models"),
        *("Temperature", "Max tokens", "Top p", "Seed", "Presence penalty", "Frequency penalty", "Reasoning effort"),
        *("Unset all", "System prompt", "Try a prompt", "Try it", "Copy"),
        order[-1],
    ]
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    models.focus()
    page.keyboard.press("ArrowUp")
    until(lambda: "lab:granite-4-tiny" in picker.locator(".llm-title").inner_text())
    page.keyboard.press("s")  # the list goes to what begins so; in a notebook's command mode, keys do other things
    page.keyboard.press("a")
    assert focused(page) == "Models"
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    picker.get_by_role("button", name="Unset all").focus()
    page.keyboard.press("Enter")
    until(lambda: field(picker, "Temperature").input_value() == "")


def _check_several(page: Any, picker: Any, server: ScriptedServer) -> None:
    """Choose two models, and try both."""
    title = picker.locator(".llm-title")
    box = picker.get_by_role("checkbox", name="Compare several models")
    box.focus()
    page.keyboard.press("Space")
    compared = field(picker, "Models to compare")
    compared.wait_for()
    assert not field(picker, "Models").is_visible()
    assert compared.input_value() == "smollm2 · 8,192 tokens"
    compared.locator("option").nth(1).click(modifiers=["Control"])
    until(lambda: title.inner_text().split() == ["Models", "lab:smollm2,", "lab:qwen3-8b", "(session)"])
    before = len(asked(server))
    picker.get_by_role("button", name="Try it").click()
    until(lambda: picker.locator(".llm-tried").count() == 2)
    until(lambda: picker.get_by_role("button", name="Try it").is_enabled())
    assert all(ANSWER in text for text in picker.locator(".llm-tried").all_inner_texts())
    assert sorted(body["model"] for body in asked(server)[before:]) == ["qwen3-8b", "smollm2"]
    picker.get_by_role("button", name="lab:qwen3-8b ×").wait_for()
