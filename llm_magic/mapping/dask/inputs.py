"""A Dask DataFrame, Series or Bag as an input: its rows come here, and its cluster asks for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.mapping.dask.client import client_of
from llm_magic.mapping.inputs.inputs import is_dask

if TYPE_CHECKING:
    from llm_magic.session.plan import Cell


def gathered(value: Any, cell: Cell) -> tuple[Any, Cell]:
    """Return a Dask DataFrame, Series or Bag as pandas or a list, and the cell as one that is asked by its cluster.

    Any other value comes back as it is. The rows come here in the order of the partitions, for what is bound stands
    here, too.

    Raises
    ------
    ConfigurationError
        There is no cluster.

    """
    if not is_dask(value):
        return value, cell
    on = cell.options.on if cell.options.on is not None else "dask"
    found = client_of(on).compute(value).result()
    return found, replace(cell, options=replace(cell.options, on=on))
