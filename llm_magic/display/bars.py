"""Figures as horizontal bars, in HTML without scripts, in the colours of the theme; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

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
