"""The work of one cell: plan it, ask, follow the answer on screen, keep what it leaves behind.

```
line, body ─arguments→ options     body + namespace ─prompt→ parts     type ─output→ constraint
name ─registry→ provider, model    conversation + parts ─messages→ turns
(turns, options, constraint, capabilities) ─compose→ request ─wire, on the loop→ events
events ─fold→ response so far ─display→ screen     response ─output→ value ─conversation, ledger→ kept
```
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from contextlib import suppress
from typing import TYPE_CHECKING

from llm_magic.background_loop import BackgroundLoop

if TYPE_CHECKING:
    from llm_magic.config.settings import Settings
    from llm_magic.conversation import Conversations, Turn
    from llm_magic.display import View
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.response import Response
    from llm_magic.session.job import Job
    from llm_magic.session.plan import Cell, Plan
    from llm_magic.session.run import Run
    from llm_magic.usage import Ledger
    from llm_magic.wire.call import Preview
    from llm_magic.wire.embeddings import Embedded


class Session:
    """Everything that cells of one notebook share.

    Parameters
    ----------
    settings
        The settings of every cell.
    registry
        The providers.

    """

    def __init__(self, settings: Settings, registry: ProviderRegistry) -> None:
        self.settings = settings
        self.registry = registry
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

            self._conversations, self._kept_in = Conversations(file or None, say=print), file
        return self._conversations

    @property
    def ledger(self) -> Ledger:
        """What was used so far."""
        if self._ledger is None:
            from llm_magic.usage import Ledger

            self._ledger = Ledger()
        return self._ledger

    def plan(self, cell: Cell) -> Plan:
        """Resolve a cell against the settings, the providers and its conversation."""
        turns: tuple[Turn, ...] = ()
        if not cell.options.once:
            chat = self.conversations.get(cell.options.chat or self.settings.chat)
            turns = chat.before(cell.cell_id, self.settings.history_turns, part=cell.part)
        from llm_magic.session.plan import plan

        return plan(cell, self.settings, self.registry, turns)

    def start(self, cell: Cell) -> Run:
        """Resolve a cell, ready to be shown.

        Raises
        ------
        InputError
            Whatever is wrong with the cell; nothing was sent.

        """
        from llm_magic.session.run import Run

        return Run(self.plan(cell))

    def show(self, cell: Cell, run: Run, view: View) -> Response:
        """Do the work of one cell, to its end, and keep what it leaves behind.

        Raises
        ------
        LLMError
            Nothing was sent, the server failed, or the answer cannot be used; `response` holds what came.
        KeyboardInterrupt
            The user interrupted; `run.response` holds what came.

        """
        from llm_magic.display.footer import footer
        from llm_magic.session.screen import follow

        view.begin(run.plan.choices[0].target.asked)
        try:
            response = follow(run, view, self.loop)
        finally:
            self.account(run)
        self.keep(cell, run)
        view.finish(response, footer(response) if self.settings.footer else "")
        return response

    def account(self, run: Run) -> None:
        """Enter what a run used, whatever its end was."""
        if run.response is not None:
            self.ledger.add(run.response)

    def keep(self, cell: Cell, run: Run) -> None:
        """Make the cell a turn of its conversation."""
        if cell.options.once:
            return
        from llm_magic.conversation import Turn

        turn = Turn(cell.cell_id, run.transcript, run.plan.choices[0].target.asked, time.time(), cell.part)
        self.conversations.get(cell.options.chat or self.settings.chat).record(turn)

    def preview(self, cell: Cell) -> Preview:
        """Return the request that a cell would send first; nothing is sent."""
        from llm_magic.session.bound_model import preview

        return self.loop.run(preview(self.plan(cell)))

    def close(self) -> None:
        """Stop what runs: requests, the loop, servers that providers started."""
        for job in list(self.jobs):
            job.cancel()
        with suppress(Exception):  # a server that does not let go must not keep the kernel
            self.loop.cancel()  # a request that is about to connect would leave its connection open
            self.loop.run(asyncio.wait_for(self.registry.aclose(), 2))
        self.loop.close()
        self.registry.close()
