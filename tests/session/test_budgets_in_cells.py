"""Budgets in cells of a real kernel: a cell stops, keeps what came, says why; `%llm_usage` shows what is left."""

from __future__ import annotations

import nbformat
import pytest
from kernels import Kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from servers import HANG, ScriptedServer, chunk, stream
from shown import html, plain

USED = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
CALLS = stream(chunk("I add."), chunk(tool_calls=[CALL]), chunk(finish="tool_calls"), USED)
ADD = "def add(a: int, b: int) -> int:\n    return a + b"
SAID = stream(chunk("Hello", finish="stop"), USED)


@pytest.fixture(autouse=True)
def _anew(kernel: Kernel) -> None:
    kernel.run("%config LLMMagics.budget = {}").check()
    kernel.run("%llm_usage --reset").check()


def test_a_budget_that_is_spent_in_the_middle_of_a_cell_with_tools(kernel: Kernel) -> None:
    kernel.run(ADD).check()
    with ScriptedServer(CALLS) as server:
        kernel.run(f"%llm_provider add spent --base-url {server.url}").check()
        kernel.run("%config LLMMagics.budget = {'requests': 2}").check()
        ran = kernel.run("%%llm -m spent:m --tools add -c spent -o answer\n1 + 2?", "cell")
    assert len(server.requests) == 2
    assert ran.error_name == "BudgetError"
    message, hint = ran.outputs[-1]["traceback"]
    assert message == (
        "BudgetError: The budget of 2 requests (LLMMagics.budget) does not cover this request to spent:m: 2 used, "
        "0 in flight, 0 left, and it may take 1."
    )
    assert hint == "Raise LLMMagics.budget, or count anew: %llm_usage --reset."
    shown = "\n".join(ran.of_type("text/plain"))
    assert shown.count("add(a=1, b=2)") + shown.count('add({"a": 1, "b": 2})') == 2
    assert kernel.value("[run.result for run in _llm.tool_calls]") == ["3", "3"]
    assert kernel.value("(_llm.usage.input_tokens, _llm.usage.output_tokens)") == (40, 10)
    assert kernel.value("'answer' in globals()") is False
    assert "spent" not in plain(kernel.run("%llm_chat").check())  # no turn


def test_the_table_shows_what_is_used_in_flight_and_left(kernel: Kernel) -> None:
    with ScriptedServer(SAID, stream(chunk("Hel"), HANG, done=False)) as server:
        kernel.run(
            f"get_ipython()._llm_magic.registry.add('b<b>', 'compatible', base_url='{server.url}', "
            "budget={'requests': 4}, prices={'m': {'input': 1000, 'output': 10000}})"
        ).check()
        kernel.run("%config LLMMagics.budget = {'tokens': 1000, 'cost': 5}").check()
        kernel.run("%%llm -m 'b<b>:m' --once --max-tokens 50\nfour bytes a token").check()
        kernel.run("%%llm -m 'b<b>:m' --once --max-tokens 50 -b\nfour bytes a token").check()
        kernel.run("job = _").check()
        for _ in range(100):
            if len(server.requests) == 2:
                break
            kernel.run("import time; time.sleep(0.05)").check()
        ran = kernel.run("%llm_usage --reset").check()
        table = plain(ran).split("\n\n")[1].splitlines()
        assert [line.split() for line in table[:4]] == [
            ["budget", "of", "limit", "used", "in", "flight", "left"],
            ["LLMMagics.budget", "tokens", "1,000", "25", "127", "848"],
            ["LLMMagics.budget", "cost", "$5.00", "$0.07", "$0.577", "$4.353"],
            ["b<b>.budget", "requests", "4", "1", "1", "2"],
        ]
        assert plain(ran).endswith("Forgotten: counting begins at zero.")
        page = html(ran)
        assert 'aria-label="Budgets"' in page
        assert "<b>" not in page
        assert "b&lt;b&gt;.budget, requests" in page
        assert "width: 2.50%" in page  # 25 of 1,000
        assert "width: 12.70%" in page
        assert kernel.value("job.cancel()")
        assert server.requests[1].left.wait(5)
    kernel.run("import time; time.sleep(0.2)").check()
    after = plain(kernel.run("%llm_usage").check())
    assert ["LLMMagics.budget", "tokens", "1,000", "127", "0", "873"] in [line.split() for line in after.splitlines()]
    assert "Of what is used, 127 tokens and $0.577 were told by no server: they count as they were reserved." in after


def test_budgets_are_shown_before_anything_is_used(kernel: Kernel) -> None:
    kernel.run("%config LLMMagics.budget = {'requests': 0}").check()
    shown = plain(kernel.run("%llm_usage").check())
    assert shown.startswith("Nothing was used yet.\n\nbudget            of        limit  used  in flight  left")


def test_more_than_was_reserved_is_noted_in_the_cell(kernel: Kernel) -> None:
    used = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 80}}
    with ScriptedServer(stream(chunk("Hello", finish="stop"), used)) as server:
        kernel.run(f"%llm_provider add over --base-url {server.url}").check()
        kernel.run("%config LLMMagics.budget = {'tokens': 84}").check()
        ran = kernel.run("%%llm -m over:m --once --max-tokens 5\nfour bytes a token").check()
    assert "The budget of 84 tokens (LLMMagics.budget) is exceeded by 16: 82 were reserved" in plain(ran)
    assert plain(ran).startswith("Hello")


def test_a_cell_in_the_background_says_it(kernel: Kernel) -> None:
    with ScriptedServer(SAID) as server:
        kernel.run(f"%llm_provider add later --base-url {server.url}").check()
        kernel.run("%config LLMMagics.budget = {'requests': 0}").check()
        ran = kernel.run("%%llm -m later:m --once -b\nHi").check()
        kernel.run("job = _").check()
        failed = kernel.run("job.result(10)")
        assert failed.error_name == "BudgetError"
        kernel.run("import time; time.sleep(0.2)").check()
    assert server.requests == []
    assert any("BudgetError: The budget of 0 requests" in text for text in kernel.outputs_of(ran.request, "text/plain"))


def test_a_line_and_a_dry_run(kernel: Kernel) -> None:
    with ScriptedServer(SAID) as server:
        kernel.run(f"%llm_provider add line --base-url {server.url}").check()
        kernel.run("%config LLMMagics.budget = {'requests': 1}").check()
        dry = plain(kernel.run("%llm -m line:m --once --dry-run Hi").check())
        assert "Left of LLMMagics.budget: 1 of 1 requests, and it may take 1.\n" in dry
        kernel.run("%llm -m line:m --once Hi").check()
        assert kernel.run("%llm -m line:m --once Hi").error_name == "BudgetError"
        dry = plain(kernel.run("%llm -m line:m --once --dry-run Hi").check())
        assert "0 of 1 requests, and it may take 1. It would be refused." in dry
    assert len(server.requests) == 1


def test_the_setting_of_a_kernel(kernel: Kernel) -> None:
    ran = kernel.run('%llm_config LLMMagics.budget = {"token": 5}')
    assert (ran.error_name, ran.error) == (
        "ConfigurationError", "LLMMagics.budget has no limit 'token'.\nDid you mean tokens?"
    )  # fmt: skip
    kernel.run('%llm_config budget = {"tokens": 5_000}').check()
    assert "LLMMagics.budget  {'tokens': 5000}\nfrom              session" in plain(
        kernel.run("%llm_config LLMMagics.budget").check()
    )


def test_a_notebook_that_is_executed_without_a_screen(tmp_path) -> None:
    with ScriptedServer(CALLS) as server:
        cells = [
            "%load_ext llm_magic\n%config LLMMagics.budget = {'requests': 1}",
            f"%llm_provider add here --base-url {server.url}\n{ADD}",
            "%%llm -m here:m --tools add\n1 + 2?",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        with pytest.raises(CellExecutionError, match="BudgetError: The budget of 1 request"):
            NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(server.requests) == 1
    outputs = notebook.cells[2].outputs
    assert outputs[-1].ename == "BudgetError"
    assert any("add" in output.get("data", {}).get("text/plain", "") for output in outputs[:-1])


def test_the_cost_that_a_real_proxy_tells(kernel: Kernel, litellm_url: str, litellm_key: str) -> None:
    kernel.run(f"import os; os.environ['GATEWAY_KEY'] = {litellm_key!r}").check()
    kernel.run(f"%llm_provider add proxy --base-url {litellm_url} --api-key-env GATEWAY_KEY").check()
    options = "-m proxy:openai/gpt-4.1-mini --once --max-tokens 5"
    told = kernel.run(f"%%llm {options}\nHi")
    if kernel.value("_llm.cost") is None:
        pytest.skip("the proxy tells no cost of openai/gpt-4.1-mini")
    told.check()
    whole = kernel.run(f"%%llm {options} --no-stream\nHi").check()
    costs = kernel.value("_llm.cost")
    assert costs > 0
    kernel.run("%config LLMMagics.budget = {'cost': 1.5e-5}").check()
    ran = kernel.run(f"%%llm {options}\nHi")
    assert (ran.error_name, "does not cover this request to proxy:openai/gpt-4.1-mini" in ran.error) == (
        "BudgetError", True
    )  # fmt: skip
    assert "LLMMagics.budget  cost" in plain(kernel.run("%llm_usage").check())
    assert whole.outputs


def test_the_embedded_model_needs_no_price(kernel: Kernel) -> None:
    kernel.run("%config LLMMagics.budget = {'cost': 0, 'tokens': 120}").check()
    kernel.run("%%llm -m local:smollm2 --once -t 0 --max-tokens 7\nCount to ten.").check()
    given, taken = kernel.value("(_llm.usage.input_tokens, _llm.usage.output_tokens)")
    shown = plain(kernel.run("%llm_usage").check())
    assert ["LLMMagics.budget", "tokens", "120", str(given + taken)] in [
        line.split()[:4] for line in shown.splitlines()
    ]
    ran = kernel.run("%%llm -m local:smollm2 --once -t 0\nCount to ten.")
    assert ran.error_name == "BudgetError"
    assert f"{given + taken} used, 0 in flight, {120 - given - taken} left" in ran.error
