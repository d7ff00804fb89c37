"""`--batch-file`: the rows of a cell in a file that another program asks for, such as vLLM's `run_batch`.

Nothing is sent. What that program wrote is fetched (`llm_magic.batches.fetched_file`), and found by the next run of the
same cell, whether that has `--batch-file` or not.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from llm_magic.batches.bodies import RequestBodies
from llm_magic.batches.engine import PricedAsBatch, asked_once
from llm_magic.batches.equal_rows import EqualRows
from llm_magic.batches.file_place import FilePlace
from llm_magic.batches.found_results import FoundResult, FoundResults, ids_of
from llm_magic.batches.input_file import InputFileWriter, read_ids
from llm_magic.batches.kept_batches import BatchFolder
from llm_magic.batches.pipeline import record_of_rows
from llm_magic.batches.reading import ResultReader
from llm_magic.batches.record import BatchRecord
from llm_magic.batches.retrieval import missing
from llm_magic.config.references import dry_run
from llm_magic.config.trust import printable
from llm_magic.display.footer import counted
from llm_magic.errors import LLMError, OptionError
from llm_magic.mapping.asking.row_asker import RowAsker, failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.providers.batches import line_url, refuse_batch_file
from llm_magic.providers.vllm import VLLMProvider
from llm_magic.recordings.locked_file import reason
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.display.batches import BatchProgress
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.mapping.run import RowsRun
    from llm_magic.session import Session
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.session.run_spending import RunSpending

_AT_ONCE = 500  # rows that are rendered, or read, before others get a turn
_A_TURN = 50  # rows after which others get one
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """What a run has written in the place of asking."""

    place: FilePlace
    model: str
    rows: int
    """How many rows are in the file; 0: none was written."""
    answered: int = 0
    """Rows of the run that have an answer by now."""
    elsewhere: int = 0
    """Rows that a batch at a server has."""
    wrong: tuple[Outcome, ...] = ()
    """Rows that can be asked for nowhere."""
    is_new: bool = True
    """Whether it was written now; else the file had these rows."""
    is_vllm: bool = False

    @property
    def command(self) -> str:
        """The command that asks for the rows, where it is known which; else empty."""
        if not self.is_vllm or not self.rows:
            return ""
        named = shlex.quote(self.model)
        model = f"--model {named}" if "/" in self.model else f"--model MODEL --served-model-name {named}"
        files = f"-i {shlex.quote(self.place.said)} -o {shlex.quote(self.place.output)}"
        return f"vllm run-batch {files} {model}"

    def lines(self, out: str) -> list[str]:
        """Return what is to be told; `out` is the name that the cell binds, else empty."""
        others = [f"{counted(self.answered, 'row')} answered before"] if self.answered else []
        others += [f"{counted(self.elsewhere, 'row')} in a batch that goes on at its server"] if self.elsewhere else []
        if self.wrong:
            why = str(self.wrong[0].error).replace("\n", " ")
            others.append(f"{counted(len(self.wrong), 'row')} that cannot be asked for, the first: {why}")
        besides = f" ({'; '.join(others)})" if others else ""
        unbound = f", and {out} is not bound" if out else ""
        if not self.rows:
            waits = ["Run the cell with --batch to wait for that."] if self.elsewhere else []
            return [f"Nothing is written{unbound}{besides}.", *waits]
        has = "has" if self.is_new else "has as before"
        first = f"{self.place.named} {has} {counted(self.rows, 'row')}{besides}. Nothing was sent{unbound}."
        asks = (
            self.command or f"A program that reads the Batch API's format asks for them, and writes {self.place.output}"
        )
        weights = "" if not self.command or "/" in self.model else "MODEL is the folder, or the name, of the weights. "
        fetch = f"%llm_batch fetch {shlex.quote(self.place.output)}"
        then = f"{weights}Then {fetch}, and run this cell again: it has the answers."
        return [first, f"{asks}{'' if self.command else '.'}", then]


class RowsWritten(Exception):  # noqa: N818 - the good end of a run
    """A run has written its rows into a file, and none has an outcome yet."""

    def __init__(self, written: WrittenRows) -> None:
        super().__init__(written)
        self.written = written


class BatchFileEngine(PricedAsBatch):
    """Writes the rows of one run into a file, or has their answers where all are fetched.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    named
        The path of the file.
    folder
        Remembers batches; None: that of the user.

    """

    for_the_rest = "the others are written"

    def __init__(self, session: Session, named: str, folder: BatchFolder | None = None) -> None:
        self.session = session
        self.place = FilePlace(named)
        self.folder = folder or BatchFolder()
        self.again = False

    def planned(self, plan: Plan) -> Plan:
        """Return the plan as a file has it: of one model, asked once, whose calls of tools are the answer.

        Raises
        ------
        InputError
            The model is not known, or nothing could read such a file.

        """
        first = plan.models[0]
        provider, model = first.target.provider, first.target.model
        if not model and not provider.cached_models:
            raise OptionError(
                f"--batch-file needs the name of the model, and {provider.name}: is the first one that a server lists.",
                f"Name it: -m {provider.name}:MODEL; with --batch-file nothing is sent.",
            )
        capabilities = provider.capabilities(model)
        if first.options.api is not None:
            capabilities = replace(capabilities, api=first.options.api)
        refuse_batch_file(provider, capabilities, model)
        self.again = bool(first.options.again)
        return asked_once(
            plan,
            fallbacks="Fallbacks are not in the file: all its rows are those of one model.",
            tools="Calls of tools are not carried out there: .responses[N].tool_calls will have them.",
        )

    def pipeline(
        self, run: RunOfEngine, asker: RowAsker, spending: RunSpending, requests: Iterator[RowRequest]
    ) -> BatchFilePipeline:
        """Return what writes the rows; nothing is spent by it."""
        del spending
        return BatchFilePipeline(self, run, asker, requests)

    def progress(self) -> tuple[BatchProgress, ...]:
        """Return nothing: no server has the rows."""
        return ()

    def asked_before(self, run: RunOfEngine) -> frozenset[str]:
        """Return nothing: what is written is not what is asked."""
        del run
        return frozenset()

    def previewed(self, rows: int | None) -> tuple[str, ...]:
        """Return how so many rows would be written."""
        del rows
        return (f"With --batch-file, its body is one line of {self.place.named}, which a dry run does not write.",)

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came."""
        return f"stopped; {self.place.named} is as it was, and nothing was sent."


class BatchFilePipeline:
    """Writes the rows of a run that have no answer yet; where all have one, or a failure that is new, they are it.

    Parameters
    ----------
    engine
        Has the place of the file.
    run, asker
        Of the run.
    requests
        The rows that are to be asked; read on a thread of its own.

    """

    stopped: LLMError | None = None
    waiting = ""
    in_flight = 0

    def __init__(
        self, engine: BatchFileEngine, run: RunOfEngine, asker: RowAsker, requests: Iterator[RowRequest]
    ) -> None:
        self._engine, self._run, self._asker, self._requests = engine, run, asker, requests
        self._folder, self._identity = engine.folder, key_of(run.identity)
        self._there: list[Outcome] = []
        self._equal = EqualRows(asker)

    def put(self, outcomes: list[Outcome]) -> None:
        """Take outcomes of rows that need not be asked."""
        self._there += outcomes

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes where all rows have one.

        Raises
        ------
        RowsWritten
            Rows were written into the file.
        LLMError
            They cannot be.

        """
        with kept_in_reach():
            bound = await self._asker.bound()
            with dry_run():  # no key is needed for what is not sent
                bodies = await RequestBodies.of(self._run.plan, bound)
            try:
                reader = ResultReader(self._engine.session, self._run.plan, bound, bodies, self._asker)
                async with self._folder.turn(self._identity, say=self._run.say):
                    async for some in self._settled(bound, bodies, reader):
                        yield some
            finally:
                await bodies.aclose()
        while there := self._taken():
            yield there

    def _taken(self) -> list[Outcome]:
        there, self._there = self._there, []
        return there

    async def _settled(
        self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader
    ) -> AsyncGenerator[list[Outcome], None]:
        rows = await self._rows()
        records = [] if self._engine.again else self._folder.of_run(self._identity)
        new, old = await asyncio.to_thread(self._found, records)
        fetched: list[tuple[RowRequest, FoundResult]] = []
        left: list[RowRequest] = []
        under_way = await asyncio.to_thread(self._under_way, records)
        elsewhere = known = earlier = 0
        for number, row in enumerate(rows):
            await _turn(number)
            if (found := new.take(row)) is not None:
                fetched.append((row, found))
            elif (outcome := await self._answer(reader, row, old.take(row))) is not None:
                self._hand_on(replace(outcome, known=True))
                earlier += 1
            elif row.key[:32] in under_way:
                elsewhere += 1
            else:
                left.append(row)
        if earlier:
            are = "is" if earlier == 1 else "are"
            self._run.say(f"{counted(earlier, 'row')} {are} answered by a batch of an earlier run (--again asks anew).")
        if left or elsewhere:
            for number, (row, found) in enumerate(fetched):
                await _turn(number)
                if await self._answer(reader, row, found) is None:
                    left.append(row)
                else:
                    known += 1
            left.sort(key=lambda row: row.number)
            self.put(self._run.take_ready())
            answered = sum(outcome.error is None for outcome in self._there) + known
            said = WrittenRows(self._engine.place, bound.model, 0, answered, elsewhere, is_vllm=_is_vllm(bound))
            raise RowsWritten(await self._written(said, bound, bodies, left))
        for number, (row, found) in enumerate(fetched):
            self._hand_on(await outcome_of(reader, row, found))
            await _turn(number)
            if number % _AT_ONCE == 0:
                yield self._taken()
        while there := self._taken():
            yield there
        _have_been_read(self._folder, new.records, self._run.say)  # whoever took them has them

    async def _rows(self) -> list[RowRequest]:
        """Return the rows that no earlier run has answered, of equal ones the first where they are asked once."""
        rows: list[RowRequest] = []
        while some := await asyncio.to_thread(list, islice(self._requests, _AT_ONCE)):
            for row in some:
                if (outcome := await self._asker.answered_before(row)) is not None:
                    self.put([outcome])
                elif not self._equal.is_copy(row):
                    rows.append(row)
        return rows

    def _hand_on(self, outcome: Outcome) -> None:
        self.put(self._equal.outcomes(outcome))

    def _found(self, records: list[BatchRecord]) -> tuple[FoundResults, FoundResults]:
        """Return the results that nobody has read, and those that an earlier run has."""
        new = [each for each in records if each.step == "fetched"]
        return FoundResults(self._folder, new), FoundResults(
            self._folder, [each for each in records if each.step == "read"]
        )

    def _under_way(self, records: list[BatchRecord]) -> set[str]:
        """Return the beginnings of the keys of rows that batches at a server have."""
        found: set[str] = set()
        for record in records:
            if not record.file and not record.is_over and not record.has_reached("fetched"):
                found |= {name.partition("-")[2] for name in ids_of(self._folder, record)}
        return found

    async def _answer(self, reader: ResultReader, row: RowRequest, found: FoundResult | None) -> Outcome | None:
        """Return the outcome of a result that answers; None of any other."""
        if found is None or not found.is_answer:
            return None
        outcome = await outcome_of(reader, row, found, counts=False)
        return outcome if outcome.error is None else None

    async def _written(
        self, said: WrittenRows, bound: BoundModel, bodies: RequestBodies, rows: list[RowRequest]
    ) -> WrittenRows:
        """Write rows into the file, and remember it; return what is said of it, with them."""
        place, wrong = self._engine.place, [each for each in self._there if each.error is not None]
        if not rows:
            return replace(said, wrong=tuple(wrong))
        ours = [each for each in self._folder.of_run(self._identity) if each.file]
        others = {each.digest for each in self._folder.all() if each.file}
        there = await asyncio.to_thread(place.digest, {each.digest for each in ours}, others)
        name, part = self._folder.new_id(), place.part()
        writer = InputFileWriter(
            lambda _: (part, self._folder.ids_path(name)),
            line_url(bound.capabilities),
            most_rows=_NO_LIMIT,  # those of the Batch API's servers: a file of one's own has none
            most_bytes=_NO_LIMIT,
        )
        try:
            with place.written(), dry_run():
                for number, row in enumerate(rows):
                    try:
                        writer.write(row.number, row.key, await bodies.body(row))
                    except LLMError as error:
                        wrong.append(failed(row.number, error))
                    await _turn(number)
                files = await asyncio.to_thread(writer.close)
            if not files:
                return replace(said, wrong=tuple(wrong))
            (file,) = files
            said = replace(said, rows=file.rows, wrong=tuple(wrong))
            if file.digest == there:
                writer.discard()
                return replace(said, is_new=False)
            record = record_of_rows(file, self._identity, self._run.plan, bound, file=str(place.path))
            self._folder.add(record)
            try:
                with place.written():
                    place.put(part, replaces=there is not None)
            except BaseException:
                self._folder.remove(name)
                raise
        except BaseException:
            writer.discard()
            raise
        self._forget(ours, name)
        return said

    def _forget(self, records: list[BatchRecord], name: str) -> None:
        """Forget files of this cell whose rows all are in the new one, too."""
        waiting = [each for each in records if each.file and each.step == "written"]
        if not waiting:
            return
        there = set(read_ids(self._folder.ids_path(name)))
        for record in waiting:
            with suppress(OSError):
                if there.issuperset(ids_of(self._folder, record)):
                    self._folder.remove(record)


def _have_been_read(folder: BatchFolder, records: Iterable[BatchRecord], say: Callable[[str], None]) -> None:
    """Take note that the user has what was fetched; where that fails, the next run has it once more."""
    try:
        for record in records:
            folder.update(record.id, step="read")
    except OSError as error:
        say(f"It cannot be noted that this was read, and the next run has it once more: {reason(error)}.")


async def _turn(number: int) -> None:
    """Let others have a turn, once in some rows: an interrupt, and the cells that ask meanwhile."""
    if number % _A_TURN == 0:
        await asyncio.sleep(0)


def _is_vllm(bound: BoundModel) -> bool:
    return isinstance(bound.provider, VLLMProvider)


async def outcome_of(reader: ResultReader, row: RowRequest, found: FoundResult, *, counts: bool = True) -> Outcome:
    """Return the outcome of a row that was fetched; `counts` as of `ResultReader.outcome`."""
    result = found.read()
    if result is None:
        return failed(row.number, missing(found.record))
    return await reader.outcome(row, result, found.record, counts=counts)


class FetchedRows:
    """The answers to rows of a run that asks now, which a batch of an earlier run of the same has fetched.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    run
        The run.
    found
        What was fetched.
    folder
        Remembers batches.

    """

    def __init__(self, session: Session, run: RowsRun, found: FoundResults, folder: BatchFolder) -> None:
        self._session, self._run, self._found, self._folder = session, run, found, folder
        self._reader: ResultReader | None = None
        self._asker: RowAsker | None = None
        self._bodies: RequestBodies | None = None
        self._preparing = asyncio.Lock()

    async def outcome(self, row: RowRequest, asker: RowAsker) -> Outcome | None:
        """Return the outcome of a row; None where it is to be asked."""
        with kept_in_reach():
            found = self._found.take(row, "" if row.key else asker.key(row.parts), again=asker.asks_equal_once)
            if found is None or found.place is None:
                return None
            async with self._preparing:
                reader = self._reader or await self._prepared()
            return await outcome_of(reader, row, found)

    async def _prepared(self) -> ResultReader:
        plan = self._run.plan
        first = plan.models[0]
        options = replace(first.options, retries_invalid=0)  # what is invalid was asked elsewhere
        plan = replace(plan, models=(replace(first, options=options),))
        self._asker = asker = self._run.asker_of(plan)
        bound = await asker.bound()
        with dry_run():
            self._bodies = await RequestBodies.of(plan, bound)
        self._reader = ResultReader(self._session, plan, bound, self._bodies, asker)
        return self._reader

    async def ended(self) -> None:
        """Take note that the run has ended, and its user has what was fetched."""
        _have_been_read(self._folder, self._found.records, self._run.say)

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._bodies is not None:
            await self._bodies.aclose()
        if self._asker is not None:
            await self._asker.aclose()


def fetched_rows(session: Session, run: RowsRun, folder: BatchFolder | None = None) -> FetchedRows | None:
    """Return what a file of this run's rows has as answers that nobody has read; None where there is nothing.

    What cannot be looked at is none: the rows are asked.
    """
    folder = folder or BatchFolder(say=run.say)
    options = run.plan.options
    if options.again or options.on is not None or run.plan.tools:
        return None
    try:
        if not folder.place.is_dir():
            return None
        identity = key_of(run.identity)
        records = [each for each in folder.of_run(identity) if each.file and each.step == "fetched"]
        return FetchedRows(session, run, FoundResults(folder, records), folder) if records else None
    except OSError:
        return None


@contextmanager
def kept_in_reach() -> Iterator[None]:
    """Raise what the system says of the folder of batches as an error of ours."""
    try:
        yield
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        raise LLMError(
            f"The batches that are kept cannot be reached: {where}{reason(error)}.",
            "XDG_STATE_HOME names another place for them.",
        ) from None
