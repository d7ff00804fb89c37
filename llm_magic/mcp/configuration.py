"""MCP servers as `LLMMagics.mcp_servers` names them: programs over stdio, and URLs over streamable HTTP.

Both transports are those of the specification (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from llm_magic.close_matches import did_you_mean
from llm_magic.config import references
from llm_magic.config.trust import COMMAND, GuardedSetting
from llm_magic.errors import ConfigurationError
from llm_magic.secrets import (
    MASK,
    Secret,
    has_secret_query,
    hide,
    is_secret_name,
    masked_url,
    reveal,
    secret_url,
)
from llm_magic.urls import checked

SETTING = "LLMMagics.mcp_servers"

_EXAMPLE = f'Example: %config {SETTING} = {{"files": {{"command": "npx", "args": ["-y", "…"]}}}}; or {{"url": "https://…/mcp"}}.'
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEYS = {"command": ("command", "args", "env", "cwd", "timeout"), "url": ("url", "headers", "timeout")}
_OF_PROTOCOL = {"accept", "content-type", "content-length", "host", "mcp-protocol-version", "mcp-session-id"}
_PLAIN = re.compile(r"[^\s'\"`]+")
_PLACE = re.compile(r"(file|path|dir|directory|folder|sock|socket)$", re.IGNORECASE)
_FLAG = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A server that is a program, started by this kernel.

    `env` are variables besides the few that every such program gets; texts of the form `env:NAME` in `args`, `env` and
    `cwd` are references until `with_variables` reads them. `timeout` is in seconds, for each call; None is the one of
    all tools.
    """

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    timeout: float | None = None

    @property
    def shown(self) -> str:
        """Its command line, with what may be secret in it masked."""
        return " ".join(map(_word, [self.command, *_masked_arguments(self.args)]))

    def with_variables(self) -> StdioServer:
        """Return the server as it is started: references read, what they hold as a `Secret` (`secrets.reveal`).

        Raises
        ------
        ConfigurationError
            A variable is not set.

        """
        where = place(self.name)
        args = tuple(references.read(text, f"{where}['args']") for text in self.args)
        cwd = None if self.cwd is None else os.path.expanduser(references.read(self.cwd, f"{where}['cwd']"))  # noqa: PTH111 - a text, as it is passed on
        return replace(self, args=args, env=references.read(self.env, f"{where}['env']"), cwd=cwd)


@dataclass(frozen=True, slots=True)
class HTTPServer:
    """A server at a URL, which speaks streamable HTTP.

    `headers` are sent with each request; a value may be `env:NAME`, or `Bearer env:NAME`. `timeout` is in seconds, for
    each call; None is the one of all tools.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def shown(self) -> str:
        """Its URL, with what may be secret in it masked."""
        return _word(masked_url(self.url))

    def with_variables(self) -> HTTPServer:
        """Return the server as it is asked: references read, what they hold as a `Secret` (`secrets.reveal`).

        Raises
        ------
        ConfigurationError
            A variable is not set, or what it holds cannot be sent as a header or is no URL.

        """
        where = place(self.name)
        url = reveal(references.read(self.url, f"{where}['url']"))
        if not references.is_dry_run():
            _check_url(url, f"{where}['url']")
        headers = {name: _header(value, f"{where}['headers'][{name!r}]") for name, value in self.headers.items()}
        references.check_headers(headers, f"{where}['headers']")
        return replace(self, url=secret_url(url), headers=headers)


Server = StdioServer | HTTPServer


def place(name: str) -> str:
    """Return the place of a server's settings, as errors name it."""
    return f"{SETTING}[{name!r:.80}]"


def read_servers(settings: Mapping[str, Any]) -> dict[str, Server]:
    """Return all servers of `LLMMagics.mcp_servers` by name; raises ConfigurationError as `read_server`."""
    return {name: read_server(name, server) for name, server in settings.items()}


def waiting_servers(waiting: Iterable[GuardedSetting]) -> list[str]:
    """Return the names of the servers among what waits for trust in a project's file."""
    return [item.keys[2] for item in waiting if item.trait == SETTING and item.keys[2:]]


def find_server(name: str, settings: Mapping[str, Any], waiting: Collection[str] = ()) -> Server:
    """Return the server of a name; ConfigurationError names close ones where there is none.

    `waiting` are those that are in force only once the project's file is trusted.

    >>> find_server("time", {"time": {"command": "mcp-server-time"}}).shown
    'mcp-server-time'

    """
    if name in settings:
        return read_server(name, settings[name])
    if name in waiting:
        raise ConfigurationError(
            f"The MCP server {name!r} of the project's file waits for trust.",
            f"{COMMAND} shows it and puts it in force.",
        )
    known = f"There are {', '.join(map(str, settings))}." if settings else _EXAMPLE
    raise ConfigurationError(f"There is no MCP server {name!r:.80}.", did_you_mean(name, map(str, settings), known))


def read_server(name: str, settings: Any) -> Server:
    """Return a server as its settings describe it; nothing is started, and no variable read.

    Parameters
    ----------
    name
        Its name: letters, digits, `_` and `-`, for it stands in `--tools mcp:NAME.tool`.
    settings
        `command`, with `args`, `env` and `cwd`; or `url`, with `headers`; and `timeout` in seconds.

    Raises
    ------
    ConfigurationError
        Names the setting that is wrong, and no value that may be secret.

    Examples
    --------
    >>> read_server("files", {"command": "npx", "args": ["-y", "server-files"]})
    StdioServer(name='files', command='npx', args=('-y', 'server-files'), env={}, cwd=None, timeout=None)

    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{SETTING}: {name!r:.80} cannot be the name of a server.", "Use letters, digits, _ and -."
        )
    where = place(name)
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{where} is a dict, not this {type(settings).__name__}.", _EXAMPLE)
    kinds = [key for key in _KEYS if key in settings]
    if len(kinds) > 1:
        raise ConfigurationError(
            f"{where} has both command and url.", "Keep command for a program, or url for a server that runs elsewhere."
        )
    _check_keys(name, settings, kinds[0] if kinds else "")
    if not kinds:
        raise ConfigurationError(f"{where} has neither command nor url.", _EXAMPLE)
    timeout = _timeout(settings.get("timeout"), f"{where}['timeout']")
    if kinds == ["url"]:
        url = _text(settings["url"], f"{where}['url']", 'Example: "https://example.org/mcp".')
        if references.variable_of(url) is None:
            _check_url(url, f"{where}['url']")
        return HTTPServer(name, secret_url(url), _headers(settings.get("headers"), f"{where}['headers']"), timeout)
    cwd = settings.get("cwd")
    return StdioServer(
        name,
        _command(settings["command"], f"{where}['command']"),
        _arguments(settings.get("args"), f"{where}['args']"),
        _environment(settings.get("env"), f"{where}['env']"),
        None if cwd is None else _place_of_program(cwd, f"{where}['cwd']", "It is a folder, as text."),
        timeout,
    )


def _check_keys(name: str, settings: Mapping[str, Any], kind: str) -> None:
    known = _KEYS[kind] if kind else tuple(dict.fromkeys(key for keys in _KEYS.values() for key in keys))
    for key, value in settings.items():
        if key in known:
            continue
        where, key_shown = place(name), f"{key!r:.60}"
        if key in {"type", "transport"}:
            hint = "It is not needed: command is stdio, url is streamable HTTP; there is no other transport."
        elif name in {"mcpServers", "servers"} and isinstance(value, Mapping):
            hint = f"Set {SETTING} to what stands in {name!r}."
        elif (other := next((kind for kind, keys in _KEYS.items() if key in keys), "")) and kind:
            hint = f"{key} belongs to a server with {other}, and this one has {kind}."
        else:
            hint = did_you_mean(str(key), known, f"There are {', '.join(known)}.")
        raise ConfigurationError(f"{where} has a key {key_shown}, which is none.", hint)


def _text(value: Any, where: str, hint: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{where} is text, not this {type(value).__name__}.", hint)
    plain: str = reveal(value)
    if not plain.strip():
        raise ConfigurationError(f"{where} is empty.", hint)
    _check_characters(plain, where)
    return plain


def _place_of_program(value: Any, where: str, hint: str) -> str:
    """Return a command or folder; none that is shown masked, for then something else would run than is trusted."""
    text = _text(value, where, hint)
    if _masked(text) != text:
        raise ConfigurationError(f"{where} looks like a secret, and secrets do not stand in configuration.", hint)
    return text


def _check_characters(text: str, where: str) -> None:
    """Refuse what no system takes as an argument, a variable or a path."""
    try:
        is_fit = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_fit = False
    if not is_fit:
        raise ConfigurationError(f"{where} has a character that cannot be passed on.", "Remove it.")


def _command(value: Any, where: str) -> str:
    hint = 'The program alone is the command, and args has the rest: "command": "npx", "args": ["-y", "…"].'
    command = _place_of_program(value, where, hint).strip()
    words = command.split()
    if len(words) > 1 and not any(mark in command for mark in "/\\"):  # else a path with spaces
        raise ConfigurationError(f"{where} is a command line, {words[0]!r} with arguments.", hint)
    return command


def _arguments(value: Any, where: str) -> tuple[str, ...]:
    hint = 'Example: "args": ["-y", "server-files", "/data"].'
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{where} is a list of texts, not this {type(value).__name__}.", hint)
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise ConfigurationError(f"{where}[{number}] is text, not this {type(item).__name__}.", hint)
        _check_characters(reveal(item), f"{where}[{number}]")
    arguments: tuple[str, ...] = tuple(reveal(list(value)))
    for number, masked in enumerate(_masked_arguments(arguments)):
        if masked != arguments[number]:
            raise ConfigurationError(
                f"{where}[{number}] looks like a secret, and secrets do not stand in configuration.",
                'Write "env:NAME_OF_A_VARIABLE" in its place; it is read when the server starts.',
            )
    return arguments


def _holds_secret(name: str) -> bool:
    """Whether a variable or an argument of this name holds a secret, and not where one is: `KEY_FILE`."""
    return is_secret_name(name) and not _PLACE.search(name)


def _masked(text: str) -> str:
    """Return a text of a command line as all of the configuration shows it; one that is another then is refused."""
    return masked_url(text) if has_secret_query(text) else hide(text)


def _masked_arguments(arguments: tuple[str, ...]) -> list[str]:
    """Return arguments with keys masked: what follows `--token`, stands in `--token=…`, or looks like a key."""
    shown: list[str] = []
    is_secret = False
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        if isinstance(argument, Secret):
            shown.append(MASK)
        elif references.variable_of(argument) is not None:
            shown.append(argument)
        elif flag and flag[2] and _holds_secret(flag[1]):
            shown.append(f"--{flag[1]}={MASK}")
        elif is_secret and not flag:
            shown.append(MASK)
        else:
            shown.append(_masked(argument))
        is_secret = flag is not None and flag[2] is None and _holds_secret(flag[1])
    return shown


def _word(text: str) -> str:
    """Return a word of a line: one that is no plain word as its repr, so that nothing in it hides or pretends."""
    return text if _PLAIN.fullmatch(text) and text.isprintable() else repr(text)


def _texts(value: Any, where: str, hint: str) -> dict[str, str]:
    """Return a dict of texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} is a dict, not this {type(value).__name__}.", hint)
    for name, text in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"{where}: {name!r:.60} is no name.", hint)
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}[{name!r:.60}] is text, not this {type(text).__name__}.", hint)
    return {name: reveal(text) for name, text in value.items()}


def _refuse_secret(name: str, text: str, where: str, *, is_named: bool) -> None:
    """Refuse a key that is written out; a variable, or one after the scheme of an authorization, is none."""
    is_masked = hide(text) != text or ("://" in text and masked_url(text) != text)
    if text and (is_named or is_masked):
        raise ConfigurationError(
            f"{where}: {name} carries a secret, and secrets do not stand in configuration.",
            f'Write "{name}": "env:NAME_OF_A_VARIABLE"; it is read when the server starts.',
        )


def _environment(value: Any, where: str) -> dict[str, str]:
    variables = _texts(value, where, 'Example: "env": {"LOG_LEVEL": "info", "TOKEN": "env:MY_TOKEN"}.')
    for name, text in variables.items():
        if "=" in name:
            raise ConfigurationError(f"{where}: {name!r:.60} cannot be the name of a variable.", "Leave out the =.")
        _check_characters(name, where)
        _check_characters(text, f"{where}[{name!r:.60}]")
        if references.variable_of(text) is None:
            _refuse_secret(name, text, where, is_named=_holds_secret(name))
    return variables


def _headers(value: Any, where: str) -> dict[str, str]:
    headers = _texts(value, where, 'Example: "headers": {"Authorization": "Bearer env:DOCS_KEY"}.')
    plain = {name: text for name, text in headers.items() if references.scheme_and_variable(text) is None}
    references.check_headers(dict.fromkeys(headers, "") | plain, where)
    for name in headers:
        if name.lower() in _OF_PROTOCOL:
            raise ConfigurationError(f"{where}: {name} is the protocol's own header.", "Leave it out.")
    for name, text in plain.items():
        is_named = is_secret_name(name) or references.is_secret_header(name)
        _refuse_secret(name, text, where, is_named=is_named)
    return headers


def _header(text: str, where: str) -> str:
    """Return the value of a header as it is sent."""
    found = references.scheme_and_variable(text)
    if found is None:
        return text
    scheme, name = found
    value = references.variable(name, where).reveal()
    return Secret(f"{scheme} {value}" if scheme else value, key=True)


def _check_url(url: str, where: str) -> None:
    checked(url, where, "https://host:port/mcp")
    if "@" in urlsplit(url).netloc:
        raise ConfigurationError(
            f"{where} has credentials in it, and secrets do not stand in configuration.",
            'Send them as a header: "headers": {"Authorization": "Basic env:NAME_OF_A_VARIABLE"}.',
        )


def _timeout(value: Any, where: str) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(
            f"{where} is a number of seconds above 0, not {value!r:.60}.", "Leave it out for LLMMagics.tool_timeout."
        )
    return float(value)
