"""Each fault of the table, by each API: one outcome, in time, in a line or two, with no secret and nothing lost."""

from __future__ import annotations

import asyncio
import ssl
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from fault_apis import APIS, Chat
from fault_table import FAULTS, SECRET, Fault
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session
from llm_magic.wire import attempts, call, connection, stream

TIMEOUT = 0.4
LONGEST = 20.0


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULT_KEY", SECRET)
        patch.setattr(attempts, "FIRST_WAIT", 0.01)
        patch.setattr(call, "LINGER", 0.2)
        for module in (connection, stream):
            patch.setattr(module, "LARGEST", 1 << 22)
        with ScriptedServer(*FAULTS[-1].script(APIS[0])) as server:  # what is imported at first takes its time
            session.registry.add("first", "compatible", base_url=server.url)
            LLM("first:m").ask("Hi")
        yield session
    session.close()
    api.activate(None)


@pytest.fixture(scope="module")
def certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_the_table_is_as_large_as_it_says() -> None:
    names = Counter(fault.name for fault in FAULTS)
    assert [name for name, times in names.items() if times > 1] == []
    assert sum(len(fault.apis) == len(APIS) for fault in FAULTS) >= 106


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault, session: Session, certificate: ssl.SSLContext) -> None:
    ways = [(api, mode) for api in APIS if api.name in fault.apis for mode in fault.modes]

    async def each(ways: list[tuple[Chat, str]]) -> dict[tuple[Chat, str], list[str]]:
        found = await asyncio.gather(*[outcome(fault, api, mode, session, certificate) for api, mode in ways])
        return {way: said for way, said in zip(ways, found, strict=True) if said}

    wrong = asyncio.run(each(ways))
    for way in wrong:  # by itself: the timeouts are short, and the machine may be busy
        wrong[way] = asyncio.run(each([way])).get(way, [])
    assert {f"{api.name}, {mode}": said for (api, mode), said in wrong.items() if said} == {}


async def outcome(fault: Fault, spoken: Chat, mode: str, session: Session, certificate: ssl.SSLContext) -> list[str]:
    """Return what is not as the table says."""
    name = f"faulty-{spoken.name}-{mode}"
    chat = session.conversations.get(name)
    tls = certificate if fault.tls in ("server", "plain client") else None
    with ScriptedServer(*fault.script(spoken), tls=tls) as server:
        url = server.url.replace("https:", "http:") if fault.tls == "plain client" else server.url
        url = url.replace("http:", "https:") if fault.tls == "client" else url
        settings: dict[str, Any] = {"base_url": url, "max_retries": 1, "timeout": TIMEOUT, "api": spoken.name}
        if not fault.tls:  # reading all of the machine's certificates takes the longest
            settings["http_client_kwargs"] = {"verify": False}
        session.registry.add(name, "compatible", api_key_env="FAULT_KEY", **settings)
        llm = LLM(f"{name}:m", no_stream=mode != "stream", chat=name)
        if fault.warm:
            await llm.aask("Hi")
        chat.reset()
        started = time.perf_counter()
        error: LLMError | None = None
        try:
            response: Response = await asyncio.wait_for(llm.aask("Hi", **fault.options), LONGEST)
        except TimeoutError:
            return [f"it did not end within {LONGEST:g} s"]
        except LLMError as failed:
            error, response = failed, failed.response
        seconds = time.perf_counter() - started
        session.registry.remove(name)
        requests = len(server.requests)
    wrong = [] if seconds < fault.seconds else [f"it took {seconds:.1f} s"]
    wrong += [] if requests == fault.requests else [f"{requests} requests"]
    return wrong + differences(fault, response, error, len(chat.turns()), name)


def differences(fault: Fault, response: Response, error: LLMError | None, turns: int, name: str) -> list[str]:
    """Return what of an answer or an error is not as the table says."""
    expected = fault.outcome
    usage = response.usage and (response.usage.input_tokens, response.usage.output_tokens)
    came = {"text": response.text, "reasoning": response.reasoning, "turns": turns, "error": type(error)}
    wanted = {"text": expected.text, "reasoning": expected.reasoning, "turns": int(expected.error is None)}
    wanted["error"] = type(error) if expected.error is LLMError and error is not None else expected.error or type(None)
    if expected.error is None:
        came |= {"value": response.value, "finish": response.finish_reason, "usage": usage}
        wanted |= {"value": expected.text, "finish": expected.finish, "usage": expected.usage or usage}
    else:
        came["value"] = wanted["value"] = None
        came["value"] = response.value
    wrong = [f"{part}: {came[part]!r}, not {wanted[part]!r}" for part in wanted if came[part] != wanted[part]]
    if error is None:
        return wrong
    said = str(error)
    shown = "".join(traceback.format_exception(error)) + repr(response) + repr(vars(error))
    rules = {
        "a word is missing": all(words in said for words in expected.words),
        "it is not two lines: what happened and where, and what to do next": len(said.splitlines()) == 2,
        "it sends to %tb": "%tb" not in said,
        "it has a control character": said.replace("\n", "").isprintable(),
        "it does not say where": name in said,
        "it is long": len(said) < 900,
        "it shows the key": SECRET not in shown,
    }
    return wrong + [f"{rule}: {said}" for rule, kept in rules.items() if not kept]
