"""Rate limits in cells of a real kernel: set through each door, held for all cells, and said while one waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from kernels import Kernel, Ran
from nbclient import NotebookClient
from servers import ScriptedServer, chunk, document, stream

SAID = stream(chunk("Hello", finish="stop"), {"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 10}})
SHORT = "import llm_magic.rate_limits as limits; limits.MINUTE, limits.SLACK = 3.0, 0.2"
ASK = "%%llm -m {}:m --once\nHi"
WAITS = "waits 3 s: {} allows 1 request a minute"


@pytest.fixture(scope="module", autouse=True)
def _loaded(kernel: Kernel) -> None:
    """The first request of a process loads what sends it, which takes a while."""
    with ScriptedServer(SAID) as server:
        kernel.run(f"%llm_provider add first --base-url {server.url}").check()
        kernel.run(ASK.format("first")).check()


@pytest.fixture(autouse=True)
def _short_minutes(kernel: Kernel) -> Iterator[None]:
    kernel.run(SHORT).check()
    yield
    kernel.run("limits.MINUTE, limits.SLACK = 60.0, 1.5").check()


def said(ran: Ran) -> list[str]:
    """Return the lines that were painted, whether a later one replaced them or not."""
    kinds = {"display_data", "update_display_data"}
    return [
        message["content"]["data"]["text/plain"]
        for message in ran.messages
        if message["msg_type"] in kinds and "text/plain" in message["content"]["data"]
    ]


def twice(kernel: Kernel, name: str, server: ScriptedServer) -> tuple[list[str], float]:
    """Ask twice; return what the second cell painted, and the seconds between the two requests."""
    kernel.run(ASK.format(name)).check()
    lines = said(kernel.run(ASK.format(name)).check())
    first, second = (request for request in server.requests if request.method == "POST")
    return lines, second.at - first.at


def test_of_an_instance_by_llm_config(kernel: Kernel) -> None:
    with ScriptedServer(SAID) as server:
        kernel.run(f"%llm_provider add slow --base-url {server.url}").check()
        kernel.run("%llm_config slow.requests_per_minute = 1").check()
        lines, seconds = twice(kernel, "slow", server)
    assert seconds >= 3
    assert lines[0] in (WAITS.format("slow"), WAITS.format("slow").replace("3 s", "2 s"))
    assert "Hello" in lines


def test_of_a_class_by_config(kernel: Kernel) -> None:
    with ScriptedServer(SAID) as server:
        kernel.run("%config VLLMProvider.requests_per_minute = 1").check()
        kernel.run(f"%config VLLMProvider.base_url = '{server.url}'").check()
        try:
            lines, seconds = twice(kernel, "vllm", server)
        finally:
            kernel.run("%config VLLMProvider.requests_per_minute = 0").check()
    assert seconds >= 3
    assert any("vllm allows 1 request a minute" in line for line in lines)


def test_of_a_project_file_and_for_a_notebook_without_a_screen(tmp_path: Path) -> None:
    with ScriptedServer(SAID) as server:
        (tmp_path / "pyproject.toml").write_text(
            "[tool.llm_magic.CompatibleProvider]\nrequests_per_minute = 1\ntokens_per_minute = 100_000\n"
        )
        cells = [
            f"%load_ext llm_magic\n%llm_provider add mine --base-url {server.url}\n{SHORT}",
            *[ASK.format("mine")] * 3,
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, second, third = server.requests
    assert third.at - second.at >= 3
    assert notebook.cells[3].outputs[0]["data"]["text/markdown"] == "Hello"
    assert "waits" not in str(notebook.cells[3].outputs)  # the line has given way


def test_what_one_cell_is_told_another_waits_for_and_says(kernel: Kernel) -> None:
    busy = document({"error": {"message": "slow down"}}, 429, {"retry-after": "2"})
    with ScriptedServer(busy, SAID) as server:
        kernel.run(f"%llm_provider add told --base-url {server.url}").check()
        kernel.run("%llm_config told.max_retries = 0").check()
        assert kernel.run(ASK.format("told")).error_name == "RateLimitedError"
        lines = said(kernel.run(ASK.format("told")).check())
    assert lines[0] in ("waits 2 s: told asked for that (429)", "waits 1 s: told asked for that (429)")
    assert server.requests[1].at - server.requests[0].at >= 1.99


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("requests_per_minute", "-1"),
        ("requests_per_minute", "'many'"),
        ("tokens_per_minute", "1.5"),
        ("concurrency", "0"),
        ("concurrency", "'atuo'"),
        ("concurrency", "None"),
    ],
)
def test_what_is_no_limit_is_one_line(kernel: Kernel, setting: str, value: str) -> None:
    ran = kernel.run(f"%llm_config openai.{setting} = {value}")
    assert ran.status == "error"
    assert len(ran.outputs[-1]["traceback"]) <= 2, ran.outputs[-1]["traceback"]
    assert setting in ran.error


def test_the_concurrency_of_a_provider(kernel: Kernel) -> None:
    registry = "get_ipython()._llm_magic.registry.get({!r}).concurrency"
    assert kernel.value(registry.format("openai")) == 16
    assert kernel.value(registry.format("local")) == 8
    kernel.run("%config OpenAIProvider.concurrency = 'auto'").check()
    assert kernel.value(registry.format("openai")) == "auto"
    kernel.run("%config OpenAIProvider.concurrency = 4").check()
    assert kernel.value(registry.format("openai")) == 4


def test_the_proxy_refuses_nothing_where_its_limit_is_known(kernel: Kernel) -> None:
    """A LiteLLM proxy that holds `rpm: 600` of its model `limited`; more are asked for than that in a minute."""
    url, key = (os.environ.get(f"LLM_MAGIC_TEST_LITELLM_LIMITED{part}", "") for part in ("", "_KEY"))
    if not url:
        pytest.skip("needs a LiteLLM proxy that holds rpm 600: set LLM_MAGIC_TEST_LITELLM_LIMITED and …_KEY")
    kernel.run("limits.MINUTE, limits.SLACK = 60.0, 1.5").check()
    kernel.run(f"import os; os.environ['LIMITED_KEY'] = {key!r}").check()
    kernel.run(f"%llm_provider add limited --base-url {url} --api-key-env LIMITED_KEY").check()
    kernel.run("%llm_config limited.requests_per_minute = 600").check()
    kernel.run(
        """
        import asyncio
        from llm_magic import LLM
        llm, places = LLM("limited:limited"), asyncio.Semaphore(32)
        async def ask():
            async with places:
                return len((await llm.aask("Hi")).attempts)
        attempts = await asyncio.gather(*(ask() for _ in range(700)))
        """.replace("\n        ", "\n"),
        timeout=200,
    ).check()
    assert kernel.value("(len(attempts), set(attempts))") == (700, {1})
