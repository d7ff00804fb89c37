"""The asking itself, on the loop: rounds of tools, re-asks of invalid values and fallbacks, as one stream of events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from llm_magic.events import Note, Restarted, Usage, UsageReport
from llm_magic.messages import Message, assistant, user
from llm_magic.model_names import shown_model
from llm_magic.response import Alternative, Response
from llm_magic.session.exchange import Spending, exchange
from llm_magic.session.plan import BoundModel, Plan, PlannedModel, prepare
from llm_magic.session.tool_runner import RunEvent, ToolRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm_magic.messages import ToolCall
    from llm_magic.output.spec import OutputSpec
    from llm_magic.request import Request

FALLBACK_ON = (ConnectionFailedError, RateLimitedError, ServerFailedError, TimedOutError)
"""Failures after which the next model of an alias is asked, as long as nothing had arrived."""

CUT = {
    "length": ("was cut at the token limit", "Allow more with --max-tokens N, or ask for less."),
    "content_filter": ("was cut by the content filter", "Reword the prompt."),
    "truncated": ("broke off before it was complete", "Ask again."),
}


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

    """

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
    ) -> None:
        self.plan = plan
        self._spending = spending
        self._on_confirm = on_confirm
        self.draft = Draft()
        self.response: Response | None = None
        self._planned = plan.models[0]
        self._bound: BoundModel | None = None
        self._sent: tuple[Message, ...] = ()
        self._answered: list[Message] = []
        self._value: Any = None
        self._values: list[Any] = []
        self._texts: list[str] = []
        self._emit_to: Emit[RunEvent] = _nowhere

    @property
    def model(self) -> str:
        """The model that is asked now: as it was asked for, or the one that a provider alone led to."""
        target, bound = self._planned.target, self._bound
        if not target.model and bound is not None and bound.planned is self._planned:
            return f"{target.provider.name}:{bound.model}"
        return target.asked

    @property
    def asked(self) -> tuple[str, str]:
        """The names of the provider and of the model that are asked now."""
        target, bound = self._planned.target, self._bound
        known = bound.model if bound is not None and bound.planned.target is target else target.model
        return target.provider.name, known or target.asked

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
        for planned in self.plan.models[:-1]:
            try:
                await self._ask(planned)
            except FALLBACK_ON as error:
                if self.draft.first_token_seconds is not None:
                    raise
                why = error.message.rstrip(".")
                note = f"{self._shown} failed ({why}); asking the next model."
                await self._emit([Restarted("fallback"), Note(note)])
            else:
                return
        await self._ask(self.plan.models[-1])

    async def _ask(self, planned: PlannedModel) -> None:
        """Ask one model, in rounds, until there is a valid answer."""
        self._planned = planned
        bound = self._bound = await prepare(self.plan, planned, self._emit)
        request = bound.compose(self.plan)
        options = planned.options
        re_asks, rounds = options.retries_invalid or 0, options.max_tool_rounds or 0
        self._answered = []
        while True:
            self._sent = request.messages
            empty = await self._exchange(bound, request)
            self._check_ended()
            calls = self.draft.tool_calls
            if calls and self.plan.tools:
                if rounds == 0:
                    raise ToolLimitError(
                        "The model still asks for tools after the last round.", "Raise --max-tool-rounds."
                    )
                rounds -= 1
                if note := _passed_over(self.draft):
                    await self._emit([Note(note)])
                answered = self.draft.calling in self.draft.indexes
                said = str(self.draft.buffer(self.draft.calling)) if answered else ""
                reasoning = bound.reasoning(self.draft.reasoning_items(self.draft.calling))
                added = [assistant(said, calls, reasoning), *await self._caller(planned).carry_out(calls)]
                self._answered += added
                await self._emit([Restarted("tools")])
                request = replace(request, messages=(*request.messages, *added), tool_choice=None)
                continue
            try:
                await self._validate(bound, request)
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
                answer = assistant(self._texts[0], reasoning=bound.reasoning(self.draft.reasoning_items()))
                request = _again(request, answer, error)
                await self._emit([Note(f"Not valid: {error.message} Asking again."), Restarted("invalid")])
                continue
            if calls:
                note = f"Not run, for --tools does not offer it: {_listed(calls)}. _llm.tool_calls has it."
                await self._emit([Note(note)])
            response = self.draft.response()
            text = self._said or _instead_of_text(response) or (f"[calls {_listed(calls)}]" if calls else "")
            reasoning = bound.reasoning(self.draft.reasoning_items())
            self._answered.append(assistant(text, reasoning=reasoning, citations=response.citations))
            return

    @property
    def _said(self) -> str:
        """What the conversation holds of the answer: its text; of a typed one the value, without its wrapping."""
        if self.plan.spec is None or len(self._values) != 1:
            return self.draft.text
        from llm_magic.display.answer import said

        return said(self.draft.text, self._values[0])

    async def _exchange(self, bound: BoundModel, request: Request) -> EmptyAnswerError | None:
        """Ask once, and emit what comes; return the error of an empty answer where it may be a value or be asked again.

        Raises
        ------
        LLMError
            What went wrong, an empty answer included where text is asked for.

        """
        self.draft.begin_request()
        try:
            async with aclosing(exchange(bound, request, self._spending)) as stream:
                async for batch in stream:
                    await self._emit(batch)
        except EmptyAnswerError as error:
            if self.plan.spec is None or self.draft.finish_reason == "truncated":  # an answer that may come later
                raise
            return error
        except RequestRefusedError as error:
            error.hint = _who_set(error.parameter, bound.planned.sources) or error.hint
            raise
        return None

    def _check_ended(self) -> None:
        """Raise where an answer has not ended, or the server gave it up: it is half an answer, and so are its calls."""
        for alternative in self.draft.alternatives():
            if alternative.finish_reason == "truncated":
                what, hint = CUT["truncated"]
                raise IncompleteAnswerError(f"The answer of {self._shown} {what}.", f"{hint} _llm.text has what came.")

    async def _validate(self, bound: BoundModel, request: Request) -> None:
        """Set the value from the text, or say why there is none.

        Raises
        ------
        AnswerError
            The answer is cut, refused or invalid.

        """
        spec, alternatives = self.plan.spec, self.draft.alternatives()
        wanted = bound.planned.options.parameters.get("n")
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
                self._values[number] = await self._valid(spec, bound, request, number)
        self._value = self._values if wanted is not None else self._values[0]

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

    async def _valid(self, spec: OutputSpec, bound: BoundModel, request: Request, number: int) -> Any:
        """Return the value of one answer; of several, an invalid one is asked for again by itself."""
        re_asks = bound.planned.options.retries_invalid or 0
        nulls = bound.structure is not None and bound.structure.nulls
        while True:
            try:
                return await asyncio.to_thread(spec.parse, self._texts[number], nulls=nulls)
            except InvalidValueError as error:
                if len(self._texts) == 1 or re_asks == 0:
                    raise
                re_asks -= 1
                await self._emit([Note(f"Answer {number + 1} is not valid: {error.message} Asking again for it.")])
                alone = replace(request, parameters=request.parameters.without("n"))
                reasoning = bound.reasoning(self.draft.reasoning_items(number))
                answer = assistant(self._texts[number], reasoning=reasoning)
                self._texts[number] = await self._aside(bound, _again(alone, answer, error))

    async def _aside(self, bound: BoundModel, request: Request) -> str:
        """Ask without showing the answer, and return its text; what it used is added to the rest."""
        aside, before = Draft(), self.draft.usage_of_request
        with suppress(EmptyAnswerError):  # no value, as any other text that is invalid
            async with aclosing(exchange(bound, request, self._spending)) as stream:
                async for batch in stream:
                    aside.add_all(batch)
        await self._emit([*aside.attempts, *map(Note, aside.notes)])
        if aside.usage is not None:
            known = [cost for cost in (aside.cost, self.draft.cost_of_request) if cost is not None]
            await self._emit([UsageReport(aside.usage + (before or Usage()), sum(known) if known else None)])
        self._check_whole(None, aside.alternatives()[0])
        return aside.text

    def _caller(self, planned: PlannedModel) -> ToolRunner:
        confirm = bool(planned.options.confirm)
        return ToolRunner(self.plan.tools, self.plan.tool_timeout, confirm, self._emit, self._on_confirm)

    def _history_turns(self) -> int:
        """Count the turns that were sent: those of the user's messages that are not this cell's own."""
        sent = [message for message in self._sent if message.role == "user"]
        return sum(1 for turn in self.plan.turns if turn.messages and turn.messages[0] in sent)

    def so_far(self, **known: Any) -> Response:
        """Return the response as it stands."""
        bound, target = self._bound, self._planned.target
        response = self.draft.response(
            value=self._value,
            model=target.asked,
            provider=target.provider.name,
            messages=self._sent,
            structured=bound.structure.dialect if bound is not None and bound.structure is not None else None,
            history_turns=self._history_turns() if self.plan.turns else 0,
            **known,
        )
        if len(response.alternatives) == len(self._values) > 1:
            response.alternatives = tuple(
                replace(alternative, text=text, value=value)
                for alternative, text, value in zip(response.alternatives, self._texts, self._values, strict=True)
            )
            response.text = self._texts[0]
        return response


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


def _again(request: Request, answer: Message, error: InvalidValueError) -> Request:
    """Ask again, showing the model its answer and what is wrong with it."""
    feedback = f"That answer is not valid: {error.message} Answer again, with the valid value only."
    return replace(request, messages=(*request.messages, answer, user(feedback)))
