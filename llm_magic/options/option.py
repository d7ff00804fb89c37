"""An option: its flags, what it is for, and how the text of a line becomes its value.

Each of the functions reads a text, or raises ValueError with what was expected.
"""

from __future__ import annotations

import builtins
import csv
import json
import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeVar

from llm_magic.errors import LLMError, OptionError

Number = TypeVar("Number", int, float)


class Option(NamedTuple):
    """One option: its flags, what it takes, and what it is for.

    `read` turns the text of the line into the value; an option without it is a switch. `repeats`
    collects several into a tuple, `pairs` into a dict, `joined` into one text with commas. `words`
    are what completion offers. `trusted_only` marks what a project's file sets only once it is
    trusted, because it `could` send, run, write or read something; None is undecided, and counts
    as True.
    """

    name: str
    flags: tuple[str, ...]
    group: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] | None = None
    repeats: bool = False
    pairs: bool = False
    joined: bool = False
    words: tuple[str, ...] = ()
    trusted_only: bool | None = None
    could: str = ""


def exclude_each_other(values: Mapping[str, object], error: type[LLMError] = OptionError) -> str | None:
    """Return the name of the one value that is not None, or None; several are an `error`.

    >>> exclude_each_other({"--as": int, "--schema": None})
    '--as'

    """
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise error(f"{' and '.join(given)} exclude each other.", "Keep one of them.")
    return given[0] if given else None


def number(
    least: float,
    most: float = math.inf,
    kind: Callable[[str], Number] = float,  # type: ignore[assignment] # where nothing else is given
    name: str = "a number",
) -> Callable[[str], Number]:
    """Read a number from `least` to `most`."""

    def read(text: str) -> Number:
        try:
            found = kind(text)
        except ValueError:
            raise ValueError(name) from None
        if not least <= found <= most or abs(found) == math.inf:
            bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
            raise ValueError(f"{name} {bounds}")
        return found

    return read


def whole(least: float = -math.inf) -> Callable[[str], int]:
    """Read a whole number, of at least `least`."""
    return number(least, kind=int, name="a whole number")


def seconds(text: str) -> float:
    """Read a length of time."""
    found = number(0)(text)
    if found == 0:
        raise ValueError("more than 0 seconds")
    return found


def one_of(*words: str) -> Callable[[str], str]:
    """Read one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def text(words: str) -> str:
    """Take any text, an empty one, too."""
    return words


def nonempty(text: str) -> str:
    """Take any text but an empty one."""
    if not text:
        raise ValueError("a value that is not empty")
    return text


def variable(text: str) -> str:
    """Take the name of a Python variable that is the user's to set."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("the name of a variable")
    if _IPYTHON_S.fullmatch(text):
        raise ValueError("the name of a variable that neither IPython nor llm_magic sets")
    return text


_IPYTHON_S = re.compile(r"In|Out|get_ipython|exit|quit|_{1,3}|_i{1,3}|_i?\d+|_[dio]h|_exit_code|_llm|__\w+__")
"""Names that IPython binds anew, or that it is lost without; and that of the last response."""


def shadowed(name: str | None) -> tuple[str, ...]:
    """Return the note on a variable that hides a builtin function or type; nothing for any other.

    >>> shadowed("list")
    ('-o list: hides the builtin list from the cells below; del list brings it back.',)

    """
    if name is None or not hasattr(builtins, name):
        return ()
    return (f"-o {name}: hides the builtin {name} from the cells below; del {name} brings it back.",)


def words(text: str) -> tuple[str, ...]:
    """Read one line of CSV, quotes respected."""
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise ValueError('a list with commas, such as a,b,"c, d"') from None
    found = tuple(word.strip() for word in row)
    if not found or not all(found):
        raise ValueError("a list with commas and no empty item")
    return found


def context(text: str) -> int | Literal["all"] | tuple[str, ...]:
    """Read which executed cells are meant: a number of them, `all`, or the names that they define.

    >>> context("3"), context("all"), context("df, model")
    (3, 'all', ('df', 'model'))

    None are by 0, where it is a default.
    """
    if text == "all":
        return "all"
    try:
        count = int(text)
    except ValueError:
        names = tuple(name.strip() for name in text.split(","))
        if not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            raise ValueError("a number of cells, all, or names of variables with commas") from None
        return names
    if count < 0:
        raise ValueError("a number of cells, 0 for none")
    return count


def escaped(text: str) -> str:
    r"""Read `\n`, `\r`, `\t` as the characters that they stand for."""
    return re.sub(r"\\([nrt\\])", lambda match: {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], "\\"), nonempty(text))


_KEYS = frozenset({"api_key", "apikey", "authorization", "token", "secret", "password"})


def refuse_keys(names: Iterable[str], where: str) -> None:
    """Refuse names under which a key would be given, before anything is sent and without its value.

    Raises
    ------
    OptionError
        Says where keys belong.

    """
    for name in names:
        plain = name.lower().replace("-", "_")
        if plain in _KEYS or plain.endswith("_api_key"):
            raise OptionError(
                f"{where} takes no {name}: keys do not stand in cells, calls or bodies.",
                'Name the variable that holds it: %config PROVIDER_CLASS.api_key_env = "NAME", headers_env, or '
                "--header NAME=env:VARIABLE. A key that was typed stays in IPython's history: replace it.",
            )


def parameter(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("NAME=VALUE")
    refuse_keys([name], "--param")
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    return name, read if no_json(read) is None else value  # Python reads NaN and 1e999, which are no JSON


def no_json(value: Any) -> str | None:
    """Return the name of what JSON cannot say in a value; None where it can say all.

    >>> no_json({"a": [1, None]}), no_json([float("inf")]), no_json({"a": {1}})
    (None, 'inf', 'set')

    """
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            pending += item.values()
            if not all(isinstance(key, str) for key in item):
                return "a dict whose keys are no texts"
        elif isinstance(item, list | tuple):
            pending += item
        elif isinstance(item, float) and not math.isfinite(item):
            return str(item)
        elif item is not None and not isinstance(item, str | bool | int | float):
            return type(item).__name__
    return None


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")


def header(text: str) -> tuple[str, str]:
    """Read NAME=VALUE and check both by RFC 9110, sections 5.1 and 5.5."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("NAME=VALUE")
    if not HEADER_NAME.fullmatch(name):
        raise ValueError("NAME=VALUE, the name of letters, digits and hyphens")
    if not HEADER_VALUE.fullmatch(value):
        raise ValueError("NAME=VALUE, the value of printable ASCII characters")
    return name, value


MOST_IN_FLIGHT = 10_000
"""Rows in flight that can be asked for."""


def concurrency(text: str) -> int | Literal["auto"]:
    """Read how many rows are in flight at most."""
    if text == "auto":
        return "auto"
    try:
        return number(1, MOST_IN_FLIGHT, int)(text)
    except ValueError:
        raise ValueError(f"a whole number from 1 to {MOST_IN_FLIGHT:,}, or auto") from None


LIMITS = ("cost", "tokens", "requests")
"""What a budget limits."""
_MOST = 1e15
_BUDGET = "US dollars of more than 0 such as 2.50, or limits such as tokens=100000,requests=500"


def limits(values: Mapping[Any, Any]) -> dict[str, float]:
    """Check the limits of a budget: `cost` in US dollars, `tokens`, `requests`."""
    numbers = all(isinstance(limit, Real) and not isinstance(limit, bool) for limit in values.values())
    if not values or not numbers or not set(values) <= set(LIMITS):
        raise ValueError(_BUDGET)
    for kind, limit in values.items():
        if not 0 < limit < _MOST or (kind != "cost" and limit % 1):
            raise ValueError(_BUDGET)
    return {kind: float(limit) if kind == "cost" else int(limit) for kind, limit in values.items()}


def budget(text: str) -> dict[str, float]:
    """Read the limits of a budget: US dollars, or `NAME=LIMIT` of each, with commas between.

    >>> budget("$2.50"), budget("tokens=100_000,requests=500")
    ({'cost': 2.5}, {'tokens': 100000, 'requests': 500})

    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        name = name.strip() if equals else "cost"
        if name in found:
            raise ValueError(f"{name} once")
        try:
            found[name] = float(value.strip().removeprefix("$") if name == "cost" else value)
        except ValueError:
            raise ValueError(_BUDGET) from None
    return limits(found)


def cluster(text: str) -> str:
    """Take the name of the current cluster, or the address of one."""
    if text != "dask" and not re.fullmatch(r"(tcp|tls|ucx|ws|wss|inproc)://\S+", text):
        raise ValueError("dask (the current client), or the address of a scheduler such as tcp://host:8786")
    return text


_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def environment_names(text: str) -> tuple[str, ...]:
    """Read names of environment variables."""
    return names_only(part.strip() for part in text.split(","))


def names_only(names: Iterable[str]) -> tuple[str, ...]:
    """Take names of environment variables; what is none may be the value of one, so no error repeats it.

    Raises
    ------
    OptionError
        One is no such name, or there is none.

    """
    found = tuple(dict.fromkeys(names))
    if not found or not all(_ENVIRONMENT_NAME.fullmatch(name) for name in found):
        raise OptionError(
            "--forward-env takes the names of environment variables, such as OPENAI_API_KEY,HF_TOKEN.",
            "Names only: their values are read where the notebook runs.",
        )
    return found


def url(text: str) -> str:
    """Take an HTTP URL without credentials."""
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError("a URL that starts with http:// or https://")
    if re.match(r"https?://[^/@]*@", text):
        raise ValueError("a URL without user name or password: a cell is saved as it stands")
    return text
