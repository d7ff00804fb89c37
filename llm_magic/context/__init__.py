"""Cells as context: the executed cells of a notebook and their outputs, as parts of a prompt.

```
shell ─executed_cells→ ExecutedCell, …  (`displays` adds what IPython does not keep)
cells ─selection→ those that are meant  ─serialization→ parts of the prompt, notes
```
"""
