"""Rows asked from the workers of a real Dask cluster: two processes of this machine, and servers that count."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from echo import answer as echo_answer
from echo import echo
from rows_asked import Asked, ask_rows
from servers import HANG, Answer, Received, ScriptedServer, document

from llm_magic import errors
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, LLMError, OptionError, Origin
from llm_magic.mapping.dask import client as dask_client
from llm_magic.mapping.dask.client import client_of
from llm_magic.mapping.dask.cluster_run import ask_on
from llm_magic.mapping.dask.cluster_work import ClusterWork
from llm_magic.mapping.dask.serialization import Sealed, opened, pack_outcome, packed, sealed
from llm_magic.mapping.dask.variables import Variables, forwarded, variables_of
from llm_magic.mapping.rows import Outcome
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session
from llm_magic.session.portable import portable

distributed = pytest.importorskip("distributed")

PATHS = os.pathsep.join(map(str, Path(__file__).parents[1:3]))


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    yield session
    session.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


def two(client: Any) -> list[str]:
    """Wait until there are two workers, and return their addresses."""
    client.wait_for_workers(2, timeout=60)
    return sorted(client.nthreads())


def work_at(session: Session, url: str, concurrency: int | str = 8, **more: Any) -> ClusterWork:
    session.registry.add("s", "compatible", base_url=url, max_retries=0, **more.pop("provider", {}))
    data = portable(session.settings, session.registry, ["s:m"])
    return ClusterWork(data, ask_rows, {"model": "s:m", **more.pop("request", {})}, concurrency, **more)


def rows(number: int) -> Iterator[Asked]:
    return (Asked(each, f"SAY {each}") for each in range(number))


def ask_all(
    client: Any,
    work: ClusterWork,
    given: Iterable[Any],
    said: list[str] | None = None,
    *,
    stop: threading.Event | None = None,
    seen: Callable[[Outcome], object] = lambda _outcome: None,
) -> list[Outcome]:
    """Return all outcomes, as they came."""
    found: list[Outcome] = []

    async def ask() -> None:
        say = (lambda _line: None) if said is None else said.append
        async for outcomes in ask_on(client, work, given, stop=stop, say=say):
            for outcome in outcomes:
                found.append(outcome)
                seen(outcome)

    asyncio.run(ask())
    return found


def chats(server: ScriptedServer) -> list[Received]:
    return [request for request in server.requests if request.path.endswith("/chat/completions")]


def prompts(server: ScriptedServer) -> Counter[str]:
    return Counter(request.json["messages"][-1]["content"] for request in chats(server))


# The rows


def test_all_rows_come_each_asked_once(client: Any, session: Session, server: ScriptedServer) -> None:
    two(client)
    found = ask_all(client, work_at(session, server.url), rows(250))
    assert sorted(outcome.number for outcome in found) == list(range(250))
    assert all(outcome.value == str(outcome.number) for outcome in found)
    assert prompts(server) == Counter(f"SAY {each}" for each in range(250))


def test_both_workers_ask_few_rows_and_none_is_asked_for_none(
    client: Any, session: Session, server: ScriptedServer
) -> None:
    two(client)
    work = work_at(session, server.url, total=8)
    assert [outcome.value for outcome in ask_all(client, work, rows(1))] == ["0"]
    assert ask_all(client, work, []) == []


def test_a_generator_is_read_as_it_is_needed(client: Any, session: Session, server: ScriptedServer) -> None:
    two(client)
    read = 0

    def endless() -> Iterator[Asked]:
        nonlocal read
        while True:
            read += 1
            yield Asked(read, f"SAY {read}")

    stop = threading.Event()
    found = ask_all(client, work_at(session, server.url), endless(), stop=stop, seen=lambda _: stop.set())
    assert 1 <= len(found) <= read < 1000


def test_a_generator_that_raises_is_told_when_the_rows_before_have_come(
    client: Any, session: Session, server: ScriptedServer
) -> None:
    two(client)
    found = []

    def broken() -> Iterator[Asked]:
        yield from rows(30)
        raise ZeroDivisionError("of the user's")

    with pytest.raises(ZeroDivisionError, match="of the user's"):
        ask_all(client, work_at(session, server.url), broken(), seen=found.append)
    assert len(found) == 30


def test_errors_are_outcomes(client: Any, session: Session, server: ScriptedServer) -> None:
    two(client)
    given = [Asked(0, "SAY FAIL"), Asked(1, "SAY yes"), Asked(2, " ")]
    found = {outcome.number: outcome for outcome in ask_all(client, work_at(session, server.url), given)}
    assert found[1].value == "yes"
    assert type(found[2].error) is errors.PromptError
    failed = found[0].error
    assert type(failed) is errors.ServerFailedError
    assert (failed.status, failed.origin) == (500, Origin("s", "m", server.url))
    assert "broken" in str(failed)


def test_a_type_of_the_notebook_comes_back_as_itself(client: Any, session: Session, server: ScriptedServer) -> None:
    import pydantic

    two(client)
    city = pydantic.create_model("City", name=(str, ...), __module__="__main__")
    work = work_at(session, server.url, request={"options": {"output_type": city}})
    (found,) = ask_all(client, work, [Asked(0, 'SAY {"name": "Oslo"}')])
    assert found.value == city(name="Oslo")
    assert type(found.value) is city


def test_what_cannot_be_sent_is_the_error_of_its_row(client: Any, session: Session, server: ScriptedServer) -> None:
    two(client)
    given = [Asked(0, "SAY yes"), Asked(1, threading.Lock())]  # type: ignore[arg-type]
    found = {outcome.number: outcome for outcome in ask_all(client, work_at(session, server.url), given)}
    assert found[0].value == "yes"
    assert str(found[1].error).startswith("This cannot be sent to the workers: cannot pickle '_thread.lock' object")


def test_a_wrong_option_ends_the_run_in_its_own_words(client: Any, session: Session, server: ScriptedServer) -> None:
    two(client)
    work = work_at(session, server.url, request={"options": {"temprature": 0}})
    with pytest.raises(OptionError, match="temperature"):
        ask_all(client, work, rows(10))
    assert chats(server) == []


# Limits


def test_no_more_requests_are_in_flight_than_the_cluster_may_have(client: Any, session: Session) -> None:
    two(client)
    lock, now, most = threading.Lock(), 0, 0

    def slowly(request: Received) -> Answer:
        nonlocal now, most
        if request.path.endswith("/models"):
            return echo_answer(request)
        with lock:
            now += 1
            most = max(most, now)

        def steps() -> Iterator[Any]:
            nonlocal now
            yield 0.03
            with lock:
                now -= 1
            yield from echo_answer(request).steps

        return Answer(steps())

    with ScriptedServer(slowly) as server:
        found = ask_all(client, work_at(session, server.url, concurrency=5), rows(150))
    assert (len(found), most) == (150, 5)


def test_fewer_workers_ask_where_the_limit_has_no_share_for_each(
    client: Any, session: Session, server: ScriptedServer
) -> None:
    two(client)
    said: list[str] = []
    assert len(ask_all(client, work_at(session, server.url, concurrency=1), rows(20), said)) == 20
    assert said == ["1 of 2 workers ask: the limits are too low to be divided among more."]


# Workers that die, join and are stopped


def test_a_worker_that_is_killed_costs_only_what_had_not_arrived(client: Any, session: Session) -> None:
    addresses = two(client)
    pids = client.run(os.getpid)
    came: set[int] = set()
    at_death: set[int] = set()

    def answer(request: Received) -> Answer:
        made = echo_answer(request)
        if request.path.endswith("/models"):
            return made
        if request.headers["x-worker"] == "w0" and len(came) >= 60 and not at_death:  # with a request in flight there
            at_death.update(came)
            os.kill(pids[addresses[0]], signal.SIGKILL)
        return Answer([0.05, *made.steps])

    for number, address in enumerate(addresses):
        client.run(_set_variable, "NAME_OF_WORKER", f"w{number}", workers=[address])
    with ScriptedServer(answer) as server:
        provider = {"default_headers": {"x-worker": "env:NAME_OF_WORKER"}}
        work = work_at(session, server.url, provider=provider)
        found = ask_all(client, work, rows(400), seen=lambda outcome: came.add(outcome.number))
        asked = prompts(server)
    assert sorted(outcome.number for outcome in found) == list(range(400))
    assert [outcome.error for outcome in found if outcome.error] == []
    twice = {int(prompt.partition(" ")[2]) for prompt, times in asked.items() if times > 1}
    assert not twice & at_death
    assert 1 <= len(twice) <= 32  # of the two chunks that it had
    assert max(asked.values()) == 2
    two(client)


def test_a_worker_that_joins_takes_part(
    client: Any, cluster: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(client)
    hosts: set[str] = set()

    def answer(request: Received) -> Answer:
        made = echo_answer(request)
        if not request.path.endswith("/models"):
            hosts.add(request.headers["x-worker"])
            return Answer([0.1, *made.steps])
        return made

    def until_three_ask() -> Iterator[Asked]:
        for number in range(20_000):
            if number > 100 and len(hosts) == 3:
                return
            yield Asked(number, f"SAY {number}")

    for number, address in enumerate(two(client)):
        client.run(_set_variable, "NAME_OF_WORKER", f"w{number}", workers=[address])
    with ScriptedServer(answer) as server:
        work = work_at(
            session, server.url, concurrency=6, provider={"default_headers": {"x-worker": "env:NAME_OF_WORKER"}}
        )
        joined = threading.Event()

        def join(outcome: Outcome) -> None:
            if not joined.is_set():
                joined.set()
                monkeypatch.setenv("NAME_OF_WORKER", "w2")  # which the new one inherits
                monkeypatch.setenv("PYTHONPATH", PATHS)
                cluster.scale(3)

        found = ask_all(client, work, until_three_ask(), seen=join)
    cluster.scale(2)
    assert len(found) == len({outcome.number for outcome in found}) >= 100
    assert hosts == {"w0", "w1", "w2"}
    assert all(outcome.error is None for outcome in found)
    _until(lambda: len(client.nthreads()) == 2)


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_stop_closes_the_requests_on_the_workers_and_keeps_what_came(client: Any, session: Session) -> None:
    two(client)
    stop = threading.Event()

    def answer(request: Received) -> Answer:
        if request.path.endswith("/models") or int(request.json["messages"][-1]["content"].split()[1]) < 20:
            return echo_answer(request)
        if len(chats(server)) >= 28:
            stop.set()
        return Answer([HANG])

    with ScriptedServer(answer) as server:
        found = ask_all(client, work_at(session, server.url), rows(1000), stop=stop)
        hanging = [each for each in chats(server) if int(each.json["messages"][-1]["content"].split()[1]) >= 20]
        assert len(hanging) == 8
        assert all(each.left.wait(5) for each in hanging)
    assert {outcome.number for outcome in found} == set(range(20))
    _until(lambda: client.run(_runs_there) == dict.fromkeys(two(client), 0))


def test_closing_the_iterator_closes_the_requests(client: Any, session: Session) -> None:
    two(client)

    async def ask(url: str) -> None:
        work = work_at(session, url, provider={"timeout": 20})
        outcomes = ask_on(client, work, rows(100))
        assert [outcome.value for outcome in await anext(outcomes)] == ["0"]
        await outcomes.aclose()

    def answer(request: Received) -> Answer:
        is_first = request.path.endswith("/models") or request.json["messages"][-1]["content"] == "SAY 0"
        return echo_answer(request) if is_first else Answer([HANG])

    with ScriptedServer(answer) as server:
        asyncio.run(ask(server.url))
        assert all(each.left.wait(5) for each in chats(server) if each.json["messages"][-1]["content"] != "SAY 0")


def _runs_there() -> int:
    from llm_magic.mapping.dask import worker as dask_worker

    return len(dask_worker._runs)


def test_a_row_that_takes_long_holds_up_no_other(client: Any, session: Session) -> None:
    two(client)
    last = threading.Event()

    def answer(request: Received) -> Answer:
        made = echo_answer(request)
        said = request.path.endswith("/models") or request.json["messages"][-1]["content"]

        def steps() -> Iterator[Any]:
            while not last.is_set():
                yield 0.02
            yield from made.steps

        return Answer(steps()) if said == "SAY 3" else made

    with ScriptedServer(answer) as server:
        found = ask_all(
            client, work_at(session, server.url), rows(400), seen=lambda outcome: outcome.number == 399 and last.set()
        )
    assert len(found) == 400


# The look at the workers


def test_a_worker_without_the_key_is_named_and_the_other_asks(
    client: Any, session: Session, server: ScriptedServer
) -> None:
    with_key, without = two(client)
    client.run(_set_variable, "OUR_KEY", "hidden-value", workers=[with_key])
    work = work_at(session, server.url, provider={"api_key_env": "OUR_KEY"})
    said: list[str] = []
    assert len(ask_all(client, work, rows(30), said)) == 30
    assert said == [f'{without} lacks OUR_KEY: set it there, or forward_env=["OUR_KEY"]']
    client.run(_set_variable, "OUR_KEY", None)
    with pytest.raises(ConfigurationError) as caught:
        ask_all(client, work, rows(30))
    assert str(caught.value) == (
        f"No worker of the Dask cluster can ask. {with_key}, {without} lacks OUR_KEY: set it there, or "
        'forward_env=["OUR_KEY"]'
    )


def test_a_forwarded_key_is_used_there_and_shown_nowhere(
    client: Any, session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two(client)
    monkeypatch.setenv("OUR_KEY", "hidden-value")
    work = work_at(session, server.url, provider={"api_key_env": "OUR_KEY"}, forward_env=("OUR_KEY",))
    shown: list[str] = []

    def look(outcome: Outcome) -> None:
        if outcome.number == 10:
            client.dump_cluster_state(str(tmp_path / "dump"), format="yaml")
            shown.extend((str(client.call_stack()), str(client.processing()), str(client.get_task_stream())))

    found = ask_all(client, work, rows(60), seen=look)
    assert len(found) == 60
    assert {request.headers["authorization"] for request in chats(server)} == {"Bearer hidden-value"}
    shown += [str(client.get_worker_logs()), str(client.get_scheduler_logs()), str(client.get_events()), repr(work)]
    dumped = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"llm_magic-rows" in dumped
    assert b"hidden-value" not in dumped + pickle.dumps([shown, found])
    assert "hidden-value" not in str(shown)
    assert client.run(_variable_there, "OUR_KEY") == dict.fromkeys(two(client))


def _variable_there(name: str) -> str | None:
    return os.environ.get(name)


def test_a_variable_to_forward_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        forwarded(["NO_SUCH_KEY"])
    assert caught.value.message == "forward_env names 'NO_SUCH_KEY', which is not set here."


def test_what_was_set_there_is_set_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "theirs")
    variables = Variables({"OUR_KEY": "ours", "OUR_OTHER": "ours"})
    assert (os.environ["OUR_KEY"], os.environ["OUR_OTHER"]) == ("ours", "ours")
    variables.restore()
    assert (os.environ["OUR_KEY"], os.environ.get("OUR_OTHER")) == ("theirs", None)


def test_an_endpoint_that_no_worker_reaches_is_said_before_anything_is_asked(client: Any, session: Session) -> None:
    addresses = two(client)
    with pytest.raises(ConfigurationError) as caught:
        ask_all(client, work_at(session, "http://127.0.0.1:9/v1"), rows(3))
    said = str(caught.value)
    assert said.startswith(f"No worker of the Dask cluster can ask. {', '.join(addresses)} does not reach s")
    assert "\n" not in said


def test_a_key_that_is_refused_is_said_before_anything_is_asked(client: Any, session: Session) -> None:
    two(client)
    with ScriptedServer(document({"error": {"message": "wrong key"}}, 401)) as server:
        with pytest.raises(ConfigurationError, match="is refused by s"):
            ask_all(client, work_at(session, server.url), rows(3))
        assert chats(server) == []


def test_versions_that_differ_are_said(
    client: Any, session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = two(client)
    import llm_magic

    theirs = llm_magic.__version__
    monkeypatch.setattr(llm_magic, "__version__", "9.9.9")
    said: list[str] = []
    ask_all(client, work_at(session, server.url), rows(3), said)
    assert said == [f"{', '.join(addresses)} has llm_magic {theirs}, and 9.9.9 is here: install the same version"]


# Clients


def test_the_client_that_is_meant(client: Any, cluster: Any) -> None:
    assert client_of(client) is client
    assert client_of("dask") is client
    other = client_of(cluster.scheduler_address)
    assert other is not client
    assert two(other) == two(client)
    other.close()


def test_what_is_no_client_says_how_to_make_one(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"on= is no Dask cluster: 'daks'"):
        client_of("daks")
    monkeypatch.setattr(dask_client, "CONNECT", 0.5)
    with pytest.raises(ConfigurationError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9") as caught:
        client_of("tcp://127.0.0.1:9")
    assert str(caught.value).count("\n") <= 1

    def none() -> None:
        raise ValueError("No client found")

    monkeypatch.setattr(distributed, "get_client", none)
    with pytest.raises(ConfigurationError, match="There is no current Dask client") as caught:
        client_of("dask")
    assert caught.value.hint == "Make one: from distributed import Client; client = Client()"


def test_an_asynchronous_client_is_refused(cluster: Any) -> None:
    async def make() -> None:
        async with distributed.Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(OptionError, match="asynchronous"):
                client_of(client)

    asyncio.run(make())


# What travels


def all_errors() -> list[type[LLMError]]:
    found, waiting = [], [LLMError]
    while waiting:
        found.append(waiting.pop())
        waiting += found[-1].__subclasses__()
    return [each for each in dict.fromkeys(found) if each.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_comes_back_with_class_and_words(cls: type[LLMError]) -> None:
    error = cls("It \x1b[1mfailed.", "Do this.")
    error.response = Response(text="so far", headers={"a": "b"})
    if isinstance(error, errors.ProviderError):
        error.origin, error.status = Origin("s", "m", "http://h/v1"), 418
        error.request_id, error.body = "r1", {"error": [1, None]}
    found = opened(pack_outcome(Outcome(3, error.response, error))).error
    assert type(found) is cls
    assert (found.message, found.hint, str(found), vars(found)) == (error.message, error.hint, str(error), vars(error))


def test_a_value_that_cannot_come_back_is_the_error_of_its_row() -> None:
    found = opened(pack_outcome(Outcome(3, Response(text="yes", value=threading.Lock()))))
    assert (found.number, found.response.text) == (3, "yes")
    assert "cannot come back from the worker" in str(found.error)


def test_what_is_sealed_shows_its_size_alone() -> None:
    told = sealed({"key": "hidden-value"})
    assert (repr(told), str([told])) == (f"<{len(told.data)} bytes>", f"[<{len(told.data)} bytes>]")
    assert opened(pickle.loads(pickle.dumps(told))) == {"key": "hidden-value"}  # noqa: S301 - our own
    assert isinstance(Sealed(packed(1)), Sealed)


def test_variables_are_found_wherever_they_are_named() -> None:
    found = variables_of(
        {
            "providers": {"s": {"api_key_env": "env:A", "headers_env": {"X": "Bearer B"}, "azure_ad_token_env": "C"}},
            "params": {"header": {"X": "env:D"}, "system": "no:variable"},
            "keyring": {"api_key_env": "keyring:service/name"},
            "list": ["os.environ/E"],
        }
    )
    assert found == ("A", "B", "C", "D", "E")


# A real server


def test_rows_of_a_real_server(client: Any, session: Session, vllm_url: str) -> None:
    two(client)
    session.registry.add("v", "vllm", base_url=vllm_url)
    data = portable(session.settings, session.registry, ["v:"])
    work = ClusterWork(data, ask_rows, {"model": "v:", "options": {"max_tokens": 5, "temperature": 0}}, 4, total=12)
    found = ask_all(client, work, [Asked(each, f"Say the number {each}.") for each in range(12)])
    assert sorted(outcome.number for outcome in found) == list(range(12))
    assert all(outcome.error is None and outcome.response.usage.output_tokens <= 5 for outcome in found)
