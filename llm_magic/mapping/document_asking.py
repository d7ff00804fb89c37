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
from llm_magic.errors import InvalidValueError, LLMError
from llm_magic.events import Attempt, Event, Note
from llm_magic.messages import Text, user
from llm_magic.session.exchange import Turns
from llm_magic.session.model_exchanges import Begun
from llm_magic.session.spending import demand

if TYPE_CHECKING:
    from llm_magic.mapping.concurrency import InFlight
    from llm_magic.messages import Message
    from llm_magic.output.spec import OutputSpec
    from llm_magic.request import Request
    from llm_magic.response import Response
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.session.spending import RequestAccount, Spending
    from llm_magic.wire.body_template import BodyTemplate
    from llm_magic.wire.prepared import PreparedRequest

MARKER = f"row-{secrets.token_hex(16)}"
"""Stands for the text of a row in what is made once for all of them."""

REFUSALS = frozenset({429, 503})
"""Statuses that say that there were too many requests."""

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
    """A plain answer: the response, and the events that it was made of."""

    response: Response
    events: list[Event]


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

        `in_flight` hears of refusals.

        Raises
        ------
        BudgetError
            The request would exceed a budget; it was not sent.
        PromptError
            The text is none that can be sent.

        """
        request = replace(self._request, messages=self._messages(text))
        body = self._template.body(text)
        asked = demand(request)
        exchange = _Exchange(
            self._spending,
            await self._spending.allowed(self.bound.provider, self.bound.model, asked),
            Turns(self._limits, self.bound.model, asked),
            in_flight,
        )
        began = time.perf_counter()
        events, error = await exchange.send(self._prepared, body, request)
        if error is not None:
            return Begun(request, events, error, began)
        draft = Draft()
        draft.add_all(events)
        if not _is_plain(draft):
            return Begun(request, events, at=began)
        try:
            value = await self.value(draft.text, nulls=self.structured[1])
        except InvalidValueError:
            return Begun(request, events, at=began)
        return Answered(
            draft.response(value=value, messages=request.messages, structured=self.structured[0], **self._names), events
        )

    async def value(self, text: str, *, nulls: bool) -> Any:
        """Return the value of an answer; raises InvalidValueError."""
        spec = self._spec
        if spec is None:
            return text
        if spec.kind in _SLOW or len(text) > _LARGE:
            return await asyncio.to_thread(spec.parse, text, nulls=nulls)
        return spec.parse(text, nulls=nulls)

    def _messages(self, text: str) -> tuple[Message, ...]:
        *before, last = self._request.messages
        parts = (Text(text) if part == Text(MARKER) else part for part in last.parts)
        return (*before, user(*parts))


def _is_plain(draft: Draft) -> bool:
    """Tell whether an answer is one whole text, and nothing else."""
    return draft.finish_reason == "stop" and draft.indexes == [0] and not draft.tool_calls and not draft.refusal


class _Exchange:
    """One request of a row: allowed and accounted, and each of its attempts in its turn."""

    __slots__ = ("_account", "_in_flight", "_spending", "_turns")

    def __init__(self, spending: Spending, account: RequestAccount, turns: Turns, in_flight: InFlight | None) -> None:
        self._spending, self._account, self._turns, self._in_flight = spending, account, turns, in_flight
        account.waits = True

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
            came = [event for event in events if type(event) is not Attempt]
            counted = account.counted(came)
            self._turns.heard(counted)
            exceeded = account.end(failed)
        attempts = [event for event in events if type(event) is Attempt]
        return [*attempts, *counted, *map(Note, exceeded)], failed

    def _attempted(self, attempt: Attempt) -> None:
        self._account.counted([attempt])
        if attempt.status == HTTPStatus.UNAUTHORIZED:  # sent again at once, with another key
            self._account.allow()
        if attempt.status in REFUSALS and self._in_flight is not None:
            self._in_flight.refused(attempt.retry_after)
        if self._turns.heard([attempt]):
            self._account.waits = True

    async def _wait(self, seconds: float) -> None:
        """Wait before a further attempt, for the budgets, and for its turn."""
        began = time.perf_counter()
        await self._spending.allowed_again(self._account)
        await self._turns.take(self._account)
        await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - began)))
