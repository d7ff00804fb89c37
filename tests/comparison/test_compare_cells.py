"""`-m a,b` in cells: one prompt, a column for each model, what it binds, and what it refuses before it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from echo import echo
from servers import Answer, ScriptedServer, chunk, document, stream

from llm_magic import Comparison
from llm_magic.errors import ConfigurationError, LLMError, ModelNotFoundError, ModelsFailedError, OptionError

if TYPE_CHECKING:
    from conftest import Cells  # type: ignore[import-not-found]

BROKEN = document({"error": {"message": "out of order"}}, 500, {"retry-after": "0"})


def answers(text: str) -> Answer:
    return stream(chunk(text), chunk(finish="stop"))


def add(cells: Cells, **servers: ScriptedServer) -> None:
    for name, server in servers.items():
        cells.session.registry.add(name, "compatible", base_url=server.url, max_retries=0)


def test_each_model_answers_in_a_column_of_its_own(cells: Cells) -> None:
    with ScriptedServer(answers("One.")) as one, ScriptedServer(answers("Two.")) as two:
        add(cells, one=one, two=two)
        result = cells.run("%%llm -m one:m,two:m -o found --once\nSay {{ 1 + 1 }}.")
    assert cells["found"] == {"one:m": "One.", "two:m": "Two."}
    assert isinstance(result, Comparison)
    assert cells["_llm"] is result
    assert {name: response.text for name, response in result.responses.items()} == cells["found"]
    assert [server.requests[0].json["messages"][-1]["content"] for server in (one, two)] == ["Say 2."] * 2
    told = {title: column.told[-1] for title, column in cells.view.columns.items()}
    assert {title: (what, text) for title, (what, (text, _)) in told.items()} == {
        "one:m": ("finish", "One."),
        "two:m": ("finish", "Two."),
    }
    assert cells.view.told[-1] == ("finish", None, "")


def test_the_prompt_is_rendered_once(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("numbers = iter(range(9))")
        cells.run("%%llm -m e:a,e:b,e:c --once\nSAY {{ next(numbers) }}")
    assert cells["_llm"].value == {"e:a": "0", "e:b": "0", "e:c": "0"}
    assert next(cells["numbers"]) == 1


def test_one_that_fails_is_told_in_its_column_and_at_the_end(cells: Cells) -> None:
    with ScriptedServer(answers("One.")) as one, ScriptedServer(BROKEN) as two:
        add(cells, one=one, two=two)
        with pytest.raises(ModelsFailedError) as caught:
            cells.run("%%llm -m one:m,two:m -o found --once\nHi")
        assert caught.value.message.startswith("1 of 2 models failed. two:m: ServerFailedError: ")
        assert "out of order" in caught.value.message
        assert caught.value.response is cells["_llm"]
        assert cells["found"]["one:m"] == "One."
        assert isinstance(cells["found"]["two:m"], LLMError)
        (place, message) = next(told[1:] for told in cells.view.told if told[0] == "failed")
        assert (place, message.partition(":")[0]) == (1, "ServerFailedError")
        assert cells.view.columns["two:m"].told[-1][0] == "fail"
        assert cells.view.told[-1][0] == "finish"
        kept = cells.run("%%llm -m one:m,two:m -o kept --once --on-error keep\nHi")
    assert list(cells["kept"]) == ["one:m", "two:m"]
    assert list(kept.errors) == ["two:m"]
    assert repr(kept) == "Comparison of 2 models, 1 failed"


def test_where_all_fail_the_cell_fails_in_any_case(cells: Cells) -> None:
    with ScriptedServer(BROKEN) as one, ScriptedServer(BROKEN) as two:
        add(cells, one=one, two=two)
        with pytest.raises(ModelsFailedError, match="2 of 2 models failed"):
            cells.run("%%llm -m one:m,two:m --once --on-error keep\nHi")


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("-m e:a,", OptionError, "a name is missing after the last comma"),
        ("-m ,e:a", OptionError, "a name is missing before the first comma"),
        ("-m e:a,,e:b", OptionError, "a name is missing between two commas"),
        ("-m e:a,e:b,e:a", OptionError, "e:a stands twice"),
        ("-m e:a -m e:a", OptionError, "e:a stands twice"),
        ("-m e:a, e:b", OptionError, "Names of several models stand without spaces: -m e:a,e:b"),
        ("-m e:a ,e:b", OptionError, "does not know what to do with ',e:b'"),
        ("-m e:a,quiet", OptionError, "--show holds for the whole cell, and e:a and quiet set it differently"),
        ("-m later,e:a", OptionError, "--background holds for the whole cell, and later and e:a"),
        ("-m e:a,later --each [1]", OptionError, "--background holds for the whole cell, and e:a and later"),
        ("-m e:a,nobody", ModelNotFoundError, "No provider answers to the model 'nobody'"),
        ("-m e:a,e:b --code", OptionError, "--code and several models \\(e:a, e:b\\) exclude each other"),
        ("-m e:a,e:b --each [1] --batch", OptionError, "--batch and several models"),
        ("-m e:a,e:b --concurrency 2", OptionError, "--concurrency needs --each"),
        ("-m e:a --on-error keep", OptionError, "--on-error needs --each"),
        ("-m two", OptionError, "'e:a,e:b' names several models, where one can be asked"),
        ("-m e:a,e:b -o 1x", OptionError, "-o"),
    ],
)
def test_a_mistake_is_an_error_before_anything_is_sent(
    cells: Cells, line: str, error: type[LLMError], says: str
) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.registry.aliases = {
            "two": "e:a,e:b",
            "quiet": {"model": "e:q", "show": "none"},
            "later": {"model": "e:l", "background": True},
        }
        with pytest.raises(error, match=says):
            cells.run(f"%%llm {line} --once\nHi")
        assert server.requests == []


def test_what_the_cell_says_holds_for_aliases_that_say_it_differently(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.registry.aliases = {"quiet": {"model": "e:q", "show": "none"}}
        cells.run("%%llm -m quiet,e:a --once --show text\nSAY Hi")
    assert cells["_llm"].value == {"quiet": "Hi", "e:a": "Hi"}


def test_errors_are_kept_of_those_models_whose_alias_says_so(cells: Cells) -> None:
    with echo() as server, ScriptedServer(BROKEN) as broken:
        add(cells, e=server, broken=broken)
        cells.session.registry.aliases = {"kept": {"model": "broken:m", "on_error": "keep"}}
        for models in ("kept,e:a", "e:a,kept"):
            cells.run(f"%%llm -m {models} --once -o x\nHi")
            assert type(cells["x"]["kept"]).__name__ == "ServerFailedError"
        with pytest.raises(ModelsFailedError, match="2 of 3 models failed"):
            cells.run("%%llm -m kept,e:a,broken:n --once\nHi")
        cells.run("%%llm -m kept,e:a,broken:n --once --on-error keep\nHi")
        with pytest.raises(ModelsFailedError, match="1 of 2 models failed"):
            cells.run("%%llm -m kept,e:a --once --on-error fail\nHi")


def test_lines_begin_with_the_name_of_a_bare_provider_once(cells: Cells) -> None:
    with echo() as server, ScriptedServer(BROKEN) as broken:
        add(cells, e=server, broken=broken)
        with pytest.raises(ModelsFailedError, match=r"failed\. broken: ServerFailedError: "):
            cells.run("%%llm -m e:,broken: --once\nHi")


def test_m_twice_and_spaces_and_an_alias_with_a_comma(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.registry.aliases = {"x,y": "e:z", "x": "e:x"}
        cells.run("%%llm -m e:a -m x --once\nHi")
        assert list(cells["_llm"].responses) == ["e:a", "x"]
        cells.run('%%llm -m "e:a, e:b" --once\nHi')
        assert list(cells["_llm"].responses) == ["e:a", "e:b"]
        cells.run("%%llm -m x,y --once\nHi")
        assert cells["_llm"].model == "x,y"
        assert [request.json["model"] for request in server.requests][-1] == "z"


def test_typed_values_are_given_to_the_view_with_failures_in_place(cells: Cells) -> None:
    with ScriptedServer(answers("4")) as one, ScriptedServer(answers("four")) as two:
        add(cells, one=one, two=two)
        cells.run("%%llm -m one:m,two:m --as int -o n --once --on-error keep --retries-invalid 0\n2 + 2?")
    assert cells["n"]["one:m"] == 4
    what, values, _ = cells.view.told[-1]
    assert (what, values) == ("finish", cells["n"])
    assert type(values["two:m"]).__name__ == "InvalidValueError"
    assert cells["_llm"].responses["two:m"].text == "four"
    message = next(told[2] for told in cells.view.told if told[0] == "failed")
    assert "_llm.responses['two:m'].text" in message


def test_the_model_of_all_cells_may_be_several(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.settings.model = "e:a,e:b"
        cells.run("%%llm --once\nSAY Hi")
        assert cells["_llm"].value == {"e:a": "Hi", "e:b": "Hi"}
        cells.run("x = %llm --once -m e:c SAY One")
        assert cells["x"].text == "One"
        cells.run("y = %llm -m e:c,e:d --once SAY Two")
        assert cells["y"].value == {"e:c": "Two", "e:d": "Two"}


def test_history_is_sent_to_each_and_no_turn_is_left(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a\nSAY First")
        cells.run("%%llm -m e:a,e:b\nSAY Second")
        cells.run("%%llm -m e:a\nSAY Third")
    sent = [[message["content"] for message in request.json["messages"]] for request in server.requests]
    assert sent[1] == sent[2] == ["SAY First", "First", "SAY Second"]
    assert sent[3] == ["SAY First", "First", "SAY Third"]


def test_usage_counts_each(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a,e:b --once\nHi")
    rows = {row.model: (row.requests, row.answers) for row in cells.session.ledger.rows()}
    assert rows == {"a": (1, 1), "b": (1, 1)}


def test_a_dry_run_shows_each_request_under_its_name(cells: Cells, capsys: pytest.CaptureFixture[str]) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.run("%%llm -m e:a,e:b --dry-run -o x\nHello there")
        assert [request.path for request in server.requests] == []
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line in {"e:a", "e:b"}] == ["e:a", "e:b"]
    assert [f'"model": "{name}"' in shown for name in "ab"] == [True, True]
    assert shown.count("Nothing was sent, x is not bound.") == 2


def test_a_background_comparison_is_a_job(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        job = cells.run("%%llm -m e:a,e:b --once -b -o x\nSAY Hi")
        found = job.result(10)
        assert (type(found), cells["x"]) == (Comparison, {"e:a": "Hi", "e:b": "Hi"})
        assert repr(job) == "<Job e:a, e:b: done>"
        job = cells.run("%%llm -m e:a,e:b --once -b -o x\nSAY FAIL")
        with pytest.raises(ModelsFailedError, match="2 of 2"):
            job.result(10)
    assert cells.view.told[-1][0] == "note"


def test_what_a_comparison_lacks_is_said_with_where_it_is(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        found: Any = cells.run("%%llm -m e:a,e:b --once\nSAY *Hi*")
    with pytest.raises(AttributeError, match=r"\.responses\['e:a'\]\.text"):
        found.text  # noqa: B018
    assert found._repr_markdown_() == "**e:a**\n\n*Hi*\n\n**e:b**\n\n*Hi*"


def test_budget_is_one_for_all(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.settings.budget = {"requests": 1}
        with pytest.raises(ModelsFailedError, match="BudgetError"):
            cells.run("%%llm -m e:a,e:b --once\nHi")
        assert len(server.requests) == 1
    assert sorted(map(bool, [cells["_llm"].errors.get(name) for name in ("e:a", "e:b")])) == [False, True]


def test_a_wrong_configuration_stops_all(cells: Cells) -> None:
    with echo() as server:
        add(cells, e=server)
        cells.session.registry.aliases = {"bad": {"model": "e:a", "temprature": 1}}
        with pytest.raises((ConfigurationError, OptionError), match="temprature"):
            cells.run("%%llm -m e:b,bad --once\nHi")
        assert server.requests == []
