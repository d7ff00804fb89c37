"""No door shows a secret: each way in, each provider, each end of a request, in a real kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import nbformat
import openai
import pytest
from canary import OUTCOMES, Canary, echo
from kernels import Kernel
from servers import ScriptedServer


class Way(NamedTuple):
    """A way in: how a secret comes to a provider, as a cell; and options of the cells that ask it."""

    name: str
    setup: str
    options: str = ""
    keywords: str = ""


_AZURE = "azure_endpoint=doors.url.removesuffix('/v1'), base_url='', models=['m']"
_OPENAI = "os.environ['OPENAI_BASE_URL'] = doors.url; os.environ['OPENAI_API_KEY'] = 'k'; "
_HOME = "doors.put('openai', base_url='')"

WAYS = [
    Way("compatible: api_key_env", "doors.put('compatible', api_key_env='CANARY')"),
    Way("compatible: api_key_env, a callable", "doors.put('compatible', api_key_env='canary_source:key')"),
    Way("compatible: api_key_env, async", "doors.put('compatible', api_key_env='canary_source:later')"),
    *(
        [Way("compatible: api_key_env, a keyring", "doors.put('compatible', api_key_env=doors.keyring())")]
        if find_spec("keyring")
        else []
    ),
    Way("compatible: env: in default_headers", "doors.put('compatible', default_headers={'X-T': 'env:CANARY'})"),
    Way("compatible: headers_env", "doors.put('compatible', headers_env={'X-T': 'CANARY'})"),
    Way("compatible: headers_env, a scheme", "doors.put('compatible', headers_env={'X-T': 'Basic CANARY'})"),
    Way("compatible: env: in default_query", "doors.put('compatible', default_query={'sub': 'env:CANARY'})"),
    Way("compatible: plain in default_query", "doors.put('compatible', default_query={'sub': doors.secret()})"),
    Way("compatible: env: in base_url", "doors.put('compatible', base_url='env:CANARY_URL')"),
    Way("compatible: plain in base_url", "doors.put('compatible', base_url=os.environ['CANARY_URL'])"),
    Way(
        "compatible: env: in a proxy",
        "doors.put('compatible', base_url='http://far.invalid/v1', http_client_kwargs={'proxy': 'env:CANARY_PROXY'})",
    ),
    Way(
        "compatible: plain in a proxy",
        "doors.put('compatible', base_url='http://far.invalid/v1', "
        "http_client_kwargs={'proxy': os.environ['CANARY_PROXY']})",
    ),
    Way(
        "compatible: env: in organization",
        "doors.put('compatible', organization='env:CANARY', project='env:CANARY')",
    ),
    Way(
        "compatible: --header env:",
        "doors.put('compatible')",
        "--header X-T=env:CANARY",
        "header={'X-T': 'env:CANARY'}",
    ),
    Way(
        "compatible: header written out",
        "doors.put('compatible')",
        "--header X-Api-Key={doors.secret()}",
        "header={'X-Api-Key': doors.secret()}",
    ),
    Way("compatible: aiohttp", "doors.put('compatible', api_key_env='CANARY', http_client='aiohttp')"),
    Way(
        "compatible: a header in LLMMagics.params",
        "doors.put('compatible'); doors.cells().params = {'header': {'X-Api-Key': doors.secret()}}",
    ),
    Way(
        "compatible: a header in an alias",
        "doors.put('compatible'); doors.alias({'header': {'X-Api-Key': doors.secret()}})",
    ),
    Way("vllm: api_key_env", "doors.put('vllm', api_key_env='CANARY')"),
    Way("vllm: env: in the body", "doors.put('vllm', chat_template_kwargs={'who': 'env:CANARY'})"),
    Way("vllm: env: in default_query", "doors.put('vllm', default_query={'sub': 'env:CANARY'})"),
    Way("openai: OPENAI_API_KEY", f"{_OPENAI}os.environ['OPENAI_API_KEY'] = doors.secret(); {_HOME}"),
    Way("openai: OPENAI_ORG_ID", f"{_OPENAI}os.environ['OPENAI_ORG_ID'] = doors.secret(); {_HOME}"),
    *(
        []
        if openai.__version__.startswith("2.")  # which does not read it
        else [
            Way(
                "openai: OPENAI_CUSTOM_HEADERS",
                f"{_OPENAI}os.environ['OPENAI_CUSTOM_HEADERS'] = 'X-T: ' + doors.secret(); {_HOME}",
            )
        ]
    ),
    Way("openai: OPENAI_BASE_URL", f"{_OPENAI}os.environ['OPENAI_BASE_URL'] = os.environ['CANARY_URL']; {_HOME}"),
    Way("openai: api_key_env", "doors.put('openai', api_key_env='CANARY')"),
    Way("azure: api_key_env", f"doors.put('azure', api_key_env='CANARY', {_AZURE})"),
    Way(
        "azure: AZURE_OPENAI_API_KEY",
        f"os.environ['AZURE_OPENAI_API_KEY'] = doors.secret(); doors.put('azure', {_AZURE})",
    ),
    Way("azure: azure_ad_token_env", f"doors.put('azure', azure_ad_token_env='CANARY', {_AZURE})"),
    Way("azure: a token provider", f"doors.put('azure', azure_ad_token_provider='canary_source:later', {_AZURE})"),
    Way("azure classic: api_key_env", f"doors.put('azure', api_key_env='CANARY', api_version='2024-10-21', {_AZURE})"),
    Way(
        "azure classic: a key that is asked for",
        f"doors.put('azure', api_key_env='canary_source:key', api_version='2024-10-21', {_AZURE})",
    ),
    Way(
        "azure classic: AZURE_OPENAI_AD_TOKEN",
        f"os.environ['AZURE_OPENAI_AD_TOKEN'] = doors.secret(); doors.put('azure', api_version='2024-10-21', {_AZURE})",
    ),
    Way(
        "azure classic: a token provider",
        f"doors.put('azure', azure_ad_token_provider='canary_source:key', api_version='2024-10-21', {_AZURE})",
    ),
    Way("ready: its key", "doors.ready('AsyncOpenAI', api_key=doors.secret())"),
    Way("ready, blocking: its key", "doors.ready('OpenAI', api_key=doors.secret())"),
    Way("ready: its header", "doors.ready('AsyncOpenAI', default_headers={'X-T': doors.secret()})"),
    Way("ready: its query", "doors.ready('AsyncOpenAI', default_query={'sub': doors.secret()})"),
    Way(
        "ready azure: its token",
        "doors.ready('AsyncAzureOpenAI', azure_ad_token=doors.secret(), api_key=None, api_version='2024-10-21')",
    ),
]
"""The table: provider and way, and what a user writes."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    file = tmp_path_factory.mktemp("chat") / "chat.sqlite"
    with Kernel() as kernel:
        kernel.run(
            "%load_ext llm_magic\n"
            f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import doors\n%config LLMMagics.chat_file = {str(file)!r}\n"
            f"%config LLMMagics.record_file = {str(file.with_name('llm.jsonl'))!r}\n"
            "%config LLMMagics.record = 'new'"
        ).check()
        kernel.file = file  # type: ignore[attr-defined]
        yield kernel


def _asking(way: Way) -> list[str]:
    """Return the cells that ask."""
    return [
        f"%%llm -m there:m --timeout 0.3 --retries 0 {way.options}\nHi",
        "%tb",
        "print(vars(_llm), repr(_llm)) if _llm else None",
        f"doors.ask({way.keywords})",
        "doors.logs()",
    ]


def _showing(way: Way) -> list[str]:
    """Return the cells that show what is configured, and try it."""
    sections = {"vllm": "VLLMProvider", "openai": "OpenAIProvider", "azure": "AzureProvider"}
    section = sections.get(way.name.partition(":")[0].partition(" ")[0], "CompatibleProvider")
    return [
        f"%%llm -m there:m --dry-run {way.options}\nHi",
        "doors.settings()",
        *(f"doors.registry().get('there').{trait}" for trait in ("http_client_kwargs", "default_query", "base_url")),
        f"%config {section}",
        "%config LLMMagics",
        "%config LLMMagics.params",
        "%llm_config LLMMagics.params",
        "%config ProviderRegistry.aliases",
        "%config ProviderRegistry",
        "%config ProviderRegistry.providers",
        "%llm_config",
        "%llm_config there",
        "%llm_provider list",
        "%llm_provider test there",
        "%llm_models there",
        "%llm_usage",
        "%llm_picker",
        "%%llm_embed -m there:m --timeout 0.3 --retries 0\nHi",
        "doors.logs()",
    ]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_secret_is_sent_and_never_shown(way: Way, kernel: Kernel, tmp_path: Path) -> None:
    canary, outcome = Canary(), ""
    (tmp_path / "canary").write_text(canary.value)
    found: dict[str, str] = {}
    with ScriptedServer(echo(canary, lambda: outcome)) as server:
        arrived = {}
        for outcome in OUTCOMES:
            kernel.run("_llm = None").check()
            kernel.run(f"doors.begin({str(tmp_path)!r}, {server.url!r}); {way.setup}").check()
            before, notebook = len(server.requests), nbformat.v4.new_notebook()
            for code in _asking(way) + (_showing(way) if outcome in ("refused", "redirected") else []):
                kernel.heard.clear()
                ran = kernel.run(code)
                notebook.cells.append(nbformat.v4.new_code_cell(code))
                for output in ran.outputs:
                    notebook.cells[-1].outputs.append(nbformat.from_dict(output))
                said = json.dumps([{**m, "header": {}, "parent_header": {}} for m in kernel.heard], default=str)
                if hits := canary.found_in(said) + canary.found_in(said.replace("\\\\", "\\")):
                    found[f"{outcome}: {code[:60]}"] = hits[0]
            if hits := canary.found_in(nbformat.writes(notebook)):
                found[f"{outcome}: the notebook"] = hits[0]
            arrived[outcome] = any(canary.arrived_in(received) for received in server.requests[before:])
    files = [path for path in kernel.file.parent.iterdir() if path.is_file()]  # type: ignore[attr-defined]
    assert {path.name for path in files} >= {"chat.sqlite", "llm.jsonl"}
    recorded = kernel.file.with_name("llm.jsonl").read_text()  # type: ignore[attr-defined]
    assert recorded.count("Hello") > 0
    assert "127.0.0.1" not in recorded
    for path in files:
        if hits := canary.found_in(path.read_bytes().decode("latin-1")):
            found[path.name] = hits[0]
    assert not found, "\n".join(f"{door}: {hit}" for door, hit in found.items())
    assert arrived == dict.fromkeys(OUTCOMES, True)


def test_a_secret_is_not_shown_where_nothing_listens(kernel: Kernel, tmp_path: Path) -> None:
    canary = Canary()
    (tmp_path / "canary").write_text(canary.value)
    kernel.run(f"doors.begin({str(tmp_path)!r}, 'http://127.0.0.1:9/v1')").check()
    for way in WAYS:
        kernel.run(f"doors.begin({str(tmp_path)!r}, 'http://127.0.0.1:9/v1'); {way.setup}").check()
        for code in _asking(way):
            kernel.heard.clear()
            kernel.run(code)
            assert canary.found_in(json.dumps(kernel.heard, default=str)) == [], (way.name, code)


def test_the_traceback_of_the_sdk_is_there_masked(kernel: Kernel, tmp_path: Path) -> None:
    canary = Canary()
    (tmp_path / "canary").write_text(canary.value)
    with ScriptedServer(echo(canary, lambda: "refused")) as server:
        kernel.run(f"doors.begin({str(tmp_path)!r}, {server.url!r}); {WAYS[0].setup}").check()
        ran = kernel.run("%%llm -m there:m --retries 0\nHi")
        assert ran.error_name == "AuthenticationError"
        assert len(ran.outputs[-1]["traceback"]) == 2
        told = "\n".join(kernel.run("%tb").outputs[-1].get("traceback", [])) or kernel.run("%tb").stdout
    assert "openai.AuthenticationError: Error code: 401" in told
    assert "_base_client.py" in told
    assert "***" in told
    assert canary.found_in(told) == []


def test_unloading_leaves_nothing_on_the_loggers(kernel: Kernel) -> None:
    filters = (
        "[name for name in logging.Logger.manager.loggerDict "
        "if any('llm_magic' in type(item).__module__ for item in logging.getLogger(name).filters)]"
    )
    kernel.run("import logging").check()
    assert kernel.value(filters) != []
    kernel.run("%unload_ext llm_magic").check()
    assert kernel.value(filters) == []
    kernel.run("%load_ext llm_magic").check()


def test_the_search_finds_each_spelling() -> None:
    canary = Canary()
    assert [spelled for spelled in canary.spellings() if not canary.found_in(f"x {spelled} y")] == []
