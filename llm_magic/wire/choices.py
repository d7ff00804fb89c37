"""Documents that hold answers as `choices`: what the Chat Completions and the legacy Completions API share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from llm_magic.events import Event, Identified
from llm_magic.request import Request
from llm_magic.wire.documents import ErrorDocument, error_in, read_filter, read_usage
from llm_magic.wire.thinking import Thinking


class ChoicesReader(ABC):
    """Documents of one answer in, events out; a stream's chunk and a whole completion are read alike."""

    def __init__(self, request: Request) -> None:
        self._expected = request.parameters.n or 1
        self._model = ""
        self._thinking: dict[int, Thinking] = {}
        self._finished: set[int] = set()
        self.answered = False

    @property
    def complete(self) -> bool:
        """Whether every answer asked for has ended."""
        return len(self._finished) >= self._expected

    def read(self, document: dict[str, Any], name: str, out: list[Event]) -> None:
        """Add the events of `document` to `out`; raises ErrorDocument, after adding, for an error."""
        choices = document.get("choices")
        if document.get("error") or name == "error" or (choices is None and error_in(document)):
            raise ErrorDocument(document)
        model = document.get("model")
        if model and model != self._model and isinstance(model, str):
            self._model = model
            out.append(Identified(model))
        if choices:
            for choice in choices:
                if isinstance(choice, dict):
                    index = choice.get("index") or 0
                    self.read_choice(choice, index if type(index) is int else 0, out)
        usage = document.get("usage")
        if usage:
            read_usage(usage, out)
        prompt_filter = document.get("prompt_filter_results")  # Azure; `choices` is empty beside it
        if prompt_filter:
            for result in prompt_filter if isinstance(prompt_filter, list) else ():
                if isinstance(result, dict):
                    read_filter(result.get("content_filter_results"), out)
        self.answered = self.answered or choices is not None or bool(usage)

    @abstractmethod
    def read_choice(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of one answer's part."""
