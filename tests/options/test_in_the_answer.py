"""Options whose effect is in the answer, asked of real servers by a bare name at a URL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


@pytest.fixture(params=["llamacpp_url", "vllm_url"])
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    url = request.getfixturevalue(request.param)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield LLM("smollm2", base_url=url, temperature=0, max_tokens=6)
    session.close()
    api.activate(None)


def test_of_length_number_and_what_comes_beside(llm: LLM) -> None:
    whole = llm.ask("Why is the sky blue?")
    short = llm.ask("Why is the sky blue?", max_tokens=2, n=2, logprobs=1, temperature=0.001)
    assert whole.provider == "compatible"
    assert [each.text for each in short.alternatives] == short.value
    assert len(short.value) == 2
    assert whole.text.startswith(short.text)
    assert short.finish_reason == "length"
    assert short.logprobs
    word = whole.text[4:8]
    assert word not in llm.ask("Why is the sky blue?", stop=word).text
