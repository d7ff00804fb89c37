"""The executed cells of the notebook: IPython's own history, each cell once, with its last run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llm_magic.input_transformer import CELL_MAGIC

if TYPE_CHECKING:
    from llm_magic.context.displays import CapturedDisplays
    from llm_magic.context.plain_text import Excerpt
    from llm_magic.prompt.values import Limits

_OURS = re.compile(
    r"\s*(?:[\w.,\[\]'\" ]+=\s*)?%llm(?:_\w+)?(?:\s|$)"
    r"|\s*%(?:re|un)?load_ext\s+llm_magic\s*$"
    r"|\s*%config\s+(?:LLMMagics|ProviderRegistry)\b"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One output of a cell: its text, or the bytes of an image.

    `value` is what it shows anew: the object where it still is that text, or a table as it stood in a prompt then.
    """

    kind: Literal["output", "stderr", "error"]
    text: Excerpt
    image: bytes | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class ExecutedCell:
    """A cell as it ran last: its code, and what it showed.

    `key` tells it from other cells, `number` is IPython's execution count of that run.
    """

    key: tuple[str, str]
    number: int
    source: str
    outputs: tuple[Shown, ...] = ()
    unheard: bool = False
    """Whether nobody has kept what it printed."""
    unseen: bool = False
    """Whether nobody has kept what it displayed."""


class ExecutedCells:
    """Reads the cells of a shell that have run.

    IPython keeps the code, what was printed, results and errors; noted here is which cell of the front end each
    execution was, since a cell that is run again is the same one. Rich displays are kept from `watch` on, tables among
    them as prompts show them where `limits` say how much of one that is.
    """

    def __init__(self, shell: Any, limits: Limits | None = None) -> None:
        self._shell, self._limits = shell, limits
        self._runs: dict[int, tuple[str | None, str]] = {}
        self._running: tuple[str | None, str] | None = None
        self._displays: CapturedDisplays | None = None
        self._unheard: set[int] = set()
        self._unseen: set[int] = set()
        self._last = 0  # the highest execution count so far
        self._length = 0  # of IPython's history
        self._kinds: set[bool] = set()  # whether executions so far are part of the history
        if hasattr(shell.display_pub, "register_hook"):
            shell.display_pub.register_hook(self._not_kept)

    @property
    def without_history(self) -> bool:
        """Whether whoever executes cells has none of them kept, not even the one that runs: nbval does so."""
        return self._kinds == {False}

    def began(self, info: Any) -> None:
        """Take note that a cell begins: the listener of `pre_run_cell`."""
        self._kinds.add(bool(info.store_history))
        if info.store_history:
            self._running = info.cell_id, info.raw_cell
            if self._displays is not None and not _is_kept(sys.stdout):
                self._displays.listen()

    def ended(self, result: Any) -> None:
        """Take note that a cell has run: the listener of `post_run_cell`."""
        if result is None or not result.info.store_history or result.execution_count is None:
            return
        if self._forget_before_reset():
            return  # it was the one that did
        info, number = result.info, result.execution_count
        if self._displays is not None:
            self._displays.listen_no_more()
        elif not _is_kept(sys.stdout):
            self._unheard.add(number)
        if self._displays is not None and info.cell_id is not None:
            for earlier in self._displays.numbers():
                if self._runs.get(earlier, (None, ""))[0] == info.cell_id:
                    self._displays.forget(earlier)
        self._runs[number] = info.cell_id, info.raw_cell
        self._last = max(number, self._last)
        self._running = None

    def watch(self) -> None:
        """Keep rich displays from now on; until then, only that there were some is known."""
        if self._displays is None:
            self._hear_no_more()
            from llm_magic.context.displays import CapturedDisplays
            from llm_magic.context.tables import ShownTables

            tables = None
            if self._limits is not None:
                tables = ShownTables(self._shell.display_formatter, self._limits, self._number)
            self._displays = CapturedDisplays(self._shell.display_pub, self._place, tables)

    def close(self) -> None:
        """Let go of the shell's display publisher."""
        self._hear_no_more()
        if self._displays is not None:
            self._displays.close()

    def _hear_no_more(self) -> None:
        if self._displays is None and hasattr(self._shell.display_pub, "unregister_hook"):
            self._shell.display_pub.unregister_hook(self._not_kept)

    def _not_kept(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take note that the running cell displays something, before anybody keeps it; the message goes on as it is."""
        number = self._number()
        if number is not None and message.get("msg_type") == "display_data":
            content = message.get("content")
            metadata = content.get("metadata") if isinstance(content, Mapping) else None
            if "llm_magic" not in (metadata or {}):  # an answer: that is history
                self._unseen.add(number)
        return message

    def cells(self) -> list[ExecutedCell]:
        """Return the cells that have run, by their last run; not the one that asks, and none of prompts alone."""
        self._forget_before_reset()
        last: dict[tuple[str, str], tuple[int, str]] = {}
        for number, cell_id, source in self._all_runs():
            key = _key(cell_id, source)
            last.pop(key, None)
            if cell_id is not None:
                last.pop(_key(None, source), None)  # it ran before this extension was there to hear its name
            last[key] = number, source
        if self._running is not None:
            last.pop(_key(*self._running), None)
        return [
            ExecutedCell(
                key,
                number,
                source.strip("\n"),
                tuple(self._outputs(number)),
                unheard=number in self._unheard,
                unseen=number in self._unseen,
            )
            for key, (number, source) in last.items()
            if is_code(source)
        ]

    def keys(self) -> dict[int, tuple[str, str]]:
        """Return which cell each execution was."""
        return {number: _key(cell_id, source) for number, cell_id, source in self._all_runs()}

    def _forget_before_reset(self) -> bool:
        """Forget what ran before `%reset`, which takes away all variables; return whether the running cell did that."""
        length = len(self._shell.history_manager.input_hist_raw)
        is_reset, self._length = length < self._length, length
        if is_reset or self._shell.execution_count <= self._last:
            for number in self._runs:
                if self._displays is not None:
                    self._displays.forget(number)
            self._runs.clear()
            self._unheard.clear()
            self._unseen.clear()
            self._last = 0
        return is_reset

    def _all_runs(self) -> Iterator[tuple[int, str | None, str]]:
        """Yield the executions so far: number, the front end's id of the cell, code."""
        raw: Sequence[str] = self._shell.history_manager.input_hist_raw
        first = min(self._runs, default=self._shell.displayhook.prompt_count)
        for number in range(1, min(first, len(raw))):
            yield number, None, raw[number]
        for number, (cell_id, source) in sorted(self._runs.items()):
            yield number, cell_id, source

    def _place(self) -> tuple[int, tuple[int, int]] | None:
        """Return the number of the cell that runs, and where among its outputs one would stand now."""
        if self._running is None:
            return None
        number = self._shell.displayhook.prompt_count
        return number, _end_of(self._kept(number))

    def _number(self) -> int | None:
        """Return the number of the cell that runs."""
        return None if self._running is None else self._shell.displayhook.prompt_count

    def _kept(self, number: int) -> list[Any]:
        """Return the outputs that IPython keeps of an execution."""
        outputs: Mapping[int, list[Any]] = getattr(self._shell.history_manager, "outputs", {})
        return outputs.get(number, [])  # it makes what is missing when it is asked by index

    def _outputs(self, number: int) -> Iterator[Shown]:
        """Yield what a cell showed, in order."""
        from llm_magic.context.displays import Display
        from llm_magic.context.plain_text import Excerpt, plain

        kept = self._kept(number)
        displays = () if self._displays is None else self._displays.of_cell(number)
        place = (0, 0) if self._displays is None else self._displays.cleared(number)
        for display in (*displays, Display(_end_of(kept))):
            yield from self._between(number, kept, place, display.place)
            place = display.place
            if display.stream and not any(output.output_type.endswith("_stream") for output in kept):
                text = Excerpt(plain(display.text + display.end))
                if display.missing:
                    text = Excerpt(plain(display.text), plain(display.end), display.missing)
                yield Shown("stderr" if display.stream == "stderr" else "output", text)
            elif not display.stream and (display.text or display.image is not None):
                yield _shown("output", display.text, display.image, display.table)
        error: Mapping[str, Any] | None = getattr(self._shell.history_manager, "exceptions", {}).get(number)
        if error:
            yield _shown("error", _error(error))

    def _between(self, number: int, kept: list[Any], begin: tuple[int, int], end: tuple[int, int]) -> Iterator[Shown]:
        """Yield those of the outputs kept by IPython that stand between two places."""
        from llm_magic.context.plain_text import excerpt_of

        for at in range(begin[0], min(end[0] + 1, len(kept))):
            output = kept[at]
            if output.output_type in {"out_stream", "err_stream"}:
                chunks = output.bundle.get("stream", [])
                first = begin[1] if at == begin[0] else 0
                last = end[1] if at == end[0] else len(chunks)
                text = excerpt_of(chunks if (first, last) == (0, len(chunks)) else chunks[first:last])
                if len(text):
                    yield Shown("output" if output.output_type == "out_stream" else "stderr", text)
            elif (at > begin[0] or not begin[1]) and (at < end[0] or end[1]):
                yield self._of_bundle(number, output)

    def _of_bundle(self, number: int, output: Any) -> Shown:
        """Return a result, or what a terminal displayed; the object itself where it still looks as it did."""
        from llm_magic.context.mime_bundles import image_in, text_in

        text, image = text_in(output.bundle), image_in(output.bundle)
        value = None if self._displays is None else self._displays.table(number, output.bundle)
        if value is None and output.output_type == "execute_result" and image is None:
            value = self._unchanged(number, output.bundle.get("text/plain"))
        return _shown("output", text, image, value)

    def _unchanged(self, number: int, text: object) -> Any:
        """Return the table or picture that a cell gave as its result; None where it does not look as it did."""
        from llm_magic.images import is_picture
        from llm_magic.prompt.tables import library_of

        value = self._shell.user_ns.get("_oh", {}).get(number)
        if value is None or not (library_of(value) or is_picture(value)):
            return None
        bundle, _ = self._shell.display_formatter.format(value, include={"text/plain"})
        return value if bundle.get("text/plain") == text else None


def is_code(source: str) -> bool:
    r"""Whether a cell is code: no prompt, and not magics of ours alone.

    >>> [is_code(source) for source in ("x = 1", "%%llm\nHi", "%load_ext llm_magic\nx = %llm Hi", "  ")]
    [True, False, False, False]

    """
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return bool(source.strip())
    return not CELL_MAGIC.match(lines[0]) and not all(map(_OURS.match, lines))


def _is_kept(stream: Any) -> bool:
    """Whether IPython listens to a stream now: to those of cells that await in a kernel it does not."""
    return "_tee" in getattr(stream.write, "__qualname__", "_tee")


def _key(cell_id: str | None, source: str) -> tuple[str, str]:
    return ("", source.strip()) if cell_id is None else (cell_id, "")


def _end_of(kept: list[Any]) -> tuple[int, int]:
    """Return the place after the last of these outputs: its number, and how far it goes."""
    if not kept:
        return 0, 0
    return len(kept) - 1, len(kept[-1].bundle.get("stream", "x"))


def _shown(
    kind: Literal["output", "stderr", "error"], text: str, image: bytes | None = None, value: Any = None
) -> Shown:
    from llm_magic.context.plain_text import excerpt_of

    return Shown(kind, excerpt_of([text]), image, value)


def _error(error: Mapping[str, Any]) -> str:
    """Return an error as it was shown: where, then its name and message."""
    lines = [str(line) for line in error.get("traceback") or ()]
    return "\n".join(lines) or f"{error.get('ename', 'Error')}: {error.get('evalue', '')}"
