"""The text of an output as it is read in the end: colours, progress bars and what differs in each run are taken out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

READ = 200_000
"""Characters of one stream that are read at all: half of its beginning, half of its end."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # ECMA-48, section 5.4: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\Z)"  # section 5.6: links, titles
    r"|\x1b\[?[0-?]*\Z"  # one that was cut off
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{5,}")
_WORD = re.compile(r"[^\s\"']+")
_FILE_OF_CELL = re.compile(r".*[/\\]ipykernel_\d+[/\\]\d+\.py")
_CELL_OF_TERMINAL = re.compile(r"<ipython-input-\d+-[0-9a-f]+>")


def plain(text: str) -> str:
    r"""Return what a terminal shows of a text in the end, without colours, and the same in each run.

    A carriage return begins its line anew, as of a progress bar. Addresses of objects, and the names of the files that
    stand for cells, say nothing to a model, and are others after a restart.

    >>> plain("\x1b[31mred\x1b[0m\n 10%\r100%\n<function f at 0x7f00deadbeef>")
    'red\n100%\n<function f>'

    """
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(map(_overwritten, text.replace("\r\n", "\n").split("\n")))
    text = _CONTROL.sub("", text).encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be sent
    text = _CELL_OF_TERMINAL.sub("<cell>", _ADDRESS.sub("", text))
    return _WORD.sub(_without_file, text) if "ipykernel_" in text else text


def _without_file(word: re.Match[str]) -> str:
    found = _FILE_OF_CELL.match(word[0])
    return word[0] if found is None else f"<cell>{word[0][found.end() :]}"


def _overwritten(line: str) -> str:
    """Return a line as it stands when each of its carriage returns has begun it anew."""
    *before, shown = line.split("\r")
    for written in reversed(before):
        shown += written[len(shown) :]
    return shown.rstrip(" ") if before else shown


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, or of a very long one its beginning and its end, with as many characters `missing` between them."""

    begin: str
    end: str = ""
    missing: int = 0

    def __len__(self) -> int:
        return len(self.begin) + len(self.end) + self.missing

    def within(self, most: int) -> str:
        r"""Return at most so many characters: cut in the middle, which is said there.

        >>> Excerpt("a" * 100).within(48)
        'aaaaaaaaa\n… [83 characters left out] …\naaaaaaaa'

        """
        if len(self) <= most and not self.missing:
            return self.begin + self.end
        mark = f"\n… [{len(self):,} characters left out] …\n"
        kept = max(0, min(most - len(mark), len(self.begin) + len(self.end)))
        mark = f"\n… [{len(self) - kept:,} characters left out] …\n"
        begin, end = (self.begin, self.end) if self.end else (self.begin, self.begin)
        half = kept - kept // 2
        return f"{begin[:half]}{mark}{end[len(end) - kept // 2 :]}" if kept else mark.strip()


def excerpt_of(chunks: Sequence[object]) -> Excerpt:
    r"""Return the text of a stream that was written piece by piece; of a long one, only its two ends are put together.

    >>> excerpt_of(["10%", "\r", "100%", "\n"])
    Excerpt(begin='100%\n', end='', missing=0)

    """
    length = sum(len(chunk) for chunk in chunks if isinstance(chunk, str))
    if length <= READ:
        return Excerpt(plain("".join(chunk for chunk in chunks if isinstance(chunk, str))))
    half = READ // 2
    begin = "".join(_up_to(half, iter(chunks), keep_end=False))
    end = "".join(reversed([*_up_to(half, reversed(chunks), keep_end=True)]))
    return Excerpt(plain(begin), plain(end), length - READ)


def _up_to(most: int, chunks: Iterator[object], *, keep_end: bool) -> Iterator[str]:
    for chunk in chunks:
        if most <= 0:
            return
        if isinstance(chunk, str) and chunk:
            yield chunk[-most:] if keep_end else chunk[:most]
            most -= len(chunk)
