"""The answers of a run over many rows, kept on disk while it goes on: a later run asks for what is missing alone.

One file of JSON Lines for each run of a process, which is appended to: an answer is one write of one line, in the
format of recordings without what was asked. Of that there is its key alone, so that no prompt is on the disk twice.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_magic.config.trust import printable
from llm_magic.errors import RecordingError
from llm_magic.mapping.kept import kept_runs
from llm_magic.mapping.kept.earlier_answers import BEGIN, END, KEY, EarlierAnswers
from llm_magic.recordings.index import MAX_LINE
from llm_magic.recordings.locked_file import is_called, reason
from llm_magic.recordings.recording import key_of
from llm_magic.recordings.secrecy import of_process, secret_in_text
from llm_magic.secrets import finder

_PAUSE = 5.0  # seconds until a file is tried to be made again
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class _OwnFile:
    """The file of a run: made with the first answer, and locked until it is closed."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._tells_links = False
        self._not_before = 0.0
        self._failed: OSError | None = None

    def append(self, line: bytes) -> None:
        """Append a line whole or not at all.

        Raises
        ------
        OSError
            It cannot be written.

        """
        file = self._made() if self._file is None else self._file
        found = os.fstat(file)
        if self._tells_links and found.st_nlink == 0:  # somebody has removed it
            self.close()
            file = self._made()
            found = os.fstat(file)
        if found.st_size != self._size:  # another program has cut it, or written to it
            line = b"\n" + line
        try:
            written = os.write(file, line)
            while written < len(line):  # the disk is full, or nearly
                written += os.write(file, line[written:])
        except BaseException:
            self._size = -1
            with suppress(OSError):
                os.ftruncate(file, found.st_size)
                self._size = found.st_size
            raise
        self._size = found.st_size + len(line)

    def _made(self) -> int:
        now = time.monotonic()
        if self._failed is not None and now < self._not_before:
            raise type(self._failed)(*self._failed.args)
        try:
            path, file = kept_runs.created(kept_runs.folder(), self._run)
            self._file, self._path, self._size = file, path, 0
            try:
                self._tells_links = os.fstat(file).st_nlink > 0
                line = kept_runs.first_line(self._run)
                if os.write(file, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - as the system says it
            except BaseException:
                self.remove()
                raise
            self._size = len(line)
        except OSError as error:
            self._failed, self._not_before = error, now + _PAUSE
            raise
        return file

    def close(self) -> None:
        """Close it: then another run may remove it."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def remove(self) -> None:
        """Close and remove it."""
        file, path = self._file, self._path
        if file is None or path is None or not is_called(path, file):
            self.close()
            return
        if sys.platform == "win32":  # where nothing is removed that is open
            self.close()
        with suppress(OSError):
            path.unlink()
        self.close()


class Store:
    """The answers of one run over rows, and those that earlier runs of the same rows have left.

    It never raises: where something cannot be read or kept, `say` is told once, and the row is asked.
    Several threads may use it. Call `open`, then `known` before a row is asked, `keep` after it, at the end `ended`.

    Examples
    --------
    >>> import os, tempfile
    >>> before, os.environ["XDG_STATE_HOME"] = os.environ.get("XDG_STATE_HOME"), tempfile.mkdtemp()
    >>> asked = {"model": "smollm2", "messages": []}
    >>> run = Store.open(asked, say=print)
    >>> run.keep("ab" * 32, {"choices": [{"text": "price"}]})
    True
    >>> run.ended(whole=False)
    >>> later = Store.open(asked, say=print)
    >>> len(later), later.known("ab" * 32)
    (1, {'choices': [{'text': 'price'}]})
    >>> later.ended(whole=True)
    >>> len(Store.open(asked, say=print))
    0
    >>> os.environ.pop("XDG_STATE_HOME") and None if before is None else os.environ.update(XDG_STATE_HOME=before)

    """

    def __init__(self, run: str, say: Callable[[str], None], *, writes: bool = True) -> None:
        self._run = run
        self._say = say
        self._writes = writes
        self._said: set[str] = set()
        self._lock = threading.RLock()
        self._has_ended = False
        self._earlier = EarlierAnswers()
        self._own = _OwnFile(run)
        self._held: tuple[object, object, Callable[[str], bool]] | None = None
        self._second = (0, b"")
        weakref.finalize(self, self._earlier.close)
        weakref.finalize(self, self._own.close)

    @classmethod
    def open(
        cls,
        identity: Mapping[str, Any],
        *,
        say: Callable[[str], None],
        again: bool = False,
        writes: bool = True,
    ) -> Store:
        """Begin a run, and read what is known of it.

        Parameters
        ----------
        identity
            What all rows share, as plain data: runs of the same identity go on with each other.
        say
            Takes a line for the user: what is not kept, and why.
        again
            Whether what earlier runs have left is forgotten; of one that goes on elsewhere it is left out.
        writes
            Whether this is a run. False only looks: nothing is kept, removed or made.

        """
        try:
            run = key_of(identity)
        except RecordingError as error:
            run = ""
            say(f"Answers are not kept, to go on with if this run stops: {error.message}")
        store = cls(run, say, writes=writes and bool(run))
        if run:
            try:
                store._read(again=again)
            except OSError as error:
                store._tell(error)
        return store

    def _read(self, *, again: bool) -> None:
        place = kept_runs.folder()
        found = kept_runs.files(place, self._run)
        if self._writes:
            for each in found if again else ():
                kept_runs.remove(each.path)
            kept_runs.sweep(place, spare=self._run)
        now = time.time()
        for each in () if again else found:
            if now - each.changed > kept_runs.MAX_AGE:
                continue
            try:
                self._earlier.read(each.path, self._run)
            except FileNotFoundError:  # its run ended meanwhile
                continue
            except OSError as error:
                self._tell(error, each.path)

    def __len__(self) -> int:
        """Count the answers that other runs had left when this one began."""
        return self._earlier.count

    def has(self, key: str, occurrence: int = 0) -> bool:
        """Tell whether `known` would find an answer, without reading it."""
        return self._earlier.place(key, occurrence) is not None

    def known(self, key: str, occurrence: int = 0) -> dict[str, Any] | None:
        """Return an answer of an earlier run, None where the row is to be asked.

        Parameters
        ----------
        key
            Of the row's request: see `key_of`.
        occurrence
            How many equal rows were before it in this run: each of them has an answer of its own.

        Returns
        -------
            The answer as plain data, for `recordings.answers.events_of`, which raises RecordingError where somebody has
            changed the file so that it makes no sense.

        """
        with self._lock:
            place = self._earlier.place(key, occurrence)
            return None if place is None else self._earlier.answer(key, place)

    def keep(self, key: str, answer: Mapping[str, Any], secrets: tuple[str, ...] = ()) -> bool:
        """Keep the answer of a row; once this returns True it survives the end of this process.

        Parameters
        ----------
        key
            Of the row's request.
        answer
            Plain data, as `recordings.answers.answer_of` gives it.
        secrets
            What must not be on the disk, besides the secrets of the environment: the keys that were sent. Where the
            same tuple is given again, it is not looked at again.

        """
        if not self._writes:
            return False
        try:
            text = _ENCODER.encode(answer if type(answer) is dict else dict(answer))
        except (TypeError, ValueError, RecursionError) as error:
            self._tell(f"An answer is no JSON data ({error})")
            return False
        if self._holds_secret(text, secrets):
            self._tell(f"An answer holds {secret_in_text(text, secrets)}")
            return False
        told = text.encode("utf-8", "backslashreplace")
        line = b'%s%s, "at": "%s"%s%s%s' % (BEGIN[:-1], told, self._now(), KEY, key.encode("ascii"), END)
        if len(line) > MAX_LINE:
            self._tell(f"An answer is larger than {MAX_LINE // 2**20} MB")
            return False
        try:
            with self._lock:
                if self._has_ended:
                    return False
                self._own.append(line)
        except OSError as error:
            self._tell(error)
            return False
        return True

    def ended(self, *, whole: bool) -> None:
        """End the run.

        `whole` is whether every row was answered: then its answers are forgotten, and those that it was given, so that
        all is asked anew when it is run again. Else they stay for the next run. What another run has added meanwhile
        stays in any case.
        """
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            if whole and self._writes:
                self._own.remove()
                self._earlier.close()  # where nothing is removed that is open
                self._earlier.remove()
            else:
                self._own.close()
                self._earlier.close()

    def _now(self) -> bytes:
        """Return the time, in UTC."""
        now = int(time.time())
        if self._second[0] != now:
            self._second = now, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)).encode("ascii")
        return self._second[1]

    def _holds_secret(self, text: str, secrets: tuple[str, ...]) -> bool:
        named, held = of_process(), self._held
        if held is None or held[0] is not secrets or held[1] is not named:
            held = self._held = secrets, named, finder((*secrets, *named.values()))
        return held[2](text)

    def _tell(self, why: OSError | str, path: Path | None = None) -> None:
        """Say once why something is not kept, or cannot be read, and what that means."""
        if isinstance(why, str):
            said = f"{why}, and is not kept: should this run stop, its row is asked again."
        else:
            what = "Earlier answers cannot be read" if path else "Answers are not kept, to go on with if this run stops"
            said = f"{what}: {_named(path)}: {reason(why)}. LLMMagics.resume = False does without."
        if said not in self._said:
            self._said.add(said)
            self._say(said)


def _named(path: Path | None) -> str:
    """Return a file as it may stand in a line, or the folder of runs."""
    try:
        return printable(str(path or kept_runs.folder()))
    except OSError:
        return "no folder"
