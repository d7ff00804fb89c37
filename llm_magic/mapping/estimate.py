"""What a run over many rows would take: tokens and a price as a range from its prompts, cost and time from a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_magic.conversation import estimate
from llm_magic.display.footer import counted, duration, money, tokens
from llm_magic.mapping.answers.statistics import response_of, was_sent
from llm_magic.mapping.rows import Outcome
from llm_magic.messages import Part, user
from llm_magic.metadata import Usage

if TYPE_CHECKING:
    from llm_magic.providers.model_info import Price
    from llm_magic.session.spending import Demand

LOOKED_AT = 1_000
"""Prompts that are made for an estimate; of more rows as many, spread evenly over them."""

_SHORT = 10.0  # seconds that are told with a tenth


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run over many rows will take, roughly.

    Attributes
    ----------
    rows
        Rows of the input; None where nobody knows, and all below is of one row.
    looked_at
        Rows whose prompts were counted; of the others it is taken that they are like these.
    distinct
        Different prompts among those.
    answered
        Rows that were answered before, and are not asked.
    asked
        Requests that are sent, the first attempt at each.
    tokens
        Of all prompts that are sent.
    most
        Tokens of all answers at most; None where nothing bounds them.
    assumed
        Tokens of one answer that a budget expects where nothing bounds it.
    price
        Of the model; None where none is known.

    """

    rows: int | None
    looked_at: int
    distinct: int
    answered: int
    asked: int
    tokens: int
    most: int | None
    assumed: int
    price: Price | None = None

    @property
    def cost(self) -> float | None:
        """US dollars of the prompts alone; None without a price."""
        return None if self.price is None else self.price.of(Usage(self.tokens, 0))

    @property
    def cost_at_most(self) -> float | None:
        """US dollars with answers as long as they may be, or as a budget expects them; None without a price."""
        answers = self.asked * self.assumed if self.most is None else self.most
        return None if self.price is None else self.price.of(Usage(self.tokens, answers))

    def lines(self, no_price: str = "") -> tuple[str, ...]:
        """Return what is shown of it; `no_price` is said where a price is missing."""
        if self.answered and not self.asked:
            return (
                f"{counted(self.rows or self.answered, 'row')}, {self.answered:,} answered before: nothing to send.",
            )
        lines = [self._of_rows(), self._of_tokens()]
        if self.price is not None:
            lines.append(self._of_price())
        elif no_price:
            lines.append(no_price)
        return tuple(lines)

    def _of_rows(self) -> str:
        if self.rows is None:
            return "How many rows there are is not known: what follows is of one."
        if not self.rows:
            return "0 rows: there is nothing to ask."
        same, hint = counted(self.distinct, "different prompt"), ""
        if not self._is_whole:
            same = f"{self.distinct:,} of {self.looked_at:,} prompts are different"
        elif self.distinct < self.asked:
            hint = "; --dedup sends equal ones once"
        before = f"{self.answered:,} answered before, " if self.answered else ""
        return f"{counted(self.rows, 'row')}, {before}{same}: {counted(self.asked, 'request')} to send{hint}."

    @property
    def _is_whole(self) -> bool:
        """Whether the prompts of all rows that are asked were looked at."""
        return self.rows is None or self.looked_at >= self.rows - self.answered

    def _of_tokens(self) -> str:
        estimated = "" if self._is_whole else f", as in {self.looked_at:,} rows spread over all"
        out = "as many out as the model writes" if self.most is None else f"at most {self.most:,} out"
        return f"About {self.tokens:,} tokens in{estimated}, {out}."

    def _of_price(self) -> str:
        if self.most is not None:
            return f"Price: about {money(self.cost)} for the prompts, at most {money(self.cost_at_most)} in all."
        return (
            f"Price: about {money(self.cost)} for the prompts, {money(self.cost_at_most)} with answers of "
            f"{self.assumed:,} tokens each (LLMMagics.budget_tokens_per_request); --max-tokens N bounds them."
        )


def estimate_run(
    prompts: Iterable[tuple[Part, ...]],
    first: Demand,
    *,
    rows: int | None,
    answered: int = 0,
    assumed: int = 4096,
    price: Price | None = None,
    once: bool = False,
) -> Estimate:
    """Return what a run takes whose prompts are these, or like these.

    Parameters
    ----------
    prompts
        Those of all rows that are to be asked, or of some spread over them; the first is that of `first`.
    first
        What the request of the first prompt asks for, with all that is sent beside the prompt: the system prompt, the
        schema, tools, the conversation.
    rows
        How many rows there are; None where nobody knows.
    answered
        How many of them were answered before.
    assumed
        Tokens of an answer where nothing bounds it.
    price
        Of the model; None where none is known.
    once
        Whether equal prompts are asked once.

    """
    counts: dict[tuple[Part, ...], int] = {}
    beside = None
    total = looked_at = 0
    for parts in prompts:
        size = estimate([user(*parts)])
        beside = first.estimated - size if beside is None else beside
        looked_at += 1
        if once and parts in counts:
            continue
        counts[parts] = 1
        total += size + beside
    left = 1 if rows is None else max(0, rows - answered)
    part = left / looked_at if looked_at else 0.0  # of the rows that are asked, those looked at
    asked = round((len(counts) if once else looked_at) * part)
    return Estimate(
        rows=rows,
        looked_at=looked_at,
        distinct=len(counts),
        answered=answered,
        asked=asked,
        tokens=round(total * part),
        most=None if first.answer is None else first.answer * asked,
        assumed=assumed,
        price=price,
    )


def of_sample(outcomes: Sequence[Outcome], total: int, seconds: float, concurrency: int) -> str:
    """Return in a line what a sample took, and what all rows would.

    Parameters
    ----------
    outcomes
        Those of the sample.
    total
        How many rows there are, those of the sample among them.
    seconds
        How long the sample took; it is not told where nothing was sent, so that a replay says the same again.
    concurrency
        Rows in flight when all are asked.

    >>> from llm_magic.response import Response
    >>> some = [Outcome(at, Response(seconds=2.0, usage=Usage(50, 5), cost=0.0002)) for at in range(20)]
    >>> of_sample(some, 2_000, 4.1, 16)
    'A sample of 20 rows: $0.004, 4.1 s; all 2,000: about $0.40, 4 min 7 s at 16 at once.'

    """
    responses = [response for outcome in outcomes if (response := response_of(outcome)) is not None]
    failed = sum(outcome.error is not None for outcome in outcomes)
    times = [
        outcome.response.seconds
        for outcome in outcomes
        if outcome.response is not None and outcome.error is None and not outcome.known
    ]
    taken, all_rows = _price(responses, len(outcomes), total)
    said = ", ".join(filter(None, [taken, _time(seconds) if any(map(was_sent, outcomes)) else ""]))
    failures = f" ({failed:,} failed)" if failed else ""
    line = f"A sample of {counted(len(outcomes), 'row')}{failures}{': ' if said else ''}{said}"
    if total <= len(outcomes):
        return f"{line}; these are all rows."
    if times:
        rest = total - len(outcomes) + failed
        needed = rest * (sum(times) / len(times)) / max(1, min(concurrency, rest))
        least = "at least " if len(times) < concurrency else ""  # a server that was not full answers faster
        all_rows += [f"{least}{_time(needed)} at {concurrency:,} at once"]
    if not all_rows:
        return f"{line}."
    about = "" if all_rows[0].startswith("at least") else "about "
    return f"{line}; all {total:,}: {about}{', '.join(all_rows)}."


def _price(responses: Sequence[object], count: int, total: int) -> tuple[str, list[str]]:
    """Return the cost, else the tokens, of a sample in words, and of all rows; empty where neither is known."""
    costs = [cost for each in responses if (cost := getattr(each, "cost", None)) is not None]
    if costs:
        return money(sum(costs)), [money(sum(costs) / len(costs) * total)]
    usages = [usage for each in responses if (usage := getattr(each, "usage", None)) is not None]
    if not usages or not count:
        return "", []
    given, taken = sum(each.input_tokens for each in usages), sum(each.output_tokens for each in usages)
    factor = total / len(usages)
    return tokens(given, taken), [tokens(round(given * factor), round(taken * factor))]


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _SHORT else duration(seconds)
