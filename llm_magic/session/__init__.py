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
import time
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llm_magic.background_loop import BackgroundLoop
from llm_magic.config.precedence import sources_of
from llm_magic.errors import LLMError, LLMWarning

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.config.settings import Settings
    from llm_magic.conversation import Conversation, Conversations, Turn
    from llm_magic.display import View
    from llm_magic.ledger import Ledger
    from llm_magic.options import Options
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.response import Response
    from llm_magic.session.job import Job
    from llm_magic.session.plan import Cell, Plan
    from llm_magic.session.run import Run
    from llm_magic.session.screen import Screen
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
        self.settings = settings
        sources_of(settings)  # what is set from now on is the session's
        self.registry = registry
        self._say = say or _warn
        self._notices: list[str] = []
        self.loop = BackgroundLoop()
        self._conversations: Conversations | None = None
        self._kept_in = ""
        self._ledger: Ledger | None = None
        self.jobs: set[Job] = set()
        """Cells that go on in the background."""
        self.unfinished: dict[Hashable, Embedded] = {}
        """Batches of embeddings that came before a request for more of them failed."""

    @property
    def conversations(self) -> Conversations:
        """The conversations, in memory or in `settings.chat_file`."""
        file = self.settings.chat_file
        if self._conversations is None or self._kept_in != file:
            from llm_magic.conversation import Conversations

            self._conversations, self._kept_in = Conversations(file or None, self._notices.append), file
        return self._conversations

    @property
    def ledger(self) -> Ledger:
        """What was used so far."""
        if self._ledger is None:
            from llm_magic.ledger import Ledger

            self._ledger = Ledger()
        return self._ledger

    def take_notices(self) -> tuple[str, ...]:
        """Return the lines that the user should see and has not yet: a file that was put aside, settings that wait."""
        of_project = filter(None, (self.registry.misspelled_line(), self.registry.waiting_line()))
        notices, self._notices[:] = (*of_project, *self._notices), []
        return notices

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
        from llm_magic.options import combinations
        from llm_magic.session.plan import choose

        try:
            combinations.check(cell.options)
            return choose(cell.options, self.settings, self.registry, cell.defaults)[0].options
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

        return plan(cell, self.settings, self.registry, self._turns(cell, self.in_force(cell)))

    def _turns(self, cell: Cell, options: Options) -> tuple[Turn, ...]:
        """Return the turns of the conversation before a cell."""
        if options.once:
            return ()
        return self._chat(options).before(cell.cell_id, self.settings.history_turns, part=cell.part)

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
    ) -> Job:
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
        except LLMError:
            self.tell()
            raise
        run = Run(replace(plan, notes=(*self.take_notices(), *plan.notes)))
        return Screen(run, view, self.loop, partial(self._answer_and_tell, run), footer=self.settings.footer)

    async def _answer_and_tell(self, run: Run, emit: Emit[RunEvent]) -> Response:
        from llm_magic.events import Note

        response = await self.answer(run, emit)
        await emit([Note(notice) for notice in self.take_notices()])
        return response

    async def answer(self, run: Run, emit: Emit[RunEvent]) -> Response:
        """Await the answer of a run, and keep what it leaves behind: its usage, and a turn of its conversation.

        Raises
        ------
        LLMError
            As for `ask`.

        """
        try:
            with self.registry.explaining():
                response = await run.answer(emit)
        finally:
            self.account(run)
        self._keep(run)
        return response

    def account(self, run: Run) -> None:
        """Enter what a run used, whatever its end was."""
        if run.response is not None:
            self.ledger.add(run.response)

    def _keep(self, run: Run) -> None:
        """Make a cell a turn of its conversation."""
        cell, options = run.plan.cell, run.plan.options
        if options.once:
            return
        from llm_magic.conversation import Turn

        turn = Turn(cell.cell_id, run.transcript, run.plan.models[0].target.asked, time.time(), cell.part)
        self._chat(options).record(turn)

    def _chat(self, options: Options) -> Conversation:
        return self.conversations.get(options.chat or self.settings.chat)

    def preview(self, cell: Cell) -> Preview:
        """Return the request that a cell would send first; nothing is sent."""
        from llm_magic.session.dry_run import preview

        try:
            with self.registry.explaining():
                return self.loop.run(preview(self.plan(cell)))
        finally:
            self.tell()

    def close(self) -> None:
        """Stop what runs: requests, the loop, servers that providers started."""
        for job in list(self.jobs):
            job.cancel()
        with suppress(Exception):  # a server that does not let go must not keep the kernel
            self.loop.cancel()  # a request that is about to connect would leave its connection open
            self.loop.run(asyncio.wait_for(self.registry.aclose(), 2))
        self.loop.close()
        self.registry.close()
        logs = sys.modules.get("llm_magic.wire.logs")  # nothing was sent where it is not there
        if logs is not None:
            logs.unguard()


def _warn(text: str) -> None:
    warnings.warn(text, LLMWarning, stacklevel=2)
