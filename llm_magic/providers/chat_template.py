"""A model's chat template, applied on this side by `transformers` as the server would apply it."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from llm_magic.errors import ConfigurationError, PromptError
from llm_magic.messages import Message


class Template:
    """The tokenizer of a model with its chat template, loaded at first use and then kept.

    Parameters
    ----------
    name
        Hugging Face name, or the path of a folder.
    revision
        Branch, tag or commit; empty for the default.

    """

    def __init__(self, name: str, revision: str = "") -> None:
        self.names = (name, revision)
        self._lock = threading.Lock()
        self._loaded: Any = None

    async def load(self, report: Callable[[str], None]) -> None:
        """Load the tokenizer on a thread.

        Raises
        ------
        ConfigurationError
            The extra is not installed, or there is no such tokenizer, or it has no chat template.

        """
        if self._loaded is None:
            report(f"loading the tokenizer {self.names[0]}…")
            await asyncio.to_thread(self._tokenizer)

    def _tokenizer(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(*self.names)
            return self._loaded

    async def apply(self, messages: tuple[Message, ...], arguments: Mapping[str, Any]) -> tuple[str, int]:
        """Return the prompt for a conversation, ending where the assistant begins, and its number of tokens.

        Raises
        ------
        PromptError
            The template refuses the conversation.

        """
        return await asyncio.to_thread(self._apply, messages, arguments)

    def _apply(self, messages: tuple[Message, ...], arguments: Mapping[str, Any]) -> tuple[str, int]:
        tokenizer = self._tokenizer()
        turns = [{"role": message.role, "content": message.text} for message in messages]
        try:
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments)
        except Exception as error:
            raise PromptError(
                f"The chat template of {self.names[0]} refuses this conversation: {error}",
                "Leave the system prompt or the history out (--once), or unset the tokenizer.",
            ) from error
        return str(prompt), self.count(str(prompt))

    def count(self, prompt: str) -> int:
        """Return the number of tokens of a prompt that a template has written."""
        return len(self._tokenizer().encode(prompt, add_special_tokens=False))


def _load(name: str, revision: str) -> Any:
    try:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it misses PyTorch, which is not needed here
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise ConfigurationError(
            "VLLMProvider.tokenizer needs the package transformers.", 'pip install "llm_magic[tokenizer]"'
        ) from None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **({"revision": revision} if revision else {}))
    except Exception as error:
        at = f" at revision {revision}" if revision else ""
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ConfigurationError(
            f"The tokenizer {name}{at} cannot be loaded: {reason}",
            "Give a Hugging Face name, or the path of a folder with tokenizer.json.",
        ) from error
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError(
            f"The tokenizer {name} has no chat template.", "Unset the tokenizer: the server applies its own."
        )
    return tokenizer
