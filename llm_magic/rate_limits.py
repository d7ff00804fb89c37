"""Rate limits of endpoints: requests and tokens a minute held ahead of time, and what servers say of theirs obeyed.

All requests to one endpoint share them, those of single cells and of many rows: each waits for its turn before it is
sent, and so does each further attempt.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_magic.wire.attempts import MAX_RETRY_AFTER
from llm_magic.wire.headers import remaining

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider

MINUTE = 60.0
SLACK = 1.5
"""Seconds over a minute for which a request counts: how much longer one may be on its way than another."""

AT_ONCE = 5
"""Requests that may always be sent at once, where as many are left of the minute; above 50 a minute, a tenth of it."""

ANSWER = 256
"""Tokens that an answer without a bound is first expected to take; then, what answers took lately."""

TOLD = 0.5
"""Seconds; shorter waits are not told."""

_NOTHING = 1e-6  # seconds that are no wait: what rounding leaves
_MOST = 1_000_000  # tokens that an answer may take
_WEIGHT = 0.1  # of the last answer in what the next one is expected to take
_BUSY = (429, 503)  # statuses whose Retry-After holds for all requests


@dataclass(slots=True)
class Spent:
    """What one request took of a limit, at a moment of the clock; `counts` as long as its minute lasts."""

    moment: float
    amount: int
    counts: bool = True


class MinuteLimit:
    """At most `limit` in any minute, evenly spread but for a tenth of it that may be taken at once.

    Whatever the server's minutes are, fixed or sliding ones or a bucket that fills, no more than `limit` falls into one
    of them. Times are seconds of one clock.

    >>> limit = MinuteLimit(60, at_once=1)
    >>> first = limit.take(0.0, 1)
    >>> limit.wait(0.25, 1)
    0.75

    """

    def __init__(self, limit: int, at_once: int = 0) -> None:
        self.limit = limit
        self._at_once = at_once
        self._log: deque[Spent] = deque()
        self._sum = 0
        self._spread = float("-inf")  # the moment when all that was taken is due, evenly spread

    def wait(self, now: float, amount: int) -> float:
        """Return the seconds until `amount` may be taken, 0 where it may now.

        More than the limit has a minute of its own.
        """
        log, amount = self._log, min(amount, self.limit)
        while log and log[0].moment + MINUTE + SLACK <= now:
            gone = log.popleft()
            gone.counts = False
            self._sum -= gone.amount
        due = self._spread - max(0, max(self._at_once, self.limit // 10) - amount) * MINUTE / self.limit
        left, over = due - now, self._sum + amount - self.limit
        for spent in log:
            if over <= 0:
                break
            over -= spent.amount
            if spent.amount:
                left = max(left, spent.moment + MINUTE + SLACK - now)
        return left if left > _NOTHING else 0.0

    def take(self, now: float, amount: int) -> Spent:
        """Take `amount` now; more than the limit is all of it."""
        amount = min(amount, self.limit)
        spent = Spent(now, amount)
        self._log.append(spent)
        self._sum += amount
        self._spread = max(self._spread, now) + amount * MINUTE / self.limit
        return spent

    def correct(self, spent: Spent, amount: int) -> None:
        """Count what was taken as `amount`: nothing was sent, or the server told how much it was."""
        amount = min(amount, self.limit)
        if spent.counts:
            self._sum += amount - spent.amount
            self._spread += (amount - spent.amount) * MINUTE / self.limit
            spent.amount = amount

    def redate(self, spent: Spent, moment: float) -> None:
        """Count what was taken from a later moment on: when it was sent."""
        if spent.counts and moment > spent.moment:
            spent.moment = moment


@dataclass(slots=True, eq=False)
class _Waiter:
    """One that waits for its turn: its number in the order of asking, and the tokens it is expected to take."""

    number: int
    tokens: int
    woken: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


@dataclass(slots=True)
class _Ceiling:
    """What the server leaves until a moment: so many in all may have been sent of a kind."""

    told_at: int
    most: int
    until: float


@dataclass(slots=True)
class _Queue:
    """The requests for one model: what was sent, who waits, and what the server said of it."""

    waiters: deque[_Waiter] = field(default_factory=deque)
    sent: dict[str, int] = field(default_factory=lambda: {"requests": 0, "tokens": 0})
    paused_until: float = 0.0
    paused_by: int = 0
    told: tuple[float, str] = (0.0, "")  # until when the next one waits, and why; read by other threads
    ceilings: dict[str, _Ceiling] = field(default_factory=dict)

    def wake(self) -> None:
        if self.waiters:
            self.waiters[0].wake()


class Turn:
    """The turn of one request, which is sent now: tell what comes of it."""

    __slots__ = ("_limits", "_queue", "_sent", "_spent", "tokens")

    def __init__(self, limits: RateLimits, queue: _Queue, tokens: int, spent: list[tuple[MinuteLimit, Spent]]) -> None:
        self._limits, self._queue, self._spent = limits, queue, spent
        self._sent: tuple[int, int] = (queue.sent["requests"], queue.sent["tokens"])
        self.tokens = tokens

    def heard(self, status: int | None, headers: Mapping[str, str], retry_after: float | None = None) -> None:
        """Heed what the server said, for all requests: `retry_after` in seconds, and headers with names in lower case.

        Waits of more than `MAX_RETRY_AFTER` are not: the next request is sent, and its error says what is the matter.
        """
        self._limits.heed(self._queue, self._sent, status, headers, retry_after)

    def sent(self, seconds: float) -> None:
        """Tell that it really was sent so many seconds ago: connecting may have taken a while, or a wait before it."""
        self._limits.redate(self._spent, seconds)

    def settle(self, tokens: int) -> None:
        """Count the tokens that the server told in the place of those that were expected; it may tell them again."""
        self._limits.settle(self._spent, tokens)

    def give_back(self) -> None:
        """Count nothing: the request was not sent after all."""
        for limit, spent in self._spent:
            limit.correct(spent, 0)
        self._limits.wake()


class RateLimits:
    """The rate limits of one endpoint; used on one event loop. `clock` gives that loop's seconds.

    >>> async def send(limits):
    ...     turn = await limits.turn(tokens=100)
    ...     turn.heard(200, {"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s"})
    ...     turn.settle(87)
    >>> asyncio.run(send(RateLimits("openai", requests_per_minute=60)))

    Parameters
    ----------
    name
        Of the provider, in what is said.
    requests_per_minute, tokens_per_minute
        0 where no limit is known.

    """

    def __init__(
        self,
        name: str,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._limits: dict[str, MinuteLimit] = {}
        self._given = 0, 0
        self._queues: dict[str, _Queue] = {}
        self._answer = float(ANSWER)
        self._numbers = count()
        self._process = os.getpid()
        self.set(requests_per_minute, tokens_per_minute)

    def set(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        """Have other limits from now on; who waits goes by these."""
        if self._given == (requests_per_minute, tokens_per_minute):
            return
        self._given = requests_per_minute, tokens_per_minute
        kinds: tuple[tuple[str, int, int], ...] = (
            ("requests", requests_per_minute, AT_ONCE),
            ("tokens", tokens_per_minute, 0),
        )
        for kind, limit, at_once in kinds:
            known = self._limits.get(kind)
            if (known.limit if known is not None else 0) == limit:
                continue
            if not limit:
                del self._limits[kind]
            elif known is None:
                self._limits[kind] = MinuteLimit(limit, at_once)
            else:
                known.limit = limit
            self.wake()

    def expected(self, prompt: int, answer: int | None) -> int:
        """Return the tokens that a request is expected to take: of its prompt, and of its answer, at most `answer`."""
        return prompt + (round(self._answer) if answer is None else answer)

    def learn(self, answer: int) -> None:
        """Take note of the tokens of an answer that nothing bounded."""
        self._answer += _WEIGHT * (min(max(answer, 0), _MOST) - self._answer)

    async def turn(self, tokens: int = 0, model: str = "") -> Turn:
        """Wait until a request to `model` may be sent, in the order of asking, and count it as sent."""
        queue = self._queue(model)
        if not (queue.waiters or self._limits or queue.paused_until or queue.ceilings):
            return self._take(tokens, queue)
        waiter = _Waiter(next(self._numbers), tokens)
        if not queue.waiters and self._is_first(waiter, queue) and not self._wait(queue, tokens)[0]:
            return self._take(tokens, queue)
        loop = asyncio.get_running_loop()
        queue.waiters.append(waiter)
        try:
            while True:
                wait: float | None = None
                if queue.waiters[0] is waiter and self._is_first(waiter, queue):
                    wait, why = self._wait(queue, tokens)
                    if not wait:
                        return self._take(tokens, queue)
                    queue.told = self._clock() + wait, why
                waiter.woken = loop.create_future()
                await asyncio.wait((waiter.woken,), timeout=wait)
        finally:
            queue.waiters.remove(waiter)
            queue.told = (0.0, "")
            self.wake()

    def take(self, tokens: int = 0, model: str = "") -> Turn:
        """Count a request as sent, without waiting."""
        return self._take(tokens, self._queue(model))

    def _take(self, tokens: int, queue: _Queue) -> Turn:
        now = self._clock()
        queue.sent["requests"] += 1
        queue.sent["tokens"] += tokens
        spent = [(limit, limit.take(now, 1 if kind == "requests" else tokens)) for kind, limit in self._limits.items()]
        return Turn(self, queue, tokens, spent)

    def _queue(self, model: str) -> _Queue:
        if self._process != os.getpid():  # who waits, does so in the process that was forked
            self._process = os.getpid()
            for each in self._queues.values():
                each.waiters.clear()
                each.told = (0.0, "")
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = _Queue()
        return queue

    def _is_first(self, waiter: _Waiter, queue: _Queue) -> bool:
        """Return whether nobody asked earlier, for another model, who waits only for the limits a minute, too."""
        if not self._limits or len(self._queues) == 1:
            return True
        heads = ((other, other.waiters[0]) for other in self._queues.values() if other is not queue and other.waiters)
        return not any(head.number < waiter.number and not self._held(other, head.tokens)[0] for other, head in heads)

    def _held(self, queue: _Queue, tokens: int, ahead: tuple[int, int] = (0, 0)) -> tuple[float, str]:
        """Return the seconds that the server asked a request to wait, and why; `ahead` as of `_wait`."""
        if not (queue.paused_until or queue.ceilings):
            return 0.0, ""
        now, longest, why = self._clock(), 0.0, ""
        if queue.paused_until > now:
            longest, why = queue.paused_until - now, f"{self.name} asked for that ({queue.paused_by})"
        elif queue.paused_until:
            queue.paused_until = 0.0
        for kind, amount in (("requests", 1 + ahead[0]), ("tokens", tokens + ahead[1])):
            ceiling = queue.ceilings.get(kind)
            if ceiling is None:
                continue
            if ceiling.until <= now:
                del queue.ceilings[kind]
            elif queue.sent[kind] + amount > ceiling.most and ceiling.until - now > longest:
                longest, why = ceiling.until - now, f"{self.name} takes no more {kind} until then"
        return longest, why

    def _wait(self, queue: _Queue, tokens: int, ahead: tuple[int, int] = (0, 0)) -> tuple[float, str]:
        """Return the seconds until a request may be sent, and why; `ahead` are requests and tokens before it."""
        longest, why = self._held(queue, tokens, ahead)
        if self._limits:
            now = self._clock()
            for kind, amount, before in (("requests", 1, ahead[0]), ("tokens", tokens, ahead[1])):
                limit = self._limits.get(kind)
                wait = limit.wait(now, amount) + before * MINUTE / limit.limit if limit is not None else 0.0
                if limit is not None and wait > longest:
                    what = kind if limit.limit != 1 else kind.removesuffix("s")
                    longest, why = wait, f"{self.name} allows {limit.limit:,} {what} a minute"
        return (longest, why) if longest > _NOTHING else (0.0, "")

    def heed(
        self,
        queue: _Queue,
        sent: tuple[int, int],
        status: int | None,
        headers: Mapping[str, str],
        retry_after: float | None,
    ) -> None:
        """Heed what a server said in answer to the request that was number `sent`, of requests and tokens."""
        now = self._clock()
        asked = retry_after if status in _BUSY and isinstance(retry_after, int | float) else 0.0
        if 0 < asked <= MAX_RETRY_AFTER and now + asked > queue.paused_until:
            queue.paused_until, queue.paused_by = now + asked, status or 0
        for kind, at in zip(("requests", "tokens"), sent, strict=True):
            told = remaining(headers, kind) if headers else None
            known = queue.ceilings.get(kind)
            if told is None or not 0 < told[1] <= MAX_RETRY_AFTER or (known is not None and known.told_at > at):
                continue
            queue.ceilings[kind] = _Ceiling(at, at + told[0], now + told[1])
            queue.wake()

    def redate(self, spent: list[tuple[MinuteLimit, Spent]], seconds: float) -> None:
        """Have a request counted from when it was sent, so many seconds ago."""
        if spent and isinstance(seconds, int | float) and seconds >= 0:
            moment = self._clock() - seconds
            for limit, each in spent:
                limit.redate(each, moment)

    def settle(self, spent: list[tuple[MinuteLimit, Spent]], tokens: int) -> None:
        """Correct the tokens of a request."""
        for limit, each in spent:
            if limit is self._limits.get("tokens"):
                limit.correct(each, max(0, tokens))
                self.wake()

    def wake(self) -> None:
        """Have those look again who are next."""
        for queue in self._queues.values():
            queue.wake()

    def line(self, tokens: int = 0, model: str = "", more_than: float = TOLD) -> str:
        """Return what a request that comes now waits for, as one line.

        Nothing where that is no longer than `more_than` seconds.
        """
        queue = self._queue(model)
        waiting = queue.waiters
        seconds, why = self._wait(queue, tokens, (len(waiting), sum(each.tokens for each in waiting)))
        return f"waits {max(1, round(seconds)):,} s: {why}" if seconds > more_than else ""

    @property
    def waiting(self) -> str:
        """What those wait for who are next, as one line; nothing where nobody waits. For any thread."""
        now = self._clock()
        told = [queue.told for queue in list(self._queues.values())] if self._process == os.getpid() else []
        seconds, why = min(((until - now, why) for until, why in told if why), default=(0.0, ""))
        return f"waits {max(1, round(seconds)):,} s: {why}" if seconds > TOLD else ""


class EndpointLimits:
    """The rate limits of all endpoints of a session, each by the provider's name and host."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], RateLimits] = {}
        self._hosts: dict[tuple[str, str], str] = {}

    def of(self, provider: Provider) -> RateLimits:
        """Return the limits of a provider's endpoint, as it is configured now."""
        url = (provider.name, str(provider.base_url))
        host = self._hosts.get(url)
        if host is None:
            host = self._hosts[url] = _host(provider.origin().url)
        limits = self._known.get((provider.name, host))
        if limits is None:
            limits = self._known[provider.name, host] = RateLimits(provider.name, clock=self._clock)
        limits.set(provider.requests_per_minute, provider.tokens_per_minute)
        return limits


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url
