"""Every error this package raises; a message says what happened, where, and what to do next.

LLMError
├── InputError                  nothing was sent: the cell, an option or the configuration is wrong
│   ├── OptionError             an unknown option, or a value that it does not take
│   ├── PromptError             the template, a name in it, or an image cannot be rendered
│   ├── OutputTypeError         a type, schema, regex, grammar or list of choices that cannot be one
│   ├── ToolError               a Python function that cannot be offered to a model
│   ├── ModelNotFoundError      a model name that nobody answers to: no provider, or not its server (404)
│   ├── ConfigurationError      a setting, variable or extra that is missing or wrong
│   ├── UnsupportedError        an option that this endpoint cannot honour
│   ├── HistoryError            a conversation that cannot be read, written or found
│   └── RecordingError          a file of recordings that is none, is newer, or does not hold what was asked
├── BudgetError                 a request that would exceed a budget; it was not sent
├── NotAskedError               a row of many that was not asked, for the run had stopped before
├── RowsFailedError             of many inputs some failed; `.answers` has all that came
├── ModelsFailedError           of several models some failed; `.response` is the whole `Comparison`
├── ProviderError               the server refused, failed or could not be reached
│   ├── ConnectionFailedError   no connection: refused, unknown host, TLS, proxy
│   ├── TimedOutError           no answer within the timeout
│   ├── AuthenticationError     the key was refused (401, 403)
│   ├── EndpointNotFoundError   nothing answers at this URL (404); a ModelNotFoundError of a server is one, too
│   ├── RequestRefusedError     the server will not take the request (other 4xx)
│   │   ├── ContextOverflowError    the prompt is longer than the model's context
│   │   └── ContentFilteredError    the prompt was blocked by a content filter
│   ├── RateLimitedError        too many requests (429)
│   │   └── QuotaExceededError  the account has no quota left; waiting does not help
│   ├── ServerFailedError       the server failed (5xx), or an error arrived in mid-stream
│   └── ProtocolError           what answered does not speak the OpenAI protocol
└── AnswerError                 an answer came but cannot be used; `.response` keeps it
    ├── InvalidValueError       the text does not validate as the output type
    ├── IncompleteAnswerError   cut by a token limit, a filter or a lost connection
    ├── EmptyAnswerError        no text, call or item came, but perhaps reasoning
    ├── RefusedError            the model refused
    └── ToolLimitError          the model still asked for tools after the last round
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import Any

from llm_magic.control_characters import visible


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request went: what an error names, and never a secret.

    `url` has no user info and no query.
    """

    provider: str
    model: str = ""
    url: str = ""

    def __str__(self) -> str:
        name = f"{self.provider}:{self.model}" if self.model else self.provider
        return f"{name} ({self.url})" if self.url else name


class LLMError(Exception):
    """The root of the tree: `except LLMError` catches whatever this package raises on purpose.

    `message` says what happened and where, `hint` what to do next, each in one sentence; they are
    shown on a line each.
    """

    response: Any = None
    """The `Response` with what had arrived when the error was raised, where anything had; else None."""

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = visible(message), visible(hint)  # a server's words may be in it, and a terminal shows it
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows, and keeps for exports: the message; afterwards (`%tb`), the whole traceback."""
        is_kept = sys._getframe(1).f_code.co_name == "_format_exception_for_storage"  # noqa: SLF001 - of IPython 9
        if sys.exception() is not self and not is_kept:  # it is not handled now, so somebody asks for it once more
            return visible("".join(traceback.format_exception(self))).splitlines()
        return [f"{type(self).__name__}: {self.message}", *([self.hint] if self.hint else [])]


class LLMWarning(UserWarning):
    """What a user of `LLM` should know where nothing failed: settings that wait, a damaged file that was kept."""


class InputError(LLMError):
    """Nothing was sent: the cell, an option or the configuration is wrong."""


class OptionError(InputError):
    """An option is unknown, or its value is not one it takes."""


class PromptError(InputError):
    """The prompt cannot be rendered: template syntax, a name in it, an image."""


class OutputTypeError(InputError):
    """A type, schema, regex, grammar or list of choices that cannot be one."""


class ToolError(InputError):
    """A Python function that cannot be offered to a model."""


class ConfigurationError(InputError):
    """A setting, an environment variable or an extra is missing or wrong."""


class UnsupportedError(InputError):
    """An option that the chosen endpoint cannot honour."""


class HistoryError(InputError):
    """A conversation that cannot be read, written or found."""


class RecordingError(InputError):
    """A file of recordings that is none, is of a newer format, or does not hold what was asked."""


class BudgetError(LLMError):
    """A request that would exceed a budget, or whose cost nobody knows; it was not sent."""


class NotAskedError(LLMError):
    """A row of many that was not asked: those before it failed alike, a budget was spent, or no server answered.

    Its message says which.
    """


class RowsFailedError(LLMError):
    """Of many inputs some failed, and all others are answered; a cell has bound its variable.

    `answers` are all `Answers`, with the errors of those rows in them: `error.answers.retry()` asks for these again
    (those of a cell are asked for when it is run again).
    """

    def __init__(self, message: str, hint: str = "", *, answers: Any = None) -> None:
        super().__init__(message, hint)
        self.answers = answers


class ModelsFailedError(LLMError):
    """Of several models that were asked side by side some failed; `response` is the whole `Comparison`.

    A cell has bound its variable, as far as there is anything to bind.
    """


class ProviderError(LLMError):
    """The server refused, failed or could not be reached.

    `origin` is the provider, model and URL asked, `status` the HTTP status (None where there was no
    answer), `request_id` the server's own name for the request, for its support desk, and `body`
    its error document, as far as it could be read.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        origin: Origin | None = None,
        status: int | None = None,
        request_id: str | None = None,
        body: object = None,
    ) -> None:
        super().__init__(message, hint)
        self.origin = origin
        self.status = status
        self.request_id = request_id
        self.body = body


class ConnectionFailedError(ProviderError):
    """No connection: refused, unknown host, TLS, proxy."""


class TimedOutError(ProviderError):
    """No answer within the timeout."""


class AuthenticationError(ProviderError):
    """The key was refused (401, 403)."""


class EndpointNotFoundError(ProviderError):
    """Nothing answers at this URL, or the model is unknown there (404)."""


class ModelNotFoundError(InputError, EndpointNotFoundError):
    """A model name that no configured provider answers to (`origin` is None), or that its server does not know."""


class RequestRefusedError(ProviderError):
    """The server will not take the request (other 4xx).

    `parameter` is the request parameter that it is about, as our options name it (`temperature`), or
    a further field of the body; empty where it is about anything else, or nobody knows.
    """

    parameter: str = ""


class ContextOverflowError(RequestRefusedError):
    """The prompt is longer than the model's context."""


class ContentFilteredError(RequestRefusedError):
    """The prompt was blocked by a content filter."""


class RateLimitedError(ProviderError):
    """Too many requests (429), also after the retries."""


class QuotaExceededError(RateLimitedError):
    """The account has no quota left; waiting does not help."""


class ServerFailedError(ProviderError):
    """The server failed (5xx), or an error arrived in mid-stream."""


class ProtocolError(ProviderError):
    """What answered does not speak the OpenAI protocol."""


class AnswerError(LLMError):
    """An answer came but cannot be used; `response` keeps all of it."""

    def __init__(self, message: str, hint: str = "", *, response: Any = None) -> None:
        super().__init__(message, hint)
        self.response = response


class InvalidValueError(AnswerError):
    """The text does not validate as the output type."""


class IncompleteAnswerError(AnswerError):
    """The answer was cut by a token limit, a filter or a lost connection: it broke off."""


class EmptyAnswerError(AnswerError):
    """The answer has no text, call or item; its reasoning, if any came, is in `response`."""


class RefusedError(AnswerError):
    """The model refused to answer."""


class ToolLimitError(AnswerError):
    """The model still asked for tools after the last round allowed."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted a request; shown as one line, and everything that stops on KeyboardInterrupt stops."""

    def __init__(self, response: Any = None, kept_in: str = "_llm.text") -> None:
        super().__init__()
        self.response = response
        """The `Response` with what had arrived; None where nothing was sent."""
        self._kept_in = kept_in

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: the request was stopped; {self._kept_in} has what had arrived."]


def error_line(error: BaseException) -> str:
    """Return an error as a line: its class, and what happened; not what to do next.

    >>> error_line(LLMError("No server.", "Start one.")), error_line(ValueError())
    ('LLMError: No server.', 'ValueError')

    """
    message = str(getattr(error, "message", error))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
