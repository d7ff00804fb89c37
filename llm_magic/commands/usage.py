"""`%llm_usage`: the ledger as a table and bars; what is not known is said, nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_magic.commands.line import Command
from llm_magic.display import markup, table
from llm_magic.display.footer import counted, money
from llm_magic.display.markup import Bundle
from llm_magic.ledger import UsageRow
from llm_magic.options import Option

_ALWAYS = {"provider", "model", "requests", "input", "output", "seconds"}
"""Columns that are shown even where they say nothing."""
_WIDEST = 80
_OPTIONS = (Option("reset", ("--reset",), "", "count from zero from now on"),)


def run(command: Command) -> None:
    """Show the usage, and forget it where that is asked for."""
    line = command.read(_OPTIONS, most=0, usage="[--reset]")
    spending = command.session.spending
    rows, total = spending.ledger.rows(), spending.ledger.total()
    if not rows:
        command.show("Nothing was used yet.")
        return
    shown = _table(rows, total)
    shown["text/html"] += _chart(rows)
    command.show(markup.joined([shown, *map(markup.quiet, _remarks(total))]))
    if line.values.get("reset"):
        spending.reset()
        command.show(markup.quiet("Forgotten: counting begins at zero."))


def _table(rows: Sequence[UsageRow], total: UsageRow) -> Bundle:
    records = [_record(row) for row in (*rows, *([total] if len(rows) > 1 else []))]
    kept = [name for name in records[0] if name in _ALWAYS or any(record[name] for record in records)]
    return table.shown([{name: record[name] for name in kept} for record in records], widest=_WIDEST)


def _record(row: UsageRow) -> dict[str, Any]:
    return {
        "provider": row.provider,
        "model": row.model,
        "answers": row.answers,
        "recorded": row.recorded,
        "requests": row.requests,
        "failed": row.failed,
        "input": row.input_tokens,
        "cached": row.cached_tokens,
        "output": row.output_tokens,
        "reasoning": row.reasoning_tokens,
        "seconds": round(row.seconds, 1),
        "cost": money(row.cost),
    }


def _remarks(sums: UsageRow) -> list[str]:
    remarks = []
    if sums.uncounted:
        remarks.append(f"Of {counted(sums.uncounted, 'request')} the server told no tokens: they are not in the sums.")
    if sums.cost is not None and sums.unpriced:
        remarks.append(f"{counted(sums.unpriced, 'request')} without a price: not in the cost.")
    if sums.cost is None:
        remarks.append("No cost: no prices are configured (the trait prices of a provider), and no server told one.")
    return remarks


_COLOURS = {"input": "var(--jp-brand-color1, #1976d2)", "output": "var(--jp-accent-color1, #388e3c)"}
_TRACK = "display: flex; width: 16em; height: 0.8em; background: var(--jp-layout-color2, rgba(128, 128, 128, 0.2))"


def _chart(rows: Sequence[UsageRow]) -> str:
    """Return the tokens of each model as bars, in HTML; empty where none were counted."""
    used = [row for row in rows if row.input_tokens + row.output_tokens]
    if not used:
        return ""
    most = max(row.input_tokens + row.output_tokens for row in used)
    legend = "  ".join(f'<span style="color: {colour}">■</span> {name}' for name, colour in _COLOURS.items())
    return (
        '<figure style="margin: 0.6em 0" aria-label="Tokens">'
        f'<figcaption style="color: var(--jp-ui-font-color2, gray)">Tokens: {legend}</figcaption>'
        f"<table><tbody>{''.join(_bar(row, most) for row in used)}</tbody></table></figure>"
    )


def _bar(row: UsageRow, most: int) -> str:
    parts = "".join(
        f'<div style="width: {100 * count / most:.2f}%; background: {colour}"></div>'
        for count, colour in zip((row.input_tokens, row.output_tokens), _COLOURS.values(), strict=True)
    )
    return (
        f'<tr><th scope="row" style="text-align: left">{markup.escaped(f"{row.provider}:{row.model}")}</th>'
        f'<td><div style="{_TRACK}" role="presentation">{parts}</div></td>'
        f'<td style="text-align: left">{row.input_tokens:,} → {row.output_tokens:,}</td></tr>'
    )
