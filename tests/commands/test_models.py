"""`%llm_models` in a kernel: real servers, and servers that are slow, wrong or away."""

import time

import pytest
from kernels import Kernel
from servers import HANG, Answer, ScriptedServer, document, page
from shown import failed, html, plain

RESET = "get_ipython()._llm_magic.registry.providers = {}"


@pytest.fixture(autouse=True)
def _no_providers(kernel: Kernel) -> None:
    kernel.run(RESET).check()


def row_of(text: str, model: str) -> list[str]:
    (row,) = [line.split() for line in text.splitlines() if line.startswith(f"{model} ")]
    return row


def test_every_provider_is_listed_or_says_why(kernel: Kernel, vllm_url: str, llamacpp_url: str) -> None:
    kernel.run(f"%llm_provider add gpu --class vllm --base-url {vllm_url}").check()
    kernel.run(f"%llm_provider add cpp --base-url {llamacpp_url}").check()
    text = plain(kernel.run("%llm_models"))
    assert text.splitlines()[0].split() == ["model", "context", "owner"]
    assert row_of(text, "gpu:smollm2") == ["gpu:smollm2", "4096", "vllm"]
    (cpp,) = [line for line in text.splitlines() if line.startswith("cpp:")]
    assert cpp.split()[-2:] == ["4096", "llamacpp"]
    assert "azure has no azure_endpoint." in text.splitlines()
    assert "compatible has no base_url." in text.splitlines()
    (openai,) = [line for line in text.splitlines() if line.startswith("openai")]
    assert openai.endswith("the environment variable OPENAI_API_KEY is not set.")


def test_a_proxy_with_a_key(kernel: Kernel, litellm_url: str, litellm_key: str) -> None:
    kernel.run(f"import os; os.environ['COMMANDS_KEY'] = {litellm_key!r}").check()
    kernel.run(f"%llm_provider add proxy --base-url {litellm_url} --api-key-env COMMANDS_KEY").check()
    ran = kernel.run("%llm_models proxy:text-embedding-3-small")
    assert row_of(plain(ran), "proxy:openai/text-embedding-3-small")[1:] == ["8191", "openai"]
    assert litellm_key not in plain(ran) + html(ran)
    globbed = plain(kernel.run("%llm_models proxy:gpt-4?"))
    assert [line.split()[0] for line in globbed.splitlines()[1:]] == ["proxy:gpt-4o"]
    assert plain(kernel.run("%llm_models proxy:zzz")).startswith("proxy: none of its ")


def test_a_server_that_hangs_holds_up_nobody(kernel: Kernel, llamacpp_url: str) -> None:
    with ScriptedServer(Answer([HANG])) as slow, ScriptedServer(page("<html>hello</html>")) as wrong:
        kernel.run(f"%llm_provider add slow --base-url {slow.url}").check()
        kernel.run(f"%llm_provider add wrong --base-url {wrong.url}").check()
        kernel.run("%llm_provider add away --base-url http://127.0.0.1:9/v1").check()
        kernel.run(f"%llm_provider add cpp --base-url {llamacpp_url}").check()
        started = time.perf_counter()
        text = plain(kernel.run("%llm_models"))
        assert time.perf_counter() - started < 10
        assert len(slow.requests) == 1  # an attempt that failed is not repeated
    assert "cpp:" in text
    lines = {line.split()[0].rstrip(":"): line for line in text.splitlines()}
    assert lines["slow"] == f"slow ({slow.url}) did not answer in time."
    assert "web page" in lines["wrong"] or "HTML" in lines["wrong"]
    assert lines["away"] == "away: Nothing listens at away (http://127.0.0.1:9/v1): the connection was refused."


def test_what_a_server_tells_of_its_models_is_shown_and_escaped(kernel: Kernel) -> None:
    models = [
        {"id": "new<script>", "context_length": 1000, "owned_by": "me & you"},
        {"id": "old", "expiration_date": "2027-01-31T00:00:00Z"},
    ]
    with ScriptedServer(document({"data": models})) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        ran = kernel.run("%llm_models there")
    assert plain(ran).splitlines()[:3] == [
        "model              context  owner     retires",
        "there:new<script>  1000     me & you",
        "there:old                             2027-01-31",
    ]
    assert "<script>" not in html(ran)
    assert "there:new&lt;script&gt;" in html(ran)


def test_a_list_of_the_last_minute_is_shown_again_until_refreshed(kernel: Kernel) -> None:
    with ScriptedServer(document({"data": [{"id": "a"}]}), document({"data": [{"id": "b"}]})) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        shown = [plain(kernel.run(f"%llm_models there{more}")) for more in ("", "", " --refresh")]
    assert shown == ["model\nthere:a", "model\nthere:a", "model\nthere:b"]


def test_thousands_of_models_are_cut_and_can_be_searched(kernel: Kernel) -> None:
    with ScriptedServer(document({"data": [{"id": f"model-{number}"} for number in range(2000)]})) as server:
        kernel.run(f"%llm_provider add many --base-url {server.url}").check()
        text = plain(kernel.run("%llm_models many"))
        found = plain(kernel.run("%llm_models many:-1999"))
    assert "… 2,000 rows in all" in text
    assert text.splitlines()[-1] == "%llm_models PROVIDER:TEXT shows those with TEXT in their names."
    assert found == "model\nmany:model-1999"


def test_aliases_are_named(kernel: Kernel) -> None:
    kernel.run("%llm_config ProviderRegistry.aliases={'small': 'local:smollm2'}").check()
    assert plain(kernel.run("%llm_models local")).splitlines()[-1] == "Aliases: small"
    kernel.run("%llm_config ProviderRegistry.aliases={}").check()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("%llm_models vlm", "ConfigurationError", "There is no provider 'vlm'.\nDid you mean vllm?"),
        ("%llm_models --refesh", "OptionError", "%llm_models has no option --refesh.\nDid you mean --refresh?"),
        ("%llm_models a b", "OptionError", "%llm_models takes 1 word besides options, not 2."),
        ("%llm_models openai", "ConfigurationError", "OPENAI_API_KEY is not set."),
    ],
)
def test_what_is_wrong(kernel: Kernel, code: str, error: str, message: str) -> None:
    name, text = failed(kernel, code)
    assert name == error
    assert message in text


@pytest.mark.parametrize("name", ["models", "config", "provider", "chat", "usage", "embed"])
def test_help_fits_a_screen_and_has_examples(kernel: Kernel, name: str) -> None:
    text = kernel.run(f"%llm_{name} --help").check().stdout
    assert f"llm_{name}" in text
    assert "Examples" in text
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 110
    assert kernel.run(f"%llm_{name} -h").check().stdout == text
