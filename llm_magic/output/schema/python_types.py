"""Python types as pydantic validates them: those that it takes otherwise, and why it cannot take others."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import operator
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
import typing_extensions

from llm_magic.output.type_expression import FrameType

ALIASES: tuple[type, ...] = tuple({typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", int)} - {int})
"""The classes of `type X = …`: before Python 3.12 that of `typing_extensions`."""

_ITERABLES = frozenset((collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator))
_BARE: dict[Any, str] = {
    **dict.fromkeys((typing.Never, typing.NoReturn, typing_extensions.Never), "no value is of this type."),
    typing.Union: "it needs its types: Union[int, str].",
    typing.Optional: "it needs its type: Optional[int].",
    typing.Literal: 'it needs its values: Literal["yes", "no"].',
    **dict.fromkeys((typing.ClassVar, typing.Final, typing.Required, typing.NotRequired), "it is no type by itself."),
    **dict.fromkeys((typing.Generic, typing.Protocol), "it is what types are made with; name one of your own."),
}
_OF_FIELDS = (typing.ClassVar, typing.Required, typing.NotRequired)


def unaliased(kind: Any) -> Any:
    """Return what an alias made by `type X = …` stands for; any other type as it is."""
    while isinstance(kind, ALIASES):
        kind = kind.__value__  # type: ignore[attr-defined]  # of either class
    return kind


def refusal(kind: Any) -> str:
    """Return why no answer can be a value of this type, or of one that it holds; empty where nothing is in the way."""
    seen: list[Any] = []
    waiting = [kind]
    for part in waiting:  # extended while it is walked
        if any(part is each for each in seen):
            continue
        seen.append(part)
        if reason := _reason(part):
            return reason if part is kind else f"in it, {_name(part)}: {reason}"
        waiting += _parts(part)
    return ""


def _reason(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if isinstance(kind, FrameType):
        return "a DataFrame is the whole answer, not a part of it."
    if origin is typing.Literal:
        strange = next((value for value in typing.get_args(kind) if not _is_scalar(value)), None)
        return f"{strange!r} is nothing that JSON can hold." if strange is not None else ""
    if type in (origin, kind):
        return "a class is no value that JSON can hold."
    if collections.abc.Callable in (origin, kind) or kind is typing.Callable:
        return "a function is no value that JSON can hold."
    if origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping) and _is_no_key(
        typing.get_args(kind)[0]
    ):
        return f"keys in JSON are text, not {_name(typing.get_args(kind)[0])}."
    if isinstance(kind, typing.TypeVar):
        return "a type variable stands for no type."
    if origin in _OF_FIELDS:
        return "it says something of a field, and is no type by itself."
    if not isinstance(kind, type):
        return next((reason for bare, reason in _BARE.items() if kind is bare), "")
    if kind is pydantic.BaseModel:
        return "it has no fields; name a model of your own."
    if issubclass(kind, enum.Enum):
        return _reason_of_enum(kind)
    if getattr(kind, "__parameters__", None) or _open_parameters(kind):
        return f"it is generic; say of what: {kind.__name__}[int]."
    return _reason_of_class(kind) or next((reason for bare, reason in _BARE.items() if kind is bare), "")


def _reason_of_enum(kind: type[enum.Enum]) -> str:
    if not len(kind):
        return "it has no members."
    strange = next((member for member in kind if not _is_scalar(member.value)), None)
    return f"the value of {strange.name}, {strange.value!r}, is no text or number." if strange is not None else ""


def _reason_of_class(kind: type) -> str:
    make = "make it a dataclass or a pydantic model."
    package = kind.__module__.partition(".")[0]
    if "__get_pydantic_core_schema__" in vars(kind):
        return ""
    if "__attrs_attrs__" in vars(kind):
        return f"pydantic does not validate classes of attrs; {make}"
    if hasattr(kind, "__struct_fields__"):
        return f"pydantic does not validate Structs of msgspec; {make}"
    if package == "numpy":
        return "nothing of numpy is JSON; ask for list[float] or float, and convert it."
    if package in ("pandas", "polars"):
        return "its columns are not known; write DataFrame[City], with a record type of yours for City."
    return ""


def _is_no_key(kind: Any) -> bool:
    """Tell whether no text, nor a number written as text, can be this key."""
    if typing.get_origin(kind) is typing.Literal:
        return not all(isinstance(value, (str, enum.Enum)) for value in typing.get_args(kind))
    return kind in (bool, type(None)) or typing.get_origin(kind) in (list, dict, set, tuple, frozenset)


def _open_parameters(kind: type) -> bool:
    metadata = getattr(kind, "__pydantic_generic_metadata__", None)
    return bool(metadata and metadata["parameters"])


def _is_scalar(value: Any) -> bool:
    value = value.value if isinstance(value, enum.Enum) else value
    return value is None or isinstance(value, (str, int, float))


def _parts(kind: Any) -> Iterator[Any]:
    """Yield the types that a value of this one holds."""
    if isinstance(kind, ALIASES):
        yield unaliased(kind)
    elif typing.get_origin(kind) is typing.Annotated:
        if not any(hasattr(each, "__get_pydantic_core_schema__") for each in kind.__metadata__):
            yield typing.get_args(kind)[0]
    elif typing.get_origin(kind) is not typing.Literal:
        yield from (part for part in typing.get_args(kind) if part is not Ellipsis and not isinstance(part, list))
    if not isinstance(kind, type):
        return
    if issubclass(kind, pydantic.BaseModel):
        yield from (field.annotation for field in kind.model_fields.values())
    elif dataclasses.is_dataclass(kind) or typing_extensions.is_typeddict(kind) or hasattr(kind, "_fields"):
        try:
            hints = typing_extensions.get_type_hints(kind)
        except Exception:  # noqa: BLE001 - names that are not defined: pydantic tells
            return
        yield from hints.values()


def _name(kind: Any) -> str:
    return (
        kind.__name__
        if isinstance(kind, type)
        else repr(kind).replace("typing.", "").replace("__main__.", "").lstrip("~")
    )


def taken(kind: Any) -> Any:
    """Return the type as pydantic has to be given it: an `Iterable` is a list, or it would not be validated.

    Before Python 3.12 a `TypedDict` of `typing` becomes one of `typing_extensions`; values of both are plain dicts.
    """
    return _taken(kind, {})


def _taken(kind: Any, made: dict[Any, Any]) -> Any:
    if sys.version_info < (3, 12) and typing.is_typeddict(kind) and type(kind).__module__ == "typing":
        return _typed_dict(kind, made)
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)
    if kind in (typing.Iterable, collections.abc.Iterable):
        return list
    if not arguments or origin is typing.Literal:
        return kind
    known = tuple(_taken(argument, made) for argument in arguments)
    if origin in _ITERABLES:
        return list[known[0]]  # type: ignore[valid-type]  # a type known only now
    if all(new is old for new, old in zip(known, arguments, strict=True)):
        return kind
    if origin is types.UnionType:
        return functools.reduce(operator.or_, known)
    remade: Any = origin  # a class such as `list`, which mypy does not know to be generic
    return remade[known] if isinstance(origin, type) else kind.copy_with(known)


def _typed_dict(kind: Any, made: dict[Any, Any]) -> Any:
    """Return the class of `typing_extensions` for one of `typing`, which may hold itself."""
    if kind in made:
        return made[kind]
    wrappers: dict[str, Any] = {
        name: typing.Required if name in kind.__required_keys__ else typing.NotRequired for name in kind.__annotations__
    }
    replaced: Any = typing_extensions.TypedDict(kind.__name__, {name: each[Any] for name, each in wrappers.items()})  # type: ignore[misc]  # the functional form, with names known only now
    made[kind] = replaced
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        said = typing.get_origin(hint) in (typing.Required, typing.NotRequired)  # perhaps in a string
        replaced.__annotations__[name] = _taken(hint if said else wrappers[name][hint], made)
    replaced.__doc__, replaced.__module__ = kind.__doc__, kind.__module__
    return replaced
