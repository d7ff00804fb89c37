"""Embeddings by offline batches: some texts are a line of a file, whose vectors come when its batch has ended.

Lines that failed fail the call; what the others gave is on the disk and in the session, and is not asked again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llm_magic.batches.bodies import refuse_secrets
from llm_magic.batches.earlier import EarlierBatches, moment
from llm_magic.batches.input_file import MOST_EMBEDDED, InputFile, InputFileWriter, custom_id, read_ids
from llm_magic.batches.polling import EVERY
from llm_magic.batches.record import BatchRecord
from llm_magic.batches.results import RowResult
from llm_magic.batches.retrieval import Refused, asked_before, missing, results_of, retrieved
from llm_magic.batches.spending import BatchSpending
from llm_magic.batches.state import BatchState
from llm_magic.batches.vectors import embedded_in
from llm_magic.config.trust import printable
from llm_magic.display.batches import line, progress_of, since
from llm_magic.display.footer import counted
from llm_magic.embeddings.run import Embedding
from llm_magic.errors import (
    ConfigurationError,
    LLMError,
    NotAskedError,
    OptionError,
    PromptError,
    UnsupportedError,
)
from llm_magic.events import Attempt
from llm_magic.providers.batches import endpoint, line_url, refuse_batches
from llm_magic.recordings.locked_file import reason
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
_REFUSED_TIMES = 3  # batches in a row that a server refuses for some of their lines, which are left out of the next one
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
        self.state.every = self._options.poll or EVERY
        self.state.again = bool(self._options.again)
        self.out = ""
        """The variable that takes the vectors, for lists."""
        self._spending = BatchSpending(RunSpending(session.spending), session)
        self._at_once = max(1, _TEXTS_AT_ONCE // options.batch)
        self._waiting: dict[str, tuple[BatchRecord, dict[str, int]]] = {}
        self._read: list[BatchRecord] = []  # batches whose results are known
        self._errors: dict[int, LLMError] = {}
        self._answered_before: list[int] = []  # lines that a batch of an earlier call has answered

    async def _ask_for(self, missing: Sequence[int], emit: Emit[str]) -> None:
        try:
            numbers = [number for number in missing if not self._is_recorded(number)]
            if numbers:
                await self._prepare()
                await self._by_batches(numbers, emit)
        except OSError as error:
            raise ConfigurationError(
                f"Batches cannot be kept in {printable(str(self.state.folder.place))}: {reason(error)}.",
                "Make room there, or set another folder (XDG_STATE_HOME), and run the cell again: it goes on.",
            ) from None
        if self._errors:
            raise self._failed()

    def _is_recorded(self, number: int) -> bool:
        found = self._recorded_answer(number)
        if found is not None:
            self._found[number] = found
        return found is not None

    async def _by_batches(self, numbers: Sequence[int], emit: Emit[str]) -> None:
        state, folder = self.state, self.state.folder
        state.connect(self._target.provider, self._model, self._options)
        state.say = self._tell
        with suppress(OSError):
            await asyncio.to_thread(folder.sweep)
        async with self._told(emit), folder.turn(self._identity(), say=self._say):
            try:
                asked = await self._not_asked_before(numbers)
                await self._submit(await asyncio.to_thread(self._written, asked))
                for name, (record, lines) in list(self._waiting.items()):
                    if not record.has_reached("submitted"):
                        self._waiting[name] = await self._submitted(record), lines
            except UnsupportedError as error:  # there are no batches here: the texts need not be kept
                for record, _ in self._waiting.values():
                    if not record.has_reached("submitted"):
                        folder.remove(record.id)
                        self._spending.forget(record)
                error.hint = _NOW if "--batch" in error.hint else error.hint
                raise
        state.has_submitted()
        async with self._told(emit):
            await self._all_ended()
        for record in self._read:
            state.remember(record, step="read")

    def _identity(self) -> str:
        """Return what all lines share."""
        provider = self._target.provider
        shared = {name: value for name, value in self._asked(0).items() if name != "input"}
        return key_of({**shared, "url": provider.origin(self._model).url, "batch": True})

    async def _not_asked_before(self, numbers: Sequence[int]) -> list[tuple[int, str]]:
        """Return the lines that no batch has, with their keys; others wait for theirs, or are answered by one."""
        state, folder = self.state, self.state.folder
        earlier = EarlierBatches(state, self._spending, self._identity(), self._tell)
        records = await earlier.records()
        known = await asyncio.to_thread(asked_before, folder, records)
        keys = await asyncio.to_thread(lambda: [key_of(self._asked(number)) for number in numbers])
        answered: defaultdict[str, dict[str, int]] = defaultdict(dict)
        asked = []
        for number, key in zip(numbers, keys, strict=True):
            if not (places := known.get(key[:32])):
                asked.append((number, key))
                continue
            record, name = places.popleft()
            if record.is_over:
                answered[record.id][name] = number
            else:
                self._waiting.setdefault(record.id, (record, {}))[1][name] = number
        of = dict(zip(numbers, keys, strict=True))
        wanted = {name: len(lines) for name, (_, lines) in self._waiting.items()}
        created, given_up = await earlier.settled(records, wanted)
        for record in created:
            self._waiting[record.id] = record, self._waiting[record.id][1]
        for record in given_up:
            asked += [(number, of[number]) for number in self._waiting.pop(record.id)[1].values()]
        for record, _ in self._waiting.values():
            state.seen(record)
            if record.has_reached("submitted"):
                folder.forget_input(record.id)
        for record in records:
            lines = answered[record.id]
            async for name, result in results_of(folder, record, lines, self._at_once):
                if (found := self._embedded(lines[name], result)) is not None:
                    number = lines.pop(name)
                    self._found[number] = found
                    self._kept.add(number)
                    self._answered_before.append(number)
                    await self._record(number, found)
        asked += [(number, of[number]) for lines in answered.values() for number in lines.values()]
        if self._answered_before:
            texts = counted(sum(len(self._batches[number]) for number in self._answered_before), "text")
            self._notes += (f"{texts} embedded by a batch of an earlier run, at no further cost (--again asks anew).",)
        for record, lines in self._waiting.values():
            texts = counted(sum(len(self._batches[number]) for number in lines.values()), "text")
            under_way = f"A batch of {moment(record)} has {texts} of these: it goes on."
            broke_off = f"The submission of {texts} broke off on {moment(record)}: it goes on."
            self._say(under_way if record.has_reached("submitted") else broke_off)
        return sorted(asked)

    def _embedded(self, number: int, result: RowResult) -> Embedded | None:
        """Return what a batch that was read before has for a line; None where that is nothing good."""
        try:
            found = self._read_result(number, result)
            self._check(found, self._target.provider.origin(self._model))
        except LLMError:
            return None
        return found

    # What is sent

    def _written(self, asked: Sequence[tuple[int, str]]) -> list[tuple[BatchRecord, dict[str, int]]]:
        """Write lines into input files, and remember these."""
        if not asked:
            return []
        folder, names = self.state.folder, list[str]()

        def paths(_part: int) -> tuple[Path, Path]:
            names.append(folder.new_id())
            return folder.input_path(names[-1]), folder.ids_path(names[-1])

        provider = self._target.provider
        url = line_url(provider.capabilities(self._model), embeddings=True)
        writer = InputFileWriter(paths, url, most_rows=MOST_EMBEDDED)
        try:
            for number, key in asked:
                body = self._body(number)
                try:
                    writer.write(number, key, body, inputs=len(self._batches[number]))
                except PromptError as error:
                    raise PromptError(f"{self._named([number])}: {error.message}", "Lower --batch N.") from None
                self._spending.expect(self._demand(number))
            files = writer.close()
            by_id = {custom_id(number, key): number for number, key in asked}
            made = [self._remembered(name, file, by_id) for name, file in zip(names, files, strict=True)]
        except BaseException:
            writer.discard()
            raise
        return made

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

    def _remembered(self, name: str, file: InputFile, lines: dict[str, int]) -> tuple[BatchRecord, dict[str, int]]:
        provider = self._target.provider
        own = {each: lines[each] for each in read_ids(file.ids_path)}
        record = BatchRecord(
            id=name,
            run=self._identity(),
            provider=provider.name,
            url=provider.origin().url,
            base_url=str(self._options.base_url or ""),
            model=self._model,
            asked=self._target.asked,
            api="embeddings",
            endpoint=endpoint(provider.capabilities(self._model), embeddings=True),
            rows=file.rows,
            size=file.size,
            digest=file.digest,
            created=time.time(),
            step="written",
            prompt=f"{counted(sum(len(self._batches[number]) for number in own.values()), 'text')} to be embedded",
            out=self.out,
        )
        self.state.folder.add(record)
        return record, own

    async def _submit(self, batches: Sequence[tuple[BatchRecord, dict[str, int]]]) -> None:
        """Submit batches that are written, where the budgets allow them."""
        try:
            self._spending.reserve(self._target.provider, self._model, [record for record, _ in batches])
        except LLMError:
            for record, _ in batches:
                self.state.folder.remove(record.id)
            raise
        for record, lines in batches:
            self._waiting[record.id] = record, lines
            self.state.seen(record)
        for record, lines in batches:
            self._waiting[record.id] = await self._submitted(record), lines

    async def _submitted(self, record: BatchRecord) -> BatchRecord:
        record = await self.state.submission().submit(record)
        self.state.seen(record)
        return record

    # What comes

    async def _all_ended(self) -> None:
        """Wait for all batches; where one was refused for some lines, ask for the others anew."""
        for turn in range(_REFUSED_TIMES + 1):
            # one that fails does not end the waiting for the others, whose vectors are kept
            ended = await asyncio.gather(
                *(self._ended(*each) for each in self._waiting.values()), return_exceptions=True
            )
            for each in ended:
                if isinstance(each, BaseException):
                    raise each
            again = [number for numbers in ended if not isinstance(numbers, BaseException) for number in numbers]
            self._waiting.clear()
            if not again:
                return
            if turn == _REFUSED_TIMES:
                break
            self._say(f"{counted(len(again), 'line')} of a refused batch are submitted without those it named.")
            keyed = [(number, key_of(self._asked(number))) for number in again]
            async with self.state.folder.turn(self._identity(), say=self._say):
                await self._submit(await asyncio.to_thread(self._written, keyed))
        error = NotAskedError("Not asked: the server refused its batch for other lines.")
        self._errors |= dict.fromkeys(again, error)

    async def _ended(self, record: BatchRecord, lines: dict[str, int]) -> list[int]:
        """Wait for one batch, and take its vectors; return the lines that another one is to ask."""
        retrieval = await retrieved(self.state, record)
        if isinstance(retrieval, Refused):
            self._spending.forget(record)
            errors = {number: retrieval.error(name) for name, number in lines.items()}
            self._errors |= {number: error for number, error in errors.items() if error is not None}
            return [number for number, error in errors.items() if error is None]
        record, left = retrieval, dict(lines)
        errors = {}
        self._spending.begin(record)
        async for name, result in results_of(self.state.folder, record, left, self._at_once):
            number = left[name]
            try:
                self._found[number] = found = self._taken(number, result, record)
            except LLMError as error:
                errors[number] = error
                continue  # the other file may have an answer
            del left[name]
            errors.pop(number, None)
            await self._record(number, found)
        self._spending.settle(record)
        self._errors |= {number: missing(record) for number in left.values()} | errors  # type: ignore[arg-type]
        self._read.append(record)
        return []

    def _taken(self, number: int, result: RowResult, record: BatchRecord) -> Embedded:
        """Return the vectors of a line, entered as used."""
        provider = self._target.provider
        origin = provider.origin(self._model)
        end = self._session.ledger.begin(provider.name, self._model)

        def enter(status: int | None, reason: str, found: Embedded | None) -> None:
            attempt = Attempt(origin.provider, origin.model, status, reason, 0.0, result.request_id)
            attempts = [attempt] if status is not None else []
            self._attempts += attempts
            usage, cost = (None, None) if found is None else (found.usage, found.cost)
            if attempts:  # else it was no request
                self._spending.took(record, usage, cost)
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

    def _tell(self, text: str) -> None:
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
    async def _told(self, emit: Emit[str]) -> AsyncGenerator[None, None]:
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
