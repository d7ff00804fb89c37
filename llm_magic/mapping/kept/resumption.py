"""Resuming a run over rows: which rows an earlier run has answers to, told apart where prompts are equal."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Iterable, Mapping
from typing import Any

from llm_magic.mapping.kept.store import Store
from llm_magic.recordings.recording import Recording, key_of


class Resumption:
    """The answers that an earlier run has left, handed out once each; it takes those of this run.

    A run of a row looks here as it does into recordings, so that its rounds, tools and values that were asked for again
    are found one by one.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._handed_out: dict[str, int] = {}  # how many equal requests had one, where there are any
        self._given_back: dict[str, list[int]] = {}

    def take(self, key: str) -> int | None:
        """Return which of the answers to equal requests is the next; None where there is none."""
        with self._lock:
            if given_back := self._given_back.get(key):
                return given_back.pop(0)
            number = self._handed_out.get(key, 0)
            if not self.store.has(key, number):
                return None
            self._handed_out[key] = number + 1
            return number

    def give_back(self, key: str, number: int) -> None:
        """Hand an answer out once more: who took it could not use it."""
        with self._lock:
            insort(self._given_back.setdefault(key, []), number)

    def known(self, asked: Mapping[str, Any], *_: object) -> Recording | None:
        """Return the answer to a request of a run."""
        key = key_of(asked)
        number = self.take(key)
        answer = None if number is None else self.store.known(key, number)
        return None if answer is None else Recording(asked, answer, known_key=key)

    def has(self, asked: Mapping[str, Any], *_: object) -> bool:
        """Tell whether a request of a run is answered."""
        key = key_of(asked)
        return bool(self._given_back.get(key)) or self.store.has(key, self._handed_out.get(key, 0))

    def latest(self, asked: Mapping[str, Any]) -> Recording | None:
        """Return the first answer to equal requests: the model that a provider alone led to."""
        key = key_of(asked)
        answer = self.store.known(key)
        return None if answer is None else Recording(asked, answer, known_key=key)

    def add(self, asked: Mapping[str, Any], answer: Mapping[str, Any], *_: object, secrets: Iterable[str] = ()) -> str:
        """Keep an answer; what cannot be kept is said by the store, once."""
        self.store.keep(key_of(asked), answer, tuple(secrets))
        return ""

    def nearest(self, asked: Mapping[str, Any], secrets: Iterable[str] = ()) -> str:
        """Return nothing: whatever is not there is asked."""
        del asked, secrets
        return ""
