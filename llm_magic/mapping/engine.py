"""The engine of a run over rows: what asks for them where that is not done by requests from here, one a row."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llm_magic.display.batches import BatchProgress
    from llm_magic.errors import LLMError
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.mapping.rows import Outcome, RowRequest
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import Price
    from llm_magic.session.plan import Plan
    from llm_magic.session.run_spending import RunSpending


class RunOfEngine(Protocol):
    """The run whose rows an engine asks for, as far as it has to know it: `RowsRun`."""

    plan: Plan
    """What all rows share."""

    @property
    def identity(self) -> dict[str, Any]:
        """What all rows share, as plain data: a later run of the same goes on with this one."""

    def say(self, text: str) -> None:
        """Add a note."""

    def take_ready(self) -> list[Outcome]:
        """Return the outcomes of rows that need not be asked, of those that nobody has yet."""


class EnginePipeline(Protocol):
    """Asks for rows, as `Pipeline` does."""

    stopped: LLMError | None
    """Why no further row is asked; None where all are."""

    @property
    def waiting(self) -> str:
        """What all rows wait for, as a line; empty where they do not."""

    @property
    def in_flight(self) -> int:
        """Rows that are asked for now."""

    def put(self, outcomes: list[Outcome]) -> None:
        """Hand on outcomes of rows that need not be asked, with the others."""

    def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes as they come, some at a time, in any order."""


class Engine(Protocol):
    """Asks for the rows of one run."""

    for_the_rest: str
    """What becomes of rows that no earlier run has answered, in words."""

    def planned(self, plan: Plan) -> Plan:
        """Return the plan as this engine asks it; raises InputError where it cannot."""

    def pipeline(
        self, run: RunOfEngine, asker: RowAsker, spending: RunSpending, requests: Iterator[RowRequest]
    ) -> EnginePipeline:
        """Return what asks for the rows."""

    def price(self, price: Price | None) -> Price | None:
        """Return what tokens cost here of a model that has this price; None where that is not known."""

    def unknown_price(self, provider: Provider, model: str) -> str:
        """Return in a line how the price is given that is not known."""

    def asked_before(self, run: RunOfEngine) -> frozenset[str]:
        """Return the beginnings, of 32 characters, of the keys of rows that earlier runs of the same have asked."""

    def previewed(self, rows: int | None) -> tuple[str, ...]:
        """Return in lines how so many rows would be asked."""

    def progress(self) -> tuple[BatchProgress, ...]:
        """Return how far each batch at a server is that has rows of this run; any thread may ask."""

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came; empty where it has not begun."""


class FetchedRows(Protocol):
    """Answers to rows of a run that asks from here, which came by a file."""

    async def outcome(self, row: RowRequest, asker: RowAsker) -> Outcome | None:
        """Return the outcome of a row; None where it is to be asked."""

    async def ended(self) -> None:
        """Take note that the run has ended, and all that was fetched is in its outcomes."""

    async def aclose(self) -> None:
        """Close what was opened."""
