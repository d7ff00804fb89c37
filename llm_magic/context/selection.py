"""Which of the executed cells are meant: the last so many, all, or those that define names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from llm_magic.close_matches import did_you_mean
from llm_magic.context.definitions import names_defined
from llm_magic.context.executed_cells import ExecutedCell
from llm_magic.errors import OptionError


def select(
    cells: Sequence[ExecutedCell], wanted: int | Literal["all"] | tuple[str, ...], namespace: Iterable[str] = ()
) -> list[ExecutedCell]:
    """Return the cells that are meant, in the order in which they ran.

    `namespace` are the notebook's variables: of one that no cell's code defines, it is said what may be done.

    Raises
    ------
    OptionError
        No executed cell defines one of the names.

    """
    if wanted == "all":
        return list(cells)
    if isinstance(wanted, int):
        return list(cells)[-wanted:]
    defined = [names_defined(cell.source) for cell in cells]
    known = frozenset[str]().union(*defined)
    for name in wanted:
        if name not in known:
            hint = "No executed cell defines a name." if not known else f"They define {_some(known)}."
            if name in namespace:
                hint = f"It is a variable: {{{{ {name} }}}} in the prompt sends its value."
            raise OptionError(f"--context {name}: no executed cell defines {name}.", did_you_mean(name, known, hint))
    return [cell for cell, names in zip(cells, defined, strict=True) if not names.isdisjoint(wanted)]


def _some(names: Iterable[str], most: int = 8) -> str:
    found = sorted(name for name in names if not name.startswith("_"))
    return ", ".join(found[:most]) + (", …" if len(found) > most else "")
