"""`%%llm --each` in a real kernel: what is bound, shown and kept, in the foreground, in the background, executed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, document

FRAME = 'import pandas as pd; df = pd.DataFrame({"text": ["good", "bad", "ugly"]}, index=["x", "y", "z"])'


def said(request: Received) -> str:
    return str(request.json["messages"][-1]["content"])


def completion(text: str) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def echo(request: Received) -> Answer:
    return completion(f"you said {said(request)}")


@pytest.fixture
def server(kernel: Kernel, tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        begin(kernel, server, tmp_path)
        yield server


def begin(kernel: Kernel, server: ScriptedServer, state: Path) -> None:
    kernel.run(f"import os; os.environ['XDG_STATE_HOME'] = {str(state)!r}").check()
    kernel.run("%reload_ext llm_magic").check()
    kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
    kernel.run("%config LLMMagics.model = 's:m'").check()
    kernel.run(FRAME).check()


def shown(ran: Any) -> str:
    return "\n".join(ran.of_type("text/plain"))


def test_a_frame_comes_back_with_the_answers(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm --each df -o labelled\nSay {{ text }}").check()
    assert kernel.value("labelled.to_dict('list')") == {
        "text": ["good", "bad", "ugly"],
        "labelled": ["you said Say good", "you said Say bad", "you said Say ugly"],
    }
    assert kernel.value("(list(labelled.index), list(df.columns))") == (["x", "y", "z"], ["text"])
    assert kernel.value("(_llm.values[0], _llm.usage.input_tokens)") == ("you said Say good", 21)
    assert len(ran.outputs) == 1
    assert "s:m · 3 rows in" in shown(ran)
    assert "you said Say bad" in ran.of_type("text/html")[0]


def test_fields_of_a_record_are_columns(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [lambda request: completion(json.dumps({"tone": said(request).split()[-1][:1], "stars": 3}))]
    kernel.run("%%llm --each df --schema 'tone, stars int' -o rated\n{{ text }}").check()
    assert kernel.value("rated[['tone', 'stars']].values.tolist()") == [["g", 3], ["b", 3], ["u", 3]]
    assert kernel.value("str(rated.stars.dtype)") == "int64"


def test_a_column_that_is_there_already_is_an_error_before_anything_is_sent(
    kernel: Kernel, server: ScriptedServer
) -> None:
    ran = kernel.run("%%llm --each df -o text\n{{ text }}")
    assert ran.error_name == "OptionError"
    assert ran.error.startswith("The input has a column 'text' already")
    assert server.requests == []


def test_other_inputs_give_answers(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("words = %llm --each 'sorted(df.text)[:2]' -o words Say {{ item }}").check()
    assert kernel.value("(type(words).__name__, list(words))") == (
        "Answers",
        ["you said Say bad", "you said Say good"],
    )


def test_the_answers_as_the_last_value_are_not_shown_twice(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm --each df.text\nSay {{ item }}").check()
    assert [output["output_type"] for output in ran.outputs] == ["display_data"]


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("--each dff", "OptionError", "--each dff: there is no variable 'dff'."),
        ("--each 'df['", "OptionError", "is no Python expression"),
        ("--each 1/0", "OptionError", "raised ZeroDivisionError: division by zero."),
        ("--each 7", "InputError", "7"),
        ("--each df.text.iloc[0]", "InputError", "text"),
        ("--each df --concurrency none", "OptionError", "--concurrency"),
        ("--sample 3", "OptionError", "--sample needs --each."),
        ("--each df --confirm --tools len", "OptionError", "--confirm"),
        ("--each df --code", "OptionError", "--code"),
        ("--each df -o df", "OptionError", "--out df would replace df, which --each reads"),
        ("--each 'sorted(df.text)' -o df", "OptionError", "--out df would replace df, which --each reads"),
    ],
)
def test_what_is_wrong_is_one_line(kernel: Kernel, server: ScriptedServer, line: str, name: str, words: str) -> None:
    ran = kernel.run(f"%%llm {line}\n{{{{ item }}}}")
    assert ran.error_name == name
    assert words in ran.error
    assert len(ran.outputs[-1]["traceback"]) <= 2
    assert server.requests == []


def test_rows_that_fail_fail_the_cell_once_all_is_bound(kernel: Kernel, server: ScriptedServer) -> None:
    broken = document({"error": {"message": "melted"}}, status=500)
    server.script[:] = [lambda request: broken if "bad" in said(request) else echo(request)]
    ran = kernel.run("%%llm --each df -o labelled\n{{ text }}")
    assert ran.error_name == "RowsFailedError"
    assert ran.error.splitlines()[0] == "1 of 3 failed: 1 ServerFailedError; run the cell again to ask for those."
    assert kernel.value("list(labelled.columns)") == ["text", "labelled", "error"]
    assert kernel.value("labelled.labelled.fillna('-').tolist()") == ["you said good", "-", "you said ugly"]
    server.script[:], server.requests[:] = [echo], []
    ran = kernel.run("%%llm --each df -o labelled\n{{ text }}").check()
    assert [said(request) for request in server.requests] == ["bad"]
    assert "2 of 3 answered before; asking for the rest (--again asks for all)." in shown(ran)
    assert kernel.value("labelled.columns.tolist()") == ["text", "labelled"]


def test_errors_may_be_kept(kernel: Kernel, server: ScriptedServer) -> None:
    broken = document({"error": {"message": "melted"}}, status=500)
    server.script[:] = [lambda request: broken if "bad" in said(request) else echo(request)]
    kernel.run("%%llm --each df --on-error keep -o labelled\n{{ text }}").check()
    assert kernel.value("labelled.error.notna().tolist()") == [False, True, False]


def test_an_interrupt_binds_nothing_and_keeps_what_came(kernel: Kernel, server: ScriptedServer) -> None:
    def some(request: Received) -> Answer:
        if "ugly" in said(request):
            threading.Timer(0.5, kernel.interrupt).start()
            return Answer([HANG])
        return echo(request)

    server.script[:] = [some]
    ran = kernel.run("%%llm --each df --concurrency 1 -o never\n{{ text }}")
    assert ran.status == "error"
    assert ran.outputs[-1]["traceback"] == [
        "KeyboardInterrupt: stopped; 2 of 3 rows are answered, and kept: run it again to go on from there."
    ]
    assert server.requests[-1].left.wait(5)
    assert kernel.value("'never' in globals()") is False
    server.script[:], server.requests[:] = [echo], []
    kernel.run("%%llm --each df --concurrency 1 -o never\n{{ text }}").check()
    assert [said(request) for request in server.requests] == ["ugly"]


def test_a_kernel_that_was_killed_goes_on_in_the_next_one(tmp_path: Path) -> None:
    def some(request: Received) -> Answer:
        return Answer([HANG]) if int(said(request)) >= 7 else echo(request)

    with ScriptedServer(some) as server:
        with Kernel() as first:
            first.run("%load_ext llm_magic").check()
            begin(first, server, tmp_path)
            process = first.value("os.getpid()")
            first.start("%%llm --each range(20) --concurrency 3 -o numbers\n{{ item }}")
            until = time.monotonic() + 30
            while sum(int(said(request)) >= 7 for request in server.requests) < 3:
                assert time.monotonic() < until
                time.sleep(0.05)
            os.kill(process, signal.SIGKILL)
        server.script[:], server.requests[:] = [echo], []
        with Kernel() as second:
            second.run("%load_ext llm_magic").check()
            begin(second, server, tmp_path)
            second.run("%%llm --each range(20) --concurrency 3 -o numbers\n{{ item }}").check()
            assert second.value("list(numbers)") == [f"you said {number}" for number in range(20)]
    assert sorted(int(said(request)) for request in server.requests) == list(range(7, 20))


def test_in_the_background_the_notebook_is_free_meanwhile(kernel: Kernel, server: ScriptedServer) -> None:
    def slowly(request: Received) -> Answer:
        answer = echo(request)
        answer.steps.insert(0, 0.3)
        return answer

    server.script[:] = [slowly]
    ran = kernel.run("job = %llm -b --each df --concurrency 1 -o later {{ text }}").check()
    assert kernel.value("(job.done(), 'later' in globals())") == (False, False)
    kernel.run("answers = job.result(30)").check()
    assert kernel.value("list(answers)") == ["you said good", "you said bad", "you said ugly"]
    assert kernel.value("later.later.tolist()") == ["you said good", "you said bad", "you said ugly"]
    assert any("3 rows in" in text for text in kernel.outputs_of(ran.request, "text/plain"))


def test_a_job_of_rows_that_fail_fails(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [document({"error": {"message": "melted"}}, status=500)]
    kernel.run("job = %llm -b --each df -o later2 {{ text }}").check()
    ran = kernel.run("job.result(30)")
    assert ran.error_name == "RowsFailedError"
    assert kernel.value("bool(later2.error.notna().all())") is True


def test_a_job_may_be_cancelled(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [Answer([HANG])]
    kernel.run("job = %llm -b --each df -o later3 {{ text }}").check()
    until = time.monotonic() + 10
    while len(server.requests) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert kernel.value("(job.cancel(), job.done())") == (True, True)
    assert all(request.left.wait(5) for request in server.requests)
    assert kernel.value("'later3' in globals()") is False


def test_a_dry_run_shows_the_first_request_and_what_all_take(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm --each df --dry-run --max-tokens 9 -o x\nSay {{ text }}").check()
    text = shown(ran)
    assert '"content": "Say good"' in text
    assert "3 rows, 3 different prompts: 3 requests to send." in text
    assert "Nothing was sent, x is not bound." in text
    assert server.requests == []
    kernel.run("%%llm --each df --max-tokens 9 --concurrency 1 -o sent\nSay {{ text }}").check()
    assert json.JSONDecoder().raw_decode(text)[0] == server.requests[0].json


def test_a_sample_says_what_all_would_take(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm --each df --sample 2 -o x\nSay {{ text }}").check()
    assert sorted(said(request) for request in server.requests) == ["Say good", "Say ugly"]
    assert "A sample of 2 rows: 14 → 6 tokens" in shown(ran)
    assert "all 3: about 21 → 9 tokens" in shown(ran)
    assert kernel.value("'x' in globals()") is False
    server.requests[:] = []
    kernel.run("%%llm --each df -o x\nSay {{ text }}").check()
    assert [said(request) for request in server.requests] == ["Say bad"]


def test_what_is_replayed_tells_no_time(kernel: Kernel, server: ScriptedServer, tmp_path: Path) -> None:
    """A run and a sample whose rows are all recorded show the same each time."""
    kernel.run(f"%config LLMMagics.record_file = {str(tmp_path / 'r.llm.jsonl')!r}").check()
    kernel.run("%%llm --each df --record once -o x\nSay {{ text }}").check()
    asked = len(server.requests)
    ran = kernel.run("%%llm --each df --record only -o x\nSay {{ text }}").check()
    assert shown(ran).endswith("\ns:m · 3 rows, 3 answered before")
    ran = kernel.run("%%llm --each df --record only --sample 2 -o y\nSay {{ text }}").check()
    assert shown(ran).endswith(
        "\ns:m · 2 rows, 2 answered before · "
        "A sample of 2 rows: 14 → 6 tokens; all 3: about 21 → 9 tokens. y is not bound."
    )
    assert len(ran.outputs) == 1
    ran = kernel.run("%%llm --each df --record only --dry-run -o z\nSay {{ text }}").check()
    assert "3 rows, 3 answered before: nothing to send." in shown(ran)
    kernel.run("df.loc['w'] = 'new'").check()
    ran = kernel.run("%%llm --each df --record once --dry-run -o z\nSay {{ text }}").check()
    assert "4 rows, 3 answered before, 1 different prompt: 1 request to send." in shown(ran)
    assert len(server.requests) == asked == 3


def test_the_conversation_is_sent_only_where_it_is_named(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm\nRemember", "a").check()
    kernel.run("%%llm -c talk\nTalk", "b").check()
    server.requests[:] = []
    kernel.run("%%llm --each df.text[:1]\n{{ item }}", "c").check()
    kernel.run("%%llm --each df.text[:1] -c talk\n{{ item }}", "d").check()
    assert [len(request.json["messages"]) for request in server.requests] == [1, 3]
    kernel.run("%%llm -c talk\nAnd?", "e").check()
    assert len(server.requests[-1].json["messages"]) == 3  # rows are no turns


def test_polars_stays_polars(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("import polars as pl; pf = pl.from_pandas(df)").check()
    kernel.run("%%llm --each pf -o said\n{{ text }}").check()
    assert kernel.value("(type(said).__module__.split('.')[0], said['said'].to_list())") == (
        "polars",
        ["you said good", "you said bad", "you said ugly"],
    )


def test_show_none_shows_nothing(kernel: Kernel, server: ScriptedServer) -> None:
    assert kernel.run("%%llm --each df --show none -o quiet\n{{ text }}").check().outputs == []
    assert kernel.value("len(quiet)") == 3


def test_a_default_of_many_rows_holds_for_them_alone(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run('%config LLMMagics.params = {"concurrency": 1, "on_error": "keep"}').check()
    kernel.run("%%llm\nHello").check()
    server.script[:] = [document({"error": {"message": "melted"}}, status=500)]
    kernel.run("%%llm --each df -o kept\n{{ text }}").check()
    assert kernel.value("int(kept.error.notna().sum())") == 3
    kernel.run("%config LLMMagics.params = {}").check()


def test_an_executed_notebook_holds_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ScriptedServer(echo) as server:
        book = nbformat.v4.new_notebook()
        for source in (
            "%load_ext llm_magic",
            f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r})",
            "%%llm -m s:m -b --each range(40) -o numbers\n{{ item }}",
            "len(numbers), numbers[39]",
        ):
            book.cells.append(nbformat.v4.new_code_cell(source))
        nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (rows,) = book.cells[2].outputs
    assert rows.output_type == "display_data"
    assert "40 rows in" in rows.data["text/plain"]
    assert book.cells[3].outputs[0].data["text/plain"] == "(40, 'you said 39')"


def test_the_answers_of_rows_are_the_last_response_of_the_notebook(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%%llm --each df\n{{ text }}").check()
    ran = kernel.run("_llm.text")
    assert ran.error_name == "NoSuchAttributeError"
    assert ran.error.startswith("These are the answers to 3 rows, and have no text: each response has its own.")
    before = len(server.requests)
    ran = kernel.run("%%llm --no-stream\nSum up {{ _llm.text }}")
    assert ran.error.startswith(
        "{{ _llm.text }} on line 1, column 8 of the prompt: These are the answers to 3 rows, and have no text"
    )
    assert len(server.requests) == before
    kernel.run("%%llm --no-stream\nSum up {{ _llm }}").check()
    assert said(server.requests[-1]) == "Sum up ['you said good', 'you said bad', 'you said ugly']"


def test_a_function_that_a_template_calls_may_ask(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run(
        "from llm_magic import LLM\ncalls = []\n"
        "def expand(text):\n"
        "    calls.append(text)\n"
        "    return LLM('s:m').map('{{ item }}', [text]).values[0]"
    ).check()
    ran = kernel.run("%%llm --each df --dry-run\nNested {{ expand(text) }}").check()
    assert "Nested you said good" in "".join(map(str, ran.outputs))
    server.script[:] = [lambda asked: document({}, 500) if "Nested you said ugly" in said(asked) else echo(asked)]
    kernel.run("%%llm --each df -o nested\nNested {{ expand(text) }}")
    server.script[:] = [echo]
    kernel.run("calls.clear()").check()
    kernel.run("%%llm --each df -o nested\nNested {{ expand(text) }}").check()
    assert kernel.value("list(nested.nested)") == [
        f"you said Nested you said {each}" for each in ("good", "bad", "ugly")
    ]
    assert kernel.value("calls") == ["good", "bad", "ugly"]


def test_a_function_that_a_template_calls_holds_up_no_answer(kernel: Kernel, server: ScriptedServer) -> None:
    """It waits for an answer to the row before, which comes meanwhile."""
    kernel.run(
        "import threading\ncame = threading.Semaphore(1)\n"
        "def waits(text):\n"
        "    assert came.acquire(timeout=10), 'no answer comes'\n"
        "    return text\n"
        "def heard(progress):\n"
        "    while heard.told < progress.done:\n"
        "        heard.told += 1; came.release()\n"
        "heard.told = 0\n"
        "llm = LLM('s:m')\n"
        "found = llm.map(lambda row: waits(row.text), df, on_progress=heard).values"
    ).check()
    assert kernel.value("found") == ["you said good", "you said bad", "you said ugly"]


def test_a_system_prompt_that_names_a_column_is_no_template_and_that_is_said(
    kernel: Kernel, server: ScriptedServer
) -> None:
    ran = kernel.run("%%llm --each df -s 'Answer for {{ text }}, as {{json}} {{ index }}.'\n{{ text }}").check()
    assert {request.json["messages"][0]["content"] for request in server.requests} == {
        "Answer for {{ text }}, as {{json}} {{ index }}."
    }
    said_of_it = "The system prompt is no template: {{ text }} and {{ index }} are sent as they stand. The prompt can"
    assert said_of_it in shown(ran)
    ran = kernel.run("%%llm --each df -s 'Answer as {{json}}.'\n{{ text }}").check()
    assert "no template" not in shown(ran)


def test_a_job_that_was_cancelled_says_so_in_a_line(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [lambda request: echo(request) if said(request) == "good" else Answer([HANG])]
    kernel.run("job = %llm -b --each df --concurrency 1 {{ text }}").check()
    until = time.monotonic() + 10
    while len(server.requests) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    late = kernel.run("job.result(0.01)")
    assert (late.error_name, late.error) == (
        "JobTimeoutError",
        "<Job s:m: running> has no answer yet, after 0.01 s; it goes on.",
    )
    assert kernel.value("(job.cancel(), job.cancel())") == (True, False)
    line = (
        "<Job s:m: cancelled> has no answer: stopped; 1 of 3 rows are answered, and kept: "
        "run it again to go on from there."
    )
    for code in ("job.result()", "await job"):
        ran = kernel.run(code)
        assert (ran.error_name, ran.error) == ("JobCancelledError", line)
        assert ran.outputs[-1]["traceback"] == [f"JobCancelledError: {line}"]
    caught = (
        "import asyncio, concurrent.futures\ncaught = []\n"
        "try: job.result()\nexcept concurrent.futures.CancelledError: caught.append(1)\n"
        "try: await job\nexcept asyncio.CancelledError: caught.append(2)\n"
    )
    kernel.run(caught).check()
    assert kernel.value("caught") == [1, 2]
