"""Texts in the results of offline batches, for whoever does not know the type that the rows were asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llm_magic.batches.jsonl.results import RowResult, error_of
from llm_magic.draft import Draft
from llm_magic.errors import Origin, ProtocolError
from llm_magic.mapping.asking.row_asker import failed
from llm_magic.mapping.rows import Outcome
from llm_magic.request import Request
from llm_magic.wire.whole_document import document_events

if TYPE_CHECKING:
    from llm_magic.capabilities import Api


def text_outcome(
    number: int, result: RowResult, api: Api, origin: Origin, *, asked: str = "", known: Iterable[str] = ()
) -> Outcome:
    """Return the outcome of a row whose value is the text of its answer; of a call of a tool, what that is called with.

    Parameters
    ----------
    number
        Of the row.
    result
        What its batch has for it.
    api
        By which it was asked.
    origin
        Who was asked.
    asked
        The model as the user named it; by default that of the origin.
    known
        Secrets that no error is to show.

    """
    if result.body is None:
        nothing = ProtocolError(f"{origin} gave no answer to this row.", origin=origin)
        return failed(number, nothing if result.error is None else error_of(result.error, origin, known=known))
    events, error = document_events(
        json.dumps(result.body).encode(), api, Request(origin.model, (), stream=False), origin
    )
    draft = Draft()
    draft.add_all(events)
    response = draft.response(model=asked or origin.model, provider=origin.provider)
    response.value = response.text or next((call.arguments for call in response.tool_calls), "")
    response.seconds, response.first_token_seconds, response.request_id = 0.0, None, result.request_id
    return Outcome(number, response, error, is_timed=False)
