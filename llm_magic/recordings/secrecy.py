"""Whether a recording holds a secret: then it is not written, for its file is made to be shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from llm_magic.environment import once_while_unchanged
from llm_magic.recordings.recording import Recording
from llm_magic.secrets import Secret, holds, is_secret_name
from llm_magic.secrets.spellings import SHORTEST

_WITHOUT_WORDS = frozenset({"vectors"})
"""Fields of an answer that are numbers alone."""


def secret_in(recording: Recording, known: Iterable[str], environment: Mapping[str, str] | None = None) -> str:
    """Return in words which secret a recording holds, in whatever spelling; empty where it holds none.

    Secrets are the `known` ones, and the values of environment variables whose name says so. What merely looks like a
    key is none: `hf_hub_download` would be one, and every answer about it lost.
    """
    if not _WITHOUT_WORDS.isdisjoint(recording.answer):
        answer = {name: value for name, value in recording.answer.items() if name not in _WITHOUT_WORDS}
        recording = replace(recording, answer=answer)
    return secret_in_text(recording.line().decode(), known, environment)


def secret_in_text(text: str, known: Iterable[str], environment: Mapping[str, str] | None = None) -> str:
    """Return in words which secret a text holds, as of `secret_in`; empty where it holds none."""
    named = of_process() if environment is None else _named(environment)
    keys = tuple(known)
    if not holds(text, (*keys, *named.values())):
        return ""
    names = [name for name, value in named.items() if holds(text, (value,))]
    return f"the value of the environment variable {names[0]}" if names else "a key"


def _named(variables: Mapping[str, str]) -> dict[str, Secret]:
    """Return the variables whose name says that their value is secret."""
    return {
        name: Secret(value) for name, value in variables.items() if len(value) >= SHORTEST and _is_secret_name(name)
    }


_is_secret_name = lru_cache(maxsize=4096)(is_secret_name)
of_process = once_while_unchanged(_named)
"""Returns the variables of this process whose name says that their value is secret."""
