"""The exchanges of a run with one model: each is answered from its recording, else sent, and recorded once judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llm_magic.draft import Draft
from llm_magic.errors import ContextOverflowError, LLMError, RequestRefusedError
from llm_magic.events import Event, Note, ReasoningItem, Replayed
from llm_magic.messages import Message, Reasoning, Text
from llm_magic.session.exchange import exchange
from llm_magic.session.plan import BoundModel, Plan, PlannedModel, prepare
from llm_magic.session.spending import Spending
from llm_magic.urls import without_hosts

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.request import Request
    from llm_magic.session.neutral_request import NeutralRequest
    from llm_magic.session.recorder import RecordedResults, Recorder

_DIGITS = 6
"""Decimals of recorded seconds; the answer that is recorded shows the same number."""


@dataclass(slots=True)
class Exchanged:
    """A request that was sent, and what came: what may be recorded of it."""

    asked: Mapping[str, Any]
    first: bool
    """Whether it is the first one that this model was asked, not one of a later round."""
    events: list[Event] = field(default_factory=list)
    secrets: tuple[str, ...] = ()


class BoundModels:
    """The models of a plan, each got ready when it is first asked, once for all runs that share them."""

    def __init__(self) -> None:
        self._known: dict[str, BoundModel] = {}
        self._turn = asyncio.Lock()

    async def get(self, plan: Plan, planned: PlannedModel, emit: Emit[Event]) -> BoundModel:
        """Return a model that is ready to be asked; raises what `prepare` raises, for each who asks."""
        name = planned.target.asked
        if name not in self._known:
            async with self._turn:
                if name not in self._known:
                    self._known[name] = await prepare(plan, planned, emit)
        return self._known[name]


@dataclass(slots=True)
class Begun:
    """A request that was sent and accounted already, as the first of a run: what came, and the error at its end."""

    request: Request
    events: list[Event]
    error: LLMError | None = None
    at: float | None = None
    """When it was sent first, by `time.perf_counter`; None where it was not."""
    structured: tuple[str | None, bool] | None = None
    """Where it was asked otherwise than it would be now: as of `ModelExchanges.structured`."""


class ModelExchanges:
    """Asks one model, whose endpoint is looked up when something is to be sent, and not before.

    Parameters
    ----------
    plan, planned
        What the cell asks, and the model.
    draft
        That of the run, which has the times.
    spending
        Allows each request, and takes what it used.
    recorder
        Answers from recordings, and records; None where nothing is recorded.
    emit
        Gets progress and notes.
    fallbacks
        A line on each model that failed before this one was asked.
    models
        The models that are ready; many runs may share them.
    begun
        The first request, where it was sent already.

    """

    def __init__(
        self,
        plan: Plan,
        planned: PlannedModel,
        *,
        draft: Draft,
        spending: Spending,
        recorder: Recorder | None,
        emit: Emit[Event],
        fallbacks: tuple[str, ...] = (),
        models: BoundModels | None = None,
        begun: Begun | None = None,
    ) -> None:
        self.plan = plan
        self.planned = planned
        self._draft = draft
        self._spending = spending
        self._recorder = recorder
        self._emit = emit
        self._fallbacks = fallbacks
        self._models = models or BoundModels()
        self._begun = begun
        self._bound: BoundModel | None = None
        self._told: tuple[str | None, bool] | None = None  # of what was begun: how its output type was asked for
        self._replayed: Mapping[str, Any] | None = None  # the answer that came last, where it came from a recording
        self._to_record: Exchanged | None = None  # the one that was sent last, until it is judged
        self.sent: tuple[Message, ...] = ()
        """The messages of the last request."""
        self.model = ""
        """The model that a provider alone led to, once it is known."""

    @property
    def is_replayed(self) -> bool:
        """Whether the answer that came last is from a recording."""
        return self._replayed is not None

    def offer(self, plan: Plan) -> None:
        """Go on with the tools of a plan, which differs in nothing else."""
        self.plan = plan
        if self._bound is not None and self._bound.tools:
            self._bound = replace(self._bound, tools=tuple(tool.tool for tool in plan.tools.values()))

    def find_model(self) -> None:
        """Look up the model that a provider alone led to when it was recorded."""
        target = self.planned.target
        if self._recorder is not None and not target.model:
            self.model = self._recorder.model(target.provider.name, self.planned.options.base_url)

    async def answer_to(self, asked: NeutralRequest) -> AsyncGenerator[list[Event], None]:
        """Yield what answers a request: its recording, else what comes when it is sent.

        Raises
        ------
        LLMError
            It is not recorded and nothing may be sent, a budget does not allow it, or what went wrong.

        """
        self._to_record, recorder, exchanged = None, self._recorder, None
        if recorder is not None:
            if not (self.planned.target.model or self.model or recorder.mode == "only"):
                await self._bind()
            exchanged = Exchanged(asked.data(self.model), not asked.added)
            secrets = self.planned.target.provider.secrets
            # what has begun has its answer; else known at once: equal ones are told apart by their order
            known = None if self._begun is not None else recorder.known(exchanged.asked, secrets)
            if known is not None:
                async with aclosing(self._replay(asked, known, recorder.pace)) as stream:
                    async for batch in stream:
                        yield batch
                return
        async with aclosing(self._send(asked, exchanged)) as stream:
            async for batch in stream:
                yield batch

    async def _send(self, asked: NeutralRequest, exchanged: Exchanged | None) -> AsyncGenerator[list[Event], None]:
        self._replayed = None
        bound = await self._bind()
        begun, self._begun = self._begun, None
        request = asked.request(bound) if begun is None else begun.request
        self._told = None if begun is None else begun.structured
        self.sent = request.messages
        self._draft.begin_request(None if begun is None else begun.at)
        exceeded: list[str] = []
        sent = exchange(bound, request, self._spending, exceeded) if begun is None else _told_again(begun)
        try:
            async with aclosing(sent) as stream:
                async for batch in stream:
                    if exchanged is not None:
                        exchanged.events += batch
                    yield batch
        except LLMError as error:
            if isinstance(error, RequestRefusedError):
                error.hint = _who_set(error.parameter, bound.planned.sources) or error.hint
            if isinstance(error, ContextOverflowError):
                error.hint = _less_context(asked.plan) or error.hint
            if exceeded:
                yield [Note(line) for line in exceeded]
            raise
        if exchanged is not None:
            exchanged.secrets = bound.secrets(request)
            self._to_record = exchanged
        if exceeded:
            yield [Note(line) for line in exceeded]

    async def _bind(self) -> BoundModel:
        """Get the model ready, once, and return it."""
        if self._bound is None:
            self._draft.go_live()
            self._bound = await self._models.get(self.plan, self.planned, self._emit)
            self.model = self._bound.model
        return self._bound

    async def _replay(
        self, asked: NeutralRequest, known: Mapping[str, Any], pace: float
    ) -> AsyncGenerator[list[Event], None]:
        """Yield what is recorded as the answer to a request: at once, or `pace` times as fast as it came."""
        from llm_magic.recordings.answers import events_of

        self._replayed, self.sent = known, asked.messages
        events = events_of(known, self.planned.target.provider.name, self.planned.target.model or self.model)
        notes = [Note(line) for line in self._fell_back(known)] if not asked.added else []
        replayed = Replayed(known.get("seconds") or 0.0, known.get("first_token_seconds"), pace)
        if not pace:
            yield [replayed, *notes, *events]
            return
        from llm_magic.recordings.pace import at_pace

        yield [replayed, *notes]
        left = replayed.seconds - self._draft.seconds
        async with aclosing(at_pace(events, left, replayed.first_token_seconds or 0.0, pace)) as batches:
            async for batch in batches:
                yield batch

    def _fell_back(self, known: Mapping[str, Any]) -> Iterator[str]:
        """Yield what was said of the models that failed before this one, where they are not asked now."""
        lines = known.get("fallback")
        if self.planned is not self.plan.models[0] and not self._fallbacks and isinstance(lines, list):
            yield from map(str, lines)

    async def record(self) -> None:
        """Record the answer that was sent for last, now that it is judged; say where it is not."""
        exchanged, recorder, bound = self._to_record, self._recorder, self._bound
        self._to_record = None
        if exchanged is None or recorder is None or bound is None:
            return
        seconds = self._draft.settle(round(self._draft.seconds, _DIGITS))  # what follows is no part of the answer
        from llm_magic.recordings.answers import is_whole

        reason = is_whole(exchanged.events)
        if reason:
            reason = f"Not recorded: {reason}."
        else:
            answer = self._answer(exchanged, bound, seconds)
            if not self.planned.target.model:
                recorder.keep_model(self.planned.target.provider.name, self.planned.options.base_url, bound.model)
            reason = recorder.keep(exchanged.asked, answer, exchanged.secrets)
        if reason and recorder.is_told:
            await self._emit([Note(reason)])

    def _answer(self, exchanged: Exchanged, bound: BoundModel, seconds: float) -> dict[str, Any]:
        """Return what is recorded of an answer; its seconds are those that are shown from now on."""
        from llm_magic.recordings.answers import answer_of

        draft, events = self._draft, exchanged.events
        if draft.first_token_seconds is not None:
            draft.first_token_seconds = round(draft.first_token_seconds, _DIGITS)
        dialect, nulls = self.structured
        reasoned = any(isinstance(event, ReasoningItem) for event in events)
        told = [event.text for event in events if isinstance(event, Note)]
        answer = answer_of(
            events,
            seconds=seconds,
            first_token_seconds=draft.first_token_seconds,
            structured={"dialect": dialect, "nulls": nulls} if dialect else None,
            sender=bound.sender if reasoned else None,
            notes=[*(bound.notes if exchanged.first else ()), *told],
            fallback=list(self._fallbacks) if exchanged.first else None,
            history_turns=self.history_turns or None,
        )
        url = self.planned.target.provider.origin().url
        for attempt in answer["attempts"]:  # of which the failed ones may name the host
            if "reason" in attempt:
                attempt["reason"] = without_hosts(attempt["reason"], [url])
        return answer

    def recorded_results(self, asked: NeutralRequest) -> RecordedResults | None:
        """Return the results that are recorded of the tools which the answer calls; None where they are not."""
        if self._recorder is None or not self._recorder.tools:
            return None
        from llm_magic.session.recorder import RecordedResults

        return RecordedResults(self._recorder, asked.data(self.model), self.planned.target.provider.secrets())

    def reasoning(self, index: int = 0) -> Reasoning | None:
        """Return what goes back with an answer of this model; None where nothing does."""
        items = self._draft.reasoning_items(index)
        if self._replayed is None:
            return self._bound.reasoning(items) if self._bound is not None else None
        sender = self._replayed.get("sender")
        return Reasoning(sender, items) if items and isinstance(sender, str) and sender else None

    @property
    def structured(self) -> tuple[str | None, bool]:
        """The dialect in which the output type was asked for, and whether absent properties came as null."""
        if self._replayed is not None:
            told = self._replayed.get("structured") or {}
            return told.get("dialect"), bool(told.get("nulls"))
        if self._told is not None:
            return self._told
        structure = self._bound.structure if self._bound is not None else None
        return (None, False) if structure is None else (structure.dialect, structure.nulls)

    @property
    def number_wanted(self) -> int | None:
        """How many answers were asked for; None where one was: a default of several may have been left out."""
        if self._bound is not None:
            return self._bound.planned.options.parameters.get("n")
        wanted = self.planned.options.parameters.get("n")
        return wanted if wanted is None or len(self._draft.indexes) >= wanted else None

    @property
    def history_turns(self) -> int:
        """The turns of the conversation that were sent, or had been when the answer was recorded."""
        if self._replayed is not None:
            recorded = self._replayed.get("history_turns", 0)
            return recorded if isinstance(recorded, int) else 0
        sent = [message for message in self.sent if message.role == "user"]
        return sum(1 for turn in self.plan.turns if turn.messages and turn.messages[0] in sent)


async def _told_again(begun: Begun) -> AsyncGenerator[list[Event], None]:
    """Yield what came of a request that was sent already, and end as it did."""
    yield begun.events
    if begun.error is not None:
        raise begun.error


def _who_set(parameter: str, sources: Mapping[str, str]) -> str:
    """Return the next step after a refusal, where the cell is not the place that set what was refused; else nothing."""
    if where := sources.get(parameter):
        return f"Change or leave out {parameter}, which {where} sets."
    if parameter and parameter not in sources:
        return "--dry-run shows what was sent."  # the provider's own settings may add fields
    return ""


def _less_context(plan: Plan) -> str:
    """Return the next step after too long a prompt that holds executed cells; of another, nothing."""
    count = sum(len(part.text) for part in plan.context if isinstance(part, Text))
    if not count:
        return ""
    return (
        f"The cells of --context are {count:,} characters of it: send fewer of them, or set LLMMagics.context_chars "
        "lower."
    )
