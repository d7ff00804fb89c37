"""Vectors in the results of offline batches: of one line, and of a batch as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.batches.jsonl.input_file import read_ids
from llm_magic.batches.jsonl.results import RowResult, error_of
from llm_magic.batches.remote.retrieval import no_result, results_of
from llm_magic.display.footer import counted
from llm_magic.embeddings import Vectors
from llm_magic.embeddings.run import cost_of, sum_of
from llm_magic.errors import LLMError, ProtocolError
from llm_magic.wire.embeddings import read_embeddings

if TYPE_CHECKING:
    from llm_magic.batches.kept.kept_batches import BatchFolder
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.providers.base import Provider
    from llm_magic.wire.embeddings import Embedded


def embedded_in(
    result: RowResult,
    provider: Provider,
    model: str,
    expected: int | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Embedded:
    """Return the vectors that a line of a batch's results has, with their cost at the price of batches.

    Parameters
    ----------
    result
        The line.
    provider, model
        Who was asked.
    expected
        Number of texts that were asked for; None where nobody knows.
    asked
        Further fields of the body that was sent.

    Raises
    ------
    LLMError
        It has none.

    """
    origin, known = provider.origin(model), tuple(map(str, provider.secrets()))
    if result.body is None:
        if result.error is None:
            raise ProtocolError(f"{origin} gave no answer to this line.", origin=origin)
        raise error_of(result.error, origin, known=known)
    data = result.body.get("data")
    count = len(data) if expected is None and isinstance(data, list) else expected
    found = read_embeddings(result.body, count or 0, asked or {}, origin, known)
    price, cost = provider.price(model), found.cost
    if cost is None and price is not None and found.usage is not None:
        cost = price.of_batch(found.usage)
    return replace(found, cost=cost, request_id=result.request_id)


async def vectors_of(folder: BatchFolder, record: BatchRecord, provider: Provider) -> Vectors:
    """Return the vectors of a batch that is fetched, in the order of its texts, where all of its lines have some.

    Raises
    ------
    LLMError
        A line has none: run its call again, which asks for what is missing.

    """
    lines = dict.fromkeys(await asyncio.to_thread(read_ids, folder.ids_path(record)))
    errors: dict[str, LLMError] = {}
    found: dict[str, Embedded] = {}
    async for name, result in results_of(folder, record, lines, 1):
        try:
            found[name] = found.get(name) or embedded_in(result, provider, record.model)
        except LLMError as error:
            errors[name] = error
    for name in lines:
        if name not in found:
            fault = errors.get(name) or no_result(record)
            fault.message = (
                f"{len(lines) - len(found):,} of {counted(len(lines), 'line')} have no vectors: {fault.message}"
            )
            fault.hint = "Its cell, run again, keeps the others, and asks for what is missing."
            raise fault
    vectors = Vectors(vector for name in lines for vector in found[name].vectors)
    vectors.model, vectors.provider = record.asked, record.provider
    all_found = list(found.values())
    vectors.model_reported = next((each.model_reported for each in all_found), "")
    vectors.usage, vectors.cost = sum_of(all_found), cost_of(all_found)
    return vectors
