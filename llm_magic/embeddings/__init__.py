"""Texts and their vectors: what may be embedded, how it is wished for, and the list that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llm_magic.errors import ConfigurationError, OptionError, PromptError
from llm_magic.events import Usage
from llm_magic.options import from_mapping

BATCH = 256
"""Texts in one request."""
_EXCERPT = 40


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """How texts are to be embedded; None and empty take what the provider has."""

    model: str = ""
    dimensions: int | None = None
    batch: int = BATCH
    param: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    base_url: str | None = None
    timeout: float | None = None
    retries: int | None = None


def wish_from(values: Mapping[str, Any], model: str = "") -> EmbeddingOptions:
    """Return the wish that keyword arguments stand for.

    Raises
    ------
    OptionError
        An unknown one, or a value that it does not take.

    """
    known = {item.name for item in fields(EmbeddingOptions)} - {"model"}
    for name, value in values.items():
        if name not in known:
            raise OptionError(f"embed has no option {name}.", f"There are {', '.join(sorted(known))}.")
        if name in {"dimensions", "batch"} and (type(value) is not int or value < 1):
            raise OptionError(f"embed: {name} must be a whole number of at least 1, not {value!r}.")
    ours = {"timeout", "retries", "header", "param"}
    checked = from_mapping({name: value for name, value in values.items() if name in ours}, "embed")
    return EmbeddingOptions(model=model, **{**values, **{name: getattr(checked, name) for name in ours & set(values)}})


class Vectors(list[list[float]]):
    """The vectors of texts, in their order: a list of lists of float, with what is known of how they came.

    Attributes
    ----------
    model, model_reported, provider
        The model as asked for, as the server names it, and whose it is.
    dimensions
        Length of each vector; 0 where there is none.
    usage
        Tokens as the server counted them; None where it did not tell.
    cost
        US dollars, where a price is configured; else None.
    seconds
        From the first request to the last answer.

    Examples
    --------
    >>> vectors = Vectors([[0.6, 0.8], [1.0, 0.0]])
    >>> len(vectors), vectors.dimensions
    (2, 2)

    """

    model: str = ""
    model_reported: str = ""
    provider: str = ""
    usage: Usage | None = None
    cost: float | None = None
    seconds: float = 0.0

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        return len(self[0]) if self else 0

    def to_numpy(self) -> Any:
        """Return a float32 array of shape (texts, dimensions).

        Raises
        ------
        ConfigurationError
            numpy is not installed.

        """
        numpy = need_numpy()
        return numpy.asarray(self, dtype=numpy.float32).reshape(len(self), self.dimensions)

    def __repr__(self) -> str:
        return f"<Vectors {len(self):,} × {self.dimensions:,}{f' of {self.model}' if self.model else ''}>"


def need_numpy() -> Any:
    """Return numpy.

    Raises
    ------
    ConfigurationError
        It is not installed.

    """
    try:
        import numpy as np
    except ImportError:
        raise ConfigurationError(
            "An array needs numpy, which is not installed.", "pip install numpy, or take the list of lists."
        ) from None
    return np


def texts_of(value: Any, name: str) -> list[str]:
    """Return the texts in a list, a column, an array or whatever else gives them one after the other.

    Parameters
    ----------
    value
        What gives the texts.
    name
        What to call it in an error.

    Raises
    ------
    PromptError
        It gives none, or something else than text; the error says where.

    """
    if isinstance(value, str):
        raise PromptError(f"{name} is one text, not a list of texts.", f"Write [{name}] for a list of one.")
    if isinstance(value, Mapping) or hasattr(value, "columns"):
        what, hint = ("a dict", ".values()") if isinstance(value, Mapping) else ("a table", '["column"]')
        raise PromptError(f"{name} is {what}, not a list of texts.", f"Did you mean {name}{hint}?")
    try:
        items = list(value)
    except TypeError:
        raise PromptError(f"{name} is no list of texts but {type(value).__name__}.") from None
    for number, item in enumerate(items):
        if not isinstance(item, str):
            said = repr(item)
            said = said if len(said) <= _EXCERPT else said[: _EXCERPT - 1] + "…"
            raise PromptError(
                f"{name}: item {number} is no text but {type(item).__name__} {said}.",
                f"Leave it out, or make it one: [str(item) for item in {name}].",
            )
        if not item:
            raise PromptError(f"{name}: item {number} is an empty text, which has no embedding.", "Leave it out.")
    return [str(item) for item in items]
