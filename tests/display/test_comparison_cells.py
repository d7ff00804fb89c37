"""Several models in cells of a real kernel: what is saved, wherever it runs and answers come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import Answer, Received, ScriptedServer, chunk, stream

TEXT = "# Title\n\nLet \\(a\\) be.\n\n```python\nx = 1\n```\n"
HTML = ["text/html", "text/markdown", "text/plain"]


def answer(request: Received) -> Answer:
    steps: list[Any] = []
    for at in range(0, len(TEXT), 8):
        steps += [chunk(TEXT[at : at + 8]), 0.03]
    return stream(chunk(reasoning_content="Hm."), *steps, chunk(f"By {request.json['model']}."), chunk(finish="stop"))


@pytest.fixture(scope="module", autouse=True)
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        yield server


def kinds(ran: Ran) -> list[str]:
    return [each["msg_type"] for each in ran.messages if each["msg_type"] in {"display_data", "update_display_data"}]


def saved(ran: Ran) -> str:
    """Return the outputs of a cell without what differs from run to run: times, and that they are recorded."""
    outputs = json.loads(json.dumps([output for output in ran.outputs if output["output_type"] == "display_data"]))
    for output in outputs:
        for about in output["metadata"]["llm_magic"]["models"].values():
            about.pop("recorded", None)
    return json.dumps(outputs)


def _anew(kernel: Kernel, server: ScriptedServer, code: str) -> Ran:
    """Run a cell as in a session of its own, which replays what an earlier one has recorded."""
    kernel.run("%reload_ext llm_magic").check()
    kernel.run("%config LLMMagics.record = 'once'").check()
    kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
    return kernel.run(code).check()


@pytest.mark.usefixtures("folder")
def test_it_streams_into_one_output_and_a_replay_leaves_the_same(kernel: Kernel, server: ScriptedServer) -> None:
    try:
        ran, again = (_anew(kernel, server, "%%llm -m s:a,s:b --once\nx") for _ in range(2))
    finally:
        kernel.run("%config LLMMagics.record = ''")
    assert len(kinds(ran)) >= 3
    assert kinds(again) == ["display_data"]
    assert saved(again) == saved(ran)
    (output,) = [each for each in ran.outputs if each["output_type"] == "display_data"]
    assert sorted(output["data"]) == HTML
    assert output["data"]["text/html"].count("Reasoning (1 word)") == 2
    assert "By b." in output["data"]["text/markdown"].split("### s:b")[1]
    assert all(about["recorded"] for about in again.outputs[0]["metadata"]["llm_magic"]["models"].values())


def test_a_program_that_executes_the_notebook_gets_the_end_alone(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m s:a,s:b --once\nx", allow_stdin=False).check()
    assert kinds(ran) == ["display_data"]
    assert sorted(ran.outputs[0]["data"]) == HTML


def test_among_other_lines_and_captured(kernel: Kernel) -> None:
    ran = kernel.run("print('before')\nfound = %llm -m s:a,s:b --once x").check()
    assert [output["output_type"] for output in ran.outputs] == ["stream", "display_data"]
    ran = kernel.run("%%capture caught\n%llm -m s:a,s:b --once x").check()
    assert ran.outputs == []
    assert kernel.value("[sorted(each.data) for each in caught.outputs][:1]") == [HTML]


def test_in_the_background_it_stays_in_its_own_cell(kernel: Kernel) -> None:
    job = kernel.run("job = %llm -b -m s:a,s:b --once x").check()
    ran = kernel.run("len((await job).responses)").check()
    assert [output["data"]["text/plain"] for output in ran.outputs] == ["2"]
    assert "By b." in kernel.outputs_of(job.request, "text/html")[-1]


@pytest.mark.parametrize("exporter", ["HTMLExporter", "MarkdownExporter"])
def test_an_exported_notebook_shows_the_columns(kernel: Kernel, exporter: str) -> None:
    import nbconvert
    import nbformat

    outputs = kernel.run("%%llm -m s:a,s:b --once\nx", allow_stdin=False).check().outputs
    html = outputs[0]["data"]["text/html"]
    cell = nbformat.v4.new_code_cell("%%llm -m s:a,s:b --once\nx", outputs=[nbformat.from_dict(outputs[0])])
    page, _ = getattr(nbconvert, exporter)().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert page.count("<section") == html.count("<section") == 2
    assert page.count("x = 1") == 2
    assert ("s:a" in page, "By b." in page) == (True, True)
