"""The engine of `--batch-file`: the rows of a run are written into a file for another program, as vLLM's `run_batch`.

Nothing is sent. What that program wrote is fetched (`llm_magic.batches.batch_file.fetched_file`), and found by the next
run of the same cell, whether that has `--batch-file` or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.batches.batch_file.file_place import FilePlace
from llm_magic.batches.batch_file.pipeline import BatchFilePipeline
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.rows.engine import PricedAsBatch, asked_once
from llm_magic.errors import OptionError
from llm_magic.mapping.asking.row_asker import RowAsker
from llm_magic.mapping.rows import RowRequest
from llm_magic.providers.batches import refuse_batch_file

if TYPE_CHECKING:
    from llm_magic.display.batches import BatchProgress
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.session import Session
    from llm_magic.session.plan import Plan
    from llm_magic.session.run_spending import RunSpending


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
        return BatchFilePipeline(
            self.session, run, asker, requests, place=self.place, folder=self.folder, again=self.again
        )

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
