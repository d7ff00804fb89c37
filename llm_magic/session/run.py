"""The asking itself, on the loop: rounds of tools, re-asks of invalid values and fallbacks, as one stream of events.

Each request is answered from its recording, or sent and then recorded, as the run's `Recorder` says.
"""

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
from llm_magic.events import Event, Note, Replayed, Restarted, Usage, UsageReport
from llm_magic.messages import Message, assistant, user
from llm_magic.model_names import shown_model
from llm_magic.response import Alternative, Response
from llm_magic.session.model_exchanges import Begun, BoundModels, ModelExchanges
from llm_magic.session.neutral_request import NeutralRequest, feedback, in_words
from llm_magic.session.plan import Plan, PlannedModel
from llm_magic.session.spending import Spending
from llm_magic.session.tool_runner import RunEvent, ToolRunner
from llm_magic.urls import without_hosts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_magic.mcp.servers import MCPServers
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
    models
        The models that are ready, where runs share them.
    begun
        The first request of the first model, where it was sent already.
    servers
        Have the tools of MCP servers that the plan names.

    """

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        recorder: Recorder | None = None,
        *,
        models: BoundModels | None = None,
        begun: Begun | None = None,
        servers: MCPServers | None = None,
    ) -> None:
        self.plan = plan
        self._servers = servers
        self._unlisted: Plan | None = None  # the plan before the tools of MCP servers were put to it
        self._spending = spending
        self._on_confirm = on_confirm
        self._recorder = recorder
        self._models = models or BoundModels()
        self._begun = begun
        self.draft = Draft()
        self.draft.replaying = recorder is not None and recorder.replays and not recorder.pace
        self.response: Response | None = None
        self._emit_to: Emit[RunEvent] = _nowhere
        self._exchanges = self._exchanges_with(plan.models[0])
        self._answered: list[Message] = []
        self._value: Any = None
        self._values: list[Any] = []
        self._texts: list[str] = []

    @property
    def model(self) -> str:
        """The model that is asked now: as it was asked for, or the one that a provider alone led to."""
        target, model = self._exchanges.planned.target, self._exchanges.model
        return target.asked if target.model or not model else f"{target.provider.name}:{model}"

    @property
    def asked(self) -> tuple[str, str]:
        """The names of the provider and of the model that are asked now."""
        target = self._exchanges.planned.target
        return target.provider.name, target.model or self._exchanges.model or target.asked

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
            if self.plan.mcp:
                await self._find_server_tools()
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

    def _exchanges_with(self, planned: PlannedModel, fallbacks: tuple[str, ...] = ()) -> ModelExchanges:
        return ModelExchanges(
            self.plan,
            planned,
            draft=self.draft,
            spending=self._spending,
            recorder=self._recorder,
            emit=self._emit,
            fallbacks=fallbacks,
            models=self._models,
            begun=self._begun if planned is self.plan.models[0] else None,
        )

    async def _find_server_tools(self) -> None:
        """Put the tools of MCP servers to those of the plan."""
        from llm_magic.session.server_tools import with_server_tools

        self._unlisted = self.plan
        self.plan = await with_server_tools(self.plan, self._servers, self._emit, self._recorder)
        self._exchanges = self._exchanges_with(self.plan.models[0])

    async def _list_again(self, asked: NeutralRequest) -> NeutralRequest:
        """Return the request with the tools that MCP servers have now, where calls may have changed them."""
        from llm_magic.recordings.recording import key_of
        from llm_magic.session.server_tools import ListedAgain, servers_named, with_server_tools

        unlisted, servers, live = self._unlisted, self._servers, not self._exchanges.is_replayed
        if unlisted is None or servers is None or (live and not servers.may_have_changed(servers_named(unlisted.mcp))):
            return asked
        after = "" if self._recorder is None else key_of(asked.data(self._exchanges.model))
        changed = ListedAgain(self.plan.tools, after, live)
        try:
            plan = await with_server_tools(unlisted, servers, self._emit, self._recorder, changed=changed)
        except LLMError as error:  # the tools before are there, and what they give may say more
            await self._emit([Note(f"The tools are not listed anew: {error.message}")])
            return asked
        self.plan = plan
        self._exchanges.offer(plan)
        return replace(asked, plan=plan)

    async def _with_fallbacks(self) -> None:
        models = self.plan.models
        several = len(models) > 1 and self._recorder is not None
        first = await asyncio.to_thread(self._first_recorded) if several else 0
        notes: list[str] = []
        for planned in models[first:-1]:
            try:
                await self._ask(planned, tuple(notes))
            except FALLBACK_ON as error:
                if self.draft.first_token_seconds is not None:
                    raise
                why = without_hosts(error.message.rstrip("."), [planned.target.provider.origin().url])
                notes.append(f"{self._shown} failed ({why}); asking the next model.")
                await self._emit([Restarted("fallback"), Note(notes[-1])])
            else:
                return
        await self._ask(models[-1], tuple(notes))

    def _first_recorded(self) -> int:
        """Return the number of the first model whose answer is recorded, else 0: those before it failed then."""
        for number, planned in enumerate(self.plan.models):
            exchanges = self._exchanges_with(planned)
            exchanges.find_model()
            if self._recorder is not None and self._recorder.has(
                NeutralRequest(self.plan, planned).data(exchanges.model)
            ):
                return number
        return 0

    async def _ask(self, planned: PlannedModel, fallbacks: tuple[str, ...]) -> None:
        """Ask one model, in rounds, until there is a valid answer."""
        exchanges = self._exchanges = self._exchanges_with(planned, fallbacks)
        exchanges.find_model()
        asked, options = NeutralRequest(self.plan, planned), planned.options
        re_asks, rounds = options.retries_invalid or 0, options.max_tool_rounds or 0
        self._answered = []
        while True:
            try:
                empty = await self._exchange(asked)
            except (RequestRefusedError, ServerFailedError) as error:
                asked = await self._without_images_of_tools(asked, error)
                continue
            self._check_ended()
            calls = self.draft.tool_calls
            if calls and self.plan.tools and not self.plan.returns_calls:
                if rounds == 0:
                    raise ToolLimitError(
                        "The model still asks for tools after the last round.", "Raise --max-tool-rounds."
                    )
                rounds -= 1
                asked = await self._with_results(asked, calls)
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
                await self._exchanges.record()
                asked = _again(asked, assistant(self._texts[0], reasoning=self._exchanges.reasoning()), error)
                await self._emit([Note(f"Not valid: {error.message} Asking again."), Restarted("invalid")])
                continue
            await self._exchanges.record()
            if calls and not self.plan.returns_calls:
                note = f"Not run, for --tools does not offer it: {_listed(calls)}. _llm.tool_calls has it."
                await self._emit([Note(note)])
            response = self.draft.response()
            text = self._said or _instead_of_text(response) or (f"[calls {_listed(calls)}]" if calls else "")
            self._answered.append(assistant(text, reasoning=self._exchanges.reasoning(), citations=response.citations))
            return

    async def _with_results(self, asked: NeutralRequest, calls: tuple[ToolCall, ...]) -> NeutralRequest:
        """Carry out the calls of an answer, and return the request of the next round."""
        await self._exchanges.record()
        if note := _passed_over(self.draft):
            await self._emit([Note(note)])
        answered = self.draft.calling in self.draft.indexes
        said = str(self.draft.buffer(self.draft.calling)) if answered else ""
        reasoning = self._exchanges.reasoning(self.draft.calling)
        added = (assistant(said, calls, reasoning), *await self._caller(asked).carry_out(calls))
        self._answered += added
        await self._emit([Restarted("tools")])
        asked = await self._list_again(asked)
        return replace(asked, added=(*asked.added, *added))

    async def _without_images_of_tools(self, asked: NeutralRequest, error: LLMError) -> NeutralRequest:
        """Return a request that failed without the images that tools gave; raise the error where there are none."""
        added = tuple(map(in_words, asked.added))
        if added == asked.added:
            raise error
        note = f"{self._shown} does not take the images of tools ({error.message.rstrip('.')}): it gets words of them."
        await self._emit([Note(note)])
        self._answered = list(map(in_words, self._answered))
        return replace(asked, added=added)

    @property
    def _said(self) -> str:
        """What the conversation holds of the answer: its text; of a typed one the value, without its wrapping."""
        if self.plan.spec is None or len(self._values) != 1:
            return self.draft.text
        from llm_magic.display.answer import said

        return said(self.draft.text, self._values[0])

    async def _exchange(self, asked: NeutralRequest) -> EmptyAnswerError | None:
        """Ask once, and emit what comes; return the error of an empty answer where it may be a value or be asked again.

        Raises
        ------
        LLMError
            What went wrong, an empty answer included where text is asked for.

        """
        try:
            async with aclosing(self._exchanges.answer_to(asked)) as stream:
                async for batch in stream:
                    await self._emit(batch)
        except EmptyAnswerError as error:
            if self.plan.spec is None or self.draft.finish_reason == "truncated":  # an answer that may come later
                raise
            return error
        return None

    def _check_ended(self) -> None:
        """Raise where an answer has not ended, or the server gave it up: it is half an answer, and so are its calls."""
        for alternative in self.draft.alternatives():
            if alternative.finish_reason == "truncated":
                what, hint = CUT["truncated"]
                raise IncompleteAnswerError(f"The answer of {self._shown} {what}.", f"{hint} _llm.text has what came.")

    async def _validate(self, asked: NeutralRequest) -> None:
        """Set the value from the text, or say why there is none.

        Raises
        ------
        AnswerError
            The answer is cut, refused or invalid.

        """
        spec, alternatives = self.plan.spec, self.draft.alternatives()
        wanted = self._exchanges.number_wanted
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

    async def _valid(self, spec: OutputSpec, asked: NeutralRequest, number: int) -> Any:
        """Return the value of one answer; of several, an invalid one is asked for again by itself."""
        re_asks = asked.planned.options.retries_invalid or 0
        while True:
            try:
                return await asyncio.to_thread(spec.parse, self._texts[number], nulls=self._exchanges.structured[1])
            except InvalidValueError as error:
                if len(self._texts) == 1 or re_asks == 0:
                    raise
                re_asks -= 1
                await self._emit([Note(f"Answer {number + 1} is not valid: {error.message} Asking again for it.")])
                await self._exchanges.record()
                answer = assistant(self._texts[number], reasoning=self._exchanges.reasoning(number))
                self._texts[number] = await self._aside(_again(replace(asked, alone=True), answer, error))

    async def _aside(self, asked: NeutralRequest) -> str:
        """Ask without showing the answer, and return its text; what it used is added to the rest."""
        aside = Draft()
        try:
            with suppress(EmptyAnswerError):  # no value, as any other text that is invalid
                async with aclosing(self._exchanges.answer_to(asked)) as stream:
                    async for batch in stream:
                        aside.add_all(batch)
                        await self._emit([event for event in batch if isinstance(event, Replayed)])
        except LLMError:
            await self._emit(self._used_by(aside))
            raise
        await self._emit(self._used_by(aside))
        self._check_whole(None, aside.alternatives()[0])
        return aside.text

    def _used_by(self, aside: Draft) -> list[Event]:
        """Return what tells of an answer that is not shown: its requests, its notes, and its tokens with the rest."""
        events: list[Event] = [*aside.attempts, *map(Note, aside.notes)]
        if aside.usage is not None:
            known = [cost for cost in (aside.cost, self.draft.cost_of_request) if cost is not None]
            usage = aside.usage + (self.draft.usage_of_request or Usage())
            events.append(UsageReport(usage, sum(known) if known else None))
        return events

    def _caller(self, asked: NeutralRequest) -> ToolRunner:
        confirm = bool(asked.planned.options.confirm)
        results = self._exchanges.recorded_results(asked)
        return ToolRunner(self.plan.tools, self.plan.tool_timeout, confirm, self._emit, self._on_confirm, results)

    def so_far(self, **known: Any) -> Response:
        """Return the response as it stands."""
        exchanges, target = self._exchanges, self._exchanges.planned.target
        response = self.draft.response(
            value=self._value,
            model=target.asked,
            provider=target.provider.name,
            messages=exchanges.sent,
            structured=exchanges.structured[0],
            history_turns=exchanges.history_turns,
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


def _again(asked: NeutralRequest, answer: Message, error: InvalidValueError) -> NeutralRequest:
    """Ask again, showing the model its answer and what is wrong with it."""
    return replace(asked, added=(*asked.added, answer, feedback(error.message)))
