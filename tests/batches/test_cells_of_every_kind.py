"""`%%llm --each … --batch --wait` with the options of other cells: what its lines ask, and what it binds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from batch_server import BatchServer, at_once
from kernels import Kernel


@pytest.fixture(scope="module")
def server() -> Iterator[BatchServer]:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server:
        server.direct = at_once(server)
        yield server


@pytest.fixture(scope="module")
def cells(server: BatchServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("state")
    with Kernel(XDG_STATE_HOME=str(folder)) as kernel:
        kernel.run(
            "%load_ext llm_magic\n"
            "import base64, json, pandas as pd\n"
            "from pydantic import BaseModel\n"
            f"%config CompatibleProvider.base_url = {server.url!r}\n"
            "%config LLMMagics.model = 'compatible:m'\n"
            "class City(BaseModel):\n    name: str\n    size: int\n"
            "def f(x: int) -> int:\n    'Add one.'\n    raise SystemExit('it was run')\n"
            f"png = base64.b64decode({PNG!r})\n"
            "rows = ['one', 'two']\n"
            "cities = pd.DataFrame({'text': ['SAY {\"name\": \"Ulm\", \"size\": 3}', 'SAY ?']})"
        ).check()
        yield kernel


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def bodies(server: BatchServer) -> list[dict[str, Any]]:
    (name,) = [created.id for created in server.created]
    return [row["body"] for row in server.rows(name)]


def run(cells: Kernel, server: BatchServer, options: str, prompt: str) -> str:
    """Run a cell, and return what it prints."""
    server.created.clear()
    cell = cells.run(f"%%llm --batch --wait --poll 0.01 -o out {options}\n{prompt}")
    cell.check()
    return cell.stdout + "".join(cell.of_type("text/plain"))


def test_lines_ask_what_the_options_say(cells: Kernel, server: BatchServer) -> None:
    run(cells, server, "--each rows --raw --image png", "SAY {{ item }}")
    assert [body["messages"][0]["content"][0]["text"] for body in bodies(server)] == ["SAY {{ item }}"] * 2
    run(
        cells,
        server,
        "--each rows -s 'Be short.' --image png -p 'logit_bias={\"5\": 1}' --stop END --seed 3",
        "SAY {{ item }}",
    )
    for body, item in zip(bodies(server), ["one", "two"], strict=True):
        assert body["messages"][0] == {"role": "system", "content": "Be short."}
        first, second = body["messages"][1]["content"]
        assert (first["text"], second["image_url"]["url"]) == (f"SAY {item}", f"data:image/png;base64,{PNG}")
        assert (body["logit_bias"], body["stop"], body["seed"]) == ({"5": 1}, ["END"], 3)
    assert cells.value("list(out)") == ["one", "two"]


def test_a_conversation_goes_along(cells: Kernel, server: BatchServer) -> None:
    cells.run("%%llm -c talk\nSAY Before").check()
    run(cells, server, "--each rows -c talk", "SAY {{ item }}")
    for body, item in zip(bodies(server), ["one", "two"], strict=True):
        assert [each["content"] for each in body["messages"]] == ["SAY Before", "Before", f"SAY {item}"]


def test_a_frame_of_a_type(cells: Kernel, server: BatchServer) -> None:
    run(cells, server, "--each cities --as City --on-error keep", "{{ text }}")
    assert cells.value("list(out.columns)") == ["text", "name", "size", "error"]
    assert cells.value("[str(each) for each in out.loc[0, ['name', 'size']]]") == ["Ulm", "3"]
    assert "not JSON" in cells.value("out.loc[1, 'error']")
    assert all("response_format" in body for body in bodies(server))


def test_calls_come_back_and_that_is_said_once(cells: Kernel, server: BatchServer) -> None:
    said = run(cells, server, "--each rows --tools f", "SAY {{ item }}")
    assert said.count("Calls of tools are not carried out in a batch") == 1
    tool = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}
    said = run(cells, server, f"--each rows -p 'tools={json.dumps([tool])}'", "SAY {{ item }}")
    assert said.count("Calls of tools are not carried out in a batch") == 1
    assert [body["tools"] for body in bodies(server)] == [[tool], [tool]]


@pytest.mark.parametrize("more", ["", "--batch --wait"])
def test_a_raw_prompt_names_nothing_of_the_rows(cells: Kernel, more: str) -> None:
    ran = cells.run(f"%%llm --each rows --raw {more}\nSAY {{{{ item }}}}")
    assert ran.error_name == "PromptError"
    assert "--raw sends the text as it is" in ran.error
