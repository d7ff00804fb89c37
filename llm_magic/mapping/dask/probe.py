"""The look at the workers of a Dask cluster before anything is asked: versions, variables, reach of the endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llm_magic.errors import AuthenticationError, ConfigurationError, ConnectionFailedError, LLMError, TimedOutError
from llm_magic.mapping.dask.serialization import Sealed, opened, sealed
from llm_magic.mapping.dask.variables import Variables, variables_of
from llm_magic.session import Session
from llm_magic.session.portable import PortableSettings, settings_there

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider

PATIENCE = 5.0
"""Seconds that an endpoint has for its list of models."""

_SHOWN = 3
_NOT_STARTED = ":0/v1"
_STOPS = (AuthenticationError, ConfigurationError, ConnectionFailedError, TimedOutError)
"""What a list of models fails with where no row would be answered, either."""


@dataclass(frozen=True)
class Probe:
    """What the look at all workers found: those that can ask, and lines on the others and on what differs."""

    able: tuple[str, ...]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What one worker says of itself; `problem` and `hint` say why it cannot ask."""

    versions: Mapping[str, str]
    missing: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""


def versions() -> dict[str, str]:
    """Return the versions that should be the same here and on the workers."""
    python = ".".join(platform.python_version_tuple()[:2])
    ours: str = importlib.import_module("llm_magic").__version__
    return {"python": python, "llm_magic": ours, "openai": version("openai")}


def probe(
    client: Any,
    settings: PortableSettings,
    variables: Iterable[str] = (),
    forwarded: Mapping[str, str] | None = None,
    workers: Iterable[str] | None = None,
) -> Probe:
    """Ask every worker whether it can ask; nothing that costs is sent.

    Parameters
    ----------
    client
        The `distributed.Client`.
    settings
        What is asked with.
    variables
        Names of further variables that are needed: those of `--header NAME=env:…`.
    forwarded
        Variables that will be set there.
    workers
        The addresses of those that are asked; None: all.

    Raises
    ------
    ConfigurationError
        There is no worker, or none that can ask: the line says why.

    """
    addresses = list(workers) if workers is not None else list(client.nthreads())
    if not addresses:
        raise ConfigurationError(
            "The Dask cluster has no worker.", "Start one: cluster.scale(2), or dask worker tcp://…."
        )
    specs = client.run(importlib.util.find_spec, "llm_magic", workers=addresses, on_error="return")
    looks: dict[str, Look] = {}
    there = []
    for address in addresses:
        if specs.get(address) is None or isinstance(specs[address], BaseException):
            looks[address] = Look(versions(), problem="lacks llm_magic", hint="install it there")
        else:
            there.append(address)
    needed = [*variables, *variables_of([settings.providers, _values(settings)])]
    told = sealed((settings, tuple(dict.fromkeys(needed)), dict(forwarded or {})))
    found = client.run(look, told, workers=there, on_error="return") if there else {}
    for address in there:
        seen = found.get(address)
        if isinstance(seen, Look):
            looks[address] = seen
        else:
            said = f"{type(seen).__name__}: {str(seen).partition(chr(10))[0]}" if seen is not None else "it has gone"
            looks[address] = Look(versions(), problem=f"cannot be looked at: {said}")
    able = tuple(address for address, seen in looks.items() if not seen.problem and not seen.missing)
    lines = (*_unable(looks), *_differing(looks))
    if not able:
        first, _, rest = lines[0].partition(": ")
        raise ConfigurationError(f"No worker of the Dask cluster can ask. {first}{': ' if rest else ''}{rest}")
    return Probe(able, lines)


def _values(settings: PortableSettings) -> dict[str, Any]:
    both = {**settings.magics, **{f"alias {name}": each for name, each in settings.aliases.items()}}
    return {name: each.value for name, each in both.items()}


def _unable(looks: Mapping[str, Look]) -> list[str]:
    """Return a line for each thing that workers lack."""
    groups: dict[tuple[str, str], list[str]] = {}
    for address, seen in looks.items():
        if seen.missing:
            names = ", ".join(seen.missing)
            listed = json.dumps(list(seen.missing))
            groups.setdefault((f"lacks {names}", f"set it there, or forward_env={listed}"), []).append(address)
        elif seen.problem:
            groups.setdefault((seen.problem, seen.hint), []).append(address)
    return [f"{_named(addresses)} {what}{': ' if hint else ''}{hint}" for (what, hint), addresses in groups.items()]


def _differing(looks: Mapping[str, Look]) -> list[str]:
    """Return a line for each version that is another one there."""
    groups: dict[tuple[str, str], list[str]] = {}
    ours = versions()
    for address, seen in looks.items():
        for package, its in seen.versions.items():
            if its != ours[package]:
                groups.setdefault((package, its), []).append(address)
    return [
        f"{_named(addresses)} has {package} {its}, and {ours[package]} is here: install the same version"
        for (package, its), addresses in groups.items()
    ]


def _named(addresses: list[str]) -> str:
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    return ", ".join(addresses[:_SHOWN]) + more


async def look(told: Sealed) -> Look:
    """Say whether this worker can ask; runs there."""
    settings, needed, forwarded = opened(told)
    return await asyncio.to_thread(_look, settings, needed, forwarded)


def _look(settings: PortableSettings, needed: tuple[str, ...], forwarded: dict[str, str]) -> Look:
    variables = Variables(forwarded)
    try:
        missing = tuple(name for name in needed if not os.environ.get(name, "").strip())
        problem, hint = ("", "") if missing else _reach(settings)
    except LLMError as error:
        problem, hint = f"cannot ask: {error.message.rstrip('.')}", error.hint
        missing = ()
        name = _variable_in(error.message)
        if name is not None:
            missing, problem, hint = (name,), "", ""
    finally:
        variables.restore()
    return Look(versions(), missing, problem, hint)


def _variable_in(message: str) -> str | None:
    """Return the variable that an error says is not set."""
    before, said, _ = message.partition(" is not set")
    return before.rpartition("the environment variable ")[2] if said and "environment variable" in before else None


def _reach(settings: PortableSettings) -> tuple[str, str]:
    """Return what is wrong with the way to the endpoints, and what to do; raises where a client cannot be made."""
    session = Session(*settings_there(settings), say=lambda _line: None)
    try:
        for name in settings.providers:
            provider = session.registry.get(name)
            if provider.own_backend:
                continue
            provider.client()
            if provider.url().rstrip("/").endswith(_NOT_STARTED):  # the embedded one, which starts when it is asked
                continue
            try:
                session.loop.run(_list(provider))
            except _STOPS as error:
                what = "does not reach" if isinstance(error, ConnectionFailedError | TimedOutError) else "is refused by"
                return f"{what} {provider.origin()}", error.message.rstrip(".")
            except LLMError:  # it has no list of models, and is there
                continue
    finally:
        session.close()
    return "", ""


async def _list(provider: Provider) -> None:
    await provider.ask_for_models(PATIENCE, 0)
