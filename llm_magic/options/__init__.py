"""The options of a cell: the table of what there is, what one cell says, and how a line is read."""

from __future__ import annotations

from llm_magic.options.option import Option, exclude_each_other
from llm_magic.options.parameters import PARAMETERS, RequestParameters
from llm_magic.options.table import BY_FLAG, BY_NAME, OPTIONS, AskOptions, Options, from_mapping

__all__ = [
    "BY_FLAG",
    "BY_NAME",
    "OPTIONS",
    "PARAMETERS",
    "AskOptions",
    "Option",
    "Options",
    "RequestParameters",
    "exclude_each_other",
    "from_mapping",
]
