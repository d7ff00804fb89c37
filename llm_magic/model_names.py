"""Names of models as they are shown: of a model that is a file, the file's name and not where it lies."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


def shown_models(names: Iterable[str]) -> dict[str, str]:
    """Return each name as it is shown beside others; the whole name where it would be shown like another.

    >>> shown_models(["/a/tiny.gguf", "vllm:m"]), shown_models(["/a/x.gguf", "/b/x.gguf"])
    ({'/a/tiny.gguf': 'tiny.gguf', 'vllm:m': 'vllm:m'}, {'/a/x.gguf': '/a/x.gguf', '/b/x.gguf': '/b/x.gguf'})

    """
    names = list(names)
    shown = list(map(shown_model, names))
    return {name: title if shown.count(title) == 1 else name for name, title in zip(names, shown, strict=True)}


def led_by(title: str, text: str) -> str:
    """Return a text after the name of the model of which it tells.

    >>> led_by("vllm:smollm2", "Cut off."), led_by("vllm:", "Cut off.")
    ('vllm:smollm2: Cut off.', 'vllm: Cut off.')

    """
    return f"{title.removesuffix(':')}: {text}"


def models_in(text: str) -> tuple[str, ...]:
    """Return the names of models that stand in one text with commas.

    >>> models_in("openai:gpt-5, vllm:"), models_in("local:smollm2"), models_in("")
    (('openai:gpt-5', 'vllm:'), ('local:smollm2',), ())

    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _file(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path
