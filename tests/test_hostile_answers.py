"""A server whose every word is hostile, through real kernels and a real terminal: nothing of it acts in any channel."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from kernels import Kernel, Ran
from markdown_readers import ATTRIBUTES, ELEMENTS, Page, what_acts
from servers import Answer, Received, ScriptedServer, chunk, document, stream

ESC = "\x1b"
CONTROL = "\x1b]52;c;aGk=\x07\x1b[2J\x1b]8;;http://evil.example\x1b\\link\x9b31m\u202e\rover\x08"
TEX = "$\\href{javascript:alert(1)}{x}$"
EVIL = (
    "<img src=x onerror=alert(1)> ![i](http://evil.example/i.png) [a](b)[c](javascript:d) \"' "
    f'{TEX} {CONTROL} https://e.org/$"onmouseover="x$'
)
ANSWER = (
    f'{EVIL}\n\n```x" onclick="y"\n<script>z</script>\n```\n\n```mermaid\ngraph TD\n```\n\n[r]: javascript:s\n\n[r]\n'
)
NAME = '<img src=x onerror=alert(1)>"\x1b[2J'
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def pieces(text: str, **delta: Any) -> list[dict[str, Any]]:
    """Return a text in chunks of one character, so that no control sequence comes in one."""
    if delta:
        return [chunk(**{name: character}) for name in delta for character in text]
    return [chunk(character) for character in text]


def call(name: str, arguments: str) -> Answer:
    told = [{"index": 0, "id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    return stream(chunk(tool_calls=told), chunk(finish="tool_calls"))


URLS = ["javascript:alert(1)", f"https://e.org/{EVIL}", EVIL, "data:text/html,<script>alert(1)</script>"]
BESIDE = {
    "annotations": [{"type": "url_citation", "url": url, "title": EVIL, "start_index": 0} for url in URLS],
    "images": [
        {"image_url": {"url": "data:image/svg+xml;utf8,<svg onload=alert(1)><script>x</script></svg>"}},
        *({"image_url": {"url": url}} for url in (*URLS, 'data:image/"><script>alert(1)</script>;base64,AAAA')),
    ],
    "executed_tools": [{"type": EVIL, "name": EVIL, "status": EVIL, EVIL: [EVIL, {EVIL: EVIL}]}],
    EVIL: [EVIL],
}


def hostile(received: Received) -> Answer:
    """Answer as the prompt asks, and always with hostile words."""
    if received.path.endswith("/models"):
        return document({"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": NAME}]})
    body = received.json
    asked = body["messages"][-1]["content"] if body["messages"][-1]["role"] != "tool" else "answer"
    if "fail" in asked:
        return document({"error": {"message": f"Bad: {EVIL}", "type": EVIL, "code": EVIL}}, 400)
    if "page" in asked:
        return Answer([f"<html><title>{EVIL}</title>{EVIL}</html>".encode()], 500, {"content-type": "text/html"})
    if "beside" in asked:
        return stream(*pieces(ANSWER), chunk(**BESIDE), chunk(finish="stop"))
    if "typed" in asked:
        return stream(*pieces(json.dumps([{"name": EVIL, "said": EVIL}])), chunk(finish="stop"))
    if "tool" in asked:
        return call("look", json.dumps({"where": EVIL}))
    if "unknown" in asked:
        return call(NAME, EVIL)
    thoughts = pieces(EVIL, reasoning_content="") if "think" in asked else []
    if body.get("n", 1) > 1:
        both = [{"index": index, "delta": {"content": ANSWER}, "finish_reason": "stop"} for index in range(2)]
        return stream({**chunk(""), "choices": both[:1]}, {**chunk(""), "choices": both[1:]})
    return stream(*thoughts, *pieces(ANSWER), chunk(finish="stop"))


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(hostile) as server:
        yield server


@pytest.fixture(scope="module")
def kernel(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.run(f"%cd -q {tmp_path_factory.mktemp('notebook')}").check()
        kernel.run("%load_ext llm_magic").check()
        kernel.run(ADD.format(url=server.url)).check()
        kernel.run("def look(where: str) -> str:\n    '''Look.'''\n    return where * 2").check()
        yield kernel


ADD = "get_ipython()._llm_magic.registry.add('evil', 'compatible', base_url={url!r}, max_retries=0, timeout=20)"
CELLS = {
    "answer": "%%llm -m evil:m\nHi",
    "answer among lines": "%llm -m evil:m --once Hi\nprint(1)",
    "reasoning": "%%llm -m evil:m --once\nthink",
    "code": "%%llm -m evil:m --once --show code\nHi",
    "json": "%%llm -m evil:m --once --show json\nHi",
    "text": "%%llm -m evil:m --once --show text\nHi",
    "no stream": "%%llm -m evil:m --once --no-stream\nHi",
    "alternatives": "%%llm -m evil:m --once --n 2\nHi",
    "typed": "%%llm -m evil:m --once --as list[dict[str,str]]\ntyped",
    "invalid": "%%llm -m evil:m --once --as int --retries-invalid 0\ntyped",
    "tool": "%%llm -m evil:m --tools look\ntool",
    "unknown tool": "%%llm -m evil:m --tools look --once\nunknown",
    "error": "%%llm -m evil:m --once\nfail",
    "page": "%%llm -m evil:m --once\npage",
    "beside": "%%llm -m evil:m --once\nbeside",
    "beside, among lines": "%llm -m evil:m --once beside\nprint(1)",
    "beside, as text": "%%llm -m evil:m --once --show text\nbeside",
    "images": "print(_llm.images)\n_llm.images[0]",
    "next cell": "%%llm -m evil:m --once --code\nHi",
    "models": "%llm_models evil",
    "provider": "%llm_provider test evil",
    "first model": "%%llm -m evil: --once\nHi",
    "chat": "%llm_chat show",
    "chats": "%llm_chat list",
    "usage": "%llm_usage",
    "dry run": f"evil = {EVIL!r}\n%llm -m evil:m --dry-run {{{{ evil }}}}",
    "config": "%llm_config",
    "listing": "%llm_picker --list",
    "response": "_llm",
    "whole traceback": "%%llm -m evil:m --once\nfail\n",
}
OURS = {"figure", "figcaption", "button"}


def acts_in_html(html: str) -> list[str]:
    """Return what a page of ours may not have: `style` is ours where it loads nothing."""
    found = []

    class Reader(Page):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ELEMENTS | OURS:
                found.append(tag)
            found.extend(
                f"{tag} {name}={value}"
                for name, value in attrs
                if name not in ATTRIBUTES | {"scope", "role", "aria-label"} or "url(" in (value or "")
            )

    Reader().feed(html)
    return found + re.findall(r"\\href\{", html)


def check(ran: Ran) -> None:
    shown = 0
    for message in ran.messages:  # repaints, too
        data = message["content"].get("data", {})
        for text in (data.get("text/plain", ""), data.get("text/html", ""), data.get("text/markdown", "")):
            assert CONTROLS.search(text) is None, repr(text)
        assert acts_in_html(data.get("text/html", "")) == []
        assert what_acts(data.get("text/markdown", "")) == {}
        if message["msg_type"] == "stream":
            assert CONTROLS.search(message["content"]["text"]) is None
        shown += len(data)
    for output in ran.outputs:
        if output["output_type"] == "error":
            words = "\n".join([output["ename"], output["evalue"], *output["traceback"]])
            assert CONTROLS.search(re.sub(r"\x1b\[[0-9;]*m", "", words) if "<module>" in words else words) is None
            shown += 1
        shown += output["output_type"] == "stream"
    assert shown


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_nothing_acts_in_any_channel(kernel: Kernel, cell: str) -> None:
    check(kernel.run(cell))


def test_the_response_keeps_the_exact_text(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m evil:m --once -o said\nHi").check()
    assert kernel.value("said") == ANSWER
    plain = ran.outputs[0]["data"]["text/plain"]
    assert plain != ANSWER
    assert "␛]52;c;aGk=␇" in plain
    assert "{U+202E}" in plain


def without_mark(page: str) -> str:
    """Return an exported page without the comment of ours by which a later export knows it."""
    rest, comment, mark = page.rpartition("<!-- exported by llm_magic: ")
    assert comment
    assert re.fullmatch(r"[0-9a-f]{64} -->\n", mark)
    return rest


def test_exports_hold_nothing_that_acts(kernel: Kernel) -> None:
    kernel.run("%%llm -m evil:m\nHi").check()
    kernel.run("%%llm -m evil:m\nbeside").check()
    for name in ("chat.md", "chat.ipynb"):
        kernel.run(f"%llm_chat export {name}").check()
    folder = Path(kernel.value("__import__('os').getcwd()"))
    page = (folder / "chat.md").read_text(encoding="utf-8")
    assert "evil.example" in page
    assert what_acts(without_mark(page)) == {}
    for cell in json.loads((folder / "chat.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            assert what_acts("".join(cell["source"])) == {}
        for output in cell.get("outputs", []):
            assert what_acts(output["data"].get("text/markdown", "")) == {}
            assert CONTROLS.search(output["data"].get("text/plain", "")) is None


def test_messages_of_an_exported_page_cannot_act_together(kernel: Kernel) -> None:
    parts = ["So:\n\n```\nopen", "[foo", "```html\nbar]: x\n<img src=x onerror=y>\n```"]
    answers = [stream(chunk(part), chunk(finish="stop")) for part in parts]
    with ScriptedServer(*answers) as server:
        kernel.run(ADD.replace("evil", "parts").format(url=server.url)).check()
        for _ in parts:
            kernel.run("%%llm -m parts:m -c parts\nHi").check()
    kernel.run("%llm_chat export parts.md parts").check()
    page = (Path(kernel.value("__import__('os').getcwd()")) / "parts.md").read_text(encoding="utf-8")
    assert "bar" in page
    assert what_acts(without_mark(page)) == {}


def test_images_load_where_the_user_wants_it(kernel: Kernel) -> None:
    with ScriptedServer(stream(chunk("![i](https://e.org/i.png)\n\n```mermaid\nA\n```"), chunk(finish="stop"))) as web:
        kernel.run(ADD.replace("evil", "web").format(url=web.url)).check()
        ran = kernel.run("%%llm -m web:m --once\nHi").check()
        assert ran.of_type("text/markdown") == ["[i](https://e.org/i.png)\n\n```\nA\n```"]
        kernel.run("%config LLMMagics.external_images = True").check()
        ran = kernel.run("%%llm -m web:m --once\nHi").check()
        assert ran.of_type("text/markdown") == ["![i](https://e.org/i.png)\n\n```mermaid\nA\n```"]
        kernel.run("%config LLMMagics.external_images = False").check()


SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[>=]|\r(?=\n)|\r\x1b|\r$")
OBEYED = [f"{ESC}]52", f"{ESC}[2J", f"{ESC}]8;", "\x07", "\x9b", "\u202e", "\rover", "\x08"]


@pytest.mark.parametrize("prompt", ["--simple-prompt"])
def test_no_control_sequence_reaches_a_terminal(server: ScriptedServer, tmp_path: Path, prompt: str) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--no-banner", "--colors=nocolor", prompt, "--no-confirm-exit"],
        dimensions=(40, 100),
        timeout=60,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    asked = "%llm -m evil:m --once "
    lines = [
        "%load_ext llm_magic",
        ADD.format(url=server.url),
        'exec(\'def look(where: str) -> str:\\n    """Look."""\\n    return where * 2\')',
    ]
    shown = [
        f"{asked}Hi",
        f"{asked}think",
        f"{asked}beside",
        f"{asked}--show text Hi",
        f"{asked}--show code Hi",
        f"{asked}--n 2 Hi",
        f"{asked}--as list[dict[str,str]] typed",
        "%llm -m evil:m --tools look --once tool",
        f"{asked}fail",
        "%tb",
        f"{asked}page",
        "_llm",
        "%llm_models evil",
        "%llm_picker --list",
        f"{asked}-b Hi",
    ]
    try:
        child.expect_exact("In [1]: ")
        for number, line in enumerate([*lines, *shown], 2):
            child.sendline(line)
            child.expect_exact(f"In [{number}]: ")
            came = child.before.split("\n", 1)[-1]
            assert [sequence for sequence in OBEYED if sequence in came] == [], (line, came)
            if line in shown[:4]:
                assert "␛]52" in came, (line, came)
    finally:
        child.close(force=True)


def test_no_control_sequence_reaches_a_pipe(server: ScriptedServer, tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "cells.ipy"
    script.write_text(
        f"%load_ext llm_magic\n{ADD.format(url=server.url)}\n"
        "%llm -m evil:m --once think\n%llm -m evil:m --once beside\n"
    )
    ran = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)],
        capture_output=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert CONTROLS.search(ran.stdout.decode()) is None
    assert CONTROLS.search(ran.stderr.decode()) is None
    assert "␛]52" in ran.stdout.decode()
