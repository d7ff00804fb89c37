"""Embeddings: their options, which values are texts, and the vectors that come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from llm_magic.errors import ConfigurationError, OptionError, PromptError
from llm_magic.events import Usage
from llm_magic.options import BY_NAME, OF_BATCHES, OF_ROWS, Option, Options, refuse_keys
from llm_magic.options import OPTIONS as ANSWER_OPTIONS
from llm_magic.options.batches import SWITCH_ELSEWHERE, refused_by_batch
from llm_magic.options.mapping import from_alias, from_keywords, refuse_unknown
from llm_magic.response import rate_limits

BATCH = 256
"""Texts in one request."""
_REQUEST = ("base_url", "timeout", "retries", "header", "param", "record")
"""Options of `%%llm` that a request for embeddings takes, too."""
_KEYWORDS = ("dimensions", "batch", *_REQUEST)
"""The keyword arguments of `LLM.embed`."""
_MEANINGLESS: Mapping[str, str] = {
    **{
        option.name: "It is for answers in words, which vectors are not."
        for option in ANSWER_OPTIONS
        if option.name not in _KEYWORDS
    },
    **dict.fromkeys((*OF_ROWS, "on_progress"), "batch is the number of texts in one request; several run at once."),
    **dict.fromkeys(
        (*(name for name in OF_BATCHES if name != "batch"), *SWITCH_ELSEWHERE, "completion_window"),
        "LLM.embed_batch(texts) sends them as an offline batch; batch is the number of texts in one request.",
    ),
    "each": "The texts are the first argument.",
    "images": "Texts are embedded, and no images.",
    "model": 'LLM("provider:model").embed(…) names the model.',
    "input": "The texts are the first argument.",
    "texts": "The texts are the first argument.",
    "encoding_format": "Vectors come as floats; to_numpy() gives an array.",
}
"""What is no keyword argument of `LLM.embed`, and could be none."""
_OF_THE_WAIT = ("block", "blocking", "completion_window")
_OF_BATCHES = ("poll", "again")
"""The keyword arguments that `LLM.embed_batch` takes besides."""
_MEANINGLESS_IN_BATCHES: Mapping[str, str] = {
    **_MEANINGLESS,
    **{name: hint for name, hint in refused_by_batch().items() if "wait" in name or name in _OF_THE_WAIT},
    **dict.fromkeys(SWITCH_ELSEWHERE, "LLM.embed_batch sends an offline batch in any case."),
    "batch_file": "The file of a batch is written for rows: LLM.batch(prompt, inputs, batch_file=…).",
    "model": 'LLM("provider:model").embed_batch(…) names the model.',
}
"""The same of `LLM.embed_batch`."""
_EXCERPT = 40


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def _list_or_array(text: str) -> str:
    if text not in {"list", "ndarray"}:
        raise ValueError("list or ndarray")
    return text


OPTIONS = (
    Option("each", ("--each",), "", "an expression that gives texts", "EXPR", str),
    Option("embed_as", ("--as",), "", "list or ndarray", "KIND", _list_or_array),
    Option("dimensions", ("--dimensions",), "", "shorter vectors", "N", _at_least_one),
    Option("batch", ("--batch",), "", "texts in one request (--batch-api is the offline batch)", "N", _at_least_one),
    Option("offline", ("--batch-api",), "", "embed by an offline batch"),
    *(BY_NAME[name] for name in ("model", "out", "wait", *_OF_BATCHES, *_REQUEST)),
)
"""The options of `%%llm_embed`."""


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """How texts are to be embedded: what each request says, and the number of texts in one."""

    request: Options
    batch: int = BATCH

    @classmethod
    def of(cls, values: Mapping[str, Any], model: str = "", *, offline: bool = False) -> EmbeddingOptions:
        """Return the options that a line, or keyword arguments, stand for; `offline`: of an offline batch.

        Raises
        ------
        OptionError
            An unknown one, or a value that it does not take.

        """
        source, meaningless = "embed", _MEANINGLESS
        known: tuple[str, ...] = _KEYWORDS
        if offline:
            source, known, meaningless = "embed_batch", (*_KEYWORDS, *_OF_BATCHES), _MEANINGLESS_IN_BATCHES
        refuse_keys((name for name in values if isinstance(name, str)), source)
        for name in values:
            if name not in known:
                refuse_unknown(name, source, known, meaningless)
        given = {name: value for name, value in values.items() if value is not None}
        own: dict[str, Any] = {name: given.pop(name) for name in ("dimensions", "batch") if name in given}
        for name, value in own.items():
            if type(value) is not int or value < 1:
                raise OptionError(f"{source}: {name} must be a whole number of at least 1, not {value!r:.60}.")
        batch = own.pop("batch", BATCH)
        request = from_keywords(given, source, "batch" if offline else "none")
        request.model = model or None
        if own and "dimensions" in request.param:
            raise OptionError("--dimensions and -p dimensions set the same field.", "Keep one of them.")
        request.param |= own
        return cls(request, batch)


def of_alias(defaults: Mapping[str, Any], alias: str) -> Options:
    """Return the defaults of an alias, as options.

    Raises
    ------
    OptionError
        One of them is for answers in words only.

    """
    given = dict(defaults)
    dimensions = given.pop("dimensions", None)
    options = from_alias(given, alias)
    for key, value in given.items():
        option = BY_NAME.get(key.replace("-", "_"))
        if value is not None and option is not None and option.name not in (*_REQUEST, "poll"):
            raise OptionError(
                f"The alias {alias} sets {option.name}, which embeddings do not take.",
                "Name the model itself, or make an alias for embeddings.",
            )
    options.param |= EmbeddingOptions.of({"dimensions": dimensions}).request.param
    return options


class Vectors(list[list[float]]):
    """The vectors of texts, in their order: a list of lists of float, and how they came.

    Attributes
    ----------
    model, model_reported, provider
        The model as asked for, as the server names it, and whose it is.
    dimensions
        Length of each vector; 0 where there is none.
    usage
        Tokens as the server counted them; None where it did not tell.
    cost
        US dollars, where a price is configured or the endpoint reports it; else None.
    seconds
        From the first request to the last answer.
    headers, rate_limits, request_id
        Of the last request: its response headers, names in lower case; those of `x-ratelimit-*` without that prefix;
        the server's name for it, None where it gave none.
    notes
        What the user should know: a budget that is exceeded.
    recorded
        Whether all of them came from recordings, and nothing was sent.

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
    headers: Mapping[str, str] = MappingProxyType({})
    request_id: str | None = None
    notes: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def rate_limits(self) -> dict[str, str]:
        """The `x-ratelimit-*` headers without that prefix."""
        return rate_limits(self.headers)

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
    """Return the texts in a list, a column, an array or whatever else gives them in turn.

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
    if isinstance(value, bytes | bytearray):
        raise PromptError(f"{name} is bytes, not a list of texts.", f"Write [{name}.decode()] for a list of one.")
    if isinstance(value, Mapping) or hasattr(value, "columns"):
        what, hint = ("a dict", ".values()") if isinstance(value, Mapping) else ("a table", '["column"]')
        raise PromptError(f"{name} is {what}, not a list of texts.", f"Did you mean {name}{hint}?")
    try:
        items = list(value)
    except TypeError:
        raise PromptError(
            f"{name} is no list of texts but {type(value).__name__}.", "Give a list, a column or an array of texts."
        ) from None
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
    return [str.__str__(item) for item in items]  # of a class of its own, its value: an Enum's is another text
