"""HTTP clients made through the SDK's own classes: neither httpx (openai 2.x) nor httpx2 (3.x) is imported here."""

from __future__ import annotations

import difflib
import inspect
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_magic.errors import ConfigurationError
from llm_magic.providers.credentials import imported

SETTINGS = ("proxy", "verify", "cert", "local_address", "limits", "uds", "trust_env", "http2")
"""What `http_client_kwargs` may hold."""

_OF_A_TRANSPORT = ("local_address", "uds")  # the client's own arguments lack these
_LIMITS = ("max_connections", "max_keepalive_connections", "keepalive_expiry")

Hooks = Mapping[str, list[Callable[..., Any]]]


def http_client(settings: Mapping[str, Any], own: str, hooks: Hooks, where: str) -> tuple[Any, bool]:
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
    hooks
        Event hooks, added to those that a client of the user's has.
    where
        The provider, for errors.

    Raises
    ------
    ConfigurationError
        A setting is unknown, does not go with another, or names a file that cannot be read.

    """
    import openai

    _check_names(settings, SETTINGS, f"{where}.http_client_kwargs")
    library = _library(openai.DefaultAsyncHttpxClient)
    arguments = _arguments(settings, library, where)
    if own and own != "aiohttp":
        return _of_the_user(own, arguments, hooks, where)
    arguments |= {"event_hooks": hooks}
    if own == "aiohttp":
        _refuse_for_aiohttp(arguments, where)
        try:
            return openai.DefaultAioHttpClient(**arguments), True
        except RuntimeError:
            raise ConfigurationError(
                f'{where}.http_client is "aiohttp", and that transport is not installed.',
                'pip install "llm_magic[aiohttp]"',
            ) from None
    if any(name in arguments for name in _OF_A_TRANSPORT):
        arguments = _with_transport(arguments, library, where)
    try:
        return openai.DefaultAsyncHttpxClient(**arguments), True
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{where}.http_client_kwargs cannot be used: {error}") from error


def _library(client: type) -> Any:
    """Return the module that the SDK's client class comes from: httpx or httpx2, whichever the SDK has loaded."""
    names = (base.__module__.partition(".")[0] for base in client.__mro__)
    return sys.modules[next(name for name in names if name != "openai")]


def _check_names(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(known)}."
            raise ConfigurationError(f"{where} does not know {name!r}.", hint)


def _arguments(settings: Mapping[str, Any], library: Any, where: str) -> dict[str, Any]:
    arguments = {
        name: value for name, value in settings.items() if value is not None and name not in {"cert", "limits"}
    }
    if settings.get("limits") is not None:
        _check_names(settings["limits"], _LIMITS, f"{where}.http_client_kwargs['limits']")
        defaults: Any = _sdk_limits()
        given = {name: getattr(defaults, name) for name in _LIMITS} | dict(settings["limits"])
        arguments["limits"] = library.Limits(**given)
    if "verify" in arguments or settings.get("cert") is not None:
        arguments["verify"] = _tls(settings.get("verify", True), settings.get("cert"), library, where)
    return arguments


def _sdk_limits() -> Any:
    from openai import _constants

    return _constants.DEFAULT_CONNECTION_LIMITS


def _tls(verify: object, cert: object, library: Any, where: str) -> ssl.SSLContext:
    """Return the TLS context. Paths are read here: httpx2 gave them up."""
    what = f"{where}.http_client_kwargs"
    try:
        if isinstance(verify, str | Path):
            place = Path(verify).expanduser()
            if not place.exists():
                raise ConfigurationError(f"{what}['verify']: there is no file {verify}.", "Give the path of a CA file.")
            file, folder = (None, str(place)) if place.is_dir() else (str(place), None)
            context: ssl.SSLContext = ssl.create_default_context(cafile=file, capath=folder)
        else:
            context = library.create_ssl_context(verify=bool(verify))
        if cert is not None:
            parts = [cert] if isinstance(cert, str | Path) else list(cert)  # type: ignore[call-overload] # any sequence
            context.load_cert_chain(*(str(Path(part).expanduser()) for part in parts[:2]), *parts[2:])
    except (OSError, TypeError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"{what}: the certificates cannot be read: {error}.", "Give the paths of PEM files."
        ) from error
    return context


def _with_transport(arguments: dict[str, Any], library: Any, where: str) -> dict[str, Any]:
    """Move what only a transport takes into one."""
    if "proxy" in arguments:
        raise ConfigurationError(
            f"{where}.http_client_kwargs: proxy does not go with local_address or uds.", "Leave one of them out."
        )
    of_it = {"verify", "limits", "http2", "trust_env", *_OF_A_TRANSPORT}
    transport = {name: value for name, value in arguments.items() if name in of_it}
    transport.setdefault("limits", _sdk_limits())
    rest = {name: value for name, value in arguments.items() if name not in of_it}
    return rest | {"transport": library.AsyncHTTPTransport(**transport)}


def _refuse_for_aiohttp(arguments: Mapping[str, Any], where: str) -> None:
    for name in (*_OF_A_TRANSPORT, "http2"):
        if name in arguments:
            raise ConfigurationError(
                f'{where}.http_client_kwargs: {name} does not go with http_client = "aiohttp".',
                "Leave one of them out.",
            )


def _of_the_user(path: str, arguments: dict[str, Any], hooks: Hooks, where: str) -> tuple[Any, bool]:
    """Return the client that an import string names, with our hooks after its own."""
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
    add_hooks(found, hooks)
    return found, ours


def add_hooks(client: Any, hooks: Hooks) -> None:
    """Add our event hooks to those of a client, once."""
    present = client.event_hooks
    client.event_hooks = {
        kind: [*present.get(kind, []), *(hook for hook in hooks.get(kind, []) if hook not in present.get(kind, []))]
        for kind in ("request", "response")
    }
