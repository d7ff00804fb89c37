"""Each cell of `docs/context_comparison_tools.md` runs in a kernel, and does what the page says of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import Answer, Received, ScriptedServer, chunk, document, stream

pytest.importorskip("pandas")
pytest.importorskip("mcp", reason="needs the extra `mcp`")

from llm_magic.mcp import configuration, results

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "context_comparison_tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CELLS = [block for language, block in BLOCKS if language == "python"]
FAILS = "sales.price"
KEY = "sk-of-this-page-1234567890"


def said(request: Received) -> str:
    """Return what a model of the page answers: JSON where a form is asked for."""
    asked = request.json
    prompt = str(asked["messages"][-1]["content"])
    if "Half of" in prompt:
        return f'{{"value": {int(prompt.split()[2].rstrip("?")) // 2}}}'
    if "shop that sells maps" in prompt:
        name = f"Maps of {asked['model']}"
        return f'{{"name": "{name}", "founded": 1901}}' if "response_format" in asked else name
    if "response_format" in asked:
        return '{"value": "July"}' if "fewest" in prompt else '{"value": "more"}'
    return "Done."


def answered(request: Received) -> Answer:
    """Answer as the page says; a tool that is offered is called once."""
    if request.path.endswith("/models"):
        return document({"data": [{"id": "gpt-5"}, {"id": "gpt-5-mini"}]})
    asked = request.json
    if asked["model"] == "gpt-6":
        return document({"error": {"message": "there is no model gpt-6", "code": "model_not_found"}}, 404)
    if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
        (age,) = re.findall(r"age (\d+)", asked["messages"][-1]["content"])
        function = {"name": asked["tools"][0]["function"]["name"], "arguments": f'{{"age": {age}}}'}
        call = {"index": 0, "id": "c0", "type": "function", "function": function}
        return stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))
    if asked.get("stream"):
        return stream(chunk(said(request)), chunk(finish="stop"))
    message = {"role": "assistant", "content": said(request)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return document({"id": "a", "model": asked["model"], "choices": [choice]})


@dataclass
class Page:
    """What became of the page."""

    kernel: Kernel
    server: ScriptedServer
    folder: Path
    ran: dict[str, Ran] = field(default_factory=dict)
    asked: dict[str, list[Any]] = field(default_factory=dict)
    """What each cell has sent."""

    def cell(self, words: str) -> str:
        """Return the only cell that has these words."""
        (cell,) = (cell for cell in self.ran if words in cell)
        return cell

    def shown(self, words: str) -> str:
        """Return what the only cell shows that has these words."""
        ran = self.ran[self.cell(words)]
        return "\n".join([*ran.of_type("text/plain"), *ran.of_type("text/html"), ran.stdout])

    def prompts(self, words: str) -> list[str]:
        """Return the last message of each request of the only cell that has these words."""
        return [str(request["messages"][-1]["content"]) for request in self.asked[self.cell(words)]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    state = {"XDG_STATE_HOME": str(folder / "state"), "OPENAI_API_KEY": KEY}
    with ScriptedServer(answered) as server, Kernel(**state, OPENAI_BASE_URL=server.url) as kernel:
        found = Page(kernel, server, folder)
        kernel.run(f"import os; os.chdir({str(folder)!r})").check()
        for number, cell in enumerate(CELLS):
            before = len(server.requests)
            ran = kernel.run(cell, f"cell-{number}")
            found.ran[cell] = ran if FAILS in cell else ran.check()
            found.asked[cell] = [request.json for request in server.requests[before:] if request.body]
        yield found


def test_the_cells_above_are_sent(page: Page) -> None:
    (prompt,) = page.prompts("What stands out here?")
    assert prompt.count("## Cell ") == 1
    assert "sales = pd.DataFrame(" in prompt
    assert "| 2 | July | 120 |" in prompt or "July" in prompt.partition("Output:")[2]
    assert prompt.endswith("What stands out here?")


def test_the_error_of_a_cell_is_sent(page: Page) -> None:
    assert page.ran[page.cell(FAILS)].error_name == "AttributeError"
    (prompt,) = page.prompts("What went wrong")
    assert prompt.count("## Cell ") == 2
    assert "'DataFrame' object has no attribute 'price'" in prompt
    assert "%%llm" not in prompt


def test_what_stood_above_is_no_part_of_the_conversation(page: Page) -> None:
    (asked,) = page.asked[page.cell("What went wrong")]
    assert [message["content"] for message in asked["messages"][:-1]] == ["What stands out here?", "Done."]


def test_cells_by_name_from_python(page: Page) -> None:
    (prompt,) = page.prompts("In which month")
    assert prompt.count("## Cell ") == 1
    assert page.shown("In which month").strip() == "'July'"


def test_several_models_are_asked_once_each(page: Page) -> None:
    words = "gpt-5-mini -o answers"
    assert sorted(request["model"] for request in page.asked[page.cell(words)]) == ["gpt-5", "gpt-5-mini"]
    assert "no turn of the conversation" in page.shown(words)
    assert page.shown('answers["openai:gpt-5"], _llm').startswith("('Maps of gpt-5', ")
    assert "Maps of" not in str(page.asked[page.cell("age 34")][0]["messages"])


def test_typed_values_are_one_table(page: Page) -> None:
    assert page.kernel.value("{name: dict(shop) for name, shop in shops.items()}") == {
        f"openai:{name}": {"name": f"Maps of {name}", "founded": 1901} for name in ("gpt-5", "gpt-5-mini")
    }
    assert page.shown("-o shops").count("<tr") >= 3


def test_a_failure_stands_in_its_place(page: Page) -> None:
    assert page.kernel.value("answers['openai:gpt-5']") == "Maps of gpt-5"
    assert page.kernel.value("type(answers['openai:gpt-6']).__name__") == "ModelNotFoundError"


def test_rows_have_a_column_a_model(page: Page) -> None:
    assert page.kernel.value("judged.columns.tolist()") == ["month", "units", "openai:gpt-5", "openai:gpt-5-mini"]
    assert len(page.asked[page.cell("--each sales")]) == 6


def test_several_models_from_python(page: Page) -> None:
    models = ["openai:gpt-5", "openai:gpt-5-mini"]
    assert page.kernel.value("compared.value") == {
        f"openai:{name}": f"Maps of {name}" for name in ("gpt-5", "gpt-5-mini")
    }
    assert page.kernel.value("[numbers[0], numbers.to_frame().columns.tolist()]") == [dict.fromkeys(models, 2), models]


def test_a_tool_of_a_server_is_called(page: Page) -> None:
    assert "ticket_price(age=34) → 22.0" in page.shown("age 34")
    listed = page.shown("%llm_config mcp_servers")
    assert "mcp:museum" in listed
    assert "running, 1 tool" in listed


def test_the_project_file_of_the_page_is_one() -> None:
    (text,) = (block for language, block in BLOCKS if language == "toml")
    servers = configuration.read_servers(tomllib.loads(text)["tool"]["llm_magic"]["mcp_servers"])
    assert {name: server.shown for name, server in servers.items()} == {
        "museum": "python museum.py",
        "docs": "https://docs.example.org/mcp",
    }


def test_its_figures_are_those_of_the_code() -> None:
    from llm_magic.config.settings import Settings

    text = " ".join(PAGE.split())
    assert f"`LLMMagics.context_chars` ({Settings.context_chars.default_value:,})" in text
    assert f"`LLMMagics.tool_timeout` ({Settings.tool_timeout.default_value:g})" in text
    assert f"more than {results.MAX_CHARS:,} characters is cut" in text


def test_the_extra_is_there() -> None:
    assert re.findall(r'pip install "llm_magic\[(\w+)\]"', PAGE) == ["mcp"]
    assert '\nmcp = ["mcp>=2' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("option", "cells"), [("3", 3), ("sales,llm", 2), ("all", None), ("0", 0)])
def test_which_cells_are_sent(page: Page, option: str, cells: int | None) -> None:
    assert f"| `--context {option}` |" in PAGE
    page.kernel.run("%config LLMMagics.params = {'context': 1}", "setting").check()
    ran = page.kernel.run(f"%%llm --context {option} --dry-run\nHi", "dry").check()
    page.kernel.run("%config LLMMagics.params = {}", "setting").check()
    shown = "\n".join([*ran.of_type("text/plain"), ran.stdout])
    if cells is None:
        assert all(text in shown for text in ("sales = pd.DataFrame", "museum.py", FAILS, "judged.columns"))
    else:
        assert len(re.findall(r"## Cell \d", shown)) == cells


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%llm -m openai:gpt-5,openai:gpt-5 --once\nHi", "openai:gpt-5 stands twice"),
        ("%%llm -m openai:gpt-5,opnai:gpt-5-mini --once\nHi", "opnai"),
        ("%%llm -m openai:gpt-5,openai:gpt-5-mini --code\nHi", "exclude each other"),
        ("%%llm -m openai:gpt-5,openai:gpt-5-mini --each sales --batch\nHi", "exclude each other"),
        ("%%llm -m openai:gpt-5,openai:gpt-5-mini --each sales --batch-file f.jsonl\nHi", "exclude each other"),
        ("%%llm_embed -m openai:gpt-5,openai:gpt-5-mini\nHi", "names several models, where one can be asked"),
        ("%%llm --tools mcp:museum --each sales --on dask\nHi {{ month }}", "exclude each other"),
        ("%%llm --tools mcp:museum.ticket_prize\nHi", "has no tool ticket_prize"),
        ("%%llm --context profit\nHi", "no executed cell defines profit"),
    ],
)
def test_what_is_an_error_before_anything_is_sent(page: Page, cell: str, said: str) -> None:
    before = len(page.server.requests)
    ran = page.kernel.run(cell, "wrong")
    assert said in ran.error
    assert len(page.server.requests) == before


def test_a_job_of_several_models(page: Page) -> None:
    job = "get_ipython().run_cell_magic('llm', '-m openai:gpt-5,openai:gpt-5-mini -b --once', 'Hi')"
    page.kernel.run(f"job = {job}", "job").check()
    assert page.kernel.value("job.result(20).value") == dict.fromkeys(["openai:gpt-5", "openai:gpt-5-mini"], "Done.")


def test_a_tool_whose_name_a_function_has_gets_that_of_its_server(page: Page) -> None:
    page.kernel.run('def ticket_price(age: int) -> int:\n    "Of the house."\n    return age', "function").check()
    page.kernel.run("%%llm --tools ticket_price,mcp:museum --once\nHow much is age 5?", "both").check()
    offered = next(request.json["tools"] for request in reversed(page.server.requests) if "tools" in request.json)
    assert [each["function"]["name"] for each in offered] == ["ticket_price", "museum_ticket_price"]


def test_a_recorded_call_needs_no_server(page: Page) -> None:
    cell = page.cell("age 9")
    page.kernel.run("%config LLMMagics.mcp_servers = {'museum': {'command': 'gone'}}").check()
    before = len(page.server.requests)
    ran = page.kernel.run(cell.replace("--record once", "--record only"), "again").check()
    assert "ticket_price(age=9) → 11.0" in "\n".join(ran.of_type("text/plain"))
    assert len(page.server.requests) == before
