"""The panel over a real session: what it shows, what it changes, what it asks."""

import time
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

import pytest
from picker.backends import ANSWER, MODELS, Opened, answering, text, until
from servers import HANG, Answer, Received, ScriptedServer, document, page

from llm_magic.picker.backend import ALIASES
from llm_magic.session.plan import Cell

pytest.importorskip("ipywidgets", reason="needs ipywidgets")


@pytest.fixture
def opened() -> Iterator[Opened]:
    with ScriptedServer(answering(MODELS)) as server:
        opened = Opened(server)
        yield opened
        opened.close()


def test_it_shows_what_is_in_force(opened: Opened) -> None:
    assert opened.listed() == ["box:large", "box:Other", "box:small"]
    panel = opened.panel
    assert [label for label, _ in panel.models.options] == [
        "large · 128k tokens · retires 2999-01-31",
        "Other",
        "small · 8,192 tokens",
    ]
    assert (panel.provider.value, panel.models.value) == ("box", "box:small")
    assert text(panel.head) == "Modelbox:small"
    assert opened.status == f"small · 8,192 tokens3 models at {opened.server.url}."
    assert {name: field.value for name, field in panel.fields.items()} == dict.fromkeys(panel.fields, "")
    assert all(field.placeholder == "unset" for field in panel.fields.values())
    assert panel.bundle()["text/plain"].startswith("Model picker: box:small.")
    assert "application/vnd.jupyter.widget-view+json" in panel.bundle()


def test_what_is_picked_is_set(opened: Opened) -> None:
    opened.listed()
    panel, settings = opened.panel, opened.settings
    panel.models.value = "box:large"
    panel.fields["temperature"].value = "0.25"
    panel.fields["max_tokens"].value = " 200 "
    panel.system.value = "Be brief.\n"
    assert settings.model == "box:large"
    assert settings.params == {"temperature": 0.25, "max_tokens": 200}
    assert settings.system == "Be brief."
    assert text(panel.head) == "Modelbox:large (session)"
    assert text(panel.code).removesuffix("Copy").splitlines() == [
        "%config LLMMagics.model = 'box:large'",
        "%config LLMMagics.params = {'temperature': 0.25, 'max_tokens': 200}",
        "%config LLMMagics.system = 'Be brief.'",
    ]
    panel.fields["temperature"].value = ""
    assert settings.params == {"max_tokens": 200}
    panel.unset.click()
    assert settings.params == {}


def test_what_is_set_elsewhere_is_shown(opened: Opened) -> None:
    opened.listed()
    panel, settings = opened.panel, opened.settings
    settings.params = {"max-tokens": 7, "top_p": 0.5, "unknown": 1}
    settings.system = "Speak."
    settings.model = "box:Other"
    assert panel.fields["max_tokens"].value == "7"
    assert panel.fields["top_p"].value == "0.5"
    assert panel.system.value == "Speak."
    assert panel.models.value == "box:Other"
    panel.fields["max_tokens"].value = "8"
    assert settings.params == {"top_p": 0.5, "unknown": 1, "max_tokens": 8}


def test_the_code_does_the_same(opened: Opened) -> None:
    opened.panel.fields["temperature"].value = "0"
    opened.panel.system.value = 'Say "hi"\nand no more.'
    lines = text(opened.panel.code).removesuffix("Copy").splitlines()
    values = {name: literal_eval(value) for name, value in (line.split(" ", 1)[1].split(" = ", 1) for line in lines)}
    assert values == {
        "LLMMagics.model": "box:small",
        "LLMMagics.params": {"temperature": 0.0},
        "LLMMagics.system": 'Say "hi"\nand no more.',
    }


def test_a_wrong_value_changes_nothing_and_says_why(opened: Opened) -> None:
    panel = opened.panel
    panel.fields["max_tokens"].value = "many"
    panel.fields["temperature"].value = "-1"
    assert opened.settings.params == {}
    assert text(panel.hints) == (
        "Max tokens takes a whole number, not 'many'.Temperature takes a number of at least 0, not '-1'."
    )
    panel.fields["max_tokens"].value = "5"
    panel.fields["temperature"].value = ""
    assert opened.settings.params == {"max_tokens": 5}
    assert text(panel.hints) == ""


def test_what_wins_over_the_parameters_is_said(opened: Opened) -> None:
    opened.settings.params = {"temperature": 1, "top_p": 0.5}
    opened.settings.model_params = {"box:*": {"temperature": 0.2}}
    assert text(opened.panel.hints) == "Temperature 0.2: set for this model by its alias or LLMMagics.model_params."


def test_a_try_streams_and_leaves_no_trace(opened: Opened) -> None:
    opened.panel.fields["temperature"].value = "0.25"
    opened.panel.prompt.value = "Why? {{ nothing }} {% here %}"
    opened.panel.system.value = "Be brief."
    opened.panel.try_it.click()
    assert opened.answered() == ANSWER
    assert "<b>" not in opened.panel.answer.value
    (body,) = opened.asked()
    assert body["model"] == "small"
    assert body["temperature"] == 0.25
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why? {{ nothing }} {% here %}"},
    ]
    assert text(opened.panel.said).startswith("box:small · 21 → 12 tokens · ")
    assert text(opened.panel.usage).startswith("Used so far: 1 request · 21 → 12 tokens · ")
    assert opened.session.conversations.get("main").before(None, 20) == ()
    opened.panel.prompt._handle_custom_msg({"event": "submit"}, [])
    until(lambda: len(opened.asked()) == 2)
    opened.answered()


def test_a_try_is_shown_as_it_arrives_and_can_be_stopped() -> None:
    with ScriptedServer(answering(MODELS, pause=0.2)) as server:
        opened = Opened(server)
        panel = opened.panel
        seen: list[str] = []
        panel.answer.observe(lambda change: seen.append(change["new"]), "value")
        panel.try_it.click()
        assert panel.try_it.disabled
        assert "llm-hidden" not in panel.stop._dom_classes
        until(lambda: len(seen) >= 3)
        panel.stop.click()
        assert 0 < len(opened.answered()) < len(ANSWER)
        assert text(panel.said) == "Stopped."
        assert "llm-hidden" in panel.stop._dom_classes
        (asked,) = [item for item in server.requests if item.method == "POST"]
        assert asked.left.wait(5)
        opened.close()


def test_a_try_that_fails_says_why() -> None:
    def script(received: Received) -> Answer:
        if received.path.endswith("/models"):
            return document({"data": MODELS})
        return document({"error": {"message": "The model `small` does not exist", "code": "model_not_found"}}, 404)

    with ScriptedServer(script) as server:
        opened = Opened(server)
        opened.panel.try_it.click()
        opened.answered()
        assert "does not exist" in text(opened.panel.said)
        opened.settings.model = "nowhere-to-be-found"
        opened.panel.try_it.click()
        opened.answered()
        assert text(opened.panel.said).startswith("No provider answers to the model 'nowhere-to-be-found'.")
        assert text(opened.panel.trouble).startswith("No provider answers to the model 'nowhere-to-be-found'.")
        opened.close()


def test_opening_waits_for_no_server() -> None:
    with ScriptedServer(Answer([HANG])) as server:
        started = time.perf_counter()
        opened = Opened(server)
        assert time.perf_counter() - started < 1
        assert opened.status == "Loading the models …"
        assert "llm-spin" in opened.panel.status.value
        opened.panel.provider.value = "compatible"
        until(lambda: "Loading" not in opened.status)
        assert opened.status.startswith("compatible has no base_url.")
        assert opened.panel.models.options == ()
        opened.close()


def test_a_list_that_comes_too_late_is_not_shown() -> None:
    def script(received: Received) -> Answer:
        assert received.path.endswith("/models")
        return Answer([0.5, b'{"data": [{"id": "late"}]}'], headers={"content-type": "application/json"})

    with ScriptedServer(script) as server:
        opened = Opened(server)
        opened.panel.provider.value = "compatible"
        until(lambda: opened.registry.get("box").cached_models)
        time.sleep(0.1)
        assert opened.panel.models.options == ()
        assert opened.status.startswith("compatible has no base_url.")
        opened.close()


def test_the_reason_of_a_failure_is_told_and_refresh_asks_again() -> None:
    answers = [page("<h1>It works!</h1>"), document({"data": MODELS}), document({"data": MODELS[1:]})]
    with ScriptedServer(*answers) as server:
        opened = Opened(server)
        assert opened.listed() == []
        assert server.url in opened.status
        opened.panel.reload.click()
        assert opened.listed() == ["box:large", "box:Other", "box:small"]
        opened.panel.reload.click()
        until(lambda: "2 models" in opened.status)
        assert opened.status == f"small is in force, but is not listed there.2 models at {server.url}."
        assert opened.panel.models.value is None
        assert opened.settings.model == "box:small"
        opened.close()


def test_two_thousand_models_open_in_under_a_second() -> None:
    many = [{"id": f"org/model-{number:04}", "context_length": 32_768} for number in range(2000)]
    with ScriptedServer(answering(many)) as server:
        opened = Opened(server)
        opened.settings.model = "box:org/model-1999"
        opened.listed()
        panel = opened.panel
        assert len(panel.models.options) == 200
        assert panel.models.value == panel.models.options[0][1] == "box:org/model-1999"
        assert opened.status.endswith("200 of 2,000 models shown: search to see the others.")
        started = time.perf_counter()
        another = type(panel)(opened.backend)
        assert time.perf_counter() - started < 1
        assert len(another.models.options) == 200
        started = time.perf_counter()
        panel.search.value = "1234"
        assert time.perf_counter() - started < 0.1
        assert [value for _, value in panel.models.options] == ["box:org/model-1234"]
        assert opened.status == f"1 of 2,000 models at {server.url}."
        opened.close()


def test_aliases_can_be_picked(opened: Opened) -> None:
    opened.registry.aliases = {"calm": {"model": "box:large", "temperature": 0}, "gone": "nowhere:x"}
    panel = opened.panel
    assert panel.provider.options[-1] == ("Aliases", ALIASES)
    panel.provider.value = ALIASES
    assert [value for _, value in panel.models.options] == ["calm", "gone"]
    panel.models.value = "calm"
    assert opened.settings.model == "calm"
    assert text(panel.head) == "Modelcalm → box:large (session)"
    opened.registry.aliases = {}
    assert ("Aliases", ALIASES) not in panel.provider.options


def test_a_new_provider_appears_and_one_that_goes_is_let_go(opened: Opened) -> None:
    opened.listed()
    panel = opened.panel
    opened.registry.add("more", "compatible", base_url=opened.server.url)
    assert ("more", "more") in panel.provider.options
    panel.provider.value = "more"
    opened.listed()
    opened.registry.remove("more")
    assert ("more", "more") not in panel.provider.options
    assert panel.provider.value == "box"


def test_usage_of_cells_is_shown(opened: Opened) -> None:
    from llm_magic.options import Options
    from llm_magic.session.run import Run

    session = opened.session
    run = Run(session.plan(Cell("Hi", Options(once=True))), session.spending)

    async def nowhere(_batch: object) -> None:
        pass

    session.loop.run(run.answer(nowhere))
    session.account(run)
    assert text(opened.panel.usage) == ""
    opened.backend.cell_ended()
    assert text(opened.panel.usage).startswith("Used so far: 1 request · 21 → 12 tokens")


def test_a_panel_that_ended_says_so_and_changes_nothing(opened: Opened) -> None:
    opened.listed()
    panel = opened.panel
    panel.end("Run it again.")
    assert text(panel.trouble) == "Run it again."
    assert panel.models.disabled
    assert panel.try_it.disabled
    opened.settings.params = {"temperature": 1}
    assert panel.fields["temperature"].value == ""


def test_no_key_is_shown(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_BOX", "sk-very-secret")
    opened.registry.add("locked", "compatible", base_url=opened.server.url, api_key_env="SECRET_OF_THE_BOX")
    opened.settings.params = {"header": {"X-Api-Key": "written-out"}}
    opened.settings.model = "locked:small"
    opened.listed()
    opened.settings.params = {}
    opened.panel.try_it.click()
    opened.answered()
    panel = opened.panel
    shown = [widget.value for widget in (panel.head, panel.trouble, panel.status, panel.code, panel.said, panel.answer)]
    assert [value for value in shown if "sk-very-secret" in str(value) or "written-out" in str(value)] == []
    assert "Bearer sk-very-secret" in [item.headers.get("authorization") for item in opened.server.requests]


def test_a_secret_in_the_parameters_is_masked(opened: Opened) -> None:
    opened.settings.params = {"header": {"X-Api-Key": "written-out", "X-Team": "blue"}}
    assert "written-out" not in opened.panel.code.value
    assert "'X-Team': 'blue'" in text(opened.panel.code)


# Several models


def hidden(widget: Any) -> bool:
    return "llm-hidden" in widget._dom_classes


def removing(panel: Any) -> list[str]:
    return [button.description for button in panel.chosen.children]


def test_one_is_chosen_as_ever_until_several_are_wanted(opened: Opened) -> None:
    opened.listed()
    panel, settings = opened.panel, opened.settings
    assert (hidden(panel.models), hidden(panel.compared), panel.compare.value) == (False, True, False)
    panel.compare.value = True
    assert (hidden(panel.models), hidden(panel.compared)) == (True, False)
    assert panel.compared.value == ("box:small",)
    assert opened.status.endswith("Ctrl or ⌘ with a click chooses several; those of other providers stay chosen.")
    assert settings.model == "box:small"
    panel.compared.value = ("box:large", "box:small")
    assert settings.model == "box:small,box:large"
    assert text(panel.head) == "Modelsbox:small, box:large (session)"
    assert text(panel.code).removesuffix("Copy") == "%config LLMMagics.model = 'box:small,box:large'"
    assert removing(panel) == ["box:small ×", "box:large ×"]
    assert panel.bundle()["text/plain"].startswith("Model picker: box:small,box:large.")
    assert "Ctrl" not in opened.status
    assert opened.status.startswith("large · 128k tokens · retires 2999-01-31small · 8,192 tokens3 models")
    panel.chosen.children[0].click()
    assert settings.model == "box:large"
    assert removing(panel) == []
    assert panel.compare.value
    panel.compare.value = False
    assert (panel.models.value, hidden(panel.compared)) == ("box:large", True)


def test_those_of_another_provider_and_those_that_a_search_hides_stay_chosen(opened: Opened) -> None:
    opened.listed()
    panel, settings = opened.panel, opened.settings
    opened.registry.add("more", "compatible", base_url=opened.server.url)
    panel.compare.value = True
    panel.provider.value = "more"
    until(lambda: "Loading" not in opened.status)
    assert panel.compared.value == ()
    panel.compared.value = ("more:large",)
    assert settings.model == "box:small,more:large"
    assert panel.provider.value == "more"
    panel.search.value = "other"
    assert settings.model == "box:small,more:large"
    panel.compared.value = ("more:Other",)
    assert settings.model == "box:small,more:large,more:Other"
    panel.search.value = ""
    assert panel.compared.value == ("more:large", "more:Other")
    panel.compared.value = ("more:Other",)
    assert settings.model == "box:small,more:Other"
    panel.compare.value = False
    assert settings.model == "box:small"


def test_the_last_one_cannot_be_unchosen(opened: Opened) -> None:
    opened.listed()
    opened.panel.compare.value = True
    opened.panel.compared.value = ()
    assert opened.settings.model == "box:small"
    assert opened.panel.compared.value == ("box:small",)


def test_several_set_elsewhere_are_shown_as_chosen(opened: Opened) -> None:
    opened.listed()
    panel = opened.panel
    opened.registry.aliases = {"calm": "box:Other"}
    opened.settings.model = "box:large, calm"
    assert panel.compare.value
    assert panel.compared.value == ("box:large",)
    assert removing(panel) == ["box:large ×", "calm ×"]
    assert text(panel.head) == "Modelsbox:large, calm → box:Other (session)"
    another = type(panel)(opened.backend)
    assert (another.compare.value, another.compared.value) == (True, ("box:large",))
    panel.provider.value = ALIASES
    assert panel.compared.value == ("calm",)
    assert [button.tooltip for button in panel.chosen.children] == [
        "Do not compare box:large",
        "Do not compare calm",
    ]


def test_an_alias_with_a_comma_is_one_model_and_another_name_with_one_cannot_be_chosen() -> None:
    with ScriptedServer(answering([*MODELS, {"id": "x,y"}])) as server:
        opened = Opened(server)
        opened.listed()
        panel = opened.panel
        opened.registry.aliases = {"a,b": "box:Other"}
        opened.settings.model = "a,b"
        assert (panel.compare.value, text(panel.head)) == (False, "Modela,b → box:Other (session)")
        opened.settings.model = "box:small"
        until(lambda: "Loading" not in opened.status)
        panel.models.value = "box:x,y"
        assert (opened.settings.model, panel.models.value) == ("box:small", "box:small")
        assert text(panel.hints).startswith("box:x,y: the comma would separate models.")
        panel.models.value = "box:large"
        assert text(panel.hints) == ""
        opened.close()


def test_what_is_wrong_with_one_of_several_is_said(opened: Opened) -> None:
    opened.settings.model = "box:small,nowhere-to-be-found"
    assert text(opened.panel.trouble).startswith("No provider answers to the model 'nowhere-to-be-found'.")
    opened.settings.model = "box:small,box:small"
    assert text(opened.panel.trouble) == "box:small stands twice in 'box:small,box:small'.\nName each model once."
    assert removing(opened.panel) == ["box:small ×", "box:small ×"]
    opened.panel.chosen.children[0].click()
    assert opened.settings.model == "box:small"


def test_what_holds_for_several_is_said(opened: Opened) -> None:
    opened.settings.model = "box:small,box:large"
    assert text(opened.panel.hints) == ""
    opened.settings.params = {"temperature": 1}
    opened.settings.model_params = {"box:large": {"temperature": 0.2}}
    assert text(opened.panel.hints) == (
        "Temperature 0.2: set for box:large by its alias or LLMMagics.model_params."
        "Each of the 2 models is asked with these parameters."
    )


def test_a_try_of_several_shows_each_beside_the_others(opened: Opened) -> None:
    opened.settings.model = "box:small,box:large"
    opened.panel.try_it.click()
    assert opened.panel.try_it.disabled
    answered = opened.answered()
    assert sorted(body["model"] for body in opened.asked()) == ["large", "small"]
    first, second = answered.index("box:small"), answered.index("box:large")
    assert first < second
    assert answered.count(ANSWER) == 2
    assert answered.count("21 → 12 tokens") == 2
    assert text(opened.panel.said) == ""


def test_a_try_of_several_of_which_one_fails_says_so_in_its_place(opened: Opened) -> None:
    opened.settings.model = "box:small,nowhere-to-be-found"
    opened.panel.try_it.click()
    answered = opened.answered()
    assert ANSWER in answered
    assert "No provider answers to the model 'nowhere-to-be-found'." in answered


def test_a_try_of_several_can_be_stopped() -> None:
    with ScriptedServer(answering(MODELS, pause=0.2)) as server:
        opened = Opened(server)
        opened.settings.model = "box:small,box:large"
        opened.panel.try_it.click()
        until(lambda: text(opened.panel.answer).count("The ") == 2)
        opened.panel.stop.click()
        assert opened.answered().count("Stopped.") == 2
        assert all(item.left.wait(5) for item in server.requests if item.method == "POST")
        opened.close()
