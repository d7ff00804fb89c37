"""`%%llm_embed`: the lines below, or the texts of an expression, become vectors that are bound or returned."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from llm_magic.background_loop import Channel
from llm_magic.commands.line import Command
from llm_magic.commands.usage import money
from llm_magic.display import markup
from llm_magic.display.outputs import ProgressLine
from llm_magic.embeddings import BATCH, EmbeddingOptions, Vectors, need_numpy, texts_of
from llm_magic.embeddings.run import Embedding
from llm_magic.errors import PromptError
from llm_magic.options import BY_FLAG, Option, exclude_each_other


class EmbeddingInterrupted(KeyboardInterrupt):
    """The user interrupted; shown as one line, and everything that stops on KeyboardInterrupt stops."""

    def _render_traceback_(self) -> list[str]:
        return ["KeyboardInterrupt: the requests were stopped; run it again, and it goes on where it was."]


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def _kind(text: str) -> str:
    if text not in {"list", "ndarray"}:
        raise ValueError("list or ndarray")
    return text


_OPTIONS = (
    *(BY_FLAG[flag] for flag in ("--model", "--out", "--param", "--header", "--base-url", "--timeout", "--retries")),
    Option("each", ("--each",), "", "an expression that gives texts", "EXPR", str),
    Option("as", ("--as",), "", "list or ndarray", "KIND", _kind),
    Option("dimensions", ("--dimensions",), "", "shorter vectors", "N", _at_least_one),
    Option("batch", ("--batch",), "", "texts in one request", "N", _at_least_one),
)


def run(command: Command, cell: str | None) -> Any:
    """Embed; return the vectors where no variable takes them."""
    values = dict(command.read(_OPTIONS, most=0, usage="[options], and the texts on the lines below").values)
    kind, out, each = values.pop("as", "list"), values.pop("out", None), values.pop("each", None)
    if kind == "ndarray":
        need_numpy()
    texts = _texts(command, each, cell)
    wish = EmbeddingOptions(**{"batch": BATCH, "model": "", **values})
    vectors = _follow(command, Embedding(command.session, texts, wish))
    value = vectors.to_numpy() if kind == "ndarray" else vectors
    if out is None:
        return value
    command.shell.user_ns[out] = value
    return None


def _texts(command: Command, each: str | None, cell: str | None) -> list[str]:
    """Return the texts: of the expression, or the lines of the cell."""
    lines = [line.strip() for line in (cell or "").splitlines() if line.strip()]
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
    from llm_magic.commands.line import did_you_mean

    try:
        return eval(expression, dict(namespace))  # noqa: S307 - the user's own words, in the user's own kernel
    except NameError as error:
        hint = did_you_mean(error.name or "", namespace) or "Define it in a cell above."
        raise PromptError(f"--each {expression}: {error}.", hint) from error
    except Exception as error:
        raise PromptError(f"--each {expression}: {type(error).__name__}: {error}.") from error


def _follow(command: Command, embedding: Embedding) -> Vectors:
    """Run it to its end, and show how far it is and then what came."""
    progress, seconds = ProgressLine(command.shell), 0
    found: list[Vectors] = []

    async def work(emit: Any) -> None:
        found.append(await embedding.answer(emit))

    channel: Channel[str] = Channel(command.session.loop, work)
    try:
        while (lines := channel.receive(1.0)) is not None:
            seconds = 0 if lines else seconds + 1
            progress.say(lines[-1] if lines else f"waiting for {embedding.name}: {seconds} s")
    except (KeyboardInterrupt, CancelledError):
        channel.cancel()
        progress.end()
        raise EmbeddingInterrupted from None
    except BaseException:
        progress.end()
        raise
    (vectors,) = found
    progress.end(markup.quiet(_summary(vectors)))
    return vectors


def _summary(vectors: Vectors) -> str:
    facts = [f"{len(vectors):,} vector{'s' * (len(vectors) != 1)} of {vectors.dimensions:,} dimensions", vectors.model]
    if vectors.usage is not None:
        facts.append(f"{vectors.usage.input_tokens:,} tokens")
    facts.append(f"{vectors.seconds:.1f} s")
    if vectors.cost is not None:
        facts.append(money(vectors.cost))
    return " · ".join(facts)
