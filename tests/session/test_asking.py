"""`LLM` over scripted servers: what is asked when answers are invalid, cut, or do not come at all."""

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import HANG, Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import (
    AuthenticationError,
    IncompleteAnswerError,
    InvalidValueError,
    OptionError,
    RefusedError,
    RequestRefusedError,
    ServerFailedError,
    ToolLimitError,
)
from llm_magic.events import Finished, TextDelta
from llm_magic.options import Options
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell


def answer(text: str, finish: str = "stop") -> Answer:
    return stream(chunk(text), chunk(finish=finish), USAGE)


USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}}
DOWN = document({"error": {"message": "overloaded"}}, status=503)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **settings: object) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM(f"{name}:m")


def test_ask(session: Session) -> None:
    with ScriptedServer(answer("Hello")) as server:
        response = llm_at(session, server).ask(
            "Hi", temperature=0, system="Be brief.", max_tokens=5, param={"min_p": 0.1}
        )
    assert (response.text, response.value, response.finish_reason) == ("Hello", "Hello", "stop")
    assert (response.model, response.provider, response.model_reported) == ("s:m", "s", "scripted")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 2)
    (request,) = server.requests
    assert request.json == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.0,
        "max_tokens": 5,
        "min_p": 0.1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [message.role for message in response.messages] == ["system", "user"]
    (row,) = session.ledger.rows()
    assert (row.input_tokens, row.output_tokens, row.requests) == (10, 2, 1)


def test_a_prompt_is_no_template_here(session: Session) -> None:
    with ScriptedServer(answer("ok")) as server:
        llm_at(session, server).ask("{{ x }} {% y")
    assert server.requests[0].json["messages"][0]["content"] == "{{ x }} {% y"


def test_an_invalid_value_is_asked_for_again_with_the_reason(session: Session) -> None:
    with ScriptedServer(answer("many"), answer("7")) as server:
        response = llm_at(session, server, structured="none").ask("How many?", output_type=int)
    assert response.value == 7
    assert response.usage is not None
    assert response.usage.input_tokens == 20
    first, second = (request.json["messages"] for request in server.requests)
    assert second[: len(first)] == first
    assert second[len(first)] == {"role": "assistant", "content": "many"}
    assert "not valid" in second[-1]["content"]
    assert len(response.notes) == 1
    assert response.structured == "prompt"


def test_a_value_that_stays_invalid_is_an_error_that_keeps_the_text(session: Session) -> None:
    with ScriptedServer(answer("many")) as server, pytest.raises(InvalidValueError) as caught:
        llm_at(session, server, structured="none").ask("How many?", output_type=int, retries_invalid=2)
    assert len(server.requests) == 3
    assert caught.value.response is not None
    assert caught.value.response.text == "many"
    assert caught.value.response.value is None


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answer("4", "length"), IncompleteAnswerError),
        (answer("4", "content_filter"), IncompleteAnswerError),
        (stream(chunk("4"), done=False), IncompleteAnswerError),
        (stream(chunk(refusal="I will not."), chunk(finish="stop")), RefusedError),
    ],
)
def test_a_value_that_is_cut_or_refused_is_never_bound(
    session: Session, script: Answer, error: type[Exception]
) -> None:
    with ScriptedServer(script) as server, pytest.raises(error) as caught:
        llm_at(session, server).ask("How many?", output_type=int)
    assert len(server.requests) == 1
    assert caught.value.response.value is None  # type: ignore[attr-defined]  # it is there


def test_text_that_is_cut_is_marked(session: Session) -> None:
    with ScriptedServer(answer("Once upon", "length")) as server:
        response = llm_at(session, server).ask("A story")
    assert (response.text, response.finish_reason) == ("Once upon", "length")


def test_several_answers(session: Session) -> None:
    two = [
        {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": "stop"}]}
        for index, text in enumerate(["1", "2"])
    ]
    with ScriptedServer(stream(*two)) as server:
        response = llm_at(session, server).ask("Number?", output_type=int, n=2)
    assert response.value == [1, 2]
    assert [each.value for each in response.alternatives] == [1, 2]


def test_of_several_answers_only_the_invalid_one_is_asked_for_again(session: Session) -> None:
    two = [
        {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": "stop"}]}
        for index, text in enumerate(["1", "many"])
    ]
    with ScriptedServer(stream(*two, USAGE), answer("2")) as server:
        response = llm_at(session, server, structured="none").ask("Number?", output_type=int, n=2)
    assert response.value == [1, 2]
    assert [each.text for each in response.alternatives] == ["1", "2"]
    assert response.usage is not None
    assert response.usage.input_tokens == 20
    assert "n" not in server.requests[1].json
    assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": "many"}


def test_a_server_that_ignores_n_is_told_of(session: Session) -> None:
    with ScriptedServer(answer("1")) as server, pytest.raises(IncompleteAnswerError, match="1 of 2 answers"):
        llm_at(session, server).ask("Number?", n=2)


def test_a_list_of_records_is_a_table(session: Session) -> None:
    with ScriptedServer(answer('[{"a": 1}, {"a": 2, "b": "x"}]')) as server:
        response = llm_at(session, server, structured="none").ask("Rows", output_type="list[dict[str, int | str]]")
    assert response.frame().columns == ("a", "b")
    frame = response.to_frame()
    assert (list(frame.columns), list(frame["a"]), frame["b"][1]) == (["a", "b"], [1, 2], "x")
    response.value = 3
    with pytest.raises(TypeError, match="no list of records but int"):
        response.frame()


def test_conversations_follow_the_file_that_is_set(session: Session, tmp_path: Path) -> None:
    with ScriptedServer(answer("one")) as server:
        llm_at(session, server).ask("a", chat="main")
        session.settings.chat_file = str(tmp_path / "chats.sqlite")
        llm_at(session, server, "t").ask("b", chat="main")
    assert [message["content"] for message in server.requests[1].json["messages"]] == ["b"]
    assert (tmp_path / "chats.sqlite").exists()


def test_a_header_may_come_from_a_variable_and_is_never_shown(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "very-hidden-value")
    cell = Cell("Hi", Options(header={"X-Gateway": "env:GATEWAY_KEY", "X-Plain": "seen"}))
    with ScriptedServer(document({"error": {"message": "very-hidden-value is wrong"}}, status=400)) as server:
        cell.options.model = llm_at(session, server).model
        with pytest.raises(RequestRefusedError) as caught:
            LLM("s:m").ask("Hi", header={"X-Gateway": "env:GATEWAY_KEY", "X-Plain": "seen"})
        preview = session.preview(cell)
    assert server.requests[0].headers["x-gateway"] == "very-hidden-value"
    assert len(server.requests) == 1
    assert "very-hidden-value" not in str(caught.value)
    assert "very-hidden-value" not in repr(preview)
    assert preview.headers["x-plain"] == "seen"


def test_fallbacks_before_the_first_token(session: Session) -> None:
    with ScriptedServer(DOWN) as down, ScriptedServer(answer("Hello")) as up:
        llm_at(session, down, "a")
        llm_at(session, up, "b")
        session.registry.aliases = {"both": {"model": "a:m", "fallbacks": ["b:m"], "temperature": 0}}
        response = LLM("both").ask("Hi")
    assert response.text == "Hello"
    assert response.provider == "b"
    assert "a:m" in response.notes[0] or "both" in response.notes[0]
    assert [attempt.status for attempt in response.attempts] == [503, 200]
    assert "temperature" not in up.requests[0].json


def test_no_fallback_after_the_first_token(session: Session) -> None:
    broken = stream(chunk("Hel"), {"error": {"message": "lost", "code": 500}}, done=False)
    with ScriptedServer(broken) as down, ScriptedServer(answer("Hello")) as up:
        llm_at(session, down, "a")
        llm_at(session, up, "b")
        session.registry.aliases = {"both": {"model": "a:m", "fallbacks": ["b:m"]}}
        with pytest.raises(ServerFailedError) as caught:
            LLM("both").ask("Hi")
    assert caught.value.response is not None
    assert caught.value.response.text == "Hel"
    assert up.requests == []


def call_of(name: str, arguments: str, identifier: str = "c1", index: int = 0) -> dict[str, object]:
    return {"index": index, "id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tools_run_side_by_side_and_every_call_is_answered(session: Session) -> None:
    async def area(width: int, height: int) -> int:
        """Multiply."""
        await asyncio.sleep(0.05)  # so that others end before
        return width * height

    def broken(text: str) -> str:
        """Fail."""
        raise ValueError("no " + text)

    calls = [
        call_of("area", '{"width": 3, "height": 4}', "a", 0),
        call_of("broken", '{"text": "way"}', "b", 1),
        call_of("unknown", "{}", "c", 2),
        call_of("area", '"Paris"', "d", 3),
    ]
    with ScriptedServer(
        stream(chunk(tool_calls=calls), chunk(finish="tool_calls"), USAGE), answer("Twelve.")
    ) as server:
        response = llm_at(session, server).ask("Area?", tools=[area, broken])
    assert response.value == "Twelve."
    assert [run.id for run in response.tool_calls] == ["a", "b", "c", "d"]
    results = {run.id: (run.result, run.failed) for run in response.tool_calls}
    assert results["a"] == ("12", False)
    assert results["b"][1] is results["c"][1] is results["d"][1] is True
    assert "no way" in (results["b"][0] or "")
    sent = server.requests[1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "tool", "tool"]
    assert [message["tool_call_id"] for message in sent[2:]] == ["a", "b", "c", "d"]
    assert server.requests[0].json["tools"][0]["function"]["strict"] is True
    assert response.usage is not None
    assert response.usage.input_tokens == 20


def test_rounds_of_tools_are_bounded(session: Session) -> None:
    def again() -> str:
        """Go on."""
        return "more"

    with (
        ScriptedServer(stream(chunk(tool_calls=[call_of("again", "{}")]), chunk(finish="tool_calls"))) as server,
        pytest.raises(ToolLimitError),
    ):
        llm_at(session, server).ask("Go", tools=[again], max_tool_rounds=2)
    assert len(server.requests) == 3


def test_options_that_exclude_each_other(session: Session) -> None:
    with ScriptedServer(answer("x")) as server:
        llm = llm_at(session, server)
        with pytest.raises(OptionError, match="output_type= and choices= exclude each other"):
            llm.ask("x", output_type=int, choices=["a"])
        with pytest.raises(OptionError, match="tool_choice= needs tools="):
            llm.ask("x", tool_choice="auto")
    assert server.requests == []


def test_conversations_only_where_one_is_named(session: Session) -> None:
    with ScriptedServer(answer("one"), answer("two"), answer("three")) as server:
        llm = llm_at(session, server)
        llm.ask("a", chat="talk")
        llm.ask("b", chat="talk")
        llm.ask("c")
    contents = [[message["content"] for message in request.json["messages"]] for request in server.requests]
    assert contents == [["a"], ["a", "one", "b"], ["c"]]


def test_a_failed_request_leaves_the_conversation_as_it_was(session: Session) -> None:
    with ScriptedServer(answer("one"), DOWN, answer("three")) as server:
        llm = llm_at(session, server)
        llm.ask("a", chat="talk")
        with pytest.raises(ServerFailedError):
            llm.ask("b", chat="talk")
        llm.ask("c", chat="talk")
    assert [message["content"] for message in server.requests[2].json["messages"]] == ["a", "one", "c"]


def test_params_come_from_all_layers(session: Session) -> None:
    session.settings.params = {"temperature": 1, "top_p": 0.5, "param": {"min_p": 0.3}}
    session.settings.model_params = {"s:*": {"temperature": 0.7, "seed": 1}, "*": {"seed": 2, "max_tokens": 9}}
    with ScriptedServer(answer("x")) as server:
        llm_at(session, server)
        session.registry.aliases = {"mine": {"model": "s:m", "seed": 3}}
        LLM("mine").ask("x", max_tokens=4)
    body = server.requests[0].json
    assert {name: body[name] for name in ("temperature", "top_p", "min_p", "seed", "max_tokens")} == {
        "temperature": 0.7,
        "top_p": 0.5,
        "min_p": 0.3,
        "seed": 3,
        "max_tokens": 4,
    }


def test_stream(session: Session) -> None:
    async def collect() -> list[object]:
        return [event async for event in llm_at(session, server).stream("Hi")]

    with ScriptedServer(stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"))) as server:
        events = asyncio.run(collect())
    assert [event for event in events if isinstance(event, TextDelta | Finished)] == [
        TextDelta("Hel"),
        TextDelta("lo"),
        Finished("stop"),
    ]


def test_leaving_a_stream_early_closes_the_request(session: Session) -> None:
    async def first() -> object:
        stream_of = llm_at(session, server).stream("Hi")
        async for event in stream_of:
            if isinstance(event, TextDelta):
                await stream_of.aclose()
                return event
        return None

    with ScriptedServer(Answer([b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n', HANG])) as server:
        assert asyncio.run(first()) == TextDelta("x")
        assert server.requests[0].left.wait(1)


def test_errors_of_a_stream_are_raised_in_it(session: Session) -> None:
    async def collect() -> None:
        async for _ in llm_at(session, server).stream("Hi"):
            pass

    with ScriptedServer(DOWN) as server, pytest.raises(ServerFailedError):
        asyncio.run(collect())


def test_aask_and_ask_inside_a_running_loop(session: Session) -> None:
    async def both() -> tuple[str, str]:
        llm = llm_at(session, server)
        first, second = await asyncio.gather(llm.aask("a"), llm.aask("b"))
        return first.text + second.text, llm.ask("c").text

    with ScriptedServer(answer("x")) as server:
        assert asyncio.run(both()) == ("xx", "x")


def test_cancelling_aask_closes_the_request(session: Session) -> None:
    async def give_up() -> None:
        asking = asyncio.ensure_future(llm_at(session, server).aask("Hi"))
        while not server.requests:  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.01)
        asking.cancel()
        await asking

    with ScriptedServer(Answer([json.dumps({}).encode(), HANG])) as server:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(give_up())
        assert server.requests[0].left.wait(5)


def test_a_key_that_the_server_repeats_is_in_no_part_of_the_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a-key-of-no-known-form-0123456789"
    monkeypatch.setenv("THE_KEY", key)

    def repeat(request: Received) -> Answer:
        said = f"wrong: {request.headers['authorization']}"
        return document({"error": {"message": said, "param": said, "code": said}}, status=401)

    with ScriptedServer(repeat) as server, pytest.raises(AuthenticationError) as caught:
        llm_at(session, server, api_key_env="THE_KEY").ask("Hi")
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + repr(caught.value.response)
    assert key not in shown
    assert key not in repr(vars(caught.value.__cause__ or caught.value).get("body"))


class Prepared(CompatibleProvider):
    """A provider that takes its time before anything can be sent."""

    slept = 0.0

    async def prepare(self, report: Callable[[str], None]) -> None:
        began = time.perf_counter()
        report("fetching weights")
        await asyncio.sleep(0.3)
        self.slept = time.perf_counter() - began


def test_the_clocks_leave_out_what_comes_before_the_request(session: Session) -> None:
    late = Answer([0.2, *DOWN.steps], 503, {**DOWN.headers, "retry-after": "0.1"})
    with ScriptedServer(late, answer("Hello")) as server:
        provider = Prepared(name="slow", base_url=server.url, max_retries=1)
        session.registry.register("slow", provider=provider)
        began = time.perf_counter()
        response = LLM("slow:m").ask("Hi")
        wall = time.perf_counter() - began
    failed, answered = response.attempts
    assert (failed.status, answered.status, response.text) == (503, 200, "Hello")
    assert response.first_token_seconds is not None
    assert response.seconds <= wall - provider.slept
    assert failed.seconds + answered.seconds <= response.seconds
    assert response.first_token_seconds <= response.seconds - failed.seconds - 0.1


@pytest.mark.parametrize(
    ("said", "cost"),
    [("0.00025", 0.00025), ("0.0", None), ("", None), ("nan", None), ("1e999", None), ("-1", None), ("None", None)],
)
@pytest.mark.parametrize("streams", [True, False])
def test_the_cost_stands_in_a_header(session: Session, said: str, cost: float | None, *, streams: bool) -> None:
    headers = {"x-litellm-response-cost": said}
    whole = {
        "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE["usage"],
    }
    told = stream(chunk("Hello", finish="stop"), USAGE, headers=headers)
    with ScriptedServer(told if streams else document(whole, headers=headers)) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        response = LLM("s:m", no_stream=not streams).ask("Hi")
    assert (response.text, response.cost) == ("Hello", cost)
    assert session.ledger.rows()[0].cost == cost


@pytest.mark.parametrize("streams", [True, False])
def test_the_cost_in_the_usage_counts_and_not_the_header_beside_it(session: Session, *, streams: bool) -> None:
    usage, headers = {**USAGE["usage"], "cost": 0.5}, {"x-litellm-response-cost": "0.25"}  # type: ignore[dict-item]  # a dict
    whole = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": usage}
    told = stream(chunk("Hello", finish="stop"), {"choices": [], "usage": usage}, headers=headers)
    with ScriptedServer(told if streams else document(whole, headers=headers)) as server:
        session.registry.add("s", "compatible", base_url=server.url, prices={"m": {"input": 1, "output": 1}})
        response = LLM("s:m", no_stream=not streams).ask("Hi")
    assert response.cost == 0.5


def test_the_cost_of_embeddings_stands_in_a_header(session: Session) -> None:
    vectors = {"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 3}}
    with ScriptedServer(document(vectors, headers={"x-litellm-response-cost": "0.125"})) as server:
        session.registry.add("s", "compatible", base_url=server.url, prices={"m": {"input": 1, "output": 1}})
        found = LLM("s:m").embed(["a", "b"], batch=1)
    assert found.cost == 0.25
    assert session.ledger.rows()[0].cost == 0.25


@pytest.mark.parametrize(
    ("alias", "params", "asked", "hint"),
    [
        ({}, {}, {"temperature": 9}, "Change or leave out temperature=."),
        ({"temperature": 9}, {}, {}, "Change or leave out temperature, which the alias fast sets."),
        ({}, {"temperature": 9}, {}, "Change or leave out temperature, which LLMMagics.params sets."),
        ({"temperature": 9}, {"temperature": 8}, {}, "Change or leave out temperature, which the alias fast sets."),
        ({}, {"temperature": 9}, {"temperature": 8}, "Change or leave out temperature=."),
        ({}, {}, {}, "%%llm --dry-run shows what was sent."),
    ],
)
def test_a_refusal_names_the_place_that_set_what_was_refused(
    session: Session, alias: dict[str, object], params: dict[str, object], asked: dict[str, float], hint: str
) -> None:
    refusal = document({"error": {"message": "'temperature' must be at most 2", "param": "temperature"}}, 400)
    with ScriptedServer(refusal) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        session.registry.aliases = {"fast": {"model": "s:m", **alias}}
        session.settings.params = params
        with pytest.raises(RequestRefusedError) as caught:
            LLM("fast").ask("Hi", **asked)  # type: ignore[arg-type]  # options
    assert caught.value.hint == hint


def test_a_field_that_a_provider_s_setting_adds_is_not_an_option_of_the_cell(session: Session) -> None:
    refusal = document({"error": {"message": "'chat_template_kwargs' is unknown"}}, 400)
    with ScriptedServer(document({"data": []}), refusal) as server:
        session.registry.add("v", "vllm", base_url=server.url, chat_template_kwargs={"enable_thinking": False})
        with pytest.raises(RequestRefusedError) as caught:
            LLM("v:m").ask("Hi")
    assert caught.value.hint == "%%llm --dry-run shows what was sent."
