"""The arguments of `LLM` and its methods: read from what the caller gave, or refused in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OptionError, PromptError
from llm_magic.model_names import models_in

if TYPE_CHECKING:
    from llm_magic.messages import Message
    from llm_magic.options import Options
    from llm_magic.options.mapping import Rows
    from llm_magic.session import Session


def read_models(models: Any, source: str) -> str:
    """Return names of models as one text with commas; OptionError where they are none."""
    names = models if isinstance(models, list | tuple) else () if models is None else (models,)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise OptionError(f"{source} must be the name of one, not {wrong!r:.60}.", 'Example: LLM("vllm:smollm2").')
    if isinstance(models, list | tuple) and any(len(models_in(name)) != 1 or "," in name for name in names):
        raise OptionError(f"{source} must be a list of names, not {models!r:.60}.", 'Example: ["vllm:", "openai:x"].')
    return ",".join(names)


def read_models_of_rows(given: object) -> tuple[str, ...]:
    """Return the names that `models=` gives, each once.

    Raises
    ------
    OptionError
        It is no list of names; it is empty, or a name stands there twice.

    >>> read_models_of_rows(["a", "b"])
    ('a', 'b')

    """
    example = 'Example: models=["openai:gpt-5-mini", "vllm:"].'
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping) else []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise OptionError(f"models must be a list of names of models, not {given!r:.60}.", example)
    names = [name.strip() for name in names]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise OptionError(f"models: {twice} stands there twice.", "Name each model once.")
    return tuple(names)


def read_on_progress(given: Any) -> Any:
    """Return the function that is told how far a run is; OptionError where it is none."""
    from inspect import iscoroutinefunction

    if any(map(iscoroutinefunction, (given, type(given).__call__ if callable(given) else None))):
        raise OptionError("on_progress takes a function that is called, none that is awaited.", "Make it a plain one.")
    if given is not None and not callable(given):
        raise OptionError(f"on_progress takes a function, not {given!r:.60}.", "on_progress=print shows how far it is.")
    return given


def read_options(keywords: Mapping[str, Any], source: str, rows: Rows = "none") -> Options:
    """Return the options that keyword arguments stand for, with what is secret in them as a `Secret`.

    `rows` says which options of many rows are taken: as for `from_keywords`.
    """
    from llm_magic.config.references import mark_secrets
    from llm_magic.options.mapping import from_keywords

    options = from_keywords(keywords, source, rows)
    options.header, options.param = mark_secrets(options.header), mark_secrets(options.param)
    return options


def read_prompt(
    prompt: Any, given: Options, called: Options, session: Session
) -> tuple[str, tuple[Message, ...], tuple[str, ...]]:
    """Return a prompt as a text, or as messages, and what the user should know of these."""
    from llm_magic.response import Response

    if isinstance(prompt, str):
        if not prompt.strip() and not called.image:
            raise PromptError("The prompt is empty.", "Give a text, or a list of messages.")
        return prompt, (), ()
    if not isinstance(prompt, list | tuple):
        hint = "Did you mean its .text?" if isinstance(prompt, Response) else "Give a text, or a list of messages."
        raise PromptError(f"The prompt must be a text or a list of messages, not {type(prompt).__name__}.", hint)
    from llm_magic.prompt.message_list import read_messages

    messages, notes = read_messages(prompt, max_side=session.settings.max_image_pixels)
    if called.chat is not None:
        raise OptionError(
            f"A list of messages is a conversation of its own, and chat={called.chat!r:.60} names another.",
            "Give a text to continue that one, or once=True.",
        )
    if any(message.role == "system" for message in messages):
        if given.system:
            raise OptionError("The messages have a system prompt, and system= is another.", "Keep one of them.")
        given.system = ""
    if called.image and messages[-1].role != "user":
        raise OptionError("images= needs a user's message at the end of the messages.", "Add one, or leave them out.")
    return "", messages, notes


def cannot_confirm(on_confirm: object) -> OptionError | None:
    """Return the error of `confirm=True` where there is nothing to ask, None where there is."""
    if callable(on_confirm):
        return None
    what = "needs on_confirm=" if on_confirm is None else f"cannot ask {on_confirm!r:.60}, which is no function"
    return OptionError(
        f"confirm=True {what}.", "Give a function that takes the call and returns True or False: on_confirm=allowed."
    )
