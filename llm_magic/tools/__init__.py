"""Tools: Python functions that the model may call, as it is told of them."""

from llm_magic.tools.function import FunctionTool, describe, tools_from

__all__ = ["FunctionTool", "describe", "tools_from"]
