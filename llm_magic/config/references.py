"""References to variables (`env:NAME`) as values of settings, read when used; secrets in settings, and headers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from traitlets import Dict, TraitError, Unicode

from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:  # what loads with the extension needs none
    from llm_magic.secrets import Secret

_REFERENCE = re.compile(r"(?:env:|os\.environ/)(.*)", re.DOTALL)
_WITH_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s+(\S+)\s*")
_SECRET_HEADER = re.compile(r"auth|cookie|token(?!izer)|secret|password|api-?key|subscription-key", re.IGNORECASE)


_dry: ContextVar[bool] = ContextVar("dry_run", default=False)


@contextmanager
def dry_run() -> Iterator[None]:
    """Have a variable that is not set read as words that say so: nothing that is read here is sent."""
    before = _dry.set(True)
    try:
        yield
    finally:
        _dry.reset(before)


def is_dry_run() -> bool:
    """Whether what is done now is only shown."""
    return _dry.get()


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2: token


def variable_of(text: str) -> str | None:
    """Return the variable that a reference names, or None for text that is no reference.

    >>> variable_of("env:MY_KEY"), variable_of("os.environ/MY_KEY"), variable_of("https://example.org")
    ('MY_KEY', 'MY_KEY', None)

    """
    found = _REFERENCE.fullmatch(text)
    return found[1].strip() if found else None


def scheme_and_variable(text: str) -> tuple[str, str] | None:
    """Return the scheme of an authorization, or nothing, and the variable that a header's value names after it.

    >>> scheme_and_variable("Bearer env:MY_KEY"), scheme_and_variable("env:MY_KEY"), scheme_and_variable("Bearer abc")
    (('Bearer', 'MY_KEY'), ('', 'MY_KEY'), None)

    """
    if (name := variable_of(text)) is not None:
        return "", name
    found = _WITH_SCHEME.fullmatch(text)
    name = None if found is None else variable_of(found[2])
    return None if found is None or name is None else (found[1], name)


def read(value: Any, where: str, *, openai: bool = False) -> Any:
    """Return a value with its references replaced, in lists and dicts too: `env:NAME` and `os.environ/NAME`.

    What a variable holds is a `Secret`, whatever it is read for.
    `where` is the setting, for errors; `openai` says whether variables named `OPENAI_…` may be read for it.

    Raises
    ------
    ConfigurationError
        The variable is not set, or not for this provider.

    """
    if isinstance(value, str):
        name = variable_of(value)
        return value if name is None else variable(name, where, openai=openai)
    if isinstance(value, Mapping):
        return {key: read(item, f"{where}[{key!r}]", openai=openai) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read(item, where, openai=openai) for item in value]
    return value


def variable(name: str, where: str, *, openai: bool = False) -> Secret:
    """Return the value of an environment variable, spaces around it removed; as `read`."""
    from llm_magic.secrets import Secret

    if name.upper().startswith("OPENAI_") and name != "OPENAI_API_VERSION" and not openai:
        raise ConfigurationError(
            f"{where} names {name}, and only providers of class openai send OPENAI_* values.",
            "Put the key of this server in a variable of its own and name that.",
        )
    value = os.environ.get(name, "").strip()
    if not value and is_dry_run():
        words = f"env:{name} (not set)"
        return Secret(words, words)
    if not value:
        raise ConfigurationError(
            f"{where}: the environment variable {name} is not set.",
            f'Set it in this kernel: import os, getpass; os.environ["{name}"] = getpass.getpass(). '
            f"Or name another one in {where}.",
        )
    return Secret(value)


def mark_secrets(value: Any, name: str = "") -> Any:
    """Return a value of the configuration with what is secret in it as a `Secret`, in lists and dicts too.

    That is: what stands under the name of a secret, the values of a query, and URLs with credentials or a query.

    >>> mark_secrets({"proxy": "http://me:pass@proxy:3128", "X-Api-Key": "env:NAME", "token": "abc", "max_tokens": 5})
    {'proxy': 'http://***@proxy:3128', 'X-Api-Key': 'env:NAME', 'token': '***', 'max_tokens': 5}

    """
    from llm_magic.secrets import Secret, has_secret_query, is_secret_name, reveal, secret_url

    if name in _NAMES_ONLY or isinstance(value, Secret):
        return value
    if isinstance(value, Mapping):
        items = {key: mark_secrets(item, str(key)) for key, item in value.items()}
        return _query(items) if name == "default_query" else items
    if name == "cert" and isinstance(value, list | tuple) and len(value) > _FILES:
        return [*value[:_FILES], *(Secret(str(reveal(password)), key=True) for password in value[_FILES:])]
    if isinstance(value, list | tuple):
        return type(value)([mark_secrets(item, name) for item in value]) if type(value) in (list, tuple) else value
    if not isinstance(value, str) or not value or scheme_and_variable(value) is not None:
        return value
    if is_secret_name(name):
        return Secret(value, key=True)
    is_hidden = has_secret_query(value) if name in _OF_A_PROGRAM else "://" in value
    return secret_url(value) if is_hidden else value


_FILES = 2
"""A client certificate is two files at most; what follows is the password of its key."""

_OF_A_PROGRAM = {"command", "args", "cwd"}
"""Settings that run something: whoever is to trust them sees them whole, but for what is refused when it is used."""

_NAMES_ONLY = {"api_key_env", "azure_ad_token_env", "azure_ad_token_provider", "headers_env"}
"""Settings that say where a secret is, and hold none."""


def _query(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a query, secrets marked; references stay, to be read when they are used."""
    from llm_magic.secrets import query_secrets

    plain = {name: value for name, value in fields.items() if not (isinstance(value, str) and variable_of(value))}
    return fields | query_secrets(plain)


class Reference(Unicode[str, str]):
    """The trait of `env:NAME` or `os.environ/NAME`, in the place of a number."""

    def validate(self, obj: Any, value: Any) -> str:
        """Refuse any other text."""
        text: str = super().validate(obj, value)
        if variable_of(text) is None:
            self.error(obj, value)
        return text


class SettingsDict(Dict):
    """The trait of a dict of settings; what is none is refused without repeating it, since it may be a secret."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> NoReturn:
        """Refuse a value."""
        reason = f": {error}" if error is not None else ""
        what = f"{type(obj).__name__}.{self.name} expected {info or self.info()}"
        raise TraitError(f"{what}, not this {type(value).__name__}{reason}.")


def is_secret_header(name: str) -> bool:
    """Whether a header of this name carries a secret."""
    return _SECRET_HEADER.search(name) is not None


def check_headers(headers: Mapping[str, str], where: str, *, written: bool = False) -> None:
    """Refuse headers that HTTP does not allow, before the SDK fails on them in riddles; of `written` ones, secrets too.

    Raises
    ------
    ConfigurationError
        Names the header, and no value.

    """
    from llm_magic.secrets import reveal

    for name, value in reveal(headers).items():
        if written and variable_of(value) is not None:
            continue
        if written and is_secret_header(name):
            raise ConfigurationError(
                f"{where}: {name} carries a secret, and secrets do not stand in configuration.",
                f'Use headers_env = {{"{name}": "NAME_OF_A_VARIABLE"}}.',
            )
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{where}: {name!r} cannot be the name of a header.", "Use letters, digits and -.")
        if not value.isascii() or any(character in value for character in "\r\n\0"):
            raise ConfigurationError(
                f"{where}: the value of header {name} has a line break or a character outside ASCII.",
                "Remove it, or encode it as the server expects.",
            )
