"""The input transformer: line prompts that end in `?` and cells without a body reach the magics."""

from __future__ import annotations

import re

CELL_MAGIC = re.compile(r"\s*%%llm(?:_embed)?(?:\s|$)")
LINE_PROMPT = re.compile(r"(?P<before>\s*(?:[\w.,\[\]'\" ]+=\s*)?)%llm(?P<rest>[ \t].*\?)[ \t]*(?P<end>\r?\n?)$")


def rewrite(lines: list[str]) -> list[str]:
    r"""Return the lines of a cell, as IPython has to see them: the input transformer of this extension.

    A cell magic comes at the very beginning and has a body: IPython refuses one without.

    >>> rewrite(["# a comment\n", "  %%llm -t 0\r\n"])
    ['%%llm -t 0\n', '\n']

    """
    first = next((number for number, line in enumerate(lines) if line.strip()[:1] not in {"", "#"}), 0)
    if lines and CELL_MAGIC.match(lines[first]):
        return [lines[first].strip() + "\n", *(lines[first + 1 :] or ["\n"])]
    return _questions(lines)


rewrite.has_side_effects = True  # type: ignore[attr-defined] # IPython leaves it out when it asks whether a cell is complete


def _questions(lines: list[str]) -> list[str]:
    """Rewrite each `%llm …?` and `x = %llm …?` as the call that it stands for.

    IPython takes a question mark at the end of a line for a request for help. Lines within a
    multi-line string or bracket, and the body of a cell magic, are left alone.

    >>> rewrite(["x = %llm Why is the sky blue?"])
    ["x = get_ipython().run_line_magic('llm', 'Why is the sky blue?')"]

    """
    if not any("%llm" in line and line.rstrip().endswith("?") for line in lines) or lines[0].startswith("%%"):
        return lines
    rewritten: list[str] = []
    for line in lines:
        match = LINE_PROMPT.match(line)
        if match is None or _inside(rewritten):
            rewritten.append(line)
        else:
            call = f"get_ipython().run_line_magic('llm', {match['rest'].strip()!r})"
            rewritten.append(f"{match['before']}{call}{match['end']}")
    return rewritten


def _inside(lines: list[str]) -> bool:
    """Whether what follows `lines` continues a string or a bracket of theirs."""
    from IPython.core.inputtransformer2 import make_tokens_by_line

    tokens = make_tokens_by_line([line if line.endswith("\n") else line + "\n" for line in lines])
    last = [token for token in (tokens[-1] if tokens else []) if token.string]
    return bool(last) and not last[-1].string.endswith("\n")
