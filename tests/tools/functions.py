"""Functions that the tests offer as tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import pydantic

from llm_magic.events import ToolResult
from llm_magic.messages import ToolCall
from llm_magic.session.tool_runner import run
from llm_magic.tools import describe


class Place(pydantic.BaseModel):
    city: str
    country: str = "DE"


def weather(city: str, days: int = 1) -> str:
    """Tell the weather.

    For tomorrow and later.

    Parameters
    ----------
    city
        Its name, as people
        write it.
    days : int
        How many days.

    Returns
    -------
    str

    """
    return f"{city}: sun for {days}"


def google(a: float, b: Literal["x", "y"]) -> float:
    """Add.

    Args:
        a (float): One number.
        b: Which one,
            of two.

    Returns:
        The sum.
    """
    return a


def sphinx(a: int) -> int:
    """Double it.

    :param int a: The number.
    :returns: Twice that.
    """
    return 2 * a


async def slowly(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "done"


def call(function: Callable[..., Any], arguments: Any = None, timeout: float = 5.0) -> ToolResult:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return asyncio.run(run(describe(function), ToolCall("id1", function.__name__, text), timeout))
