"""Embeddings in batches, a few at once: what came before a failure is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.background_loop import Emit
from llm_magic.config.references import mark_secrets, read
from llm_magic.conversation import estimate, most_tokens
from llm_magic.embeddings import EmbeddingOptions, Vectors, of_alias
from llm_magic.errors import (
    AuthenticationError,
    BudgetError,
    ContextOverflowError,
    EndpointNotFoundError,
    LLMError,
    ModelNotFoundError,
    OptionError,
    Origin,
    ProtocolError,
    UnsupportedError,
)
from llm_magic.events import Attempt, Usage
from llm_magic.messages import user
from llm_magic.request import Request
from llm_magic.response import Response
from llm_magic.secrets import secrets_in
from llm_magic.session.neutral_request import endpoint
from llm_magic.session.spending import Demand

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider
    from llm_magic.rate_limits import Turn
    from llm_magic.session import Session
    from llm_magic.wire.embeddings import Embedded

AT_ONCE = 4
"""Requests at the same time."""


class EmbeddingInterrupted(KeyboardInterrupt):
    """The user interrupted; shown as one line, and all that a KeyboardInterrupt stops stops."""

    def __init__(self, said: str = "the requests were stopped; run it again, and it goes on where it was.") -> None:
        super().__init__()
        self._said = said

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self._said}"]


class Embedding:
    """Texts that are to be embedded, resolved: await `answer` for the vectors.

    No texts give no vectors, and nothing is sent.

    Raises
    ------
    InputError
        The model, an option or the alias is wrong; nothing was sent.

    """

    def __init__(self, session: Session, texts: Sequence[str], options: EmbeddingOptions) -> None:
        settings, given = session.settings, options.request
        name = given.model or settings.embedding_model
        name = name or session.registry.default_model(settings.model)
        self._target = session.registry.resolve(name, given.base_url or "")
        self._options = given.over(of_alias(self._target.defaults, self._target.asked))
        header, param = mark_secrets(self._options.header), mark_secrets(self._options.param)
        self._headers = {key: read(value, f"--header {key}") for key, value in header.items()}
        self._further = {key: read(value, f"--param {key}") for key, value in param.items()}
        for field_name in ("model", "input"):
            if field_name in self._options.param:
                raise OptionError(f"--param {field_name} is what the option and the texts are for.", "Leave it out.")
        if given.base_url:
            self._target = self._target.at(given.base_url)
        self._session, self._texts, size = session, texts, options.batch
        self._batches = [tuple(texts[at : at + size]) for at in range(0, len(texts), size)]
        self._model = self._target.model
        self._found: dict[int, Embedded] = {}
        self._kept: set[int] = set()
        self._attempts: list[Attempt] = []
        self._notes: tuple[str, ...] = ()
        self._recorder = session.recorder(self._options)
        self._deployed = ""  # the name that the endpoint has for the model, once it is needed
        self._preparing = asyncio.Lock()
        self._started = 0.0
        self._say: Callable[[str], None] = lambda _: None
        self._recorded: dict[int, float] = {}  # batches that are recorded, and the seconds of the run at their end

    @property
    def name(self) -> str:
        """The model, as asked for."""
        return self._target.asked

    async def answer(self, emit: Emit[str]) -> Vectors:
        """Ask for all vectors; `emit` gets lines of progress.

        Raises
        ------
        LLMError
            What came before is kept: the same texts asked for again begin behind it.

        """
        started = self._started = time.perf_counter()
        try:
            await self._all(emit)
        except (LLMError, asyncio.CancelledError) as error:
            if self._found:  # is kept for the next run; of an earlier one nothing else
                self._session.unfinished = {self._key(number): item for number, item in self._found.items()}
                if isinstance(error, LLMError):
                    came = f"{self._done()} vectors came before and are kept for the next run."
                    error.hint = f"{error.hint} {came}".strip()
            raise
        finally:
            self._account()
        self._session.unfinished.clear()
        return self._vectors(time.perf_counter() - started)

    async def _all(self, emit: Emit[str]) -> None:
        if not self._batches:
            return
        loop = asyncio.get_running_loop()

        def say(text: str) -> None:  # from any thread
            asyncio.run_coroutine_threadsafe(emit([text]), loop)

        self._say = say
        if self._recorder is None:
            await self._prepare()
        elif not self._model:
            self._model = self._recorder.model(self._target.provider.name, self._options.base_url)
            if not self._model and self._recorder.mode != "only":
                await self._prepare()
        unfinished = self._session.unfinished
        keys = [self._key(number) for number in range(len(self._batches))]
        self._found = {number: unfinished[key] for number, key in enumerate(keys) if key in unfinished}
        self._kept = set(self._found)
        await self._ask_for([number for number in range(len(keys)) if number not in self._kept], emit)

    async def _ask_for(self, missing: Sequence[int], emit: Emit[str]) -> None:
        """Ask for what is not there yet: all are found when this returns."""
        numbers = iter(missing)
        refused: list[BudgetError] = []

        async def work() -> None:
            for number in numbers:  # shared by the workers: each takes the next one
                try:
                    self._found[number] = await self._answer_to(number)
                except BudgetError as error:
                    refused.append(error)  # what the others have asked for is paid for, so it is waited for
                    return
                if len(self._batches) > 1:
                    await emit([f"{self._done()} texts"])

        workers = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(self._batches)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if refused:
            raise refused[0]

    async def _prepare(self) -> None:
        """Find out what the endpoint calls the model, once something is to be asked."""
        provider = self._target.provider
        async with self._preparing:
            if not self._deployed:
                await provider.prepare(self._say)
                name = self._target.model
                self._model = provider.listed_model(name) if name else await provider.first_model()
                self._deployed = await _deployed(provider, self._model)

    def _announce(self, attempt: Attempt) -> None:
        self._attempts.append(attempt)
        if not attempt.final:
            wait = f" in {attempt.retry_after:.0f} s" if attempt.retry_after else ""
            self._say(f"{attempt.status or attempt.reason}, trying again{wait}")

    def _done(self) -> str:
        """Return how many of the texts have their vectors."""
        return f"{sum(len(self._batches[number]) for number in self._found):,} of {len(self._texts):,}"

    def _demand(self, number: int) -> Demand:
        """Return the tokens that one batch asks for."""
        messages = [user(text) for text in self._batches[number]]
        return Demand(estimate(messages), most_tokens(messages), 0)

    async def _exchange(self, number: int) -> Embedded:
        """Ask for one batch, where the budgets allow it, and enter what it took, whatever its end."""
        provider, demand = self._target.provider, self._demand(number)
        account = self._session.spending.begin(provider, self._model, demand)
        limits = self._session.spending.rate_limits.of(provider)
        turns: list[Turn] = []

        def attempted(attempt: Attempt) -> None:
            account.attempted(attempt)
            self._announce(attempt)
            turns[-1].sent(attempt.seconds)
            turns[-1].heard(attempt.status, {}, attempt.retry_after)
            account.allow()
            if not attempt.final:
                turns.append(limits.take(demand.estimated, self._model))  # sent when its own wait is over

        try:
            account.waits = True
            if line := limits.line(demand.estimated, self._model):
                self._say(line)
            turns.append(await limits.turn(demand.estimated, self._model))
            account.waits = False
            found = await self._ask(self._deployed, number, attempted)
            turns[-1].heard(200, found.headers)
            if found.usage is not None:
                turns[-1].settle(found.usage.input_tokens)
            found = replace(found, cost=account.used(found.usage, found.cost))
            self._check(found, provider.origin(self._model))
        except Exception as error:
            account.end(error)
            raise
        else:
            self._notes += account.end()
        finally:
            account.end()
        return found

    async def _answer_to(self, number: int) -> Embedded:
        """Return the vectors of one batch: those that are recorded, else those that the server gives."""
        if (found := self._recorded_answer(number)) is not None:
            return found
        if self._recorder is not None:
            await self._prepare()
        found = await self._exchange(number)
        await self._record(number, found)
        return found

    def _recorded_answer(self, number: int) -> Embedded | None:
        """Return the vectors of one batch that are recorded; RecordingError where nothing may be sent and none are."""
        if self._recorder is None:
            return None
        known = self._recorder.known(self._asked(number), self._target.provider.secrets)
        if known is None:
            return None
        found = _replayed(known)
        self._kept.add(number)
        self._recorded[number] = float(known.get("seconds") or 0.0)
        self._check(found, self._target.provider.origin(self._model))
        return found

    async def _record(self, number: int, found: Embedded) -> None:
        """Record the vectors of one batch, where they are to be."""
        recorder = self._recorder
        if recorder is None:
            return
        self._recorded[number] = time.perf_counter() - self._started
        from llm_magic.recordings.answers import answer_of_vectors

        answer = answer_of_vectors(
            found.vectors,
            usage=found.usage,
            model=found.model_reported,
            cost=found.cost,
            request_id=found.request_id,
            seconds=self._recorded[number],
        )
        if not self._target.model:
            recorder.keep_model(self._target.provider.name, self._options.base_url, self._model)
        hidden = (*self._target.provider.secrets(), *secrets_in(self._headers, self._further))
        if reason := await asyncio.to_thread(recorder.keep, self._asked(number), answer, hidden):
            self._session.notify(reason)

    def _asked(self, number: int) -> dict[str, Any]:
        """Return what is asked for one batch, as plain data."""
        told = {"parameters": dict(self._options.param)} if self._options.param else {}
        return {
            "kind": "embeddings",
            **endpoint(self._target.provider.name, self._options.base_url),
            "model": self._target.model or self._model,
            "input": list(self._batches[number]),
            **told,
        }

    async def _ask(self, model: str, number: int, announce: Callable[[Attempt], None]) -> Embedded:
        """Ask for one batch; an error gets the hint that helps here."""
        from llm_magic.wire.embeddings import embed

        provider, options = self._target.provider, self._options
        origin = provider.origin(self._model)
        try:
            client = provider.client()
            found = await embed(
                client,
                origin,
                model,
                self._batches[number],
                extra=self._further,
                headers=self._headers,
                timeout=options.timeout,
                max_retries=options.retries,
                announce=announce,
                secrets=provider.secrets(),
                renew=provider.renewed,
            )
        except LLMError as error:
            self._hint(error, number)
            raise
        return found

    def _hint(self, error: LLMError, number: int) -> None:
        """Give an error of one batch the hint that helps here."""
        provider = self._target.provider
        if isinstance(error, AuthenticationError):
            error.hint = provider.key_hint() or error.hint
        elif isinstance(error, ContextOverflowError):
            longest = max(map(len, self._batches[number]))
            error.hint = f"Split the long texts: the longest one here has {longest:,} characters."
            if provider.kind == "local":
                error.hint += f" Or let it read more in one go: {provider.line_that_sets('n_batch', '4096')}"
        elif isinstance(error, ModelNotFoundError):
            error.hint = f"{provider.close_models(self._deployed)} {error.hint}".lstrip()
        elif isinstance(error, EndpointNotFoundError) and "model" not in error.hint:
            error.hint = f"Ask a model that embeds (%llm_models {provider.name}), and check base_url."

    def _check(self, found: Embedded, origin: Origin) -> None:
        """Refuse vectors of another length than the others, or than the one asked for."""
        one = next(iter(self._found.values()), found)  # all that were found are alike
        lengths = {len(vector) for vector in (*found.vectors, *one.vectors[:1])}
        if len(lengths) != 1 or not found.vectors[0]:
            raise ProtocolError(
                f"{origin} gave vectors of different lengths: {', '.join(map(str, sorted(lengths)))}.",
                "Its vectors cannot be compared; ask another model.",
                origin=origin,
            )
        wanted = self._options.param.get("dimensions")
        if wanted is not None and lengths != {wanted}:
            raise UnsupportedError(
                f"{origin} gave vectors of {lengths.pop():,} dimensions, not of the {wanted:,} asked for.",
                "Leave --dimensions out: this model does not shorten its vectors.",
            )

    def _key(self, number: int) -> Hashable:
        """Return what makes a batch of another run the same as one of this."""
        origin = self._target.provider.origin(self._model)
        extra = json.dumps(self._options.param, sort_keys=True, default=str)
        return origin.provider, origin.url, self._model, extra, self._batches[number]

    def _account(self) -> None:
        """Enter that something came, whatever the end was."""
        new = [item for number, item in self._found.items() if number not in self._kept]
        recorded = not new and bool(self._recorded)
        response = Response(usage=sum_of(new), attempts=tuple(self._attempts), recorded=recorded)
        self._session.ledger.answered(response, self._target.provider.name, self._model or self._target.asked)

    def _vectors(self, seconds: float) -> Vectors:
        ordered = [self._found[number] for number in range(len(self._batches))]
        vectors = Vectors(vector for item in ordered for vector in item.vectors)
        vectors.model, vectors.provider = self._target.asked, self._target.provider.name
        vectors.model_reported = ordered[0].model_reported if ordered else ""
        vectors.usage, vectors.seconds = sum_of(ordered), max(self._recorded.values(), default=seconds)
        vectors.recorded = bool(ordered) and self._recorder is not None and len(self._kept) == len(ordered)
        vectors.cost, vectors.notes = cost_of(ordered), self._notes
        if ordered:
            vectors.headers, vectors.request_id = ordered[-1].headers, ordered[-1].request_id
        return vectors


def _replayed(answer: Mapping[str, Any]) -> Embedded:
    """Return vectors as they were recorded."""
    from llm_magic.recordings.answers import vectors_of
    from llm_magic.wire.embeddings import Embedded

    vectors, usage = vectors_of(answer)
    model, cost, request_id = answer.get("model", ""), answer.get("cost"), answer.get("request_id")
    return Embedded(vectors, usage, model, cost, {}, request_id)


async def _deployed(provider: Provider, model: str) -> str:
    """Return the name that the endpoint has for a model: on Azure its deployment."""
    capabilities = replace(provider.capabilities(model), api="chat")  # no chat template is applied to texts
    return (await provider.adapt(Request(model, ()), capabilities)).model


def sum_of(items: Sequence[Embedded]) -> Usage | None:
    """Return the tokens of several requests; None where one of them was not counted."""
    counted = [item.usage for item in items if item.usage is not None]
    return sum(counted[1:], counted[0]) if counted and len(counted) == len(items) else None


def cost_of(items: Sequence[Embedded]) -> float | None:
    """Return the US dollars that requests cost; None where that of one of them is not known."""
    known = [item.cost for item in items if item.cost is not None]
    return sum(known) if items and len(known) == len(items) else None
