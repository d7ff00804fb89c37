"""`%%llm_embed`: vectors of the lines below, or of the texts that an expression gives."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from llm_magic.close_matches import did_you_mean
from llm_magic.commands.line import Command
from llm_magic.display import markup
from llm_magic.display.footer import counted, money, seconds
from llm_magic.embeddings import OPTIONS, EmbeddingOptions, Vectors, need_numpy, texts_of
from llm_magic.embeddings.run import Embedding, EmbeddingInterrupted
from llm_magic.errors import PromptError
from llm_magic.model_names import shown_model
from llm_magic.options import exclude_each_other
from llm_magic.options.option import shadowed


def run(command: Command) -> Any:
    """Embed; return the vectors where no variable takes them."""
    values = dict(command.read(OPTIONS, most=0, usage="[options], and the texts on the lines below").values)
    kind, out, each = values.pop("embed_as", "list"), values.pop("out", None), values.pop("each", None)
    if kind == "ndarray":
        need_numpy()
    texts = _texts(command, each)
    model = values.pop("model", "")
    embedding = Embedding(command.session, texts, EmbeddingOptions.of(values, model))
    try:
        vectors = command.wait(embedding.answer, f"waiting for {embedding.name}")
    except (KeyboardInterrupt, CancelledError):
        raise EmbeddingInterrupted from None
    command.show(markup.quiet(" ".join([_summary(vectors), *vectors.notes[:1], *shadowed(out)])))
    value = vectors.to_numpy() if kind == "ndarray" else vectors
    if out is None:
        return value
    command.shell.user_ns[out] = value
    return None


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
