"""Python functions that the model may call: described, called, and answered for whatever happens."""

from llm_magic.tools.function import FunctionTool, describe, tools_from

__all__ = ["FunctionTool", "describe", "tools_from"]
