"""Answers of several models as one output of a notebook: columns that wrap, or a table of values with a row a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle, escaped
from llm_magic.display.rows_markup import Cell, grid
from llm_magic.markdown import for_notebook
from llm_magic.markdown.links import escaped as escaped_markdown
from llm_magic.model_names import led_by, shown_model
from llm_magic.records import record_of

HEADING = 3
"""The level of a model's name; headings of its answer are below."""
_COLUMNS = "display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18em), 1fr)); gap: 0.7em"
_COLUMN = (
    "display: flex; flex-direction: column; min-width: 0; overflow-x: auto; padding: 0.5em 0.8em; "
    "border: 1px solid #bdbdbd; border-color: var(--jp-border-color2, #bdbdbd); border-radius: 4px"
)
"""A front end that does not trust a notebook drops what has a variable: so each border has a plain color, too."""
_HEAD = (
    "font-weight: 600; overflow-wrap: anywhere; margin-bottom: 0.5em; padding-bottom: 0.3em; "
    "border-bottom: 1px solid #bdbdbd; border-bottom-color: var(--jp-border-color2, #bdbdbd)"
)
_ANSWER = "flex: 1; overflow-wrap: break-word; word-break: normal"
_BELOW = "margin-top: 0.6em"
_FAILED = (
    "border-left: 3px solid #b71c1c; border-left-color: var(--jp-error-color1, #b71c1c); "
    f"padding-left: 0.6em; {markup.WRAP}"
)
_SCROLLS = 'tabindex="0" role="region" style="overflow-x: auto"'
_WIDTHS = (60, 300)
"""Characters of a cell in plain text and in Markdown."""


@dataclass(frozen=True, slots=True)
class Column:
    """What is seen of one model.

    Attributes
    ----------
    name
        The model as it is shown.
    html, markdown, plain
        Its answer as each of these; already such that it can do nothing.
    value
        Its typed value, as far as there is one.
    folded, beside
        What stands folded above the answer, and what stands below it: images, items, sources.
    notes
        Lines that stay, marks among them.
    line
        What it does now, where it has not ended.
    failure
        Why there is no answer; empty where there is none such.
    footer
        The quiet line of tokens, time and cost.
    ended
        Whether no more will come.

    """

    name: str
    html: str = ""
    markdown: str = ""
    plain: str = ""
    value: Any = None
    folded: tuple[Bundle, ...] = ()
    beside: tuple[Bundle, ...] = ()
    notes: tuple[Bundle, ...] = ()
    line: str = ""
    failure: str = ""
    footer: str = ""
    ended: bool = True

    @property
    def said_below(self) -> str:
        """The quiet line without the name of the model, which stands above."""
        return self.footer.removeprefix(f"{shown_model(self.name)} · ")


def side_by_side(columns: Sequence[Column], notes: Sequence[str] = (), footer: str = "") -> Bundle:
    """Return the answers next to each other, as wide as there is room; `notes` and `footer` stand below all of them."""
    cells = "".join(map(_column, columns))
    below = [*map(markup.mark, notes), *([markup.quiet(footer)] if footer else [])]
    return {
        "text/plain": "\n\n".join([*map(_plain, columns), *(each["text/plain"] for each in below)]),
        "text/html": _page(f'<div style="{_COLUMNS}">{cells}</div>', below),
        "text/markdown": _markdown(
            [*map(_section, columns), *(escaped_markdown(each["text/plain"]) for each in below)]
        ),
    }


def values_by_model(columns: Sequence[Column], notes: Sequence[str] = (), footer: str = "") -> Bundle:
    """Return the typed values as a table: a row for each model, with what it does or why it failed in its place."""
    records = [record_of(each.value) for each in columns if each.value is not None]
    names = list(dict.fromkeys(name for each in records for name in each or ())) if all(records) else []
    heads = names or ["value"]
    found = [_values(each.value, names) for each in columns]
    in_place = any(each.failure and each.value is None for each in columns)  # a sentence, as wide as it is long
    right = [not in_place and _is_numeric(row[at] for row in found if row) for at in range(len(heads))]
    head = "".join(_cell("th", escaped(name), right=at, scope="col") for name, at in zip(heads, right, strict=True))
    body = "".join(_row(each, row, right) for each, row in zip(columns, found, strict=True))
    first = _cell("th", "model", scope="col")
    html = f"<table><thead><tr>{first}{head}</tr></thead><tbody>{body}</tbody></table>"
    plain, marked = _grids(columns, heads, found)
    common = [note for note in columns[0].notes if all(note in each.notes for each in columns)] if columns else []
    apart = [each for column in columns for each in _apart(column, common)]
    below = [*apart, *common, *map(markup.mark, notes), *([markup.quiet(footer)] if footer else [])]
    said = [each["text/plain"] for each in below]
    return {
        "text/plain": "\n".join([plain, *said]),
        "text/html": _page(f'<div {_SCROLLS} aria-label="Values by model">{html}</div>', below),
        "text/markdown": "\n\n".join([marked, *map(escaped_markdown, said)]),
    }


def _page(html: str, below: Sequence[Bundle]) -> str:
    """Return HTML on one line: in a Markdown file a blank line would end it."""
    parts = "".join(each["text/html"] for each in below)
    return f"<div {markup.NO_MATHS}>{html}{parts}</div>".replace("\n", "&#10;")


def _markdown(sections: Iterable[str]) -> str:
    """Return sections as one text: what one leaves open may not reach into the next."""
    return for_notebook("\n\n".join(sections))


# Columns


def _column(column: Column) -> str:
    head = f'<div role="heading" aria-level="{HEADING}" style="{_HEAD}">{escaped(column.name)}</div>'
    folded, beside, said = (
        "".join(each["text/html"] for each in part) for part in (column.folded, column.beside, _said(column))
    )
    said = f'<div style="{_BELOW}">{said}</div>' if said and (folded or column.html or beside) else said
    body = f"{folded}{column.html}{beside}{said}"
    below = f'<div style="{_BELOW}">{markup.quiet(column.said_below)["text/html"]}</div>' if column.said_below else ""
    label = f'tabindex="0" aria-label="{escaped(column.name)}"'
    return f'<section {label} style="{_COLUMN}">{head}<div style="{_ANSWER}">{body}</div>{below}</section>'


def _said(column: Column) -> list[Bundle]:
    """Return what is to be said of an answer."""
    lines = list(column.notes)
    if column.failure:
        lines.append(failed(column.failure))
    if column.line and not column.ended:
        lines.append(markup.quiet(column.line))
    if not column.ended:
        lines.append(markup.quiet(markup.UNFINISHED))
    return lines


def _below(column: Column) -> list[Bundle]:
    """Return what stands below an answer: what is to be said of it, and last the quiet line."""
    return [*_said(column), *([markup.quiet(column.said_below)] if column.said_below else [])]


def failed(message: str) -> Bundle:
    """Return why there is no answer."""
    return {"text/plain": message, "text/html": f'<div style="{_FAILED}">{escaped(message)}</div>'}


def _plain(column: Column) -> str:
    parts = [each["text/plain"] for each in column.folded]
    parts += [column.plain.rstrip("\n")] if column.plain else []
    parts += [each["text/plain"] for each in (*column.beside, *_below(column))]
    return "\n".join([f"[{column.name}]", *parts])


def _section(column: Column) -> str:
    said = [each.get("text/markdown") or escaped_markdown(each["text/plain"]) for each in column.beside]
    said += [escaped_markdown(each["text/plain"]) for each in _below(column)]
    heading = f"{'#' * HEADING} {escaped_markdown(markup.one_line(column.name, 200))}"
    return "\n\n".join(filter(None, [heading, column.markdown.rstrip(), *said]))


# The table


def _values(value: Any, names: Sequence[str]) -> list[Any]:
    """Return the values of a row; empty where there are none yet."""
    if value is None:
        return []
    fields = (record_of(value) or {}) if names else {}
    return [fields.get(name) for name in names] if names else [value]


def _is_numeric(values: Iterable[Any]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in found)


def _row(column: Column, values: Sequence[Any], right: Sequence[bool]) -> str:
    name = _cell("th", escaped(column.name), scope="row")
    if not values:
        said = failed(column.failure) if column.failure else markup.quiet(_state(column))
        return f'<tr>{name}<td colspan="{len(right)}" style="text-align: left">{said["text/html"]}</td></tr>'
    cells = "".join(_cell("td", table.nested(value), right=at) for value, at in zip(values, right, strict=True))
    return f"<tr>{name}{cells}</tr>"


def _state(column: Column) -> str:
    return column.line or ("" if column.ended else markup.UNFINISHED)


def _cell(element: str, html: str, *, right: bool = False, scope: str = "") -> str:
    named = f' scope="{scope}"' if scope else ""
    side = "right" if right else "left"
    style = f"text-align: {side}; vertical-align: top; overflow-wrap: break-word"
    return f'<{element}{named} style="{style}">{html}</{element}>'


def _grids(columns: Sequence[Column], heads: Sequence[str], found: Sequence[Sequence[Any]]) -> tuple[str, str]:
    """Return the table as plain text and as Markdown."""
    rows = []
    numeric = all(found)
    for column, values in zip(columns, found, strict=True):
        said = f"failed: {column.failure}" if column.failure else _state(column)
        cells = [Cell(table.cell_text(value), numeric and _is_numeric([value])) for value in values]
        cells = cells or [Cell(said, failed=True), *(Cell("") for _ in heads[1:])]
        rows.append([Cell(column.name), *cells])
    plain, marked = (grid(["model", *heads], rows, width) for width in _WIDTHS)
    return plain["text/plain"], marked["text/markdown"]


def _apart(column: Column, common: Sequence[Bundle]) -> list[Bundle]:
    """Return what is to be seen of a model below the table, by its name, but for what is common to all."""
    shown = [*column.folded, *column.beside, *(note for note in column.notes if note not in common)]
    if column.failure and column.value is not None:
        shown.append(failed(column.failure))
    lines = [_named(column.name, shown)] if shown else []
    if column.value is not None and not column.ended:
        lines.append(markup.quiet(led_by(column.name, column.line or markup.UNFINISHED)))
    return [*lines, *([markup.quiet(f"{column.name} · {column.said_below}")] if column.footer else [])]


def _named(name: str, shown: Sequence[Bundle]) -> Bundle:
    """Return what a model has beside its value, below its name."""
    html = "".join(each["text/html"] for each in shown)
    plain = "\n".join(each["text/plain"] for each in shown)
    head = (
        f'<div role="heading" aria-level="{HEADING}" style="font-weight: 600; margin-top: 0.4em">{escaped(name)}</div>'
    )
    return {"text/plain": f"[{name}]\n{plain}", "text/html": f"<div>{head}{html}</div>"}
