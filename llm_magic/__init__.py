"""`%load_ext llm_magic` adds `%%llm`; `from llm_magic import LLM` is the same from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.api import LLM as LLM
    from llm_magic.errors import LLMError as LLMError
    from llm_magic.response import Response as Response

__version__ = "0.1.0"
__all__ = ["LLM", "LLMError", "Response", "__version__"]

_HOMES = {"LLM": "llm_magic.api", "LLMError": "llm_magic.errors", "Response": "llm_magic.response"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: loading the extension must cost nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics."""
    from llm_magic.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove every trace."""
    from llm_magic.extension import unload

    unload(shell)
