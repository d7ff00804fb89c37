"""`LLM`: what the magics do, from Python; they share the registry, the configuration and the work of a cell."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict, Unpack, overload
from uuid import uuid4

from llm_magic.arguments import (
    cannot_confirm,
    read_models,
    read_models_of_rows,
    read_on_progress,
    read_options,
    read_prompt,
)
from llm_magic.background_loop import AHEAD, arriving, awaited
from llm_magic.errors import Interrupted, LLMError

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.batches.batch import Batch
    from llm_magic.comparison.responses import Comparison
    from llm_magic.comparison.rows.answers import ComparedAnswers
    from llm_magic.comparison.rows.call import ComparedAnswersToCome, ComparedCall
    from llm_magic.comparison.run import ComparisonRun
    from llm_magic.embeddings import Vectors
    from llm_magic.embeddings.run import Embedding
    from llm_magic.events import Event
    from llm_magic.ledger import UsageRow
    from llm_magic.mapping.answers.answers import Answers
    from llm_magic.mapping.call import AnswersToCome, MapCall
    from llm_magic.mapping.engine import Engine
    from llm_magic.messages import Message
    from llm_magic.options import AskOptions, BatchOptions, CompareOptions, DefaultOptions, MapOptions, Record
    from llm_magic.options.mapping import Rows
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.response import Response
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell
    from llm_magic.session.portable import PortableSettings
    from llm_magic.session.run import Run
    from llm_magic.session.tool_runner import RunEvent

Prompt: TypeAlias = "str | Sequence[Mapping[str, Any] | Message]"
"""A text, or a list of messages."""

_active: Session | None = None
_activating = threading.Lock()


def activate(session: Session | None) -> None:
    """Make `session` the one that an `LLM` uses; the extension calls it."""
    global _active  # noqa: PLW0603 - one notebook, one session
    _active = session


def active_session() -> Session:
    """Return the session of the loaded extension, else one of its own, configured by the project's file."""
    if _active is not None:
        return _active
    from llm_magic.config.settings import Settings
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.session import Session

    with _activating:
        if _active is None:  # else another thread has made it meanwhile
            settings = Settings()
            registry = ProviderRegistry(parent=settings)
            registry.apply_project(settings)
            activate(Session(settings, registry))
    return active_session()


def registry() -> ProviderRegistry:
    """Return the providers that the magics and every `LLM` ask.

    >>> "openai" in registry().names()
    True

    """
    return active_session().registry


def usage() -> tuple[UsageRow, ...]:
    """Return what was used so far: a row for each provider and model, in the order of their first use.

    Each has `requests`, `failed`, `answers`, tokens, `seconds` and `cost` (US dollars, None where no price is known).
    `seconds` are those of the clock in which requests were under way, so those of several rows may overlap; `uncounted`
    and `unpriced` are requests whose tokens or price nobody told; `recorded` counts answers that came from recordings,
    which count in nothing else.
    """
    rows: dict[tuple[str, str], UsageRow] = {}
    for session in (active_session(), *_of_carried.values()):
        for row in session.ledger.rows():
            name = row.provider, row.model
            rows[name] = rows[name] + row if name in rows else row
    return tuple(rows.values())


@dataclass(frozen=True, slots=True)
class CarriedSettings:
    """The settings that an `LLM` takes along in a pickle: whose they are, and what tells them from others of his."""

    id: str
    session: str
    data: PortableSettings

    @classmethod
    def of(cls, last: CarriedSettings | None, session: str, data: PortableSettings) -> CarriedSettings:
        """Return these settings; the `last` ones where they are the same, so that they make one session there."""
        with suppress(Exception):  # what a class of the user's raises when it is compared
            if last is not None and bool(last.data == data):
                return last
        return cls(uuid4().hex, session, data)


_of_carried: dict[str, Session] = {}


def _is_of_active(carried: CarriedSettings) -> bool:
    """Whether settings are those of the active session, which may have others by now."""
    return _active is not None and _active.id == carried.session


def _session_of(carried: CarriedSettings) -> Session:
    """Return the session made from settings that came from another process, one for all that share them."""
    from llm_magic.session import Session
    from llm_magic.session.portable import settings_there

    with _activating:
        if carried.id not in _of_carried:
            _of_carried[carried.id] = Session(*settings_there(carried.data))
        return _of_carried[carried.id]


class EmbedOptions(TypedDict, total=False):
    """The options of `%%llm_embed`, as keyword arguments; `embed` describes them."""

    dimensions: int
    batch: int
    param: dict[str, Any]
    header: dict[str, str]
    base_url: str
    timeout: float
    retries: int
    record: Record


class EmbedBatchOptions(EmbedOptions, total=False):
    """The options of `%%llm_embed --batch-api` as keyword arguments of `LLM.embed_batch`, which describes them."""

    poll: float
    again: bool


class LLM:
    """A language model to ask from Python.

    It is a name and options, and holds no connection: it may be copied and pickled, and used from several threads,
    event loops and forked processes at once.

    A pickle takes along the settings that are in force for its model: provider, aliases, parameters, prices. In another
    process they hold for it alone, whatever is configured there. Keys do not travel: each process reads its own
    environment; a budget counts in each process by itself. `PicklingError` says what cannot travel: a secret, a
    registered client, a class that cannot be imported there. In the process that made it, it stays with its session.

    Parameters
    ----------
    model
        As `--model` takes it: an alias, `provider:model`, or a name that a route knows. Empty: the default. Several,
        with commas or in a list, are those that `compare` asks.
    defaults
        Options of every call, as `ask` and `map` take them; those of a call are over them.

    Raises
    ------
    OptionError
        An unknown name, or a value that it does not take.

    Examples
    --------
    >>> llm = LLM("local:smollm2", temperature=0)  # doctest: +SKIP
    >>> llm.ask("What is 2 + 2?", output_type=int).value  # doctest: +SKIP
    4

    """

    def __init__(self, model: str | Sequence[str] | None = "", **defaults: Unpack[DefaultOptions]) -> None:
        from llm_magic.config.references import mark_secrets
        from llm_magic.options.keywords_in_errors import naming_keywords

        model = read_models(model, "LLM: model")
        values: dict[str, Any] = {**defaults}
        self._on_confirm: Any = values.pop("on_confirm", None)
        with naming_keywords():
            self._options = read_options(values, "LLM", "defaults")
        self.model = model
        self._carried: CarriedSettings | None = None
        self.defaults: DefaultOptions = defaults
        for name in ("header", "param"):
            if name in defaults:
                self.defaults[name] = mark_secrets(defaults[name])

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r:.60}" for name, value in self.defaults.items())
        return f"LLM({self.model!r}{options})"

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(vars(self))
        return made

    def __deepcopy__(self, known: dict[int, Any]) -> Self:
        made = self.__copy__()
        made.__dict__.update({name: deepcopy(value, known) for name, value in vars(self).items() if name != "_carried"})
        return made

    def __getstate__(self) -> dict[str, Any]:
        carried = self._carried
        if carried is None or _is_of_active(carried):
            from llm_magic.session.portable import portable

            session, options = active_session(), self._options
            names = session.registry.models_asked(self.model)
            data = portable(session.settings, session.registry, names, options.base_url or "")
            if (options.record or session.settings.record) != "off":
                data = data.with_magics(record_file=str(session.record_file.absolute()))
            carried = session.carried = CarriedSettings.of(session.carried, session.id, data)
        return {**vars(self), "_carried": carried}

    def _session(self) -> Session:
        """Return the session that is asked through: the active one, else that of the settings it came with."""
        if self._carried is None or _is_of_active(self._carried):
            return active_session()
        return _session_of(self._carried)

    def ask(self, prompt: Prompt, **options: Unpack[AskOptions]) -> Response:
        """Ask, and wait for the whole answer; works inside a running event loop, too.

        Parameters
        ----------
        prompt
            The prompt, sent as it stands; or a list of messages, which is a conversation of its own: dicts as Chat
            Completions has them (`role`, `content`, `tool_calls`, `tool_call_id`), or those of `Response.messages`.
            A system message in it stands in the place of every system prompt that is configured.
        options
            `output_type` is a type (`llm_magic.DataFrame[City]` for a DataFrame of records), or an expression for one
            as `--as` takes it; `schema` is a dict, the path of a `.json` file or a short form, `choices` a list of
            texts; `images` are paths, URLs or objects as `--image` takes them, or one of these; `tools` are
            functions, or one; `context` sends executed cells of the notebook along, code and outputs: a number of the
            last ones, `"all"`, or the names that they define (`["df", "f"]`); `chat` names a conversation to continue
            (without it, none is; `once=True` leaves out that of `LLM(chat=…)`), of which each call is a new turn;
            `timeout` is in seconds; `param` are further fields of the body. The others are those of `%%llm`. None is an
            option that is not given.

            `record` is `"once"` (what is recorded is answered from the recording, anything else is asked and recorded),
            `"only"` (nothing is ever sent), `"new"` (all is asked again) or `"off"`; `record_tools=True` records the
            results of tools, too. `LLMMagics.record_file` says where; `recorded` of the response, whether it is one.

            `on_confirm` is asked before each call of a tool: a function, plain or async, that is given the call
            (`id`, `name`, and `arguments` as JSON text, as the model wrote it) and returns True, and the call is
            carried out, or False, and the model is told that it was declined. Several calls of one turn are asked for
            side by side: an async function on the loop of this package, a plain one on a thread of its own for each.
            What it raises ends `ask`, and is raised from it (a `TypeError` where it returns neither); calls that run
            are cancelled. `confirm=True` without it is an error, and it asks also without `confirm`.

        Returns
        -------
        Response
            `value` is the validated value of the output type, else the text.

        Raises
        ------
        LLMError
            `errors.py` draws the tree. `response` of the error holds what had arrived.
        Interrupted
            A `KeyboardInterrupt`: the request is closed at the server, and `response` holds what had arrived.

        Examples
        --------
        >>> LLM("local:smollm2").ask([{"role": "user", "content": "Hello"}], max_tokens=20).text  # doctest: +SKIP
        'Hello! How can I help you today?'

        """
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            session, run = self._run(prompt, options, "ask")
            try:
                return session.loop.run(session.answer(run, _nowhere))
            except KeyboardInterrupt:
                raise Interrupted(run.so_far(finish_reason="interrupted"), "its `response`") from None

    async def aask(self, prompt: Prompt, **options: Unpack[AskOptions]) -> Response:
        """Ask, and await the whole answer; as `ask`."""
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            session, run = self._run(prompt, options, "aask")
            return await awaited(session.loop.submit(session.answer(run, _nowhere)))

    def compare(
        self, prompt: Prompt, models: str | Sequence[str] = (), **options: Unpack[CompareOptions]
    ) -> Comparison:
        """Ask several models the same at the same time, and wait for all; works inside a running event loop, too.

        Parameters
        ----------
        prompt
            As for `ask`.
        models
            The names of the models, each as `LLM` takes it: a list, or a text with commas. None: those of this `LLM`.
        options
            Those of `ask`, for each model, and `on_error`: `"fail"` (when all have ended, `ModelsFailedError` is raised
            if any failed; its `response` is the whole `Comparison`), or `"keep"`, with which it is raised only where
            all failed.

        Returns
        -------
        Comparison
            `responses` are the models' by their names, `errors` those of models that failed, `value` the values or
            errors; `usage`, `cost` and `seconds` are those of all.

        Raises
        ------
        ModelsFailedError
            A model failed; the others have answered.
        InputError
            Something is wrong with the prompt, an option or a name, and nothing was sent to anybody.
        Interrupted
            A `KeyboardInterrupt`: all requests are closed, and `response` is the `Comparison` of what had arrived.

        Examples
        --------
        >>> found = LLM().compare("What is 2 + 2?", ["local:smollm2", "vllm:"], output_type=int)  # doctest: +SKIP
        >>> found.value  # doctest: +SKIP
        {'local:smollm2': 4, 'vllm:': 4}

        """
        from llm_magic.comparison.screen import ComparisonInterrupted
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            run = self._comparison(prompt, models, options, "compare")
            try:
                return _compared(run, run.session.loop.run(run.answer(_nowhere)))
            except KeyboardInterrupt:
                raise ComparisonInterrupted(run.so_far(), "its `response`") from None

    async def acompare(
        self, prompt: Prompt, models: str | Sequence[str] = (), **options: Unpack[CompareOptions]
    ) -> Comparison:
        """Ask several models the same at the same time, and await all; as `compare`."""
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            run = self._comparison(prompt, models, options, "acompare")
            return _compared(run, await awaited(run.session.loop.submit(run.answer(_nowhere))))

    def _comparison(
        self, prompt: Prompt, models: str | Sequence[str], options: CompareOptions, source: str
    ) -> ComparisonRun:
        from llm_magic.comparison.run import ComparisonRun
        from llm_magic.errors import OptionError

        session = self._session()
        values: dict[str, Any] = {**options}
        cell, on_confirm = self._prompt_cell(prompt, values, source, session)
        cell.options.model = read_models(models, f"LLM.{source}: models") or self.model or None
        try:
            names = session.models_asked(cell)
            if len(names) == 1 and not models:
                raise OptionError(
                    f"LLM.{source} asks several models, and {names[0]} is one.",
                    f'Name them: llm.{source}(prompt, models=["a", "b"]), or LLM("a,b").',
                )
            return ComparisonRun(session, cell, names, on_confirm)
        finally:
            session.tell()

    async def stream(self, prompt: Prompt, **options: Unpack[AskOptions]) -> AsyncGenerator[Event, None]:
        """Ask, and iterate over what happens: `TextDelta`, `ToolCallDelta`, `ToolResult`, …, and last `Done`.

        `llm_magic.events` says which events come in which order. `Done` has the `Response`, its value validated.
        Arguments and errors are as for `ask`; an error is raised in the place of `Done`.

        Leaving the loop early closes the request at the server. A stream that is kept in a variable is left with its
        `aclose()`, or by `async with contextlib.aclosing(llm.stream(…)) as events`.

        Examples
        --------
        >>> async def show(prompt):  # doctest: +SKIP
        ...     async for event in LLM("local:smollm2").stream(prompt):
        ...         if isinstance(event, TextDelta):
        ...             print(event.text, end="")
        ...         elif isinstance(event, Done):
        ...             print(event.response.usage)

        """
        from llm_magic.events import Done, Event, Note
        from llm_magic.options.keywords_in_errors import in_python, naming_keywords

        with naming_keywords():
            session, run = self._run(prompt, options, "stream")
        answered: list[Response] = []

        async def work(emit: Emit[RunEvent]) -> None:
            answered.append(await session.answer(run, emit))

        async with aclosing(arriving(session.loop, work, AHEAD)) as batches:
            with naming_keywords():
                async for batch in batches:
                    for event in batch:
                        if isinstance(event, Note):
                            yield Note(in_python(event.text, "response"))
                        elif isinstance(event, Event) and not isinstance(event, Done):  # what a cell asks its user
                            yield event
        yield Done(answered[0])

    @overload
    def map(
        self, prompt: str | Callable[[Any], Any], inputs: Any, *, models: None = None, **options: Unpack[MapOptions]
    ) -> Answers: ...

    @overload
    def map(
        self, prompt: str | Callable[[Any], Any], inputs: Any, *, models: Iterable[str], **options: Unpack[MapOptions]
    ) -> ComparedAnswers: ...

    def map(
        self,
        prompt: str | Callable[[Any], Any],
        inputs: Any,
        *,
        models: Iterable[str] | None = None,
        **options: Unpack[MapOptions],
    ) -> Answers | ComparedAnswers:
        """Ask one prompt for each of many inputs, side by side, and wait for all answers.

        Works inside a running event loop, too.

        Parameters
        ----------
        prompt
            A template: `{{ item }}` is the input; the columns of a DataFrame, the keys of a dict and the fields of a
            record are names, too; `{{ row }}` is the whole row, `{{ index }}` its label or number. Or a function that
            is given the row (the item, where that has no fields) and returns its prompt: a text, an image, or a list
            of both.
        inputs
            A DataFrame (pandas, polars, pyarrow, Dask), a Series, a list, a mapping (a row for each value), any
            iterable; a generator is read as it is needed.
        models
            Names of models that are all asked for each row, side by side, in the place of this one's. The inputs are
            read once. `concurrency` and `patience` hold for each model by itself, `budget` for all together; one that
            cannot be reached leaves the others alone.
        options
            Those of `ask`, for each row (`retries`, `timeout`, `output_type`, …), and:

            - `on_error`: `"fail"` (when all are done, `RowsFailedError` is raised if any row failed; its `answers` hold
              all), or `"keep"`.
            - `concurrency`: rows in flight at most, a number or `"auto"`; the provider's `concurrency` by default.
            - `patience`: seconds that an endpoint is waited for which stops answering; 60.
            - `budget`: what all rows may use at most, US dollars or a dict of `cost`, `tokens`, `requests`; no limit.
            - `dedup=True` asks once for equal prompts, as it is at `temperature=0` or with a `seed` in any case.
            - `order="prefix"` sends rows together that begin alike.
            - `sample`: a number of rows, spread evenly; no others are asked, and the answers are of these.
            - `again=True` also asks for rows that an earlier run, which stopped or had failures, has answers to.
            - `on`: the Dask cluster whose workers ask (`"dask"`, an address, a client); `forward_env`: the environment
              variables that they are given.
            - `on_progress`: a function that is called with how far it is (`done`, `total`, `failed`, `cost`, …), four
              times a second at most.

        Returns
        -------
        Answers
            A sequence of the values, in the order of the inputs and as long, None where a row failed; with `errors`,
            `failed`, `responses`, `statistics`, `retry()` and `to_frame()`.
        ComparedAnswers
            With `models`: a sequence of dicts, the values by model, with the `Answers` of each in `responses[name]`,
            with `statistics` by model, `cost`, `retry()` and `to_frame()`, in which each model is a column.

        Raises
        ------
        RowsFailedError
            Rows failed, and `on_error` is not `"keep"`.
        LLMError
            Something is wrong with the prompt, the options or the inputs, and nothing was sent; or the inputs failed
            while they were read.
        Interrupted
            A `KeyboardInterrupt`: what is in flight is closed at the server; what came is kept for the next call.

        Examples
        --------
        >>> reviews = ["Too expensive.", "Broke after a day."]
        >>> llm = LLM("vllm:")
        >>> llm.map("Price or quality? {{ item }}", reviews, choices=["price", "quality"]).values  # doctest: +SKIP
        ['price', 'quality']
        >>> LLM().map("Price or quality? {{ item }}", reviews, models=["small", "large"])[0]  # doctest: +SKIP
        {'small': 'price', 'large': 'price'}

        """
        from llm_magic.mapping.call import wait_for
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            if models is not None:
                return wait_for(self._compared_call(prompt, inputs, options, "map", models))
            return wait_for(self._call(prompt, inputs, options, "map"))

    @overload
    def amap(
        self, prompt: str | Callable[[Any], Any], inputs: Any, *, models: None = None, **options: Unpack[MapOptions]
    ) -> AnswersToCome: ...

    @overload
    def amap(
        self, prompt: str | Callable[[Any], Any], inputs: Any, *, models: Iterable[str], **options: Unpack[MapOptions]
    ) -> ComparedAnswersToCome: ...

    def amap(
        self,
        prompt: str | Callable[[Any], Any],
        inputs: Any,
        *,
        models: Iterable[str] | None = None,
        **options: Unpack[MapOptions],
    ) -> AnswersToCome | ComparedAnswersToCome:
        """Ask one prompt for each of many inputs: `await` it for all answers, or iterate over outcomes as they come.

        Arguments are as for `map`. `await llm.amap(…)` returns `Answers`, or raises as `map`. `async for outcome in
        llm.amap(…)` yields each row as it ends, in any order, and keeps none of them: `number` (from 0), `value` (None
        where it failed), `error` (None where it did not), `response`. A row that fails is no exception there.
        With `models` it is awaited, as `map` with them returns.

        Leaving the loop early closes what is in flight; an iteration that is kept in a variable is left with its
        `aclose()`.

        Examples
        --------
        >>> async def show(reviews):  # doctest: +SKIP
        ...     async for outcome in LLM("local:smollm2").amap("In one word: {{ item }}", reviews, max_tokens=5):
        ...         print(outcome.number, outcome.value or outcome.error)

        """
        from llm_magic.mapping.call import AnswersToCome
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            if models is not None:
                from llm_magic.comparison.rows.call import ComparedAnswersToCome

                return ComparedAnswersToCome(self._compared_call(prompt, inputs, options, "amap", models))
            return AnswersToCome(self._call(prompt, inputs, options, "amap"))

    def batch(self, prompt: str | Callable[[Any], Any], inputs: Any, **options: Unpack[BatchOptions]) -> Batch[Answers]:
        """Ask one prompt for each of many inputs by an offline batch (the Batch API), and return once it is submitted.

        It is answered within a day, at the provider's lower price. The same call finds the batch again, in another
        process and another day, as long as prompt, inputs and options are the same: nothing is submitted twice.

        Parameters
        ----------
        prompt, inputs
            As for `map`.
        options
            Those of `map`, but for what is about requests from here (`concurrency`, `patience`, `order`, `sample`,
            `on`, `retries_invalid`, …), and:

            - `poll`: seconds between two looks at the batch, 30; more while nothing changes.
            - `again=True` submits all rows anew, also those that a batch has.
            - `batch_file`: a file to be written in the place of a submission, for a program that reads it, such as
              vLLM's `run_batch`.

        Returns
        -------
        Batch
            `batch.result()` waits for the `Answers`, and so does `await batch`; `batch.status`, `batch.counts`,
            `batch.ids` tell how far it is; `batch.cancel()` cancels it at its server. With `batch_file` it is the rows
            in that file: `batch.rows`, `batch.command`, and `batch.fetch(path)` returns the `Answers` out of the file
            which that program wrote. Called again, what was fetched is its result.

        Notes
        -----
        Nobody is there to carry out calls of `tools`: they come back as `answers.responses[N].tool_calls`. The value of
        such a row is the text beside them, `""` where there is none; with an output type, which that is not, an error.

        Raises
        ------
        UnsupportedError
            The endpoint has no batches.
        LLMError
            The rows cannot be submitted; run again, it goes on where it was.

        Examples
        --------
        >>> llm = LLM("openai:gpt-x")  # doctest: +SKIP
        >>> batch = llm.batch("Price or quality? {{ item }}", reviews, choices=["price", "quality"])  # doctest: +SKIP
        >>> batch.result().values  # doctest: +SKIP
        ['price', 'quality']

        """
        from llm_magic.batches.batch import Batch
        from llm_magic.batches.rows.engine import BatchEngine
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            if options.get("batch_file") is not None:
                return self._batch_file(prompt, inputs, options)
            engine = BatchEngine(self._session())
            call = self._call(prompt, inputs, options, "batch", engine)
            try:
                return Batch.submitted(call.run.model, call.session.loop.submit(call.answers()), engine.state)
            finally:
                call.session.tell()

    def _batch_file(self, prompt: str | Callable[[Any], Any], inputs: Any, options: BatchOptions) -> Batch[Answers]:
        """Write rows into a file in the place of a submission."""
        from llm_magic.batches.batch_file.engine import BatchFileEngine
        from llm_magic.batches.batch_file.rows_in_file import RowsInFile

        named = read_options({"batch_file": options["batch_file"]}, "LLM.batch", "batch").batch_file or ""
        engine = BatchFileEngine(self._session(), named)
        call = self._call(prompt, inputs, options, "batch", engine)
        again: MapOptions | BatchOptions = {**options, "again": False}
        try:
            return RowsInFile.of(call, lambda: self._call(prompt, inputs, again, "batch", engine))
        finally:
            call.session.tell()

    def embed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Vectors:
        """Return the vectors of texts, in their order; works inside a running event loop, too.

        Parameters
        ----------
        texts
            A list, a column, an array, … of texts; none of them empty.
        options
            `dimensions` asks for shorter vectors, `batch` is the number of texts in one request (256, and several
            requests run at once), `timeout` is in seconds; the others are as for `%%llm`.

        Returns
        -------
        Vectors
            A list of lists of float, with `usage`, `model`, `dimensions` and `to_numpy()`.

        Raises
        ------
        LLMError
            `errors.py` draws the tree. What came before a failure is kept for the next call with these texts.

        Examples
        --------
        >>> LLM("local:smollm2").embed(["sea", "sky"]).to_numpy().shape  # doctest: +SKIP
        (2, 576)

        """
        from llm_magic.embeddings.run import EmbeddingInterrupted
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            embedding, session = self._embedding(texts, options)
            try:
                return session.loop.run(embedding.answer(_nowhere))
            except KeyboardInterrupt:
                raise EmbeddingInterrupted from None
            finally:
                session.tell()

    async def aembed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Vectors:
        """Await the vectors of texts; as `embed`."""
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            embedding, session = self._embedding(texts, options)
            try:
                return await awaited(session.loop.submit(embedding.answer(_nowhere)))
            finally:
                session.tell()

    def embed_batch(self, texts: Iterable[str], **options: Unpack[EmbedBatchOptions]) -> Batch[Vectors]:
        """Embed texts by an offline batch (the Batch API), and return once it is submitted.

        It is answered within a day, at the provider's lower price. The same call finds the batch again, in another
        process and another day, as long as texts and options are the same: nothing is submitted twice.

        Parameters
        ----------
        texts
            As for `embed`.
        options
            Those of `embed`, of which `batch` is the number of texts in one line of the file (256), and:

            - `poll`: seconds between two looks at the batch, 30; more while nothing changes.
            - `again=True` submits all texts anew, also those that a batch has.

            More than 50,000 texts become several batches with one result.

        Returns
        -------
        Batch
            `batch.result()` waits for the `Vectors`, in the order of the texts, and so does `await batch`. Where lines
            failed, it raises the error of the first, which names the texts; the others' vectors are kept, and the
            next call asks for what is missing alone.

        Raises
        ------
        UnsupportedError
            The endpoint has no batches.
        LLMError
            The texts cannot be submitted; called again, it goes on where it was.

        Examples
        --------
        >>> batch = LLM("openai:text-embedding-3-small").embed_batch(texts)  # doctest: +SKIP
        >>> batch.result().to_numpy().shape  # doctest: +SKIP
        (60000, 1536)

        """
        from llm_magic.batches.batch import Batch
        from llm_magic.batches.embeddings.embedding import BatchEmbedding
        from llm_magic.embeddings import EmbeddingOptions, texts_of
        from llm_magic.options.keywords_in_errors import in_python, name_keywords, naming_keywords

        async def answer() -> Vectors:
            try:
                vectors = await embedding.answer(_nowhere)
            except LLMError as error:
                name_keywords(error)
                raise
            vectors.notes = tuple(map(in_python, vectors.notes))
            return vectors

        with naming_keywords():
            session = self._session()
            given = EmbeddingOptions.of(self._embedding_values(options, "poll"), self.model, offline=True)
            try:
                embedding = BatchEmbedding(session, texts_of(texts, "texts"), given)
                return Batch.submitted(embedding.name, session.loop.submit(answer()), embedding.state)
            finally:
                session.tell()

    def _embedding(self, texts: Iterable[str], options: EmbedOptions) -> tuple[Embedding, Session]:
        from llm_magic.embeddings import EmbeddingOptions, texts_of
        from llm_magic.embeddings.run import Embedding

        session = self._session()
        given = EmbeddingOptions.of(self._embedding_values(options), self.model)
        try:
            return Embedding(session, texts_of(texts, "texts"), given), session
        finally:
            session.tell()

    def _embedding_values(self, options: Mapping[str, Any], *also: str) -> dict[str, Any]:
        """Return the options of a call for embeddings, over those of all calls that it takes."""
        ours = ("base_url", "timeout", "retries", "header", "record", *also)
        values: dict[str, Any] = {name: value for name, value in self.defaults.items() if name in ours}
        return values | {name: value for name, value in options.items() if value is not None or name not in values}

    def _run(self, prompt: Prompt, options: AskOptions, source: str) -> tuple[Session, Run]:
        from llm_magic.errors import OptionError
        from llm_magic.session.run import Run

        session = self._session()
        values: dict[str, Any] = {**options}
        cell, on_confirm = self._prompt_cell(prompt, values, source, session)
        if source == "stream" and cell.options.no_stream:
            raise OptionError(
                "stream iterates over the answer as it arrives, and no_stream=True excludes that.", "Use aask."
            )
        try:
            plan = session.plan(cell)
            recorder = session.recorder(plan.options, cell)
            return session, Run(plan, session.spending, on_confirm, recorder, servers=session.servers_of(plan))
        finally:
            session.tell()

    def _prompt_cell(self, prompt: Prompt, values: dict[str, Any], source: str, session: Session) -> tuple[Cell, Any]:
        """Return a cell with a prompt that has these options, and what confirms calls."""
        from llm_magic.options.combinations import put_over

        cell, on_confirm = self._cell(values, source)
        called = put_over(cell.options, cell.defaults)
        text, messages, notes = read_prompt(prompt, cell.options, called, session)
        return replace(cell, body=text, messages=messages, notes=notes), on_confirm

    def _cell(self, values: dict[str, Any], source: str) -> tuple[Cell, Any]:
        """Return a cell without a prompt that has these options, and what confirms calls."""
        from llm_magic.options import exclude_each_other
        from llm_magic.options.combinations import put_over
        from llm_magic.session.plan import Cell

        on_confirm: Any = values.pop("on_confirm", None)
        given, defaults = read_options(values, source, _ROWS_TAKEN.get(source, "none")), self._options
        confirm = defaults.confirm if given.confirm is None else given.confirm
        if on_confirm is not None and confirm is False:
            exclude_each_other({"confirm=False": False, "on_confirm=": on_confirm})
        if on_confirm is not None and confirm is None:
            given.confirm = True
        elif self._on_confirm is not None and confirm is None:
            defaults = replace(defaults, confirm=True)
        on_confirm = self._on_confirm if on_confirm is None else on_confirm
        given.model = self.model or None
        called = put_over(given, defaults)
        given.once = called.chat is None or bool(given.once)
        return Cell("", given, template=False, defaults=defaults, cannot_confirm=cannot_confirm(on_confirm)), on_confirm

    def _call(
        self,
        prompt: str | Callable[[Any], Any],
        inputs: Any,
        options: MapOptions | BatchOptions,
        source: str,
        engine: Engine | None = None,
    ) -> MapCall:
        from llm_magic.mapping.call import MapCall
        from llm_magic.mapping.inputs.inputs import read_inputs

        session = self._session()
        inputs, cell, function, on_confirm, on_progress = self._rows(prompt, inputs, options, source)
        try:
            call = MapCall(session, cell, read_inputs(inputs), on_confirm, on_progress, prompt=function, engine=engine)
            if engine is None:
                from llm_magic.batches.direct_run import heed_batches

                heed_batches(session, call.run)
            return call
        finally:
            session.tell()

    def _compared_call(
        self, prompt: str | Callable[[Any], Any], inputs: Any, options: MapOptions, source: str, models: Iterable[str]
    ) -> ComparedCall:
        from llm_magic.comparison.rows.call import ComparedCall

        session, names = self._session(), read_models_of_rows(models)
        inputs, cell, function, on_confirm, on_progress = self._rows(prompt, inputs, options, source)
        try:
            return ComparedCall(session, cell, names, inputs, on_confirm, on_progress=on_progress, prompt=function)
        finally:
            session.tell()

    def _rows(
        self, prompt: str | Callable[[Any], Any], inputs: Any, options: MapOptions | BatchOptions, source: str
    ) -> tuple[Any, Cell, Callable[[Any], Any] | None, Any, Any]:
        """Return the inputs, the cell, a prompt that is a function, what confirms calls, what is told of progress."""
        from llm_magic.errors import PromptError
        from llm_magic.mapping.inputs.inputs import is_dask

        values: dict[str, Any] = {**options}
        on_progress = read_on_progress(values.pop("on_progress", None))
        cell, on_confirm = self._cell(values, source)
        function = prompt if callable(prompt) else None
        text = prompt if isinstance(prompt, str) else getattr(prompt, "__name__", "prompt")
        if (function is None and not isinstance(prompt, str)) or not text.strip():
            what = "is empty" if isinstance(prompt, str) else f"must be a text, not {type(prompt).__name__}"
            raise PromptError(f"The prompt {what}.", "A template names the input: {{ item }}.")
        cell = replace(cell, body=text, template=True)
        if is_dask(inputs):
            from llm_magic.mapping.dask.inputs import gathered

            inputs, cell = gathered(inputs, cell)
        return inputs, cell, function, on_confirm, on_progress


_ROWS_TAKEN: Mapping[str, Rows] = {
    "map": "all", "amap": "all", "batch": "batch", "compare": "models", "acompare": "models",
}  # fmt: skip
"""Which options of many rows a method takes."""


def _compared(run: ComparisonRun, comparison: Comparison) -> Comparison:
    """Return a comparison, its errors in the words of Python; raise that of models that failed."""
    from llm_magic.comparison.responses import models_failed
    from llm_magic.options.keywords_in_errors import name_keywords

    for error in comparison.errors.values():
        name_keywords(error)
    if (failed := models_failed(comparison, run.keeps)) is not None:
        raise failed
    return comparison


async def _nowhere(_batch: list[Any]) -> None:
    """Let what happens pass by."""
