"""Whether a recording holds a secret: then it is not written, for its file is made to be shared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache

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
    answer = {name: value for name, value in recording.answer.items() if name not in _WITHOUT_WORDS}
    text = Recording(recording.asked, answer, recording.cell).line().decode()
    variables = os.environ if environment is None else environment
    named = {
        name: Secret(value) for name, value in variables.items() if len(value) >= SHORTEST and _is_secret_name(name)
    }
    keys = tuple(known)
    if not holds(text, (*keys, *named.values())):
        return ""
    names = [name for name, value in named.items() if holds(text, (value,))]
    return f"the value of the environment variable {names[0]}" if names else "a key"


_is_secret_name = lru_cache(maxsize=4096)(is_secret_name)
