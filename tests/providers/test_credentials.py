"""Where keys come from, and that none stands in the configuration or shows itself."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest
from asked import ask, sent
from recorder import Recorder

from llm_magic.errors import AuthenticationError, ConfigurationError, LLMError
from llm_magic.providers import credentials
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.openai import OpenAIProvider

LITERAL = [
    "sk-proj-abcdefghijklmnop1234",
    "0123456789abcdef0123456789abcdef",  # Azure's form
    "gsk_abcdefghij0123456789",
    "hf_abcdefghij0123456789",
    "a key with spaces",
    "env:sk-abc",
    "Bearer abc",
]


@pytest.mark.parametrize("key", LITERAL)
@pytest.mark.parametrize("trait", ["api_key_env", "azure_ad_token_env"])
def test_a_key_written_out_is_refused_without_repeating_it(key: str, trait: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureProvider(azure_endpoint="https://r.invalid", **{trait: key})
    assert "looks like a key itself" in caught.value.message
    assert "environment variable" in caught.value.hint
    assert key not in str(caught.value)


def test_so_are_settings_that_would_hold_one() -> None:
    with pytest.raises(ConfigurationError, match="has no setting 'api_key'") as caught:
        OpenAIProvider(api_key="sk-abcdefgh")
    assert "api_key_env" in caught.value.hint
    assert "sk-abc" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="carries a secret") as caught:
        CompatibleProvider(default_headers={"Helicone-Auth": "Bearer sk-abcdefgh"})
    assert "headers_env" in caught.value.hint
    with pytest.raises(ConfigurationError, match="no import string"):
        AzureProvider(azure_ad_token_provider="eyJabc.def.ghi")


@pytest.mark.parametrize("source", ["MY_KEY", "env:MY_KEY", "os.environ/MY_KEY"])
def test_a_key_by_its_variable(source: str, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("MY_KEY", "  the-key\n")
    ask(CompatibleProvider(base_url=recorder.url, api_key_env=source), "m")
    assert recorder.last.headers["authorization"] == "Bearer the-key"


def test_a_missing_variable_is_named(recorder: Recorder) -> None:
    with pytest.raises(ConfigurationError, match="environment variable MY_KEY is not set"):
        ask(CompatibleProvider(base_url=recorder.url, api_key_env="MY_KEY"), "m")
    with pytest.raises(ConfigurationError, match="environment variable MY_URL is not set"):
        ask(CompatibleProvider(base_url="env:MY_URL"), "m")


@pytest.mark.parametrize("value", ["two\nlines", "schlüssel", "nul\0"])
def test_a_key_that_no_header_can_carry_is_said(value: str, recorder: Recorder) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent") as caught:
        credentials.sendable(value, "MY_KEY")
    assert value not in str(caught.value)


def test_a_changed_variable_is_seen_by_the_next_request(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    provider = CompatibleProvider(base_url=recorder.url, api_key_env="MY_KEY")

    async def work() -> None:
        for key in ("first", "second"):
            monkeypatch.setenv("MY_KEY", key)
            await provider.list_models(refresh=True)
            assert recorder.last.headers["authorization"] == f"Bearer {key}"
        assert len(provider._open) == 2
        await provider.aclose()
        assert provider._open == []

    asyncio.run(work())


@pytest.fixture
def key_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("my_keys")
    count = iter(range(1, 100))

    def plain() -> str:
        return f"plain-{next(count)}"

    async def awaited() -> str:
        await asyncio.sleep(0)
        return f"async-{next(count)}"

    module.plain, module.awaited, module.nothing = plain, awaited, lambda: None  # type: ignore[attr-defined]  # a module made here
    module.text = "no function"  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "my_keys", module)
    return module


@pytest.mark.usefixtures("key_module")
@pytest.mark.parametrize("kind", ["plain", "awaited"])
def test_a_function_is_asked_at_each_request(kind: str, recorder: Recorder) -> None:
    provider = CompatibleProvider(base_url=recorder.url, api_key_env=f"my_keys:{kind}")
    name = {"plain": "plain", "awaited": "async"}[kind]

    async def work() -> None:
        await provider.list_models(refresh=True)
        await provider.list_models(refresh=True)
        await provider.aclose()

    asyncio.run(work())
    assert [seen.headers["authorization"] for seen in recorder.requests] == [f"Bearer {name}-1", f"Bearer {name}-2"]


@pytest.mark.usefixtures("key_module")
def test_a_dry_run_asks_no_function(recorder: Recorder) -> None:
    for provider in (
        CompatibleProvider(base_url=recorder.url, api_key_env="my_keys:plain"),
        AzureProvider(azure_endpoint=recorder.root, api_key_env="my_keys:plain"),
        AzureProvider(azure_endpoint=recorder.root, api_key_env="my_keys:plain", api_version="2024-10-21"),
        AzureProvider(azure_endpoint=recorder.root, azure_ad_token_provider="my_keys:plain", api_version="2024-10-21"),
    ):
        sent(provider, "m")
    ask(CompatibleProvider(base_url=recorder.url, api_key_env="my_keys:plain"), "m")
    assert recorder.last.headers["authorization"] == "Bearer plain-1"
    assert len(recorder.requests) == 1


@pytest.mark.usefixtures("key_module")
@pytest.mark.parametrize(
    ("source", "said"),
    [("my_keys:nothing", "gave no key"), ("my_keys:text", "not callable"), ("my_keys:absent", "cannot be imported")],
)
def test_a_function_without_a_key(source: str, said: str, recorder: Recorder) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ask(CompatibleProvider(base_url=recorder.url, api_key_env=source), "m")
    assert recorder.requests == []


def test_a_keyring_entry(recorder: Recorder) -> None:
    keyring: Any = pytest.importorskip("keyring", reason="needs the extra keyring")
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return "from-the-keyring" if (service, username) == ("gateway", "me") else None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    try:
        ask(CompatibleProvider(base_url=recorder.url, api_key_env="keyring:gateway/me"), "m")
        assert recorder.last.headers["authorization"] == "Bearer from-the-keyring"
        with pytest.raises(ConfigurationError, match="no entry 'you' of service 'gateway'"):
            ask(CompatibleProvider(base_url=recorder.url, api_key_env="keyring:gateway/you"), "m")
    finally:
        keyring.set_keyring(before)


def test_without_the_package_the_keyring_says_so(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigurationError, match="keyring is not installed"):
        ask(CompatibleProvider(base_url=recorder.url, api_key_env="keyring:a/b"), "m")


def test_secret_headers_by_their_variables(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "gateway-secret")
    provider = CompatibleProvider(
        base_url=recorder.url,
        headers_env={"Helicone-Auth": "Bearer GATEWAY_KEY", "X-Api-Key": "GATEWAY_KEY"},
        default_headers={"Helicone-User-Id": "me"},
    )
    ask(provider, "m")
    headers = recorder.last.headers
    assert headers["helicone-auth"] == "Bearer gateway-secret"
    assert headers["x-api-key"] == "gateway-secret"
    assert headers["helicone-user-id"] == "me"
    preview = sent(provider, "m")
    assert "gateway-secret" not in repr(preview)
    assert {name.lower(): value for name, value in preview.headers.items()}["helicone-auth"] == "Bearer ***"


@pytest.mark.parametrize(("name", "value"), [("a header", "x"), ("X-A", "line\nbreak"), ("X-A", "ü"), ("", "x")])
def test_a_header_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="default_headers"):
        CompatibleProvider(default_headers={name: value})


def test_a_key_shows_nowhere(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("MY_KEY", "top-secret-key")
    monkeypatch.setenv("MY_HEADER", "top-secret-header")
    recorder.fixed = (401, "application/json", b'{"error": {"message": "Incorrect API key provided: top-secret-key"}}')
    provider = CompatibleProvider(
        base_url=recorder.url, api_key_env="MY_KEY", headers_env={"X-Token": "MY_HEADER"}, max_retries=0
    )
    with pytest.raises(AuthenticationError) as caught:
        ask(provider, "m")
    assert b"top-secret-key" in recorder.received
    assert b"top-secret-header" in recorder.received
    shown = [str(caught.value), repr(caught.value), repr(provider), repr(provider.recipe()), repr(vars(provider))]
    shown += [repr(sent(provider, "m")), str(provider.trait_values())]
    shown += [repr(item) for item in provider.class_config_section().splitlines()]
    assert [text for text in shown if "top-secret" in text] == []


def test_nor_in_the_traceback_that_tb_shows(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("MY_KEY", "top-secret-key")
    recorder.fixed = (500, "application/json", b'{"error": {"message": "no"}}')
    try:
        ask(CompatibleProvider(base_url=recorder.url, api_key_env="MY_KEY", max_retries=0), "m")
    except LLMError as error:
        first, caught = error._render_traceback_(), error
    second = caught._render_traceback_()
    assert len(first) <= 2
    assert len(second) > 2
    assert "top-secret-key" not in "\n".join([*first, *second])
