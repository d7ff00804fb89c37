"""The asking of one row: by one document over a prepared request where that is enough, else by a run as a cell's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError, ProviderError
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.session.model_exchanges import BoundModels
from llm_magic.session.run import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_magic.messages import ToolCall
    from llm_magic.session import Session
    from llm_magic.session.plan import Plan
    from llm_magic.session.recorder import Recorder
    from llm_magic.session.spending import Spending


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
        Answers from recordings, or from an earlier run of these rows, and records; None where nothing is kept.
    on_confirm
        Says whether a call may be carried out, as of `LLM.ask`.

    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        spending: Spending,
        recorder: Recorder | None,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
    ) -> None:
        self._session = session
        self._plan = replace(plan, notes=())  # those of the whole run are said once
        self._spending = spending
        self._recorder = recorder
        self._on_confirm = on_confirm
        self._models = BoundModels()

    async def ask(self, row: RowRequest) -> Outcome:
        """Return the outcome of a row; what goes wrong is in it."""
        run = Run(
            replace(self._plan, parts=row.parts),
            self._spending,
            self._on_confirm,
            self._recorder,
            models=self._models,
        )
        try:
            with self._session.registry.explaining():
                response = await run.answer(_nowhere)
        except LLMError as error:
            return failed(row.number, error)
        except Exception as error:  # noqa: BLE001 - of a provider's own code
            what = ProviderError(f"{run.model} failed: {type(error).__name__}: {error}")
            what.response = run.response
            return failed(row.number, what)
        finally:
            self._session.account(run)
        return Outcome(row.number, response)


def failed(number: int, error: LLMError) -> Outcome:
    """Return the outcome of a row that failed; of where it came from, which would keep all of it, nothing is kept."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return Outcome(number, error.response, error)


async def _nowhere(_batch: list[Any]) -> None:
    """Let what happens pass by."""
