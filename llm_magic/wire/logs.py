"""What the libraries below log of our requests, with the secrets masked; their other records stay as they are."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

from llm_magic.secrets import Secret, hide, masked_url

_LIBRARIES = ("openai", "httpx", "httpcore", "aiohttp", "hpack", "h2", "asyncio")
_URL = re.compile(r"https?://[^\s'\"<>\\]+")

_known: ContextVar[tuple[Secret, ...] | None] = ContextVar("llm_magic secrets", default=None)
_learned: ContextVar[tuple[Secret, ...]] = ContextVar("llm_magic keys", default=())
_LEARNED_AT_MOST = 4


class _Masked(logging.Filter):
    """Masks the records that are written while a request of ours is sent or its answer is read."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = _known.get()
        if known is None:
            return True
        said = record.getMessage()
        masked = hide(_URL.sub(lambda found: masked_url(found[0]), said), known)
        if masked != said:
            record.msg, record.args = masked, ()
        if record.exc_info:
            record.exc_text = hide(logging.Formatter().formatException(record.exc_info), known)
            record.exc_info = None  # whoever formats it once more would show all of it
        return True


_filter = _Masked()
_watched = 0  # loggers that there were when they were last looked through


def guard(known: tuple[Secret, ...]) -> None:
    """Mask what is logged from here on in this task, and in those that it starts."""
    global _watched  # noqa: PLW0603 - the loggers are the process's, too
    if _known.get() is not known:
        _known.set(known)
    names = logging.Logger.manager.loggerDict
    if len(names) != _watched:
        _watched = len(names)
        for name in [*names]:
            if name.startswith(_LIBRARIES):
                logging.getLogger(name).addFilter(_filter)  # a second time changes nothing


def learn(secret: Secret) -> None:
    """Mask a key that was asked for while a request is prepared, too."""
    _learned.set((*_learned.get(), secret)[-_LEARNED_AT_MOST:])
    guard((*(_known.get() or ()), secret))


def learned() -> tuple[Secret, ...]:
    """Return the keys that were asked for in this task, the last ones."""
    return _learned.get()


def unguard() -> None:
    """Let the loggers be as they were."""
    global _watched  # noqa: PLW0603 - as above
    _watched = 0
    for name in [*logging.Logger.manager.loggerDict]:
        if name.startswith(_LIBRARIES):
            logging.getLogger(name).removeFilter(_filter)
