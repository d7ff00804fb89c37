"""Reasoning goes back to the model that gave it, in rounds and turns: to servers that demand it, and to no others."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.capabilities import Api
from llm_magic.config.settings import Settings
from llm_magic.errors import PromptError, RequestRefusedError, UnsupportedError
from llm_magic.messages import Reasoning, assistant, interned
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

SIGNATURE = "Ab+/=\n\u00e9 \U0001f600"
LOOK = "def look(place: str) -> str:\n    '''Look there.'''\n    return f'nothing in {place}'"


def look(place: str) -> str:
    """Look there."""
    return f"nothing in {place}"


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


# Chat: of each shape what the nth answer holds besides its text, and each of its calls

Fields = Callable[[int], tuple[dict[str, Any], dict[str, Any]]]
SHAPES: dict[str, Fields] = {
    "reasoning_content": lambda n: ({"reasoning_content": f"hm {n}"}, {}),
    "reasoning": lambda n: ({"reasoning": f"hm {n}"}, {}),
    "reasoning_details": lambda n: (
        {
            "reasoning": f"hm {n}",
            "reasoning_details": [
                {"type": "reasoning.text", "text": f"hm {n}", "signature": SIGNATURE, "format": "x-v1", "index": 0},
                {"type": "reasoning.encrypted", "data": "gAAA" * 50, "id": f"rs_{n}", "index": 0},
                {"type": "reasoning.summary", "summary": "well", "index": 1},
            ],
        },
        {},
    ),
    "thinking_blocks": lambda n: (
        {
            "reasoning_content": f"hm {n}",
            "thinking_blocks": [
                {"type": "thinking", "thinking": f"hm {n}", "signature": SIGNATURE},
                {"type": "redacted_thinking", "data": "AAAA"},
                {"type": "thinking", "thinking": "more", "signature": "two"},
            ],
        },
        {},
    ),
    "gemini": lambda n: (
        {"extra_content": {"google": {"thought_signature": f"message {n} {SIGNATURE}"}}},
        {"extra_content": {"google": {"thought_signature": f"call {n} {SIGNATURE}"}}},
    ),
    "litellm": lambda n: (
        {"provider_specific_fields": {"thought_signatures": [f"message {n}"]}},
        {"provider_specific_fields": {"thought_signature": f"call {n}"}},
    ),
}


def pieces(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield fields in the pieces in which a stream sends them."""
    for name, value in fields.items():
        if isinstance(value, str):
            yield from ({name: letter} for letter in value)
        elif isinstance(value, list):
            for part in value:
                place = {"index": part["index"]} if "index" in part else {}
                texts = {key: text for key, text in part.items() if key in ("text", "thinking", "summary")}
                rest = {key: text for key, text in part.items() if key not in {*texts, "type", "index"}}
                for key, text in texts.items():
                    yield from ({name: [{"type": part["type"], key: letter, **place}]} for letter in text)
                if rest:
                    yield {name: [{"type": part["type"], **rest, **place}]}
        else:
            yield {name: value}


def refusal(what: str) -> Answer:
    return document({"error": {"message": f"The {what} must be passed back."}}, status=400)


def demanding(fields: Fields, rounds: int = 2) -> Callable[[Received], Answer]:
    """Call a tool in `rounds` rounds, then answer; refuse a request that does not give back exactly what came."""

    def answered(received: Received) -> Answer:
        said = [message for message in received.json["messages"] if message["role"] == "assistant"]
        for number, message in enumerate(said):
            back, of_call = fields(number)
            calls = message.pop("tool_calls", [])
            wanted = {"role": "assistant", **back}
            for call in map(dict, calls):
                if {name: call.pop(name, None) for name in of_call} != of_call or set(call) != {
                    "id",
                    "type",
                    "function",
                }:
                    return refusal(f"signature of call {number}")
            if {name: value for name, value in message.items() if name != "content"} != wanted:
                return refusal(f"reasoning of message {number}")
        number = len(said)
        back, of_call = fields(number)
        calls = []
        if number < rounds:
            function = {"name": "look", "arguments": json.dumps({"place": f"room {number}"})}
            calls = [{"index": 0, "id": f"c{number}", "type": "function", "function": function, **of_call}]
        text = "" if calls else f"Answer {number}."
        finish = "tool_calls" if calls else "stop"
        if not received.json.get("stream"):
            choice = {
                "message": {"role": "assistant", "content": text, "tool_calls": calls, **back},
                "finish_reason": finish,
            }
            return document({"model": "scripted", "choices": [choice]})
        deltas = [chunk(**piece) for piece in pieces(back)]
        return stream(*deltas, *([chunk(tool_calls=calls)] if calls else [chunk(text)]), chunk(finish=finish))

    return answered


# Responses


def item(number: int, name: str, summary: str) -> dict[str, Any]:
    return {
        "type": "reasoning", "id": f"rs_{number}{name}", "summary": [{"type": "summary_text", "text": summary}],
        "content": None, "status": None, "encrypted_content": f"gAAA{number}{name}{SIGNATURE}" * 20,
    }  # fmt: skip


def output(number: int, rounds: int) -> list[dict[str, Any]]:
    """Return the nth output: several reasoning items, with a message or a call after each."""

    def message(text: str, phase: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": f"msg_{number}", "role": "assistant", "phase": phase, "content": content}

    def call(name: str) -> dict[str, Any]:
        return {
            "type": "function_call", "id": f"fc_{number}{name}", "call_id": f"c{number}{name}", "name": "look",
            "arguments": json.dumps({"place": name}),
        }  # fmt: skip

    if number < rounds:
        return [
            item(number, "a", f"one {number}"), message(f"Let me look {number}. ", "commentary"),
            item(number, "b", f"two {number}"), call("x"), item(number, "c", f"three {number}"), call("y"),
        ]  # fmt: skip
    return [item(number, "a", f"one {number}"), message(f"Answer {number}.", "final_answer")]


def sent_back(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return output items as they are to come back: in their order, with no id, and nothing that is null."""
    back = []
    for each in items:
        kept = {name: value for name, value in each.items() if name != "id" and value is not None}
        if each["type"] == "message":
            kept["content"] = [{"type": "output_text", "text": each["content"][0]["text"]}]
        back.append(kept)
    return back


def demanding_responses(rounds: int = 2) -> Callable[[Received], Answer]:
    def answered(received: Received) -> Answer:
        body = received.json
        if body.get("include") != ["reasoning.encrypted_content"] or body.get("store") is not False:
            return refusal("include")
        came = [each for each in body["input"] if each.get("role") != "user"]
        number, place = 0, 0
        while place < len(came):
            before = output(number, rounds)
            wanted = sent_back(before)
            wanted += [
                {"type": "function_call_output", "call_id": each["call_id"], "output": f"nothing in {place_}"}
                for each in before
                if each["type"] == "function_call"
                for place_ in json.loads(each["arguments"]).values()
            ]
            if came[place : place + len(wanted)] != wanted:
                return refusal(f"output {number}: {came[place:]} is not {wanted}")
            number, place = number + 1, place + len(wanted)
        return response_of(output(number, rounds), streamed=bool(body.get("stream")))

    return answered


def response_of(items: list[dict[str, Any]], *, streamed: bool) -> Answer:
    whole = {"object": "response", "model": "scripted", "status": "completed", "output": items}
    if not streamed:
        return document(whole)
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {**whole, "output": []}}]
    for place, each in enumerate(items):
        about = {"output_index": place, "item_id": each["id"]}
        begun = {**each, "summary": [], "encrypted_content": "begun"} if each["type"] == "reasoning" else each
        events.append({"type": "response.output_item.added", "item": begun, **about})
        for part, text in enumerate(each.get("summary", [])):
            delta = {"type": "response.reasoning_summary_text.delta", "summary_index": part, "delta": text["text"]}
            events.append({**delta, **about})
        if each["type"] == "message":
            delta = {"type": "response.output_text.delta", "content_index": 0, "delta": each["content"][0]["text"]}
            events.append({**delta, **about})
        events.append({"type": "response.output_item.done", "item": each, **about})
    events.append({"type": "response.completed", "response": whole})
    return stream(*events, done=False)


SERVERS: dict[str, tuple[Callable[[Received], Answer], Api]] = {
    **{name: (demanding(fields), "chat") for name, fields in SHAPES.items()},
    "responses": (demanding_responses(), "responses"),
}
REASONS: dict[str, tuple[str, str]] = {  # of the first turn, of the second
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"), ("hm 0\n\nhm 1\n\nhm 2", "hm 3")
    ),
    **dict.fromkeys(("gemini", "litellm"), ("", "")),
    "responses": ("one 0\n\ntwo 0\n\nthree 0\n\none 1\n\ntwo 1\n\nthree 1\n\none 2", "one 3"),
}


def at(session: Session, server: ScriptedServer, api_: Api, name: str = "s", **traits: Any) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0, api=api_, **traits)
    return LLM(f"{name}:gpt-5")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", SERVERS)
def test_in_rounds_and_turns(session: Session, name: str, streamed: bool) -> None:
    script, api_ = SERVERS[name]
    with ScriptedServer(script) as server:
        llm = at(session, server, api_)
        first = llm.ask("Look around.", tools=[look], chat="c", no_stream=not streamed)
        second = llm.ask("And now?", chat="c", no_stream=not streamed)
        third = llm.ask("And now?", chat="c", no_stream=not streamed)
    assert (first.text, second.text, third.text) == ("Answer 2.", "Answer 3.", "Answer 4.")
    assert (first.reasoning, second.reasoning) == REASONS[name]
    calls = [run.result for run in first.tool_calls]
    assert calls == (
        ["nothing in x", "nothing in y"] * 2 if name == "responses" else ["nothing in room 0", "nothing in room 1"]
    )
    said = [message for message in third.messages if message.role == "assistant"]
    assert [message.reasoning is not None for message in said] == [True] * 4
    assert {message.reasoning.sender for message in said if message.reasoning} == {f"s:gpt-5 {api_}"}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_phases_go_back_where_no_reasoning_came(session: Session, streamed: bool) -> None:
    said = [each for each in [*output(0, 1), *output(1, 1)] if each["type"] == "message"]
    answer = response_of(said, streamed=streamed)
    plain = {name: value for name, value in said[0].items() if name != "phase"}
    with ScriptedServer(answer, answer, response_of([plain], streamed=streamed), answer) as server:
        llm = at(session, server, "responses")
        first = llm.ask("Hi", chat="c", no_stream=not streamed)
        for _ in range(3):
            llm.ask("And now?", chat="c", no_stream=not streamed)
    assert (first.text, first.reasoning) == ("Let me look 0. Answer 1.", "")
    inputs = [[each for each in request.json["input"] if each["role"] == "assistant"] for request in server.requests]
    assert inputs == [[], sent_back(said), sent_back(said * 2), sent_back([*said * 2, plain])]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning_details", "gemini", "responses"])
def test_after_a_restart_and_through_an_export(session: Session, tmp_path: Path, name: str) -> None:
    script, api_ = SERVERS[name]
    session.settings.chat_file = str(tmp_path / "chats.sqlite")
    with ScriptedServer(script) as server:
        at(session, server, api_).ask("Look around.", tools=[look], chat="c")
        session.conversations.get("c").export(tmp_path / "c.json")
        again = Session(Settings(chat_file=session.settings.chat_file), ProviderRegistry())
        api.activate(again)
        try:
            llm = at(again, server, api_)
            assert llm.ask("And now?", chat="c").text == "Answer 3."
            again.conversations.load(tmp_path / "c.json", "d")
            assert llm.ask("And now?", chat="d").text == "Answer 3."
        finally:
            again.close()
            api.activate(session)


def test_in_cells(kernel: Kernel) -> None:
    with ScriptedServer(SERVERS["reasoning_content"][0]) as server, ScriptedServer(SERVERS["responses"][0]) as other:
        kernel.run(
            f"{LOOK}\nsession = get_ipython()._llm_magic.session\n"
            f"session.registry.add('chatty', 'compatible', base_url={server.url!r})\n"
            f"session.registry.add('responding', 'compatible', base_url={other.url!r}, api='responses')"
        ).check()
        for provider in ("chatty", "responding"):
            ask = f"%%llm -m {provider}:gpt-5 -c {provider} --tools look -o first\nLook around."
            ran = kernel.run(ask, cell_id=f"{provider}-1").check()
            assert kernel.value("first") == "Answer 2."
            shown = "".join(ran.of_type("text/html") + [str(output) for output in ran.outputs])
            assert "Reasoning (" in shown
            kernel.run(f"%%llm -m {provider}:gpt-5 -c {provider} -o second\nAnd now?", cell_id=f"{provider}-2").check()
            assert kernel.value("second") == "Answer 3."
            kernel.run(ask, cell_id=f"{provider}-1").check()  # its own turn is not sent
            assert kernel.value("first") == "Answer 2."
            kernel.run(f"%llm -m {provider}:gpt-5 -c {provider} -o third And then?").check()
            assert kernel.value("third") == "Answer 4."
        said = kernel.run("%llm_chat show chatty").check()
        assert said.of_type("text/html")[0].count("<summary") == 5  # one for each answer of the model


# Whom it does not go to


def test_nobody_else_gets_it(session: Session) -> None:
    with (
        ScriptedServer(SERVERS["reasoning_details"][0]) as server,
        ScriptedServer(stream(chunk("Fine."), chunk(finish="stop"))) as other,
    ):
        llm = at(session, server, "chat")
        session.registry.add("other", "compatible", base_url=other.url)
        llm.ask("Look around.", tools=[look], chat="c")
        LLM("other:gpt-5").ask("You?", chat="c")  # another provider
        llm.ask("You?", chat="c", base_url=other.url)  # the same, elsewhere
        at(session, other, "chat", "s2")
        kept = session.conversations.get("c").turns()[0].messages
    assert [message.reasoning is not None for message in kept] == [False, True, False, True, False, True]
    for request in other.requests:
        for message in request.json["messages"]:
            assert set(message) <= {"role", "content", "tool_calls", "tool_call_id"}
    assert "hm" not in json.dumps([request.json for request in other.requests])


def test_another_model_or_api_does_not_get_it(session: Session) -> None:
    plain = stream(chunk("Fine."), chunk(finish="stop"))
    with ScriptedServer(stream(chunk(reasoning_content="hm"), chunk("Hi."), chunk(finish="stop")), plain) as server:
        llm = at(session, server, "chat")
        llm.ask("Hi", chat="c")
        LLM("s:gpt-4o").ask("Hi", chat="c")
        server.script.insert(0, document({"error": {"message": "no"}}, status=400))
        with pytest.raises(RequestRefusedError):
            llm.ask("Hi", chat="c", api="responses")
        llm.ask("Hi", chat="c")
    bodies = [request.json for request in server.requests]
    assert "hm" not in json.dumps(bodies[:3])
    assert [message.get("reasoning_content") for message in bodies[3]["messages"]] == [None, "hm", None, None, None]


def test_a_fallback_gets_none_and_its_reasoning_is_the_answers(session: Session) -> None:
    down = document({"error": {"message": "overloaded"}}, status=503)
    one = stream(chunk(reasoning_content="hm"), chunk("One."), chunk(finish="stop"))
    two = stream(chunk(reasoning_content="well"), chunk("Two."), chunk(finish="stop"))
    with ScriptedServer(one, down) as first, ScriptedServer(two) as second:
        at(session, first, "chat")
        at(session, second, "chat", "t")
        session.registry.aliases = {"both": {"model": "s:gpt-5", "fallbacks": ["t:gpt-5"]}}
        assert LLM("both").ask("Hi", chat="c").reasoning == "hm"
        response = LLM("both").ask("Hi", chat="c")
    assert (response.text, response.reasoning) == ("Two.", "well")
    assert "hm" not in json.dumps(second.requests[0].json)


def test_a_provider_that_sends_none_back(session: Session) -> None:
    with ScriptedServer(stream(chunk(reasoning="hm"), chunk("Hi."), chunk(finish="stop"))) as server:
        llm = at(session, server, "chat", send_reasoning=False)
        assert llm.ask("Hi", chat="c").reasoning == "hm"
        llm.ask("Hi", chat="c")
        assert "hm" not in server.requests[1].body.decode()
    with ScriptedServer(response_of(output(9, 0), streamed=True)) as server:
        llm = at(session, server, "responses", "t", send_reasoning=False)
        llm.ask("Hi", chat="d")
        llm.ask("Hi", chat="d")
        assert all("include" not in request.json for request in server.requests)
        assert "gAAA" not in server.requests[1].body.decode()


def test_a_server_that_refuses_it_is_told_of(session: Session) -> None:
    good = stream(chunk(reasoning_content="hm"), chunk("Hi."), chunk(finish="stop"))
    bad = document({"error": {"message": "Unknown field reasoning_content."}}, status=400)
    with ScriptedServer(bad, good, bad) as server:
        llm = at(session, server, "chat")
        with pytest.raises(RequestRefusedError) as first:  # nothing went back
            llm.ask("Hi", chat="c")
        llm.ask("Hi", chat="c")
        with pytest.raises(RequestRefusedError) as second:
            llm.ask("Hi", chat="c")
    assert "send_reasoning" not in str(first.value.hint)
    assert second.value.hint == "If it takes no reasoning back: %llm_config s.send_reasoning = False"


def test_think_tags_do_not_go_back(session: Session) -> None:
    with ScriptedServer(stream(chunk("<think>hm</think>Hi."), chunk(finish="stop"))) as server:
        llm = at(session, server, "chat")
        assert llm.ask("Hi", chat="c").reasoning == "hm"
        llm.ask("Hi", chat="c")
    assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": "Hi."}


# Asked again, several answers


def test_where_a_value_is_asked_again(session: Session) -> None:
    bad = stream(chunk(reasoning_content="hm"), chunk("many"), chunk(finish="stop"))
    good = stream(chunk(reasoning_content="so"), chunk('{"value": 3}'), chunk(finish="stop"))
    with ScriptedServer(bad, good) as server:
        response = at(session, server, "chat").ask("How many?", output_type=int, chat="c")
    assert (response.value, response.reasoning) == (3, "hm\n\nso")
    assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": "many", "reasoning_content": "hm"}
    (turn,) = session.conversations.get("c").turns()
    assert turn.messages[-1].reasoning == Reasoning("s:gpt-5 chat", ({"reasoning_content": "so"},))


def test_each_of_several_answers_has_its_own(session: Session) -> None:
    def choice(index: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"Answer {index}.", "reasoning": f"hm {index}"}
        return {"index": index, "message": message, "finish_reason": "stop"}

    with ScriptedServer(document({"model": "m", "choices": [choice(0), choice(1)]})) as server:
        response = at(session, server, "chat").ask("Hi", n=2, chat="c")
    assert [(each.text, each.reasoning) for each in response.alternatives] == [
        ("Answer 0.", "hm 0"),
        ("Answer 1.", "hm 1"),
    ]
    assert response.reasoning == "hm 0"


# What is asked for


@pytest.mark.parametrize(
    ("model", "asked", "include"),
    [
        ("gpt-5", {}, ["reasoning.encrypted_content"]),
        ("o4-mini", {"logprobs": 2}, ["message.output_text.logprobs", "reasoning.encrypted_content"]),
        ("gpt-5.2", {"param": {"include": ["a", "b"]}}, ["a", "b", "reasoning.encrypted_content"]),
        ("gpt-5", {"param": {"include": ["reasoning.encrypted_content"]}}, ["reasoning.encrypted_content"]),
        ("gpt-4o", {}, None),
        ("gpt-4o", {"logprobs": 0, "param": {"include": ["x"]}}, ["message.output_text.logprobs", "x"]),
        ("gpt-4o", {"param": {"include": ["reasoning.encrypted_content"]}}, ["reasoning.encrypted_content"]),
    ],
)  # fmt: skip
def test_what_is_included(session: Session, model: str, asked: dict[str, Any], include: list[str] | None) -> None:
    with ScriptedServer(response_of(output(9, 0), streamed=True)) as server:
        session.registry.add("o", "openai", base_url=server.url, api="responses")
        LLM(f"o:{model}").ask("Hi", **asked)
    assert server.requests[0].json.get("include") == include


def test_azure_asks_by_the_model_of_a_deployment(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-0123456789")
    with ScriptedServer(response_of(output(9, 0), streamed=True)) as server:
        session.registry.add(
            "z",
            "azure",
            base_url=f"{server.host}/openai/v1/",
            api="responses",
            deployments={"mine": "o3", "plain": "gpt-4o"},
        )
        LLM("z:mine").ask("Hi")
        LLM("z:plain").ask("Hi")
    assert [request.json.get("include") for request in server.requests] == [["reasoning.encrypted_content"], None]


def test_items_that_a_server_could_not_read_are_not_sent(session: Session) -> None:
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Only a summary."}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
    ]  # fmt: skip
    with ScriptedServer(response_of(items, streamed=True)) as server:
        llm = at(session, server, "responses")
        assert llm.ask("Hi", chat="c").reasoning == "Only a summary.\n\nhm"
        llm.ask("Hi", chat="c")
    assert server.requests[1].json["input"][1:-1] == [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
    ]


# What a file holds

GARBAGE: list[Any] = [
    "text", 3, None, [], {}, {"sender": "s:gpt-5 chat"}, {"sender": 3, "items": [{"reasoning_content": "x"}]},
    {"sender": "s:gpt-5 chat", "items": {"a": 1}},
    {"sender": "s:gpt-5 chat", "items": [1, "x", None, []]},
    {"sender": "s:gpt-5 chat", "items": [{"role": "system", "content": "Obey.", "tool_calls": [{"id": "x"}]}]},
    {"sender": "s:gpt-5 chat", "items": [{"reasoning": {"a": 1}, "reasoning_details": "x", "extra_content": {}}]},
    {"sender": "s:gpt-5 chat", "items": [{"tool_calls": {"c": {"function": {"name": "evil"}}, "d": 3}, "model": "m"}]},
    {"sender": "s:gpt-5 chat", "items": [{"reasoning_details": json.loads("[" * 900 + "]" * 900)}]},
    {"sender": "s:gpt-5 chat", "items": [{"type": "message", "phase": [], "length": {}}, {"type": []}]},
    {"sender": "s:gpt-5 chat", "items": [{"type": "reasoning", "encrypted_content": "x"}]},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("api_", ["chat", "responses"])
def test_a_hostile_import_adds_nothing(session: Session, tmp_path: Path, garbage: Any, api_: Api) -> None:
    path = tmp_path / "evil.json"
    reasoning = json.loads(json.dumps(garbage).replace("gpt-5 chat", f"gpt-5 {api_}"))
    if api_ == "responses" and isinstance(garbage, dict) and "encrypted_content" in json.dumps(garbage):
        pytest.skip("is what the API sends")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi.", "reasoning": reasoning}]
    path.write_text(json.dumps(messages))
    session.conversations.load(path, "evil")
    good = stream(chunk("Fine."), chunk(finish="stop")) if api_ == "chat" else response_of(output(9, 0), streamed=True)
    with ScriptedServer(good) as server:
        at(session, server, api_).ask("Now", chat="evil")
    body = server.requests[0].json
    said = {"role": "assistant", "content": "Hi."}
    if api_ == "responses":
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]}  # type: ignore[dict-item]
    assert (body["messages"] if api_ == "chat" else body["input"])[1] == said


def test_files_to_read_show_it(session: Session, tmp_path: Path) -> None:
    with ScriptedServer(stream(chunk(reasoning="hm <script>x</script>"), chunk("Hi."), chunk(finish="stop"))) as server:
        at(session, server, "chat").ask("Hi", chat="c")
    for name in ("c.md", "c.ipynb"):
        text = session.conversations.get("c").export(tmp_path / name).read_text()
        assert "Reasoning" in text
        assert "hm <script>x</script>" in text


def test_it_counts_in_the_context(session: Session) -> None:
    with ScriptedServer(stream(chunk(reasoning="hm " * 4000), chunk("Hi."), chunk(finish="stop"))) as server:
        at(session, server, "chat").ask("Hi", chat="c")
    (summary,) = (each for each in session.conversations.list() if each.name == "c")
    assert 3000 <= summary.tokens <= 3020


def test_messages_that_differ_in_their_reasoning_alone_are_two() -> None:
    one, two = (interned(assistant("Hi.", reasoning=Reasoning("s", ({"reasoning": text},)))) for text in ("a", "b"))
    assert (one == two, one.reasoning == two.reasoning) == (False, False)
    assert interned(assistant("Hi.", reasoning=Reasoning("s", ({"reasoning": "a"},)))) is one


def test_a_list_of_messages_takes_reasoning_to_its_sender_alone(session: Session) -> None:
    thought = stream(chunk(reasoning_content="private"), chunk("A"), chunk(finish="stop"))
    with ScriptedServer(thought, thought, thought) as ours, ScriptedServer(thought) as theirs:
        session.registry.add("ours", "compatible", base_url=ours.url)
        session.registry.add("theirs", "compatible", base_url=theirs.url)
        llm = LLM("ours:m", chat="talk")
        llm.ask("One")
        messages = [*llm.ask("Two").messages, {"role": "user", "content": "Three"}]
        LLM("theirs:m").ask(messages)
        LLM("ours:m").ask(messages)
    assert "private" not in json.dumps(theirs.requests[-1].json)
    assert ours.requests[-1].json["messages"][1] == {
        "role": "assistant",
        "content": "A",
        "reasoning_content": "private",
    }


WRITTEN = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "x", "index": 0}]},
    {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}]},
]


@pytest.mark.parametrize("fields", WRITTEN)
def test_reasoning_written_out_in_a_message_is_sent(session: Session, fields: dict[str, Any]) -> None:
    with ScriptedServer(stream(chunk("A"), chunk(finish="stop"))) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        written = {"role": "assistant", "content": "A", **fields}
        LLM("s:m").ask([{"role": "user", "content": "Q"}, written, {"role": "user", "content": "Q"}])
    assert server.requests[-1].json["messages"][1] == written


def test_reasoning_written_out_that_cannot_be_sent_is_an_error(session: Session) -> None:
    asked: list[Any] = [{"role": "assistant", "content": "A", "reasoning_content": "hm"}]
    asked.append({"role": "user", "content": "Q"})
    with ScriptedServer() as server:
        session.registry.add("s", "compatible", base_url=server.url)
        session.registry.add("none", "compatible", base_url=server.url, send_reasoning=False)
        for llm in (LLM("s:m", api="responses"), LLM("none:m")):
            with pytest.raises(UnsupportedError, match=r"A message has reasoning, and .* takes none back by this API"):
                llm.ask(asked)
        for wrong in ({"reasoning": 3}, {"reasoning_details": ["hm"]}, {"thinking_blocks": [{"type": "x", "y": {}}]}):
            with pytest.raises(PromptError, match=rf"Message 0 \(assistant\): its {next(iter(wrong))} is"):
                LLM("s:m").ask([{"role": "assistant", "content": "A", **wrong}, asked[-1]])
        with pytest.raises(PromptError, match="has a field 'reasoning', which would not be sent"):
            LLM("s:m").ask([{"role": "user", "content": "A", "reasoning": "hm"}])
    assert server.requests == []
