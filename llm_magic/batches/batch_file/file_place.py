"""The place of a file that `--batch-file` names: what may be there, and how a new one gets there whole."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.config.trust import printable
from llm_magic.errors import OptionError
from llm_magic.private_files import sync_folder
from llm_magic.recordings.locked_file import reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST_LINE = 2**20  # bytes
_OTHER = "Name another file, or remove this one."


class FilePlace:
    """Where the rows of a cell are written for another program; a file that is not this cell's stays as it is.

    Parameters
    ----------
    named
        A path, relative to the working directory; `~` is the user's home.

    Raises
    ------
    OptionError
        It is no path of a file.

    """

    def __init__(self, named: str) -> None:
        self.named = printable(named)
        if not named.strip() or "\0" in named or named.endswith(("/", os.sep)):
            raise OptionError(f"--batch-file {self.named!r} names no file.", "--batch-file rows.jsonl")
        self.path = Path(os.path.abspath(os.path.expanduser(named)))  # noqa: PTH100, PTH111 - Path's one may raise
        self.check_folder()

    @property
    def said(self) -> str:
        """The path as it may stand in a command: as the user named it, but for `~`, which no quotes expand."""
        return printable(str(self.path)) if self.named.startswith("~") else self.named

    def check_folder(self) -> None:
        """Refuse a path at which nothing can be written, whatever is there; OptionError says why."""
        folder = printable(str(self.path.parent))
        try:
            if not stat.S_ISDIR(self.path.parent.stat().st_mode):
                raise self._refused(f"{folder} is no folder.", "Name a file in a folder.")
            found = self.path.lstat()
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise self._refused(f"there is no folder {folder}.", "Make it first, or name another.") from None
            return
        except OSError as error:
            raise self._refused(f"{reason(error)}.", "Name another file.") from None
        if stat.S_ISDIR(found.st_mode):
            raise self._refused("it is a folder.", f"Name a file in it: {self.named}/rows.jsonl")
        if stat.S_ISLNK(found.st_mode):
            raise self._refused("it is a link, which is not followed.", "Name the file itself.")
        if not stat.S_ISREG(found.st_mode):
            raise self._refused("it is no plain file.", "Name another file.")

    def _refused(self, what: str, hint: str) -> OptionError:
        return OptionError(f"--batch-file {self.named}: {what}", hint)

    def digest(self, ours: Collection[str], others: Collection[str]) -> str | None:
        """Return the digest of the file that is there, if it may be replaced; None where there is none.

        Parameters
        ----------
        ours, others
            Digests of the files that this cell has written, and of those of other cells.

        Raises
        ------
        OptionError
            There is something else.

        """
        self.check_folder()
        try:
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                first = file.readline(_FIRST_LINE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"it is there, and cannot be read: {reason(error)}.", _OTHER) from None
        if found in ours:
            return found
        if found in others:
            raise self._refused("it has the rows of another cell, and stays as it is.", _OTHER)
        if is_result(first):
            raise self._refused("it has results, and stays as it is.", f"%llm_batch fetch {self.named} reads them.")
        raise self._refused("it is there, is not as this cell has written it, and stays as it is.", _OTHER)

    def part(self) -> Path:
        """Return a name beside it that nothing has, for the file while it is written."""
        import secrets

        return self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(8)}.part")

    def put(self, part: Path, *, replaces: bool) -> None:
        """Give a file that is written whole its name, and the mode that the user's other files have.

        Raises
        ------
        OptionError
            Something is there by now that is not to be replaced.
        OSError
            It cannot be done.

        """
        part.chmod(stat.S_IMODE(self.path.stat().st_mode) if replaces else self._mode())
        if replaces:
            part.replace(self.path)
        else:
            try:
                os.link(part, self.path)  # unlike a rename, this fails where there is something
            except FileExistsError:
                raise self._refused("another program has written it meanwhile; it stays as it is.", _OTHER) from None
            except OSError:  # file systems without hard links
                if os.path.lexists(self.path):
                    raise self._refused("it is there, and stays as it is.", _OTHER) from None
                part.rename(self.path)
            with suppress(OSError):
                part.unlink()
        sync_folder(self.path.parent)

    def _mode(self) -> int:
        """Return the mode that the umask leaves a new file; asking for it would change it for a moment."""
        trial = self.part()
        file = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            return stat.S_IMODE(os.fstat(file).st_mode)
        finally:
            os.close(file)
            trial.unlink()

    @contextmanager
    def written(self) -> Iterator[None]:
        """Raise what the system says of writing here as an OptionError."""
        try:
            yield
        except OSError as error:
            raise self._refused(f"it cannot be written: {reason(error)}.", "Name another file.") from None

    @property
    def output(self) -> str:
        """The name of the file of its results, as a program is told to write them.

        >>> FilePlace("rows.jsonl").output
        'rows.out.jsonl'

        """
        stem, ending = os.path.splitext(self.said)  # noqa: PTH122 - the words of the user
        return f"{stem}.out{ending or '.jsonl'}"


def is_result(line: bytes) -> bool:
    """Tell whether a line is one of a file of results.

    >>> is_result(b'{"custom_id": "1", "response": {}}'), is_result(b'{"custom_id": "1", "body": {}}')
    (True, False)

    """
    return "response" in (found := _object(line)) and "custom_id" in found


def is_request(line: bytes) -> bool:
    """Tell whether a line is one of an input file.

    >>> is_request(b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}')
    True

    """
    return {"custom_id", "url", "body"} <= _object(line).keys()


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
