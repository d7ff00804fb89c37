"""The lines of the panel as HTML; what comes from elsewhere is escaped; `panel.css` is the style."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib import resources

EMPTY = '<span class="llm-empty"></span>'
"""The value of a line that says nothing, and takes no room."""

_COPY = (
    "const code = this.parentNode.querySelector('pre'), button = this;"
    "const said = text => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy'; }, 1500); };"
    "const mark = () => { getSelection().selectAllChildren(code); said('Selected'); };"
    "navigator.clipboard ? navigator.clipboard.writeText(code.textContent).then(() => said('Copied'), mark) : mark();"
)
_KEYS_ARE_OURS = (
    "this.closest('.llm-picker')?.addEventListener('focusin', event => {"
    "if (event.target.matches('select, button')) event.target.setAttribute('data-lm-suppress-shortcuts', 'true');"
    "})"
)
"""JupyterLab takes arrows and letters for commands, unless the focused element says otherwise."""


@cache
def style() -> str:
    """Return the style sheet as an element, which also claims the keys for the panel."""
    text = (resources.files(__package__) / "panel.css").read_text(encoding="utf-8")
    return f'{EMPTY}<style onload="{_KEYS_ARE_OURS}">{text}</style>'


def title(name: str, leads_to: str, source: str) -> str:
    """Return the head line: what is in force, and where that comes from."""
    model = f"<code>{escape(name)}</code>" if name else '<span class="llm-quiet">no model</span>'
    arrow = f" → <code>{escape(leads_to)}</code>" if leads_to and leads_to != name else ""
    origin = "" if source in {"", "default"} else f' <span class="llm-quiet">({escape(source)})</span>'
    return f'<div class="llm-title"><b>Model</b><span>{model}{arrow}{origin}</span></div>'


def quiet(text: str, *, busy: bool = False) -> str:
    """Return a line that screen readers tell in time; `busy` shows that something goes on."""
    spin = " llm-spin" if busy else ""
    return f'<div class="llm-quiet{spin}" role="status">{escape(text)}</div>' if text else EMPTY


def problem(text: str) -> str:
    """Return a line that is to be seen, and told at once."""
    return f'<div class="llm-problem" role="alert">{escape(text)}</div>' if text else EMPTY


def answer(text: str) -> str:
    """Return an answer as plain text: what a model writes is data."""
    return f'<div class="llm-answer">{escape(text)}</div>' if text else EMPTY


def code(lines: str) -> str:
    """Return the code that does the same, with a button that copies it."""
    if not lines:
        return EMPTY
    button = (
        f'<button type="button" class="llm-copy" onclick="{escape(_COPY)}" aria-label="Copy the code">Copy</button>'
    )
    return f'<div class="llm-code"><pre>{escape(lines)}</pre>{button}</div>'
