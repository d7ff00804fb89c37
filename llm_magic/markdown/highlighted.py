"""Code as HTML with the colours of JupyterLab's editor, which are right in both of its themes."""

from __future__ import annotations

from html import escape
from typing import Any

LONGEST = 20_000
"""Characters of code that is coloured; a longer one is plain."""
_LANGUAGES = frozenset([
    "bash", "c", "c++", "console", "cpp", "cs", "csharp", "css", "diff", "go", "html", "ini", "ipython", "java",
    "javascript", "js", "json", "jsx", "julia", "kotlin", "latex", "lua", "php", "py", "py3", "python", "python3",
    "r", "ruby", "rust", "scala", "sh", "shell", "sql", "swift", "tex", "toml", "ts", "tsx", "typescript", "xml",
    "yaml", "yml", "zsh",
])  # fmt: skip
"""Languages that are coloured: Pygments knows hundreds, whose patterns nobody has tried on hostile code."""
_COLOURS = {
    "Token.Comment": "ui-font-color2, #616161",
    "Token.Literal.String": "mirror-editor-string-color, #ba2121",
    "Token.Keyword": "mirror-editor-keyword-color, #008000",
    "Token.Name.Tag": "mirror-editor-tag-color, #008000",
}


def highlighted(code: str, language: str = "") -> str:
    """Return code as HTML that is only text, its keywords, texts and comments coloured.

    >>> highlighted("a < b"), highlighted("if a: pass", "python").count("<span")
    ('a &lt; b', 2)

    """
    if language.lower() not in _LANGUAGES or len(code) > LONGEST:
        return escape(code)
    from pygments import lex  # type: ignore[import-untyped]  # Pygments has no types
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # as above
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]  # as above

    try:
        lexer = get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    pieces: list[str] = []
    colour, text = "", ""
    for kind, value in lex(code, lexer):
        found = _colour(kind)
        if found != colour:
            pieces.append(_coloured(text, colour))
            colour, text = found, ""
        text += value
    return "".join([*pieces, _coloured(text, colour)])


def _colour(kind: Any) -> str:
    return next((colour for name, colour in _COLOURS.items() if str(kind).startswith(name)), "")


def _coloured(text: str, colour: str) -> str:
    if not colour or not text.strip():
        return escape(text)
    return f'<span style="color: var(--jp-{colour})">{escape(text)}</span>'
