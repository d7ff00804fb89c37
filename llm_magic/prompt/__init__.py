"""A cell's body and the notebook's variables, rendered to the parts of a message.

Nothing is sent before all of it renders. A body is a Jinja2 template: `{{ expression }}`, filters,
`{% for %}`, `{% if %}`. All else passes through byte for byte, single braces, `{#`, `$` and line
ends included. Text that itself contains `{{` or `{%` (some LaTeX, other templates) goes between
`{% raw %}` and `{% endraw %}`, or the cell takes `--raw`. A line of only `{% … %}` tags vanishes.
"""

from llm_magic.prompt.template import Rendered, render
from llm_magic.prompt.values import Limits, expand_option

__all__ = ["Limits", "Rendered", "expand_option", "render"]
