"""Whole stories in a real kernel, told by what a server received."""

import time
from collections.abc import Iterator

import pytest
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, chunk, stream


def echo(request: Received) -> Answer:
    """Answer with the number of messages that came."""
    return stream(chunk(f"answer to {request.json['messages'][-1]['content']}"), chunk(finish="stop"))


@pytest.fixture
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'").check()
        yield server


def sent(server: ScriptedServer) -> list[str]:
    """Return the contents of the messages last received."""
    return [message["content"] for message in server.requests[-1].json["messages"]]


def test_three_cells_and_one_run_again(kernel: Kernel, server: ScriptedServer) -> None:
    for cell in "abc":
        kernel.run(f"%%llm\n{cell}", cell_id=f"cell-{cell}").check()
    assert sent(server) == ["a", "answer to a", "b", "answer to b", "c"]
    kernel.run("%%llm\nA", cell_id="cell-a").check()
    assert sent(server) == ["A"]
    kernel.run("%%llm\nc", cell_id="cell-c").check()
    assert sent(server) == ["A", "answer to A", "b", "answer to b", "c"]
    assert kernel.value("_llm.history_turns") == 2


def test_two_prompts_of_one_cell_are_two_turns(kernel: Kernel, server: ScriptedServer) -> None:
    for _ in range(2):
        kernel.run("x = %llm one\ny = %llm two", cell_id="cell").check()
        assert sent(server) == ["one", "answer to one", "two"]


def test_once_neither_sends_nor_keeps(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm\na", cell_id="a").check()
    kernel.run("%%llm --once\nb", cell_id="b").check()
    assert sent(server) == ["b"]
    kernel.run("%%llm\nc", cell_id="c").check()
    assert sent(server) == ["a", "answer to a", "c"]


def test_a_template_over_the_variables(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("rows = ['x{{ y }}', 'z']").check()
    kernel.run('%%llm --once\n{% for row in rows %}- {{ row }}\n{% endfor %}{"a": 1} ${HOME} \\frac{a}{b}').check()
    assert sent(server) == ['- x{{ y }}\n- z\n{"a": 1} ${HOME} \\frac{a}{b}']


def test_comments_indentation_and_windows_line_ends(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("# why\r\n\r\n  %%llm --once\r\nünï 🎉 שלום\r\nsecond").check()
    assert sent(server) == ["ünï 🎉 שלום\nsecond"] or sent(server) == ["ünï 🎉 שלום\r\nsecond"]


def test_the_option_line_expands_as_ipython_users_know(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("heat = 0.25; who = 'a pirate'").check()
    kernel.run("""%%llm --once -t $heat -s 'Be {who} $who' -p {"a": 1}=2 -p x={heat}\nHi""")
    kernel.run("""%%llm --once -t $heat -s 'Be {who} $who' -p x={heat} -p y={"heat":1}\nHi""").check()
    body = server.requests[-1].json
    assert body["temperature"] == 0.25
    assert body["messages"][0]["content"] == "Be {who} $who"
    assert (body["x"], body["y"]) == (0.25, {"heat": 1})


def test_code_goes_into_the_next_cell(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [stream(chunk("Here:\n```python\nx = 1\n```\n"), chunk(finish="stop"))]
    request = kernel.start("%%llm --code --once\nWrite code.")
    kernel.collect(request)
    assert kernel.last_reply["payload"] == [{"source": "set_next_input", "text": "x = 1", "replace": False}]


WHOLE = stream(chunk("Here:\n```python\nx = 1\n```\n"), chunk(finish="stop"))
NONE = stream(chunk("I would rather not."), chunk(finish="stop"))
EARLIER = "The cell below has code of an earlier run: delete it, or run this cell again.\n"


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (NONE, "The answer has no code.\n"),
        (
            stream(chunk("```python\nx = 1\n```\nand"), chunk(finish="length")),
            "The answer was cut, so no code of it is put into a cell; copy it from above.\n",
        ),
        (
            stream(chunk("x = 1"), chunk(finish="content_filter")),
            "The answer was cut, so no code of it is put into a cell; copy it from above.\n",
        ),
        (
            stream(chunk("```python\nx = 1\ny ="), chunk(finish="stop")),
            "The answer ends within its code, so it is not put into a cell; copy it from above.\n",
        ),
    ],
)
def test_the_cell_below_is_of_an_earlier_run(kernel: Kernel, server: ScriptedServer, answer: Answer, note: str) -> None:
    server.script[:] = [answer, WHOLE, answer, answer, answer]
    assert kernel.run("%%llm --code --once\nCode.", "a").check().stdout == note
    assert kernel.last_reply["payload"] == []
    assert kernel.run("%%llm --code --once\nCode.", "a").check().stdout == ""
    assert [payload["text"] for payload in kernel.last_reply["payload"]] == ["x = 1"]
    assert kernel.run("%%llm --code --once\nCode.", "a").check().stdout == note + EARLIER
    assert kernel.run("%%llm --code --once\nCode.", "b").check().stdout == note
    assert kernel.run("%%llm --code --once\nCode.").check().stdout == note


def test_code_that_is_interrupted_goes_nowhere(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [stream(chunk("```python\nx = 1\n```\n"), HANG, done=False)]
    request = kernel.start("%%llm --code --once\nCode.")
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    kernel.interrupt()
    assert kernel.collect(request).error_name == "Interrupted"
    assert kernel.last_reply["payload"] == []


def test_code_where_nobody_reads_a_next_cell(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [WHOLE, NONE]
    ran = kernel.run("%%llm --code --once\nCode.", allow_stdin=False).check()
    assert ran.stdout == "--code: nobody reads a next cell here, so this is the code:\nx = 1\n"
    assert kernel.last_reply["payload"] == []
    assert kernel.run("%%llm --code --once\nCode.", allow_stdin=False).check().stdout == "The answer has no code.\n"


def test_code_in_a_notebook_that_is_executed_and_saved(server: ScriptedServer) -> None:
    import nbclient
    import nbformat

    server.script[:] = [WHOLE]
    sources = (f"%load_ext llm_magic\n%llm_provider add s --base-url {server.url}", "%%llm -m s:m --code\nCode.")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(book).execute()
    assert len(book.cells) == 2
    (shown,) = [output["text"] for output in book.cells[1].outputs if output["output_type"] == "stream"]
    assert shown == "--code: nobody reads a next cell here, so this is the code:\nx = 1\n"


def slow(request: Received) -> Answer:
    """Take a second over ten words."""
    name = request.json["messages"][-1]["content"]
    steps: list[object] = []
    for number in range(10):
        steps += [chunk(f"{name}{number} "), 0.1]
    return stream(*steps, chunk(finish="stop"))


def test_background_cells_go_on_while_others_run(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [slow]
    requests = {}
    started = time.perf_counter()
    for name in "abcde":
        ran = kernel.run(f"%%llm -b -o {name}_ --once\n{name}", cell_id=name).check()
        requests[name] = ran.request
    assert kernel.value("sum(range(10))") == 45
    assert time.perf_counter() - started < 1.0
    kernel.run("jobs = [Out[n] for n in sorted(Out) if type(Out[n]).__name__ == 'Job'][-5:]").check()
    kernel.run("results = [await job for job in jobs]").check()
    assert time.perf_counter() - started < 4
    for name in "abcde":
        text = "".join(f"{name}{number} " for number in range(10))
        assert kernel.value(f"{name}_") == text
        assert kernel.outputs_of(requests[name], "text/markdown")[-1] == text
    assert kernel.value("[repr(job) for job in jobs]") == ["<Job s:m: done>"] * 5


def test_a_background_cell_that_fails_says_so_in_its_cell_and_to_who_asks(
    kernel: Kernel, server: ScriptedServer
) -> None:
    server.script[:] = [stream({"error": {"message": "melted", "code": 500}}, done=False)]
    ran = kernel.run("%%llm -b --once\nHi").check()
    kernel.run("job = _").check()
    asked = kernel.run("job.result(5)")
    assert (asked.status, asked.error_name) == ("error", "ServerFailedError")
    assert "melted" in asked.error
    assert any("melted" in text for text in kernel.outputs_of(ran.request, "text/plain"))


def test_a_cancelled_background_cell_closes_its_request(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [Answer([b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n', HANG])]
    kernel.run("%%llm -b -o never --once\nHi").check()
    kernel.run("job = _").check()
    deadline = time.monotonic() + 5
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert kernel.value("(job.done(), job.cancel(), job.done())") == (False, True, True)
    assert server.requests[-1].left.wait(1)
    assert kernel.run("job.result()").error_name == "JobCancelledError"
    kernel.run("import concurrent.futures as f\ntry:\n    job.result()\nexcept f.CancelledError:\n    pass").check()
    assert kernel.value("'never' in globals()") is False


def test_interrupt_closes_the_request_at_the_server(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [Answer([b'data: {"choices":[{"index":0,"delta":{"content":"part"}}]}\n\n', HANG])]
    at: list[float] = []

    def interrupt(message: dict[str, object]) -> None:
        if not at and "text/markdown" in str(message["content"]):
            at.append(time.perf_counter())
            kernel.interrupt()

    ran = kernel.run("%%llm --once -o never\nHi", on_message=interrupt)
    assert ran.status == "error"
    assert server.requests[-1].left.wait(1)
    assert (server.requests[-1].closed_at or 0) - at[0] < 0.5
    assert kernel.value("(_llm.text, _llm.finish_reason)") == ("part", "interrupted")
    assert "part" in ran.of_type("text/markdown")[0]


def test_unloading_leaves_nothing_behind(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm --once\nHi").check()
    kernel.run("%unload_ext llm_magic").check()
    assert kernel.value(
        "(any('llm' in name for kind in get_ipython().magics_manager.magics.values() for name in kind),"
        " [t.name for t in __import__('threading').enumerate() if 'llm_magic' in t.name],"
        " [type(c).__name__ for c in get_ipython().configurables if type(c).__module__.startswith('llm_magic')],"
        " len([t for t in get_ipython().input_transformers_cleanup if 'llm_magic' in t.__module__]),"
        " [f for each in get_ipython().events.callbacks.values() for f in each if 'llm_magic' in f.__module__])"
    ) == (False, [], [], 0, [])
    kernel.run("%load_ext llm_magic").check()
