"""`%load_ext llm_magic` adds `%%llm`; `from llm_magic import LLM` is the same from Python.

The names of `__all__` are what a user or the author of a provider needs; each is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic import events
    from llm_magic.api import LLM, registry, usage
    from llm_magic.capabilities import Capabilities
    from llm_magic.comparison.responses import Comparison
    from llm_magic.comparison.rows.answers import ComparedAnswers
    from llm_magic.embeddings import Vectors
    from llm_magic.errors import (
        AnswerError,
        AuthenticationError,
        BudgetError,
        ConfigurationError,
        ConnectionFailedError,
        ContentFilteredError,
        ContextOverflowError,
        EmptyAnswerError,
        EndpointNotFoundError,
        HistoryError,
        IncompleteAnswerError,
        InputError,
        Interrupted,
        InvalidValueError,
        LLMError,
        ModelNotFoundError,
        ModelsFailedError,
        NotAskedError,
        OptionError,
        OutputTypeError,
        PromptError,
        ProtocolError,
        ProviderError,
        QuotaExceededError,
        RateLimitedError,
        RecordingError,
        RefusedError,
        RequestRefusedError,
        RowsFailedError,
        ServerFailedError,
        TimedOutError,
        ToolError,
        ToolLimitError,
        UnsupportedError,
    )
    from llm_magic.mapping.answers.answers import Answers
    from llm_magic.output.type_expression import DataFrame
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import ModelCard
    from llm_magic.request import Request
    from llm_magic.response import Response

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AnswerError",
    "Answers",
    "AuthenticationError",
    "BudgetError",
    "Capabilities",
    "ComparedAnswers",
    "Comparison",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentFilteredError",
    "ContextOverflowError",
    "DataFrame",
    "EmptyAnswerError",
    "EndpointNotFoundError",
    "HistoryError",
    "IncompleteAnswerError",
    "InputError",
    "Interrupted",
    "InvalidValueError",
    "LLMError",
    "ModelCard",
    "ModelNotFoundError",
    "ModelsFailedError",
    "NotAskedError",
    "OptionError",
    "OutputTypeError",
    "PromptError",
    "ProtocolError",
    "Provider",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitedError",
    "RecordingError",
    "RefusedError",
    "Request",
    "RequestRefusedError",
    "Response",
    "RowsFailedError",
    "ServerFailedError",
    "TimedOutError",
    "ToolError",
    "ToolLimitError",
    "UnsupportedError",
    "Vectors",
    "__version__",
    "events",
    "registry",
    "usage",
]

_HOMES = {
    "LLM": "api",
    "registry": "api",
    "usage": "api",
    "events": "events",
    "Answers": "mapping.answers.answers",
    "Capabilities": "capabilities",
    "Comparison": "comparison.responses",
    "ComparedAnswers": "comparison.rows.answers",
    "DataFrame": "output.type_expression",
    "ModelCard": "providers.model_info",
    "Provider": "providers.base",
    "Request": "request",
    "Response": "response",
    "Vectors": "embeddings",
}
"""Where each name lives, below this package; the others are errors."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: loading the extension must cost nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    home = _HOMES.get(name, "errors")
    module = importlib.import_module(f"{__name__}.{home}")
    return module if name == home else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics."""
    from llm_magic.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove every trace."""
    from llm_magic.extension import unload

    unload(shell)
