"""`%llm_usage`: what was used so far, as the ledger has it; what is not known is said, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

from llm_magic.commands.line import Command
from llm_magic.display import markup, table
from llm_magic.options import Option

if TYPE_CHECKING:
    from llm_magic.ledger import UsageRow

_CENT = 0.01
_OPTIONS = (Option("reset", ("--reset",), "", "count from zero from now on"),)


def run(command: Command) -> None:
    """Show the usage, and forget it where that is asked for."""
    line = command.read(_OPTIONS, most=0, usage="[--reset]")
    ledger = command.session.ledger
    rows = ledger.rows()
    if not rows:
        text = "Nothing was used yet."
        command.show({"text/plain": text, "text/html": markup.prewrapped(text)})
        return
    shown = _table(rows)
    shown["text/html"] += _chart(rows)
    command.show(markup.joined([shown, *map(markup.quiet, _remarks(rows))]))
    if line.values.get("reset"):
        ledger.reset()
        command.show(markup.quiet("Forgotten: counting begins at zero."))


def _table(rows: Sequence[UsageRow]) -> dict[str, str]:
    records = [_record(row.provider, row.model, row) for row in rows]
    if len(rows) > 1:
        records.append(_record("all", "", total(rows)))
    kept = [name for name in records[0] if name in _ALWAYS or any(record[name] for record in records)]
    return table.shown([{name: record[name] for name in kept} for record in records], widest=_WIDEST)


_ALWAYS = {"provider", "model", "requests", "input", "output", "seconds"}
_WIDEST = 80


def total(rows: Sequence[UsageRow]) -> UsageRow:
    """Return the sum of rows; the cost of those that have one."""
    from llm_magic.ledger import UsageRow

    sums: dict[str, Any] = {}
    for field in fields(UsageRow):
        values = [getattr(row, field.name) for row in rows]
        if field.name not in {"provider", "model"}:
            known = [value for value in values if value is not None]
            sums[field.name] = sum(known) if known else None
    return UsageRow("all", "", **sums)


def _record(provider: str, model: str, row: UsageRow) -> dict[str, Any]:
    return {
        "provider": provider,
        "model": model,
        "answers": row.answers,
        "requests": row.requests,
        "failed": row.failed,
        "input": row.input_tokens,
        "cached": row.cached_tokens,
        "output": row.output_tokens,
        "reasoning": row.reasoning_tokens,
        "seconds": round(row.seconds, 1),
        "cost": money(row.cost),
    }


def money(dollars: float | None) -> str:
    """Return an amount as it is read: two figures of less than a cent.

    >>> money(0.00123), money(1.5), money(None)
    ('$0.0012', '$1.50', '')

    """
    if dollars is None:
        return ""
    return f"${dollars:.2f}" if dollars >= _CENT or dollars == 0 else f"${dollars:.2g}"


def _chart(rows: Sequence[UsageRow]) -> str:
    """Return the tokens of each model as bars, in HTML, where there is something to see."""
    counted = [row for row in rows if row.input_tokens + row.output_tokens]
    if not counted:
        return ""
    items = [
        Bar(
            f"{row.provider}:{row.model}",
            (float(row.input_tokens), float(row.output_tokens)),
            f"{row.input_tokens:,} → {row.output_tokens:,}",
        )
        for row in counted
    ]
    return bars("Tokens", ("input", "output"), items)


def _remarks(rows: Sequence[UsageRow]) -> list[str]:
    sums, remarks = total(rows), []
    if sums.uncounted:
        remarks.append(f"Of {_answers(sums.uncounted)} the server told no tokens: they are not in the sums.")
    if sums.cost is not None and sums.unpriced:
        remarks.append(f"{_answers(sums.unpriced).capitalize()} without a price: not in the cost.")
    if sums.cost is None:
        remarks.append("No cost: no prices are configured (the trait prices of a provider), and no server told one.")
    return remarks


def _answers(count: int) -> str:
    return f"{count:,} answer{'s' * (count != 1)}"


_QUIET = "color: var(--jp-ui-font-color2, gray)"
_COLOURS = ("var(--jp-brand-color1, #1976d2)", "var(--jp-accent-color1, #388e3c)")
_TRACK = "display: flex; width: 16em; height: 0.8em; background: var(--jp-layout-color2, rgba(128, 128, 128, 0.2))"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, the figures that it is put together from, and what is written behind it."""

    name: str
    parts: tuple[float, ...]
    label: str


def bars(title: str, series: Sequence[str], items: Sequence[Bar]) -> str:
    """Return a chart as HTML; the longest bar is as wide as there is room.

    Parameters
    ----------
    title
        What is shown.
    series
        What each part of a bar stands for, two at most.
    items
        The bars, top down.

    """
    most = max((sum(item.parts) for item in items), default=0.0) or 1.0
    legend = "  ".join(
        f'<span style="color: {colour}">■</span> {escape(name)}' for name, colour in zip(series, _COLOURS, strict=False)
    )
    rows = "".join(_row(item, most) for item in items)
    return (
        f'<figure style="margin: 0.6em 0" aria-label="{escape(title)}">'
        f'<figcaption style="{_QUIET}">{escape(title)}: {legend}</figcaption>'
        f"<table><tbody>{rows}</tbody></table></figure>"
    )


def _row(item: Bar, most: float) -> str:
    parts = "".join(
        f'<div style="width: {100 * part / most:.2f}%; background: {colour}"></div>'
        for part, colour in zip(item.parts, _COLOURS, strict=False)
    )
    return (
        f'<tr><th scope="row" style="text-align: left">{escape(item.name)}</th>'
        f'<td><div style="{_TRACK}" role="presentation">{parts}</div></td>'
        f'<td style="text-align: left">{escape(item.label)}</td></tr>'
    )
