"""Asks a provider as a cell does: prepare, capabilities, adapt, check, send; and folds what comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from llm_magic.capabilities import Api
from llm_magic.draft import Draft
from llm_magic.messages import Message, user
from llm_magic.providers.base import Provider
from llm_magic.request import Parameters, Request
from llm_magic.response import Response
from llm_magic.wire.call import Call, Preview, exchange, preview


async def call(
    provider: Provider,
    model: str,
    prompt: str | tuple[Message, ...] = "Say hello.",
    *,
    api: Api | None = None,
    stream: bool = True,
    headers: dict[str, str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - an option of the call, not of this function
    max_retries: int | None = None,
    structure: dict[str, Any] | None = None,
    **parameters: Any,
) -> Call:
    capabilities = provider.capabilities(model)
    if api is not None:
        capabilities = replace(capabilities, api=api)
    messages = (user(prompt),) if isinstance(prompt, str) else prompt
    request = Request(
        model, messages, Parameters(**parameters), structure=structure or {}, stream=stream, headers=headers or {}
    )
    await provider.check(request, capabilities)
    request = await provider.adapt(request, capabilities)
    return Call(provider.client(), provider.origin(model), capabilities, request, timeout, max_retries)


async def answer(provider: Provider, model: str = "", *args: Any, **options: Any) -> Response:
    """Return the answer; `model` empty asks the first one listed."""
    await provider.prepare(lambda _: None)
    model = model or await provider.first_model()
    draft = Draft()
    async for batch in exchange(await call(provider, model, *args, **options)):
        for event in batch:
            draft.add(event)
    return draft.response()


def ask(provider: Provider, *args: Any, **options: Any) -> Response:
    """Ask and close the provider's clients, whatever happens."""

    async def work() -> Response:
        try:
            return await answer(provider, *args, **options)
        finally:
            await provider.aclose()

    return asyncio.run(work())


def sent(provider: Provider, model: str, *args: Any, **options: Any) -> Preview:
    """Return what would be sent."""

    async def work() -> Preview:
        try:
            return await preview(await call(provider, model, *args, **options))
        finally:
            await provider.aclose()

    return asyncio.run(work())
