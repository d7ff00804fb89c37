"""The engine of offline batches: how the rows of one run are asked by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.batches.jsonl.input_file import MOST_ROWS
from llm_magic.batches.remote.polling import INTERVAL
from llm_magic.batches.remote.retrieval import asked_before
from llm_magic.batches.remote.state import BatchState
from llm_magic.batches.rows.pipeline import BatchPipeline
from llm_magic.providers.batches import refuse_batches, unknown_price
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.display.batches import BatchProgress
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.mapping.rows import RowRequest
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import Price
    from llm_magic.session import Session
    from llm_magic.session.plan import Plan
    from llm_magic.session.run_spending import RunSpending


class PricedAsBatch:
    """What an engine says of prices whose rows are asked for by batches."""

    def price(self, price: Price | None) -> Price | None:
        """Return the price of batches; None where the user gave none: it is never guessed."""
        return None if price is None else price.of_batches

    def unknown_price(self, provider: Provider, model: str) -> str:
        """Return in a line how the price of batches is given, which is not known."""
        return f"{unknown_price(provider, model or 'MODEL')}."


class BatchEngine(PricedAsBatch):
    """Asks for the rows of one run by offline batches.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    state
        Has what is known of the batches; None: one of its own.

    """

    for_the_rest = "the others are in a batch"

    def __init__(self, session: Session, state: BatchState | None = None) -> None:
        self.state = state or BatchState(session)

    def planned(self, plan: Plan) -> Plan:
        """Return the plan as batches ask it: of one model, asked once, whose calls of tools are the answer.

        Raises
        ------
        UnsupportedError
            The endpoint is known to have no batches.

        """
        first = plan.models[0]
        provider, model = first.target.provider, first.target.model
        refuse_batches(provider, provider.capabilities(model), model)
        self.state.every = first.options.poll or INTERVAL
        self.state.again = bool(first.options.again)
        return asked_once(
            plan,
            fallbacks="Fallbacks are not asked by a batch: all its rows are those of one model.",
            tools="Calls of tools are not carried out in a batch: .responses[N].tool_calls has them.",
        )

    def pipeline(
        self, run: RunOfEngine, asker: RowAsker, spending: RunSpending, requests: Iterator[RowRequest]
    ) -> BatchPipeline:
        """Return what asks for the rows."""
        return BatchPipeline(self.state, run, asker, spending, requests)

    def asked_before(self, run: RunOfEngine) -> frozenset[str]:
        """Return the beginnings of the keys of rows that batches of earlier runs of the same have."""
        folder = self.state.folder
        try:
            records = [] if self.state.again else folder.of_run(key_of(run.identity))
            return frozenset(asked_before(folder, [each for each in records if not each.is_with_user]))
        except OSError:  # which is said where something is to be submitted
            return frozenset()

    def previewed(self, rows: int | None) -> tuple[str, ...]:
        """Return how so many rows would be submitted."""
        files = "" if rows is None or rows <= MOST_ROWS else f" (at most {MOST_ROWS:,} in one file)"
        line = f"With --batch, its body is one line of a file{files} that is uploaded (POST /files)"
        return (f"{line} and worked through within 24 hours (POST /batches).",)

    def progress(self) -> tuple[BatchProgress, ...]:
        """Return how far each batch is."""
        return self.state.progress()

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came; empty where nothing was submitted."""
        return self.state.how_far()


def asked_once(plan: Plan, *, fallbacks: str, tools: str) -> Plan:
    """Return a plan of its first model alone, which is asked once, not streaming, and whose calls of tools are answers.

    Parameters
    ----------
    plan
        The plan.
    fallbacks, tools
        What is noted where it has fallbacks, or offers tools.

    """
    first = plan.models[0]
    options = replace(first.options, retries_invalid=0, stream=None, no_stream=True)
    offered = plan.tools or plan.mcp or options.param.get("tools") or options.param.get("functions")
    notes = list(plan.notes)
    if len(plan.models) > 1:
        notes.append(fallbacks)
    if offered and options.tool_choice != "none":
        notes.append(tools)
    return replace(plan, models=(replace(first, options=options),), notes=tuple(notes), returns_calls=True)
