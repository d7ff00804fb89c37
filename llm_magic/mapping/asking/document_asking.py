"""The asking of rows by one JSON document each, over a request that was prepared once: no screen, no stream, no run.

Where an answer is no plain one (it failed, is cut, calls tools, is no valid value) a run goes on with it, as a cell's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llm_magic.draft import Draft
from llm_magic.errors import InvalidValueError, LLMError, TimedOutError
from llm_magic.events import Attempt, Event, Note
from llm_magic.mapping.asking.plain_answer import kept, plain_answer
from llm_magic.messages import Message, Text
from llm_magic.recordings.answers import answer_of
from llm_magic.request import Request
from llm_magic.session.exchange import Turns
from llm_magic.session.model_exchanges import Begun
from llm_magic.session.spending import demand
from llm_magic.wire.attempts import NO_ANSWER

if TYPE_CHECKING:
    from llm_magic.mapping.concurrency import InFlight
    from llm_magic.output.spec import OutputSpec
    from llm_magic.response import Response
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.session.spending import Demand, RequestAccount, Spending
    from llm_magic.wire.body_template import BodyTemplate
    from llm_magic.wire.prepared import PreparedRequest

MARKER = f"row-{secrets.token_hex(16)}"
"""Stands for the text of a row in what is made once for all of them."""

REFUSALS = frozenset({429, 503})
"""Statuses that say that there were too many requests."""

_PLACE = Text(MARKER)
_NO_VALUE = object()

_LARGE = 20_000  # characters of a value that is read on another thread
_SLOW = frozenset({"regex", "grammar"})  # kinds of values of which some take long to read


def is_plain(plan: Plan) -> bool:
    """Tell whether rows may be asked by one document each: of one model, for one answer, without tools or history."""
    options = plan.options
    return not (
        len(plan.models) > 1
        or options.tools
        or options.image
        or plan.turns
        or (options.parameters.get("n") or 1) > 1
        or options.api == "completions"
    )


@dataclass(slots=True)
class Answered:
    """A whole answer: the response, and the events that it was made of where it is not plain text."""

    response: Response
    events: list[Event] | None = None

    def kept(self, structured: tuple[str | None, bool]) -> dict[str, Any]:
        """Return it as plain data; `structured` are the dialect of a constraint, and whether it has nulls."""
        dialect, nulls = structured
        told = {"dialect": dialect, "nulls": nulls} if dialect else None
        if self.events is None:
            return kept(self.response, told)
        response = self.response
        return answer_of(
            self.events,
            seconds=round(response.seconds, 6),
            first_token_seconds=response.first_token_seconds,
            structured=told,
        )


class NoDocumentError(TimedOutError):
    """No document came in time, and there may be another attempt: it may be one that streams."""


class DocumentAsking:
    """Asks for rows over a prepared request; one event loop uses it, and closes it.

    Parameters
    ----------
    plan
        What all rows share.
    bound
        The model that is asked.
    spending
        Allows each request, and takes what it used.
    prepared
        The request, with `MARKER` in the place of a row's text.
    template
        Its body.
    request
        The same as data.

    """

    def __init__(
        self,
        plan: Plan,
        bound: BoundModel,
        spending: Spending,
        *,
        prepared: PreparedRequest,
        template: BodyTemplate,
        request: Request,
    ) -> None:
        self.bound = bound
        self.secrets = bound.secrets(request)
        self._spec: OutputSpec | None = plan.spec
        self._prepared = prepared
        self._template = template
        self._request = request
        self._spending = spending
        self._limits = spending.rate_limits.of(bound.provider)
        structure = bound.structure
        self.structured = (None, False) if structure is None else (structure.dialect, structure.nulls)
        self._before = request.messages[:-1]
        self._shared_demand = demand(replace(request, messages=self._before))
        self._may_stream = not bound.planned.options.no_stream
        self._names = {"model": bound.planned.target.asked, "provider": bound.provider.name}

    @classmethod
    async def of(cls, plan: Plan, bound: BoundModel, spending: Spending) -> DocumentAsking | None:
        """Return what asks for rows so; None where it cannot be, and each row needs a run."""
        if bound.tools or (bound.structure is not None and bound.structure.tools):
            return None
        options = bound.planned.options
        request = replace(bound.compose(replace(plan, parts=(Text(MARKER),))), stream=False)
        prepared = await bound.provider.prepare_request(
            request, bound.capabilities, timeout=options.timeout, max_retries=options.retries
        )
        if prepared is None or prepared.call.capabilities.api == "completions":
            return None
        template = await prepared.template(MARKER)
        if template is None:
            return None
        return cls(plan, bound, spending, prepared=prepared, template=template, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._prepared.aclose()

    async def ask(self, text: str, in_flight: InFlight | None = None) -> Answered | Begun:
        """Return the answer to a row's text; where it is not plain, what came, for a run to go on with.

        `in_flight` hears of refusals. With `NoDocumentError` as its error a run does not go on, but asks anew.

        Raises
        ------
        BudgetError
            The request would exceed a budget; it was not sent.
        PromptError
            The text is none that can be sent.

        """
        request, asked = self._request_for(text)
        body = self._template.body(text)
        exchange = _Exchange(
            self._spending,
            await self._spending.allowed(self.bound.provider, self.bound.model, asked),
            Turns(self._limits, self.bound.model, asked),
            in_flight,
            may_stream=self._may_stream,
        )
        events, error = await exchange.send(self._prepared, body, request)
        if error is not None:
            return Begun(request, events, error, exchange.began)
        plain = plain_answer(events)
        if plain is not None:
            value = await self._value(plain.text)
            if value is not _NO_VALUE:
                known = self._known(request, value)
                return Answered(plain.response(exchange.seconds, exchange.first_token_seconds, **known))
        else:
            draft = exchange.draft(events)
            value = await self._value(draft.text) if _is_plain(draft) else _NO_VALUE
            if value is not _NO_VALUE:
                return Answered(draft.response(**self._known(request, value)), events)
        return Begun(request, events, at=exchange.began)

    def _known(self, request: Request, value: Any) -> dict[str, Any]:
        """Return the fields of a response that no event says."""
        return {"value": value, "messages": request.messages, "structured": self.structured[0], **self._names}

    async def _value(self, text: str) -> Any:
        """Return the value of an answer; `_NO_VALUE` where it is none."""
        if self._spec is None:
            return text
        try:
            return await parsed(self._spec, text, nulls=self.structured[1])
        except InvalidValueError:
            return _NO_VALUE

    def _request_for(self, text: str) -> tuple[Request, Demand]:
        """Return the request of a row, and what it asks for."""
        shared = self._request
        parts = tuple(Text(text) if part == _PLACE else part for part in shared.messages[-1].parts)
        last = Message("user", parts)
        request = Request(
            shared.model,
            (*self._before, last),
            shared.parameters,
            shared.structure,
            shared.tools,
            shared.tool_choice,
            stream=False,
            headers=shared.headers,
        )
        return request, self._shared_demand.with_message(last)


async def parsed(spec: OutputSpec, text: str, *, nulls: bool) -> Any:
    """Return the value of an answer, read on another thread where that may take long; raises InvalidValueError."""
    if spec.kind in _SLOW or len(text) > _LARGE:
        return await asyncio.to_thread(spec.parse, text, nulls=nulls)
    return spec.parse(text, nulls=nulls)


def _is_plain(draft: Draft) -> bool:
    """Tell whether an answer is one whole text, and nothing else."""
    return draft.finish_reason == "stop" and draft.indexes == [0] and not draft.tool_calls and not draft.refusal


class _Exchange:
    """One request of a row: allowed and accounted, and each of its attempts in its turn."""

    __slots__ = (
        "_account",
        "_began",
        "_ended",
        "_in_flight",
        "_may_stream",
        "_sent",
        "_spending",
        "_turns",
        "_unanswered",
    )

    def __init__(
        self,
        spending: Spending,
        account: RequestAccount,
        turns: Turns,
        in_flight: InFlight | None,
        *,
        may_stream: bool,
    ) -> None:
        self._spending, self._account, self._turns, self._in_flight = spending, account, turns, in_flight
        self._may_stream = may_stream
        self._began: float | None = None  # the first attempt
        self._sent = self._ended = 0.0  # the last one
        self._unanswered = False  # whether that had no answer in time
        account.waits = True

    @property
    def began(self) -> float:
        """When the first attempt was sent, by `time.perf_counter`; where none was, when it ended."""
        return self._ended if self._began is None else self._began

    @property
    def seconds(self) -> float:
        """Seconds from the sending of the first attempt to the end."""
        return self._ended - self.began

    @property
    def first_token_seconds(self) -> float:
        """Seconds from the sending of the attempt that answered to the end: all of a document comes at once."""
        return self._ended - self._sent

    def draft(self, events: list[Event]) -> Draft:
        """Return the draft of what came."""
        draft = Draft()
        draft.add_all(events)
        draft.settle(self.seconds)
        if draft.begun:
            draft.first_token_seconds = self.first_token_seconds
        return draft

    async def send(
        self, prepared: PreparedRequest, body: bytes, request: Request
    ) -> tuple[list[Event], LLMError | None]:
        """Send it; return what came, and the error that ended it."""
        account = self._account
        events: list[Event] = []
        failed: LLMError | None = None
        try:
            await self._turns.take(account)
            await prepared.exchange(body, request, events, on_attempt=self._attempted, wait=self._wait)
        except LLMError as error:
            failed = error
        finally:
            self._ended = time.perf_counter()
            came = [event for event in events if type(event) is not Attempt]
            counted = account.counted(came)
            self._turns.heard(counted)
            exceeded = account.end(failed)
        attempts: list[Event] = [event for event in events if type(event) is Attempt]
        attempts += counted
        if exceeded:
            attempts += map(Note, exceeded)
        return attempts, failed

    def _attempted(self, attempt: Attempt) -> None:
        self._sent = time.perf_counter() - attempt.seconds
        self._began = self._sent if self._began is None else self._began
        self._account.attempted(attempt)
        self._unanswered = attempt.status is None and attempt.reason.startswith(NO_ANSWER)
        if attempt.status == HTTPStatus.UNAUTHORIZED:  # sent again at once, with another key
            self._account.allow()
        if attempt.status in REFUSALS and self._in_flight is not None:
            self._in_flight.refused(attempt.retry_after)
        if self._turns.heard([attempt]):
            self._account.waits = True

    async def _wait(self, seconds: float) -> None:
        """Wait before a further attempt, for the budgets, and for its turn.

        A document comes when all of it is written, so the silence of a model that writes looks like that of one which
        does not: the same is not sent again.
        """
        if self._unanswered and self._may_stream:
            raise NoDocumentError("No document came in time.")
        began = time.perf_counter()
        await self._spending.allowed_again(self._account)
        await self._turns.take(self._account)
        await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - began)))
