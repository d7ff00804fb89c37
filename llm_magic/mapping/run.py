"""One prompt over many inputs: planned and checked when it is made, then asked row by row, and seen on its way."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.display.footer import counted
from llm_magic.display.rows import RowLine, RowsProgress, row_line
from llm_magic.errors import LLMError, OptionError
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.answers.frames import bind_back, check_names
from llm_magic.mapping.answers.statistics import RunningStatistics, Statistics
from llm_magic.mapping.asking.document_asking import is_plain
from llm_magic.mapping.asking.row_asker import RowAsker
from llm_magic.mapping.concurrency import Concurrency
from llm_magic.mapping.estimate import LOOKED_AT, estimate_run, of_sample
from llm_magic.mapping.inputs.order import refuse_iterator, spread
from llm_magic.mapping.inputs.row_prompt import RowPrompt
from llm_magic.mapping.kept.resumption import Resumption
from llm_magic.mapping.kept.store import Store
from llm_magic.mapping.pipeline import Pipeline, RowSource, not_asked
from llm_magic.mapping.requests import RowRequests
from llm_magic.mapping.rows import Outcome, Row, RowRequest
from llm_magic.options.combinations import need_cluster, put_over
from llm_magic.session.neutral_request import NeutralRequest
from llm_magic.session.run_spending import RunSpending
from llm_magic.session.spending import Demand

if TYPE_CHECKING:
    from distributed import Client

    from llm_magic.mapping.concurrency import InFlight
    from llm_magic.mapping.dask.pipeline import ClusterPipeline
    from llm_magic.mapping.engine import Engine, EnginePipeline, FetchedRows
    from llm_magic.mapping.inputs.inputs import Inputs
    from llm_magic.messages import Part, ToolCall
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell, Plan, PlannedModel
    from llm_magic.session.recorder import Recorder
    from llm_magic.wire.call import Preview

PATIENCE = 60.0
"""Seconds that an endpoint is waited for which stops answering, where `--patience` says nothing."""

ANSWER = "answer"
"""The column of answers that are no records, where `--out` names none."""

_TAG = re.compile(r"\{\{\s*([A-Za-z_]\w*)")
_LAST = 5  # rows that are shown as they come
_MOST_NOTES = 10  # of all rows together


class RowsRun:
    """A prompt asked for each row of an input.

    Parameters
    ----------
    session
        Whose settings, providers and accounts these are.
    cell
        The prompt, its options, and the variables that it may name.
    inputs
        The rows.
    on_confirm
        Says whether a call may be carried out, as of `LLM.ask`.
    prompt
        A function that gives the prompt of a row, in the place of the cell's body.
    numbers
        The rows that are asked for; None: all.
    engine
        What asks for them in the place of requests from here: offline batches.
    spending
        What it uses, where a budget is that of several runs; None: its own, by `--budget`.
    binds
        Whether `bound` is called in the end: then names of columns that are there already are refused.

    Raises
    ------
    InputError
        Whatever is wrong with the prompt, the options or the input; nothing was sent.

    """

    is_alone = True
    """Whether it ends what it keeps by itself; else `end_kept` is called once others have ended, too."""
    is_whole = False
    """Whether all rows of the input are answered."""

    def __init__(
        self,
        session: Session,
        cell: Cell,
        inputs: Inputs,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        *,
        prompt: Callable[[Any], Any] | None = None,
        numbers: Sequence[int] | None = None,
        engine: Engine | None = None,
        spending: RunSpending | None = None,
        binds: bool = True,
    ) -> None:
        self.inputs = inputs
        if put_over(cell.options, cell.defaults).chat is None:  # else what was said there goes along with each row
            cell = replace(cell, options=replace(cell.options, once=True))
        self.plan: Plan = session.plan_rows(cell)
        self._engine = engine
        if engine is not None:
            self.plan = engine.planned(self.plan)
        options = self.plan.options
        self._session = session
        self._settings = session.settings
        text = cell.body if prompt is None else prompt
        self._prompt = RowPrompt(text, cell.namespace, session.settings, raw=not cell.template or bool(options.raw))
        notes = self._prompt.check(inputs, may_be_the_same=bool(options.image))
        notes = (*notes, *_on_system(options.system, inputs.names_in_rows()))
        self._notes: dict[str, None] = dict.fromkeys((*session.take_notices(), *self.plan.notes, *notes))
        self._out = cell.options.out or ANSWER
        if binds and inputs.kind != "sequence":
            check_names(inputs.columns, self.plan.spec, self._out, several=self.several)
        if options.sample is not None:
            refuse_iterator(inputs, "--sample")
            numbers = spread(inputs.length or 0, options.sample)
        self._numbers = numbers
        self.total = inputs.length if numbers is None else len(numbers)
        """Rows that are asked for; None where nobody knows."""
        self._order = options.order
        if self._order == "prefix" and inputs.is_iterator and cell.options.order is None:
            self._order = "given"  # what all runs share has no meaning here
        if self._order == "prefix":
            refuse_iterator(inputs, "--order prefix")
        self._recorder = recorder = self._recorder_of(cell)
        self._spending = RunSpending(session.spending, options.budget) if spending is None else spending
        if model := self._model_expected:  # a budget that needs a price is refused before anything else
            provider = self.plan.models[0].target.provider
            budgets = self._spending.budgets(provider)
            self._spending.may_take(provider, model, Demand(0, 0, 0), provider.price(model), budgets)
        need_cluster(cell.options, on_cluster=options.on is not None, servers=self.plan.mcp)
        self._client = None if options.on is None else _client_of(options.on, options.forward_env or ())
        self._resumption = self._resumed() if recorder is None and session.settings.resume else None
        self._asker = RowAsker(
            session,
            self.plan,
            self._spending,
            recorder,
            on_confirm,
            resumption=self._resumption,
            with_keys=engine is not None,
        )
        self._requests = RowRequests(
            inputs,
            self._prompt,
            self._asker,
            numbers=numbers,
            by_prefix=self._order == "prefix",
            images=self._images if options.image else None,
            is_stopped=lambda: self.stopped is not None,
        )
        self.fetched: FetchedRows | None = None
        """What was fetched for rows of this run, to be looked for before these are asked."""
        self.keeps_labels = True
        """Whether `answers` is called in the end; else a label goes with its outcome."""
        self._statistics = RunningStatistics()
        self._last: deque[tuple[Hashable, Outcome]] = deque(maxlen=_LAST)
        self._told = 0  # of these
        self._began = self._ended = 0.0
        self._pipeline: Pipeline | ClusterPipeline | EnginePipeline | None = None

    def _recorder_of(self, cell: Cell) -> Recorder | None:
        """Return what answers rows from the user's recordings, and records them; None where nothing does."""
        recorder = self._session.recorder(self.plan.options, cell)
        if self.plan.options.again and recorder is not None:
            if recorder.mode == "only" and not recorder.enforced:
                raise OptionError("--again and --record only exclude each other: nothing is sent.", "Keep one of them.")
            if recorder.mode == "once":
                return replace(recorder, mode="new")
        return recorder

    def _resumed(self) -> Resumption:
        """Return what earlier runs of the same rows have left."""
        options = self.plan.options
        store = Store.open(self.identity, say=self.say, again=bool(options.again), writes=not options.dry_run)
        return Resumption(store)

    @property
    def identity(self) -> dict[str, Any]:
        """What all rows share, as plain data: a later run of the same goes on with this one."""
        shared = NeutralRequest(self.plan, self.plan.models[0]).data("")
        url = self.plan.models[0].target.provider.origin().url  # another server is behind another one
        return {**shared, "prompt": self._prompt.source, "inputs": self.inputs.kind, "at": url}

    def say(self, text: str) -> None:
        """Add a note."""
        self._notes[text] = None

    @property
    def several(self) -> bool:
        """Whether a value is a list of several answers (`--n`)."""
        return (self.plan.options.parameters.get("n") or 1) > 1

    @property
    def model(self) -> str:
        """The model as asked for."""
        return self.plan.models[0].target.asked

    @property
    def label(self) -> str:
        """What the labels of the rows are called: the name of a frame's index; else empty."""
        return str(getattr(getattr(self.inputs.source, "index", None), "name", None) or "")

    @property
    def column(self) -> str:
        """What answers that are no records are called."""
        return self._out

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came, and what is done next."""
        if self._engine is not None and (said := self._engine.how_far()):
            return said
        if self._requests.is_looking_up:
            return "stopped while answers of an earlier run were looked up; they are kept: run it again to go on."
        done, total = self.answered, self.total
        of = f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"
        if self.keeps_answers:
            return f"stopped; {of} are answered, and kept: run it again to go on from there."
        return f"stopped; {of} were answered, and none are kept (LLMMagics.resume is off)."

    @property
    def answered(self) -> int:
        """Rows with an answer so far, those of an earlier run among them."""
        return self._statistics.answered + self._requests.known

    @property
    def keeps_answers(self) -> bool:
        """Whether a later run of the same finds the answers of this one."""
        return self._resumption is not None or self._recorder is not None

    @property
    def stopped(self) -> LLMError | None:
        """Why not all rows were asked; None where they were."""
        return None if self._pipeline is None else self._pipeline.stopped

    def _concurrency(self) -> Concurrency:
        given = self.plan.options.concurrency
        concurrency = Concurrency(self.plan.models[0].target.provider.concurrency if given is None else given)
        if concurrency.note:
            self.say(concurrency.note)
        return concurrency

    def _images(self, row: Row) -> tuple[Part, ...]:
        from collections import ChainMap

        from llm_magic.session.plan import images

        names = ChainMap(dict(row.names), dict(self.plan.cell.namespace))
        parts, notes = images(self.plan.options, names, self._settings)
        self._notes |= dict.fromkeys(notes)
        return parts

    async def preview(self) -> Preview:
        """Return the request of the first row as it would be sent, and what all would take; nothing is sent."""
        from llm_magic.session.dry_run import is_recorded, preview, with_tools

        requests, known, wrong = await asyncio.to_thread(self._requests.some, LOOKED_AT)
        first = next(iter((*requests, *known)), None)
        if first is None and wrong and wrong[0].error is not None:
            raise wrong[0].error
        if first is None:
            raise OptionError(f"{self.inputs.name} has no rows.", "There is nothing to ask.")
        plan = replace(self.plan, parts=first.parts, notes=tuple(self.take_notes()))
        if is_plain(plan):
            plan = replace(plan, models=tuple(map(_by_document, plan.models)))
        plan = await with_tools(plan, self._session.servers_of(plan), self._recorder)
        self.plan = replace(self.plan, tools=plan.tools, mcp=plan.mcp)
        with self._session.registry.explaining():
            shown = await preview(plan, self._spending, self._recorder)
        resumption, recorder = self._resumption, self._recorder
        looked_at, requests = requests, []
        in_batches = frozenset[str]() if self._engine is None else self._engine.asked_before(self)
        for row in looked_at:
            if row.key[:32] in in_batches:
                answered = True
            elif resumption is not None:  # of rows that a run each looks for
                answered = resumption.take(row.key) is not None
            else:
                answered = recorder is not None and is_recorded(replace(self.plan, parts=row.parts), recorder)
            (known if answered else requests).append(row)
        said = ["This is the request of the first row.", *self._estimated(requests, len(known), shown)]
        if self._engine is not None:
            said += self._engine.previewed(self.total)
        if wrong:
            said.append(
                f"{counted(len(wrong), 'prompt')} cannot be made, the first of row {wrong[0].number}: "
                f"{wrong[0].error}".replace("\n", " ")
            )
        return replace(shown, estimate=None, notes=(*said, *shown.notes))

    def _estimated(self, requests: list[RowRequest], known: int, shown: Preview) -> tuple[str, ...]:
        """Return in lines what all rows would take, of which these are asked."""
        if shown.estimate is None:
            return ()
        planned = self.plan.models[0]
        provider, model = planned.target.provider, self._model_expected
        price, total = provider.price(model), self.total
        if self._engine is not None:
            price = self._engine.price(price)
        looked_at = known + len(requests)
        answered = known if total is None or looked_at >= total else round(known / looked_at * total)
        found = estimate_run(
            [row.parts for row in requests],
            Demand(shown.estimate.tokens, 0, shown.estimate.most),
            rows=None if self.inputs.is_iterator else total,
            answered=answered,
            assumed=self._settings.budget_tokens_per_request,
            price=price,
            once=self._asker.asks_equal_once,
        )
        if provider.is_free:
            return found.lines()
        if self._engine is not None:
            return found.lines(self._engine.unknown_price(provider, model))
        example = json.dumps({model or "MODEL": {"input": 2.5, "output": 10}})
        return found.lines(f"No price is known. {provider.price_hint(example)}")

    @property
    def _model_expected(self) -> str:
        """The model that is asked first, as far as that is known without asking; else empty."""
        target = self.plan.models[0].target
        listed = target.provider.cached_models or ()
        return target.provider.listed_model(target.model) or (listed[0].id if listed else "")

    def of_sample(self, answers: Answers) -> str:
        """Return in a line what a sample took, and what all rows would."""
        total = self.inputs.length or len(answers)
        return of_sample(answers.outcomes, total, self.seconds, self._concurrency().allowed)

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Ask, and yield the outcomes as they come, some at a time, in any order; leaving it closes what is in flight.

        Raises
        ------
        InputError
            What the input raised while it was read.

        """
        self._began = time.perf_counter()
        try:
            if self.plan.mcp:
                found = await self._asker.find_server_tools()
                self.plan = replace(self.plan, tools=found.tools, mcp=())
            await self._asker.begin()
            async with aclosing(self._asked(await self._looked_up())) as stream:
                async for batch in stream:
                    yield self._counted(batch)
            again = self._requests.take_unusable()
            if again and self.stopped is not None:
                error = not_asked(self.stopped)
                yield self._counted([Outcome(row.number, error=error) for row in again])
            elif again:
                async with aclosing(self._asked(iter(again))) as stream:
                    async for batch in stream:
                        yield self._counted(batch)
            if self.fetched is not None:
                await self.fetched.ended()
            self.is_whole = self._numbers is None and not self._statistics.failures
        finally:
            self._ended = time.perf_counter()
            self._requests.close()
            if self.is_alone:
                self.end_kept(whole=self.is_whole)
            if self.fetched is not None:
                await self.fetched.aclose()
            await self._asker.aclose()

    def end_kept(self, *, whole: bool) -> None:
        """End what is kept: of a run that is `whole` nothing is needed any more, of any other a later one goes on."""
        if self._resumption is not None:
            self._resumption.store.ended(whole=whole)

    async def _asked(self, requests: Iterator[RowRequest]) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes of requests, and of rows that need none."""
        self._pipeline = pipeline = self._pipeline_of(requests)
        known, raised = asyncio.ensure_future(self._requests.hand_on(pipeline)), None
        try:
            try:
                async with aclosing(pipeline.outcomes()) as stream:
                    async for batch in stream:
                        yield batch
            except LLMError as error:  # of the input: the rows before are answered all the same
                raised = error
            known.cancel()  # what it put now would be heard by nobody
            while self._requests.is_ready:
                yield self._requests.take_ready()
                await asyncio.sleep(0)
            if raised is not None:
                raise raised
        finally:
            known.cancel()

    def _pipeline_of(self, requests: Iterator[RowRequest]) -> Pipeline | ClusterPipeline | EnginePipeline:
        options, reads = self.plan.options, self.inputs.is_iterator
        if self._engine is not None:
            return self._engine.pipeline(self, self._asker, self._spending, requests)
        patience = PATIENCE if options.patience is None else options.patience
        if self._client is None:
            waits = self.inputs.may_wait or self._prompt.may_wait or bool(options.image)
            source = RowSource(requests, waits=waits, ends=not reads)
            return Pipeline(source, self._ask, self._concurrency(), patience)
        from llm_magic.mapping.dask.pipeline import ClusterPipeline

        provider = self.plan.models[0].target.provider
        return ClusterPipeline(
            self._session,
            self.plan,
            self._client,
            self._requests.not_recorded(requests),
            rereads=not reads,
            concurrency=provider.concurrency if options.concurrency is None else options.concurrency,
            patience=patience,
            total=self.total,
            equal_once=self._asker.asks_equal_once,
            keep=self._asker.keep,
            say=self.say,
        )

    async def _ask(self, row: RowRequest, in_flight: InFlight | None = None) -> Outcome:
        """Return the outcome of a row: one that was fetched, else what comes when it is asked."""
        if self.fetched is not None and (outcome := await self.fetched.outcome(row, self._asker)) is not None:
            return outcome
        return await self._asker.ask(row, in_flight)

    def asker_of(self, plan: Plan) -> RowAsker:
        """Return what asks for rows as this run does, by a plan that differs in how."""
        return RowAsker(self._session, plan, self._spending, self._recorder, resumption=self._resumption)

    def take_ready(self) -> list[Outcome]:
        """Return the outcomes of rows that need not be asked, of those that nobody has yet."""
        found: list[Outcome] = []
        while self._requests.is_ready:
            found += self._requests.take_ready()
        return found

    async def _looked_up(self) -> Iterator[RowRequest]:
        """Return what is to be asked; where an earlier run has left answers, once it is known to how many rows."""
        if self._resumption is None or not len(self._resumption.store):
            return self._requests.all()
        if self.inputs.is_iterator or not self._asker.looks_up_rows:
            self.say("Answers of an earlier run are used where the same is asked (--again asks for all).")
            return self._requests.all()
        found, known = await self._requests.looked_up()
        if known and self.total is not None:
            rest = "asking for the rest" if self._engine is None else self._engine.for_the_rest
            rest = rest if known < self.total else "nothing is asked"
            self.say(f"{known:,} of {self.total:,} answered before; {rest} (--again asks for all).")
        return found

    def _counted(self, batch: list[Outcome]) -> list[Outcome]:
        for outcome in batch:
            self._statistics.add(outcome)
            response = outcome.response
            if response is not None and response.notes and len(self._notes) < _MOST_NOTES:
                self._notes |= dict.fromkeys(response.notes)
        self._last += [(self._requests.labels.get(each.number, each.number), each) for each in batch[-_LAST:]]
        if not self.keeps_labels:
            for outcome in batch:
                self._requests.labels.pop(outcome.number, None)
        return batch

    async def collect(self) -> Answers:
        """Ask, and return all answers in the order of the rows."""
        found: list[Outcome] = []
        async with aclosing(self.outcomes()) as stream:
            async for batch in stream:
                found += batch
        return self.answers(found)

    def answers(self, outcomes: list[Outcome]) -> Answers:
        """Return the answers that outcomes make."""
        labels_of = self._requests.labels
        if self._numbers is not None:
            places = {number: place for place, number in enumerate(self._numbers)}
            labels: list[Hashable] = [labels_of.get(number, number) for number in self._numbers]
            outcomes = [replace(each, number=places[each.number]) for each in outcomes]
        else:
            labels = (
                [self._requests.labels.get(number, number) for number in range(len(outcomes))]
                if self._requests.labels
                else []
            )
        return Answers(
            outcomes,
            labels or None,
            spec=self.plan.spec,
            several=self.several,
            seconds=self.seconds,
            notes=self.notes,
        )

    def bound(self, answers: Answers) -> Any:
        """Return what a variable is bound to: the input's DataFrame with the answers, else these."""
        if self.inputs.kind == "sequence":
            return answers
        return bind_back(
            self.inputs.source,
            self.inputs.kind,
            answers.outcomes,
            self.plan.spec,
            self._out,
            several=self.several,
        )

    @property
    def seconds(self) -> float:
        """Seconds since it began, until its end."""
        return (self._ended or time.perf_counter()) - self._began if self._began else 0.0

    def statistics(self) -> Statistics:
        """Return the statistics so far."""
        return self._statistics.after(self.seconds)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know so far; what is to be said of rows, at the end."""
        self._notes |= dict.fromkeys(self._asker.notes)
        if self._ended:
            self._notes |= dict.fromkeys(self._prompt.notes)
        return tuple(self._notes)

    def take_notes(self) -> list[str]:
        """Return those of the notes that the user has not been told."""
        notes = self.notes
        told, self._told = self._told, len(notes)
        return list(notes[told:])

    def _line(self, row: tuple[Hashable, Outcome]) -> RowLine:
        """Return a row that has ended as a line; only a few are ever seen."""
        label, outcome = row
        return row_line(label, outcome.value, outcome.error)

    def progress(self) -> RowsProgress:
        """Return how far it is; any thread may ask."""
        so_far, pipeline, seconds = self.statistics(), self._pipeline, self.seconds
        batches = self._engine.progress() if self._engine is not None else ()
        asked = so_far.rows - so_far.known
        rate = asked / seconds if seconds > 0 else 0.0
        left = None if self.total is None else max(0, self.total - so_far.rows)
        cost_at_end = None
        if so_far.cost is not None and left is not None and asked:
            cost_at_end = so_far.cost * (1 + left / asked)
        return RowsProgress(
            total=self.total,
            done=so_far.rows,
            failed=so_far.failed,
            known=so_far.known,
            recorded=so_far.recorded,
            in_flight=0 if pipeline is None else pipeline.in_flight,
            seconds=seconds,
            rate=rate,
            seconds_left=left / rate if left is not None and rate else None,
            usage=so_far.usage,
            cost=so_far.cost,
            cost_at_end=cost_at_end,
            failures=so_far.failures,
            last=tuple(map(self._line, tuple(self._last))),
            waiting="" if batches else self._waiting(),
            batches=batches,
        )

    def _waiting(self) -> str:
        """Return what all rows wait for."""
        if self._pipeline is None or self._ended:
            return ""
        limits = self._spending.rate_limits.of(self.plan.models[0].target.provider)
        return self._pipeline.waiting or limits.line(model=self._asker.model)


def _by_document(planned: PlannedModel) -> PlannedModel:
    """Return a model as rows ask it for one document each: nothing streams."""
    return replace(planned, options=replace(planned.options, stream=None, no_stream=True))


def _on_system(system: str | None, names: Collection[str]) -> Iterator[str]:
    """Yield what is to be said of a system prompt that names what differs from row to row."""
    named = dict.fromkeys(name for name in _TAG.findall(system or "") if name in names)
    if named:
        tags = " and ".join(f"{{{{ {name} }}}}" for name in named)
        stands = "is sent as it stands" if len(named) == 1 else "are sent as they stand"
        yield f"The system prompt is no template: {tags} {stands}. The prompt can name what differs from row to row."


def _client_of(on: Any, forward_env: Sequence[str]) -> Client:
    from llm_magic.mapping.dask.client import client_of
    from llm_magic.mapping.dask.variables import forwarded

    forwarded(forward_env)  # one that is not set is said before a scheduler is waited for
    return client_of(on)
