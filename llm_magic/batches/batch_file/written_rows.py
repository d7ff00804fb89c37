"""What a run with `--batch-file` has written in the place of asking, and how that is said."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from llm_magic.batches.batch_file.file_place import FilePlace
from llm_magic.display.footer import counted
from llm_magic.mapping.rows import Outcome


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """What a run has written in the place of asking."""

    place: FilePlace
    model: str
    rows: int
    """How many rows are in the file; 0: none was written."""
    answered: int = 0
    """Rows of the run that have an answer by now."""
    elsewhere: int = 0
    """Rows that a batch at a server has."""
    wrong: tuple[Outcome, ...] = ()
    """Rows that can be asked for nowhere."""
    is_new: bool = True
    """Whether it was written now; else the file had these rows."""
    is_vllm: bool = False

    @property
    def command(self) -> str:
        """The command that asks for the rows, where it is known which; else empty."""
        if not self.is_vllm or not self.rows:
            return ""
        named = shlex.quote(self.model)
        model = f"--model {named}" if "/" in self.model else f"--model MODEL --served-model-name {named}"
        files = f"-i {shlex.quote(self.place.said)} -o {shlex.quote(self.place.output)}"
        return f"vllm run-batch {files} {model}"

    def lines(self, out: str) -> list[str]:
        """Return what is to be told; `out` is the name that the cell binds, else empty."""
        others = [f"{counted(self.answered, 'row')} answered before"] if self.answered else []
        others += [f"{counted(self.elsewhere, 'row')} in a batch that goes on at its server"] if self.elsewhere else []
        if self.wrong:
            why = str(self.wrong[0].error).replace("\n", " ")
            others.append(f"{counted(len(self.wrong), 'row')} that cannot be asked for, the first: {why}")
        besides = f" ({'; '.join(others)})" if others else ""
        unbound = f", and {out} is not bound" if out else ""
        if not self.rows:
            waits = ["Run the cell with --batch to wait for that."] if self.elsewhere else []
            return [f"Nothing is written{unbound}{besides}.", *waits]
        has = "has" if self.is_new else "has as before"
        first = f"{self.place.named} {has} {counted(self.rows, 'row')}{besides}. Nothing was sent{unbound}."
        asks = (
            self.command or f"A program that reads the Batch API's format asks for them, and writes {self.place.output}"
        )
        weights = "" if not self.command or "/" in self.model else "MODEL is the folder, or the name, of the weights. "
        fetch = f"%llm_batch fetch {shlex.quote(self.place.output)}"
        then = f"{weights}Then {fetch}, and run this cell again: it has the answers."
        return [first, f"{asks}{'' if self.command else '.'}", then]


class RowsWritten(Exception):  # noqa: N818 - the good end of a run
    """A run has written its rows into a file, and none has an outcome yet."""

    def __init__(self, written: WrittenRows) -> None:
        super().__init__(written)
        self.written = written
