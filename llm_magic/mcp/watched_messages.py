"""The messages of an MCP server, seen on their way to the official client; those that it cannot read are mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from llm_magic.mcp.unreadable import mended


class WatchedMessages:
    """A stream of messages that are seen by somebody else first; `ended` is called at its end."""

    def __init__(self, inner: Any, see: Callable[[Any], None], ended: Callable[[], None]) -> None:
        self._inner = inner
        self._see = see
        self._ended = ended

    @property
    def last_context(self) -> Any:
        """The context of who sent the last message."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        """Return the next message."""
        try:
            item = await self._inner.receive()
        except Exception:
            self._ended()
            raise
        return self._seen(item)

    def _seen(self, item: Any) -> Any:
        if isinstance(item, Exception) and (message := mended(item)) is not None:
            item = message
        self._see(item)
        return item

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    def __aiter__(self) -> WatchedMessages:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._inner.__anext__()
        except Exception:
            self._ended()
            raise
        return self._seen(item)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> bool | None:
        left: bool | None = await self._inner.__aexit__(*exception)
        return left
