"""`-m a,b` in a kernel: a cell that is run again, one that nobody looks at, an interrupt, MCP servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from echo import echo
from kernels import Kernel
from servers import HANG, ScriptedServer, chunk, stream


def add(kernel: Kernel, name: str, server: ScriptedServer) -> None:
    kernel.run(
        f"get_ipython()._llm_magic.registry.add({name!r}, 'compatible', base_url={server.url!r}, max_retries=0)"
    ).check()


def test_a_cell_run_again_for_several_models_leaves_the_conversation(kernel: Kernel) -> None:
    with echo() as server:
        add(kernel, "e", server)
        kernel.run("%%llm -m e:a -c story\nSAY First", "one").check()
        kernel.run("%%llm -m e:a -c story\nSAY Second", "two").check()
        kernel.run("%%llm -m e:a,e:b -c story\nSAY Second", "two").check()
        ran = kernel.run("%%llm -m e:a -c story\nSAY Third", "three").check()
    assert ran.of_type("text/markdown") == ["Third"]
    sent = [[message["content"] for message in request.json["messages"]] for request in server.requests]
    assert sent[2] == sent[3] == ["SAY First", "First", "SAY Second"]
    assert sent[4] == ["SAY First", "First", "SAY Third"]


def test_where_nobody_looks_it_runs_in_the_foreground_and_confirms_nothing(kernel: Kernel) -> None:
    kernel.run("def f(x: int) -> int:\n    'Add one.'\n    return x + 1").check()
    with echo() as server:
        add(kernel, "e", server)
        ran = kernel.run("%%llm -m e:a,e:b --once -b -o job\nSAY Hi", allow_stdin=False).check()
        assert kernel.value("job") == {"e:a": "Hi", "e:b": "Hi"}
        shown = "".join(str(output.get("data", output)) for output in ran.outputs)
        assert shown.count("ran in the foreground") >= 1
        sent = len(server.requests)
        ran = kernel.run("%%llm -m e:a,e:b --once --tools f --confirm\nHi", allow_stdin=False)
        assert (ran.error_name, len(server.requests)) == ("OptionError", sent)
        assert "allows no input" in ran.error


def test_a_cell_run_again_is_answered_from_its_recording(kernel: Kernel, folder: Path) -> None:
    with echo() as server:
        add(kernel, "e", server)
        for _ in range(2):
            kernel.run("%%llm -m e:a,e:b --once --record once\nSAY Hi", "recorded").check()
        assert (len(server.requests), kernel.value("_llm.recorded")) == (2, True)
    assert [file.name for file in folder.glob("*.jsonl")] != []


def test_an_interrupt_closes_all_requests(kernel: Kernel) -> None:
    hangs = stream(chunk("Some"), HANG, done=False)
    with ScriptedServer(hangs) as one, ScriptedServer(hangs) as two:
        add(kernel, "one", one)
        add(kernel, "two", two)
        seen: list[bool] = []

        def stop(message: dict[str, object]) -> None:
            if not seen and str(message["content"]).count("Some") >= 2:
                seen.append(True)
                kernel.interrupt()

        ran = kernel.run("%%llm -m one:m,two:m --once\nHi", on_message=stop, timeout=20)
        assert [server.requests[0].left.wait(5) for server in (one, two)] == [True, True]
    assert ran.error_name == "ComparisonInterrupted"
    assert kernel.value("{name: response.text for name, response in _llm.responses.items()}") == {
        "one:m": "Some",
        "two:m": "Some",
    }


def test_a_background_cell_is_a_job_and_others_run_meanwhile(kernel: Kernel) -> None:
    with echo() as server:
        add(kernel, "e", server)
        kernel.run("job = get_ipython().run_cell_magic('llm', '-m e:a,e:b --once -b -o later', 'SAY Hi')").check()
        assert kernel.value("(type(job).__name__, job.result(20).value, later)") == (
            "Job",
            {"e:a": "Hi", "e:b": "Hi"},
            {"e:a": "Hi", "e:b": "Hi"},
        )


@pytest.mark.parametrize("line", ["%%llm_embed -m e:a,e:b\nx", "%%llm_embed -m e:a -m e:b\nx"])
def test_embeddings_are_of_one_model(kernel: Kernel, line: str) -> None:
    with echo() as server:
        add(kernel, "e", server)
        ran = kernel.run(line)
        assert (ran.error_name, server.requests) == ("OptionError", [])
    assert "'e:a,e:b' names several models, where one can be asked." in ran.error
