"""The options of offline batches: what each takes, what leaves it no meaning, and what else refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from echo import echo
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import OptionError
from llm_magic.options import OF_BATCHES, AskOptions, BatchOptions, DefaultOptions, MapOptions, Options
from llm_magic.options.batches import NOT_IN_BATCHES, is_batch
from llm_magic.options.combinations import check, need_each, put_over
from llm_magic.options.keywords_in_errors import in_python, naming_keywords
from llm_magic.options.mapping import PYTHON_NAMES, from_keywords, from_mapping
from llm_magic.options.reader import help_text, parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


def test_the_group_on_the_page() -> None:
    page = help_text()
    group = page[page.index("\nOffline batches\n") : page.index("\nHow it runs and is shown\n")]
    assert [line.split()[0] for line in group.splitlines()[2:]] == ["--batch", "--wait", "--poll", "--batch-file"]
    assert OF_BATCHES == ("batch", "wait", "poll", "batch_file")
    assert page.index("\nMany rows\n") < page.index("\nOffline batches\n")


# A line


def test_a_line() -> None:
    options, _ = parse("--each rows --batch --wait --poll 2.5 -o out")
    assert (options.batch, options.wait, options.poll, options.batch_file) == (True, True, 2.5, None)
    options, _ = parse("--each rows --batch-file 'a b.jsonl'")
    assert (options.batch, options.batch_file) == (None, "a b.jsonl")
    check(options)
    need_each(options)
    assert is_batch(options)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "soon", "1m", "''"])
def test_no_time_to_poll(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--poll takes "):
        parse(f"--each rows --batch --poll {text}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--batch", "--batch needs --each."),
        ("--batch-file rows.jsonl", "--batch-file needs --each."),
        ("--wait", "--wait needs --batch."),
        ("--poll 5", "--poll needs --batch."),
        ("--each rows --wait", "--wait needs --batch."),
        ("--each rows --poll 5", "--poll needs --batch."),
        ("--each rows --concurrency 3 --poll 5", "--poll needs --batch."),
    ],
)
def test_what_is_missing(line: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        need_each(parse(line)[0])
    assert caught.value.message == words
    assert caught.value.hint.startswith(("--batch sends the rows of --each", "--each EXPR gives the inputs"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--batch -b", "--batch and --background exclude each other: --batch returns at once by itself."),
        ("--batch --concurrency auto", "the server decides how many rows of a batch it asks for at once."),
        ("--batch --patience 9", "a batch waits at the server, for as long as that takes."),
        ("--batch --on dask", "the server asks for the rows of a batch, and no worker does."),
        ("--batch --order prefix", "the server decides in which order it asks for the rows of a batch."),
        ("--batch --sample 5", "a batch is of all rows; ask for the sample first, without --batch."),
        ("--batch --as int --retries-invalid 2", "the next run asks again for invalid rows."),
        ("--batch --tools f --max-tool-rounds 3", "nobody is there to carry out what a batch's answers call;"),
        ("--batch --tools f --confirm", "nobody is there to carry out what a batch's answers call;"),
        ("--batch --tools f --record once --record-tools", "nobody is there to carry out"),
        ("--batch-file F --wait", "--batch-file and --wait exclude each other: nothing is sent, so there is nothing"),
        ("--batch-file F --poll 5", "--batch-file and --poll exclude each other: nothing is sent, so there is nothing"),
        ("--batch --batch-file F --wait", "--batch-file and --wait exclude each other"),
        ("--batch-file F -b", "the file is written at once, and nothing is sent."),
    ],
)
def test_what_excludes_what(line: str, message: str) -> None:
    options = parse(f"--each rows {line}")[0]
    need_each(options)
    with pytest.raises(OptionError) as caught:
        check(options)
    assert message in caught.value.message
    assert caught.value.hint == "Keep one of them."


@pytest.mark.parametrize(
    "line",
    [
        "-c main", "--tools f --tool-choice auto", "-i a.png", "--n 2", "-t 0 --seed 1", "--as int", "--schema 'a, b'",
        "--choices a,b", "--regex a+", "--grammar g", "--dedup", "--again", "--budget 2", "--record once", "--dry-run",
        "--timeout 5", "--retries 2", "--header A=b", "--base-url http://h/v1", "--api responses", "--show text",
        "--on-error keep", "--wait --poll 3", "--batch-file F", "--raw", "--once", "--no-stream", "-p min_p=0.1",
    ],
)  # fmt: skip
def test_what_may_stand_beside_it(line: str) -> None:
    options = parse(f"--each rows --batch {line}")[0]
    check(options)
    need_each(options)


def test_defaults_that_have_no_meaning_go() -> None:
    farther = Options(
        concurrency=4, patience=9.0, on_error="keep", order="prefix", on="dask", forward_env=("A",), retries_invalid=2,
        max_tool_rounds=8, confirm=True, record_tools=True, background=True, poll=5.0, dedup=True,
    )  # fmt: skip
    merged = put_over(Options(each="rows", batch=True), farther)
    assert merged == Options(each="rows", batch=True, on_error="keep", poll=5.0, dedup=True)
    merged = put_over(Options(each="rows", batch_file="f"), farther)
    assert merged == Options(each="rows", batch_file="f", on_error="keep", dedup=True)
    assert put_over(Options(each="rows"), farther).poll == 5.0  # silent where nothing is polled


# A configuration


def test_what_may_be_configured() -> None:
    assert from_mapping({"poll": "5"}, "LLMMagics.params") == Options(poll=5.0)
    for name in ("batch", "wait", "batch_file", "batch-file"):
        with pytest.raises(OptionError) as caught:
            from_mapping({name: True}, "LLMMagics.params")
        assert str(caught.value) == (
            f"LLMMagics.params cannot set {name!r}.\nSay --{name.replace('_', '-')} in the cell."
        )
    for value in (0, -1, True, "soon", float("nan"), [5], 10**5000):
        with pytest.raises(OptionError, match=r"^LLMMagics.params: poll must be "):
            from_mapping({"poll": value}, "LLMMagics.params")


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        ("use_offline_batch_generation", "Say --batch in the cell."),
        ("blocking", "Say --wait in the cell."),
        ("completion_window", "A batch is asked for within 24 hours: the Batch API has no other window."),
        ("polling_interval", "It is called poll here."),
        ("batch_size", "It is called concurrency here."),
    ],
)
def test_names_of_others_in_a_configuration(theirs: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        from_mapping({theirs: "24h"}, "LLMMagics.params")
    assert str(caught.value) == f"LLMMagics.params has no option {theirs}.\n{hint}"


# Keywords of LLM.batch


def read(**values: Any) -> Options:
    with naming_keywords():
        return from_keywords(values, "batch", "batch")


def test_keywords() -> None:
    assert read() == Options(batch=True)
    assert read(poll=5, on_error="keep", again=True, dedup=True, budget=2) == Options(
        batch=True, poll=5.0, on_error="keep", again=True, dedup=True, budget={"cost": 2.0}
    )
    assert read(batch_file=Path("a/b.jsonl")) == Options(batch_file="a/b.jsonl")
    assert read(batch_file=None, poll=None) == Options(batch=True)


@pytest.mark.parametrize("value", ["", 5, True, b"x", ["a"]])
def test_no_file(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^batch: batch_file must be "):
        read(batch_file=value)


@pytest.mark.parametrize("name", [*NOT_IN_BATCHES, "on_confirm", "batch", "wait", "use_batch", "completion_window"])
def test_keywords_without_a_meaning(name: str) -> None:
    for value in (4, None):
        with pytest.raises(OptionError) as caught:
            read(**{name: value})
        assert caught.value.message == f"batch has no option {name}."
        assert caught.value.hint.endswith(".")
        assert "--" not in caught.value.hint
        assert len(caught.value.hint) < 130


def test_a_keyword_with_a_hyphen_is_refused_as_well() -> None:
    for name, rows in (("max-tool-rounds", "batch"), ("batch-file", "none"), ("on-error", "none"), ("dry-run", "all")):
        with pytest.raises(OptionError, match=f"has no option {name}."):
            from_keywords({name: 4}, "call", rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        ("offline_batch_generation_polling_wait", "It is called poll here."),
        ("poll_interval", "It is called poll here."),
        ("jsonl", "It is called batch_file here."),
        ("polll", "Did you mean poll?"),
        ("max_workers", "The server decides how many rows of a batch it asks for at once."),
        ("batch_size", "The server decides how many rows of a batch it asks for at once."),
        ("max_turns", "Nobody is there to carry out what a batch's answers call; the calls come back."),
        ("limit", "A batch is of all rows: llm.map(prompt, inputs, sample=…) asks for a few of them first."),
        ("use_offline_batch_generation", "LLM.batch sends an offline batch in any case."),
        ("wait_for_completion", "batch.result() waits for it."),
        ("completion_window", "A batch is asked for within 24 hours: the Batch API has no other window."),
        ("show_progress", "It is called on_progress here."),
    ],
)
def test_names_of_others(theirs: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(**{theirs: True})
    assert caught.value.message == f"batch has no option {theirs}."
    assert caught.value.hint.startswith(hint)


def test_what_a_batch_takes_is_what_its_type_says() -> None:
    named = set(get_type_hints(BatchOptions))
    assert named >= {"poll", "batch_file", "again", "on_progress", "chat", "tools", "images", "output_type", "n"}
    assert named & {*NOT_IN_BATCHES, "batch", "wait", "on_confirm"} == set()
    assert set(get_type_hints(MapOptions)) - named == {*NOT_IN_BATCHES, "on_confirm"} - {"background", "stream", "code"}
    assert set(get_type_hints(DefaultOptions)) & set(OF_BATCHES) == {"poll"}
    assert not {*get_type_hints(AskOptions), *get_type_hints(MapOptions)} & set(OF_BATCHES)
    for name in named - {"on_progress"}:
        ours = {theirs: name for name, theirs in PYTHON_NAMES.items()}.get(name, name)
        with pytest.raises(OptionError, match=f"^batch: {name} must be|has no option|names of"):
            read(**{name: object()} if ours not in {"output_type", "image", "tools"} else {"nope": 1})


# Other calls


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        session = Session(Settings(), ProviderRegistry())
        api.activate(session)
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        yield server
        session.close()
        api.activate(None)


SENDS = "LLM.batch(prompt, inputs) sends an offline batch"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batch", f"{SENDS}; concurrency is how many rows are asked for at once."),
        ("wait", f"{SENDS}; its result() waits for it."),
        ("poll", "LLM.batch takes it: llm.batch(prompt, inputs, poll=…)."),
        ("batch_file", "LLM.batch takes it: llm.batch(prompt, inputs, batch_file=…)."),
        ("use_batch_api", f"{SENDS}."),
        ("completion_window", "A batch is asked for within 24 hours: the Batch API has no other window."),
    ],
)
def test_many_rows_and_one_answer_take_none(server: ScriptedServer, name: str, hint: str) -> None:
    llm = LLM("s:m")
    for value in (True, 5, None):
        with pytest.raises(OptionError) as caught:
            llm.map("{{ item }}", ["a"], **{name: value})  # type: ignore[arg-type] # a user's mistake
        assert str(caught.value) == f"map has no option {name}.\n{hint}"
        with pytest.raises(OptionError, match=f"^ask has no option {name}.\n(LLM.batch|A batch)"):
            llm.ask("Hi", **{name: value})  # type: ignore[arg-type] # a user's mistake
        if name != "batch":
            with pytest.raises(OptionError, match=f"^embed has no option {name}.\nLLM.embed_batch"):
                llm.embed(["a"], **{name: value})  # type: ignore[arg-type] # a user's mistake
        if name != "poll":
            with pytest.raises(OptionError, match=f"^LLM has no option {name}.\n(LLM.batch|A batch)"):
                LLM("s:m", **{name: value})  # type: ignore[arg-type] # a user's mistake
    assert server.requests == []


def test_how_often_a_batch_is_looked_at_is_a_default_of_an_llm(server: ScriptedServer) -> None:
    llm = LLM("s:m", poll=5)
    assert llm.ask("SAY yes").text == "yes"
    assert llm.map("SAY {{ item }}", ["a"]).values == ["a"]
    assert "poll" not in server.requests[0].json
    with pytest.raises(OptionError, match=r"^LLM: poll must be more than 0 seconds, not 0"):
        LLM("s:m", poll=0)


@pytest.mark.parametrize("line", ["--batch", "--wait", "--poll 5", "--batch-file rows.jsonl"])
def test_one_prompt_is_no_batch(line: str) -> None:
    with pytest.raises(OptionError, match=r"^--[a-z-]+ needs --(each|batch)\."):
        need_each(parse(line)[0])


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("Say --batch, or --batch-file FILE.", "Say LLM.batch, or batch_file=FILE."),
        ("Lower --batch N.", "Lower batch=N."),  # of embeddings
        ("--wait waits; --poll SECONDS.", "batch.result() waits; poll=SECONDS."),
        ("Leave --batch out: --each asks now.", "LLM.map asks now."),
        (
            "--batch-file FILE writes it; or leave --batch out: --each asks now.",
            "batch_file=FILE writes it; or LLM.map asks now.",
        ),
        ("%llm_batch fetch FILE reads it.", "%llm_batch fetch FILE reads it."),
    ],
)
def test_errors_name_keywords(text: str, python: str) -> None:
    assert in_python(text) == python
