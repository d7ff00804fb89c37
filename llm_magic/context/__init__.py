"""Cells as context: the executed cells of a notebook and their outputs, as parts of a prompt."""
