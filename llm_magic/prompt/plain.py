"""Any object as the text that IPython shows for it, written only as far as it is wanted."""

from __future__ import annotations

from io import StringIO
from typing import Any

from IPython.lib.pretty import RepresentationPrinter


class _Full(Exception):  # noqa: N818 - no error: it ends the writing
    """Enough was written."""


class _Bounded(StringIO):
    """A text that takes so many characters and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def write(self, text: str) -> int:
        if len(text) > self._left:
            super().write(text[: self._left])
            self._left = 0
            raise _Full
        self._left -= len(text)
        return super().write(text)


def plain(value: Any, most: int) -> tuple[str, bool]:
    """Return the pretty-printed text of a value, at most `most` characters of it, and whether that is all.

    Cyclic containers show as IPython shows them (`[...]`); an object whose own repr never ends shows as Python's
    default one. A repr that raises, raises here.
    """
    sink = _Bounded(most)
    printer: Any = RepresentationPrinter(sink, max_width=100, max_seq_length=0)
    try:
        printer.pretty(value)
        printer.flush()
    except _Full:
        return sink.getvalue(), False
    except RecursionError:
        return object.__repr__(value), True
    return sink.getvalue(), True
