"""Citations, images and items of an answer at each door: the cell, the line, `LLM`, a terminal, a pipe, no screen."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel, Ran
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display import answer
from llm_magic.draft import Draft
from llm_magic.errors import InputError, InvalidValueError
from llm_magic.events import CitationFound, ImageReceived, ItemReceived, TextDelta
from llm_magic.messages import Citation, Image
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
SEARCH = {"id": "ws", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "rain"}}
CITED = {"type": "url_citation", "url": "https://e.example/rain", "title": "Rain", "start_index": 0, "end_index": 2}
MADE = {"id": "ig", "type": "image_generation_call", "status": "completed", "result": base64.b64encode(PNG).decode()}
APPROVAL = {"id": "ap", "type": "mcp_approval_request", "server_label": "s", "name": "drop", "arguments": "{}"}


def message(text: str, *annotations: object) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text, "annotations": [*annotations]}]}


def made(data: bytes, kind: str) -> dict[str, Any]:
    return {"image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


OUTPUTS: dict[str, list[dict[str, Any]]] = {
    "search": [SEARCH, message("It rains.", CITED)],
    "typed": [SEARCH, message("3", CITED)],
    "invalid": [SEARCH, message("three", CITED)],
    "draw": [MADE],
    "both": [MADE, message("Here.")],
    "approve": [APPROVAL],
}


def endpoint(received: Received) -> Answer:
    body = received.json
    if received.path.endswith("/responses"):
        asked = next((word for word in OUTPUTS if word in str(body["input"][-1]["content"])), "invalid")
        whole = {"object": "response", "status": "completed", "model": "m", "output": OUTPUTS[asked]}
        if not body.get("stream"):
            return document(whole)
        texts = [part["text"] for each in OUTPUTS[asked] for part in each.get("content", ())]
        deltas = [
            {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": t} for t in texts
        ]
        return stream(*deltas, {"type": "response.completed", "response": whole}, done=False)
    asked = str(body["messages"][-1]["content"])
    if "images" in asked:
        elsewhere = {"image_url": {"url": "https://e.example/i.png"}}
        return stream(
            chunk(images=[made(PNG, "image/png"), made(SVG, "image/svg+xml"), elsewhere]), chunk(finish="stop")
        )
    if "ten thousand" in asked:
        return stream(
            {**chunk("a"), "citations": [f"https://e.example/{n}" for n in range(10_000)]}, chunk(finish="stop")
        )
    if "n answers" in asked:
        choices = [
            {
                "index": n,
                "message": {"content": "a", "annotations": [{**CITED, "url": f"https://e.example/{n}"}]},
                "finish_reason": "stop",
            }
            for n in range(2)
        ]
        return document({"choices": choices, "model": "m"})
    return stream(chunk("ok"), chunk(finish="stop"))


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(endpoint) as server:
        yield server


ADD = (
    "get_ipython()._llm_magic.registry.add('r', 'compatible', base_url={url!r}, max_retries=0, api='responses')\n"
    "get_ipython()._llm_magic.registry.add('c', 'compatible', base_url={url!r}, max_retries=0)"
)


@pytest.fixture(scope="module")
def kernel(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.run(f"%cd -q {tmp_path_factory.mktemp('notebook')}\n%load_ext llm_magic").check()
        kernel.run(ADD.format(url=server.url)).check()
        yield kernel


LINK = '<li><a href="https://e.example/rain" target="_blank" rel="noopener noreferrer">Rain</a> (e.example)</li>'


def check_search(ran: Ran) -> None:
    items, answer, sources, footer = ran.check().outputs
    assert "<summary" in items["data"]["text/html"]
    assert "web_search_call: rain (completed)" in items["data"]["text/html"]
    assert items["data"]["text/plain"].splitlines()[0] == "web_search_call: rain (completed)"
    assert answer["data"]["text/plain"] == "It rains."
    assert sources["data"]["text/plain"] == "1 source\n    1. Rain: https://e.example/rain"
    assert sources["data"]["text/markdown"] == "1 source:\n\n1. [Rain](https://e.example/rain) (e.example)\n"
    assert sources["data"]["text/html"].startswith("<details><summary")
    assert LINK in sources["data"]["text/html"]
    assert footer["data"]["text/plain"].startswith("r:m · ")


@pytest.mark.parametrize("options", ["", "--no-stream", "--show text", "--show code", "--show json"])
def test_a_cell_shows_sources_and_items_folded(kernel: Kernel, options: str) -> None:
    ran = kernel.run(f"%%llm -m r:m --once {options}\nsearch")
    check_search(ran)
    assert kernel.value("_llm.text") == "It rains."
    assert kernel.value("[(c.url, c.title, c.start, c.end) for c in _llm.citations]") == [
        ("https://e.example/rain", "Rain", 0, 2)
    ]
    assert kernel.value("_llm.items") == (SEARCH,)


def test_a_line_does(kernel: Kernel) -> None:
    ran = kernel.run("%llm -m r:m --once search\nprint('after')").check()
    shown = [output["data"]["text/plain"] for output in ran.outputs if "data" in output]
    assert "It rains." in shown
    assert "1 source\n    1. Rain: https://e.example/rain" in shown
    assert any(each.startswith("web_search_call: rain (completed)\n") for each in shown)


def test_nothing_is_shown_where_nothing_is_asked_for(kernel: Kernel) -> None:
    for asked in ("search", "draw", "approve"):
        assert kernel.run(f"%%llm -m r:m --once --show none\n{asked}").check().outputs == []
    assert kernel.value("_llm.items") == (APPROVAL,)


def test_a_typed_answer_has_them_too(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m r:m --once --as int -o number\ntyped").check()
    assert kernel.value("(number, _llm.citations[0].url)") == (3, "https://e.example/rain")
    assert ran.of_type("text/plain")[-2] == "1 source\n    1. Rain: https://e.example/rain"


def test_an_image_is_an_output(kernel: Kernel) -> None:
    for cell in ("%%llm -m r:m --once\ndraw", "%%llm -m r:m --once --no-stream\ndraw", "%llm -m r:m --once draw"):
        ran = kernel.run(cell).check()
        (image,) = [output for output in ran.outputs if "image/png" in output.get("data", {})]
        assert base64.b64decode(image["data"]["image/png"]) == PNG
        assert image["data"]["text/plain"] == f"Image 1 (image/png, 1 × 1 pixels, {len(PNG)} bytes)"
        assert image["metadata"]["llm_magic"]["finish_reason"] == "stop"
        assert base64.b64encode(PNG).decode() not in json.dumps(
            [output for output in ran.outputs if output is not image]
        )
    assert kernel.value("(_llm.text, len(_llm.images), _llm.items[0]['type'])") == ("", 1, "image_generation_call")
    kernel.run("path = _llm.images[0].save('made.png')").check()
    assert kernel.value("path.read_bytes()") == PNG
    (shown,) = kernel.run("_llm.images[0]").check().of_type("image/png")
    assert base64.b64decode(shown) == PNG


def test_an_image_stands_below_its_text(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m r:m --once\nboth").check()
    answer, image = [o for o in ran.outputs if "text/markdown" in o["data"] or "image/png" in o["data"]]
    assert answer["data"]["text/plain"] == "Here."
    assert "llm_magic" in answer["metadata"]
    assert "image/png" in image["data"]
    assert "llm_magic" not in image["metadata"]


def test_an_image_made_is_an_image_to_send(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm -m r:m --once\ndraw").check()
    kernel.run("picture = _llm.images[0]").check()
    kernel.run("%%llm -m c:m --once -i picture\nWhat is it?").check()
    (_, sent) = server.requests[-1].json["messages"][-1]["content"]
    assert sent["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def test_an_svg_and_an_image_of_the_web_are_not_shown(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m c:m --once\nimages").check()
    png, svg, web, _ = ran.outputs
    assert "image/png" in png["data"]
    assert set(svg["data"]) == {"text/plain", "text/html"}
    assert svg["data"]["text/plain"] == (
        f"Image 2 (image/svg+xml, {len(SVG)} bytes): not shown, as it may hold scripts; "
        '_llm.images[1].save("image.svg")'
    )
    assert web["data"]["text/plain"] == "Image 3: https://e.example/i.png"
    assert "<img" not in json.dumps([output["data"] for output in ran.outputs])
    assert '<a href="https://e.example/i.png"' in web["data"]["text/html"]
    kernel.run("%config LLMMagics.external_images = True").check()
    ran = kernel.run("%%llm -m c:m --once\nimages").check()
    kernel.run("%config LLMMagics.external_images = False").check()
    assert ran.of_type("text/markdown") == ["![image](https://e.example/i.png)"]
    kernel.run("svg = _llm.images[1]").check()
    assert set(kernel.run("svg").check().outputs[0]["data"]) == {"text/plain"}


def test_an_approval_that_is_asked_for_is_an_answer(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m r:m --once\napprove").check()
    first = ran.of_type("text/plain")[0].splitlines()[0]
    assert first == "mcp_approval_request: s, drop (asks for an approval, which cannot be given here)"


def test_ten_thousand_sources_are_a_hundred_lines(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m c:m --once\nten thousand").check()
    plain = ran.of_type("text/plain")[1]
    assert plain.splitlines()[0] == "10,000 sources"
    assert plain.splitlines()[-1] == "    … and 9,900 more: _llm.citations"
    assert len(plain.splitlines()) == 102
    assert kernel.value("len(_llm.citations)") == 10_000


def test_several_answers(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m c:m --once --n 2\nn answers").check()
    assert "2 sources" in ran.of_type("text/plain")[1]
    assert kernel.value("[[c.url for c in a.citations] for a in _llm.alternatives]") == [
        ["https://e.example/0"], ["https://e.example/1"],
    ]  # fmt: skip


def test_a_conversation_sends_the_text_and_exports_the_sources(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm -m r:m -c rain\nsearch").check()
    kernel.run("%%llm -m r:m -c rain\ndraw").check()
    kernel.run("%%llm -m r:m -c rain\nboth").check()

    def said(text: str) -> dict[str, Any]:
        return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}

    assert server.requests[-1].json["input"] == [
        {"role": "user", "content": "search"},
        said("It rains."),
        {"role": "user", "content": "draw"},
        said("[image]"),
        {"role": "user", "content": "both"},
    ]
    for name in ("rain.md", "rain.ipynb", "rain.json"):
        kernel.run(f"%llm_chat export {name} rain").check()
    folder = Path(kernel.value("__import__('os').getcwd()"))
    assert "Sources\n\n1. [Rain](https://e.example/rain) (e.example)\n" in (folder / "rain.md").read_text()
    cells = json.loads((folder / "rain.ipynb").read_text())["cells"]
    assert "[Rain](https://e.example/rain)" in cells[1]["outputs"][0]["data"]["text/markdown"]
    message = json.loads((folder / "rain.json").read_text())["messages"][1]
    assert message["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {"url": "https://e.example/rain", "title": "Rain", "start_index": 0, "end_index": 2},
        }
    ]


# From Python


@pytest.fixture
def session(server: ScriptedServer) -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    session.registry.add("r", "compatible", base_url=server.url, max_retries=0, api="responses")
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.mark.usefixtures("session")
def test_from_python() -> None:
    response = LLM("r:m").ask("search")
    assert response.citations == (Citation("https://e.example/rain", "Rain", 0, 2),)
    assert response.items == (SEARCH,)
    assert LLM("r:m").ask("draw").images == (Image(PNG, "image/png"),)
    assert repr(LLM("r:m").ask("draw").images[0]) == f"Image(image/png, {len(PNG)} bytes)"


@pytest.mark.usefixtures("session")
def test_a_stream_yields_them() -> None:
    async def kinds(prompt: str) -> list[object]:
        beside = CitationFound | ImageReceived | ItemReceived | TextDelta
        return [event async for event in LLM("r:m").stream(prompt) if isinstance(event, beside)]

    assert asyncio.run(kinds("search")) == [
        TextDelta("It rains."),
        ItemReceived(0, SEARCH),
        CitationFound(Citation("https://e.example/rain", "Rain", 0, 2)),
    ]
    called = {name: value for name, value in MADE.items() if name != "result"}
    assert asyncio.run(kinds("draw")) == [ImageReceived(Image(PNG, "image/png")), ItemReceived(0, called)]


@pytest.mark.usefixtures("session")
def test_asking_again_does_not_double() -> None:
    with pytest.raises(InvalidValueError) as caught:
        LLM("r:m").ask("invalid", output_type=int, retries_invalid=2)
    response = caught.value.response
    assert response is not None
    assert len(response.citations) == len(response.items) == 1


def test_all_rounds_of_tools(session: Session) -> None:
    def look(where: str) -> str:
        """Look."""
        return where

    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": '{"where": "x"}'}
    other = {**CITED, "url": "https://e.example/other"}
    rounds = [
        [SEARCH, message("I look.", CITED), call],
        [{**SEARCH, "id": "ws2"}, MADE, message("It rains.", CITED, other)],
    ]
    answers = [document({"object": "response", "status": "completed", "output": each}) for each in rounds]
    with ScriptedServer(*answers) as server:
        session.registry.add("t", "compatible", base_url=server.url, max_retries=0, api="responses")
        response = LLM("t:m").ask("Hi", tools=[look])
    assert [(each.url[18:], each.start) for each in response.citations] == [("rain", None), ("rain", 0), ("other", 0)]
    assert [item["id"] for item in response.items] == ["ws", "ws2", "ig"]
    assert len(response.images) == 1


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not here.*\n.*'https://e\.example/i\.png'"):
        Image(url="https://e.example/i.png").save(tmp_path / "i.png")
    for path in (tmp_path, tmp_path / "no" / "i.png", "a\0b"):
        with pytest.raises(InputError, match=r"cannot be written: .+\nName a file"):
            Image(PNG).save(path)


def test_what_goes_on_is_said_until_it_ends() -> None:
    draft = Draft()
    draft.add(ItemReceived(0, {**SEARCH, "status": "searching"}))
    assert answer.called(draft) == "web_search_call: rain (searching) …"
    draft.add(ItemReceived(0, SEARCH))
    assert answer.called(draft) == ""


# Without a front end


def test_in_a_pipe(server: ScriptedServer, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    script = tmp_path / "cells.ipy"
    asked = "\n".join(f"%llm -m r:m --once {each}" for each in ("search", "draw", "--show none search"))
    script.write_text(f"%load_ext llm_magic\n{ADD.format(url=server.url)}\n{asked}\n")
    ran = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)],
        capture_output=True,
        timeout=120,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert ran.stdout == "It rains.\n"
    said = [line for line in ran.stderr.splitlines() if not line.startswith("r:m · ")]
    assert said == [
        "web_search_call: rain (completed)",
        "1 source",
        "    1. Rain: https://e.example/rain",
        f'Image 1 (image/png, 1 × 1 pixels, {len(PNG)} bytes): _llm.images[0].save("image.png")',
        "image_generation_call (completed)",
    ]


def test_in_a_terminal() -> None:
    import io

    from rich.console import Console

    from llm_magic.display.terminal import TerminalView

    file = io.StringIO()
    view = TerminalView("markdown", 20, console=Console(file=file, force_terminal=True, width=80, color_system=None))
    draft = Draft()
    view.begin("m")
    for event in (
        ItemReceived(0, {**SEARCH, "status": "\x1b[2J"}),
        TextDelta("It rains."),
        CitationFound(Citation("javascript:alert(1)", "\x1b]52;c;aGk=\x07")),
        ImageReceived(Image(PNG, "image/png")),
    ):
        draft.add(event)
        view.update(draft)
    view.finish(draft.response(finish_reason="stop"), "the footer")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "It rains." in shown
    assert "web_search_call: rain (␛[2J)" in shown
    assert "1. ␛]52;c;aGk=␇: javascript:alert(1)" in shown
    assert 'Image 1 (image/png, 1 × 1 pixels, 70 bytes): _llm.images[0].save("image.png")' in " ".join(shown.split())


def test_a_notebook_that_a_program_executes_keeps_them(server: ScriptedServer, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    nbconvert = pytest.importorskip("nbconvert", reason="needs nbconvert: the extra `demo`")
    sources = ["%load_ext llm_magic", ADD.format(url=server.url), "%%llm -m r:m\nsearch", "%%llm -m r:m\ndraw"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.validate(book)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(book)
    assert re.search(r'<li><a href="https://e\.example/rain"[^>]*>Rain</a> \(e\.example\)</li>', page)
    assert "web_search_call: rain (completed)" in page
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}' in page.replace("\n", "")
