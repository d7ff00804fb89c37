"""What `llm_magic` exports: a list that changes on purpose only, typed, documented, and imported when asked for."""

from __future__ import annotations

import subprocess
import sys

import llm_magic
from llm_magic import errors

ERRORS = {
    "AnswerError",
    "AuthenticationError",
    "BudgetError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentFilteredError",
    "ContextOverflowError",
    "EmptyAnswerError",
    "EndpointNotFoundError",
    "HistoryError",
    "IncompleteAnswerError",
    "InputError",
    "Interrupted",
    "InvalidValueError",
    "LLMError",
    "ModelNotFoundError",
    "ModelsFailedError",
    "NotAskedError",
    "OptionError",
    "OutputTypeError",
    "PromptError",
    "ProtocolError",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitedError",
    "RecordingError",
    "RefusedError",
    "RequestRefusedError",
    "RowsFailedError",
    "ServerFailedError",
    "TimedOutError",
    "ToolError",
    "ToolLimitError",
    "UnsupportedError",
}


def test_the_list() -> None:
    ours = {"LLM", "Answers", "Capabilities", "DataFrame", "ModelCard", "Provider", "Request", "Response", "Vectors"}
    of_several = {"ComparedAnswers", "Comparison"}
    assert set(llm_magic.__all__) == ours | of_several | ERRORS | {"events", "registry", "usage", "__version__"}
    assert len(llm_magic.__all__) == len(set(llm_magic.__all__))


def test_the_whole_tree_of_errors_is_among_them() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, (errors.LLMError, KeyboardInterrupt))
    }
    assert found == ERRORS


def test_each_is_there_and_says_what_it_is() -> None:
    for name in llm_magic.__all__:
        value = getattr(llm_magic, name)
        assert name in dir(llm_magic)
        assert name == "__version__" or value.__doc__.strip(), name


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = "import sys, llm_magic; print([name for name in sys.modules if name.startswith('llm_magic.')])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    assert ran.stdout.strip() == "[]"


def test_the_functions_keep_their_names_when_modules_are_loaded() -> None:
    import llm_magic.api
    import llm_magic.ledger  # its import must not hide `usage`

    assert callable(llm_magic.registry)
    assert callable(llm_magic.usage)
    assert "openai" in llm_magic.registry().names()
    assert llm_magic.usage() == ()
