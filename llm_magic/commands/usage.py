"""`%llm_usage`: the ledger and the budgets as tables and bars; what is not known is said, nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_magic.budget import Budget, Standing, amount
from llm_magic.commands.line import Command
from llm_magic.display import markup, table
from llm_magic.display.footer import counted, money
from llm_magic.display.markup import Bundle
from llm_magic.ledger import UsageRow
from llm_magic.options import Option
from llm_magic.providers.base import Provider

_ALWAYS = {"provider", "model", "requests", "input", "output", "seconds"}
"""Columns that are shown even where they say nothing."""
_WIDEST = 80
_OPTIONS = (Option("reset", ("--reset",), "", "count from zero from now on"),)


def run(command: Command) -> None:
    """Show the usage and the budgets, and count anew where that is asked for."""
    line = command.read(_OPTIONS, most=0, usage="[--reset]")
    spending = command.session.spending
    rows, total = spending.ledger.rows(), spending.ledger.total()
    providers = [owner for _, owner in command.session.registry.sections() if isinstance(owner, Provider)]
    budgets = [(budget, spending.accounts.standing(budget.account)) for budget in spending.budgets(*providers)]
    shown: list[Bundle] = []
    if rows:
        shown.append(_table(rows, total))
        shown[0]["text/html"] += _chart(rows)
        shown += map(markup.quiet, _remarks(total))
    else:
        shown.append(markup.quiet("Nothing was used yet."))
    if budgets:
        shown.append(_budgets(budgets))
        shown += map(markup.quiet, _about_budgets(budgets))
    command.show(markup.joined(shown) if rows or budgets else "Nothing was used yet.")
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


def _budgets(budgets: Sequence[tuple[Budget, Standing]]) -> Bundle:
    """Return the budgets as a table, in HTML with a bar for each limit."""
    records, bars = [], []
    for budget, standing in budgets:
        for kind, most in budget.most.items():
            used, flying = getattr(standing.used, kind), getattr(standing.in_flight, kind)
            said = {"limit": most, "used": used, "in flight": flying, "left": max(0, most - used - flying)}
            what = {"budget": budget.setting, "of": kind}
            records.append(what | {name: amount(kind, value) for name, value in said.items()})
            bars.append(_limit_bar(f"{budget.setting}, {kind}", used, flying, most))
    shown = table.shown(records, widest=_WIDEST)
    shown["text/plain"] = f"\n{shown['text/plain']}"
    shown["text/html"] += _figure("Budgets", ("used", "in flight"), bars)
    return shown


def _about_budgets(budgets: Sequence[tuple[Budget, Standing]]) -> list[str]:
    """Return what else is to be known of the budgets: what no server told."""
    assumed = max((standing.assumed for _, standing in budgets), key=lambda each: (each.tokens, each.cost))
    limited = {kind for budget, _ in budgets for kind in budget.limits}
    told = [f"{assumed.tokens:,} tokens"] * bool(assumed.tokens and "tokens" in limited)
    told += [amount("cost", assumed.cost)] * bool(assumed.cost and "cost" in limited)
    if not told:
        return []
    return [f"Of what is used, {' and '.join(told)} were told by no server: they count as they were reserved."]


_COLOURS = {"input": "var(--jp-brand-color1, #1976d2)", "output": "var(--jp-accent-color1, #388e3c)"}
_TRACK = "display: flex; width: 16em; height: 0.8em; background: var(--jp-layout-color2, rgba(128, 128, 128, 0.2))"


def _chart(rows: Sequence[UsageRow]) -> str:
    """Return the tokens of each model as bars, in HTML; empty where none were counted."""
    used = [row for row in rows if row.input_tokens + row.output_tokens]
    if not used:
        return ""
    most = max(row.input_tokens + row.output_tokens for row in used)
    return _figure("Tokens", tuple(_COLOURS), [_bar(row, most) for row in used])


def _figure(title: str, parts: Sequence[str], bars: Sequence[str]) -> str:
    colours = zip(parts, _COLOURS.values(), strict=True)
    legend = "  ".join(f'<span style="color: {colour}">■</span> {name}' for name, colour in colours)
    return (
        f'<figure style="margin: 0.6em 0" aria-label="{title}">'
        f'<figcaption style="color: var(--jp-ui-font-color2, gray)">{title}: {legend}</figcaption>'
        f"<table><tbody>{''.join(bars)}</tbody></table></figure>"
    )


def _limit_bar(name: str, used: int, flying: int, most: int) -> str:
    """Return a bar of what is used of a limit; one that is exceeded is full."""
    whole = max(most, used + flying, 1)
    share = f"{100 * (used + flying) / whole if most else 100:.0f} %"
    return _track(name, [used / whole, flying / whole] if most else [1.0, 0.0], share)


def _bar(row: UsageRow, most: int) -> str:
    shares = [count / most for count in (row.input_tokens, row.output_tokens)]
    return _track(f"{row.provider}:{row.model}", shares, f"{row.input_tokens:,} → {row.output_tokens:,}")


def _track(name: str, shares: Sequence[float], text: str) -> str:
    """Return a row with a bar: its name, the shares of its length, and what stands behind it."""
    parts = "".join(
        f'<div style="width: {100 * share:.2f}%; background: {colour}"></div>'
        for share, colour in zip(shares, _COLOURS.values(), strict=True)
    )
    return (
        f'<tr><th scope="row" style="text-align: left">{markup.escaped(name)}</th>'
        f'<td><div style="{_TRACK}" role="presentation">{parts}</div></td>'
        f'<td style="text-align: left">{text}</td></tr>'
    )
