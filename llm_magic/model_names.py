"""Names of models as they are shown: of a model that is a file, the file's name and not where it lies."""

from __future__ import annotations

import re
from functools import lru_cache

_PATH = re.compile(
    r"(?:file:|/|~/|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)"  # a place on a disk
    r"|[^:]*[\\/].*\.(?:gguf|ggml|safetensors|bin)$",  # a file of weights in a folder
    re.IGNORECASE,
)


@lru_cache(maxsize=256)
def shown_model(name: str) -> str:
    r"""Return a model's name, with or without its provider, as it is shown.

    >>> shown_model("/models/tiny/tiny-Q4.gguf"), shown_model(r"house:C:\models\tiny.gguf")
    ('tiny-Q4.gguf', 'house:tiny.gguf')
    >>> shown_model("hub:openai/gpt-oss-120b"), shown_model("ft:gpt-4o:org::id"), shown_model("house:")
    ('hub:openai/gpt-oss-120b', 'ft:gpt-4o:org::id', 'house:')

    """
    provider, colon, model = name.partition(":")
    if _PATH.match(name):
        return _file(name)
    return f"{provider}:{_file(model)}" if colon and _PATH.match(model) else name


def models_in(text: str) -> tuple[str, ...]:
    """Return the names of models that stand in one text with commas.

    >>> models_in("openai:gpt-5, vllm:"), models_in("local:smollm2"), models_in("")
    (('openai:gpt-5', 'vllm:'), ('local:smollm2',), ())

    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _file(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path
