"""No secret gets into the file: what holds one is answered, and not recorded, and that is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import Answer, Received, ScriptedServer, chunk, document, stream

sys.path.insert(0, str(Path(__file__).parent.parent / "secrecy"))
from canary import Canary

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMWarning
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session

DEAD = "http://127.0.0.1:9/v1"
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(Settings(record="once", record_file=str(tmp_path / "llm.jsonl")), ProviderRegistry())
    api.activate(session)
    yield session
    api.activate(None)
    session.close()


def kept(folder: Path) -> str:
    file = folder / "llm.jsonl"
    return file.read_text() if file.exists() else ""


def not_recorded(response: Response, folder: Path, canary: Canary) -> None:
    """Check that an answer is there, that it is not in the file, and that this is said."""
    assert canary.found_in(kept(folder)) == []
    assert kept(folder) == ""
    (note,) = [note for note in response.notes if note.startswith("Not recorded:")]
    assert canary.found_in(note) == []


PUT: dict[str, Callable[[Session, str, Canary], None]] = {
    "compatible, a key": lambda session, url, _: session.registry.add(
        "s", "compatible", base_url=url, api_key_env="CANARY"
    ),
    "compatible, a header": lambda session, url, _: session.registry.add(
        "s", "compatible", base_url=url, headers_env={"X-T": "Basic CANARY"}
    ),
    "compatible, an organization": lambda session, url, _: session.registry.add(
        "s", "compatible", base_url=url, organization="env:CANARY", project="env:CANARY"
    ),
    "compatible, credentials of the URL": lambda session, _, __: session.registry.add(
        "s", "compatible", base_url="env:CANARY_URL"
    ),
    "compatible, a query": lambda session, url, _: session.registry.add(
        "s", "compatible", base_url=url, default_query={"sub": "env:CANARY"}
    ),
    "vllm, a key": lambda session, url, _: session.registry.add("s", "vllm", base_url=url, api_key_env="CANARY"),
    "openai, a key": lambda session, url, _: session.registry.add("s", "openai", base_url=url, api_key_env="CANARY"),
    "azure, a key": lambda session, url, _: session.registry.add(
        "s", "azure", azure_endpoint=url.removesuffix("/v1"), base_url="", models=["m"], api_key_env="CANARY"
    ),
    "azure, a token": lambda session, url, _: session.registry.add(
        "s", "azure", azure_endpoint=url.removesuffix("/v1"), base_url="", models=["m"], azure_ad_token_env="CANARY"
    ),
}  # fmt: skip


def put(session: Session, name: str, server: ScriptedServer, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> LLM:
    from urllib.parse import quote

    monkeypatch.setenv("CANARY", canary.value)
    monkeypatch.setenv("CANARY_URL", server.url.replace("//", f"//me:{quote(canary.value, safe='')}@"))
    PUT[name](session, server.url, canary)
    return LLM("s:m", retries=0)


def says(text: str) -> Callable[[Received], Answer]:
    """Return what answers with a text, in the API in which it is asked."""

    def answer(received: Received) -> Answer:
        if received.path.partition("?")[0].endswith("/responses"):
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
            done = {"object": "response", "status": "completed", "model": "m", "output": [item]}
            return stream({"type": "response.completed", "response": done}, done=False)
        return stream(chunk(text), chunk(finish="stop"))

    return answer


@pytest.mark.parametrize("name", PUT)
def test_a_secret_that_comes_back_is_not_recorded(
    name: str, session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, spelled in enumerate(canary.spellings()):
        with ScriptedServer(says(f"It is {spelled}.")) as server:
            llm = put(session, name, server, canary, monkeypatch)
            response = llm.ask(f"Prompt {number}")
            assert any(canary.arrived_in(received) for received in server.requests)
            assert response.text.startswith("It is ")
            not_recorded(response, tmp_path, canary)
            session.registry.remove("s")


@pytest.mark.parametrize("name", PUT)
def test_an_answer_without_one_is_recorded_without_one(
    name: str, session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(received: Received) -> Answer:
        plain = says("Hello")(received)
        headers = {f"x-echo-{number}": spelled for number, spelled in enumerate(canary.spellings())}
        return Answer(plain.steps, 200, {**plain.headers, **headers, "x-request-id": f"req-{canary.value}"})

    with ScriptedServer(answer) as server:
        llm = put(session, name, server, canary, monkeypatch)
        assert not [note for note in llm.ask("Hi").notes if "recorded" in note]
        host = server.url.partition("//")[2]
    text = kept(tmp_path)
    assert text.count("\n") == 1
    assert canary.found_in(text) == []
    assert host not in text
    assert "127.0.0.1" not in text
    assert "authorization" not in text.lower()


def test_a_secret_in_a_prompt_is_not_recorded(
    session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(says("Fine.")) as server:
        llm = put(session, "compatible, a key", server, canary, monkeypatch)
        for spelled in canary.spellings():
            not_recorded(llm.ask(f"My key is {spelled}, keep it"), tmp_path, canary)
        not_recorded(llm.ask("Hi", system=f"The key is {canary.value}."), tmp_path, canary)
        not_recorded(llm.ask("Hi", param={"user": canary.value}), tmp_path, canary)
        not_recorded(llm.ask([{"role": "assistant", "content": canary.value}, {"role": "user", "content": "Hi"}]),
                     tmp_path, canary)  # fmt: skip
        assert llm.ask("Hi").text == "Fine."
    assert kept(tmp_path).count("\n") == 1


def test_a_header_of_the_call_is_a_secret(session: Session, canary: Canary, tmp_path: Path) -> None:
    with ScriptedServer(says(f"It is {canary.value}.")) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        response = LLM("s:m").ask("Hi", header={"X-Api-Key": canary.value})
        assert canary.value in response.text
        not_recorded(response, tmp_path, canary)


PLACES: dict[str, Callable[[str], Answer]] = {
    "reasoning": lambda said: stream(chunk(reasoning_content=said), chunk("Hm."), chunk(finish="stop")),
    "a call": lambda said: stream(
        chunk(tool_calls=[{**CALL, "function": {"name": "g", "arguments": json.dumps({"a": said})}}]),
        chunk(finish="tool_calls"),
    ),
    "the name of the model": lambda said: stream(
        {**chunk("Hm."), "model": said}, {**chunk(finish="stop"), "model": said}
    ),
    "a citation": lambda said: stream(
        chunk("Hm.", annotations=[{"type": "url_citation", "url": f"https://a.test/?k={said}", "title": said}]),
        chunk(finish="stop"),
    ),
    "pieces": lambda said: stream(*(chunk(character) for character in said), chunk(finish="stop")),
    "a document": lambda said: document({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}),
    "a refusal": lambda said: stream(chunk(refusal=said), chunk(finish="stop")),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_in_any_place_of_an_answer(
    place: str, session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(PLACES[place](f"Bearer {canary.value}")) as server:
        llm = put(session, "compatible, a key", server, canary, monkeypatch)
        response = llm.ask("Hi")
    assert canary.found_in(kept(tmp_path)) == []
    told = [note for note in response.notes if note.startswith("Not recorded:")]
    assert bool(told) is (kept(tmp_path) == "")


@pytest.mark.parametrize("record_tools", [False, True])
def test_a_secret_in_the_result_of_a_tool(
    record_tools: bool, session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> str:
        """Look."""
        return f"The key is {canary.value}."

    def answer(received: Received) -> Answer:
        if any(message["role"] == "tool" for message in received.json["messages"]):
            return stream(chunk("I saw it."), chunk(finish="stop"))
        return stream(chunk(tool_calls=[CALL]), chunk(finish="tool_calls"))

    with ScriptedServer(answer) as server:
        llm = put(session, "compatible, a key", server, canary, monkeypatch)
        response = llm.ask("Hi", tools=[look], record_tools=record_tools)
    assert response.text == "I saw it."
    assert canary.found_in(kept(tmp_path)) == []
    assert kept(tmp_path).count("\n") == 1, "the first round holds none"
    assert [note for note in response.notes if note.startswith("Not recorded:")]


def test_a_secret_in_a_text_that_is_embedded(
    session: Session, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vectors(received: Received) -> Answer:
        rows = [{"index": at, "embedding": [1.0]} for at in range(len(received.json["input"]))]
        return document({"data": rows, "model": "m"})

    with ScriptedServer(vectors) as server:
        llm = put(session, "compatible, a key", server, canary, monkeypatch)
        with pytest.warns(LLMWarning, match="^Not recorded: the answer, or what was asked, holds a key.$"):
            assert [list(each) for each in llm.embed([f"The key {canary.value}"])] == [[1.0]]
        assert kept(tmp_path) == ""
        llm.embed(["a"])
        assert kept(tmp_path).count("\n") == 1


def test_a_url_of_the_call_is_a_hash(session: Session, tmp_path: Path) -> None:
    with ScriptedServer(says("Fine.")) as server:
        session.registry.add("s", "compatible", base_url=DEAD)
        assert LLM("s:m").ask("Hi", base_url=server.url).text == "Fine."
        port = str(server.port)
    asked = json.loads(kept(tmp_path))["asked"]
    assert len(asked.pop("url")) == 12
    assert asked == {
        "kind": "answer", "provider": "s", "model": "m", "messages": [{"role": "user", "content": "Hi"}]
    }  # fmt: skip
    assert "127.0.0.1" not in kept(tmp_path)
    assert f":{port}" not in kept(tmp_path)


def test_the_host_of_a_server_that_failed_is_not_recorded(session: Session, tmp_path: Path) -> None:
    with ScriptedServer(document({}), says("Fine.")) as server:
        host = server.url.partition("//")[2].partition("/")[0]
        server.script[0] = document({"error": {"message": f"{host} is busy"}}, 503, {"retry-after": "0"})
        session.registry.add("s", "compatible", base_url=server.url)
        session.registry.add("dead", "compatible", base_url=DEAD, max_retries=0)
        session.registry.aliases = {"team": {"model": "dead:m", "fallbacks": ["s:m"]}}
        response = LLM("team").ask("Hi")
    assert [attempt.status for attempt in response.attempts] == [None, 503, 200]
    assert response.notes == (
        "team failed (Nothing listens at dead:m: the connection was refused); asking the next model.",
    )
    answer = json.loads(kept(tmp_path))["answer"]
    assert [attempt.get("reason") for attempt in answer["attempts"]] == ["its host is busy", None]
    assert answer["fallback"] == list(response.notes)
    assert "127.0.0.1" not in kept(tmp_path)
