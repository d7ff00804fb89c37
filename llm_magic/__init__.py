"""`%load_ext llm_magic` adds `%%llm`; `from llm_magic import LLM` is the same from Python.

The names of `__all__` are what a user or the author of a provider needs; each is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic import events as events
    from llm_magic.api import LLM as LLM, registry as registry, usage as usage
    from llm_magic.capabilities import Capabilities as Capabilities
    from llm_magic.embeddings import Vectors as Vectors
    from llm_magic.errors import (
        AnswerError as AnswerError,
        AuthenticationError as AuthenticationError,
        ConfigurationError as ConfigurationError,
        ConnectionFailedError as ConnectionFailedError,
        ContentFilteredError as ContentFilteredError,
        ContextOverflowError as ContextOverflowError,
        EndpointNotFoundError as EndpointNotFoundError,
        HistoryError as HistoryError,
        IncompleteAnswerError as IncompleteAnswerError,
        InputError as InputError,
        Interrupted as Interrupted,
        InvalidValueError as InvalidValueError,
        LLMError as LLMError,
        ModelNotFoundError as ModelNotFoundError,
        OptionError as OptionError,
        OutputTypeError as OutputTypeError,
        PromptError as PromptError,
        ProtocolError as ProtocolError,
        ProviderError as ProviderError,
        QuotaExceededError as QuotaExceededError,
        RateLimitedError as RateLimitedError,
        RefusedError as RefusedError,
        RequestRefusedError as RequestRefusedError,
        ServerFailedError as ServerFailedError,
        TimedOutError as TimedOutError,
        ToolError as ToolError,
        ToolLimitError as ToolLimitError,
        UnsupportedError as UnsupportedError,
    )
    from llm_magic.providers.base import Provider as Provider
    from llm_magic.providers.model_info import ModelCard as ModelCard
    from llm_magic.request import Request as Request
    from llm_magic.response import Response as Response

__version__ = "0.1.0"

_ERRORS = (
    "AnswerError AuthenticationError ConfigurationError ConnectionFailedError ContentFilteredError "
    "ContextOverflowError EndpointNotFoundError HistoryError IncompleteAnswerError InputError Interrupted "
    "InvalidValueError LLMError ModelNotFoundError OptionError OutputTypeError PromptError ProtocolError "
    "ProviderError QuotaExceededError RateLimitedError RefusedError RequestRefusedError ServerFailedError "
    "TimedOutError ToolError ToolLimitError UnsupportedError"
).split()  # noqa: SIM905 - a page of quotes says no more
_HOMES = {
    "LLM": "api",
    "registry": "api",
    "usage": "api",
    "events": "events",
    "Capabilities": "capabilities",
    "ModelCard": "providers.model_info",
    "Provider": "providers.base",
    "Request": "request",
    "Response": "response",
    "Vectors": "embeddings",
} | dict.fromkeys(_ERRORS, "errors")

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - text, all of them


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: loading the extension must cost nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return module if name == _HOMES[name] else getattr(module, name)


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
