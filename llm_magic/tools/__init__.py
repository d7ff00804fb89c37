"""Python functions that the model may call: described, called, and answered for whatever happens."""

from llm_magic.tools.function import FunctionTool, describe, tools_from
from llm_magic.tools.running import MAX_RESULT_CHARS, run

__all__ = ["MAX_RESULT_CHARS", "FunctionTool", "describe", "run", "tools_from"]
