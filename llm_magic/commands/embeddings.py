"""`%%llm_embed`: vectors of the lines below, or of the texts that an expression gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llm_magic.background_loop import Channel
from llm_magic.close_matches import did_you_mean
from llm_magic.commands.line import Command
from llm_magic.display import markup
from llm_magic.display.footer import counted, money, seconds
from llm_magic.display.markup import Bundle
from llm_magic.display.outputs import ProgressLine, is_watched
from llm_magic.embeddings import OPTIONS, EmbeddingOptions, Vectors, need_numpy, texts_of
from llm_magic.embeddings.run import Embedding, EmbeddingInterrupted
from llm_magic.errors import OptionError, PromptError
from llm_magic.model_names import shown_model
from llm_magic.options import exclude_each_other
from llm_magic.options.option import shadowed

if TYPE_CHECKING:
    from llm_magic.batches.embeddings.embedding import BatchEmbedding


def run(command: Command) -> Any:
    """Embed; return the vectors where no variable takes them; of an offline batch in the background, the batch."""
    values = dict(command.read(OPTIONS, most=0, usage="[options], and the texts on the lines below").values)
    kind, out, each = values.pop("embed_as", "list"), values.pop("out", None), values.pop("each", None)
    offline, waits = bool(values.pop("offline", None)), bool(values.pop("wait", None))
    if not offline:
        _refuse_alone(["wait"] * waits + [name for name in ("poll", "again") if name in values])
    elif not waits and not is_watched(command.shell):
        raise OptionError(
            "--batch-api needs --wait here: this notebook is executed by a program, which reads no late outputs.",
            "Say --batch-api --wait; a batch that an earlier run has submitted is waited for, not submitted again.",
        )
    if kind == "ndarray":
        need_numpy()
    texts = _texts(command, each)
    options = EmbeddingOptions.of(values, values.pop("model", ""), offline=offline)

    def end(vectors: Vectors) -> Any:
        """Bind the vectors; return them where no variable takes them."""
        value = vectors.to_numpy() if kind == "ndarray" else vectors
        if out is None:
            return value
        command.shell.user_ns[out] = value
        return None

    if offline:
        from llm_magic.batches.embeddings.embedding import BatchEmbedding

        batches = BatchEmbedding(command.session, texts, options)
        batches.out = out or ""
        return _by_batches(command, batches, end, shadowed(out), later=not waits)
    embedding = Embedding(command.session, texts, options)
    try:
        vectors = command.wait(embedding.answer, f"waiting for {embedding.name}")
    except (KeyboardInterrupt, CancelledError):
        raise EmbeddingInterrupted from None
    command.show(_below(vectors, shadowed(out)))
    return end(vectors)


def _refuse_alone(names: Sequence[str]) -> None:
    """Refuse what says something of an offline batch where there is none."""
    if names:
        flag = f"--{names[0]}"
        raise OptionError(f"{flag} needs --batch-api.", "--batch-api embeds the texts by an offline batch.")


def _by_batches(
    command: Command, embedding: BatchEmbedding, end: Callable[[Vectors], Any], notes: Iterable[str], *, later: bool
) -> Any:
    """Embed by offline batches: wait for them, or return them while a thread of their own does so."""
    bound: list[Any] = []

    def finish(vectors: Vectors) -> Bundle:
        bound.append(end(vectors))
        return _below(vectors, notes, most=None)

    screen = _BatchScreen(command, embedding, finish, background=later)
    if not later:
        screen.follow()
        return bound[0]
    from llm_magic.batches.batch import Batch

    batch: Batch[Vectors] = Batch.begin(screen, lambda _: None, screen.fail, command.session.jobs)
    batch.follow(embedding.state)
    return batch


class _BatchScreen:
    """Follows offline batches of texts on the thread that shows them, in a line below the cell.

    Parameters
    ----------
    command
        Of the cell.
    embedding
        What is awaited, on the loop; it starts at once.
    finish
        Called with the vectors; returns what stands below the cell then.
    background
        Whether other cells run meanwhile.

    """

    def __init__(
        self,
        command: Command,
        embedding: BatchEmbedding,
        finish: Callable[[Vectors], Bundle],
        *,
        background: bool,
    ) -> None:
        self._embedding, self._finish = embedding, finish
        self._line = ProgressLine(command.shell, background=background)
        self._channel: Channel[str] = Channel(command.session.loop, embedding.answer)

    @property
    def model(self) -> str:
        """The model as asked for."""
        return self._embedding.name

    def stop(self) -> str:
        """End the waiting; return in a line what goes on."""
        self._channel.stop()
        return self._embedding.state.how_far()

    def follow(self) -> Vectors:
        """Show how far it is until it ends, and return the vectors.

        Raises
        ------
        LLMError
            There are none, or not all.
        EmbeddingInterrupted
            The user interrupted.
        CancelledError
            It was cancelled.

        """
        try:
            while (lines := self._channel.receive(1.0)) is not None:
                if lines:
                    self._line.say(lines[-1])
        except KeyboardInterrupt:
            self._channel.cancel()
            self._line.end()
            raise EmbeddingInterrupted(self._embedding.state.how_far() or _NOTHING_SUBMITTED) from None
        except BaseException:
            self._line.end()
            raise
        vectors: Vectors = self._channel.result()
        self._line.end(self._finish(vectors))
        return vectors

    def fail(self, error: Exception) -> None:
        """Show why there are no vectors."""
        self._line.end(markup.mark(f"{type(error).__name__}: {error}"))


_NOTHING_SUBMITTED = "the submission was stopped; run it again, and it goes on where it was."


def _below(vectors: Vectors, notes: Iterable[str], most: int | None = 1) -> Bundle:
    """Return the line below a cell, with `most` of the vectors' notes."""
    return markup.quiet(" · ".join([_summary(vectors), *vectors.notes[:most], *notes]))


def _texts(command: Command, each: str | None) -> list[str]:
    """Return the texts: of the expression, or the lines of the cell."""
    lines = [line.strip() for line in (command.cell or "").splitlines() if line.strip()]
    if each is None:
        if not lines:
            raise PromptError(
                "There is nothing to embed.",
                "Write the texts on the lines below %%llm_embed, or name them: --each EXPR.",
            )
        return lines
    exclude_each_other({"--each": each, "the lines below": lines or None})
    found = texts_of(_value(each, command.shell.user_ns), each)
    if not found:
        raise PromptError(f"{each} has no texts to embed.")
    return found


def _value(expression: str, namespace: Mapping[str, Any]) -> Any:
    """Return the value of an expression of the user's."""
    try:
        return eval(expression, dict(namespace))  # noqa: S307 - the user's own words, in the user's own kernel
    except NameError as error:
        hint = did_you_mean(error.name or "", namespace, "Define it in a cell above.")
        raise PromptError(f"--each {expression}: {error}.", hint) from error
    except Exception as error:
        raise PromptError(f"--each {expression}: {type(error).__name__}: {error}.") from error


def _summary(vectors: Vectors) -> str:
    facts = [f"{counted(len(vectors), 'vector')} of {vectors.dimensions:,} dimensions", shown_model(vectors.model)]
    if vectors.usage is not None:
        facts.append(f"{vectors.usage.input_tokens:,} tokens")
    facts.append(seconds(vectors.seconds))
    if vectors.cost is not None:
        facts.append(money(vectors.cost))
    return " · ".join(facts)
