"""The results of a batch, read into the outcomes of its rows: each checked, priced, counted and kept as any answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from llm_magic.batches.jsonl.results import RowResult, error_of
from llm_magic.errors import InvalidValueError, LLMError, ProtocolError
from llm_magic.events import Attempt, Event, Opened, UsageReport
from llm_magic.mapping.answers.statistics import response_of
from llm_magic.mapping.asking.document_asking import parsed
from llm_magic.mapping.asking.plain_answer import plain_answer
from llm_magic.mapping.asking.row_asker import failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.output.dialects import WRITERS, Structure, apply
from llm_magic.session.model_exchanges import Begun
from llm_magic.wire.whole_document import document_events

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.batches.rows.bodies import RequestBodies
    from llm_magic.capabilities import Api, Dialect
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.providers.model_info import Price
    from llm_magic.request import Request
    from llm_magic.session import Session
    from llm_magic.session.plan import BoundModel, Plan

_OK = 200
_INVALID = "Reword the prompt, or run the cell again: only what is missing is asked. _llm.text has what came."


class ResultReader:
    """Reads results of batches of one plan.

    Parameters
    ----------
    session
        Counts what was used.
    plan, bound
        What all rows share, and the model that was asked.
    bodies
        Say what a row asked.
    asker
        Judges what is no plain answer, and keeps answers.

    """

    def __init__(self, session: Session, plan: Plan, bound: BoundModel, bodies: RequestBodies, asker: RowAsker) -> None:
        self._session, self._plan, self._bound, self._bodies, self._asker = session, plan, bound, bodies, asker
        self._price: Price | None = bound.provider.price(bound.model)
        self._origin = bound.provider.origin(bound.model)
        self._others: dict[tuple[str, bool], BoundModel] = {}  # as batches asked with other settings than now

    async def outcome(self, row: RowRequest, result: RowResult, record: BatchRecord, *, counts: bool = True) -> Outcome:
        """Return the outcome of a row.

        Parameters
        ----------
        row
            The row.
        result
            What its batch has for it.
        record
            The batch.
        counts
            Whether it is counted as used: not where an earlier run has read it.

        """
        bound = self._as_asked(record)
        request = self._bodies.request(row, bound)
        api = self._bound.capabilities.api if record.api == "embeddings" else record.api
        events, error = await self._events(result, request, api, bound)
        if counts:
            self._count(events, error)
        if error is None and not self._plan.turns and (plain := plain_answer(events)) is not None:
            outcome = await self._plain(row, plain.text, events, request, bound)
            if outcome is not None:
                if counts and outcome.response is not None:
                    self._session.ledger.answered(outcome.response, self._bound.provider.name, self._bound.model)
                return outcome
        if error is not None and not any(type(event) is not Attempt for event in events):
            return failed(row.number, error)
        begun = Begun(request, events, error, structured=_structured(bound))
        outcome = await self._asker.judged(row, begun, counts=counts)
        if isinstance(outcome.error, InvalidValueError):  # within a batch nothing is asked again
            outcome.error.hint = _INVALID
        outcome.is_timed = False
        if (response := response_of(outcome)) is not None:
            response.seconds, response.first_token_seconds = 0.0, None
        return outcome

    def _as_asked(self, record: BatchRecord) -> BoundModel:
        """Return the model with its output type as the batch asked for it: settings may have changed since."""
        bound, spec = self._bound, self._plan.spec
        dialect, nulls = record.structured["dialect"], record.structured["nulls"]
        if spec is None or dialect is None or (dialect, nulls) == _structured(bound):
            return bound
        if (dialect, nulls) not in self._others:
            known = cast("Dialect", dialect)
            if (known, spec.kind) in WRITERS:
                structure = apply(spec, replace(bound.capabilities, dialects={spec.kind: known}))
            else:
                structure = Structure(known)
            self._others[dialect, nulls] = replace(bound, structure=replace(structure, nulls=nulls))
        return self._others[dialect, nulls]

    async def _events(
        self, result: RowResult, request: Request, api: Api, bound: BoundModel
    ) -> tuple[list[Event], LLMError | None]:
        """Return what a result says, and the error where it is no answer."""
        names = self._origin.provider, self._origin.model
        if result.body is None:
            known = self._bound.secrets(request)
            error = error_of(result.error, self._origin, known=known) if result.error is not None else None
            error = error or ProtocolError(f"{self._origin} gave no answer to this row.", origin=self._origin)
            status = result.status or getattr(error, "status", None)
            attempt = Attempt(*names, status, error.message, 0.0, result.request_id, None, final=True)
            return ([attempt] if status is not None else []), error
        begun: list[Event] = [
            Attempt(*names, _OK, "", 0.0, result.request_id),
            Opened(_OK, {}, result.request_id, None),
        ]
        events, error = document_events(_encoded(result.body), api, request, self._origin)
        if bound.structure is not None and bound.structure.tools:
            events = [event async for batch in bound.as_text(_stream(events), request) for event in batch]
        return [*begun, *map(self._priced, events)], error

    def _priced(self, event: Event) -> Event:
        """Return an event with the cost of its tokens, at the price of batches; None where that is not known."""
        if type(event) is UsageReport and event.cost is None and self._price is not None:
            return replace(event, cost=self._price.of_batch(event.usage))
        return event

    def _count(self, events: list[Event], error: LLMError | None) -> None:
        """Enter what a row took."""
        report = next((event for event in reversed(events) if type(event) is UsageReport), None)
        attempts = [event for event in events if type(event) is Attempt]
        end = self._session.ledger.begin(self._bound.provider.name, self._bound.model)
        usage, cost = (None, None) if report is None else (report.usage, report.cost)
        end(attempts, usage, cost, answered=error is None)

    async def _plain(
        self, row: RowRequest, text: str, events: list[Event], request: Request, bound: BoundModel
    ) -> Outcome | None:
        """Return the outcome of a whole text; None where it is no valid value, for a run to say why."""
        spec = self._plan.spec
        plain = plain_answer(events)
        if plain is None:
            return None
        dialect, nulls = _structured(bound)
        value: Any = text
        if spec is not None:
            try:
                value = await parsed(spec, text, nulls=nulls)
            except InvalidValueError:
                return None
        planned = bound.planned
        response = plain.response(
            0.0,
            0.0,
            value=value,
            model=planned.target.asked,
            provider=bound.provider.name,
            messages=request.messages,
            structured=dialect,
        )
        response.first_token_seconds = None
        outcome = Outcome(row.number, response, is_timed=False)
        self._asker.keep(row, outcome)
        return outcome


def _structured(bound: BoundModel) -> tuple[str | None, bool]:
    """Return the dialect of a model's output type, and whether absent properties come as null."""
    return (None, False) if bound.structure is None else (bound.structure.dialect, bound.structure.nulls)


async def _stream(events: list[Event]) -> Any:
    """Yield events that came at once."""
    yield events


def _encoded(body: dict[str, Any]) -> bytes:
    """Return a document as JSON again; what no encoding can write is escaped."""
    return json.dumps(body, ensure_ascii=True).encode()
