"""Values as bytes on their way between client and workers, and outcomes that come back."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

from llm_magic.errors import ConfigurationError, LLMError
from llm_magic.mapping.rows import Outcome


class Sealed:
    """Bytes on their way to a worker, of which logs and dashboards show the size alone."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<{len(self.data):,} bytes>"

    def __reduce__(self) -> tuple[type[Sealed], tuple[bytes]]:
        return Sealed, (self.data,)

    def __sizeof__(self) -> int:
        return len(self.data)

    def __dask_tokenize__(self) -> int:
        return id(self)


def sealed(value: object) -> Sealed:
    """Return a value as bytes; what the notebook defines (types, functions) goes along by value.

    Raises
    ------
    ConfigurationError
        It cannot travel.

    """
    return Sealed(packed(value))


def packed(value: object) -> bytes:
    """Return a value as bytes, as `sealed`."""
    import cloudpickle  # type: ignore[import-untyped]  # it comes with Dask, and has no types

    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
        said = str(error).partition("\n")
        raise ConfigurationError(
            f"This cannot be sent to the workers: {said[0]}",
            said[2] or "Use types and functions of a module, or plain ones.",
        ) from None
    return data


def opened(value: Sealed | bytes) -> Any:
    """Return what was packed or sealed."""
    return pickle.loads(value.data if isinstance(value, Sealed) else value)  # noqa: S301 - of this cluster, whose tasks run any code


def pack_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as bytes; of one that cannot travel, the error that says so is in its place."""
    try:
        return packed(outcome)
    except LLMError as error:
        response = outcome.response
        if response is not None:
            response.value = None
        failed = LLMError(f"The value cannot come back from the worker: {error.message}", error.hint)
        with suppress(LLMError):
            return packed(Outcome(outcome.number, response, failed))
        return packed(Outcome(outcome.number, None, failed))


def pack_outcomes(outcomes: list[Outcome]) -> bytes:
    """Return outcomes as bytes: together, for what they share is written once; else each by itself."""
    with suppress(Exception):  # a type of the notebook goes along by value, which this cannot
        return pickle.dumps(outcomes, pickle.HIGHEST_PROTOCOL)
    return pickle.dumps([pack_outcome(each) for each in outcomes], pickle.HIGHEST_PROTOCOL)


def open_outcomes(numbers: list[int], data: bytes) -> list[Outcome]:
    """Return the outcomes of these rows, as `pack_outcomes` made them; one that cannot be read is an error."""
    try:
        found: list[Outcome | bytes] = opened(data)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
        return [_unread(number, error) for number in numbers]
    return [
        _open_outcome(number, each) if isinstance(each, bytes) else each
        for number, each in zip(numbers, found, strict=True)
    ]


def _open_outcome(number: int, data: bytes) -> Outcome:
    try:
        found: Outcome = opened(data)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
        return _unread(number, error)
    return found


def _unread(number: int, error: Exception) -> Outcome:
    said = str(error).partition("\n")[0]
    failed = LLMError(f"The answer came from the worker, and cannot be read here: {type(error).__name__}: {said}")
    return Outcome(number, None, failed)
