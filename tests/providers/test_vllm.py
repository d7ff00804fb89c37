"""vLLM: what is sent to it, what it makes of it, and prompts that are too long."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from asked import answer, ask, sent
from recorder import Recorder

from llm_magic.errors import (
    ConfigurationError,
    ContextOverflowError,
    EndpointNotFoundError,
    PromptError,
    UnsupportedError,
)
from llm_magic.messages import Image, Text, assistant, system, user
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.vllm import VLLMProvider

CHOICE = {"structured_outputs": {"choice": ["yes", "no"]}}


@pytest.mark.parametrize("written", ["", "/", "/v1", "/v1/"])
def test_v1_is_added_where_it_is_missing(written: str, recorder: Recorder) -> None:
    ask(VLLMProvider(base_url=recorder.root + written), "m")
    assert [seen.target for seen in recorder.requests] == ["/v1/models", "/v1/chat/completions"]


def test_the_default_url() -> None:
    assert VLLMProvider().url() == "http://localhost:8000/v1"
    assert str(VLLMProvider().origin("m")) == "vllm:m (http://localhost:8000/v1)"


def test_no_model_is_the_first_listed(recorder: Recorder) -> None:
    recorder.models = [{"id": "base", "max_model_len": 100}, {"id": "adapter", "parent": "base"}]
    assert ask(VLLMProvider(base_url=recorder.url)).model_reported == "base"


def test_an_adapter_has_the_context_of_its_base(recorder: Recorder) -> None:
    recorder.models = [{"id": "base", "max_model_len": 100}, {"id": "adapter", "parent": "base"}]
    provider = VLLMProvider(base_url=recorder.url)

    async def work() -> None:
        cards = await provider.list_models()
        assert [(card.id, card.context, card.parent) for card in cards] == [
            ("base", 100, ""),
            ("adapter", None, "base"),
        ]
        assert provider.capabilities("adapter").context == 100
        assert provider.capabilities("other").context is None
        await provider.aclose()

    asyncio.run(work())
    assert ask(VLLMProvider(base_url=recorder.url), "adapter").model_reported == "adapter"


def test_arguments_of_the_template_are_sent(recorder: Recorder) -> None:
    provider = VLLMProvider(base_url=recorder.url, chat_template_kwargs={"enable_thinking": False, "a": 1})
    ask(provider, "m", extra={"chat_template_kwargs": {"a": 2}})
    assert recorder.last.json["chat_template_kwargs"] == {"enable_thinking": False, "a": 2}
    ask(provider, "m", api="responses")
    assert "chat_template_kwargs" not in recorder.last.json


def test_fields_are_added_to_constraints(recorder: Recorder) -> None:
    provider = VLLMProvider(base_url=recorder.url, structured_outputs={"disable_any_whitespace": True})
    ask(provider, "m", structure=CHOICE)
    assert recorder.last.json["structured_outputs"] == {"choice": ["yes", "no"], "disable_any_whitespace": True}
    ask(provider, "m")
    assert "structured_outputs" not in recorder.last.json


def test_an_older_server_gets_response_format() -> None:
    assert VLLMProvider().capabilities("m").dialects == dict.fromkeys(
        ["json", "choices", "regex", "grammar"], "structured_outputs"
    )
    older = VLLMProvider(structured_outputs=False).capabilities("m").dialects
    assert older == {"json": "json_schema", "choices": "json_schema"}


# With a tokenizer of this side.


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{% if tone is defined %}[{{ tone }}]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of words, with a chat template."""
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra tokenizer")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"<unk>": 0, "one": 1}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer")
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return folder


def test_the_template_is_applied_here(tokenizer: Path, recorder: Recorder) -> None:
    recorder.models = [{"id": "m", "max_model_len": 50}]
    provider = VLLMProvider(base_url=recorder.url, tokenizer=str(tokenizer), chat_template_kwargs={"tone": "dry"})
    turns = (system("Be brief."), user("one"), assistant("two"), user("three"))
    response = ask(provider, "m", turns, n=2, temperature=0.5)
    assert response.text == "Hello"
    assert recorder.last.target == "/v1/completions"
    body = recorder.last.json
    prompt = "<system>Be brief.</system><user>one</user><assistant>two</assistant><user>three</user><assistant>[dry]"
    assert body["prompt"] == prompt
    assert body["n"] == 2
    assert body["add_special_tokens"] is False
    assert body["max_tokens"] == 50 - provider.template().count(prompt)
    assert "messages" not in body
    assert "chat_template_kwargs" not in body


def test_the_api_can_still_be_chosen(tokenizer: Path, recorder: Recorder) -> None:
    ask(VLLMProvider(base_url=recorder.url, tokenizer=str(tokenizer)), "m", api="chat", max_tokens=3)
    assert recorder.last.target == "/v1/chat/completions"
    assert recorder.last.json["messages"] == [{"role": "user", "content": "Say hello."}]


def test_a_dry_run_shows_the_templated_prompt(tokenizer: Path) -> None:
    preview = sent(VLLMProvider(tokenizer=str(tokenizer)), "m", "one")
    assert preview.body["prompt"] == "<user>one</user><assistant>"


def test_what_a_template_cannot_carry(tokenizer: Path, recorder: Recorder) -> None:
    provider = VLLMProvider(base_url=recorder.url, tokenizer=str(tokenizer))
    assert provider.capabilities("m").tools is False
    with pytest.raises(UnsupportedError, match="Images cannot go through a chat template"):
        ask(provider, "m", (user(Text("a"), Image(url="http://h/i.png")),))
    strict = json.loads((tokenizer / "tokenizer_config.json").read_text())
    other = tokenizer.parent / "strict"
    other.mkdir(exist_ok=True)
    for file in tokenizer.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "tokenizer_config.json").write_text(json.dumps(strict))
    (other / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(PromptError, match="no system role"):
        ask(VLLMProvider(base_url=recorder.url, tokenizer=str(other)), "m")


def test_no_such_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorder: Recorder) -> None:
    pytest.importorskip("transformers", reason="needs the extra tokenizer")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ask(VLLMProvider(base_url=recorder.url, tokenizer=str(tmp_path)), "m")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match="needs the package transformers") as caught:
        ask(VLLMProvider(base_url=recorder.url, tokenizer="x"), "m")
    assert 'pip install "llm_magic[tokenizer]"' in caught.value.hint


class Hub(BaseHTTPRequestHandler):
    """Serves a tokenizer as the Hugging Face hub does, with another template at the revision `v2`."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[4:]) if len(parts) > 4 and parts[2] == "resolve" else ""
        file = self.folder / name
        if not name or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        if parts[3] == "v2":
            content = content.replace(b"<{{ m.role }}>", b"<v2 {{ m.role }}>")
        self.send_response(200)
        self.send_header("X-Repo-Commit", ("2" if parts[3] == "v2" else "1") * 40)
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tokenizer: Path) -> Iterator[str]:
    Hub.folder, Hub.asked = tokenizer, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_tokenizer_of_the_hub_at_a_revision(hub: str, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from llm_magic.messages import user\n"
        "from llm_magic.providers.vllm import VLLMProvider\n"
        "p = VLLMProvider(tokenizer='org/words', tokenizer_revision=sys.argv[1])\n"
        "print(asyncio.run(p.template().apply((user('one'),), {}))[0])"
    )
    found = []
    for revision in ("", "v2"):
        environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        environment.pop("HF_HUB_OFFLINE", None)
        run = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", code, revision], capture_output=True, text=True, env=environment, check=False
        )
        assert run.returncode == 0, run.stderr
        found.append(run.stdout.strip())
    assert found == ["<user>one</user><assistant>", "<v2 user>one</user><assistant>"]
    assert any("/resolve/v2/" in path for path in Hub.asked)


# Prompts that do not fit.


def test_a_prompt_that_is_too_long_says_both_numbers(recorder: Recorder) -> None:
    recorder.models = [{"id": "m", "max_model_len": 30}]
    provider = VLLMProvider(base_url=recorder.url, max_retries=0)
    with pytest.raises(ContextOverflowError) as caught:
        ask(provider, "m", "word " * 100)
    assert "tokens, but the context of vllm:m" in caught.value.message
    assert "is 30 tokens" in caught.value.message
    assert recorder.last.target == "/tokenize"
    assert recorder.last.json["messages"] == [{"role": "user", "content": "word " * 100}]


def test_a_short_prompt_is_not_counted(recorder: Recorder) -> None:
    recorder.models = [{"id": "m", "max_model_len": 3000}]
    ask(VLLMProvider(base_url=recorder.url), "m", max_tokens=10)
    assert [seen.target for seen in recorder.requests] == ["/v1/models", "/v1/chat/completions"]


def test_a_server_that_does_not_count_is_simply_asked(recorder: Recorder) -> None:
    recorder.models = [{"id": "m", "max_model_len": 30}]
    answered = recorder.answer
    recorder.answer = lambda path, body: (  # type: ignore[method-assign]  # another answer
        (404, "application/json", b"{}") if path == "/tokenize" else answered(path, body)
    )
    assert ask(VLLMProvider(base_url=recorder.url), "m", "word " * 100).text == "Hello"


def test_the_local_tokenizer_counts_too(tokenizer: Path, recorder: Recorder) -> None:
    recorder.models = [{"id": "m", "max_model_len": 30}]
    provider = VLLMProvider(base_url=recorder.url, tokenizer=str(tokenizer))
    with pytest.raises(ContextOverflowError, match=r"has 108 tokens and --max-tokens asks for 5 more"):
        ask(provider, "m", "word " * 100, max_tokens=5)
    assert [seen.target for seen in recorder.requests] == ["/v1/models"]


# A real server.


@pytest.fixture
def real(vllm_url: str) -> VLLMProvider:
    return VLLMProvider(base_url=vllm_url)


def test_real_answers_through_all_three_apis(real: VLLMProvider) -> None:
    async def work() -> list[Any]:
        found = [
            await answer(real, "", api=api, stream=stream, temperature=0, max_tokens=8)
            for api in ("chat", "responses", "completions")
            for stream in (True, False)
        ]
        await real.aclose()
        return found

    answers = asyncio.run(work())
    assert [item.finish_reason for item in answers] == ["length"] * 6
    assert all(item.usage.output_tokens == 8 and item.usage.input_tokens > 0 for item in answers)
    assert all(item.model_reported == "smollm2" for item in answers)
    texts = [item.text for item in answers]
    assert texts[0] == texts[1]
    assert texts[4] == texts[5]


def test_real_constraints(real: VLLMProvider) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["age"],
    }

    async def work() -> list[str]:
        found = [
            (await answer(real, "smollm2", "Is water wet?", structure=CHOICE, temperature=0)).text,
            (
                await answer(
                    real,
                    "smollm2",
                    "A year:",
                    structure={"structured_outputs": {"regex": r"(19|20)\d\d"}},
                    temperature=0,
                )
            ).text,
            (
                await answer(
                    real,
                    "smollm2",
                    'How old is Ann, who is 30? Answer as JSON on one line: {"age": 30}',
                    structure={"structured_outputs": {"json": schema}},
                    temperature=0,
                    max_tokens=200,
                )
            ).text,
        ]
        await real.aclose()
        return found

    choice, year, document = asyncio.run(work())
    assert choice in ("yes", "no")
    assert 1900 <= int(year) < 2100
    assert isinstance(json.loads(document)["age"], int)


def test_real_several_answers_in_one_request(real: VLLMProvider) -> None:
    response = ask(real, "smollm2", n=3, max_tokens=6, seed=1, temperature=1.0)
    assert len(response.alternatives) == 3
    assert len(response.attempts) == 1


def test_a_real_prompt_that_is_too_long(real: VLLMProvider) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        ask(real, "smollm2", "hello " * 6000)
    assert "is 4,096 tokens" in caught.value.message
    assert "The prompt has 6,0" in caught.value.message


def test_a_real_prompt_that_is_too_long_as_the_server_says_it(vllm_url: str) -> None:
    provider = CompatibleProvider(base_url=vllm_url)  # which counts nothing
    with pytest.raises(ContextOverflowError, match=r"4096|4,096"):
        ask(provider, "smollm2", "hello " * 6000)


def test_a_real_server_renders_as_the_template_here(real: VLLMProvider) -> None:
    """The prompt made on this side is token by token the one that the server makes."""

    async def work() -> None:
        client = real.client()
        page: Any = await client.get("/models", cast_to=object)
        folder = page["data"][0]["root"]
        if not Path(folder).is_dir():  # noqa: ASYNC240 - a test may block
            pytest.skip("needs a vLLM server whose model's folder is on this machine")
        here = VLLMProvider(base_url=real.base_url, tokenizer=folder)
        turns = (system("Be brief."), user("What is 2 + 2?"))
        await here.prepare(lambda _: None)
        prompt, count = await here.template().apply(turns, {})
        body = {"model": "smollm2", "messages": [{"role": turn.role, "content": turn.text} for turn in turns]}
        url = real.url().removesuffix("/v1") + "/tokenize"
        server: Any = await client.post(url, cast_to=object, body=body)
        assert count == server["count"]
        mine = await answer(here, "smollm2", turns, temperature=0, max_tokens=12)
        theirs = await answer(real, "smollm2", turns, temperature=0, max_tokens=12)
        assert mine.text == theirs.text
        assert mine.usage == theirs.usage
        assert prompt.endswith("<|im_start|>assistant\n")
        long = await answer(here, "smollm2", (user("Count to three."),), temperature=0)
        assert long.usage is not None
        assert long.usage.output_tokens > 16 or long.finish_reason == "stop"
        await here.aclose()
        await real.aclose()

    asyncio.run(work())


def test_a_real_unknown_model(real: VLLMProvider) -> None:
    with pytest.raises(EndpointNotFoundError, match="nobody"):
        ask(real, "nobody")
