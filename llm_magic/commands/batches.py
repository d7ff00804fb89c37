"""`%llm_batch`: offline batches as a table; one in full, fetched, cancelled at its server, or forgotten here."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llm_magic.close_matches import did_you_mean
from llm_magic.commands.line import Command, Subcommand
from llm_magic.display import batches, markup, table
from llm_magic.display.batches import BatchProgress, progress_of, short_name, status_of
from llm_magic.display.footer import counted, file_size
from llm_magic.display.markup import Bundle, one_line
from llm_magic.errors import ConfigurationError, LLMError, OptionError
from llm_magic.mapping.screen import RowsInterrupted
from llm_magic.model_names import shown_model
from llm_magic.options import Option
from llm_magic.options.reader import Line

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.batches.kept.record import BatchRecord, BatchRefusal
    from llm_magic.batches.remembered import RememberedBatches
    from llm_magic.embeddings import Vectors
    from llm_magic.mapping.answers.answers import Answers
    from llm_magic.session import Session

T = TypeVar("T")

_ROWS = 50
_TEXT = 60
_LONG = 300
_NAMED = 5  # batches that an error names
_MOST_REFUSALS = 20
_ENDINGS = (".jsonl", ".json")


def batch_commands(session: Session) -> RememberedBatches:
    """Return what keeps the batches of this user; raises OSError where there is no home to keep them in."""
    from llm_magic.batches.remembered import RememberedBatches

    return RememberedBatches(session)


def run(command: Command) -> Answers | Vectors | None:
    """Carry out a sub-command; return what `fetch` gives."""
    work = _Batches(batch_commands(command.session))
    command.run(work.subcommands())
    return work.fetched


def ids(session: Session) -> Iterator[str]:
    """Yield what names a batch, for completion: the beginnings of the ids here, then the ids at the servers."""
    with _reached():
        records = _newest(batch_commands(session).list())
    yield from short_names(records).values()
    yield from (record.batch_id for record in records if record.batch_id)


def short_names(records: Iterable[BatchRecord]) -> Mapping[str, str]:
    """Return what each batch is called in a table, by its id: what follows the time, where no other is called so."""
    tails = {record.id: short_name(record.id) for record in records}
    times = Counter(tails.values())
    return {each: tail if times[tail] == 1 else each for each, tail in tails.items()}


def found(records: Sequence[BatchRecord], name: str) -> BatchRecord:
    """Return the batch that `name` begins: its id here, what follows the time in that, or its id at the server.

    A name that is whole begins no other.

    Raises
    ------
    OptionError
        There is none, or there are several.

    """
    names = {record.id: _names(record) for record in records}
    whole = [record for record in records if name in names[record.id]]
    begins = whole or [record for record in records if any(each.startswith(name) for each in names[record.id])]
    if len(begins) == 1:
        return begins[0]
    said = one_line(name, _TEXT)
    if not begins:
        short = short_names(records).values()
        there = "%llm_batch lists them." if records else "None is kept here."
        known = [*short, *(record.batch_id for record in records if record.batch_id)]
        raise OptionError(f"There is no batch {said!r}.", did_you_mean(name, known, there))
    named = ", ".join(_with_server(record) for record in begins[:_NAMED])
    more = f" and {len(begins) - _NAMED:,} more" if len(begins) > _NAMED else ""
    hint = "Write more of the id; %llm_batch lists them."
    raise OptionError(f"{said!r} may be any of {len(begins):,} batches: {named}{more}.", hint)


class _Batches:
    """The sub-commands, over what keeps batches; `fetched` is what the last of them gives."""

    def __init__(self, kept: RememberedBatches) -> None:
        self._kept = kept
        self.fetched: Answers | Vectors | None = None

    def subcommands(self) -> Mapping[str, Subcommand]:
        return {
            "list": Subcommand(self._list),
            "show": Subcommand(self._show, "ID", 1, 1),
            "fetch": Subcommand(self._fetch, "ID|FILE", 1, 1),
            "cancel": Subcommand(self._cancel, "ID", 1, 1),
            "remove": Subcommand(self._remove, "ID [--force]", 1, 1, (_FORCE,)),
        }

    def _records(self) -> list[BatchRecord]:
        with _reached():
            return _newest(self._kept.list())

    def _named(self, name: str) -> tuple[BatchRecord, str]:
        """Return a batch, and how it is called in a line."""
        records = self._records()
        record = found(records, name)
        return record, _called(record, short_names(records)[record.id])

    def _list(self, _command: Command, _line: Line) -> Bundle | str:
        records = self._records()
        if not records:
            return "There are no batches. %%llm --each INPUTS --batch submits one, and its cell finds it again."
        names = short_names(records)
        rows = [_row(record, names[record.id]) for record in records[:_ROWS]]
        columns = [name for name in rows[0] if any(row[name] not in {"", None} for row in rows)]
        shown = table.shown([{name: row[name] for name in columns} for row in rows], widest=_TEXT)
        remarks = ["As their servers said last. %llm_batch fetch ID asks now; show ID tells all that is known of one."]
        if len(records) > _ROWS:
            remarks.insert(0, f"The last {_ROWS} of {len(records):,}.")
        return markup.joined([shown, *map(markup.quiet, remarks)])

    def _show(self, _command: Command, line: Line) -> Bundle:
        record, called = self._named(line.words[0])
        facts = {**_facts(record), "kept in": one_line(str(self._kept.folder), _LONG)}
        parts = [table.shown({name: value for name, value in facts.items() if value})]
        if refusals := [_refusal(each) for each in record.refusals[:_MOST_REFUSALS]]:
            parts.append(markup.mark(f"The server refused {'it' if record.step == batches.REFUSED else 'some of it'}:"))
            parts.append(table.shown(refusals, widest=_LONG))
        if (more := len(record.refusals) - len(refusals)) > 0:
            parts.append(markup.quiet(f"… and {counted(more, 'more line')}"))
        return markup.joined([*parts, markup.quiet(_next(record, called.split()[1]))])

    def _fetch(self, command: Command, line: Line) -> Bundle:
        word = line.words[0]
        if (path := self._path(word)) is not None:
            self.fetched = _wait(command, lambda _: self._kept.fetch(path), f"reading {one_line(path.name, _TEXT)}")
            return self._said(f"{self.fetched!r}, read from {one_line(str(path), _LONG)}")
        record, called = self._named(word)
        if (why := _not_there(record)) is not None:
            raise LLMError(f"{called} {why[0]}: there is nothing to fetch.", why[1])
        server = one_line(record.provider, _TEXT)
        if _now(record).goes_on:
            record = _wait(command, lambda _: self._kept.refresh(record), f"asking {server}")
        progress = _now(record)
        if progress.goes_on:
            said = ", ".join(filter(None, [f"{called} is {batches.state(progress)}", batches.since([progress])]))
            raise LLMError(f"{said}: there is nothing to fetch yet.", f"{_WAITS} %llm_batch fetch {word} looks again.")
        self.fetched = _wait(command, lambda _: self._kept.fetch(record), f"fetching from {server}")
        return self._said(f"{called}: {batches.state(batches.whole(progress))} · {counted(len(self.fetched), 'row')}")

    def _said(self, text: str) -> Bundle:
        notes = dict.fromkeys(one_line(note, _LONG) for note in getattr(self.fetched, "notes", ()))
        return markup.joined([markup.quiet(text), *map(markup.mark, list(notes)[:_NAMED])])

    def _path(self, word: str) -> Path | None:
        """Return the file that a word names; None where it names a batch."""
        path = os.path.expanduser(word)  # noqa: PTH111 - Path's one may raise
        if os.path.isfile(path):  # noqa: PTH113 - as above
            is_batch = any(name.startswith(word) for record in self._records() for name in _names(record))
            return None if is_batch else Path(path)
        if "/" not in word and os.sep not in word and not word.lower().endswith(_ENDINGS):
            return None
        what = "it is no plain file" if os.path.exists(path) else "there is no such file"  # noqa: PTH110 - as above
        hint = "%llm_batch fetch takes the id of a batch, or the file that run_batch wrote."
        raise OptionError(f"{one_line(word, _LONG)}: {what}.", hint)

    def _cancel(self, command: Command, line: Line) -> str:
        record, called = self._named(line.words[0])
        if (why := _not_there(record)) is not None:
            raise LLMError(f"{called} {why[0]}: there is nothing to cancel.", why[1])
        if not (progress := _now(record)).goes_on:
            return f"{called} has ended: {batches.state(progress)}. There is nothing to cancel."
        stopped = "The batch may be cancelled all the same; the same line asks again."
        asking = f"asking {one_line(record.provider, _TEXT)}"
        record = _wait(command, lambda _: self._kept.cancel(record), asking, stopped)
        return (
            f"{called}: {batches.state(_now(record))}. Rows that are answered by then are paid, and stay: "
            f"%llm_batch fetch {line.words[0]} gets them."
        )

    def _remove(self, _command: Command, line: Line) -> str:
        word = line.words[0]
        record, called = self._named(word)
        progress = _now(record)
        if (progress.goes_on or record.may_be_created) and not line.values.get("force"):
            what = f"is {batches.state(progress)}" if progress.goes_on else "may have been submitted"
            cancel = f"%llm_batch cancel {word}" if progress.goes_on else "Run its cell again"
            raise OptionError(
                f"{called} {what}: once it is forgotten, its cell submits its rows, and pays for them, again.",
                f"{cancel} first; or %llm_batch remove {word} --force.",
            )
        with _reached():
            self._kept.remove(record)
        at = [one_line(each, _TEXT) for each in (record.batch_id, record.file_id) if each]
        stays = f" At its server {' and '.join(at)} {'stay' if len(at) > 1 else 'stays'}." if at else ""
        return f"{called} is forgotten here.{stays}"


_FORCE = Option("force", ("--force",), "", "also one that is under way at its server")
_WAITS = "Its cell, run again, waits for it;"
_NOTHING_LOST = "Nothing is lost; the same line asks again."


def _wait(
    command: Command, work: Callable[[Emit[str]], Coroutine[Any, Any, T]], what: str, stopped: str = _NOTHING_LOST
) -> T:
    """Wait for a server; `stopped` is what is said where the user does not.

    Raises
    ------
    RowsInterrupted
        The user interrupted.

    """
    try:
        return command.wait(work, what)
    except (KeyboardInterrupt, CancelledError):
        raise RowsInterrupted(stopped) from None


@contextmanager
def _reached() -> Iterator[None]:
    """Raise what the system says of the folder of batches as an error of ours."""
    try:
        yield
    except OSError as error:
        where = f"{one_line(str(error.filename), _LONG)}: " if error.filename else ""
        raise ConfigurationError(
            f"The batches that are kept cannot be reached: {where}{error.strerror or type(error).__name__}."
        ) from error


def _newest(records: Sequence[BatchRecord]) -> list[BatchRecord]:
    """Return records, the newest first; one whose time is none is last."""
    return sorted(records, key=lambda record: record.created if record.created > 0 else 0.0, reverse=True)


def _names(record: BatchRecord) -> list[str]:
    """Return what a batch can be called."""
    return [each for each in (record.id, short_name(record.id), record.batch_id) if each]


def _with_server(record: BatchRecord) -> str:
    at = one_line(record.batch_id, _TEXT) or batches.status_word(status_of(record))
    return f"{one_line(record.id, _TEXT)} ({at})"


def _not_there(record: BatchRecord) -> tuple[str, str] | None:
    """Return why no server has a batch, and what to do; None where one has it."""
    if record.file and record.step not in {"fetched", "read"}:
        file = one_line(record.file, _LONG)
        return f"is the file {file}, at no server", "%llm_batch fetch FILE reads what run_batch wrote of it."
    if record.step == batches.REFUSED:
        said = one_line(record.refusals[0].message, _LONG) if record.refusals else ""
        return f"was refused{f' ({said})' if said else ''}", "%llm_batch show tells all that its server said."
    if record.may_be_created:
        return "may have been submitted, or not", "Its cell, run again, asks the server, and submits nothing twice."
    if record.step in batches.NOT_SUBMITTED:
        return "was not submitted", "Its cell, run again, goes on where it stopped."
    return None


def _now(record: BatchRecord) -> BatchProgress:
    return progress_of(record, time.time())


def _called(record: BatchRecord, name: str) -> str:
    return f"Batch {name} of {_model(record)}"


def _model(record: BatchRecord) -> str:
    return one_line(shown_model(record.asked or f"{record.provider}:{record.model}"), _TEXT)


def _row(record: BatchRecord, name: str) -> dict[str, Any]:
    expires = record.expires_at if record.expires_at is not None and _now(record).goes_on else 0.0
    return {
        "batch": one_line(name, _TEXT),
        "made": _when(record.created),
        "model": _model(record),
        "rows": f"{record.rows:,}",
        "status": batches.status_word(status_of(record)),
        "answered": "" if record.completed is None else f"{record.completed:,}",
        "failed": f"{record.failed:,}" if record.failed else "",
        "expires": _when(expires),
        "out": one_line(record.out, _TEXT),
        "prompt": one_line(record.prompt, _TEXT),
    }


def _facts(record: BatchRecord) -> dict[str, str]:
    """Return all that is known of a batch, in words; what is not known is empty."""
    size = f" ({file_size(record.size)})" if record.size > 0 else ""
    facts = {
        "batch": record.id,
        "of the run": record.run,
        "made": _when(record.created),
        "status": batches.state(_now(record)),
        "submitted as": record.batch_id,
        "expires": "" if record.expires_at is None else _when(record.expires_at),
        "model": _model(record),
        "server": f"{record.provider}, {record.url}" if record.url else record.provider,
        "--base-url": record.base_url,
        "API": " at ".join(filter(None, [record.api, record.endpoint])),
        "rows": f"{record.rows:,}{size}",
        "input file": record.file_id,
        "output file": record.output_file_id,
        "error file": record.error_file_id,
        "out": record.out,
        "prompt": record.prompt,
        "written to": record.file,
    }
    return {name: one_line(value, _LONG) for name, value in facts.items()}


def _refusal(refusal: BatchRefusal) -> dict[str, Any]:
    """Return what a server said of a line of the input, as a row."""
    return {
        "line": "" if refusal.line is None else f"{refusal.line:,}",
        "code": one_line(refusal.code, _TEXT),
        "message": one_line(refusal.message, _LONG),
    }


def _next(record: BatchRecord, name: str) -> str:
    """Return what can be done with a batch."""
    if (why := _not_there(record)) is not None:
        return f"{why[1]} %llm_batch remove {name} forgets it here."
    if _now(record).goes_on:
        return f"{_WAITS} %llm_batch fetch {name} asks its server now; cancel {name} stops it there."
    return f"%llm_batch fetch {name} gets its answers; remove {name} forgets it here."


def _when(seconds: float) -> str:
    """Return a time as it is read here; empty where it is none."""
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}" if seconds else ""
    except (ValueError, OverflowError, OSError):
        return ""
