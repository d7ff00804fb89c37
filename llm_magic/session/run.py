"""The asking itself, on the loop: rounds of tools, re-asks of invalid values and fallbacks, as one stream of events.

Each request is answered from its recording, or sent and then recorded, as the run's `Recorder` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from llm_magic.background_loop import Emit
from llm_magic.draft import Draft
from llm_magic.errors import (
    ConnectionFailedError,
    EmptyAnswerError,
    IncompleteAnswerError,
    InvalidValueError,
    LLMError,
    RateLimitedError,
    RefusedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
    ToolLimitError,
)
from llm_magic.events import Event, Note, ReasoningItem, Replayed, Restarted, Usage, UsageReport
from llm_magic.messages import Message, Reasoning, assistant, user
from llm_magic.model_names import shown_model
from llm_magic.response import Alternative, Response
from llm_magic.session.asked import Asked, feedback
from llm_magic.session.exchange import Spending, exchange
from llm_magic.session.plan import BoundModel, Plan, PlannedModel, prepare
from llm_magic.session.recorder import RecordedResults
from llm_magic.session.tool_runner import RunEvent, ToolRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm_magic.messages import ToolCall
    from llm_magic.output.spec import OutputSpec
    from llm_magic.session.recorder import Recorder

FALLBACK_ON = (ConnectionFailedError, RateLimitedError, ServerFailedError, TimedOutError)
"""Failures after which the next model of an alias is asked, as long as nothing had arrived."""

CUT = {
    "length": ("was cut at the token limit", "Allow more with --max-tokens N, or ask for less."),
    "content_filter": ("was cut by the content filter", "Reword the prompt."),
    "truncated": ("broke off before it was complete", "Ask again."),
}


Recorded: TypeAlias = "Mapping[str, Any]"
"""An answer as a recording holds it."""


_DIGITS = 6
"""Decimals of recorded seconds; the answer that is recorded shows the same number."""


@dataclass(slots=True)
class Exchanged:
    """One request of a run that was sent, and what came: what may be recorded of it."""

    asked: Mapping[str, Any]
    first: bool
    """Whether it is the first one that this model was asked, not one of a later round."""
    events: list[Event] = field(default_factory=list)
    secrets: tuple[str, ...] = ()


class Run:
    """One cell at work: await `answer`, then `response` is there, whatever the end was.

    Parameters
    ----------
    plan
        What to ask.
    spending
        Allows each request, and takes what it used.
    on_confirm
        Says whether a call may be carried out, where that is asked; None: a `Question` is emitted.
    recorder
        Answers from recordings, and records; None where nothing is recorded.

    """

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.plan = plan
        self._spending = spending
        self._on_confirm = on_confirm
        self._recorder = recorder
        self.draft = Draft()
        self.draft.replaying = recorder is not None and recorder.replays and not recorder.pace
        self.response: Response | None = None
        self._planned = plan.models[0]
        self._bound: BoundModel | None = None
        self._model = ""  # that which a provider alone led to
        self._replayed: Recorded | None = None  # the answer that came last, where it came from a recording
        self._to_record: Exchanged | None = None  # the one that was sent last, until it is judged
        self._about_fallback: list[str] = []
        self._sent: tuple[Message, ...] = ()
        self._answered: list[Message] = []
        self._value: Any = None
        self._values: list[Any] = []
        self._texts: list[str] = []
        self._emit_to: Emit[RunEvent] = _nowhere

    @property
    def model(self) -> str:
        """The model that is asked now: as it was asked for, or the one that a provider alone led to."""
        target = self._planned.target
        return target.asked if target.model or not self._model else f"{target.provider.name}:{self._model}"

    @property
    def asked(self) -> tuple[str, str]:
        """The names of the provider and of the model that are asked now."""
        target = self._planned.target
        return target.provider.name, target.model or self._model or target.asked

    @property
    def _shown(self) -> str:
        """The model that is asked now, as it is shown."""
        return shown_model(self.model)

    @property
    def transcript(self) -> tuple[Message, ...]:
        """The messages that this cell adds to its conversation: the prompt, calls and results, the answer."""
        return (*self.plan.before, user(*self.plan.parts), *self._answered)

    async def answer(self, emit: Emit[RunEvent]) -> Response:
        """Ask, and emit what happens.

        Raises
        ------
        LLMError
            With `response` holding what had arrived.

        """
        self._emit_to = emit
        try:
            for note in self.plan.notes:
                await self._emit([Note(note)])
            await self._with_fallbacks()
            self.response = self.so_far()
        except asyncio.CancelledError:
            self.response = self.so_far(finish_reason="interrupted")
            raise
        except Exception as error:
            self.response = self.so_far()
            if isinstance(error, LLMError):
                error.response = self.response
            raise
        return self.response

    async def _emit(self, batch: list[Any]) -> None:
        self.draft.add_all(batch)
        await self._emit_to(batch)

    async def _with_fallbacks(self) -> None:
        models = self.plan.models
        first = await asyncio.to_thread(self._first_recorded) if self._recorder is not None and len(models) > 1 else 0
        for planned in models[first:-1]:
            try:
                await self._ask(planned)
            except FALLBACK_ON as error:
                if self.draft.first_token_seconds is not None:
                    raise
                why = error.message.rstrip(".")
                note = f"{self._shown} failed ({why}); asking the next model."
                self._about_fallback.append(note)
                await self._emit([Restarted("fallback"), Note(note)])
            else:
                return
        await self._ask(models[-1])

    def _first_recorded(self) -> int:
        """Return the number of the first model whose answer is recorded, else 0: those before it failed then."""
        for number, planned in enumerate(self.plan.models):
            asked = Asked(self.plan, planned).data(self._recorded_model(planned))
            if self._recorder is not None and self._recorder.has(asked):
                return number
        return 0

    def _recorded_model(self, planned: PlannedModel) -> str:
        """Return the model that a provider alone led to when it was recorded; empty where that is not known."""
        if planned.target.model or self._recorder is None:
            return ""
        return self._recorder.model(planned.target.provider.name, planned.options.base_url)

    async def _ask(self, planned: PlannedModel) -> None:
        """Ask one model, in rounds, until there is a valid answer."""
        self._planned, self._bound, self._replayed = planned, None, None
        self._model = self._recorded_model(planned)
        asked, options = Asked(self.plan, planned), planned.options
        re_asks, rounds = options.retries_invalid or 0, options.max_tool_rounds or 0
        self._answered = []
        while True:
            empty = await self._exchange(asked)
            self._check_ended()
            calls = self.draft.tool_calls
            if calls and self.plan.tools:
                if rounds == 0:
                    raise ToolLimitError(
                        "The model still asks for tools after the last round.", "Raise --max-tool-rounds."
                    )
                rounds -= 1
                await self._record()
                if note := _passed_over(self.draft):
                    await self._emit([Note(note)])
                answered = self.draft.calling in self.draft.indexes
                said = str(self.draft.buffer(self.draft.calling)) if answered else ""
                reasoning = self._reasoning(self.draft.calling)
                added = (assistant(said, calls, reasoning), *await self._caller(asked).carry_out(calls))
                self._answered += added
                await self._emit([Restarted("tools")])
                asked = replace(asked, added=(*asked.added, *added))
                continue
            try:
                await self._validate(asked)
            except InvalidValueError as error:
                wanted = self.plan.spec.title if self.plan.spec is not None else "text"
                if empty is not None:
                    error.message = f"{empty.message} That is no {wanted}."
                elif calls and not self._texts[0].strip():
                    error.message = f"The answer is no {wanted}, it calls {_listed(calls)}."
                if re_asks == 0 or len(self._texts) > 1:
                    error.hint = error.hint or "Raise --retries-invalid, or reword the prompt. _llm.text has what came."
                    raise
                re_asks -= 1
                await self._record()
                asked = _again(asked, assistant(self._texts[0], reasoning=self._reasoning()), error)
                await self._emit([Note(f"Not valid: {error.message} Asking again."), Restarted("invalid")])
                continue
            await self._record()
            if calls:
                note = f"Not run, for --tools does not offer it: {_listed(calls)}. _llm.tool_calls has it."
                await self._emit([Note(note)])
            response = self.draft.response()
            text = self._said or _instead_of_text(response) or (f"[calls {_listed(calls)}]" if calls else "")
            self._answered.append(assistant(text, reasoning=self._reasoning(), citations=response.citations))
            return

    async def _bind(self) -> BoundModel:
        """Get the model ready that is asked now, once, and return it."""
        if self._bound is None:
            self.draft.go_live()
            self._bound = await prepare(self.plan, self._planned, self._emit)
            self._model = self._bound.model
        return self._bound

    def _reasoning(self, index: int = 0) -> Reasoning | None:
        """Return what goes back with an answer of the model that is asked now."""
        items = self.draft.reasoning_items(index)
        if self._replayed is None:
            return self._bound.reasoning(items) if self._bound is not None else None
        sender = self._replayed.get("sender")
        return Reasoning(sender, items) if items and isinstance(sender, str) and sender else None

    @property
    def _structured(self) -> tuple[str | None, bool]:
        """The dialect in which the output type was asked for, and whether absent properties came as null."""
        if self._replayed is not None:
            told = self._replayed.get("structured") or {}
            return told.get("dialect"), bool(told.get("nulls"))
        structure = self._bound.structure if self._bound is not None else None
        return (None, False) if structure is None else (structure.dialect, structure.nulls)

    @property
    def _said(self) -> str:
        """What the conversation holds of the answer: its text; of a typed one the value, without its wrapping."""
        if self.plan.spec is None or len(self._values) != 1:
            return self.draft.text
        from llm_magic.display.answer import said

        return said(self.draft.text, self._values[0])

    async def _exchange(self, asked: Asked) -> EmptyAnswerError | None:
        """Ask once, and emit what comes; return the error of an empty answer where it may be a value or be asked again.

        Raises
        ------
        LLMError
            What went wrong, an empty answer included where text is asked for.

        """
        try:
            async with aclosing(self._answer_to(asked)) as stream:
                async for batch in stream:
                    await self._emit(batch)
        except EmptyAnswerError as error:
            if self.plan.spec is None or self.draft.finish_reason == "truncated":  # an answer that may come later
                raise
            return error
        return None

    async def _answer_to(self, asked: Asked) -> AsyncGenerator[list[Event], None]:
        """Yield what answers a request: its recording, else what comes when it is sent."""
        self._to_record, recorder, exchanged = None, self._recorder, None
        if recorder is not None:
            if not (asked.planned.target.model or self._model or recorder.mode == "only"):
                await self._bind()
            exchanged = Exchanged(asked.data(self._model), not asked.added)
            known = await asyncio.to_thread(recorder.known, exchanged.asked)
            if known is not None:
                async with aclosing(self._replay(asked, known, recorder.pace)) as stream:
                    async for batch in stream:
                        yield batch
                return
        self._replayed = None
        bound = await self._bind()
        request = asked.request(bound)
        self._sent = request.messages
        self.draft.begin_request()
        exceeded: list[str] = []
        try:
            async with aclosing(exchange(bound, request, self._spending, exceeded)) as stream:
                async for batch in stream:
                    if exchanged is not None:
                        exchanged.events += batch
                    yield batch
        except RequestRefusedError as error:
            error.hint = _who_set(error.parameter, bound.planned.sources) or error.hint
            raise
        if exchanged is not None:
            exchanged.secrets = bound.secrets(request)
            self._to_record = exchanged
        if exceeded:
            yield [Note(line) for line in exceeded]

    async def _replay(self, asked: Asked, known: Recorded, pace: float) -> AsyncGenerator[list[Event], None]:
        """Yield what is recorded as the answer to a request: at once, or `pace` times as fast as it came."""
        from llm_magic.recordings.answers import events_of

        self._replayed, self._sent = known, asked.messages
        events = events_of(known, asked.planned.target.provider.name, asked.planned.target.model or self._model)
        fell_back = self._planned is not self.plan.models[0] and not self._about_fallback and not asked.added
        notes = [Note(str(note)) for note in known.get("fallback") or ()] if fell_back else []
        replayed = Replayed(known.get("seconds") or 0.0, known.get("first_token_seconds"), pace)
        if not pace:
            yield [replayed, *notes, *events]
            return
        from llm_magic.recordings.pace import at_pace

        yield [replayed, *notes]
        left = replayed.seconds - self.draft.seconds
        async with aclosing(at_pace(events, left, replayed.first_token_seconds or 0.0, pace)) as batches:
            async for batch in batches:
                yield batch

    async def _record(self) -> None:
        """Record the answer that was sent for last, now that it is judged; say where it is not."""
        exchanged, recorder, self._to_record = self._to_record, self._recorder, None
        if exchanged is None or recorder is None or self._bound is None:
            return
        from llm_magic.recordings.answers import answer_of, is_whole

        reason = is_whole(exchanged.events)
        if reason:
            reason = f"Not recorded: {reason}."
        else:
            dialect, nulls = self._structured
            draft, said = self.draft, any(isinstance(event, ReasoningItem) for event in exchanged.events)
            if draft.first_token_seconds is not None:
                draft.first_token_seconds = round(draft.first_token_seconds, _DIGITS)
            answer = answer_of(
                exchanged.events,
                seconds=draft.settle(round(draft.seconds, _DIGITS)),
                first_token_seconds=draft.first_token_seconds,
                structured={"dialect": dialect, "nulls": nulls} if dialect else None,
                sender=self._bound.sender if said else None,
                notes=[
                    *(self._bound.notes if exchanged.first else ()),
                    *(event.text for event in exchanged.events if isinstance(event, Note)),
                ],
                fallback=self._about_fallback if exchanged.first else None,
                history_turns=self._history_turns() if self.plan.turns else None,
            )
            if not self._planned.target.model:
                name, base_url = self._planned.target.provider.name, self._planned.options.base_url
                recorder.keep_model(name, base_url, self._bound.model)
            reason = await asyncio.to_thread(recorder.keep, exchanged.asked, answer, exchanged.secrets)
        if reason:
            await self._emit([Note(reason)])

    def _check_ended(self) -> None:
        """Raise where an answer has not ended, or the server gave it up: it is half an answer, and so are its calls."""
        for alternative in self.draft.alternatives():
            if alternative.finish_reason == "truncated":
                what, hint = CUT["truncated"]
                raise IncompleteAnswerError(f"The answer of {self._shown} {what}.", f"{hint} _llm.text has what came.")

    async def _validate(self, asked: Asked) -> None:
        """Set the value from the text, or say why there is none.

        Raises
        ------
        AnswerError
            The answer is cut, refused or invalid.

        """
        spec, alternatives = self.plan.spec, self.draft.alternatives()
        wanted = self._number_wanted(asked)
        if wanted is not None and len(alternatives) < wanted:
            raise IncompleteAnswerError(
                f"{self._shown} gave {len(alternatives)} of {wanted} answers: it does not know --n.",
                "Ask in a loop instead. _llm has what came.",
            )
        self._texts = [alternative.text for alternative in alternatives]
        self._values = [*self._texts]
        if spec is not None:
            for number, alternative in enumerate(alternatives):
                self._check_whole(number if len(alternatives) > 1 else None, alternative)
                self._values[number] = await self._valid(spec, asked, number)
        self._value = self._values if wanted is not None else self._values[0]

    def _number_wanted(self, asked: Asked) -> int | None:
        """Return how many answers were asked for; None where one was: a default of several may have been left out."""
        if self._bound is not None:
            return self._bound.planned.options.parameters.get("n")
        wanted = asked.planned.options.parameters.get("n")
        return wanted if wanted is None or len(self.draft.indexes) >= wanted else None

    def _check_whole(self, number: int | None, alternative: Alternative) -> None:
        """Raise where an answer is cut or refused, and can be no value."""
        which = "The answer" if number is None else f"Answer {number + 1}"
        if self.draft.refusal or alternative.finish_reason == "refusal":
            said = f": {self.draft.refusal}" if self.draft.refusal else ""
            raise RefusedError(f"{self._shown} refused to answer{said}.", "Reword the prompt.")
        if alternative.finish_reason in CUT:
            what, hint = CUT[alternative.finish_reason]
            wanted = self.plan.spec.title if self.plan.spec is not None else "text"
            raise IncompleteAnswerError(f"{which} {what}, so it is no {wanted}.", f"{hint} _llm.text has what came.")

    async def _valid(self, spec: OutputSpec, asked: Asked, number: int) -> Any:
        """Return the value of one answer; of several, an invalid one is asked for again by itself."""
        re_asks = asked.planned.options.retries_invalid or 0
        while True:
            try:
                return await asyncio.to_thread(spec.parse, self._texts[number], nulls=self._structured[1])
            except InvalidValueError as error:
                if len(self._texts) == 1 or re_asks == 0:
                    raise
                re_asks -= 1
                await self._emit([Note(f"Answer {number + 1} is not valid: {error.message} Asking again for it.")])
                await self._record()
                answer = assistant(self._texts[number], reasoning=self._reasoning(number))
                self._texts[number] = await self._aside(_again(replace(asked, alone=True), answer, error))

    async def _aside(self, asked: Asked) -> str:
        """Ask without showing the answer, and return its text; what it used is added to the rest."""
        aside, before = Draft(), self.draft.usage_of_request
        with suppress(EmptyAnswerError):  # no value, as any other text that is invalid
            async with aclosing(self._answer_to(asked)) as stream:
                async for batch in stream:
                    aside.add_all(batch)
                    await self._emit([event for event in batch if isinstance(event, Replayed)])
        await self._emit([*aside.attempts, *map(Note, aside.notes)])
        if aside.usage is not None:
            known = [cost for cost in (aside.cost, self.draft.cost_of_request) if cost is not None]
            await self._emit([UsageReport(aside.usage + (before or Usage()), sum(known) if known else None)])
        self._check_whole(None, aside.alternatives()[0])
        return aside.text

    def _caller(self, asked: Asked) -> ToolRunner:
        confirm = bool(asked.planned.options.confirm)
        results = None
        if self._recorder is not None and self._recorder.tools:
            secrets = asked.planned.target.provider.secrets()
            results = RecordedResults(self._recorder, asked.data(self._model), secrets)
        return ToolRunner(self.plan.tools, self.plan.tool_timeout, confirm, self._emit, self._on_confirm, results)

    def _history_turns(self) -> int:
        """Count the turns that were sent: those of the user's messages that are not this cell's own."""
        sent = [message for message in self._sent if message.role == "user"]
        return sum(1 for turn in self.plan.turns if turn.messages and turn.messages[0] in sent)

    def so_far(self, **known: Any) -> Response:
        """Return the response as it stands."""
        target = self._planned.target
        response = self.draft.response(
            value=self._value,
            model=target.asked,
            provider=target.provider.name,
            messages=self._sent,
            structured=self._structured[0],
            history_turns=self._turns_sent(),
            **known,
        )
        if len(response.alternatives) == len(self._values) > 1:
            response.alternatives = tuple(
                replace(alternative, text=text, value=value)
                for alternative, text, value in zip(response.alternatives, self._texts, self._values, strict=True)
            )
            response.text = self._texts[0]
        return response

    def _turns_sent(self) -> int:
        """Return how many turns of the conversation were sent, or had been when the answer was recorded."""
        recorded = None if self._replayed is None else self._replayed.get("history_turns", 0)
        return recorded if isinstance(recorded, int) else self._history_turns() if self.plan.turns else 0


async def _nowhere(_batch: list[RunEvent]) -> None:
    """Let events pass by."""


def _instead_of_text(response: Response) -> str:
    """Return what a conversation holds of an answer without text: that it was an image, or an item of some type."""
    kinds = dict.fromkeys(str(item.get("type") or "item") for item in response.items)
    instead = ["image"] * bool(response.images) + [kind for kind in kinds if kind != "image_generation_call"]
    return f"[{', '.join(instead)[:200]}]" if instead else ""


def _listed(calls: tuple[ToolCall, ...], longest: int = 200) -> str:
    """Return calls in one line."""
    line = ", ".join(f"{call.name}({' '.join(call.arguments.split())})" for call in calls)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _passed_over(draft: Draft) -> str:
    """Return a line on what other answers than the one that a round goes on with have called; empty for nothing."""
    others = [number for number, each in enumerate(draft.alternatives()) if each.tool_calls and number != draft.calling]
    if not others:
        return ""
    return f"{len(others) + 1} answers call tools: the calls of answer {draft.calling + 1} are run and go on."


def _who_set(parameter: str, sources: Mapping[str, str]) -> str:
    """Return the next step after a refusal, where the cell is not the place that set what was refused; else nothing."""
    if where := sources.get(parameter):
        return f"Change or leave out {parameter}, which {where} sets."
    if parameter and parameter not in sources:
        return "--dry-run shows what was sent."  # the provider's own settings may add fields
    return ""


def _again(asked: Asked, answer: Message, error: InvalidValueError) -> Asked:
    """Ask again, showing the model its answer and what is wrong with it."""
    return replace(asked, added=(*asked.added, answer, feedback(error.message)))
