"""The options of many rows: what each takes, from a line, a keyword and a configuration; and what else refuses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from echo import echo
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import OptionError
from llm_magic.options import OF_ROWS, AskOptions, DefaultOptions, MapOptions, Options
from llm_magic.options.keywords_in_errors import in_python, naming_keywords
from llm_magic.options.mapping import from_keywords, from_mapping
from llm_magic.options.reader import help_text, parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


def said(name: str, value: Any) -> Any:
    """Return what `LLM.map` reads."""
    with naming_keywords():
        return getattr(from_keywords({name: value}, "map", "all"), name)


def test_the_group_on_the_page() -> None:
    page = help_text()
    group = page[page.index("\nMany rows\n") : page.index("\nOffline batches\n") - 1]
    assert [line.split()[0] for line in group.splitlines()[2:]] == [
        "--each", *(f"--{name.replace('_', '-')}" for name in OF_ROWS)
    ]  # fmt: skip
    assert OF_ROWS[0] == "concurrency"


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("--budget 2.5", {"cost": 2.5}),
        ("--budget $2.50", {"cost": 2.5}),
        ("--budget '$2.50'", {"cost": 2.5}),
        ("--budget=$2.50", {"cost": 2.5}),
        ("--budget cost=0.001", {"cost": 0.001}),
        ("--budget tokens=100_000", {"tokens": 100_000}),
        ("--budget cost=$1,tokens=5,requests=1e3", {"cost": 1, "tokens": 5, "requests": 1000}),
        ("--budget 'tokens = 5, requests = 6'", {"tokens": 5, "requests": 6}),
    ],
)
def test_a_budget(line: str, read: Mapping[str, float]) -> None:
    assert parse(f"--each rows {line}")[0].budget == read


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "nan", "inf", "1e999", "free", "2.5€", "tokens=0", "tokens=2.5", "tokens=$5", "rows=5", "cost=",
     "=5", ",", "tokens=1,", "requests=1e400", "$", "1_", "٣٣x"],
)  # fmt: skip
def test_no_budget(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(f"--each rows --budget {text}")
    assert caught.value.message == (
        "--budget takes US dollars of more than 0 such as 2.50, or limits such as tokens=100000,requests=500, "
        f"not {text!r}."
    )


def test_a_limit_twice() -> None:
    with pytest.raises(OptionError, match="--budget takes tokens once, not 'tokens=5,tokens=6'"):
        parse("--each rows --budget tokens=5,tokens=6")
    with pytest.raises(OptionError, match="--budget takes cost once"):
        parse("--each rows --budget 1,2")


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("concurrency", 4, 4), ("concurrency", "auto", "auto"), ("concurrency", "8", 8), ("patience", 0, 0.0),
        ("patience", 2.5, 2.5), ("on_error", "keep", "keep"), ("again", True, True), ("again", False, False),
        ("sample", 20, 20), ("dedup", True, True), ("order", "prefix", "prefix"), ("budget", 2.5, {"cost": 2.5}),
        ("budget", 3, {"cost": 3.0}), ("budget", "$2", {"cost": 2.0}), ("on", "dask", "dask"),
        ("budget", {"tokens": 1e6, "cost": 1}, {"tokens": 1_000_000, "cost": 1}),
        ("on", "tls://a-b.c:8786", "tls://a-b.c:8786"), ("on", "inproc://10.0.0.1/5/1", "inproc://10.0.0.1/5/1"),
        ("forward_env", "KEY", ("KEY",)), ("forward_env", ["B", "A", "B"], ("B", "A")),
        ("forward_env", {"B", "A"}, ("A", "B")), ("forward_env", None, None), ("concurrency", None, None),
    ],
)  # fmt: skip
def test_a_keyword(name: str, value: Any, read: Any) -> None:
    found = said(name, value)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("concurrency", 0, "concurrency must be a whole number from 1 to 10,000, or auto, not 0."),
        ("concurrency", 2.0, "not 2.0."), ("concurrency", True, "not True."), ("concurrency", "many", "not 'many'."),
        ("concurrency", 10_001, "not 10001."),
        ("concurrency", [4], "not [4]."), ("concurrency", float("nan"), "not nan."),
        ("patience", -1, "patience must be a number of at least 0, not -1."), ("patience", "inf", "not 'inf'."),
        ("on_error", True, "on_error must be a text, not True."),
        ("on_error", "raise", "on_error must be one of fail, keep, not 'raise'."),
        ("again", "yes", "again must be True or False, not 'yes'."), ("dedup", 1, "True or False, not 1."),
        ("sample", 0, "sample must be a whole number of at least 1, not 0."), ("sample", 0.1, "not 0.1."),
        ("order", "random", "order must be one of given, prefix, not 'random'."),
        ("budget", 0, "budget must be US dollars of more than 0"), ("budget", True, "not True."),
        ("budget", {}, "not {}."), ("budget", {"tokens": True}, "not {'tokens': True}."), ("budget", [1], "not [1]."),
        ("budget", {"tokens": float("nan")}, "not {'tokens': nan}."), ("budget", {"cost": "1"}, "not {'cost': '1'}."),
        ("budget", {("a",): 1}, "not {('a',): 1}."), ("budget", 10**400, "budget must be US dollars"),
        ("on", "ray", "on must be dask (the current client), or the address of a scheduler such as tcp://"),
        ("on", True, 'on must be "dask", the address of a scheduler, or a distributed.Client, not True.'),
        ("on", object, "or a distributed.Client, not <class 'object'>."), ("on", "tcp:// x", "not 'tcp:// x'."),
        ("forward_env", {"KEY": "sk-1"}, "forward_env must be a list of names of environment variables, not dict."),
        ("forward_env", [1], "not list."), ("forward_env", 5, "not int."),
    ],
)  # fmt: skip
def test_a_wrong_keyword(name: str, value: Any, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        said(name, value)
    assert caught.value.message.startswith(f"map: {name} must be ")
    assert words in caught.value.message
    assert len(caught.value.message) < 250


def test_a_number_of_more_digits_than_python_writes() -> None:
    for name in ("concurrency", "sample", "patience", "budget"):
        with pytest.raises(OptionError, match=f"map: {name} must be .*, not this int"):
            said(name, 10**5000)


class Client:
    """What stands for the client of a cluster."""


Client.__module__ = "distributed.client"


def test_a_client_of_a_cluster() -> None:
    client = Client()
    assert said("on", client) is client


@pytest.mark.parametrize("value", ["KEY=sk-0123456789", "sk-0123456789", "", "A,,B", "A B", ["A", "sk-0123456789"], []])
def test_the_value_of_a_variable_is_never_repeated(value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        said("forward_env", value)
    assert str(caught.value) == (
        'forward_env= takes the names of environment variables, such as ["OPENAI_API_KEY", "HF_TOKEN"].\n'
        "Names only: their values are read where the notebook runs."
    )
    with pytest.raises(OptionError) as caught:
        from_mapping({"forward_env": value}, "LLMMagics.params")
    assert "0123456789" not in str(caught.value)
    if isinstance(value, str) and value and " " not in value:
        with pytest.raises(OptionError) as caught:
            parse(f"--each rows --forward-env {value}")
        assert caught.value.message == (
            "--forward-env takes the names of environment variables, such as OPENAI_API_KEY,HF_TOKEN."
        )


def test_defaults() -> None:
    values = {"concurrency": "auto", "patience": "5", "on-error": "keep", "dedup": True, "order": "prefix",
              "budget": 2, "on": "dask", "forward_env": "A, B"}  # fmt: skip
    assert from_mapping(values, "LLMMagics.params") == Options(
        concurrency="auto", patience=5.0, on_error="keep", dedup=True, order="prefix", budget={"cost": 2.0}, on="dask",
        forward_env=("A", "B"),
    )  # fmt: skip
    for name in ("each", "again", "sample"):
        with pytest.raises(OptionError, match=f"^LLMMagics.params cannot set '{name}'.\nSay --{name} in the cell."):
            from_mapping({name: 1}, "LLMMagics.params")


def test_a_budget_of_the_cell_takes_the_place_of_a_default() -> None:
    nearer, farther = Options(each="rows", budget={"tokens": 5}), Options(budget={"cost": 1.0})
    assert nearer.over(farther).budget == {"tokens": 5}


# What asks for one answer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        session = Session(Settings(), ProviderRegistry())
        api.activate(session)
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        yield server
        session.close()
        api.activate(None)


def ask(**options: Any) -> None:
    LLM("s:m").ask("Hi", **options)


def aask(**options: Any) -> None:
    asyncio.run(LLM("s:m").aask("Hi", **options))


def stream(**options: Any) -> None:
    async def all_of() -> list[object]:
        return [event async for event in LLM("s:m").stream("Hi", **options)]

    asyncio.run(all_of())


@pytest.mark.parametrize("call", [ask, aask, stream])
@pytest.mark.parametrize("name", [*OF_ROWS, "on_progress"])
def test_an_answer_takes_none(server: ScriptedServer, call: Callable[..., None], name: str) -> None:
    for value in (4, None):
        with pytest.raises(OptionError) as caught:
            call(**{name: value})
        assert caught.value.message == f"{call.__name__} has no option {name}."
        assert caught.value.hint == f"LLM.map takes it: llm.map(prompt, inputs, {name}=…)."
    assert server.requests == []


@pytest.mark.parametrize("name", ["each", "inputs", "rows", "dataset"])
def test_inputs_are_those_of_map(server: ScriptedServer, name: str) -> None:
    with pytest.raises(OptionError) as caught:
        ask(**{name: ["a"]})
    assert str(caught.value) == (
        f"ask has no option {name}.\n"
        "LLM.map asks one prompt over many inputs, which are its second argument: llm.map(prompt, inputs)."
    )


@pytest.mark.parametrize("name", [*OF_ROWS, "on_progress", "max_workers"])
def test_embeddings_take_none(server: ScriptedServer, name: str) -> None:
    with pytest.raises(OptionError) as caught:
        LLM("s:m").embed(["sea"], **{name: 4})  # type: ignore[arg-type] # a user's mistake
    assert caught.value.message == f"embed has no option {name}."
    assert caught.value.hint == "batch is the number of texts in one request; several run at once."
    assert server.requests == []


def test_defaults_of_an_llm(server: ScriptedServer) -> None:
    defaults: Any = {"concurrency": 4, "patience": 5, "on_error": "keep", "dedup": True, "order": "prefix",
                     "budget": 1e-9, "on": "dask", "forward_env": ["A"]}  # fmt: skip
    llm = LLM("s:m", **defaults)
    assert llm.ask("SAY yes").text == "yes"  # they are of rows, and silent elsewhere
    assert llm.embed(["sea"]).dimensions == 2
    assert "concurrency" not in server.requests[0].json
    for name in ("again", "sample", "on_progress"):
        with pytest.raises(OptionError, match=f"^LLM has no option {name}.\nLLM.map takes it"):
            LLM("s:m", **{name: 4})  # type: ignore[arg-type] # a user's mistake
    with pytest.raises(OptionError, match=r"^LLM: concurrency must be a whole number from 1"):
        LLM("s:m", concurrency=0)


# Names that other libraries have


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *((name, "concurrency") for name in
          ("max_workers", "num_workers", "batch_size", "max_concurrency", "n_jobs", "workers",
           "max_parallel_requests")),
        ("limit", "sample"), ("show_progress", "on_progress"), ("max_cost", "budget"), ("client", "on"),
        ("env", "forward_env"), ("deduplicate", "dedup"), ("max_wait", "patience"),
    ],
)  # fmt: skip
def test_names_of_others(theirs: str, ours: str) -> None:
    with pytest.raises(OptionError) as caught:
        from_keywords({theirs: 4}, "map", "all")
    assert str(caught.value) == f"map has no option {theirs}.\nIt is called {ours} here."
    with pytest.raises(OptionError) as caught:
        from_keywords({theirs: 4}, "ask")
    assert caught.value.hint == f"LLM.map takes it: llm.map(prompt, inputs, {ours}=…)."


@pytest.mark.parametrize("theirs", ["return_exceptions", "raise_on_error"])
def test_what_a_failure_does_elsewhere(theirs: str) -> None:
    with pytest.raises(OptionError) as caught:
        from_keywords({theirs: True}, "map", "all")
    assert str(caught.value) == f"map has no option {theirs}.\nIt is called on_error here: 'fail' or 'keep'."


def test_a_misspelled_name() -> None:
    with pytest.raises(OptionError, match="Did you mean concurrency"):
        from_keywords({"concurency": 4}, "map", "all")
    with pytest.raises(OptionError, match="Did you mean --concurrency"):
        parse("--each rows --concurency 4")
    with pytest.raises(OptionError, match=r"It is called concurrency here."):
        from_mapping({"max_workers": 4}, "LLMMagics.params")


def test_what_an_llm_takes_is_what_its_type_says() -> None:
    for name in MapOptions.__optional_keys__ - AskOptions.__optional_keys__:
        assert (name in DefaultOptions.__optional_keys__) == (name not in {"again", "sample", "on_progress"})


def test_every_option_of_ask_is_one_of_map() -> None:
    assert AskOptions.__optional_keys__ > {"output_type", "temperature"}
    for name in ("no_stream", "chat", "tools", "images"):
        from_keywords({name: {"tools": [len], "images": "a.png", "chat": "x"}.get(name, True)}, "map", "all")
    for name in ("stream", "show", "code", "background", "dry_run", "each"):
        with pytest.raises(OptionError, match=f"map has no option {name}."):
            from_keywords({name: True}, "map", "all")


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("Say --on-error keep, or --order prefix.", 'Say on_error="keep", or order="prefix".'),
        ("--concurrency N; --concurrency auto finds it.", 'concurrency=N; concurrency="auto" finds it.'),
        ("Raise --budget, or leave --dedup and --again out.", "Raise budget=, or leave dedup=True and again=True out."),
        ("--on dask: no client.", 'on="dask": no client.'),
        ("--on tcp://127.0.0.1:9: nobody answers.", 'on="tcp://127.0.0.1:9": nobody answers.'),
        ("--each EXPR gives the inputs.", "inputs gives the inputs."),
        ("--each: a generator raised.", "inputs: a generator raised."),
        ("--patience SECONDS, --sample N, --forward-env A,B.", 'patience=SECONDS, sample=N, forward_env=["A", "B"].'),
        ("%%llm --dry-run shows what --each asks.", "%%llm --dry-run shows what inputs asks."),
    ],
)
def test_errors_name_keywords(text: str, python: str) -> None:
    assert in_python(text) == python
