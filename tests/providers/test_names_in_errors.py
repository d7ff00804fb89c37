"""Errors of configuration name the user's own provider, and lines that are true and work as they stand."""

# ruff: noqa: E501 - a case stands on one line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, stream
from shown import failed

from llm_magic.errors import ConfigurationError
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.registry import ProviderRegistry

ENDPOINT = {"azure_endpoint": "https://eu.openai.azure.com"}


def eu(**settings: Any) -> Any:
    return ProviderRegistry(providers={"eu": {"class": "azure", **settings}}).get("eu")


@pytest.mark.parametrize(
    ("fails", "message", "hint"),
    [
        (lambda: eu().url(), "eu has no azure_endpoint.", '%llm_config eu.azure_endpoint = "https://NAME.openai.azure.com"'),
        (lambda: eu(api_key_env="EU_KEY", **ENDPOINT).key(), "eu.api_key_env: the environment variable EU_KEY is not set.", 'os.environ["EU_KEY"] = getpass.getpass()'),
        (lambda: eu(api_key_env="a b").key(), "eu.api_key_env holds something that looks like a key itself", "environment variable"),
        (lambda: eu(timeout="soon"), "eu, profile: timeout expected a float", ""),
        (lambda: eu(azure_ad_token_env="a b"), "eu.azure_ad_token_env holds", ""),
        (lambda: eu(azure_ad_token_provider="a b"), "eu.azure_ad_token_provider is no import string.", ""),
        (lambda: eu(base_url="nowhere").url(), "eu.base_url is no URL", "https://host:port/v1"),
        (lambda: eu(azure_endpoint="nowhere").url(), "eu.azure_endpoint is no URL", ""),
        (lambda: eu(timeout="env:NO_SUCH_SECONDS").recipe(), "eu", ""),
        (lambda: eu(default_headers={"Authorization": "x"}), "eu.default_headers: Authorization carries a secret", "headers_env"),
        (lambda: eu(headers_env={"X-Key": "NO_SUCH_HEADER"}).headers(), "eu.headers_env['X-Key']: the environment variable NO_SUCH_HEADER is not set.", ""),
        (lambda: eu(prices={"m": 5}).price("m"), "eu.prices['m'] is no price.", ""),
        (lambda: eu(timeot=5), "eu has no setting 'timeot'", "timeout"),
        (lambda: eu(http_client_kwargs={"prox": "x"}, **ENDPOINT, api_key_env="PATH").client(), "eu.http_client_kwargs does not know 'prox'.", "proxy"),
    ],
)  # fmt: skip
def test_the_instance_is_named(fails: Callable[[], object], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        fails()
    assert message in caught.value.message
    assert "AzureProvider." not in str(caught.value)
    assert hint in caught.value.hint


def test_the_class_s_own_instance_is_named_by_its_class() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureProvider(name="azure").url()
    assert '%config AzureProvider.azure_endpoint = "https://NAME.openai.azure.com"' in caught.value.hint


def test_the_lines_that_the_hints_show_work_in_the_running_kernel(kernel: Kernel) -> None:
    kernel.run("%llm_provider add named --class compatible --api-key-env NAMED_TEST_KEY").check()
    name, text = failed(kernel, "%%llm -m named:m --once\nHi")
    assert (name, text) == (
        "ConfigurationError",
        'ConfigurationError: named has no base_url.\nSet one: %llm_config named.base_url = "http://host:port/v1"',
    )
    with ScriptedServer(stream(chunk("Hello", finish="stop"))) as server:
        kernel.run(f'%llm_config named.base_url = "{server.url}"').check()
        _, text = failed(kernel, "%%llm -m named:m --once\nHi")
        assert text.splitlines() == [
            "ConfigurationError: named.api_key_env: the environment variable NAMED_TEST_KEY is not set.",
            'Set it in this kernel: import os, getpass; os.environ["NAMED_TEST_KEY"] = getpass.getpass(). Or name another one in named.api_key_env.',
        ]
        typed = "import getpass; getpass.getpass = lambda: 'typed-0123456789'; "
        kernel.run(f'{typed}import os, getpass; os.environ["NAMED_TEST_KEY"] = getpass.getpass()').check()
        kernel.run("%%llm -m named:m --once\nHi").check()
        assert server.requests[-1].headers["authorization"] == "Bearer typed-0123456789"
