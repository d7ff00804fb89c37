"""A document that answered a request elsewhere, and came here in a file: its events, judged as if it had been sent."""

from __future__ import annotations

from collections.abc import Mapping

from llm_magic.capabilities import Api
from llm_magic.errors import LLMError, Origin
from llm_magic.events import Event
from llm_magic.request import Request
from llm_magic.secrets import Secret
from llm_magic.wire import call as wire
from llm_magic.wire.errors import translate
from llm_magic.wire.plain_document import plain_events
from llm_magic.wire.stream import Answer


class _Document:
    """A document in the place of an open answer: it has no headers, and cannot be asked for again."""

    def __init__(self) -> None:
        self.status = 200
        self.secrets: tuple[Secret, ...] = ()
        self.headers: Mapping[str, str] = {}
        self.broken: Exception | None = None
        self.repeatable = False

    async def close(self) -> None:
        """Do nothing: nothing is open."""


def document_events(data: bytes, api: Api, request: Request, origin: Origin) -> tuple[list[Event], LLMError | None]:
    """Return the events of a document, and what is wrong with it; None where it is an answer.

    Parameters
    ----------
    data
        JSON, as the server's answer to one request would be.
    api
        By which it was asked.
    request
        What it answers.
    origin
        What errors name.

    """
    if api == "chat" and (plain := plain_events(data)) is not None:
        return plain, None
    answer, document = Answer(api, request), _Document()
    events: list[Event] = []
    try:
        events += answer.feed(data)
        if answer.fault is None:
            events += answer.close()
        wire.judge(origin, answer, document)
    except Exception as error:  # noqa: BLE001 - translated
        return events, translate(error, origin)
    return events, None if document.broken is None else translate(document.broken, origin)
