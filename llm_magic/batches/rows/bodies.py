"""The bodies of rows: the JSON that each line of an input file sends, as a request from here would have it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from llm_magic.errors import UnsupportedError
from llm_magic.mapping.asking.document_asking import MARKER
from llm_magic.messages import Text, user
from llm_magic.providers.batches import refuse_secrets
from llm_magic.session.spending import Demand, demand

if TYPE_CHECKING:
    from llm_magic.mapping.rows import RowRequest
    from llm_magic.request import Request
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.wire.body_template import BodyTemplate
    from llm_magic.wire.prepared import PreparedRequest


class RequestBodies:
    """Makes the bodies of the rows of one plan, of plain texts from a template.

    Parameters
    ----------
    plan
        What all rows share.
    bound
        The model that is asked.
    prepared
        A request of the plan, with a marker in the place of a row's text.
    template
        Its body; None where that has no place for one text.

    """

    def __init__(self, plan: Plan, bound: BoundModel, prepared: PreparedRequest, template: BodyTemplate | None) -> None:
        self._plan, self._bound, self._prepared, self._template = plan, bound, prepared, template
        self._shared = demand(replace(prepared.call.request, messages=()))

    @classmethod
    async def of(cls, plan: Plan, bound: BoundModel) -> Self:
        """Return what makes the bodies.

        Raises
        ------
        UnsupportedError
            The provider is no client of the OpenAI protocol, or a secret would be written into the file.
        InputError
            An option that the endpoint cannot honour.

        """
        request = replace(bound.compose(replace(plan, parts=(Text(MARKER),))), stream=False)
        refuse_secrets(request.parameters.extra)
        options = bound.planned.options
        prepared = await bound.provider.prepare_request(
            request, bound.capabilities, timeout=options.timeout, max_retries=options.retries
        )
        if prepared is None:
            raise UnsupportedError(
                f"{bound.provider.name} sends its requests by code of its own, which knows no batches.",
                "Leave --batch out: the rows are asked for at once.",
            )
        return cls(plan, bound, prepared, await prepared.template(MARKER))

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._prepared.aclose()

    @property
    def path(self) -> str:
        """The path of the API below the base URL: `/chat/completions`."""
        return self._prepared.call.http_request().path

    async def body(self, row: RowRequest) -> bytes:
        """Return the body of a row.

        Raises
        ------
        LLMError
            It is none that can be sent: half of a surrogate pair, an image that the model does not take.

        """
        parts = row.parts
        if self._template is not None and len(parts) == 1 and isinstance(parts[0], Text):
            return self._template.body(parts[0].text)
        provider, capabilities = self._bound.provider, self._bound.capabilities
        request = self.request(row)
        await provider.check(request, capabilities)
        return await self._prepared.body(await provider.adapt(request, capabilities))

    def request(self, row: RowRequest, bound: BoundModel | None = None) -> Request:
        """Return what a row asks, as data: of the model as it is bound now, or as it was when the row was asked."""
        return replace((bound or self._bound).compose(replace(self._plan, parts=row.parts)), stream=False)

    def demand(self, row: RowRequest) -> Demand:
        """Return the tokens that a row asks for."""
        shared = self._shared
        for message in (*self._prepared.call.request.messages[:-1], user(*self._plan.context, *row.parts)):
            shared = shared.with_message(message)
        return shared
