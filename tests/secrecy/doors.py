# ruff: noqa: T201, BLE001, ARG002 - it prints what it finds
"""What is run inside a kernel: a provider with a canary, and whatever shows something about it.

The canary is read from a file, so that no cell holds it.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pickle
import sys
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import llm_magic
from llm_magic import LLM, registry

logged = io.StringIO()
logging.basicConfig(level=logging.DEBUG, stream=logged, force=True, format="%(name)s %(message)s")
for _name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "llm_magic"):
    logging.getLogger(_name).setLevel(logging.DEBUG)

_place = Path()
url = ""


def begin(folder: str, address: str) -> None:
    """Begin anew: another canary, no variables, no provider."""
    global _place, url
    _place, url = Path(folder) / "canary", address
    logged.seek(0)
    logged.truncate()
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_", "CANARY")):
            del os.environ[name]
    with suppress(llm_magic.LLMError):
        while True:
            registry().remove("there")
    cells().params, registry().aliases = {}, {}
    os.environ["CANARY"] = secret()
    os.environ["CANARY_URL"] = address.replace("//", f"//me:{quote(secret(), safe='')}@") + f"?k={quote(secret())}"
    os.environ["CANARY_PROXY"] = address.removesuffix("/v1").replace("//", f"//me:{quote(secret(), safe='')}@")
    module = types.ModuleType("canary_source")
    module.key = secret
    module.later = _later
    sys.modules["canary_source"] = module


def secret() -> str:
    return _place.read_text()


async def _later() -> str:
    return secret()


def put(cls: str, **traits: Any) -> None:
    """Make the provider `there`."""
    registry().add("there", cls, **{"base_url": url, **traits})


def cells() -> Any:
    """Return the settings of all cells."""
    from llm_magic.api import active_session

    return active_session().settings


def alias(defaults: dict[str, Any]) -> None:
    """Make an alias that the cells ask for in place of `there:m`."""
    registry().aliases = {"there:m": {"model": "there:m", **defaults}}


def ready(kind: str, **arguments: Any) -> None:
    """Register a ready client as `there`."""
    import openai

    registry().register("there", client=getattr(openai, kind)(**{"base_url": url, "api_key": "none", **arguments}))


def keyring() -> str:
    """Put the canary into a keyring, and return where."""
    import keyring as ring
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        priority = 1

        def get_password(self, service: str, name: str) -> str:
            return secret()

        def set_password(self, service: str, name: str, password: str) -> None:
            raise NotImplementedError

    ring.set_keyring(Ring())
    return "keyring:canary/there"


def tell(error: BaseException) -> None:
    """Print whatever an exception and what led to it hold."""
    print(error, repr(error), error.args)
    traceback.print_exception(error, file=sys.stdout)
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    told.stack[:] = [frame for frame in told.stack if frame.filename != __file__]  # whose variables are the user's own
    print("".join(told.format()))
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        waiting += [link.__cause__, link.__context__]
        print(type(link).__name__, link.args, vars(link), getattr(link, "object", None))
        for part in ("request", "response"):
            held = getattr(link, part, None) if part in vars(link) or f"_{part}" in vars(link) else None
            if hasattr(held, "headers"):
                print(held, vars(held), dict(held.headers), getattr(held, "url", None))
                print(getattr(held, "text", ""), getattr(held, "content", b"") if part == "response" else "")
    try:
        print(pickle.dumps(error))
    except Exception as problem:
        print("not pickled:", type(problem).__name__)


def ask(**options: Any) -> None:
    """Ask in each way that Python has, and print all that comes."""
    llm = LLM("there:m", timeout=0.3, retries=0, **options)
    print(repr(llm), vars(llm))
    try:
        print(pickle.dumps(llm))
    except pickle.PicklingError as error:
        print(error)
    for attempt in (lambda: llm.ask("Hi"), lambda: asyncio.run(_stream(llm)), lambda: llm.embed(["a"])):
        try:
            response = attempt()
            print(repr(response), vars(response), pickle.dumps(response), str(response))
        except llm_magic.LLMError as error:
            tell(error)
            if error.response is not None:
                print(vars(error.response), pickle.dumps(error.response))


async def _stream(llm: LLM) -> Any:
    async for event in llm.stream("Hi"):
        print(repr(event))
        last = event
    return types.SimpleNamespace(last=last)


def settings() -> None:
    """Print what is configured: the objects that `%config` shows."""
    provider = registry().get("there")
    print(repr(provider), repr(provider.origin()), repr(provider.recipe()) if provider.kind != "ready" else "")
    print(type(provider).class_get_help(provider))
    values = {name: getattr(provider, name) for name in provider.trait_names(config=True)}
    print(values, json.dumps(values, default=str), registry().providers)
    print(type(registry()).class_get_help(registry()))


def logs() -> None:
    print(logged.getvalue())
