"""What is remembered of one batch at a server: a JSON document, read strictly, and how changes to it are merged.

A record is written before each step that leaves something at the server, and after it. It holds no prompt beyond the
beginning of the template, and no key.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, TypedDict, cast, get_args

from llm_magic.secrets import hide, masked_url

Step = Literal["written", "uploading", "uploaded", "submitting", "submitted", "refused", "ended", "fetched", "read"]
"""How far a batch is. A record never goes back in this order.

=============  =====================================================  ================================================
step           on disk, beside the record                             at the server
=============  =====================================================  ================================================
`written`      the input file and its ids                             nothing
`uploading`    the same                                               perhaps the file, perhaps more than once
`uploaded`     the same, the file's id in the record                  the file
`submitting`   the same                                               the file, and perhaps a batch: the server's list
                                                                      is asked before one is created
`submitted`    the ids; the input may be gone; the batch's id         the batch: `status` says what it last said of it
`refused`      the ids, the server's refusals in the record           the file, a batch that never began; this is an end
`ended`        the same, and the ids of the files of results          the batch has ended (`completed`, `failed`,
                                                                      `expired`, `cancelled`), its files are there
`fetched`      the files of results                                   the same
`read`         the same; all of it was given to the user              the same, until the server removes it
=============  =====================================================  ================================================
"""
Api = Literal["chat", "responses", "completions", "embeddings"]

STEPS: tuple[Step, ...] = get_args(Step)
_RANK = {step: rank for rank, step in enumerate(STEPS)}
_APIS = frozenset(get_args(Api))
ID = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"
"""The pattern of a record's id."""
MAX_RECORD = 10**6
"""Bytes that a record may have."""
MAX_EXCERPT = 80
MAX_REFUSALS = 100
_MAX_MESSAGE = 500
_VERSION = 1
_LAST_SECOND = 253_402_300_799  # of the year 9999: beyond, no calendar has a name for it
_LARGEST = 2**53


class BatchRefusal(NamedTuple):
    """What a server says against a batch, or against one line of its input file."""

    line: int | None
    """Of the input file, counted from 1; None where the server names none."""
    message: str
    code: str


class Structured(TypedDict):
    """How answers were bound to a type, to be read alike later."""

    dialect: str | None
    """In which a constraint was sent; None where none was."""
    nulls: bool
    """Whether the constraint has null for what is left out."""


class AnotherBatchError(ValueError):
    """A record that has a batch is given another one's id: both may be paid, so that neither is to be forgotten."""


NOT_CREATED = 1.0
"""What `submitting_at` is where the server has answered that it creates no batch: long ago, in Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One batch at a server, or one file of requests that the user carries there.

    Raises
    ------
    ValueError
        By `read`: the document is no record.

    Examples
    --------
    >>> record = BatchRecord(
    ...     id="20261130T140212Z-3fa1b2c4", run="ab" * 32, provider="openai", url="https://api.example.org/v1",
    ...     model="small", asked="openai:small", api="chat", endpoint="/v1/chat/completions", rows=2, size=900,
    ...     digest="cd" * 32, created=1796047332.0, step="written",
    ... )  # fmt: skip
    >>> BatchRecord.read(record.document()) == record
    True

    """

    id: str
    """The local name: the time of its making in UTC, and 8 hexadecimal digits. Names of files begin with it."""
    run: str
    """The identity of the run, 64 hexadecimal digits: what all rows of one cell share."""
    provider: str
    url: str
    """Of the endpoint, without secrets."""
    base_url: str = ""
    """What `--base-url` said; empty where it said nothing."""
    model: str
    asked: str
    """The model as the user named it."""
    api: Api
    endpoint: str
    """The path that each line of the input file names, such as `/v1/chat/completions`."""
    rows: int
    size: int
    """Bytes of the input file."""
    digest: str
    """Of the input file, SHA-256 in hexadecimal digits."""
    created: float
    """Seconds since 1970, as are all times here."""
    step: Step
    file_id: str = ""
    """The input file's id at the server."""
    batch_id: str = ""
    """The batch's id at the server."""
    status: str = ""
    """In the server's words, as it was last heard."""
    completed: int | None = None
    failed: int | None = None
    output_file_id: str = ""
    error_file_id: str = ""
    expires_at: float | None = None
    refusals: tuple[BatchRefusal, ...] = ()
    changed: float = 0.0
    submitting_at: float = 0.0
    """When it was last tried to create it."""
    prompt: str = ""
    """The beginning of the template, for lists."""
    out: str = ""
    """The name that the results are bound to."""
    file: str = ""
    """The path of `--batch-file`: then there is no server."""
    structured: Structured = field(default_factory=lambda: Structured(dialect=None, nulls=False))

    @property
    def may_be_created(self) -> bool:
        """Whether its creation was asked for, and what the server made of that is not known."""
        return self.step == "submitting" and self.submitting_at != NOT_CREATED

    @property
    def made_at(self) -> str:
        """When it was made, as it is read here: `30 Nov 14:02`."""
        return time.strftime("%d %b %H:%M", time.localtime(self.created))

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be had of it any more: all of it was read, or the server has refused it."""
        return self.step in {"read", "refused"}

    @property
    def is_with_user(self) -> bool:
        """Whether its rows are in a file of the user's, and what became of them there was not fetched."""
        return bool(self.file) and not self.has_reached("fetched")

    def has_reached(self, step: Step) -> bool:
        """Whether it is at a step, or beyond it."""
        return _RANK[self.step] >= _RANK[step]

    @classmethod
    def read(cls, data: bytes) -> BatchRecord:
        """Return the record that a document holds.

        Raises
        ------
        ValueError
            It is none, or one of a newer version: in words.

        """
        if len(data) > MAX_RECORD:
            raise ValueError(f"it is larger than {MAX_RECORD / 1e6:g} MB")
        try:
            found = json.loads(data.decode(), parse_constant=_no_number)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"it is no JSON ({error})") from None
        if not isinstance(found, dict) or found.pop("record_of", None) != "batch":
            raise ValueError("it is no record of a batch")
        version = found.pop("version", None)
        if version != _VERSION or isinstance(version, bool):
            newer = isinstance(version, int) and version > _VERSION
            raise ValueError("a newer version of llm_magic wrote it" if newer else "it has no version")
        values: dict[str, Any] = {}
        for each in fields(cls):
            if each.name in found:
                values[each.name] = _value(each.name, found.pop(each.name))
            elif each.default is MISSING and each.default_factory is MISSING:
                raise ValueError(f"it has no {each.name!r}")
        if found:
            raise ValueError(f"it has a field that is not known: {next(iter(found))[:40]!r}")
        return cls(**values)

    def document(self, secrets: Iterable[str] = ()) -> bytes:
        """Return it as JSON, a line a field, ended by a line feed.

        Parameters
        ----------
        secrets
            What is masked where it stands in a text of the user's or the server's, besides all that looks like a key.

        Raises
        ------
        ValueError
            It cannot be read again: a value is of another type than it may be, or too large.

        """
        known = tuple(secrets)
        found: dict[str, Any] = {"record_of": "batch", "version": _VERSION, **asdict(self)}
        found["url"], found["base_url"] = masked_url(self.url, known), masked_url(self.base_url, known)
        found["status"] = hide(self.status, known)[:_MAX_MESSAGE]
        found["prompt"] = excerpt(hide(self.prompt[:_MAX_MESSAGE], known))
        found["refusals"] = [
            {"line": each.line, "message": hide(each.message, known)[:_MAX_MESSAGE], "code": hide(each.code, known)}
            for each in self.refusals[:MAX_REFUSALS]
        ]
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, indent=0)
        data = text.encode("utf-8", "backslashreplace") + b"\n"  # of halves of characters their names
        self.read(data)
        return data


def excerpt(template: str) -> str:
    r"""Return the beginning of a template in a line of at most 80 characters.

    >>> excerpt("Is this about price?\n\n{{ text }}")
    'Is this about price? {{ text }}'

    """
    words = " ".join(template[: 10 * MAX_EXCERPT].split())
    return words if len(words) <= MAX_EXCERPT else f"{words[: MAX_EXCERPT - 1]}…"


_IDS = frozenset({"file_id", "batch_id", "output_file_id", "error_file_id"})
_TOLD = frozenset({"status", "completed", "failed", "expires_at"})
CHANGEABLE = _IDS | _TOLD | {"step", "refusals", "submitting_at", "out"}
"""Fields that `merged` changes; the others are what the batch is."""
_NOTHING: tuple[Any, ...] = (None, "", ())


def merged(record: BatchRecord, changes: Mapping[str, Any], now: float) -> BatchRecord:
    """Return a record with changes, which may come from a kernel that knows less than the record.

    - The step is the further one of the two.
    - Nothing that is known becomes unknown: empty values change nothing.
    - An update that names an earlier step than the record's only adds what the record does not know.
    - Once the batch has ended, what the server tells of its progress (status, counts, expiry) is taken only from an
      update that names a step which the record is not beyond; before, counts do not fall.
    - The uploaded file's id stays once the batch is submitted; the batch's id always.

    Raises
    ------
    AnotherBatchError
        The record has another batch.
    TypeError
        A field is none that changes.

    """
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"A record's {min(unknown)!r} does not change.")
    step = cast("Step", changes.get("step", record.step))
    is_behind = _RANK[step] < _RANK[record.step]
    is_late = is_behind or ("step" not in changes and record.has_reached("ended"))
    taken: dict[str, Any] = {"step": record.step if is_behind else step}
    for name, given in changes.items():
        known = getattr(record, name)
        value = _sane(name, given)
        if name == "step" or value in _NOTHING:
            continue
        if known in _NOTHING:
            taken[name] = value
        elif name == "batch_id":
            if value != known:
                raise AnotherBatchError(f"The record {record.id} is of the batch {known}, not of {value}.")
        elif name in {"completed", "failed"} and not is_late and step == record.step:
            taken[name] = max(value, known)
        elif not (is_late if name in _TOLD else is_behind or (name == "file_id" and record.has_reached("submitted"))):
            taken[name] = value
    return replace(record, **taken, changed=now)


def _sane(name: str, value: Any) -> Any:
    """Return None for a number of a server that is none, for which no batch is to be forgotten."""
    if name in {"completed", "failed"}:
        return value if type(value) is int and 0 <= value <= _LARGEST else None
    if name == "expires_at":
        return value if type(value) in (int, float) and 0 <= value <= _LAST_SECOND else None
    return value


_WHOLE = frozenset({"rows", "size"})
_COUNTS = frozenset({"completed", "failed"})
_TIMES = frozenset({"created", "changed", "submitting_at"})
_PATTERNS = {"id": re.compile(ID), "run": re.compile("[0-9a-f]{64}")}


def _value(name: str, value: Any) -> Any:
    """Return a field's value out of a document; ValueError where it is of another type."""
    if name == "refusals":
        good = isinstance(value, list) and len(value) <= MAX_REFUSALS and all(map(_is_refusal, value))
        value = tuple(map(_refusal, value)) if good else value
    elif name == "structured":
        good = (
            isinstance(value, dict)
            and value.keys() == Structured.__annotations__.keys()
            and isinstance(value["dialect"], str | None)
            and isinstance(value["nulls"], bool)
        )
    elif name in _WHOLE or name in _COUNTS:
        good = (type(value) is int and 0 <= value <= _LARGEST) or (value is None and name in _COUNTS)
    elif name in _TIMES or name == "expires_at":
        good = (
            type(value) in (int, float) and math.isfinite(value) and 0 <= value <= _LAST_SECOND
        ) or (value is None and name == "expires_at")  # fmt: skip
    elif name == "step":
        good = isinstance(value, str) and value in _RANK
    elif name == "api":
        good = isinstance(value, str) and value in _APIS
    else:
        good = isinstance(value, str) and (name not in _PATTERNS or _PATTERNS[name].fullmatch(value) is not None)
        value = _without_halves(value) if good else value
    if not good:
        raise ValueError(f"its {name!r} is none")
    return value


def _is_refusal(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(BatchRefusal._fields)
        and (value["line"] is None or (type(value["line"]) is int and 0 <= value["line"] <= _LARGEST))
        and isinstance(value["message"], str)
        and isinstance(value["code"], str)
    )


def _refusal(value: dict[str, Any]) -> BatchRefusal:
    return BatchRefusal(value["line"], _without_halves(value["message"]), _without_halves(value["code"]))


def _without_halves(text: str) -> str:
    """Return a text that can be written anywhere: an escape in JSON may be half a character."""
    return text.encode("utf-8", "backslashreplace").decode()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
