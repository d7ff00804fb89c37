"""The asking of one row: a known answer, one document over a prepared request, or a run as a cell's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.draft import Draft
from llm_magic.errors import InvalidValueError, LLMError, ProviderError, RecordingError
from llm_magic.events import Attempt, Event, Note, Replayed
from llm_magic.mapping.asking.document_asking import MARKER, REFUSALS, DocumentAsking, NoDocumentError, is_plain
from llm_magic.mapping.asking.plain_answer import is_plain_response, kept
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.messages import Text
from llm_magic.recordings.recording import KeyTemplate, key_of
from llm_magic.session.model_exchanges import Begun, BoundModels
from llm_magic.session.neutral_request import NeutralRequest
from llm_magic.session.recorder import Recorder
from llm_magic.session.run import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm_magic.mapping.concurrency import InFlight
    from llm_magic.mapping.kept.resumption import Resumption
    from llm_magic.messages import Part, ToolCall
    from llm_magic.secrets import Secret
    from llm_magic.session import Session
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.session.spending import Spending


_STREAMS = (
    "An answer took longer than the timeout, which documents are silent for until they are complete: this and all "
    "further rows are streamed, and the timeout counts from piece to piece."
)
_MOST_SAME = 10_000  # rows that equal ones are looked for among
_EXPLAINED = 10  # rows that are not recorded of which it is said what differs


class RowAsker:
    """Asks for rows by one plan, whose prompt each row has its own parts of.

    Parameters
    ----------
    session
        Accounts what is used.
    plan
        What all rows share.
    spending
        Allows each request.
    recorder
        Answers from the user's recordings, and records; None where nothing is recorded.
    on_confirm
        Says whether a call may be carried out, as of `LLM.ask`.
    resumption
        What an earlier run of the same rows has left, and what keeps the answers of this one; None: nothing does.
    with_keys
        Whether rows have keys, whoever looks for them.

    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        spending: Spending,
        recorder: Recorder | None,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        *,
        resumption: Resumption | None = None,
        with_keys: bool = False,
    ) -> None:
        self.notes: list[str] = []
        """What the user should know of the model, once it is ready."""
        self._session = session
        self._plan = replace(plan, notes=())  # those of the whole run are said once
        self._planned = plan.models[0]
        self._model = self._planned.target.model
        self._spending = spending
        self._recorder = recorder
        self._resumption = resumption
        self._with_keys = with_keys
        self._of_runs = recorder
        """What runs are answered from, and recorded in."""
        if resumption is not None:
            self._of_runs = Recorder(resumption, "once", tools=True, is_told=False)
        self._on_confirm = on_confirm
        self._models = BoundModels()
        self._by_documents = is_plain(plan)
        self._streams = False  # whether answers take so long that they are to be seen coming
        self._once = plan.options.dedup or self._is_deterministic
        self._same: dict[str, asyncio.Future[Outcome]] = {}  # by key: the rows that are asked once
        self._documents: DocumentAsking | None = None
        self._preparing = asyncio.Lock()
        self._keys: KeyTemplate | None = None
        self._asked_elsewhere: dict[int, Mapping[str, Any]] = {}  # what is recorded when its answer has come
        self._secrets: tuple[Secret, ...] | None = None
        self._not_recorded = 0  # rows that were to be answered from recordings, and are not there

    @property
    def model(self) -> str:
        """The model that is asked; empty while a provider alone was named, and none is known."""
        return self._model

    async def begin(self) -> None:
        """Find the model where a provider alone was named: answers of another one are no answers of this one."""
        if self._resumption is not None and not self._planned.target.model:
            with self._session.registry.explaining():
                self._model = (await self._bound()).model

    async def find_server_tools(self) -> Plan:
        """Return the plan with the tools of MCP servers, listed once for all rows."""
        from llm_magic.session.server_tools import with_server_tools

        async def take(batch: list[Event]) -> None:
            self.notes += [event.text for event in batch if isinstance(event, Note)]

        servers = self._session.servers_of(self._plan)
        self._plan = await with_server_tools(self._plan, servers, take, self._recorder)
        return self._plan

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._documents is not None:
            await self._documents.aclose()

    @property
    def looks_for_equal(self) -> bool:
        """Whether rows have keys: an earlier run may have left their answers, or equal ones are asked once."""
        return bool(self._once) or self._with_keys or self._resumption is not None

    @property
    def looks_up_rows(self) -> bool:
        """Whether `known_number` may find an answer: where rows need runs, each looks for itself."""
        return self._resumption is not None and self._by_documents

    @property
    def asks_equal_once(self) -> bool:
        """Whether equal prompts are asked once."""
        return bool(self._once)

    @property
    def _is_recorded(self) -> bool:
        """Whether what is known is from the user's recordings."""
        return self._recorder is not None

    @property
    def _is_deterministic(self) -> bool:
        """Whether equal prompts are expected to have equal answers."""
        given = self._plan.options.parameters
        return given.get("temperature") == 0 or given.get("seed") is not None

    def known_number(self, row: RowRequest) -> int | None:
        """Return which answer of an earlier run a row has; None where it is asked, or a run looks for itself."""
        if self._resumption is None or not self._by_documents or not row.key:
            return None
        if self._once:  # equal rows have one answer, as in one run
            return 0 if self._resumption.store.has(row.key) else None
        return self._resumption.take(row.key)

    def known_outcome(self, row: RowRequest, number: int) -> Outcome | None:
        """Return the outcome of a row that an earlier run has left; None where a run has to look what to make of it."""
        if self._resumption is None:
            return None
        answer = self._resumption.store.known(row.key, number)
        outcome = None if answer is None else self.known(row.number, answer)
        if outcome is None:
            self._resumption.give_back(row.key, number)
        return outcome

    async def ask(self, row: RowRequest, in_flight: InFlight | None = None) -> Outcome:
        """Return the outcome of a row; what goes wrong is in it. `in_flight` hears of refusals."""
        if not self._once or not row.key:
            return await self._ask(row, in_flight)
        first = self._same.get(row.key)
        if first is not None:
            outcome = await asyncio.shield(first)
            return replace(outcome, number=row.number, duplicate=True)
        if len(self._same) >= _MOST_SAME:
            for key in [key for key, asked in self._same.items() if asked.done()][: _MOST_SAME // 2]:
                del self._same[key]
        asked: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._same[row.key] = asked
        try:
            outcome = await self._ask(row, in_flight)
        except BaseException:
            asked.cancel()
            raise
        asked.set_result(outcome)
        return outcome

    async def _ask(self, row: RowRequest, in_flight: InFlight | None) -> Outcome:
        try:
            text = _only_text(row.parts)
            if self._by_documents and text is not None and not row.by_run:
                return await self._ask_by_document(row, text, in_flight)
            return await self._ask_by_run(row, in_flight)
        except LLMError as error:
            return failed(row.number, error)

    async def _ask_by_document(self, row: RowRequest, text: str, in_flight: InFlight | None) -> Outcome:
        asked: Mapping[str, Any] | None = None
        if self._recorder is not None:
            if not self._planned.target.model and self._recorder.mode != "only":
                await self._bound()
            asked = self._neutral(row.parts)
            known = self._recorded(self._recorder, asked)
            if known is not None and (outcome := self.known(row.number, known)) is not None:
                return outcome
        documents = await self._prepared()
        if documents is None:
            return await self._ask_by_run(row, in_flight)
        if self._streams:
            return await self._ask_by_run(row, in_flight)
        came = await documents.ask(text, in_flight)
        if isinstance(came, Begun):
            if isinstance(came.error, NoDocumentError):
                return await self._ask_by_stream(row, in_flight, came)
            return await self._ask_by_run(row, in_flight, came)
        self._spending.ledger.answered(came.response, documents.bound.provider.name, documents.bound.model)
        if self._resumption is not None:
            self._resumption.store.keep(row.key, came.kept(documents.structured), documents.secrets)
        elif asked is not None and self._recorder is not None:
            reason = self._recorder.keep(asked, came.kept(documents.structured), documents.secrets)
            if reason:
                came.response.notes = (*came.response.notes, reason)
        return Outcome(row.number, came.response)

    def _recorded(self, recorder: Recorder, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what the user's recordings have; of a few of those that they have not, what differs is said."""
        secrets = self._planned.target.provider.secrets
        try:
            return recorder.known(asked, secrets, explains=self._not_recorded < _EXPLAINED)
        except RecordingError:
            self._not_recorded += 1
            raise

    async def _ask_by_stream(self, row: RowRequest, in_flight: InFlight | None, begun: Begun) -> Outcome:
        """Ask a row whose document did not come in time once more, by a stream, and so all rows after it."""
        if not self._streams:
            self._streams = True
            self.notes.append(_STREAMS)
        tried = tuple(event for event in begun.events if isinstance(event, Attempt))
        try:
            outcome = await self._ask_by_run(row, in_flight)
        except LLMError as error:
            if error.response is not None:
                error.response.attempts = (*tried, *error.response.attempts)
            raise
        if outcome.response is not None:
            outcome.response.attempts = (*tried, *outcome.response.attempts)
        return outcome

    async def _ask_by_run(
        self, row: RowRequest, in_flight: InFlight | None, begun: Begun | None = None, *, counts: bool = True
    ) -> Outcome:
        run = Run(
            replace(self._plan, parts=row.parts),
            self._spending,
            self._on_confirm,
            self._of_runs,
            models=self._models,
            begun=begun,
        )
        try:
            with self._session.registry.explaining():
                response = await run.answer(partial(_hear, in_flight))
        except LLMError:
            raise
        except Exception as error:
            what = ProviderError(f"{run.model} failed: {type(error).__name__}: {error}")
            what.response = run.response
            raise what from error
        finally:
            if counts:
                self._session.account(run)
        return Outcome(row.number, response, known=response.recorded, recorded=response.recorded and self._is_recorded)

    def known(self, number: int, answer: Mapping[str, Any]) -> Outcome | None:
        """Return the outcome of a row whose answer is known; None where it makes no sense, and the row is asked."""
        from llm_magic.recordings.answers import events_of

        target = self._planned.target
        draft = Draft()
        try:
            events = events_of(answer, target.provider.name, target.model)
            told = Replayed(answer.get("seconds") or 0.0, answer.get("first_token_seconds"), 0.0)
            draft.add_all([told, *events])
            structured = answer.get("structured") or {}
            spec, text = self._plan.spec, draft.text
            value = text if spec is None else spec.parse(text, nulls=bool(structured.get("nulls")))
        except (RecordingError, InvalidValueError):
            return None
        response = draft.response(
            value=value, model=target.asked, provider=target.provider.name, structured=structured.get("dialect")
        )
        return Outcome(number, response, known=True, recorded=self._is_recorded)

    def recorded_outcome(self, row: RowRequest) -> Outcome | None:
        """Return the outcome that the user's recordings have of a row that would be asked elsewhere; None: none."""
        if self._recorder is None:
            return None
        asked = self._neutral(row.parts)
        try:
            known = self._recorded(self._recorder, asked)
        except LLMError as error:
            return failed(row.number, error)
        if known is not None:
            return self.known(row.number, known)
        self._asked_elsewhere[row.number] = asked
        return None

    async def answered_before(self, row: RowRequest) -> Outcome | None:
        """Return the outcome of a row whose answer is known, of those that each look for it; nothing is sent.

        None where it is to be asked. Where nothing may be sent, the outcome is that it is not recorded.
        """
        recorder = self._of_runs
        if recorder is None or row.by_run or (self._recorder is None and self._by_documents):
            return None  # what is known was put aside already
        if not self._planned.target.model and recorder.mode != "only":
            await self._bound()
        if recorder.mode != "only" and not recorder.has(self._neutral(row.parts)):
            return None
        try:
            return await self._ask_by_run(row, None)
        except LLMError as error:
            return failed(row.number, error)

    async def judged(self, row: RowRequest, begun: Begun, *, counts: bool = True) -> Outcome:
        """Return the outcome of a row that was asked elsewhere, of what came: checked and kept as any other.

        `counts` says whether it is entered as an answer of this session.
        """
        try:
            return await self._ask_by_run(row, None, begun, counts=counts)
        except LLMError as error:
            return failed(row.number, error)

    def keep(self, row: RowRequest, outcome: Outcome) -> None:
        """Keep the answer of a row that was asked elsewhere, where it is a plain one; of others rounds are missing."""
        response, asked = outcome.response, self._asked_elsewhere.pop(row.number, None)
        if response is None or not is_plain_response(response):
            return
        if asked is None and self._recorder is not None:
            asked = self._neutral(row.parts)
        told = {"dialect": response.structured, "nulls": True} if response.structured else None
        if self._secrets is None:
            self._secrets = self._planned.target.provider.secrets()
        if self._resumption is not None and row.key:
            self._resumption.store.keep(row.key, kept(response, told), self._secrets)
        elif self._recorder is not None and asked is not None:
            reason = self._recorder.keep(asked, kept(response, told), self._secrets)
            if reason:
                response.notes = (*response.notes, reason)

    def key(self, parts: tuple[Part, ...]) -> str:
        """Return what the answer of a row is found by."""
        text = _only_text(parts)
        if text is None:
            return key_of(self._neutral(parts))
        if self._keys is None:
            self._keys = KeyTemplate.of(self._neutral((Text(MARKER),)), MARKER)
        return key_of(self._neutral(parts)) if self._keys is None else self._keys.key(text)

    def shared(self) -> dict[str, Any]:
        """Return what is asked for all rows, as plain data."""
        return self._neutral((Text(""),))

    def _neutral(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Return what is asked for a row, as plain data."""
        return NeutralRequest(replace(self._plan, parts=parts), self._planned).data(self._model)

    async def bound(self) -> BoundModel:
        """Return the model, ready to be asked."""
        with self._session.registry.explaining():
            return await self._bound()

    async def _bound(self) -> BoundModel:
        return await self._models.get(self._plan, self._planned, self._note)

    async def _note(self, events: list[Event]) -> None:
        self.notes += [event.text for event in events if isinstance(event, Note)]

    async def _prepared(self) -> DocumentAsking | None:
        """Return what asks by documents, made with the first row; None where each needs a run."""
        if self._documents is None and self._by_documents:
            async with self._preparing:
                if self._documents is None and self._by_documents:
                    with self._session.registry.explaining():
                        made = await DocumentAsking.of(self._plan, await self._bound(), self._spending)
                    self._documents, self._by_documents = made, made is not None
        return self._documents


def _only_text(parts: tuple[Part, ...]) -> str | None:
    """Return the text of a prompt that is one text and nothing else; None of any other."""
    return parts[0].text if len(parts) == 1 and isinstance(parts[0], Text) else None


def failed(number: int, error: LLMError) -> Outcome:
    """Return the outcome of a row that failed; of where it came from, which would keep all of it, nothing is kept."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return Outcome(number, error.response, error)


async def _hear(in_flight: InFlight | None, batch: list[Any]) -> None:
    """Tell of refusals; the rest passes by."""
    for event in batch:
        if type(event) is Attempt and event.status in REFUSALS and in_flight is not None:
            in_flight.refused(event.retry_after)
