"""The expression of `--each`: a piece of Python over the notebook's variables, evaluated when the cell runs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import LLMError, OptionError

_MOST_OF_ERROR = 200


def evaluate(expression: str, namespace: Mapping[str, Any]) -> Any:
    """Return the value of an expression.

    >>> evaluate("names[:2]", {"names": ["Ada", "Bo", "Cy"]})
    ['Ada', 'Bo']

    Raises
    ------
    OptionError
        It is no Python expression, names what is not there, or raises something.

    """
    try:
        code = compile(expression.strip(), "<--each>", "eval")
    except (SyntaxError, ValueError) as error:
        said = getattr(error, "msg", None) or str(error)
        raise OptionError(
            f"--each {_cut(expression)} is no Python expression: {said}.",
            "It names the inputs: --each reviews, or quoted, --each 'df[df.stars > 3]'.",
        ) from None
    try:
        return eval(code, dict(namespace))  # noqa: S307 - the user's own code, as all of the notebook
    except NameError as error:
        name = error.name or ""
        hint = did_you_mean(name, [known for known in namespace if not known.startswith("_")], "Run its cell first.")
        raise OptionError(f"--each {_cut(expression)}: there is no variable {name!r}.", hint) from error
    except LLMError:
        raise
    except Exception as error:
        said = _cut(" ".join(str(error).split()), _MOST_OF_ERROR)
        raise OptionError(
            f"--each {_cut(expression)} raised {type(error).__name__}{': ' * bool(said)}{said}.",
            "Try the expression in a cell of its own; %tb shows where it failed.",
        ) from error


def refuse_out(expression: str, out: str) -> None:
    """Raise OptionError where the answers would replace the inputs: the cell could not be run again.

    >>> refuse_out("df[df.stars > 3]", "stars")

    """
    names: set[str] = set()
    with suppress(SyntaxError, ValueError):  # said when it is evaluated
        names = {node.id for node in ast.walk(ast.parse(expression.strip(), mode="eval")) if isinstance(node, ast.Name)}
    if out in names:
        raise OptionError(
            f"--out {out} would replace {out}, which --each reads: the cell could not be run again for what failed.",
            f"Take another name: --out {out}_answered.",
        )


def _cut(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
