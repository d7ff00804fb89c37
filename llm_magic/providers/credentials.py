"""Credentials: where a provider's key comes from; none stands in the configuration or in a repr."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.config.references import variable, variable_of
from llm_magic.environment import once_while_unchanged
from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:  # what loads with the extension needs none
    from llm_magic.secrets import Secret

KEYLESS = "EMPTY"
"""Sent as the key to servers that want none: the SDK refuses an empty one."""

_KEYRING = "keyring:"

IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class SecretCallable:
    """A key that is asked for at each request: `await` gives it. `source` says where, and is no secret."""

    source: str
    function: Callable[[], Any] = field(compare=False)

    @property
    def renews(self) -> bool:
        """Whether asking once more may give another key: a keyring holds the one that was put there."""
        return not self.source.startswith(_KEYRING)

    async def __call__(self) -> str:
        """Ask; a function that is not async runs on a thread, so that it may block."""
        if inspect.iscoroutinefunction(self.function):
            value = await self.function()
        else:
            value = await asyncio.to_thread(self.function)
            if inspect.isawaitable(value):
                value = await value
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(
                f"{self.source} gave no key: a non-empty str is wanted, not {type(value).__name__}."
            )
        from llm_magic.wire import logs

        secret = sendable(value.strip(), self.source)
        logs.learn(secret)
        return secret.reveal()


def check_key_source(source: str, where: str) -> str:
    """Return `source` if it says where a key is; refuse what is a key itself, without repeating it."""
    name = variable_of(source) or source
    like_a_key = re.fullmatch(r"(?=.*\d)(?=.*[a-z]).{20,}", name)  # names of variables are no such mix
    if source == "" or source.startswith(_KEYRING) or IMPORT.fullmatch(source):
        return source
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and not like_a_key:
        return source
    raise ConfigurationError(
        f"{where} holds something that looks like a key itself; keys do not stand in configuration.",
        'Set it to the name of an environment variable, "keyring:service/name", or "module:function".',
    )


def key(source: str, where: str, *, openai: bool = False) -> Secret | SecretCallable:
    """Return the key that `source` leads to, or what asks for it at each request.

    `source` is the name of an environment variable (with or without `env:` or `os.environ/` before it),
    `keyring:service/name`, or `module:function` of a function without arguments, async or not; `where` the setting,
    for errors; `openai` says whether variables named `OPENAI_…` may be read.
    """
    check_key_source(source, where)
    if source.startswith(_KEYRING):
        return SecretCallable(source, partial(_from_keyring, source, where))
    name = variable_of(source) or source
    if ":" not in name:
        return sendable(variable(name, where, openai=openai), name)
    function = imported(source, where)
    if not callable(function):
        raise ConfigurationError(f"{where}: {source} is not callable.", "Name a function that returns the key.")
    return SecretCallable(source, function)


def sendable(value: str, source: str) -> Secret:
    """Return `value` as a secret, if it can stand in an HTTP header."""
    from llm_magic.secrets import Secret, reveal

    value = reveal(value)
    if not value.isascii() or not value.isprintable():
        raise ConfigurationError(
            f"The value of {source} cannot be sent: it has a line break or a character outside ASCII.",
            "Copy the key again, without what stands around it.",
        )
    return Secret(value, key=True)


def environment_proxies() -> tuple[Secret, ...]:
    """Return the proxies that the environment names with credentials: an HTTP client reads them by itself."""
    return _environment_proxies()


@once_while_unchanged
def _environment_proxies(_variables: Mapping[str, str]) -> tuple[Secret, ...]:
    from urllib.request import getproxies_environment

    from llm_magic.secrets import secret_url, secrets_in

    return secrets_in([secret_url(url) for url in getproxies_environment().values() if "@" in url])


def imported(path: str, where: str) -> Any:
    """Return the object that an import string `module:name` names."""
    module, _, name = path.partition(":")
    if not IMPORT.fullmatch(path):
        raise ConfigurationError(f"{where}: {path!r} is no import string.", 'Write it as "module:name".')
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigurationError(
            f"{where}: {path} cannot be imported: {type(error).__name__}: {error}.",
            "Check the name, and that the module is on the path of this kernel.",
        ) from error
    return found


def _from_keyring(source: str, where: str) -> str:
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        raise ConfigurationError(
            f"{where} names a keyring entry, and the package keyring is not installed.",
            'pip install "llm_magic[keyring]"',
        ) from None
    service, _, name = source.removeprefix(_KEYRING).partition("/")
    found = keyring.get_password(service, name)
    if not found:
        raise ConfigurationError(
            f"{where}: the keyring has no entry {name!r} of service {service!r}.",
            f"Make one with: python -m keyring set {service} {name}",
        )
    return str(found)
