"""The asking itself, on the loop: rounds of tools, re-asks of invalid values and fallbacks, as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import (
    ConnectionFailedError,
    IncompleteAnswerError,
    InvalidValueError,
    LLMError,
    RateLimitedError,
    RefusedError,
    ServerFailedError,
    TimedOutError,
    ToolLimitError,
)
from llm_magic.events import Event, Note, Progress, Restarted, TextDelta, ToolCallDelta, ToolResult
from llm_magic.loop import Emit
from llm_magic.messages import Message, ToolCall, assistant, tool, user
from llm_magic.response import Draft, Response
from llm_magic.session.plan import Choice, Plan, compose
from llm_magic.wire import exchange as wire
from llm_magic.wire.exchange import Call, Preview

if TYPE_CHECKING:
    from llm_magic.output.dialects import Structure
    from llm_magic.profile import Profile
    from llm_magic.providers.base import Provider
    from llm_magic.request import Request

FALLBACK_ON = (ConnectionFailedError, RateLimitedError, ServerFailedError, TimedOutError)
"""Failures after which the next model of an alias is asked, as long as nothing had arrived."""

CUT = {
    "length": ("was cut at the token limit", "Raise --max-tokens, or ask for less."),
    "content_filter": ("was cut by the content filter", "Reword the prompt."),
    "truncated": ("ended before it was complete: the stream broke off", "Run the cell again."),
}


@dataclass(frozen=True, slots=True)
class Question:
    """Something that only the user can answer, in the cell's thread: may this call run? `reply` takes the answer."""

    call: ToolCall
    reply: Callable[[bool], None]


Happening = Event | Question


@dataclass(slots=True)
class Asked:
    """One model being asked: all that its rounds share."""

    choice: Choice
    provider: Provider
    model: str
    profile: Profile
    structure: Structure | None


class Run:
    """One cell at work: await `answer`, then `response` is there, whatever the end was.

    Parameters
    ----------
    plan
        What to ask.

    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.draft = Draft()
        self.response: Response | None = None
        self._choice = plan.choices[0]
        self._asked: Asked | None = None
        self._sent: tuple[Message, ...] = ()
        self._answered: list[Message] = []
        self._value: Any = None
        self._values: list[Any] = []
        self.stopped = False
        self.stop: Callable[[], object] = self._stop_early
        """Ends the run from any thread: the request is closed at the server."""

    def _stop_early(self) -> None:
        self.stopped = True

    @property
    def transcript(self) -> tuple[Message, ...]:
        """The messages that this cell adds to its conversation: the prompt, calls and results, the answer."""
        return (user(*self.plan.parts), *self._answered)

    async def answer(self, emit: Emit[Happening]) -> Response:
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
        except LLMError as error:
            self.response = error.response = self.so_far()
            raise
        return self.response

    async def _emit(self, batch: list[Any]) -> None:
        for event in batch:
            if type(event) is not Question:
                self.draft.add(event)
        await self._emit_to(batch)

    async def _with_fallbacks(self) -> None:
        for choice in self.plan.choices[:-1]:
            try:
                await self._ask(choice)
            except FALLBACK_ON as error:
                if self.draft.first_token_seconds is not None:
                    raise
                note = f"{choice.target.asked} failed ({error.message}); asking the next model."
                await self._emit([Restarted("fallback"), Note(note)])
            else:
                return
        await self._ask(self.plan.choices[-1])

    async def _ask(self, choice: Choice) -> None:
        """Ask one model, in rounds, until there is a valid answer."""
        self._choice = choice
        asked = self._asked = await self._prepare(choice)
        request = compose(self.plan, choice, asked.model, asked.profile, asked.structure)
        options = choice.options
        re_asks, rounds = options.retries_invalid or 0, options.max_tool_rounds or 0
        self._answered = []
        while True:
            self._sent = request.messages
            await self._exchange(asked, request)
            calls = self.draft.tool_calls
            if calls and self.plan.tools:
                if rounds == 0:
                    raise ToolLimitError(
                        "The model still asks for tools after the last round.", "Raise --max-tool-rounds."
                    )
                rounds -= 1
                added = await self._call_tools(calls)
                self._answered += added
                await self._emit([Restarted("tools")])
                request = replace(request, messages=(*request.messages, *added), tool_choice=None)
                continue
            try:
                await self._validate(asked)
            except InvalidValueError as error:
                if re_asks == 0:
                    raise
                re_asks -= 1
                await self._emit([Note(f"Not valid: {error.message} Asking again."), Restarted("invalid")])
                request = _again(request, self._invalid_text, error)
                continue
            self._answered.append(assistant(self.draft.text))
            return

    async def _prepare(self, choice: Choice) -> Asked:
        """Get the provider ready and learn what the model can do."""
        target, provider = choice.target, choice.target.provider
        loop = asyncio.get_running_loop()

        def report(text: str) -> None:  # from any thread
            asyncio.run_coroutine_threadsafe(self._emit([Progress(text)]), loop)

        await provider.prepare(report)
        model = target.model or await provider.first_model()
        asked = _asked(self.plan, choice, model)
        if asked.structure is not None:
            await self._emit([Note(note) for note in asked.structure.notes])
        return asked

    async def _exchange(self, asked: Asked, request: Request) -> None:
        """Send one request and pass on what comes."""
        await asked.provider.check(request, asked.profile)
        call = await _call(asked, request)
        forced = asked.structure is not None and asked.structure.dialect == "tool_call"
        async with aclosing(wire.exchange(call)) as stream:
            async for batch in stream:
                await self._emit([_as_text(event) for event in batch] if forced else batch)

    async def _validate(self, asked: Asked) -> None:
        """Set the value from the text, or say why there is none.

        Raises
        ------
        AnswerError
            The answer is cut, refused or invalid.

        """
        spec, draft = self.plan.spec, self.draft
        self._values = [alternative.text for alternative in draft.alternatives()] if spec is None else []
        for number, alternative in enumerate(draft.alternatives()):
            if spec is None:
                break
            which = f"Answer {number + 1}" if len(draft.indexes) > 1 else "The answer"
            if draft.refusal or alternative.finish_reason == "refusal":
                said = f": {draft.refusal}" if draft.refusal else ""
                raise RefusedError(f"{asked.choice.target.asked} refused to answer{said}.", "Reword the prompt.")
            if alternative.finish_reason in CUT:
                what, hint = CUT[alternative.finish_reason]
                raise IncompleteAnswerError(
                    f"{which} {what}, so it is no {spec.title}.", f"{hint} _llm.text has what came."
                )
            self._invalid_text = alternative.text
            self._values.append(await asyncio.to_thread(spec.parse, alternative.text))
        self._value = self._values if asked.choice.options.n is not None else self._values[0]

    async def _call_tools(self, calls: tuple[ToolCall, ...]) -> list[Message]:
        """Carry out the calls of one turn side by side, and return the messages that they add."""

        async def one(call: ToolCall) -> Message:
            result = await self._call_tool(call)
            await self._emit([result])
            return tool(call, result.result)

        results = await asyncio.gather(*(one(call) for call in calls))
        return [assistant(self.draft.text, calls), *results]

    async def _call_tool(self, call: ToolCall) -> ToolResult:
        bound = self.plan.tools.get(call.name)
        if bound is None:
            known = ", ".join(self.plan.tools)
            return ToolResult(
                call.id, call.name, call.arguments, f"There is no tool {call.name}; there are {known}.", True
            )
        if self._choice.options.confirm and not await self._confirmed(call):
            return ToolResult(call.id, call.name, call.arguments, "The user declined this call.", failed=True)
        from llm_magic import tools

        return await tools.run(bound, call, timeout=self.plan.tool_timeout)

    async def _confirmed(self, call: ToolCall) -> bool:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def reply(allowed: bool) -> None:
            loop.call_soon_threadsafe(answer.set_result, allowed)

        await self._emit([Question(call, reply)])
        return await answer

    def _history_turns(self) -> int:
        """Count the turns that were sent: those of the user's messages that are not this cell's own."""
        sent = [message for message in self._sent if message.role == "user"]
        return sum(1 for turn in self.plan.turns if turn.messages and turn.messages[0] in sent)

    def so_far(self, **known: Any) -> Response:
        """Return the response as it stands."""
        asked, target = self._asked, self._choice.target
        response = self.draft.response(
            value=self._value,
            model=target.asked,
            provider=target.provider.name,
            messages=self._sent,
            structured=asked.structure.dialect if asked is not None and asked.structure is not None else None,
            history_turns=self._history_turns(),
            **known,
        )
        if len(response.alternatives) == len(self._values) > 1:
            response.alternatives = tuple(
                replace(alternative, value=value)
                for alternative, value in zip(response.alternatives, self._values, strict=True)
            )
        if response.cost is None and response.usage is not None and asked is not None:
            price = target.provider.price(asked.model)
            response.cost = price.of(response.usage) if price is not None else None
        return response


async def preview(plan: Plan) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started or listed."""
    choice = plan.choices[0]
    target = choice.target
    listed = target.provider.cached_models or ()
    asked = _asked(plan, choice, target.model or (listed[0].id if listed else "(the first model listed)"))
    request = compose(plan, choice, asked.model, asked.profile, asked.structure)
    return await wire.preview(await _call(asked, request))


def _asked(plan: Plan, choice: Choice, model: str) -> Asked:
    """Put together what is known of one model."""
    provider = choice.target.provider
    profile = provider.profile(model)
    if choice.options.api is not None:
        profile = replace(profile, api=choice.options.api)
    structure = None
    if plan.spec is not None:
        from llm_magic.output.dialects import apply

        structure = apply(plan.spec, profile)
    return Asked(choice, provider, model, profile, structure)


async def _call(asked: Asked, request: Request) -> Call:
    """Address a request."""
    options = asked.choice.options
    return Call(
        client=asked.provider.client(),
        origin=asked.provider.origin(asked.model),
        profile=asked.profile,
        request=await asked.provider.adapt(request, asked.profile),
        timeout=options.timeout,
        max_retries=options.retries,
    )


def _as_text(event: Event) -> Event:
    """Turn the arguments of a forced tool call, which are the answer, into its text."""
    return TextDelta(event.arguments, event.index) if isinstance(event, ToolCallDelta) else event


def _again(request: Request, text: str, error: InvalidValueError) -> Request:
    """Ask again, showing the model its answer and what is wrong with it."""
    complaint = f"That answer is not valid: {error.message} Answer again, with the valid value only."
    return replace(request, messages=(*request.messages, assistant(text), user(complaint)))
