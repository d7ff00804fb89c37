"""The workers that take part in a run, as the client sees them: looked at, begun, told their shares, let go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from llm_magic.errors import ConfigurationError, ConnectionFailedError
from llm_magic.mapping.dask.cluster_work import ClusterWork, Told, control_queue
from llm_magic.mapping.dask.probe import Probe, probe
from llm_magic.mapping.dask.serialization import Sealed, sealed
from llm_magic.mapping.dask.shares import Concurrency, divided, rates_of
from llm_magic.mapping.dask.variables import forwarded
from llm_magic.mapping.dask.worker import begin

_AT_ONCE = 16
"""Workers on which a run is begun at once."""

_MINUTE = 60
"""Seconds after which a share of the limits a minute is free again whose worker has gone."""


@dataclass
class _Worker:
    """A worker that takes part: the queue that tells it what to do, and the place of its share of the limits."""

    control: Any
    slot: int
    ended: bool = False


class Workers:
    """The workers of one run; one thread uses it, with Dask's public, blocking calls.

    Parameters
    ----------
    client
        The `distributed.Client`.
    run
        The name of the run.
    work
        What is asked.
    say
        Takes lines for the user.

    """

    def __init__(self, client: Any, run: str, work: ClusterWork, say: Callable[[str], None]) -> None:
        self._client, self._run, self._work, self._say = client, run, work, say
        self._settings = work.settings.with_magics(record="off", chat_file="")  # only the client writes files
        self._variables = forwarded(work.forward_env)
        self._there: dict[str, _Worker] = {}
        self._unable: set[str] = set()
        self._told: list[Sealed] = []
        self._free: list[tuple[float, int]] = []  # places of shares, and when each may be given
        self._concurrency = Concurrency(work.concurrency) if isinstance(work.concurrency, int) else None
        self._alone: float | None = None

    def __len__(self) -> int:
        return len(self._there)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of those that take part."""
        return tuple(self._there)

    def begin(self) -> None:
        """Look at all workers, and begin the run on those that can ask.

        Raises
        ------
        ConfigurationError
            None can.

        """
        self._say_unencrypted()
        able = self._probe(None).able
        count = len(able)
        limits = [*rates_of(self._settings).values()]
        if self._concurrency is not None:
            limits.append(self._concurrency.total)
        count = min(count, *limits) if limits else count
        if count < len(able):
            self._say(f"{count} of {len(able)} workers ask: the limits are too low to be divided among more.")
        work = self._work
        self._told = [
            sealed(Told(self._run, part, work.ask, work.request, work.concurrency, self._variables))
            for part in divided(self._settings, count)
        ]
        self._free = [(0.0, slot) for slot in range(count)]
        self._take_on(able)

    def _say_unencrypted(self) -> None:
        address = self._client.scheduler.address
        local = address.startswith(("tls://", "inproc://", "tcp://127.", "tcp://localhost", "tcp://[::1]"))
        if self._variables and not local:
            names = ", ".join(self._variables)
            self._say(f"{names}: sent to {address} unencrypted; a cluster at tls:// encrypts it.")

    def _probe(self, workers: Iterable[str] | None) -> Probe:
        found = probe(self._client, self._settings, self._work.variables, self._variables, workers)
        for line in found.lines:
            self._say(line)
        return found

    def _take_on(self, addresses: Iterable[str]) -> None:
        """Begin the run on workers that can ask, as far as there are shares for them."""
        from distributed import Queue

        slots: dict[str, int] = {}
        for address in addresses:
            slot = self._free_slot()
            if slot is None:
                break
            slots[address] = slot
            self._there[address] = _Worker(Queue(control_queue(self._run, address), client=self._client), slot)
        with ThreadPoolExecutor(_AT_ONCE, "llm_magic begins") as pool:
            for address, said in zip(slots, pool.map(self._begin_on, slots, slots.values()), strict=True):
                if said:
                    self._unable.add(address)
                    self._say(f"{address} cannot ask: {said}")
                    self._let_go([address], 0.0)
        self._divide()

    def _begin_on(self, address: str, slot: int) -> str:
        """Begin the run on one worker; return what went wrong."""
        try:
            self._client.run(begin, self._told[slot], 0, workers=[address])
        except Exception as error:  # noqa: BLE001 - whatever it is, others may ask
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return ""

    def _has_room(self) -> bool:
        """Whether one more worker could have a share of every limit."""
        if self._concurrency is not None and len(self._there) >= self._concurrency.total:
            return False
        is_free = any(since <= time.monotonic() for since, _ in self._free)
        return is_free or not (rates_of(self._settings) or self._has_budget())

    def _free_slot(self) -> int | None:
        """Return the place of a share of the limits, which nobody else has then; None where there is none."""
        if not self._has_room():
            return None
        free = next((item for item in self._free if item[0] <= time.monotonic()), None)
        if free is None:
            return 0
        self._free.remove(free)
        return free[1]

    def _has_budget(self) -> bool:
        magics = self._settings.magics
        return any(spec.get("budget") for spec in self._settings.providers.values()) or (
            "budget" in magics and bool(magics["budget"].value)
        )

    def _divide(self) -> None:
        """Tell those workers their share whose share has changed."""
        if self._concurrency is not None:
            for address, share in self._concurrency.divide(self._there).items():
                self.tell(address, "share", share)

    def tell(self, address: str, *words: Any) -> None:
        """Send words to a worker; one that has gone hears nothing."""
        if (worker := self._there.get(address)) is not None:
            worker.control.put(list(words))

    def held(self, address: str, number: int) -> None:
        """Take note of the requests that a worker has in flight, or may have."""
        if self._concurrency is not None:
            self._concurrency.held(address, number)
            self._divide()

    def ended(self, address: str) -> None:
        """Take note that a worker has ended the run."""
        if (worker := self._there.get(address)) is not None:
            worker.ended = True

    @property
    def all_ended(self) -> bool:
        """Whether the run has ended on all of them."""
        return all(worker.ended for worker in self._there.values())

    def look(self, *, takes_on: bool) -> None:
        """Let go of workers that are gone, and take on those that have joined.

        Raises
        ------
        ConnectionFailedError
            There has been none for too long.

        """
        present = set(self._client.nthreads())
        self._let_go(set(self._there) - present, time.monotonic() + _MINUTE)
        self._unable &= present
        joined = present - set(self._there) - self._unable
        if joined and takes_on and self._has_room():
            found = Probe(())
            try:
                found = self._probe(joined)
            except ConfigurationError as error:
                self._say(str(error).replace("\n", " "))
            self._unable |= joined - set(found.able)
            self._take_on(found.able)
        self._divide()
        if self._there:
            self._alone = None
            return
        self._alone = self._alone or time.monotonic()
        if time.monotonic() - self._alone > self._work.patience:
            raise ConnectionFailedError(
                f"No worker of the Dask cluster is left that can ask, for {self._work.patience:.0f} s.",
                "Start workers, and run it again.",
            )

    def _let_go(self, addresses: Iterable[str], free: float) -> None:
        for address in addresses:
            if (worker := self._there.pop(address, None)) is not None:
                worker.control.close()
                self._free.append((free, worker.slot))

    def forget(self, addresses: Iterable[str]) -> None:
        """Let go of workers that do not know the run any more: they may begin it anew."""
        self._let_go(addresses, 0.0)
        self._divide()

    def end(self, word: str) -> None:
        """Tell all to end the run: when their rows are done ("end"), or at once ("stop")."""
        for address in self._there:
            self.tell(address, word)

    def close(self) -> None:
        """Take their queues away."""
        for worker in self._there.values():
            worker.control.close()
