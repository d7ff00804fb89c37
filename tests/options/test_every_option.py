"""Every option, given a wrong value, with what leaves it no meaning, and rightly, through every door that it has.

A wrong or meaningless one is an error before anything is sent, and its words name the option; a right one is seen in
the request, in the output, or in what is bound. An option without a row fails `test_no_option_is_forgotten`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from echo import PREAMBLE, echo, texts
from executed import a_shell
from kernels import Kernel, Ran
from servers import Received, ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.context.executed_cells import ExecutedCells
from llm_magic.errors import LLMError
from llm_magic.options import BY_FLAG, OF_ROWS, OPTIONS, PARAMETERS, AskOptions, MapOptions
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


@dataclass
class Effect:
    """What became of a cell, or of a call: its requests, and what it shows and binds."""

    requests: list[Received]
    ran: Ran = field(default_factory=Ran)
    kernel: Kernel | None = None
    error: str = ""
    next_input: str = ""
    """What the cell put into the next one."""
    result: str = ""
    """The type of what it gave back."""

    @property
    def body(self) -> Any:
        return self.requests[-1].json

    @property
    def headers(self) -> dict[str, str]:
        return self.requests[-1].headers

    @property
    def shown(self) -> str:
        return self.ran.stdout + "".join(self.ran.of_type("text/plain"))

    def value(self, expression: str) -> Any:
        assert self.kernel is not None
        return self.kernel.value(expression)


Check = Callable[[Effect], object]
Error = tuple[str, str]
"""Options of a line, and words of the error."""
Keywords = tuple[dict[str, Any], str]
"""Keywords of `LLM.ask`, and words of the error."""


class Never(str):
    """Why there is no such case."""

    __slots__ = ()


@dataclass
class Row:
    """An option of `%%llm`: what is wrong, what is meaningless, what is right and seen by `check`."""

    wrong: Error | Never
    meaningless: Error | Never
    right: str
    check: Check
    body: str = "SAY Hello"
    before: str = ""
    """Cells that run first."""
    configured: tuple[Any, str] | Never = ("", "")
    """Its value in `params`, `model_params` and an alias, and the options of the line beside it."""
    wrongly: Any = object
    """A value that a configuration may not give it."""
    stdin: Callable[[str], str | None] | None = None


def f(x: int) -> int:
    """Add one."""
    return x + 1


IN_A_FOLDER = "import json, os, tempfile; os.chdir(tempfile.mkdtemp())"
RECORDED = "[json.loads(line)['asked']['kind'] for line in open('llm.jsonl')]"
ONE_CELL = Never("said in each cell: a default would change what another cell says")
ANY_TEXT = Never("any text is one")
ALONE = Never("it changes how the request is sent, whatever is asked")


def parameter(wrong: Error, right: str, fields: dict[str, Any], value: Any, *, lacks: str = "responses") -> Row:
    """Return the row of a request parameter: `-p` of the same field, or an API that lacks it, leaves it no meaning."""
    flag = BY_FLAG[right.partition(" ")[0]].flags[-1]
    if lacks:
        meaningless = (f"{right} --api {lacks}", f"{flag} does not exist in the {lacks.title()} API")
    else:
        name = next(iter(fields))
        meaningless = (f"{right} -p {name}=1", f"{flag} and -p {name} set the same field.")
    return Row(
        wrong,
        meaningless,
        right,
        lambda effect: fields.items() <= effect.body.items(),
        configured=(value, ""),
        wrongly=object(),
    )


LETTERS = "letters = ['a', 'b', 'c']"
OF_NO_BATCHES = f"{LETTERS}\nregistry.add('bare', 'vllm', base_url='http://127.0.0.1:9/v1')"
NOWHERE = "-m bare:m"


def refused(effect: Effect) -> bool:
    """Whether a batch was refused before anything was sent: the server takes none."""
    return effect.requests == [] and "bare:m (http://127.0.0.1:9/v1) takes no offline batches." in effect.error


FAILS_ONCE = "SAY {{ 'FAIL' if item == 'c' else item }}"


def rows(  # noqa: PLR0917 - the places of a table
    wrong: Error,
    right: str,
    check: Check,
    value: Any = ONE_CELL,
    wrongly: Any = object,
    beside: str = "",
    body: str = "SAY {{ item }}",
    before: str = "",
) -> Row:
    """Return the row of an option of many rows, which has no meaning without `--each`.

    What an earlier row of this table left does not count: all is asked.
    """
    return Row(
        (f"--each letters {wrong[0]}", wrong[1]),
        (right, f"{right.partition(' ')[0]} needs --each."),
        f"--each letters --again {right} {beside}",
        check,
        body=body,
        before=f"{LETTERS}\nget_ipython().run_cell({before!r}, silent=True);" if before else LETTERS,
        configured=value if isinstance(value, Never) else (value, f"--each letters --again {beside}"),
        wrongly=wrongly,
    )


def prompts(effect: Effect) -> list[str]:
    """Return the prompts in the order in which they were sent."""
    return [texts(request.json)[-1] for request in effect.requests]


ROWS: dict[str, Row] = {
    "model": Row(
        ("-m nobody:x", "No provider answers to the model 'nobody:x'"),
        ("-m s:m -p model=x", "-p model is refused"),
        "-m s:other",
        lambda effect: effect.body["model"] == "other",
        configured=ONE_CELL,
    ),
    "base_url": Row(
        ("--base-url ftp://x", "--base-url takes a URL that starts with http"),
        ("-m local: --base-url http://127.0.0.1:9/v1", "served inside this kernel, so --base-url"),
        "-m free --base-url {url}",
        lambda effect: effect.body["model"] == "free" and effect.headers["authorization"] == "Bearer EMPTY",
        configured=ONE_CELL,
    ),
    "api": Row(
        ("--api soap", "--api takes one of chat, responses, completions"),
        ("--api completions --tools f", "Leave --tools out, or use --api chat."),
        "--api responses",
        lambda effect: effect.requests[-1].path == "/v1/responses",
        configured=("responses", ""),
        wrongly="soap",
    ),
    "timeout": Row(
        ("--timeout 0", "--timeout takes more than 0 seconds"),
        ALONE,
        "--timeout 7.5",
        lambda effect: effect.headers["x-stainless-read-timeout"] == "7.5",
        configured=(7.5, ""),
        wrongly="long",
    ),
    "retries": Row(
        ("--retries -1", "--retries takes a whole number of at least 0"),
        ALONE,
        "--retries 1",
        lambda effect: len(effect.requests) == 2 and "broken" in effect.error,
        body="SAY FAIL",
        configured=(1, ""),
        wrongly="often",
    ),
    "header": Row(
        ("--header X-Title", "--header takes NAME=VALUE"),
        ALONE,
        "--header X-Title=mine",
        lambda effect: effect.headers["x-title"] == "mine",
        configured=({"X-Title": "mine"}, ""),
        wrongly="X-Title=mine",
    ),
    "out": Row(
        ("-o 1x", "-o takes the name of a variable"),
        Never("every answer has a value; with --dry-run it is said that nothing is bound"),
        "-o bound",
        lambda effect: effect.value("bound") == "Hello",
        configured=ONE_CELL,
    ),
    "output_type": Row(
        ("--as Citty", "Citty"),
        ("--as int --schema 'a, b'", "--as and --schema exclude each other"),
        "--as int -o bound",
        lambda effect: effect.value("bound") == 4 and "response_format" in effect.body,
        body="SAY 4",
        configured=("int", "-o bound"),
        wrongly="Citty",
    ),
    "schema": Row(
        ("--schema nope", "--schema nope: this is neither a .json file, nor a variable, nor two fields"),
        ("--schema 'a int, b' --code", "--schema and --code exclude each other"),
        "--schema 'a int, b' -o bound",
        lambda effect: effect.value("bound") == {"a": 1, "b": "x"} and "response_format" in effect.body,
        body='SAY {"a": 1, "b": "x"}',
        configured=("a int, b", "-o bound"),
        wrongly="nope",
    ),
    "choices": Row(
        ("--choices a,,b", "--choices takes a list with commas and no empty item"),
        ("--choices a,b --regex a", "--choices and --regex exclude each other"),
        "--choices yes,no -o bound",
        lambda effect: effect.value("bound") == "yes" and "grammar" in effect.body,
        body="SAY yes",
        configured=("yes,no", "-o bound"),
        wrongly="a,,b",
    ),
    "regex": Row(
        ("--regex (", "--regex '(' is no regular expression"),
        ("--regex a -p grammar=b", "--regex and -p grammar set the same field"),
        "--regex [a-z]+ -o bound",
        lambda effect: effect.value("bound") == "yes" and "grammar" in effect.body,
        body="SAY yes",
        configured=("[a-z]+", "-o bound"),
        wrongly="(",
    ),
    "grammar": Row(
        ("--grammar nope", "nope"),
        ("--grammar yes --as int", "--as and --grammar exclude each other"),
        "--grammar yes -o bound",
        lambda effect: effect.value("bound") == "yes" and "root ::=" in effect.body["grammar"],
        body="SAY yes",
        configured=("yes", "-o bound"),
        wrongly="nope",
    ),
    "retries_invalid": Row(
        ("--retries-invalid -1 --as int", "--retries-invalid takes a whole number of at least 0"),
        ("--retries-invalid 2", "--retries-invalid needs an output type"),
        "--retries-invalid 2 --as int",
        lambda effect: len(effect.requests) == 3 and "--retries-invalid" in effect.error,
        body="SAY x",
        configured=(2, "--as int"),
        wrongly="often",
    ),
    "temperature": parameter(("-t warm", "-t takes a number"), "-t 0.5", {"temperature": 0.5}, 0.5, lacks=""),
    "top_p": parameter(
        ("--top-p 2", "--top-p takes a number from 0 to 1"), "--top-p 0.5", {"top_p": 0.5}, 0.5, lacks=""
    ),
    "max_tokens": parameter(
        ("--max-tokens 0", "--max-tokens takes a whole number of at least 1"),
        "--max-tokens 5", {"max_tokens": 5}, 5, lacks="",
    ),
    "seed": parameter(("--seed x", "--seed takes a whole number"), "--seed 3", {"seed": 3}, 3),
    "stop": parameter(("--stop ''", "--stop takes a value that is not empty"), "--stop x", {"stop": ["x"]}, ["x"]),
    "presence_penalty": parameter(
        ("--presence-penalty 3", "--presence-penalty takes a number from -2 to 2"),
        "--presence-penalty 1", {"presence_penalty": 1}, 1,
    ),
    "frequency_penalty": parameter(
        ("--frequency-penalty 3", "--frequency-penalty takes a number from -2 to 2"),
        "--frequency-penalty 1", {"frequency_penalty": 1}, 1,
    ),
    "n": parameter(("--n 0", "--n takes a whole number of at least 1"), "--n 2", {"n": 2}, 2),
    "logprobs": parameter(
        ("--logprobs -1", "--logprobs takes a whole number of at least 0"),
        "--logprobs 2", {"logprobs": True, "top_logprobs": 2}, 2, lacks="",
    ),
    "reasoning_effort": parameter(
        ("--reasoning-effort ''", "--reasoning-effort takes a value that is not empty"),
        "--reasoning-effort low", {"reasoning_effort": "low"}, "low", lacks="completions",
    ),
    "param": Row(
        ("-p min_p", "-p takes NAME=VALUE"),
        ("-p messages=[]", "-p messages is refused"),
        "-p min_p=0.1",
        lambda effect: effect.body["min_p"] == 0.1,
        configured=({"min_p": 0.1}, ""),
        wrongly="min_p=0.1",
    ),
    "system": Row(
        ("-s --raw", "-s needs a value"),
        ("-s Brief. -p instructions=Long. --api responses", "--system and -p instructions set the same field"),
        "-s Brief.",
        lambda effect: effect.body["messages"][0] == {"role": "system", "content": "Brief."},
        configured=("Brief.", ""),
        wrongly=object(),
    ),
    "image": Row(
        ("-i nowhere.png", "nowhere.png"),
        ("-i png --api completions", "Leave --image out, or use --api chat."),
        "-i png",
        lambda effect: effect.body["messages"][-1]["content"][-1]["image_url"]["url"].startswith("data:image/png"),
        configured=("png", ""),
        wrongly="nowhere.png",
    ),
    "raw": Row(
        ("--raw=yes", "--raw takes no value"),
        Never("every body can stand as it is"),
        "--raw",
        lambda effect: "{{ title }}" in texts(effect.body)[-1],
        body="{{ title }} SAY Hello",
        configured=(True, ""),
        wrongly="yes",
    ),
    "context": Row(
        ("--context a-b", "--context takes a number of cells, all, or names of variables"),
        ("--context nowhere", "--context nowhere: no executed cell defines nowhere."),
        "--context f",
        lambda effect: "\ndef f(x: int) -> int:\n" in texts(effect.body)[-1],
        configured=("f", ""),
        wrongly=-1,
    ),
    "chat": Row(
        ("-c ''", "-c takes a value that is not empty"),
        ("-c x --once", "--chat and --once exclude each other"),
        "-c side",
        lambda effect: "before" in texts(effect.body)[0],
        before="%%llm -c side\nbefore SAY Hello",
        configured=("side", ""),
        wrongly="",
    ),
    "once": Row(
        ("--once=yes", "--once takes no value"),
        ("--once -c x", "--chat and --once exclude each other"),
        "--once",
        lambda effect: len(texts(effect.body)) == 1,
        before="%%llm\nbefore SAY Hello",
        configured=(True, ""),
        wrongly="yes",
    ),
    "tools": Row(
        ("--tools nope", "nope"),
        ("--tools f -p tools=[]", "--tools and -p tools set the same field"),
        "--tools f",
        lambda effect: effect.body["tools"][0]["function"]["name"] == "f" and len(effect.requests) == 2,
        configured=("f", ""),
        wrongly="nope",
    ),
    "tool_choice": Row(
        ("--tools f --tool-choice nobody", "--tool-choice nobody is not one of the tools"),
        ("--tool-choice none", "--tool-choice needs --tools"),
        "--tools f --tool-choice none",
        lambda effect: effect.body["tool_choice"] == "none",
        configured=("none", "--tools f"),
        wrongly="",
    ),
    "max_tool_rounds": Row(
        ("--tools f --max-tool-rounds 0", "--max-tool-rounds takes a whole number of at least 1"),
        ("--max-tool-rounds 3", "--max-tool-rounds needs --tools"),
        "--tools f --max-tool-rounds 2",
        lambda effect: len(effect.requests) == 3 and "--max-tool-rounds" in effect.error,
        body="SAY FOREVER",
        configured=(2, "--tools f"),
        wrongly="often",
    ),
    "confirm": Row(
        ("--confirm=yes --tools f", "--confirm takes no value"),
        ("--confirm", "--confirm needs --tools"),
        "--tools f --confirm",
        lambda effect: effect.body["messages"][-1]["content"] == "The user declined this call.",
        stdin=lambda _: "n",
        configured=(True, "--tools f"),
        wrongly="yes",
    ),
    "each": Row(
        ("--each letters --each x", "--each is given twice"),
        ("--each letters --stream", "--each and --stream exclude each other: rows are shown when they are complete."),
        "--each letters",
        lambda effect: sorted(prompts(effect)) == ["SAY a", "SAY b", "SAY c"],
        body="SAY {{ item }}",
        before=LETTERS,
        configured=ONE_CELL,
    ),
    "concurrency": rows(
        ("--concurrency 0", "--concurrency takes a whole number from 1 to 10,000, or auto, not '0'"),
        "--concurrency 1",
        lambda effect: prompts(effect) == ["SAY a", "SAY b", "SAY c"],
        1, 0,
    ),
    "patience": rows(
        ("--patience -1", "--patience takes a number of at least 0"),
        "--patience 0.1",
        lambda effect: len(effect.requests) > 1 and "not within 0.1 s after" in effect.value("str(_llm.errors[2])"),
        0.1, "long", "--concurrency 1", "SAY {{ 'GONE' if item == 'b' else item }}",
    ),
    "on_error": rows(
        ("--on-error ignore", "--on-error takes one of fail, keep"),
        "--on-error keep",
        lambda effect: effect.ran.status == "ok" and len(effect.requests) == 3,
        "keep", "ignore", body="SAY {{ item and 'FAIL' }}",
    ),
    "again": rows(
        ("--again=yes", "--again takes no value"),
        "--again",
        lambda effect: len(effect.requests) == 3,
        body=FAILS_ONCE,
        before=f"%%llm --each letters --on-error keep -o kept\n{FAILS_ONCE}",
    ),
    "sample": rows(
        ("--sample 0", "--sample takes a whole number of at least 1"),
        "--sample 2",
        lambda effect: len(effect.requests) == 2,
    ),
    "dedup": rows(
        ("--dedup=yes", "--dedup takes no value"),
        "--dedup",
        lambda effect: len(effect.requests) == 1 and effect.value("_llm.values") == ["same"] * 3,
        True, "yes", body="SAY {{ item and 'same' }}",
    ),
    "order": rows(
        ("--order random", "--order takes one of given, prefix"),
        "--order prefix",
        lambda effect: prompts(effect) == ["a SAY 1", "a SAY 3", "b SAY 2"],
        "prefix", "random", "--concurrency 1", body="{{ 'ab'[index % 2] }} SAY {{ index + 1 }}",
    ),
    "budget": rows(
        ("--budget 0", "--budget takes US dollars of more than 0 such as 2.50, or limits such as"),
        "--budget requests=2",
        lambda effect: len(effect.requests) == 2 and "BudgetError" in effect.error,
        {"requests": 2}, {"rows": 2}, "--concurrency 1",
    ),
    "on": rows(
        ("--on 127.0.0.1:8786", "--on takes dask (the current client), or the address of a scheduler"),
        "--on tcp://127.0.0.1:9",
        lambda effect: effect.requests == [] and "tcp://127.0.0.1:9" in effect.error,
        "tcp://127.0.0.1:9", "127.0.0.1:9",
    ),
    "forward_env": rows(
        ("--forward-env KEY=sk-value", "--forward-env takes the names of environment variables"),
        "--forward-env NO_SUCH_NAME",
        lambda effect: effect.requests == [] and "NO_SUCH_NAME" in effect.error,
        "NO_SUCH_NAME", "A=b", "--on tcp://127.0.0.1:9",
    ),
    "batch": Row(
        ("--each letters --batch=yes", "--batch takes no value"),
        ("--each letters --batch --concurrency 4", "--batch and --concurrency exclude each other"),
        f"--each letters {NOWHERE} --batch",
        refused,
        body="SAY {{ item }}",
        before=OF_NO_BATCHES,
        configured=ONE_CELL,
    ),
    "wait": Row(
        ("--each letters --batch --wait=yes", "--wait takes no value"),
        ("--each letters --wait", "--wait needs --batch."),
        f"--each letters {NOWHERE} --batch --wait",
        refused,
        body="SAY {{ item }}",
        before=OF_NO_BATCHES,
        configured=ONE_CELL,
    ),
    "poll": Row(
        ("--each letters --batch --poll 0", "--poll takes more than 0 seconds, not '0'"),
        ("--each letters --poll 5", "--poll needs --batch."),
        f"--each letters {NOWHERE} --batch --poll 5",
        refused,
        body="SAY {{ item }}",
        before=OF_NO_BATCHES,
        configured=(5, f"--each letters {NOWHERE} --batch"),
        wrongly="soon",
    ),
    "batch_file": Row(
        ("--each letters --batch-file ''", "--batch-file takes a value that is not empty"),
        ("--each letters --batch-file rows.jsonl --wait", "--batch-file and --wait exclude each other"),
        "--each letters --again --batch-file rows.jsonl",
        lambda effect: effect.requests == [] and effect.value("len(open('rows.jsonl').readlines())") == 3,
        body="SAY {{ item }}",
        before=f"{LETTERS}\n{IN_A_FOLDER}",
        configured=ONE_CELL,
    ),
    "code": Row(
        ("--code=yes", "--code takes no value"),
        ("--code --as int", "--as and --code exclude each other"),
        "--code",
        lambda effect: effect.next_input == "x = 1",
        body="SAY ```python\\nx = 1\\n```",
        configured=(True, ""),
        wrongly="yes",
    ),
    "background": Row(
        ("-b=yes", "-b takes no value"),
        ("-b --dry-run", "--background and --dry-run exclude each other"),
        "-b",
        lambda effect: effect.result == "Job",
        configured=(True, ""),
        wrongly="yes",
    ),
    "stream": Row(
        ("--stream=yes", "--stream takes no value"),
        ("--stream --no-stream", "--stream and --no-stream exclude each other"),
        "--stream",
        lambda effect: effect.body["stream"] is True,
        before="%config LLMMagics.stream = False",
        configured=(True, ""),
        wrongly="yes",
    ),
    "no_stream": Row(
        ("--no-stream=yes", "--no-stream takes no value"),
        ("--no-stream -p stream_options={}", "--no-stream and -p stream_options set the same field"),
        "--no-stream",
        lambda effect: "stream" not in effect.body,
        configured=(True, ""),
        wrongly="yes",
    ),
    "show": Row(
        ("--show pretty", "--show takes one of markdown, text, code, json, none"),
        Never("any answer can be shown in each of these ways"),
        "--show text",
        lambda effect: "Hello" in effect.shown and not effect.ran.of_type("text/markdown"),
        configured=("text", ""),
        wrongly="pretty",
    ),
    "record": Row(
        ("--record always", "--record takes one of off, once, only, new"),
        Never("whatever is asked can be recorded"),
        "--record once",
        lambda effect: effect.value(RECORDED) == ["answer"],
        before=IN_A_FOLDER,
        configured=("once", ""),
        wrongly="always",
    ),
    "record_tools": Row(
        ("--record-tools=yes --record once --tools f", "--record-tools takes no value"),
        ("--record-tools --tools f", "--record-tools needs --record"),
        "--record-tools --record once --tools f",
        lambda effect: effect.value(RECORDED) == ["answer", "tool", "answer"],
        before=IN_A_FOLDER,
        configured=(True, "--record once --tools f"),
        wrongly="yes",
    ),
    "dry_run": Row(
        ("--dry-run=yes", "--dry-run takes no value"),
        ("--dry-run -b", "--background and --dry-run exclude each other"),
        "--dry-run",
        lambda effect: effect.requests == [] and effect.shown.startswith("{") and "Nothing was sent." in effect.shown,
        configured=ONE_CELL,
    ),
    "help": Row(
        ("--help=yes", "--help takes no value"),
        Never("the page is shown, whatever else the line says"),
        "--help",
        lambda effect: effect.requests == [] and "Request parameters" in effect.shown,
        configured=ONE_CELL,
    ),
}  # fmt: skip


def test_no_option_is_forgotten() -> None:
    assert [option.name for option in OPTIONS if option.name not in ROWS] == []
    assert {option.name for option in OPTIONS} == set(ROWS)
    assert set(get_type_hints(AskOptions)) == set(CALLS)
    assert set(get_type_hints(MapOptions)) == {*CALLS, *OF_ROWS, "on_progress"}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


@pytest.fixture(scope="module")
def notebook(server: ScriptedServer) -> Iterator[Kernel]:
    with Kernel(KEY_OF_S="sk-only-for-s-0123456789") as kernel:
        kernel.run(PREAMBLE).check()
        kernel.run("registry = get_ipython()._llm_magic.registry").check()
        kernel.run(
            f"registry.add('s', 'compatible', base_url={server.url!r}, structured='grammar', api_key_env='KEY_OF_S', "
            "max_retries=0)"
        ).check()
        yield kernel


@pytest.fixture
def fresh(notebook: Kernel, server: ScriptedServer) -> Kernel:
    """A kernel without history, whose cells ask `s:m`."""
    notebook.run(
        "%config LLMMagics.model = 's:m'\n%config LLMMagics.params = {}\n%config LLMMagics.model_params = {}\n"
        "%config LLMMagics.stream = True\nregistry.aliases = {}"
    ).check()
    notebook.run("for name in ('main', 'side'):\n    get_ipython()._llm_magic.session.conversations.get(name).reset()")
    server.requests.clear()
    return notebook


def tried(kernel: Kernel, server: ScriptedServer, source: str, row: Row | None = None) -> Effect:
    """Run a cell, and return what became of it; requests for lists of models do not count."""
    if row is not None and row.before:
        kernel.run(row.before).check()
    server.requests.clear()
    ran = kernel.run(source.replace("{url}", server.url), on_input=row.stdin if row is not None else None)
    inputs = "".join(
        each["text"] for each in kernel.last_reply.get("payload", ()) if each["source"] == "set_next_input"
    )
    result = kernel.value("type(_).__name__") if ran.status == "ok" else ""
    if result == "Job":
        kernel.run("_.result(20)").check()
    sent = [request for request in server.requests if not request.path.endswith("/models")]
    shown = "\n".join("\n".join(each.get("traceback", ())) for each in ran.outputs)
    return Effect(sent, ran, kernel, shown, inputs.strip(), result)


def cell(line: str, body: str) -> str:
    return f"%%llm {line}\n{body}"


def line(options: str, body: str) -> str:
    return f"%llm {options} -- {body}"


DOORS: dict[str, Callable[[str, str], str]] = {"%%llm": cell, "%llm": line}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", ["wrong", "meaningless"])
@pytest.mark.parametrize("name", ROWS)
def test_wrong_and_meaningless(fresh: Kernel, server: ScriptedServer, name: str, case: str, door: str) -> None:
    row = ROWS[name]
    found = getattr(row, case)
    if isinstance(found, Never):
        assert len(found) > 10  # the reason
        return
    options, words = found
    effect = tried(fresh, server, DOORS[door](options, row.body))
    assert effect.ran.status == "error"
    assert words in effect.error
    assert effect.requests == []
    assert "Traceback" not in effect.error
    assert len(effect.error.splitlines()) <= 3


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ROWS)
def test_right(fresh: Kernel, server: ScriptedServer, name: str, door: str) -> None:
    row = ROWS[name]
    plain = tried(fresh, server, DOORS[door]("", row.body), row if row.before and name != "chat" else None)
    fresh.run("get_ipython()._llm_magic.session.conversations.get('main').reset()")
    if name != "out":
        assert not _seen(row, plain), "it is so without the option, too"
    assert row.check(tried(fresh, server, DOORS[door](row.right, row.body), row))


def _seen(row: Row, effect: Effect) -> bool:
    try:
        return bool(row.check(effect))
    except (AssertionError, LookupError, AttributeError, TypeError):
        return False


CONFIGURED = {
    "params": "get_ipython()._llm_magic.session.settings.params = {values}",
    "model_params": "get_ipython()._llm_magic.session.settings.model_params = {{'s:*': {values}}}",
    "an alias": "registry.aliases = {{'mine': {{'model': 's:m', **{values}}}}}\n%config LLMMagics.model = 'mine'",
}


@pytest.mark.parametrize("where", CONFIGURED)
@pytest.mark.parametrize("name", ROWS)
def test_configured(fresh: Kernel, server: ScriptedServer, name: str, where: str) -> None:
    row = ROWS[name]
    if row.before:
        fresh.run(row.before).check()
    if isinstance(row.configured, Never):
        if where == "an alias" and name == "model":
            return  # that is what it is for
        fresh.run(CONFIGURED[where].format(values={name: "x"})).check()
        effect = tried(fresh, server, cell("", row.body))
        assert "cannot set" in effect.error
        assert name in effect.error
        assert effect.requests == []
        return
    value, options = row.configured
    fresh.run(CONFIGURED[where].format(values={name: value})).check()
    effect = tried(fresh, server, cell(options, row.body), Row(*[Never("")] * 2, "", row.check, stdin=row.stdin))
    assert row.check(effect), effect.error


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not isinstance(row.configured, Never)])
def test_configured_wrongly(fresh: Kernel, server: ScriptedServer, name: str) -> None:
    row = ROWS[name]
    assert not isinstance(row.configured, Never)
    value = "object()" if type(row.wrongly) is object else repr(row.wrongly)
    fresh.run(CONFIGURED["params"].format(values=f"{{{name!r}: {value}}}")).check()
    effect = tried(fresh, server, cell(row.configured[1], row.body))
    assert effect.ran.status == "error"
    assert name.replace("_", "-") in effect.error or name in effect.error or str(row.wrongly) in effect.error
    assert effect.requests == []


# Defaults: one that this cell leaves no meaning never makes it fail

MEANINGLESS_DEFAULTS = {
    "{'regex': 'a+'}": "--as int",
    "{'as': 'int'}": "--code",
    "{'code': True}": "--choices 4,5",
    "{'chat': 'side'}": "--once",
    "{'once': True}": "-c side",
    "{'no_stream': True}": "--stream",
    "{'temperature': 1}": "-p temperature=3",
    "{'param': {'temperature': 3}}": "-t 1",
    "{'max_tokens': 5}": "-p max_completion_tokens=6",
    "{'background': True}": "--dry-run",
    "{'tool_choice': 'none', 'max_tool_rounds': 3, 'confirm': True}": "",
    "{'retries_invalid': 3}": "",
    "{'record_tools': True}": "--tools f",
    "{'record': 'off', 'record_tools': True}": "",
    "{'tool_choice': 'g'}": "--tools f",
    "{'seed': 3, 'stop': 'x', 'n': 2}": "--api responses",
    "{'reasoning_effort': 'low', 'tools': 'f'}": "--api completions",
    "{'concurrency': 4, 'patience': 5, 'on_error': 'keep', 'dedup': True, 'order': 'prefix', 'budget': 1e-9}": "",
    "{'on': 'dask', 'forward_env': ['KEY_OF_S'], 'concurrency': 'auto'}": "--once",
}


@pytest.mark.parametrize("where", CONFIGURED)
@pytest.mark.parametrize("values", MEANINGLESS_DEFAULTS)
def test_a_default_gives_way(fresh: Kernel, server: ScriptedServer, values: str, where: str) -> None:
    fresh.run(CONFIGURED[where].format(values=values)).check()
    tried(fresh, server, cell(MEANINGLESS_DEFAULTS[values], "SAY 4")).ran.check()


def test_a_default_that_the_endpoint_lacks_is_said(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run(CONFIGURED["params"].format(values="{'seed': 3, 'temperature': 0.5}")).check()
    effect = tried(fresh, server, cell("--api responses", "SAY 4"))
    assert "seed" not in effect.body
    assert effect.body["temperature"] == 0.5
    assert "--seed, which is a default, is left out: this endpoint does not take it." in effect.shown


def test_no_system_prompt(fresh: Kernel, server: ScriptedServer) -> None:
    fresh.run("%config LLMMagics.system = 'Be brief.'").check()
    try:
        with_it, without = (tried(fresh, server, cell(options, "SAY Hi")) for options in ("--once", "--once -s ''"))
    finally:
        fresh.run("%config LLMMagics.system = ''").check()
    assert [message["role"] for message in with_it.body["messages"]] == ["system", "user"]
    assert [message["role"] for message in without.body["messages"]] == ["user"]


@pytest.mark.parametrize("name", ["free", "llama3:8b"])
def test_embeddings_of_a_bare_name_at_a_url(fresh: Kernel, server: ScriptedServer, name: str) -> None:
    missing = tried(fresh, server, f"%%llm_embed -m {name} -o vectors\nsea")
    assert f"No provider answers to the model '{name}'." in missing.error
    tried(fresh, server, f"%%llm_embed -m {name} --base-url {{url}} -o vectors\nsea").ran.check()
    (request,) = server.requests
    assert (request.path, request.json["model"]) == ("/v1/embeddings", name)
    assert request.headers["authorization"] == "Bearer EMPTY"
    twice = tried(fresh, server, "%%llm_embed -m s:m --dimensions 2 -p dimensions=3\nsea")
    assert "--dimensions and -p dimensions set the same field." in twice.error
    assert twice.requests == []


# From Python


@dataclass
class Call:
    """A keyword of `LLM.ask`."""

    wrong: Any
    meaningless: Keywords | Never
    right: dict[str, Any]
    check: Check
    words: str = ""
    """What the error of the wrong value names, where that is not the keyword."""
    prompt: str = "SAY Hello"


def decline(_: object) -> bool:
    return False


CALLS: dict[str, Call] = {
    **{
        name: Call(
            object(),
            ({name: ROWS[name].configured[0], "param": {field: 1}}, f'param={{"{field}": …}} set the same field'),
            {name: ROWS[name].configured[0]},
            ROWS[name].check,
        )
        for name, field in {name: PARAMETERS[name].fields("chat")[-1] for name in PARAMETERS}.items()
    },
    "system": Call(
        object(), ({"system": "a", "param": {"instructions": "b"}}, 'param={"instructions": …}'), {"system": "Brief."},
        ROWS["system"].check,
    ),
    "images": Call(
        ["nowhere.png"], ({"images": [b"\x89PNG"], "api": "completions"}, ""), {"images": ["http://127.0.0.1/a.png"]},
        lambda effect: effect.body["messages"][-1]["content"][-1]["image_url"]["url"] == "http://127.0.0.1/a.png",
        "nowhere.png",
    ),
    "output_type": Call(
        "Citty", ({"output_type": int, "schema": "a, b"}, "exclude each other"), {"output_type": int},
        lambda effect: "response_format" in effect.body, "Citty", "SAY 4",
    ),
    "schema": Call(
        "nope", ({"schema": "a, b", "choices": ["a"]}, "exclude each other"), {"schema": "a int, b int"},
        lambda effect: "response_format" in effect.body, "nope", 'SAY {"a": 1, "b": 2}',
    ),
    "choices": Call(
        "a,,b", ({"choices": ["a", "b"], "regex": "a"}, "exclude each other"), {"choices": ["yes", "no"]},
        lambda effect: "grammar" in effect.body, prompt="SAY yes",
    ),
    "regex": Call(
        "(", ({"regex": "a", "grammar": 'root ::= "a"'}, "exclude each other"), {"regex": "[a-z]+"},
        lambda effect: "grammar" in effect.body, prompt="SAY yes",
    ),
    "grammar": Call(
        "nope", ({"grammar": 'root ::= "a"', "param": {"grammar": "b"}}, 'param={"grammar": …}'),
        {"grammar": 'root ::= "yes"'},
        lambda effect: "root ::=" in effect.body["grammar"], "nope", "SAY yes",
    ),
    "retries_invalid": Call(
        -1, ({"retries_invalid": 2}, "retries_invalid= needs an output type"),
        {"retries_invalid": 2, "output_type": int},
        lambda effect: len(effect.requests) == 3 and "Raise retries_invalid=, " in effect.error, prompt="SAY x",
    ),
    "param": Call(
        "x", ({"param": {"stream": True}}, 'param={"stream": …} is refused'),
        {"param": {"min_p": 0.1}}, ROWS["param"].check
    ),
    "header": Call("x", ALONE, {"header": {"X-Title": "mine"}}, ROWS["header"].check),
    "base_url": Call(
        "ftp://x", Never("with every model that is not in this process"), {"base_url": "{url}"},
        lambda effect: effect.body["model"] == "m", "ftp://x",
    ),
    "timeout": Call(0, ALONE, {"timeout": 7.5}, ROWS["timeout"].check),
    "retries": Call(-1, ALONE, {"retries": 1}, ROWS["retries"].check, prompt="SAY FAIL"),
    "api": Call(
        "soap", ({"api": "responses", "seed": 1}, "seed= does not exist in the Responses API"), {"api": "responses"},
        ROWS["api"].check,
    ),
    "context": Call(
        True, ({"context": ["f", "nowhere"]}, "context='nowhere': no executed cell"), {"context": ["f"]},
        ROWS["context"].check,
    ),
    "chat": Call(
        "", Never("a call continues a conversation, or none"), {"chat": "side"},
        lambda effect: "before" in texts(effect.body)[0],
    ),
    "once": Call(
        "yes", ({"chat": "side", "once": True}, "chat= and once=True exclude each other"), {"once": True},
        lambda effect: len(effect.body["messages"]) == 1,
    ),
    "no_stream": Call(
        "yes", ({"no_stream": True, "param": {"stream_options": {}}}, 'param={"stream_options": …}'),
        {"no_stream": True},
        ROWS["no_stream"].check,
    ),
    "tools": Call(
        [3], ({"tools": [f], "param": {"tools": []}}, 'param={"tools": …}'), {"tools": [f]},
        ROWS["tools"].check, "3",
    ),
    "tool_choice": Call(
        "", ({"tool_choice": "none"}, "tool_choice= needs tools="), {"tools": [f], "tool_choice": "none"},
        ROWS["tool_choice"].check,
    ),
    "max_tool_rounds": Call(
        0, ({"max_tool_rounds": 3}, "max_tool_rounds= needs tools="), {"tools": [f], "max_tool_rounds": 2},
        lambda effect: len(effect.requests) == 3 and "Raise max_tool_rounds=." in effect.error, prompt="SAY FOREVER",
    ),
    "confirm": Call(
        "yes", ({"confirm": True, "on_confirm": decline}, "confirm=True needs tools="),
        {"tools": [f], "confirm": True, "on_confirm": decline}, ROWS["confirm"].check,
    ),
    "record": Call(
        "always", Never("whatever is asked can be recorded"), {"record": "once"},
        lambda _: recorded() == ["answer"],
    ),
    "record_tools": Call(
        "yes", ({"record_tools": True, "tools": [f]}, "record_tools=True needs record="),
        {"record": "once", "record_tools": True, "tools": [f]},
        lambda _: recorded() == ["answer", "tool", "answer"],
    ),
    "on_confirm": Call(
        5, ({"confirm": False, "on_confirm": decline}, "exclude each other"), {"tools": [f], "on_confirm": decline},
        ROWS["confirm"].check, "5",
    ),
}  # fmt: skip


def recorded() -> list[str]:
    """Return the kinds of what is recorded in the working folder."""
    return [json.loads(line)["asked"]["kind"] for line in Path("llm.jsonl").read_text().splitlines()]


@pytest.fixture
def llm(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    monkeypatch.chdir(tmp_path)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    session.registry.add("s", "compatible", base_url=server.url, structured="grammar", max_retries=0)
    session.cells = ExecutedCells(a_shell("\ndef f(x: int) -> int:\n    return x"))
    llm = LLM("s:m")
    llm.ask("before SAY Hello", chat="side")
    server.requests.clear()
    yield llm
    session.close()
    api.activate(None)


def asked(llm: LLM, server: ScriptedServer, call: Call, values: dict[str, Any]) -> Effect:
    values = {name: server.url if value == "{url}" else value for name, value in values.items()}
    try:
        llm.ask(call.prompt, **values)
    except LLMError as error:
        return Effect(list(server.requests), error=f"{type(error).__name__}: {error}")
    return Effect(list(server.requests))


@pytest.mark.parametrize("name", CALLS)
def test_a_keyword(llm: LLM, server: ScriptedServer, name: str) -> None:
    call = CALLS[name]
    beside = {"retries_invalid": {"output_type": int}, "tool_choice": {"tools": [f]}, "max_tool_rounds": {"tools": [f]}}
    beside |= {"confirm": {"tools": [f]}, "on_confirm": {"tools": [f]}}
    wrong = asked(llm, server, call, {name: call.wrong, **beside.get(name, {})})
    assert wrong.requests == []
    assert (call.words or name) in wrong.error.replace("-", "_")
    if not isinstance(call.meaningless, Never):
        values, words = call.meaningless
        meaningless = asked(llm, server, call, values)
        assert words in meaningless.error
        assert meaningless.error
        assert meaningless.requests == []
    assert call.check(asked(llm, server, call, call.right))


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"on_confirm"}))
def test_a_keyword_of_every_call(llm: LLM, server: ScriptedServer, name: str) -> None:
    call = CALLS[name]
    right = {key: server.url if value == "{url}" else value for key, value in call.right.items()}
    assert call.check(asked(LLM("s:m", **right), server, call, {}))


def test_a_nearer_keyword_wins(llm: LLM, server: ScriptedServer) -> None:
    many = LLM("s:m", output_type=int, max_tokens=5, max_tool_rounds=3, chat="side", header={"X-A": "1"}, seed=1)
    effect = asked(
        many, server, CALLS["choices"],
        {"choices": ["yes", "no"], "param": {"max_completion_tokens": 6}, "header": {"X-B": "2"}, "api": "chat"},
    )  # fmt: skip
    assert effect.error == ""
    assert "max_tokens" not in effect.body
    assert effect.body["max_completion_tokens"] == 6
    assert "root ::=" in effect.body["grammar"]
    assert (effect.headers["x-a"], effect.headers["x-b"]) == ("1", "2")
    effect = asked(
        many, server, CALLS["choices"], {"choices": ["yes", "no"], "api": "responses", "param": {"grammar2": 1}}
    )
    assert "seed" not in effect.body


def test_no_system_prompt_from_python(llm: LLM, server: ScriptedServer) -> None:
    api.active_session().settings.system = "Be brief."
    llm.ask("SAY a")
    llm.ask("SAY a", system="")
    LLM("s:m", system="").ask("SAY a")
    assert [len(request.json["messages"]) for request in server.requests] == [2, 1, 1]


def test_streams_too(llm: LLM, server: ScriptedServer) -> None:
    async def all_of() -> list[object]:
        return [event async for event in llm.stream("SAY a", max_tool_rounds=2)]

    with pytest.raises(LLMError, match="max_tool_rounds= needs tools="):
        asyncio.run(all_of())
    assert server.requests == []


def test_the_setting_of_how_it_is_shown_takes_its_words_only(fresh: Kernel) -> None:
    ran = fresh.run("%llm_config show=pretty")
    assert ran.status == "error"
    assert "markdown" in ran.error
    fresh.run("%llm_config show=text").check()
    assert fresh.value("get_ipython()._llm_magic.session.settings.show") == "text"
    fresh.run("%llm_config show=markdown").check()
