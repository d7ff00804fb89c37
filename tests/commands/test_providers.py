"""`%llm_provider` in a kernel: list, add, remove, test, and a LiteLLM configuration."""

from pathlib import Path

import pytest
from kernels import Kernel
from servers import ScriptedServer, document
from shown import failed, html, plain

KEY = "sk-12345678901234567890abcd"


@pytest.fixture(autouse=True)
def _no_providers(kernel: Kernel) -> None:
    kernel.run(
        "get_ipython()._llm_magic.registry.providers = {}; import os; os.environ['THERE_KEY'] = 'top-secret'"
    ).check()


def test_what_is_added_answers_and_is_listed(kernel: Kernel, vllm_url: str) -> None:
    said = plain(kernel.run(f"%llm_provider add gpu --class vllm --base-url {vllm_url} --max-retries 1"))
    assert said == (
        f"gpu is a provider of class vllm now, at {vllm_url}. Ask it with -m gpu:MODEL; "
        "%llm_provider test gpu tries it."
    )
    assert kernel.value("get_ipython()._llm_magic.registry.get('gpu').max_retries") == 1
    kernel.run("%%llm -m gpu: -o answer --max-tokens 4 --once -t 0\nHi").check()
    assert kernel.value("_llm.provider") == "gpu"
    rows = [line.split() for line in plain(kernel.run("%llm_provider list")).splitlines()]
    assert rows[:2] == [["provider", "class", "URL", "key"], ["gpu", "vllm", vllm_url, "none"]]
    assert plain(kernel.run("%llm_provider")) == plain(kernel.run("%llm_provider list"))
    assert plain(kernel.run("%llm_provider remove gpu")) == "gpu is no provider of this session any more."
    assert failed(kernel, "%%llm -m gpu:x\nHi")[0] == "ModelNotFoundError"


def test_any_setting_of_the_class_is_an_option(kernel: Kernel) -> None:
    kernel.run(
        "%llm_provider add eu --class azure --azure-endpoint https://eu.openai.azure.com --api-version 2024-10-21 "
        '--deployments {"mine": "gpt-4o"} --timeout 7 --api-key-env THERE_KEY --default-query={"a": "b"}'
    ).check()
    traits = "azure_endpoint", "api_version", "deployments", "timeout", "api_key_env", "default_query"
    assert kernel.value(f"[getattr(get_ipython()._llm_magic.registry.get('eu'), name) for name in {traits}]") == [
        "https://eu.openai.azure.com",
        "2024-10-21",
        {"mine": "gpt-4o"},
        7.0,
        "THERE_KEY",
        {"a": "***"},
    ]
    ran = kernel.run("%llm_provider")
    (row,) = [line.split() for line in plain(ran).splitlines() if line.startswith("eu ")]
    assert row == ["eu", "azure", "https://eu.openai.azure.com/openai", "THERE_KEY"]
    assert "top-secret" not in plain(ran) + html(ran)


def test_the_class_is_that_of_the_name_else_compatible(kernel: Kernel) -> None:
    assert "class vllm now" in plain(kernel.run("%llm_provider add vllm --base-url http://127.0.0.1:9"))
    kernel.run("address = 'http://127.0.0.1:9/v1'").check()
    assert "class compatible now, at http://127.0.0.1:9/v1." in plain(
        kernel.run("%llm_provider add x --base-url $address")
    )


def test_testing_asks_for_the_models_and_no_model(kernel: Kernel) -> None:
    with ScriptedServer(document({"data": [{"id": "a"}, {"id": "b"}]})) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url} --api-key-env THERE_KEY --models ['mine']").check()
        said = plain(kernel.run("%llm_provider test there"))
        assert [(request.method, request.path) for request in server.requests] == [("GET", "/v1/models")]
        assert server.requests[0].headers["authorization"] == "Bearer top-secret"
    assert said.startswith(f"there answers: {server.url} lists 2 models in ")
    assert said.endswith(" s: a, b. Key: THERE_KEY. No model was asked.")


def test_testing_real_servers(kernel: Kernel, vllm_url: str, litellm_url: str, litellm_key: str) -> None:
    kernel.run(f"%llm_provider add gpu --class vllm --base-url {vllm_url}").check()
    assert ": smollm2. Key: none. No model was asked." in plain(kernel.run("%llm_provider test gpu"))
    kernel.run(f"os.environ['LITELLM_KEY'] = {litellm_key!r}; os.environ['WRONG_KEY'] = 'sk-wrong'").check()
    kernel.run(f"%llm_provider add proxy --base-url {litellm_url} --api-key-env LITELLM_KEY").check()
    assert "Key: LITELLM_KEY." in plain(kernel.run("%llm_provider test proxy"))
    kernel.run(f"%llm_provider add proxy --base-url {litellm_url} --api-key-env WRONG_KEY").check()
    name, text = failed(kernel, "%llm_provider test proxy")
    assert name == "AuthenticationError"
    assert "sk-wrong" not in text


def test_a_litellm_configuration(kernel: Kernel, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "model_list:\n"
        "- {model_name: fast, litellm_params: {model: hosted_vllm/smollm2, api_base: 'http://127.0.0.1:9/v1'}}\n"
        "- {model_name: odd, litellm_params: {model: bedrock/x}}\n"
    )
    said = plain(kernel.run("%llm_provider add --litellm config.yaml")).splitlines()
    assert said[:2] == ["Aliases from config.yaml: fast, odd.", "Providers from config.yaml: litellm-hosted_vllm."]
    assert said[2].startswith("odd cannot be used: ")
    assert "litellm-hosted_vllm" in plain(kernel.run("%llm_provider"))
    kernel.run("os.chdir('/')").check()
    assert kernel.value("get_ipython()._llm_magic.registry.resolve('fast').model") == "smollm2"
    assert failed(kernel, "%llm_provider add --litellm nowhere.yaml")[0] == "ConfigurationError"
    assert kernel.value("get_ipython()._llm_magic.registry.resolve('fast').model") == "smollm2"
    kernel.run("%llm_config ProviderRegistry.litellm_config=''").check()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("%llm_provider ad x", "OptionError", "%llm_provider has no command ad.\nDid you mean add?"),
        ("%llm_provider --list", "OptionError", "%llm_provider has no option --list."),
        ("%llm_provider add", "OptionError", "%llm_provider add needs a NAME."),
        ("%llm_provider add a b", "OptionError", "takes 1 word besides options, not 2"),
        ("%llm_provider add x --base-url", "OptionError", "--base-url needs a value"),
        ("%llm_provider add x --bse-url http://h/v1", "OptionError", "Did you mean --base-url?"),
        ("%llm_provider add x --class azur", "ConfigurationError", "Did you mean azure?"),
        ("%llm_provider add x --azure-endpoint https://h", "OptionError", "has no option --azure-endpoint"),
        ("%llm_provider add x --timeout soon", "ConfigurationError", "timeout"),
        ("%llm_provider add a:b --base-url http://h/v1", "OptionError", "'a:b' cannot be the name of a provider."),
        ("%llm_provider add x --base-url http://me:pw@h/v1", "OptionError", "without user name or password"),
        (f"%llm_provider add x --api-key {KEY}", "OptionError", "--api-key-env VARIABLE"),
        (f"%llm_provider add x --api-key={KEY}", "OptionError", "--api-key-env VARIABLE"),
        (f"%llm_provider add x --class azure --azure-ad-token {KEY}", "OptionError", "--azure-ad-token-env"),
        ("%llm_provider add x --class vllm --tokeniser x", "OptionError", "Did you mean --tokenizer or"),
        (f"%llm_provider add x --api-key-env {KEY}", "ConfigurationError", "looks like a key itself"),
        (
            f'%llm_provider add x --default-headers {{"Authorization": "Bearer {KEY}"}}',
            "ConfigurationError",
            "headers_env",
        ),
        ("%llm_provider add x --litellm config.yaml", "OptionError", "--litellm stands alone"),
        ("%llm_provider remove", "OptionError", "%llm_provider remove needs a NAME."),
        ("%llm_provider remove openai", "ConfigurationError", "cannot be removed"),
        ("%llm_provider remove vlm", "ConfigurationError", "There is no provider 'vlm'.\nDid you mean vllm?"),
        ("%llm_provider test nobody", "ConfigurationError", "There is no provider 'nobody'."),
        ("%llm_provider test openai", "ConfigurationError", "OPENAI_API_KEY is not set"),
        ("%llm_provider test azure", "ConfigurationError", "azure has no azure_endpoint."),
        ("%llm_provider list all", "OptionError", "takes no words"),
    ],
)
def test_what_is_wrong(kernel: Kernel, code: str, error: str, message: str) -> None:
    name, text = failed(kernel, code)
    assert name == error
    assert message in text
    assert KEY not in text
    assert ":pw@" not in text
    assert kernel.value("get_ipython()._llm_magic.registry.providers") == {}
