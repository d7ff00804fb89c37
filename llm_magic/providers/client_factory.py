"""The factory of the SDK's clients: no `OPENAI_*` value goes where it was not meant to go.

The SDK reads key, organization, project and further headers from the environment by itself, whatever the base
URL. What must not go is therefore left out by name, with `omit` in the default headers, which copies of the
client keep. https://github.com/openai/openai-python, `_client.py`.
"""

from __future__ import annotations

import inspect
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import ConfigurationError
from llm_magic.providers.credentials import KEYLESS, SecretCallable, imported
from llm_magic.secrets import Secret, hide, reveal, secrets_in
from llm_magic.secrets.exceptions import scrub

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Construct = Callable[[dict[str, Any], Mapping[str, Any]], "AsyncOpenAI"]
"""Makes a client from the arguments of `AsyncOpenAI` and a recipe."""

CONNECT_SECONDS = 10.0
"""Longest wait for a connection: a host that drops packets must not take the whole timeout, seven times over."""


def make_client(construct: Construct, recipe: Mapping[str, Any], name: str, where: str) -> tuple[AsyncOpenAI, bool]:
    """Return the client of the provider `name`, made from its recipe, and whether it is ours to close.

    `where` is the provider's class, for errors.

    Raises
    ------
    ConfigurationError
        The SDK or its HTTP client refuses a value.

    """
    import openai

    known = secrets_in(recipe)
    try:
        http, owned = http_client(reveal(recipe["http_client_kwargs"]), recipe["http_client"], where)
    except ConfigurationError as error:  # it may repeat what a library said of a proxy
        scrub(error, known)
        raise
    seconds = recipe["timeout"]
    arguments = {name: recipe[name] for name in ("base_url", "max_retries", "default_headers")}
    arguments |= {name: recipe[name] or None for name in ("organization", "project", "default_query")}
    arguments |= {"api_key": KEYLESS if recipe["api_key"] is None else recipe["api_key"], "http_client": http}
    arguments["timeout"] = openai.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    try:
        if recipe["at_home"]:
            client = construct(reveal(arguments), recipe)
        else:
            client = without_environment(construct, arguments, recipe)
    except (openai.OpenAIError, ValueError, TypeError) as error:
        scrub(error, known)
        raise ConfigurationError(f"The client of {name} cannot be made: {hide(str(error), known)}") from error
    return client, owned


def without_environment(construct: Construct, arguments: dict[str, Any], recipe: Mapping[str, Any]) -> AsyncOpenAI:
    """Return a client that sends nothing of the environment's `OPENAI_*` values."""
    from openai import omit

    own = _own_authorization(recipe)
    ours: dict[str, Any] = {}
    asked = []
    for name in _ambient_headers():
        secret = own.get(name.lower(), omit)
        if isinstance(secret, SecretCallable):
            asked.append(name)
        else:
            ours[name] = secret  # `omit` for our own authorization would leave that out, too
    for trait, name in (("organization", "OpenAI-Organization"), ("project", "OpenAI-Project")):
        if arguments[trait] is None:
            ours[name] = omit
    for name, value in arguments["default_headers"].items():
        same = [known for known in ours if known.lower() == name.lower()]
        for known in same or [name]:
            ours[known] = value  # under the environment's spelling of the name: the SDK would send both
    client = construct(reveal(arguments | {"default_headers": ours}), recipe)
    if asked:  # its value comes with each request, and the environment's would stand before it
        custom = client._custom_headers  # noqa: SLF001 - the SDK has no other way to take one back
        client._custom_headers = {name: value for name, value in custom.items() if name not in asked}  # noqa: SLF001 - as above
    return client


def _own_authorization(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header that carries the client's own key or token: what it says, or what is asked for that."""
    key = KEYLESS if recipe["api_key"] is None else recipe["api_key"]
    if recipe.get("api_version"):  # the classic API of Azure
        if recipe["token"] is None:
            return {"api-key": key}
        key = recipe["token"]
    return {"authorization": key if isinstance(key, SecretCallable) else Secret(f"Bearer {reveal(key)}")}


def _ambient_headers() -> list[str]:
    """Return the names of the headers in `OPENAI_CUSTOM_HEADERS`, split as the SDK splits them."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[0].strip() for line in lines if ":" in line]


SETTINGS = ("proxy", "verify", "cert", "local_address", "limits", "uds", "trust_env", "http2")
"""What `http_client_kwargs` may hold."""

_OF_A_TRANSPORT = ("local_address", "uds")  # the client's own arguments lack these
_LIMITS = ("max_connections", "max_keepalive_connections", "keepalive_expiry")


def http_client(settings: Mapping[str, Any], own: str, where: str) -> tuple[Any, bool]:
    """Return an async HTTP client for the SDK, and whether it is ours to close.

    Parameters
    ----------
    settings
        `proxy` (URL), `verify` (False, or the path of a file or folder of CA certificates), `cert` (path of a
        client certificate with its key, or `[certificate, key]`, or with the key's password as third),
        `local_address` (IP address to connect from), `limits` (dict of `max_connections`,
        `max_keepalive_connections`, `keepalive_expiry` in seconds), `uds` (path of a Unix socket), `trust_env`
        (False: no proxies from the environment), `http2`.
    own
        "" for the SDK's default client, "aiohttp" for its aiohttp one, or an import string of a client or of a
        function that returns one (called with the keyword arguments that the default client would get).
    where
        The provider, for errors.

    Raises
    ------
    ConfigurationError
        A setting is unknown, does not go with another, or names a file that cannot be read.

    """
    import openai

    what = f"{where}.http_client_kwargs"
    _check_names(settings, SETTINGS, what)
    bases = (base.__module__.partition(".")[0] for base in openai.DefaultAsyncHttpxClient.__mro__)
    library = sys.modules[next(name for name in bases if name != "openai")]  # httpx or httpx2: the SDK's choice
    arguments = _arguments(settings, library, what)
    if own and own != "aiohttp":
        return _of_the_user(own, arguments, where)
    if own == "aiohttp":
        _refuse((*_OF_A_TRANSPORT, "http2"), arguments, 'http_client = "aiohttp"', what)
        try:
            return openai.DefaultAioHttpClient(**arguments), True
        except RuntimeError:
            raise ConfigurationError(
                f'{where}.http_client is "aiohttp", and that transport is not installed.',
                'pip install "llm_magic[aiohttp]"',
            ) from None
    if any(name in arguments for name in _OF_A_TRANSPORT):
        _refuse(["proxy"], arguments, "local_address or uds", what)
        arguments = _with_transport(arguments, library)
    try:
        return openai.DefaultAsyncHttpxClient(**arguments), True
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{what} cannot be used: {error}") from error


def _check_names(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"There are {', '.join(known)}.", 1)
            raise ConfigurationError(f"{where} does not know {name!r}.", hint)


def _arguments(settings: Mapping[str, Any], library: Any, where: str) -> dict[str, Any]:
    """Return the arguments of an HTTP client: limits completed by the SDK's, certificates read."""
    arguments = {name: value for name, value in settings.items() if value is not None}
    if "limits" in arguments:
        _check_names(arguments["limits"], _LIMITS, f"{where}['limits']")
        given = {name: getattr(_sdk_limits(), name) for name in _LIMITS} | dict(arguments["limits"])
        arguments["limits"] = library.Limits(**given)
    if "verify" in arguments or "cert" in arguments:
        arguments["verify"] = _tls(arguments.get("verify", True), arguments.pop("cert", None), library, where)
    return arguments


def _sdk_limits() -> Any:
    from openai import _constants

    return _constants.DEFAULT_CONNECTION_LIMITS


def _tls(verify: object, cert: object, library: Any, where: str) -> ssl.SSLContext:
    """Return the TLS context. Paths are read here: httpx2 gave them up."""
    try:
        if isinstance(verify, str | Path):
            place = Path(verify).expanduser()
            if not place.exists():
                raise ConfigurationError(
                    f"{where}['verify']: there is no file {verify}.", "Give the path of a CA file."
                )
            file, folder = (None, place) if place.is_dir() else (place, None)
            context: ssl.SSLContext = ssl.create_default_context(cafile=file, capath=folder)
        else:
            context = library.create_ssl_context(verify=bool(verify))
        if cert is not None:
            parts = [cert] if isinstance(cert, str | Path) else list(cert)  # type: ignore[call-overload] # any sequence
            context.load_cert_chain(*(str(Path(part).expanduser()) for part in parts[:2]), *parts[2:])
    except (OSError, TypeError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"{where}: the certificates cannot be read: {error}.", "Give the paths of PEM files."
        ) from error
    return context


def _with_transport(arguments: dict[str, Any], library: Any) -> dict[str, Any]:
    """Move what only a transport takes into one."""
    of_it = {"verify", "limits", "http2", "trust_env", *_OF_A_TRANSPORT} & arguments.keys()
    transport = {"limits": _sdk_limits()} | {name: arguments[name] for name in of_it}
    rest = {name: value for name, value in arguments.items() if name not in of_it}
    return rest | {"transport": library.AsyncHTTPTransport(**transport)}


def _refuse(names: Iterable[str], arguments: Mapping[str, Any], other: str, where: str) -> None:
    for name in names:
        if name in arguments:
            raise ConfigurationError(f"{where}: {name} does not go with {other}.", "Leave one of them out.")


def _of_the_user(path: str, arguments: dict[str, Any], where: str) -> tuple[Any, bool]:
    """Return the client that an import string names, and whether it is ours to close."""
    found = imported(path, f"{where}.http_client")
    ours = not hasattr(found, "aclose")
    if ours or inspect.isclass(found):
        ours = True
        if not callable(found):
            raise ConfigurationError(f"{where}.http_client: {path} is no HTTP client, nor a function that returns one.")
        try:
            found = found(**arguments)
        except Exception as error:
            raise ConfigurationError(
                f"{where}.http_client: {path} failed: {type(error).__name__}: {error}.",
                f"It is called with {', '.join(arguments) or 'no arguments'}.",
            ) from error
    elif arguments:
        raise ConfigurationError(
            f"{where}: http_client_kwargs has no effect on the ready client {path}.",
            "Set them on that client, or name a function that makes one.",
        )
    if not hasattr(found, "event_hooks"):
        raise ConfigurationError(
            f"{where}.http_client: {path} gave a {type(found).__name__}, which is no async HTTP client.",
            "Return openai.DefaultAsyncHttpxClient(…).",
        )
    return found, ours
