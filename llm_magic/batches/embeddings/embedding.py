"""Embeddings by offline batches: some texts are a line of a file, whose vectors come when its batch has ended.

Lines that failed fail the call; what the others gave is on the disk and in the session, and is not asked again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.batches.embeddings.vectors import embedded_in
from llm_magic.batches.jsonl.input_file import MOST_EMBEDDED, InputFile, custom_id
from llm_magic.batches.jsonl.results import RowResult
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.batches.remote.batches_of_run import BatchesOfRun, WaitingBatch, new_record
from llm_magic.batches.remote.polling import INTERVAL
from llm_magic.batches.remote.retrieval import Refused, no_result, results_of
from llm_magic.batches.remote.spending import BatchSpending
from llm_magic.batches.remote.state import BatchState
from llm_magic.display.batches import line, progress_of, since
from llm_magic.display.footer import counted
from llm_magic.embeddings.run import Embedding
from llm_magic.errors import (
    LLMError,
    NotAskedError,
    OptionError,
    PromptError,
    UnsupportedError,
)
from llm_magic.events import Attempt
from llm_magic.providers.batches import endpoint, line_url, refuse_batches, refuse_secrets
from llm_magic.recordings.recording import key_of
from llm_magic.secrets import reveal
from llm_magic.session.run_spending import RunSpending

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.embeddings import EmbeddingOptions, Vectors
    from llm_magic.session import Session
    from llm_magic.wire.embeddings import Embedded

_OK = 200
_NOW = "Leave --batch-api out: the texts are embedded now."
_LOOK = 0.5  # seconds between two looks at whether the line of progress says something else
_TEXTS_AT_ONCE = 500  # whose vectors are read before others get a turn
_MOST_NAMED = 5  # stretches of texts that an error names


class BatchEmbedding(Embedding):
    """Texts that are to be embedded by offline batches: await `answer` for the vectors.

    A batch that an earlier call with the same texts and options has submitted is gone on with, in whatever process.

    Parameters
    ----------
    session, texts, options
        As for `Embedding`; `batch` of the options is the number of texts in a line of the file.
    state
        Has what is known of the batches; None: one of its own.

    Raises
    ------
    InputError
        The model, an option or the alias is wrong, or the endpoint is known to have no batches; nothing was sent.

    """

    def __init__(
        self, session: Session, texts: Sequence[str], options: EmbeddingOptions, state: BatchState | None = None
    ) -> None:
        super().__init__(session, texts, options)
        if options.batch > MOST_EMBEDDED:
            many = f"A line of {options.batch:,} texts: a whole batch embeds at most {MOST_EMBEDDED:,}."
            raise OptionError(many, "Lower --batch N.")
        provider = self._target.provider
        try:
            refuse_batches(provider, provider.capabilities(self._model), self._model)
        except UnsupportedError as error:
            raise UnsupportedError(error.message, _NOW) from None
        refuse_secrets(self._further)
        self.state = state or BatchState(session)
        self.state.every = self._options.poll or INTERVAL
        self.state.again = bool(self._options.again)
        self.out = ""
        """The variable that takes the vectors, for lists."""
        self._spending = BatchSpending(RunSpending(session.spending), session)
        self._at_once = max(1, _TEXTS_AT_ONCE // options.batch)
        self._errors: dict[int, LLMError] = {}
        self._answered_before: list[int] = []  # lines that a batch of an earlier call has answered

    async def _ask_for(self, missing: Sequence[int], emit: Emit[str]) -> None:
        numbers = [number for number in missing if not self._is_recorded(number)]
        if numbers:
            await self._prepare()
            self.state.say = self._note
            self.state.connect(self._target.provider, self._model, self._options)
            batches: BatchesOfRun[int] = BatchesOfRun(self.state, self._spending, self._identity(), "line", self._say)
            with batches.catching_folder_errors():
                await self._by_batches(batches, numbers, emit)
        if self._errors:
            raise self._failed()

    def _is_recorded(self, number: int) -> bool:
        found = self._recorded_answer(number)
        if found is not None:
            self._found[number] = found
        return found is not None

    async def _by_batches(self, batches: BatchesOfRun[int], numbers: Sequence[int], emit: Emit[str]) -> None:
        async def submit(numbers: Sequence[int]) -> None:
            written = await asyncio.to_thread(self._written, batches, numbers)
            await batches.submit(self._target.provider, self._model, written)

        async def submit_again(numbers: Sequence[int]) -> None:
            async with batches.turn():
                await submit(numbers)

        async with self._telling_progress(emit):
            async with batches.turn():
                try:
                    await submit(await self._not_asked_before(batches, numbers))
                except UnsupportedError as error:
                    error.hint = _NOW if "--batch" in error.hint else error.hint
                    raise
            self.state.has_submitted()
            for number in await batches.all_ended(self._read_results, self._refused, submit_again):
                self._errors[number] = NotAskedError("Not asked: the server refused its batch for other lines.")
        batches.have_been_read()

    def _identity(self) -> str:
        """Return what all lines share."""
        provider = self._target.provider
        shared = {name: value for name, value in self._asked(0).items() if name != "input"}
        return key_of({**shared, "url": provider.origin(self._model).url, "batch": True})

    async def _not_asked_before(self, batches: BatchesOfRun[int], numbers: Sequence[int]) -> list[int]:
        """Return the lines that no batch has; others wait for theirs, or are answered by one."""
        await batches.look()
        keys = await asyncio.to_thread(lambda: [key_of(self._asked(number)) for number in numbers])
        asked = [number for number, key in zip(numbers, keys, strict=True) if not batches.has(key, number)]

        async def use(number: int, result: RowResult, _record: object) -> bool:
            if (found := self._embedded(number, result)) is None:
                return False
            self._found[number] = found
            self._kept.add(number)
            self._answered_before.append(number)
            await self._record(number, found)
            return True

        asked += await batches.left(use, self._at_once)
        if self._answered_before:
            texts = self._texts_in(self._answered_before)
            self._notes += (f"{texts} embedded by a batch of an earlier run, at no further cost (--again asks anew).",)
        for batch in batches.waiting.values():
            texts, made = self._texts_in(batch.lines.values()), batch.record.made_at
            under_way = f"A batch of {made} has {texts} of these: not submitted again."
            broke_off = f"The submission of {texts} broke off on {made}: it goes on."
            self._say(under_way if batch.record.has_reached("submitted") else broke_off)
        return sorted(asked)

    def _texts_in(self, numbers: Iterable[int]) -> str:
        """Return how many texts lines have: `512 texts`."""
        return counted(sum(len(self._batches[number]) for number in numbers), "text")

    def _embedded(self, number: int, result: RowResult) -> Embedded | None:
        """Return what a batch that was read before has for a line; None where that is nothing good."""
        try:
            found = self._read_result(number, result)
            self._check(found, self._target.provider.origin(self._model))
        except LLMError:
            return None
        return found

    # What is sent

    def _written(self, batches: BatchesOfRun[int], numbers: Sequence[int]) -> list[WaitingBatch[int]]:
        """Write lines into input files, and remember these."""
        url = line_url(self._target.provider.capabilities(self._model), embeddings=True)
        by_id: dict[str, int] = {}
        with batches.writing(url, most_rows=MOST_EMBEDDED) as writer:
            for number in numbers:
                key, body = key_of(self._asked(number)), self._body(number)
                try:
                    writer.write(number, key, body, inputs=len(self._batches[number]))
                except PromptError as error:
                    raise PromptError(f"{self._named([number])}: {error.message}", "Lower --batch N.") from None
                by_id[custom_id(number, key)] = number
                self._spending.expect(self._demand(number))
            return batches.add(writer.close(), by_id, self._record_of)

    def _record_of(self, file: InputFile, numbers: Sequence[int]) -> BatchRecord:
        return new_record(
            file,
            self._identity(),
            self._target,
            base_url=str(self._options.base_url or ""),
            model=self._model,
            api="embeddings",
            endpoint=endpoint(self._target.provider.capabilities(self._model), embeddings=True),
            prompt=f"{self._texts_in(numbers)} to be embedded",
            out=self.out,
        )

    def _body(self, number: int) -> bytes:
        """Return the body of a line.

        Raises
        ------
        InputError
            It cannot be sent.

        """
        texts = self._batches[number]
        body = {"model": self._deployed, "input": texts, **reveal(self._further)}
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except UnicodeEncodeError:
            whole = (place for place, text in enumerate(texts) if not _is_encodable(text))
            first = sum(map(len, self._batches[:number])) + next(whole, 0)
            raise PromptError(
                f"Text {first:,} holds half of a surrogate pair, which is no character and cannot be sent.",
                'Clean it with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
            ) from None
        except (TypeError, ValueError) as error:
            raise OptionError(f"--param: a field is no JSON: {error}.") from None

    # What comes

    async def _read_results(self, batch: WaitingBatch[int], record: BatchRecord) -> None:
        """Take the vectors of a batch that is fetched."""
        left = dict(batch.lines)
        errors: dict[int, LLMError] = {}
        counts = self._spending.counts(record)
        async for name, result in results_of(self.state.folder, record, left, self._at_once):
            number = left[name]
            try:
                self._found[number] = found = self._take(number, result, record, counts=counts)
            except LLMError as error:
                errors[number] = error
                continue  # the other file may have an answer
            del left[name]
            errors.pop(number, None)
            await self._record(number, found)
        self._errors |= {number: no_result(record) for number in left.values()} | errors

    def _refused(self, batch: WaitingBatch[int], refused: Refused) -> list[int]:
        """Take note of the errors of the lines that a batch was refused for; return its others."""
        rest = []
        for name, number in batch.lines.items():
            if (error := refused.error(name)) is not None:
                self._errors[number] = error
            else:
                rest.append(number)
        return rest

    def _take(self, number: int, result: RowResult, record: BatchRecord, *, counts: bool) -> Embedded:
        """Return the vectors of a line, entered as used where it `counts`."""
        provider = self._target.provider
        origin = provider.origin(self._model)
        end = self._session.ledger.begin(provider.name, self._model) if counts else None

        def enter(status: int | None, reason: str, found: Embedded | None) -> None:
            attempt = Attempt(origin.provider, origin.model, status, reason, 0.0, result.request_id)
            attempts = [attempt] if status is not None else []
            self._attempts += attempts
            usage, cost = (None, None) if found is None else (found.usage, found.cost)
            if attempts:  # else it was no request
                self._spending.took(record, usage, cost)
            if end is not None:
                end(attempts, usage, cost, answered=found is not None)

        try:
            found = self._read_result(number, result)
            self._check(found, origin)
        except LLMError as error:
            enter(result.status or getattr(error, "status", None), error.message, None)
            self._hint(error, number)
            raise
        enter(_OK, "", found)
        return found

    def _read_result(self, number: int, result: RowResult) -> Embedded:
        provider = self._target.provider
        return embedded_in(result, provider, self._model, len(self._batches[number]), self._options.param)

    # What is said

    def _note(self, text: str) -> None:
        """Tell what the user should know, now and below the result."""
        if text not in self._notes:
            self._notes += (text,)
        self._say(text)

    def _vectors(self, seconds: float) -> Vectors:
        vectors = super()._vectors(seconds)
        vectors.recorded = vectors.recorded and not self._answered_before
        return vectors

    def _failed(self) -> LLMError:
        """Return the error of all lines that failed: that of the first of them, with the texts named."""
        error = self._errors[min(self._errors)]
        alike = [number for number, other in self._errors.items() if type(other) is type(error)]
        more = len(self._errors) - len(alike)
        which = self._named(self._errors)
        message = f"{which} {'has no vector' if which.startswith('Text ') else 'have no vectors'}: {error.message}"
        if more:
            message += f" (and others for other reasons, of {counted(more, 'line')})"
        error.message = message
        error.args = (error.message, error.hint)
        return error

    def _named(self, numbers: Iterable[int]) -> str:
        """Return which texts lines have: `Texts 0-255, 512-600`."""
        size, stretches = len(self._batches[0]), list[list[int]]()
        for number in sorted(numbers):
            begin = number * size
            end = begin + len(self._batches[number])
            if stretches and stretches[-1][1] == begin:
                stretches[-1][1] = end
            else:
                stretches.append([begin, end])
        said = [f"{begin:,}-{end - 1:,}" if end - begin > 1 else f"{begin:,}" for begin, end in stretches]
        more = f" and {len(said) - _MOST_NAMED:,} more stretches" if len(said) > _MOST_NAMED else ""
        if stretches[0][1] - stretches[0][0] == len(stretches) == 1:
            return f"Text {said[0]}"
        return f"Texts {', '.join(said[:_MOST_NAMED])}{more}"

    @asynccontextmanager
    async def _telling_progress(self, emit: Emit[str]) -> AsyncGenerator[None, None]:
        """Tell how far the batches are, as often as it changes."""

        async def tell() -> None:
            last = ""
            while True:
                if self.state.records and (said := said_of(self.state.records, time.time())) != last:
                    last = said
                    await emit([said])
                await asyncio.sleep(_LOOK)

        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


def said_of(records: Sequence[BatchRecord], now: float) -> str:
    """Return how far batches are, in a line; `now` is in seconds since 1970."""
    batches = [
        replace(progress_of(record, now), part=part, parts=len(records)) for part, record in enumerate(records, 1)
    ]
    return " · ".join(filter(None, [line(batches), since(batches)]))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
