"""The embedded server: the real one, with the real weights."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_magic.background_loop import BackgroundLoop
from llm_magic.capabilities import ALL_PARAMETERS
from llm_magic.errors import ConfigurationError, ModelNotFoundError, UnsupportedError
from llm_magic.messages import user
from llm_magic.providers.local import LocalProvider
from llm_magic.providers.local.server import bindings
from llm_magic.providers.local.weights import SMOLLM2, fetch
from llm_magic.request import Parameters, Request

QUESTION = [{"role": "user", "content": "Write a long story about a ship."}]


class Served:
    """A provider and the loop that its client lives on."""

    def __init__(self, **traits: Any) -> None:
        self.loop = BackgroundLoop()
        self.provider = LocalProvider(**traits)
        self.said: list[str] = []

    def prepare(self) -> None:
        self.loop.run(self.provider.prepare(self.said.append))

    def ask(self, **body: Any) -> Any:
        body = {"model": self.provider.model, "messages": QUESTION, "max_tokens": 20} | body
        return self.loop.run(self.provider.client().chat.completions.create(**body))

    def busy(self) -> int:
        assert self.provider._server is not None
        return self.provider._server.busy()

    def close(self) -> None:
        self.provider.close()
        self.loop.close()


@pytest.fixture(scope="module")
def weights() -> Path:
    return fetch(SMOLLM2, print)


@pytest.fixture(scope="module")
def served(weights: Path) -> Iterator[Served]:
    served = Served()
    served.prepare()
    yield served
    served.close()


def stream(served: Served, **body: Any) -> Any:
    """Return an answer of 2000 tokens that has begun, and the coroutine that hangs up."""

    async def begin() -> Any:
        given = {"model": "smollm2", "messages": QUESTION, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
        answer = await served.provider.client().chat.completions.create(stream=True, **(given | body))
        pieces = answer.__aiter__()
        await anext(pieces)
        return answer

    return served.loop.run(begin())


def until_idle(served: Served, seconds: float = 10) -> float:
    """Return the seconds until no answer is in progress; looks rarely, since each look wakes the server up."""
    started = time.monotonic()
    while served.busy():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    return time.monotonic() - started


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own."""
    return subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_answers(served: Served) -> None:
    answer = served.ask()
    assert answer.choices[0].message.content.strip()
    assert answer.model == "smollm2"
    assert answer.usage.completion_tokens == 20
    assert served.said[0] == "loading smollm2…"


def test_a_second_cell_uses_the_running_server(served: Served) -> None:
    before, said = served.provider.url(), len(served.said)
    started = time.monotonic()
    served.prepare()
    assert time.monotonic() - started < 0.5
    assert served.provider.url() == before
    assert len(served.said) == said


def test_the_same_seed_and_temperature_zero_repeat(served: Served) -> None:
    zero = {served.ask(temperature=0).choices[0].message.content for _ in range(3)}
    seeded = {served.ask(seed=7).choices[0].message.content for _ in range(3)}
    free = {served.ask().choices[0].message.content for _ in range(3)}
    assert (len(zero), len(seeded)) == (1, 1)
    assert len(free) > 1


def test_several_answers_at_once(served: Served) -> None:
    answers = [stream(served) for _ in range(3)]
    assert served.busy() == 3
    for answer in answers:
        served.loop.run(answer.close())
    until_idle(served)


def test_who_hangs_up_frees_the_server(served: Served) -> None:
    answer = stream(served)
    assert served.busy() == 1
    served.loop.run(answer.close())
    assert until_idle(served) < 1


def test_parameters_that_the_profile_promises(served: Served) -> None:
    plain = served.ask(temperature=0).choices[0].message.content
    assert len(served.ask(n=2, max_tokens=2).choices) == 2
    assert served.ask(temperature=0, presence_penalty=2).choices[0].message.content != plain
    assert served.ask(temperature=0, frequency_penalty=2).choices[0].message.content != plain
    assert served.ask(temperature=0, stop=[plain[5:10]]).choices[0].message.content == plain[:5]
    assert served.ask(top_p=0.0001).choices[0].message.content == plain
    tokens = served.ask(max_tokens=3, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in tokens] == [2, 2, 2]
    caps = served.provider._server.properties["chat_template_caps"]  # type: ignore[union-attr] # it runs
    assert not caps["supports_reasoning_effort"]
    assert not caps["supports_tools"]


def test_constraints_are_kept(served: Served) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    structure = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = json.loads(served.ask(response_format=structure, max_tokens=60).choices[0].message.content)
    assert isinstance(answer["age"], int)
    grammar = 'root ::= "yes" | "no"'
    assert served.ask(extra_body={"grammar": grammar}).choices[0].message.content in {"yes", "no"}


def test_embeddings(served: Served) -> None:
    async def embed() -> Any:
        return await served.provider.client().embeddings.create(model="smollm2", input=["a cat", "a dog", "a cat"])

    first, second, third = (item.embedding for item in served.loop.run(embed()).data)
    assert len(first) == 576
    assert first == pytest.approx(third, abs=1e-3)
    assert first != pytest.approx(second, abs=1e-3)
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-4)


def test_profile(served: Served) -> None:
    capabilities = served.provider.capabilities("smollm2")
    assert capabilities.dialects == {
        "json": "llama_json_schema",
        "choices": "llama_grammar",
        "regex": "llama_grammar",
        "grammar": "llama_grammar",
    }
    assert capabilities.parameters == ALL_PARAMETERS - {"reasoning_effort"}
    assert (capabilities.images, capabilities.tools, capabilities.context) == (False, False, 8192)


def test_models(served: Served) -> None:
    (card,) = served.loop.run(served.provider.list_models())
    assert (card.id, card.context) == ("smollm2", 8192)
    assert LocalProvider(n_ctx=512).cached_models[0].context == 512


def test_another_model_is_refused(served: Served) -> None:
    with pytest.raises(ModelNotFoundError, match="local serves smollm2, not 'gpt-4o'"):
        served.provider.capabilities("gpt-4o")


def test_only_the_key_opens_it(served: Served) -> None:
    connection = http.client.HTTPConnection(served.provider.url().removeprefix("http://").removesuffix("/v1"))
    for path in ("/v1/models", "/v1/chat/completions", "/slots", "/props"):
        connection.request("GET", path, headers={"Authorization": "Bearer guessed"})
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 401, path
    connection.close()
    server = served.provider._server
    assert server is not None
    assert len(server.key.reveal()) >= 32
    assert server.key.reveal() not in repr(
        (served.provider, server, served.provider.recipe(), served.provider.origin())
    )


def test_a_proxy_of_the_environment_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    other = Served()
    other.provider._server = served.provider._server
    assert other.ask(max_tokens=1, timeout=20).usage.completion_tokens == 1
    other.loop.run(other.provider.aclose())
    other.loop.close()


def test_more_answers_than_places_are_refused() -> None:
    provider = LocalProvider(n_parallel=2)
    request = Request("smollm2", (user("x"),), Parameters(n=3))
    with pytest.raises(UnsupportedError, match="local gives 2 answers at once, not 3"):
        asyncio.run(provider.check(request, provider.capabilities("smollm2")))


@pytest.mark.parametrize("trait", ["base_url", "api_key_env", "organization", "models"])
def test_settings_that_do_not_apply_are_refused(trait: str) -> None:
    provider = LocalProvider(**{trait: ["x"] if trait == "models" else "SOME_NAME"})
    with pytest.raises(ConfigurationError, match=f"LocalProvider.{trait} is set"):
        provider.client()


def test_another_url_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"--base-url http://example\.org cannot apply"):
        LocalProvider().at("http://example.org")


def test_a_dry_run_starts_nothing() -> None:
    provider = LocalProvider()
    assert str(provider.client().base_url) == "http://127.0.0.1:0/v1/"
    assert provider._server is None


def test_any_gguf_and_new_settings(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "my-model.gguf"
    path.symlink_to(weights)
    served = Served(model_path=str(path), n_ctx=1024, n_threads=1, n_parallel=2)
    try:
        served.prepare()
        assert served.ask(max_tokens=2).model == "my-model"
        assert served.provider.capabilities("my-model").context == 1024
        first = served.provider.url()
        served.provider.n_ctx = 2048
        served.prepare()
        assert served.provider.url() != first
        assert served.provider.capabilities("my-model").context == 2048
        assert served.ask(max_tokens=2).usage.completion_tokens == 2
    finally:
        served.close()


def test_a_file_that_cannot_be_a_model(weights: Path, tmp_path: Path) -> None:
    text, cut = tmp_path / "notes.gguf", tmp_path / "cut.gguf"
    text.write_text("not a model")
    with weights.open("rb") as file:
        cut.write_bytes(file.read(2_000_000))
    for path, message in {
        tmp_path / "none.gguf": f"There is no file {tmp_path / 'none.gguf'}.",
        tmp_path: f"{tmp_path} cannot be read: Is a directory.",
        text: f"{text} is not a GGUF file.",
        cut: "llama.cpp cannot load cut.gguf.",
    }.items():
        served = Served(model_path=str(path))
        with pytest.raises(ConfigurationError) as caught:
            served.prepare()
        assert caught.value.message == message
        assert caught.value.hint
        served.close()


def test_a_server_that_died_is_started_again(weights: Path) -> None:
    served = Served()
    try:
        served.prepare()
        assert served.provider._server is not None
        first = served.provider.url()
        served.provider._server.stop()
        assert served.provider.url() == "http://127.0.0.1:0/v1"
        served.prepare()
        assert served.provider.url() not in {first, "http://127.0.0.1:0/v1"}
        assert served.ask(max_tokens=1).usage.completion_tokens == 1
    finally:
        served.close()


def test_closing_stops_it_also_while_it_answers(weights: Path) -> None:
    served = Served()
    served.prepare()
    address = served.provider.url().removeprefix("http://").removesuffix("/v1")
    answer = stream(served)
    started = time.monotonic()
    served.provider.close()
    assert time.monotonic() - started < 5
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(address, timeout=2).connect()
    del answer
    served.loop.close()


START = """
import asyncio, os, sys, threading
from llm_magic.background_loop import BackgroundLoop
from llm_magic.providers.local.server import bindings
from llm_magic.providers.local import LocalProvider
loop, provider = BackgroundLoop(), LocalProvider()
loop.run(provider.prepare(lambda line: None))
"""


def test_it_is_silent(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(1000))
    ran = run(
        START
        + f"""
        cut = LocalProvider(model_path={str(tmp_path / "cut.gguf")!r})
        messages = [{{"role": "user", "content": "x"}}]
        for body in ({{"messages": "no list"}}, {{"messages": messages, "max_tokens": 3}}):
            try:
                loop.run(provider.client().post("/chat/completions", body=body, cast_to=object))
            except Exception as error: print(error.status_code)
        try: loop.run(cut.prepare(print))
        except Exception as error: print(type(error).__name__)
        provider.close()
        """.replace("\n        ", "\n")
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        0,
        "400\nloading cut…\nloading cut… 100 %\nConfigurationError\n",
        "",
    )


def test_the_kernel_ends_in_the_middle_of_an_answer(weights: Path) -> None:
    started = time.monotonic()
    ran = run(
        START
        + """
async def ask():
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3000}
    stream = await provider.client().chat.completions.create(stream=True, extra_body={"ignore_eos": True}, **body)
    async for _ in stream:
        begun.set()
begun = threading.Event()
future = loop.submit(ask())
begun.wait()
"""
    )
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr
    assert time.monotonic() - started < 30


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_forked_workers_end(weights: Path) -> None:
    ran = run(
        START
        + """
import gc, multiprocessing
def work():
    global provider
    del provider
    gc.collect()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(20)
print(child.exitcode)
print(provider._server.alive())
provider.close()
"""
    )
    assert (ran.returncode, ran.stdout) == (0, "0\nTrue\n")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    served = Served()
    with pytest.raises(ConfigurationError) as caught:
        served.prepare()
    assert caught.value.message == "The embedded model needs xllamacpp, which is not installed."
    assert caught.value.hint == 'Run pip install "llm_magic[local]"'
    served.close()


def test_the_extra_is_asked_for_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setenv("LLM_MAGIC_CACHE", str(tmp_path))
    served = Served()
    with pytest.raises(ConfigurationError, match="needs xllamacpp"):
        served.prepare()
    assert list(tmp_path.iterdir()) == []
    served.close()


def test_loading_the_module_imports_nothing_heavy() -> None:
    ran = run("""
        import sys
        import llm_magic.providers.local
        heavy = ("xllamacpp", "openai", "httpx", "httpx2", "pydantic", "filelock")
        print([name for name in heavy if name in sys.modules])
    """)
    assert ran.stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere xllamacpp comes without GNU's OpenMP")
@pytest.mark.parametrize(("set_by_the_user", "counts"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_threads_that_wait_leave_the_processor_to_others(set_by_the_user: dict[str, str], counts: str) -> None:
    code = (
        "import os; from llm_magic.providers.local.server import bindings; before = dict(os.environ); bindings();"
        "assert dict(os.environ) == before"
    )
    environment = {**os.environ, "OMP_DISPLAY_ENV": "VERBOSE", **set_by_the_user}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert f"GOMP_SPINCOUNT = '{counts}'" in done.stderr


def test_a_library_of_the_system_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ConfigurationError) as caught:
        bindings()
    assert "libgomp.so.1" in caught.value.message
    assert caught.value.hint == "Install OpenMP's library: apt-get install libgomp1"
