"""An `LLM` in another process: it asks the same provider at the same URL, with the key of its own environment."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from echo import echo
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


THERE = """
import pickle, sys
from llm_magic import LLM, api
with open(sys.argv[1], "rb") as file:
    llm = pickle.load(file)
if len(sys.argv) > 2:
    exec(sys.argv[2])
print(repr(llm.ask("SAY Hello").text))
print([(row.provider, row.model, row.requests) for row in api.usage()])
"""


def ask_there(llm: Any, folder: Path, first: str = "", **variables: str) -> str:
    """Return what a fresh process prints that is given the pickle, and runs `first` before it asks."""
    file = folder / "llm.pickle"
    file.write_bytes(pickle.dumps(llm))
    environment = {name: value for name, value in os.environ.items() if "KEY" not in name} | variables
    command = [sys.executable, "-c", THERE, str(file), *([first] if first else [])]
    done = subprocess.run(  # noqa: S603 - this very Python
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def add(session: Session, server: ScriptedServer, **settings: Any) -> None:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0, **settings)


def test_a_fresh_process_asks_the_same_provider_with_its_own_key(
    session: Session, server: ScriptedServer, tmp_path: Path
) -> None:
    add(session, server, api_key_env="THEIR_KEY", default_headers={"X-A": "1"}, headers_env={"X-B": "Bearer THEIR_KEY"})
    said = ask_there(LLM("s:m", temperature=0), tmp_path, THEIR_KEY="of-there")
    assert said == "'Hello'\n[('s', 'm', 1)]\n"
    (request,) = server.requests
    assert request.json["model"] == "m"
    headers = request.headers
    assert (headers["authorization"], headers["x-a"], headers["x-b"]) == ("Bearer of-there", "1", "Bearer of-there")


def test_a_key_that_is_missing_there_is_named_in_two_lines(
    session: Session, server: ScriptedServer, tmp_path: Path
) -> None:
    add(session, server, api_key_env="THEIR_KEY")
    said = ask_there(LLM("s:m"), tmp_path)
    assert "ConfigurationError: s.api_key_env: the environment variable THEIR_KEY is not set." in said
    assert server.requests == []


def test_no_value_of_the_environment_is_in_the_pickle(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "hidden-value-one")
    monkeypatch.setenv("OUR_URL", server.url.replace("//", "//me:hidden-value-two@"))
    session.registry.add("s", "compatible", base_url="env:OUR_URL", api_key_env="OUR_KEY")
    session.settings.params = {"header": {"X-Api-Key": "env:OUR_KEY"}}
    llm = LLM("s:m", header={"X-C": "env:OUR_KEY"})
    assert llm.ask("SAY yes").text == "yes"
    pickled = pickle.dumps(llm)
    assert b"hidden-value" not in pickled
    assert b"OUR_KEY" in pickled


def test_aliases_parameters_and_their_precedence_travel(
    session: Session, server: ScriptedServer, tmp_path: Path
) -> None:
    add(session, server)
    session.registry.add("other", "compatible", base_url="http://127.0.0.1:1/v1", max_retries=0)
    registry, settings = session.registry, session.settings
    registry.aliases = {
        "quick": {"model": "careful", "top_p": 0.5},
        "careful": {"model": "other:m", "fallbacks": ["last"], "temperature": 0.25},
        "last": {"model": "s:m", "seed": 7},
        "unrelated": {"model": "other:m", "header": {"X-Api-Key": "hidden-value"}},
    }
    settings.params = {"max_tokens": 5, "temperature": 1}
    settings.model_params = {"s:*": {"presence_penalty": 1}, "gpt-*": {"header": {"X-Api-Key": "hidden-value"}}}
    settings.system = "Be brief."
    llm = LLM("quick")
    here = llm.ask("SAY Hello")
    there = ask_there(llm, tmp_path)
    assert there.startswith("'Hello'\n"), there
    one, two = (request.json for request in server.requests)
    assert one == two
    assert (one["seed"], one["presence_penalty"], one["max_tokens"]) == (7, 1, 5)
    assert here.model == "last"


def test_what_the_session_sets_wins_there_as_here(server: ScriptedServer, tmp_path: Path) -> None:
    """An alias of the profile stands below parameters that the session sets."""
    from traitlets.config import Config

    spec = {"s": {"class": "compatible", "base_url": server.url}}
    aliases = {"a": {"model": "s:m", "temperature": 0.25, "top_p": 0.5}}
    settings = Settings(config=Config({"ProviderRegistry": {"providers": spec, "aliases": aliases}}))
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    try:
        settings.params = {"temperature": 1}
        llm = LLM("a")
        llm.ask("SAY Hello")
        ask_there(llm, tmp_path)
    finally:
        session.close()
        api.activate(None)
    one, two = (request.json for request in server.requests)
    assert one == two
    assert (one["temperature"], one["top_p"]) == (1, 0.5)


def test_a_price_of_a_file_travels_as_data(session: Session, server: ScriptedServer, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"s:m": {"input": 2.5, "output": 10}}')
    session.registry.price_file = str(prices)
    add(session, server)
    made = pickle.loads(pickle.dumps(LLM("s:m")))  # noqa: S301 - our own
    prices.unlink()
    assert made._carried is not None
    assert made._carried.data.providers["s"]["prices"] == {"m": {"input": 2.5, "output": 10}}


def test_openai_at_the_url_of_the_environment(
    session: Session, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "hidden-value")
    pickled = LLM("openai:m", record="off")
    monkeypatch.undo()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    said = ask_there(pickled, tmp_path, "import os; del os.environ['OPENAI_BASE_URL']", OPENAI_API_KEY="of-there")
    assert said.startswith("'Hello'\n"), said
    assert server.requests[0].headers["authorization"] == "Bearer of-there"


def test_azure_at_the_address_of_the_environment(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://ours.openai.azure.com")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    made = pickle.loads(pickle.dumps(LLM("azure:m")))  # noqa: S301 - our own
    assert made._carried.data.providers["azure"] == {
        "class": "azure",
        "azure_endpoint": "https://ours.openai.azure.com",
        "api_version": "2024-10-21",
    }


def test_it_wins_over_what_is_configured_there_for_itself_alone(
    session: Session, server: ScriptedServer, tmp_path: Path
) -> None:
    add(session, server)
    first = (
        "api.registry().add('s', 'compatible', base_url='http://127.0.0.1:1/v1', max_retries=0)\n"
        "try: LLM('s:m').ask('Hi')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    said = ask_there(LLM("s:m"), tmp_path, first)
    assert said == "ConnectionFailedError\n'Hello'\n[('s', 'm', 2)]\n"


def test_a_pickle_of_a_pickle_still_knows(session: Session, server: ScriptedServer, tmp_path: Path) -> None:
    add(session, server)
    again = "llm = pickle.loads(pickle.dumps(llm)); import copy; llm = copy.deepcopy(copy.copy(llm))"
    assert ask_there(LLM("s:m"), tmp_path, again).startswith("'Hello'\n")


def test_many_that_share_their_settings_share_a_session(session: Session, server: ScriptedServer) -> None:
    add(session, server)
    one, two = pickle.dumps(LLM("s:m")), pickle.dumps(LLM("s:m", temperature=0))
    api.activate(None)  # as in another process
    try:
        made = [pickle.loads(each) for each in (one, two, one)]  # noqa: S301 - our own
        assert len({id(llm._session()) for llm in made}) == 1
        assert [llm.ask("SAY Hello").text for llm in made] == ["Hello"] * 3
        assert made[0]._session() is not session
    finally:
        for each in api._of_carried.values():
            each.close()
        api._of_carried.clear()
        api.activate(session)


def test_in_the_process_that_made_it_it_stays_with_the_session(session: Session, server: ScriptedServer) -> None:
    add(session, server)
    made = pickle.loads(pickle.dumps(LLM("s:m")))  # noqa: S301 - our own
    session.settings.system = "Set afterwards."
    made.ask("SAY Hello")
    assert server.requests[0].json["messages"][0]["content"] == "Set afterwards."
    assert [(row.model, row.requests) for row in api.usage()] == [("m", 1)]


def test_it_is_not_pickled_without_its_provider(session: Session, server: ScriptedServer) -> None:
    import openai

    session.registry.register("ready", client=openai.AsyncOpenAI(base_url=server.url, api_key="hidden-value"))
    with pytest.raises(pickle.PicklingError) as caught:
        pickle.dumps(LLM("ready:m"))
    assert str(caught.value) == (
        "The provider ready was registered as an object, and only settings travel.\n"
        'Make it from settings: registry().add("ready", "compatible", base_url="…", '
        'api_key_env="NAME_OF_A_VARIABLE").'
    )
    add(session, server)
    pickle.dumps(LLM("s:m"))  # what it does not lead to is no matter


def test_copies_need_nothing_to_travel(session: Session, server: ScriptedServer) -> None:
    import openai

    session.registry.register("ready", client=openai.AsyncOpenAI(base_url=server.url, api_key="none"))
    llm = LLM("ready:m", header={"X-Api-Key": "hidden-value"})
    for made in (copy.copy(llm), copy.deepcopy(llm)):
        assert made.ask("SAY Hello").text == "Hello"
    session.loop.run(session.registry.get("ready").client().close())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"base_url": "http://me:hidden-value@h/v1"}, "s.base_url holds a secret, and a secret is not pickled."),
        (
            {"base_url": "http://h/v1", "http_client_kwargs": {"proxy": "http://me:hidden-value@p"}},
            "s.http_client_kwargs holds a secret, and a secret is not pickled.",
        ),
        (
            {"base_url": "http://h/v1", "http_client_kwargs": {"verify": object()}},
            "s.http_client_kwargs holds dict objects, which do not travel.",
        ),
        (
            {"base_url": "http://h/v1", "http_client": "__main__:client"},
            "s.http_client is made in this notebook, which is not there.",
        ),
    ],
)
def test_a_setting_that_cannot_travel_is_named(session: Session, settings: dict[str, Any], line: str) -> None:
    session.registry.add("s", "compatible", **settings)
    with pytest.raises(pickle.PicklingError) as caught:
        pickle.dumps(LLM("s:m"))
    assert str(caught.value).startswith(line), caught.value
    assert "hidden-value" not in str(caught.value)


def test_a_class_that_cannot_be_imported_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(CompatibleProvider):
        kind = "tested"

    monkeypatch.setattr(ProviderRegistry, "_build", lambda _self, name, _spec: Local(name=name, base_url="http://h/v1"))
    session.registry.add("s", "compatible", base_url="http://h/v1")
    with pytest.raises(pickle.PicklingError, match=r"The class of the provider s is .*Local, which another process"):
        pickle.dumps(LLM("s:m"))


def test_an_http_client_that_is_missing_there_is_said_there(
    session: Session, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(session, server, http_client="only_here:client")
    said = ask_there(LLM("s:m"), tmp_path)
    assert "only_here:client cannot be imported: ModuleNotFoundError" in said


def test_a_project_that_is_wrong_is_said_when_it_is_pickled(session: Session) -> None:
    session.registry.problem = ConfigurationError("The file is wrong.", "Correct it.")
    with pytest.raises(ConfigurationError, match="The file is wrong"):
        pickle.dumps(LLM("openai:m"))


def test_files_are_named_by_their_whole_path(
    session: Session, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add(session, server)
    session.settings.chat_file = "chats.sqlite"
    made = pickle.loads(pickle.dumps(LLM("s:m", record="once")))  # noqa: S301 - our own
    magics = made._carried.data.magics
    assert magics["chat_file"].value == str(tmp_path / "chats.sqlite")
    assert magics["record_file"].value == str(tmp_path / "llm.jsonl")
