"""The batches of one run: those of earlier runs go on, what these have not is submitted, and all are waited for."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llm_magic.batches.jsonl.input_file import MOST_ROWS, InputFile, InputFileWriter, read_ids
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.batches.remote.earlier import EarlierBatches
from llm_magic.batches.remote.retrieval import Refused, asked_before, results_of, retrieved
from llm_magic.config.trust import printable
from llm_magic.display.footer import counted
from llm_magic.errors import ConfigurationError, LLMError, UnsupportedError
from llm_magic.recordings.locked_file import reason

if TYPE_CHECKING:
    from llm_magic.batches.jsonl.results import RowResult
    from llm_magic.batches.remote.spending import BatchSpending
    from llm_magic.batches.remote.state import BatchState
    from llm_magic.providers.base import Provider
    from llm_magic.providers.registry import Target

REFUSED_TIMES = 3
"""Batches in a row that a server may refuse for some of their lines, which are left out of the next one."""

L = TypeVar("L")


@dataclass(slots=True)
class WaitingBatch(Generic[L]):
    """A batch that is waited for, and what its lines are to this run, by their custom ids."""

    record: BatchRecord
    lines: dict[str, L] = field(default_factory=dict)


class BatchesOfRun(Generic[L]):
    """The batches of one run; a line of their files is an `L` to it: a row, or some texts that are embedded together.

    In this order: in `turn`, `look`, `has` for each line, `left`; what is left is written in `writing`, then
    `add` and `submit`; then `all_ended`, and at the very end `have_been_read`.

    Parameters
    ----------
    state
        Sees how far they are.
    spending
        Reserves and settles what they take.
    run
        The identity of the run, 64 hexadecimal digits.
    line
        What a line is called: `row`.
    say
        Takes a line for the user.

    """

    def __init__(
        self, state: BatchState, spending: BatchSpending, run: str, line: str, say: Callable[[str], None]
    ) -> None:
        self._state, self._folder, self._spending, self._run = state, state.folder, spending, run
        self._line, self._say = line, say
        self._earlier = EarlierBatches(state, spending, run)
        self._records: list[BatchRecord] = []
        self._known: dict[str, deque[tuple[BatchRecord, str]]] = {}
        self._answered: defaultdict[str, dict[str, L]] = defaultdict(dict)
        self._read: list[BatchRecord] = []
        self.waiting: dict[str, WaitingBatch[L]] = {}
        """The batches that are waited for, by our names of them."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Hold the right to submit batches of this run; see `BatchFolder.turn`."""
        return self._folder.turn(self._run, say=self._say)

    @contextmanager
    def catching_folder_errors(self) -> Iterator[None]:
        """Raise what the system says of the folder of batches as a ConfigurationError."""
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"Batches cannot be kept in {printable(str(self._folder.place))}: {reason(error)}.",
                "Make room there, or set another folder (XDG_STATE_HOME), and run the cell again: it goes on.",
            ) from None

    # What batches of earlier runs have

    async def look(self) -> None:
        """Look up which lines batches of earlier runs have; raises OSError."""
        with suppress(OSError):
            await asyncio.to_thread(self._folder.sweep)
        self._records = await self._earlier.records()
        self._known = await asyncio.to_thread(asked_before, self._folder, self._records)
        self._answered.clear()

    def has(self, key: str, line: L) -> bool:
        """Tell whether such a batch has a line of this key: then that waits for it, or for its answer to be read."""
        if not (places := self._known.get(key[:32])):
            return False
        record, name = places.popleft()
        if record.is_over:
            self._answered[record.id][name] = line
        else:
            self.waiting.setdefault(record.id, WaitingBatch(record)).lines[name] = line
        return True

    async def left(self, use: Callable[[L, RowResult, BatchRecord], Awaitable[bool]], at_once: int = 500) -> list[L]:
        """Return the lines that were with such a batch, and are to be asked anew.

        Parameters
        ----------
        use
            Takes what a batch that was read before has for a line, and tells whether that is good.
        at_once
            Results in memory.

        Raises
        ------
        LLMError
            A server does not tell whether it has a batch whose submission broke off.

        """
        wanted = {name: len(waiting.lines) for name, waiting in self.waiting.items()}
        created, given_up = await self._earlier.resolve(self._records, wanted)
        for record in created:
            self.waiting[record.id].record = record
        left = [line for record in given_up for line in self.waiting.pop(record.id).lines.values()]
        for record in self._records:
            lines = self._answered[record.id]
            async for name, result in results_of(self._folder, record, lines, at_once):
                if await use(lines[name], result, record):
                    del lines[name]
        return [*left, *(line for lines in self._answered.values() for line in lines.values())]

    # What is submitted

    @contextmanager
    def writing(self, url: str, most_rows: int = MOST_ROWS) -> Iterator[InputFileWriter]:
        """Have a writer of input files, of which none is left where it is not closed, or its files not remembered."""

        def paths(_part: int) -> tuple[Path, Path]:
            name = self._folder.new_id()
            return self._folder.input_path(name), self._folder.ids_path(name)

        writer = InputFileWriter(paths, url, most_rows=most_rows)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise

    def add(
        self,
        files: Iterable[InputFile],
        lines: Mapping[str, L],
        record_of: Callable[[InputFile, Sequence[L]], BatchRecord],
    ) -> list[WaitingBatch[L]]:
        """Remember a batch for each file that is written.

        Parameters
        ----------
        files
            As the writer returns them.
        lines
            What was written, by custom id.
        record_of
            Makes the record of a file that has these lines.

        Raises
        ------
        OSError
            It cannot be remembered.

        """
        made = []
        for file in files:
            own = {name: lines[name] for name in read_ids(file.ids_path)}
            record = record_of(file, list(own.values()))
            self._folder.add(record)
            made.append(WaitingBatch(record, own))
        return made

    async def submit(self, provider: Provider, model: str, written: Sequence[WaitingBatch[L]]) -> None:
        """Submit batches that are written, where the budgets allow them, and those whose submission broke off.

        Raises
        ------
        LLMError
            A budget does not cover them: they are forgotten. Or one cannot be submitted: what was is remembered.

        """
        try:
            self._spending.reserve(provider, model, [each.record for each in written])
        except LLMError:
            for each in written:
                self._folder.remove(each.record)
            raise
        earlier = list(self.waiting.values())
        self.waiting |= {each.record.id: each for each in written}
        for each in (*earlier, *written):
            self._state.note(each.record)
        for each in (*written, *earlier):
            if not each.record.has_reached("submitted"):
                try:
                    each.record = await self._state.submission().submit(each.record)
                except UnsupportedError:
                    self._forget_unsent()
                    raise
            self._state.note(each.record)
            self._folder.forget_input(each.record)

    def _forget_unsent(self) -> None:
        """Forget what no server has, where none takes batches: the prompts need not be kept."""
        for each in self.waiting.values():
            if not each.record.has_reached("submitting"):
                self._folder.remove(each.record)
                self._spending.release(each.record)

    # What comes

    async def all_ended(
        self,
        read: Callable[[WaitingBatch[L], BatchRecord], Awaitable[None]],
        refused: Callable[[WaitingBatch[L], Refused], list[L]],
        submit_again: Callable[[list[L]], Awaitable[None]],
    ) -> list[L]:
        """Wait for all batches; one that fails does not end the waiting for the others, whose results are kept.

        Parameters
        ----------
        read
            Reads the results of a batch that is fetched.
        refused
            Takes note of a batch that was refused; returns its lines that another one may ask.
        submit_again
            Submits these.

        Returns
        -------
        list
            Lines that were refused for others so often that they are not submitted once more.

        Raises
        ------
        LLMError
            The first failure of a batch, once all others have ended.

        """
        for turn in range(REFUSED_TIMES + 1):
            ended = await asyncio.gather(
                *(self._ended(each, read, refused) for each in self.waiting.values()), return_exceptions=True
            )
            self.waiting.clear()
            again: list[L] = []
            for lines in ended:
                if isinstance(lines, BaseException):
                    raise lines
                again += lines
            if not again or turn == REFUSED_TIMES:
                break
            rest = f"{counted(len(again), self._line)} {'is' if len(again) == 1 else 'are'} submitted again"
            self._say(f"The server refused a batch for other {self._line}s of it: {rest}.")
            await submit_again(again)
        return again

    async def _ended(
        self,
        batch: WaitingBatch[L],
        read: Callable[[WaitingBatch[L], BatchRecord], Awaitable[None]],
        refused: Callable[[WaitingBatch[L], Refused], list[L]],
    ) -> list[L]:
        """Wait for one batch; return those of its lines that another one is to ask."""
        try:
            found = await retrieved(self._state, batch.record)
        except LLMError as error:
            if len(self.waiting) > 1:  # it is raised when the others have ended, which may take a day
                self._say(f"{error.message} Other batches of this run are waited for all the same.")
            raise
        if isinstance(found, Refused):
            self._spending.release(batch.record)
            if rest := refused(batch, found):
                self._state.drop(batch.record)
            return rest
        self._spending.begin(found)
        try:
            await read(batch, found)
        except BaseException:
            self._spending.broke_off(found)
            raise
        self._spending.settle(found)
        self._read.append(found)
        return []

    def have_been_read(self) -> None:
        """Take note that the user has the results of all that ended."""
        for record in self._read:
            self._state.update(record, step="read")
            if self._folder.get(record.id) is None:  # it was removed meanwhile: so are its files
                for path in (self._folder.ids_path, self._folder.output_path, self._folder.errors_path):
                    with suppress(OSError):
                        path(record).unlink()


def new_record(file: InputFile, run: str, target: Target, /, **further: Any) -> BatchRecord:
    """Return the record of a batch whose input file is written, the ids of which are beside it as `ID.ids`.

    Parameters
    ----------
    file
        The file.
    run
        The identity of the run.
    target
        The model as it was asked for, and its provider.
    further
        Other fields.

    """
    return BatchRecord(
        id=file.ids_path.stem,
        run=run,
        provider=target.provider.name,
        url=target.provider.origin().url,
        asked=target.asked,
        rows=file.rows,
        size=file.size,
        digest=file.digest,
        created=max(0.0, time.time()),  # of a clock before 1970 no calendar has a name
        step="written",
        **further,
    )
