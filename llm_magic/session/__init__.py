"""The session: what the cells of one notebook share, and the work of one cell from its plan to what it leaves behind.

```
line, body ─options→ Options       body + namespace ─prompt→ parts      type ─output→ constraint
name ─registry→ provider, model    conversation + parts ─messages→ turns
(turns, Options, constraint, capabilities) ─compose→ Request ─wire, on the loop→ events
events ─Draft→ response so far ─display→ screen    response ─output→ value ─conversation, usage→ kept
```
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_magic.background_loop import BackgroundLoop
from llm_magic.config.precedence import sources_of
from llm_magic.errors import HistoryError, LLMError, LLMWarning, OptionError

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.budget import Reservation
    from llm_magic.config.settings import Settings
    from llm_magic.context.executed_cells import ExecutedCells
    from llm_magic.conversation import Begun, Conversation, Conversations, Turn
    from llm_magic.display import View
    from llm_magic.ledger import Ledger
    from llm_magic.mcp.servers import MCPServers
    from llm_magic.options import Options
    from llm_magic.providers.model_info import Price
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.recordings import Recordings
    from llm_magic.response import Response
    from llm_magic.session.job import Job
    from llm_magic.session.plan import Cell, CellRun, Plan, PlannedModel
    from llm_magic.session.recorder import Recorder
    from llm_magic.session.run import Run
    from llm_magic.session.screen import Screen
    from llm_magic.session.spending import Spending
    from llm_magic.session.tool_runner import RunEvent
    from llm_magic.wire.call import Preview
    from llm_magic.wire.embeddings import Embedded


class Session:
    """What the cells of one notebook share: settings, providers, the loop, conversations, usage.

    Parameters
    ----------
    settings
        The settings of every cell.
    registry
        The providers.
    say
        Takes a line for the user where no cell shows it; by default it becomes a warning.

    """

    def __init__(
        self, settings: Settings, registry: ProviderRegistry, say: Callable[[str], None] | None = None
    ) -> None:
        self.id = uuid4().hex
        """What tells it from the sessions of other processes; a forked one has it, too."""
        self.carried: Any = None
        """The settings that the last `LLM` took along in a pickle."""
        self.settings = settings
        sources_of(settings)  # what is set from now on is the session's
        self.registry = registry
        self._say = say or _warn
        self._notices: list[str] = []
        self.loop = BackgroundLoop()
        self._making = threading.Lock()  # of what is made at first use: an `LLM` may be used from several threads
        self._conversations: Conversations | None = None
        self._kept_in = ""
        self._spending: Spending | None = None
        self._recordings: Recordings | None = None
        self._mcp_servers: MCPServers | None = None
        self.running: tuple[str | None, int] = None, 0
        """The front end's id of the cell that runs, None where it has none, and the number of that run."""
        self.namespace: Mapping[str, Any] = {}
        """The notebook's variables, where there is a notebook: some front ends say there where its file is."""
        self.cells: ExecutedCells | None = None
        """The notebook's cells that have run, for `--context`; None where there is no notebook."""
        self._told_of_restart = False
        self._told_of_repeats = False
        self._told_of_no_turn = False
        self.jobs: set[Job[Any]] = set()
        """Cells that go on in the background."""
        self.unfinished: dict[Hashable, Embedded] = {}
        """Batches of embeddings that came before a request for more of them failed."""
        self.batches_counted: set[str] = set()
        """Offline batches whose results are counted as used, by our names of them: several cells may read one."""
        self.batches_in_flight: dict[str, tuple[Reservation, Price | None]] = {}
        """What is reserved for offline batches that go on, and at what price, by our names of them."""

    @property
    def conversations(self) -> Conversations:
        """The conversations, in memory or in `settings.chat_file`."""
        from llm_magic.conversation import Conversations

        file = self.settings.chat_file
        with self._making:
            if self._conversations is None or self._kept_in != file:
                self._conversations, self._kept_in = Conversations(file or None, self._notices.append), file
            return self._conversations

    @property
    def ledger(self) -> Ledger:
        """What was used so far."""
        return self.spending.ledger

    @property
    def spending(self) -> Spending:
        """What was used so far, and what budgets allow."""
        from llm_magic.ledger import Ledger
        from llm_magic.session.spending import Spending

        with self._making:
            self._spending = self._spending or Spending(self.settings, Ledger())
            return self._spending

    @property
    def recordings(self) -> Recordings:
        """The recordings: of `settings.record_file`, else beside the notebook, else in the working folder."""
        from llm_magic.recordings import Recordings

        with self._making:
            self._recordings = self._recordings or Recordings(self._record_files, self._notices.append)
            return self._recordings

    @property
    def mcp_servers(self) -> MCPServers:
        """The MCP servers that are configured; none is started before its first use."""
        from llm_magic.mcp.configuration import waiting_servers
        from llm_magic.mcp.servers import MCPServers

        with self._making:
            self._mcp_servers = self._mcp_servers or MCPServers(
                self.settings, lambda: waiting_servers(self.registry.waiting)
            )
            return self._mcp_servers

    def servers_of(self, plan: Plan) -> MCPServers | None:
        """Return what has the tools of MCP servers that a plan names; None where it names none."""
        return self.mcp_servers if plan.mcp else None

    @property
    def record_file(self) -> Path:
        """The file that is recorded in."""
        return self._record_files()[0]

    def _record_files(self) -> tuple[Path, tuple[Path, ...]]:
        """Return the file to record in, and others that are read, too."""
        from llm_magic.conversation.notebook import notebook_file
        from llm_magic.recordings.places import record_files

        return record_files(self.settings.record_file, notebook_file(self.namespace))

    def recorder(self, options: Options, cell: Cell | None = None) -> Recorder | None:
        """Return what records requests with these options, or answers them; None where nothing is recorded.

        `cell` is the one that asks, None where none does.

        Raises
        ------
        ConfigurationError
            The variable LLM_MAGIC_RECORD names no mode.
        OptionError
            Tools are to be recorded, and nothing is.

        """
        from llm_magic.session.recorder import Recorder, mode_in_force

        mode = mode_in_force(options.record, self.settings.record)
        if mode == "off":
            if cell is not None and cell.options.record_tools:
                raise OptionError("--record-tools needs --record.", "Say --record once, or set LLMMagics.record.")
            return None
        cell_id, number = self.running
        if cell is not None and cell.run is not None:
            cell_id, number = cell.cell_id, cell.run.number
        pace = self.settings.replay_pace
        enforced = mode == "only" and (options.record or self.settings.record) != "only"
        return Recorder(self.recordings, mode, cell_id, number, bool(options.record_tools), pace, enforced)

    def take_notices(self) -> tuple[str, ...]:
        """Return the lines that the user should see and has not yet: a file that was put aside, settings that wait."""
        of_project = filter(None, (self.registry.misspelled_line(), self.registry.waiting_line()))
        notices, self._notices[:] = (*of_project, *self._notices), []
        return notices

    def notify(self, text: str) -> None:
        """Take note of a line that the user should see."""
        self._notices.append(text)

    def tell(self) -> None:
        """Say these lines where no cell shows them."""
        for notice in self.take_notices():
            self._say(notice)

    def in_force(self, cell: Cell) -> Options:
        """Return the options of a cell over what is configured; nothing is checked but these, and nothing sent.

        Raises
        ------
        InputError
            An option, the model's name or the configuration is wrong.

        """
        return self._choose(cell)[0].options

    def _choose(self, cell: Cell) -> tuple[PlannedModel, ...]:
        """Return the models that a cell asks, each with the options in force."""
        from llm_magic.options import combinations
        from llm_magic.session.plan import choose

        try:
            combinations.check(cell.options)
            return choose(cell.options, self.settings, self.registry, cell.defaults)
        except LLMError:
            self._turns(cell, cell.options)  # what is wrong with their file is said, too
            self.tell()
            raise

    def plan(self, cell: Cell) -> Plan:
        """Resolve a cell against the settings, the providers and its conversation; nothing is sent.

        Raises
        ------
        InputError
            Whatever is wrong with the cell.

        """
        from llm_magic.session.plan import plan

        models = self._choose(cell)
        return self._with_cells(plan(cell, models, self.settings, self._turns(cell, models[0].options)))

    def plan_rows(self, cell: Cell) -> Plan:
        """Resolve a cell that is asked for many rows: its prompt is left to be rendered for each of them.

        Raises
        ------
        InputError
            As `plan`.

        """
        from llm_magic.session.plan import plan

        models = self._choose(cell)
        return self._with_cells(plan(cell, models, self.settings, self._turns(cell, models[0].options), rows=True))

    def _with_cells(self, plan: Plan) -> Plan:
        """Return a plan with the executed cells that its options name."""
        wanted, messages = plan.options.context, plan.cell.messages
        if not wanted:
            return plan
        is_default = plan.cell.options.context is None and plan.cell.defaults.context is None
        if self.cells is None:
            if is_default:
                return _without_context(plan, "there is no notebook")
            raise OptionError(
                "--context sends executed cells of a notebook, and there is none here.",
                "In a notebook, run %load_ext llm_magic first; elsewhere, write what is to be known into the prompt.",
            )
        if messages and messages[-1].role != "user":
            if is_default:
                return _without_context(plan, "the last message is no user's")
            raise OptionError(
                "--context needs a user's message at the end of the messages.", "Add one, or leave it out."
            )
        from llm_magic.context.selection import select
        from llm_magic.context.serialization import as_context
        from llm_magic.secrets import hide_known

        self.cells.watch()
        cells = self.cells.cells()
        if not cells and self.cells.without_history:
            none = "--context: what executes this notebook keeps no history of its cells, so none can be sent."
            if isinstance(wanted, tuple) and not is_default:
                raise OptionError(none, "nbval does so; jupyter execute, nbconvert and papermill keep one.")
            return replace(plan, notes=(*plan.notes, none))
        try:
            cells = select(cells, wanted, self.namespace)
        except OptionError as missing:
            if not is_default:
                raise
            note = missing.message.replace(":", ", which is a default, is left out:", 1)
            return replace(plan, notes=(*plan.notes, note))
        found = as_context(
            cells,
            self.settings,
            self.settings.context_chars,
            keys=self.cells.keys(),
            mask=partial(hide_known, known=self.registry.secrets()),
        )
        return replace(plan, context=found.parts, notes=(*plan.notes, *found.notes))

    def models_asked(self, cell: Cell) -> tuple[str, ...]:
        """Return the names of the models that a cell asks: one, or several side by side; raises InputError."""
        try:
            called = cell.options.model or cell.defaults.model
            return self.registry.models_asked(called or self.registry.default_model(self.settings.model))
        except LLMError:
            self.tell()
            raise

    def plan_each(self, cells: Sequence[Cell]) -> tuple[Plan, ...]:
        """Resolve one prompt for several models, each named by the options of a cell of its own.

        The prompt is rendered once, and the executed cells of `--context` are those of the first, so that all are asked
        the same; anew only for a model whose own options change that.

        Raises
        ------
        InputError
            As `plan`.

        """
        first = self.plan(cells[0])
        plans = [first]
        for cell in cells[1:]:
            other = self.plan_rows(cell)
            if (other.options.raw, other.options.image) != (first.options.raw, first.options.image):
                other = self.plan(cell)
            else:
                notes = dict.fromkeys((*first.notes, *other.notes))
                other = replace(other, parts=first.parts, notes=tuple(notes))
            if other.options.context == first.options.context:
                other = replace(other, context=first.context)
            plans.append(other)
        return tuple(plans)

    def models(self, cell: Cell) -> tuple[PlannedModel, ...]:
        """Return the models that a cell asks, the first one first; raises InputError."""
        return self._choose(cell)

    def _turns(self, cell: Cell, options: Options) -> tuple[Turn, ...]:
        """Return the turns of the conversation before a cell."""
        name = self._chat_name(options)
        if name is None:
            return ()
        run = None if cell.run is None else cell.run.number
        limit = self.settings.history_turns
        return self.conversations.get(name).before(cell.cell_id, limit, part=cell.part, run=run)

    def _chat_name(self, options: Options) -> str | None:
        """Return the name of the conversation that a cell belongs to, None where it belongs to none."""
        return None if options.once else options.chat or self.settings.chat

    def ask(self, cell: Cell, view: View) -> Response:
        """Do the work of one cell, show it, and keep what it leaves behind.

        Raises
        ------
        LLMError
            Nothing was sent, the server failed, or the answer cannot be used; `response` of the error holds what came.
        Interrupted
            The user interrupted; its `response` holds what came.

        """
        return self._begin(cell, view).follow()

    def ask_in_background(
        self, cell: Cell, view: View, bind: Callable[[Response], None], tell: Callable[[Exception], None]
    ) -> Job[Response]:
        """Begin the work of one cell, and return at once.

        `bind` is called with the response when it is complete, before the job is done; `tell` with the error that
        there is in its place.

        Raises
        ------
        InputError
            Whatever is wrong with the cell; nothing was sent.

        """
        from llm_magic.session.job import Job

        return Job.begin(self._begin(cell, view), bind, tell, self.jobs)

    def _begin(self, cell: Cell, view: View) -> Screen:
        from llm_magic.session.run import Run
        from llm_magic.session.screen import Screen

        try:
            plan = self.plan(cell)
            recorder = self.recorder(plan.options, plan.cell)
        except LLMError:
            self.tell()
            raise
        about = self._about_history(plan)
        begun = self._begin_turn(plan)  # in the order of the cells
        plan = replace(plan, notes=(*self.take_notices(), *about, *plan.notes))
        run = Run(plan, self.spending, recorder=recorder, servers=self.servers_of(plan))
        return Screen(run, view, self.loop, partial(self._answer_and_tell, run, begun), footer=self.settings.footer)

    async def _answer_and_tell(
        self, run: Run, begun: tuple[Conversation, Begun] | None, emit: Emit[RunEvent]
    ) -> Response:
        from llm_magic.events import Note

        response = await self._kept(run, begun, emit)
        await emit([Note(notice) for notice in self.take_notices()])
        return response

    def begin_apart(self, plan: Plan) -> tuple[str, ...]:
        """Take note that a prompt is asked which leaves no turn; return what the user should know first."""
        about = self._about_history(plan)
        if plan.cell.run is not None:
            plan.cell.run.begun += 1
        return (*self.take_notices(), *about)

    def about_no_turn(self, plan: Plan) -> str:
        """Return, once, a line that says that answers of several models are no turn, where one could be meant."""
        run, name = plan.cell.run, self._chat_name(plan.options)
        if self._told_of_no_turn or run is None or not run.seen or name is None or not self.settings.history_turns:
            return ""
        self._told_of_no_turn = True
        return "Answers of several models are no turn of the conversation: later cells do not know them."

    async def answer_apart(self, run: Run, emit: Emit[RunEvent]) -> Response:
        """Await the answer of a run that leaves no turn, and keep its usage.

        Raises
        ------
        LLMError
            As for `ask`.

        """
        return await self._accounted(run, emit)

    async def answer(self, run: Run, emit: Emit[RunEvent]) -> Response:
        """Await the answer of a run, and keep what it leaves behind: its usage, and a turn of its conversation.

        Raises
        ------
        LLMError
            As for `ask`.

        """
        return await self._kept(run, self._begin_turn(run.plan), emit)

    def _begin_turn(self, plan: Plan) -> tuple[Conversation, Begun] | None:
        """Hold the place of a cell's turn in its conversation, None where it belongs to none."""
        name, cell = self._chat_name(plan.options), plan.cell
        number = 0
        if cell.run is not None:
            number = cell.run.number
            cell.run.begun += 1
            cell.run.chats.update(() if name is None else (name,))
        if name is None:
            return None
        chat = self.conversations.get(name)
        return chat, chat.begin(cell.cell_id, part=cell.part, run=number)

    async def _kept(self, run: Run, turn: tuple[Conversation, Begun] | None, emit: Emit[RunEvent]) -> Response:
        """Await the answer of a run, and keep what it leaves behind, where its turn was begun."""
        if turn is None:
            return await self._accounted(run, emit)
        from llm_magic.conversation import Turn

        (chat, begun), cell = turn, run.plan.cell
        try:
            response = await self._accounted(run, emit)
            chat.record(Turn(cell.cell_id, run.transcript, run.model, time.time(), cell.part), begun)
        finally:
            chat.end(begun)
        return response

    async def _accounted(self, run: Run, emit: Emit[RunEvent]) -> Response:
        try:
            with self.registry.explaining():
                return await run.answer(emit)
        finally:
            self.account(run)

    def account(self, run: Run) -> None:
        """Enter the response of a run, whatever its end was; what its requests took was entered when they ended."""
        response = run.response
        if response is not None:
            self.ledger.answered(response, *run.asked)

    def end_cell(self, cell_id: str, number: int, run: CellRun | None) -> None:
        """Forget the turns of a cell in conversations that it does not belong to any more.

        It has run, and `number` counts the cells that did; `run` holds its prompts, None where there were none.
        """
        if run is not None and run.prompts != run.begun:  # a dry run, a help page, an error that the cell caught
            return
        if self._conversations is None and not self.settings.chat_file:
            return
        with suppress(HistoryError):  # whatever it is, the next prompt says it
            self.conversations.leave(cell_id, number, frozenset(run.chats if run is not None else ()))

    def _about_history(self, plan: Plan) -> list[str]:
        """Say, once each, that the model does not know what stands above, and that a prompt run again is a new turn."""
        cell = plan.cell
        unseen = cell.run is None or not cell.run.seen
        if unseen or self._chat_name(plan.options) is None or not self.settings.history_turns:
            return []
        notes = []
        if not self._told_of_restart:
            self._told_of_restart = True
            notes += self._about_restart(cell)
        if cell.cell_id is None and not self._told_of_repeats and _is_repeated(plan):
            self._told_of_repeats = True
            notes.append(
                "This prompt is there as a turn already, and is sent along: this front end does not tell which cell "
                "runs, so each run is a new turn. %llm_chat drop N forgets one."
            )
        return notes

    def _about_restart(self, cell: Cell) -> list[str]:
        """Say that answers stand above of which the conversations, all of them empty, know nothing."""
        from llm_magic.conversation.notebook import answers_above, notebook_file

        file = notebook_file(cell.namespace)
        if file is None or not self.conversations.are_empty():
            return []
        number = answers_above(file, cell.cell_id, cell.run.code if cell.run is not None else "")
        if not number:
            return []
        which, them = ("answer", "that cell") if number == 1 else (f"{number:,} answers", "those cells")
        keeps = "" if self.settings.chat_file else "; LLMMagics.chat_file keeps conversations over restarts"
        return [f"The kernel was started anew: the model does not know the {which} above. Run {them} again{keeps}."]

    def preview(self, cell: Cell) -> Preview:
        """Return the request that a cell would send first; nothing is sent."""
        try:
            return self.preview_of(self.plan(cell))
        finally:
            self.tell()

    def preview_of(self, plan: Plan) -> Preview:
        """Return the request that a plan would send first; nothing is sent, but MCP servers are asked for tools."""
        from llm_magic.session.dry_run import preview, with_tools

        recorder = self.recorder(plan.options, plan.cell)
        with self.registry.explaining():
            plan = self.loop.run(with_tools(plan, self.servers_of(plan), recorder))
            return self.loop.run(preview(plan, self.spending, recorder))

    def close(self) -> None:
        """Stop what runs: requests, the loop, servers that providers started."""
        for job in list(self.jobs):
            job.leave()
        if self._mcp_servers is not None:
            with suppress(Exception):  # before anything is cancelled: each ends in the task that began it
                self.loop.run(self._mcp_servers.aclose())
        with suppress(Exception):  # a server that does not let go must not keep the kernel
            self.loop.cancel()  # a request that is about to connect would leave its connection open
            self.loop.run(asyncio.wait_for(self.registry.aclose(), 2))
        self.loop.close()
        self.registry.close()
        logs = sys.modules.get("llm_magic.wire.logs")  # nothing was sent where it is not there
        if logs is not None:
            logs.unguard()


def _without_context(plan: Plan, why: str) -> Plan:
    """Return a plan that sends no executed cells, which a default asks for, and says why."""
    return replace(plan, notes=(*plan.notes, f"--context, which is a default, is left out: {why}."))


def _is_repeated(plan: Plan) -> bool:
    """Tell whether a prompt is a turn already that came without the name of a cell."""
    from llm_magic.messages import user

    prompt = user(*plan.parts)
    return any(turn.cell_id is None and turn.messages[:1] == (prompt,) for turn in plan.turns)


def _warn(text: str) -> None:
    warnings.warn(text, LLMWarning, stacklevel=2)
