"""Several models of which some fail, ask, loop or never end: the others go on, and what came is kept."""

from __future__ import annotations

import asyncio
import builtins
import json
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest
from echo import echo
from servers import HANG, RESET, Answer, ScriptedServer, chunk, document, stream

from llm_magic import Comparison, extension
from llm_magic.errors import Interrupted, ModelsFailedError

if TYPE_CHECKING:
    from conftest import Cells  # type: ignore[import-not-found]

REFUSES = document({"error": {"message": "'response_format' is not supported", "param": "response_format"}}, 400)


def answers(text: str) -> Answer:
    return stream(chunk(text), chunk(finish="stop"))


def add(cells: Cells, **servers: ScriptedServer | str) -> None:
    for name, server in servers.items():
        url = server if isinstance(server, str) else server.url
        cells.session.registry.add(name, "compatible", base_url=url, max_retries=0)


def test_one_unreachable_one_slow_one_that_refuses_the_type(cells: Cells) -> None:
    others_failed = threading.Event()

    class Slow(ScriptedServer):
        async def _answer(self, *args: Any) -> Any:
            await asyncio.to_thread(others_failed.wait, 10)
            return await super()._answer(*args)

    with Slow(answers('{"value": 4}')) as slow, ScriptedServer(REFUSES) as refuses:
        add(cells, gone="http://127.0.0.1:9/v1", slow=slow, no=refuses)
        cells.on_tick = lambda view: others_failed.set() if len(view.failures) == 2 else None
        with pytest.raises(ModelsFailedError) as caught:
            cells.run("%%llm -m gone:m,slow:m,no:m --as int -o n --once\n2 + 2?")
    assert caught.value.message.startswith("2 of 3 models failed. gone:m: ConnectionFailedError: ")
    assert "no:m: " in caught.value.message
    assert cells["n"]["slow:m"] == 4
    assert [type(cells["n"][name]).__name__ for name in ("gone:m", "no:m")] == [
        "ConnectionFailedError",
        "RequestRefusedError",
    ]
    assert cells.view.told[-1] == ("finish", cells["n"], "")


def test_a_server_that_dies_in_the_midst_stops_nobody_else(cells: Cells) -> None:
    dead = stream(chunk("Half an ans"), RESET, done=False)
    with ScriptedServer(dead) as one, ScriptedServer(answers("Whole.")) as two:
        add(cells, one=one, two=two)
        with pytest.raises(ModelsFailedError, match=r"1 of 2 models failed\. one:m: "):
            cells.run("%%llm -m one:m,two:m --once\nHi")
    found = cells["_llm"]
    assert (found.responses["one:m"].text, found.responses["two:m"].text) == ("Half an ans", "Whole.")
    assert cells.view.columns["one:m"].told[-1] == ("fail", "Half an ans")


def test_an_interrupt_stops_all_and_keeps_what_came(cells: Cells) -> None:
    hangs = stream(chunk("Some"), HANG, done=False)
    with ScriptedServer(answers("All.")) as one, ScriptedServer(hangs) as two, ScriptedServer(hangs) as three:
        add(cells, one=one, two=two, three=three)

        def interrupt(view: Any) -> None:
            texts = [column.texts[-1:] for column in view.columns.values()]
            if texts == [["All."], ["Some"], ["Some"]] and view.columns["one:m"].told[-1:] != []:
                raise KeyboardInterrupt

        cells.on_tick = interrupt
        with pytest.raises(Interrupted) as caught:
            cells.run("%%llm -m one:m,two:m,three:m --once -o x\nHi")
        assert [server.requests[0].left.wait(5) for server in (two, three)] == [True, True]
    found = caught.value.response
    assert found is cells["_llm"]
    assert isinstance(found, Comparison)
    assert {name: (each.text, each.finish_reason) for name, each in found.responses.items()} == {
        "one:m": ("All.", "stop"),
        "two:m": ("Some", "interrupted"),
        "three:m": ("Some", "interrupted"),
    }
    assert [column.told[-1][0] for column in cells.view.columns.values()] == ["finish", "fail", "fail"]
    assert cells.view.told[-1][0] == "fail"
    assert "x" not in cells.shell.user_ns
    (line,) = caught.value._render_traceback_()
    assert line == "KeyboardInterrupt: the requests were stopped; _llm.responses has what had arrived."


def test_twenty_megabytes_beside_a_short_answer(cells: Cells) -> None:
    long = "word " * 200_000
    with ScriptedServer(stream(*[chunk(long)] * 20, chunk(finish="stop"))) as one, ScriptedServer(answers("Hi")) as two:
        add(cells, one=one, two=two)
        cells.run("%%llm -m one:m,two:m --once -o x\nHi")
    assert (len(cells["x"]["one:m"]), cells["x"]["two:m"]) == (20_000_000, "Hi")


def calls(**arguments: Any) -> Answer:
    call = {"name": "add", "arguments": json.dumps(arguments)}
    return stream(
        chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": call}]), chunk(finish="tool_calls")
    )


ADD = "def add(a: int, b: int) -> int:\n    'Add.'\n    return a + b"


def test_each_has_a_loop_of_tools_of_its_own(cells: Cells) -> None:
    cells.run(ADD)
    with ScriptedServer(calls(a=1, b=1), answers("2")) as one, ScriptedServer(calls(a=2, b=2), answers("4")) as two:
        add(cells, one=one, two=two)
        cells.run("%%llm -m one:m,two:m --once --tools add --as int\nHi")
    found = cells["_llm"]
    assert found.value == {"one:m": 2, "two:m": 4}
    assert [response.tool_calls[0].result for response in found.responses.values()] == ["2", "4"]


def test_who_asks_for_a_call_is_named_one_after_the_other(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "y" if "one:m" in prompt else "n"

    monkeypatch.setattr(builtins, "input", answer)
    cells.run(ADD)
    models = document({"data": [{"id": "m"}]})
    with (
        ScriptedServer(calls(a=1, b=1), answers("A")) as one,
        ScriptedServer(models, calls(a=2, b=2), answers("B")) as two,
    ):
        add(cells, one=one, two=two)
        cells.run("%%llm -m one:m,two: --once --tools add --confirm\nHi")
    assert sorted(asked) == [
        'one:m: Run add({"a": 1, "b": 1})? [y/N] ',
        'two: Run add({"a": 2, "b": 2})? [y/N] ',
    ]
    results = [response.tool_calls[0].result for response in cells["_llm"].responses.values()]
    assert results == ["2", "The user declined this call."]


def test_an_interrupt_at_a_question_stops_all(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", answer)
    cells.run(ADD)
    with ScriptedServer(calls(a=1, b=1), answers("A")) as one, ScriptedServer(calls(a=2, b=2), answers("B")) as two:
        add(cells, one=one, two=two)
        with pytest.raises(Interrupted):
            cells.run("%%llm -m one:m,two:m --once --tools add --confirm\nHi")
        assert max(len(server.requests) for server in (one, two)) == 1


def test_an_alias_with_a_fallback_is_one_column(cells: Cells) -> None:
    with echo() as server:
        add(cells, gone="http://127.0.0.1:9/v1", e=server)
        cells.session.registry.aliases = {"safe": {"model": "gone:m", "fallbacks": ["e:b"]}}
        cells.run("%%llm -m safe,e:a --once\nSAY Hi")
    assert cells["_llm"].value == {"safe": "Hi", "e:a": "Hi"}
    assert [what for what, text in cells.view.columns["safe"].told if what == "note" and "asking the next" in text]


def test_recorded_answers_come_without_a_server(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a,e:b --once --record once\nSAY Hi")
        assert len(server.requests) == 2
    for mode in ("once", "only"):
        extension.load(cells.shell)  # as a kernel that was started anew
        add(cells, e="http://127.0.0.1:9/v1")
        cells.run(f"%%llm -m e:a,e:b --once --record {mode}\nSAY Hi")
        found = cells["_llm"]
        assert (found.value, found.recorded) == ({"e:a": "Hi", "e:b": "Hi"}, True)
        assert [column.told[0] for column in cells.view.columns.values()] == [("hold", None)] * 2
    with pytest.raises(ModelsFailedError, match=r"1 of 2 models failed\. e:c: RecordingError: Not recorded"):
        cells.run("%%llm -m e:a,e:c --once --record only\nSAY Hi")
    assert cells["_llm"].responses["e:a"].recorded
    assert cells["_llm"].recorded is False


def test_several_answers_of_each(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a,e:b --once --n 2 -o x\nSAY Hi")
    assert cells["x"] == {"e:a": ["Hi", "Hi"], "e:b": ["Hi", "Hi"]}


def test_what_all_should_know_is_told_once(cells: Cells) -> None:
    cells.run("number = 5")
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a,e:b --once\nHi {number}")
    notes = [text for what, text, *_ in cells.view.told if what == "note"]
    assert len(notes) == 1, notes
    assert [what for column in cells.view.columns.values() for what, _ in column.told if what == "note"] == []
    assert all(response.notes == tuple(notes) for response in cells["_llm"].responses.values())


def test_a_budget_holds_for_all_models_together(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.settings.budget = {"requests": 3}
        with pytest.raises(ModelsFailedError, match=r"1 of 4 models failed\. .*BudgetError"):
            cells.run("%%llm -m e:a,e:b,e:c,e:d --once\nHi")
        assert len(server.requests) == 3


def test_a_job_that_is_cancelled_closes_all_requests(cells: Cells) -> None:
    hangs = stream(chunk("Some"), HANG, done=False)
    both = threading.Event()
    cells.on_tick = lambda view: both.set() if [c.texts[-1:] for c in view.columns.values()] == [["Some"]] * 2 else 0
    with ScriptedServer(hangs) as one, ScriptedServer(hangs) as two:
        add(cells, one=one, two=two)
        job = cells.run("%%llm -m one:m,two:m --once -b -o x\nHi")
        assert both.wait(10)
        assert (job.cancel(), job.done()) == (True, True)
        assert [server.requests[0].left.wait(5) for server in (one, two)] == [True, True]
        with pytest.raises(CancelledError, match="what had arrived stays on screen"):
            job.result()
    assert "x" not in cells.shell.user_ns


def test_of_many_that_fail_the_first_are_named(cells: Cells) -> None:
    with ScriptedServer(document({"error": {"message": "out of order"}}, 400)) as server:
        add(cells, e=server)
        with pytest.raises(ModelsFailedError) as caught:
            cells.run(f"%%llm -m {','.join(f'e:m{number}' for number in range(8))} --once\nHi")
    assert caught.value.message.startswith("8 of 8 models failed. e:m0: RequestRefusedError: ")
    assert caught.value.message.count("out of order") == 5
    assert caught.value.message.endswith("; and 3 more")
    assert len(cells["_llm"].errors) == 8


def test_more_models_than_a_screen_has_columns(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run(f"%%llm -m {','.join(f'e:m{number}' for number in range(20))} --once\nSAY Hi")
    assert set(cells["_llm"].value.values()) == {"Hi"}
    assert len(cells["_llm"].value) == 20
