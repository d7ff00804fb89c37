"""IPython's `$name` and `{expression}` in an option's value; JSON, quotes, regexes stay whole."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

_EXPRESSION = re.compile(
    r"\$\$(?P<literal>[A-Za-z_]\w*)"
    r"|\$(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|\{(?P<code>[A-Za-z_][^{}]*)\}"
)
_EXPANDED = (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.BinOp)


def expand_option(token: str, namespace: Mapping[str, Any]) -> str:
    """Return an unquoted option value with `$name`, `$name.attribute` and `{expression}` replaced.

    What cannot be evaluated stays as it is, as in IPython, and `$$name` is a literal `$name`. A
    token that contains a quote, or that begins like JSON, is returned untouched; braces are an
    expression only where they begin with a name (so `[a-z]{2}` is not).

    >>> expand_option("$model", {"model": "openai:gpt-5"}), expand_option("run-{n + 1}", {"n": 1})
    ('openai:gpt-5', 'run-2')
    >>> expand_option('{"a":1}', {"a": 2}), expand_option("^[a-z]{2}$", {}), expand_option("$HOME", {})
    ('{"a":1}', '^[a-z]{2}$', '$HOME')

    """
    if "'" in token or '"' in token or token.startswith(("[", "{{")):
        return token

    def expanded(match: re.Match[str]) -> str:
        if match["literal"]:
            return f"${match['literal']}"
        names = [match["code"]] if match["code"] else match["path"].split(".")
        for count in range(len(names), 0, -1):  # `$name.txt` is a name and an ending
            found = _value(".".join(names[:count]), namespace)
            if found is not None:
                return ".".join([found, *names[count:]])
        return match[0]

    return _EXPRESSION.sub(expanded, token)


def _value(code: str, namespace: Mapping[str, Any]) -> str | None:
    """Return the value of an expression as text; None where it has none."""
    try:
        tree = ast.parse(code, mode="eval")
        if not isinstance(tree.body, _EXPANDED):
            return None
        return str(eval(compile(tree, "<option>", "eval"), {}, namespace))  # noqa: S307 - the user's own words
    except Exception:  # noqa: BLE001 - whatever it is that fails, IPython leaves the text alone
        return None
