"""What a cell says while it waits, in a real kernel: a failed attempt, a slow one, a fallback."""

import re

from kernels import Kernel, Ran
from servers import Answer, ScriptedServer, chunk, document, stream


def said(ran: Ran) -> list[str]:
    """Return the lines that were painted, in their order, whether a later one replaced them or not."""
    kinds = {"display_data", "update_display_data"}
    return [
        message["content"]["data"]["text/plain"]
        for message in ran.messages
        if message["msg_type"] in kinds and "text/plain" in message["content"]["data"]
    ]


def add(kernel: Kernel, name: str, server: ScriptedServer, retries: int) -> None:
    registry = "get_ipython()._llm_magic.registry"
    kernel.run(f"{registry}.add({name!r}, 'compatible', base_url={server.url!r}, max_retries={retries})").check()


ANSWER = stream(chunk("Hello."), chunk(finish="stop"))


def test_a_retry_is_announced_with_the_time_that_the_server_asked_for(kernel: Kernel) -> None:
    with ScriptedServer(document({"error": {"message": "slow down"}}, 429, {"retry-after": "2"}), ANSWER) as server:
        add(kernel, "busy", server, 1)
        ran = kernel.run("%%llm -m busy:m --once\nHi").check()
    lines = said(ran)
    assert lines[0] == "busy: 429, trying again in 2 s"
    assert lines[-2] == "Hello."
    assert ran.outputs[0]["data"]["text/markdown"] == "Hello."
    assert not any("429" in str(output["data"]) for output in ran.outputs)  # the line has given way


def test_a_slow_answer_after_a_failed_attempt_says_both(kernel: Kernel) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    slow = Answer([2.5, head, *ANSWER.steps], raw=True)
    with ScriptedServer(document({"error": {"message": "busy"}}, 503, {"retry-after-ms": "1"}), slow) as server:
        add(kernel, "slow", server, 1)
        lines = said(kernel.run("%%llm -m slow:m --once\nHi").check())
    assert lines[0] == "slow: 503, trying again"
    assert re.fullmatch(r"waiting for slow:m: [12] s \(trying again after 503\)", lines[1])


def test_no_retry_is_announced_where_none_follows(kernel: Kernel) -> None:
    with ScriptedServer(document({"error": {"message": "busy"}}, 503)) as server:
        add(kernel, "down", server, 0)
        ran = kernel.run("%%llm -m down:m --once\nHi")
    assert (ran.error_name, said(ran)) == ("ServerFailedError", [])


def test_a_fallback_is_what_is_waited_for(kernel: Kernel) -> None:
    down = document({"error": {"message": "busy"}}, 503)
    with ScriptedServer(down) as first, ScriptedServer(Answer([2.5, *ANSWER.steps])) as second:
        add(kernel, "first", first, 0)
        add(kernel, "second", second, 0)
        kernel.run(
            "%config ProviderRegistry.aliases = {'both': {'model': 'first:m', 'fallbacks': ['second:m']}}"
        ).check()
        lines = said(kernel.run("%%llm -m both --once\nHi").check())
    assert re.fullmatch(r"both failed \(first:m answered 503: busy\); asking the next model\.", lines[0])
    assert re.fullmatch(r"waiting for second:m: [12] s", lines[1])
