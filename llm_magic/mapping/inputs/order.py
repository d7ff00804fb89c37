"""In which order rows are asked: a few spread over all of them, or rows with like beginnings next to each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from llm_magic.errors import OptionError
from llm_magic.mapping.inputs.inputs import Inputs
from llm_magic.mapping.rows import RowRequest
from llm_magic.messages import Text
from llm_magic.prompt import Rendered


def spread(length: int, count: int) -> list[int]:
    """Return the numbers of `count` rows spread evenly over `length` rows, the first and the last among them.

    Of fewer rows than `count` it is all; a single one is the first.

    >>> spread(2000, 5), spread(3, 5), spread(10, 1)
    ([0, 500, 1000, 1499, 1999], [0, 1, 2], [0])

    """
    if count >= length:
        return list(range(length))
    if count <= 1:
        return [0] * count
    steps = count - 1
    return [(2 * number * (length - 1) + steps) // (2 * steps) for number in range(count)]


def by_prefix(beginnings: Sequence[str]) -> list[int]:
    """Return the numbers of rows in an order in which prompts with a long common beginning follow each other.

    Equal ones keep their order. A server that keeps the work on a beginning does it once for all that share it.

    >>> by_prefix(["On tea: good?", "On coffee: good?", "On tea: cheap?"])
    [1, 2, 0]

    """
    return sorted(range(len(beginnings)), key=beginnings.__getitem__)


def beginning_of(rendered: Rendered | RowRequest) -> str:
    """Return a prompt as the text that `by_prefix` compares: an image stands in it as a digest."""
    return "".join(
        part.text if isinstance(part, Text) else f"\0{part.url or hashlib.sha256(part.data or b'').hexdigest()}\0"
        for part in rendered.parts
    )


def refuse_iterator(inputs: Inputs, option: str) -> None:
    """Raise OptionError where an option needs all rows before the first is sent, and they are read as needed."""
    if inputs.is_iterator or inputs.length is None:
        raise OptionError(
            f"{option} needs all rows before the first is sent, and {inputs.name} is read as it is needed.",
            f"Make a list of it first: list({inputs.name})",
        )
