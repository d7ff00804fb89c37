"""`RowsInFile`: what `LLM.batch` gives with `batch_file`, rows in a file that another program asks for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llm_magic.batches.batch import Batch, Counts
from llm_magic.batches.batch_file.fetched_file import fetch
from llm_magic.batches.batch_file.written_rows import RowsWritten, WrittenRows
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.errors import LLMError, OptionError
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.screen import RowsInterrupted

if TYPE_CHECKING:
    from llm_magic.mapping.call import MapCall


class RowsInFile(Batch[Answers]):
    """Rows that are written into a file: `.file`, `.rows`, `.command`, and `.fetch(path)` for their answers.

    Where no row was left to be written, its result is there at once.

    Parameters
    ----------
    call
        The call that wrote them.
    again
        Returns the same call anew.
    written
        What was written; None where all rows are answered.
    answer
        The answers, where they are there.

    Examples
    --------
    >>> batch = llm.batch("Price? {{ item }}", reviews, batch_file="rows.jsonl")  # doctest: +SKIP
    >>> batch.status, batch.rows  # doctest: +SKIP
    ('written', 2000)
    >>> print(batch.command)  # doctest: +SKIP
    vllm run-batch -i rows.jsonl -o rows.out.jsonl --model Qwen/Qwen3-8B
    >>> batch.fetch("rows.out.jsonl").values  # doctest: +SKIP

    """

    def __init__(
        self, call: MapCall, again: Callable[[], MapCall], written: WrittenRows | None, answer: Future[Answers]
    ) -> None:
        super().__init__(call.run.model, answer, str)
        self._call, self._again, self._written = call, again, written

    @classmethod
    def of(cls, call: MapCall, again: Callable[[], MapCall]) -> Self:
        """Write the rows of a call, and return that.

        Raises
        ------
        LLMError
            They cannot be written.
        RowsFailedError
            Rows failed in what was fetched, and no other is left to be written.

        """
        answer: Future[Answers] = Future()
        try:
            answers = call.session.loop.run(call.answers())
        except RowsWritten as ended:
            rows = cls(call, again, ended.written, answer)
            answer.set_exception(rows.not_there())
            return rows
        except KeyboardInterrupt:
            raise RowsInterrupted(call.run.how_far()) from None
        answer.set_result(answers)
        return cls(call, again, None, answer)

    def not_there(self) -> LLMError:
        """Return the error of a result that is not there, which says how it comes."""
        lines = [] if self._written is None else self._written.lines("")
        hint = f"{self.command or 'A program that reads it asks for them'}; then batch.fetch(…) has their answers."
        return LLMError(" ".join(lines[:1]), hint)

    @property
    def file(self) -> Path | None:
        """The file; None where none was written."""
        return None if self._written is None or not self._written.rows else self._written.place.path

    @property
    def rows(self) -> int:
        """How many rows are in the file."""
        return 0 if self._written is None else self._written.rows

    @property
    def command(self) -> str:
        """The command by which vLLM asks for them; empty for other servers."""
        return "" if self._written is None else self._written.command

    @property
    def status(self) -> str:
        """`written`; `completed` where all rows are answered."""
        return "completed" if self._written is None else "written"

    @property
    def counts(self) -> Counts:
        """How many rows are answered, failed, and in the file; of those in a file nobody knows."""
        if self._written is not None:
            return Counts(0, 0, self.rows)
        answers = self.result()
        return Counts(len(answers) - len(answers.failed), len(answers.failed), len(answers))

    def fetch(self, path: str | PathLike[str]) -> Answers:
        """Read the file that a program wrote of these rows, and return all answers, as values of the output type.

        Raises
        ------
        LLMError
            It is no file of results, or of other rows.
        RowsFailedError
            Rows failed, and they are not to be kept as values.

        """
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            if self._call.run.inputs.is_iterator:
                raise OptionError(
                    "The inputs were an iterator, which is read by now.",
                    "Call llm.batch again with the same inputs: it has the answers, once %llm_batch has fetched them.",
                )
            fetch(Path(fspath(path)).expanduser())
            call = self._again()
            try:
                return call.session.loop.run(call.answers())
            except RowsWritten as ended:
                raise LLMError(
                    f"{Path(fspath(path)).name} has not all rows: {ended.written.lines('')[0]}",
                    "Fetch the file with their results as well.",
                ) from None
            except KeyboardInterrupt:
                raise RowsInterrupted(call.run.how_far()) from None

    def cancel(self) -> bool:
        """Return False: nothing runs that could be cancelled."""
        return False

    def __repr__(self) -> str:
        if self._written is None:
            return f"<RowsInFile of {self._model}: completed>"
        return f"<RowsInFile {self._written.place.named} of {self._model}: {counted(self.rows, 'row')} written>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:  # noqa: ARG002 - IPython's call
        return {"text/plain": repr(self)}
