"""Rich displays of the running cell, kept from the time on that cells are asked for: IPython keeps none of a kernel."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.context.mime_bundles import image_in, text_in

if TYPE_CHECKING:
    from llm_magic.context.tables import ShownTables
    from llm_magic.prompt.values import Rendering

MOST_DISPLAYS = 100
"""Displays of one cell that are kept: the last ones."""
MOST_TEXT = 100_000
"""Characters of one display that are kept."""
MOST_BYTES = 64 * 2**20
"""Bytes of images that are kept: those of the newest displays."""


@dataclass(slots=True)
class Display:
    """What was displayed or printed: its plain text, and an image where it was one.

    `place` is where it stands among the outputs of a cell that IPython keeps. Of a long text there are the beginning,
    the `end`, and so many characters `missing`. `stream` names the stream of what was printed. A `table` is one as it
    stands in prompts.
    """

    place: tuple[int, int]
    text: str = ""
    image: bytes | None = None
    display_id: str | None = None
    stream: str = ""
    end: str = ""
    missing: int = 0
    table: Rendering | None = None

    def add(self, text: str) -> None:
        """Add what was printed next."""
        room = MOST_TEXT // 2 - len(self.text)
        if room > 0:
            self.text, text = self.text + text[:room], text[room:]
        if text:
            end = self.end + text
            self.end = end[-MOST_TEXT // 2 :]
            self.missing += len(end) - len(self.end)


class CapturedDisplays:
    """Keeps what cells display: a hook of the kernel's display publisher.

    Parameters
    ----------
    publisher
        The display publisher; one without hooks (a terminal's) has IPython keep its displays itself.
    place
        Returns where among the outputs of the running cell something now stands, None where no cell runs.
    tables
        The tables that cells show.

    """

    def __init__(
        self,
        publisher: Any,
        place: Callable[[], tuple[int, tuple[int, int]] | None],
        tables: ShownTables | None = None,
    ) -> None:
        self._publisher, self._place, self.tables = publisher, place, tables
        self._of_cells: dict[int, deque[Display]] = {}
        self._written: list[tuple[Any, Any]] = []  # streams that are listened to, and how they wrote before
        self._cleared: dict[int, tuple[int, int]] = {}
        if hasattr(publisher, "register_hook") and not getattr(publisher, "store_display_history", False):
            publisher.register_hook(self._take)

    def listen(self) -> None:
        """Keep what is printed, too, until `listen_no_more`: IPython does not of a cell that awaits."""
        for name in ("stdout", "stderr"):
            stream: Any = getattr(sys, name)
            write = stream.write
            try:
                stream.write = partial(self._heard, name, write)
            except AttributeError:  # a stream of the user's
                continue
            self._written.append((stream, write))

    def listen_no_more(self) -> None:
        """Let the streams be as they were."""
        for stream, write in self._written:
            stream.write = write
        self._written.clear()

    def _heard(self, name: str, write: Callable[[str], Any], text: str) -> Any:
        written = write(text)
        found = self._place()
        if found is not None and isinstance(text, str) and text:
            number, place = found
            displays = self._of_cells.setdefault(number, deque(maxlen=MOST_DISPLAYS))
            if not displays or displays[-1].stream != name or displays[-1].place != place:
                displays.append(Display(place, stream=name))
            displays[-1].add(text)
        return written

    def close(self) -> None:
        """Keep nothing any more."""
        self.listen_no_more()
        if hasattr(self._publisher, "unregister_hook"):
            self._publisher.unregister_hook(self._take)
        self._of_cells.clear()
        if self.tables is not None:
            self.tables.close()

    def of_cell(self, number: int) -> tuple[Display, ...]:
        """Return what a cell displayed, in order; `number` is its execution count."""
        return tuple(self._of_cells.get(number, ()))

    def numbers(self) -> tuple[int, ...]:
        """Return the execution counts of the cells of which something is kept."""
        return tuple({**self._of_cells, **self._cleared})

    def cleared(self, number: int) -> tuple[int, int]:
        """Return the place before which the outputs of a cell were cleared away."""
        return self._cleared.get(number, (0, 0))

    def forget(self, number: int) -> None:
        """Drop what a cell displayed: it has run again."""
        self._of_cells.pop(number, None)
        self._cleared.pop(number, None)
        if self.tables is not None:
            self.tables.forget(number)

    def table(self, number: int, bundle: Mapping[str, Any]) -> Rendering | None:
        """Return the table of a MIME bundle that a cell showed, as it stands in prompts."""
        return None if self.tables is None else self.tables.shown_as(number, bundle.get("text/plain"))

    def _take(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take note of a message to the front end, which goes on as it is."""
        with suppress(Exception):  # whatever it holds, the cell displays it
            self._note(message.get("msg_type"), message.get("content") or {})
        return message

    def _note(self, kind: str | None, content: Mapping[str, Any]) -> None:
        if "llm_magic" in (content.get("metadata") or {}):  # an answer: that is history
            return
        bundle: Mapping[str, Any] = content.get("data") or {}
        display_id = (content.get("transient") or {}).get("display_id")
        found = self._place()
        if kind == "update_display_data":
            for known in self._all():
                if display_id is not None and known.display_id == display_id:
                    known.text, known.image = text_in(bundle)[:MOST_TEXT], image_in(bundle)
                    known.table = None if found is None else self.table(found[0], bundle)
                    self._bound(known)
            return
        if found is None:
            return
        number, place = found
        if kind == "clear_output":
            self._of_cells.pop(number, None)
            self._cleared[number] = place
        elif kind == "display_data":
            display = Display(place, text_in(bundle)[:MOST_TEXT], image_in(bundle), display_id)
            display.table = self.table(number, bundle)
            self._of_cells.setdefault(number, deque(maxlen=MOST_DISPLAYS)).append(display)
            self._bound(display)

    def _all(self) -> Iterator[Display]:
        for displays in self._of_cells.values():
            yield from displays

    def _bound(self, added: Display) -> None:
        """Let go of the oldest images where all are too many bytes; their text stays."""
        if added.image is None:
            return
        kept = sum(len(display.image) for display in self._all() if display.image is not None)
        for display in self._all():
            if kept <= MOST_BYTES:
                return
            if display.image is not None:
                kept -= len(display.image)
                display.image = None
