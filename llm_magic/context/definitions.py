"""Names that the code of a cell defines: read from its syntax, nothing is run."""

from __future__ import annotations

import ast
from functools import lru_cache

_RUNS_ITS_BODY = frozenset({"time", "capture", "prun"})
"""Magics that run the code which they are given in the notebook itself."""


@lru_cache(maxsize=1024)
def names_defined(source: str) -> frozenset[str]:
    r"""Return the names that a cell's code defines or changes at its top level, magics and all.

    Assignments (of a part, `df["a"] = …`, too), `def`, `class`, `import`, `for`, `with`, `match`, `:=`. Not what is
    local to a function, a class or a comprehension, and nothing of code that does not parse.

    >>> sorted(names_defined("import numpy as np\n%matplotlib inline\nfor i in a: b['x'] = i"))
    ['b', 'i', 'np']
    >>> sorted(names_defined("%%time\nmodel = fit()"))
    ['model']

    """
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        tree = ast.parse(TransformerManager().transform_cell(source))
        found = _Definitions()
        found.visit(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no code, a null byte, brackets without end
        return frozenset()
    return frozenset(found.names)


class _Definitions(ast.NodeVisitor):
    """Collects the names that statements bind."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._part(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._part(node)

    def _part(self, node: ast.Attribute | ast.Subscript) -> None:
        """Take the name whose part is assigned to."""
        whole: ast.expr = node
        while isinstance(whole, ast.Attribute | ast.Subscript):
            whole = whole.value
        if isinstance(node.ctx, ast.Store) and isinstance(whole, ast.Name):
            self.names.add(whole.id)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:  # `x: int` alone binds nothing
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.names.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - `ast` names them
    visit_ClassDef = visit_FunctionDef  # noqa: N815 - `ast` names them

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Leave out what is local to it."""

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        for each in ast.walk(node):
            if isinstance(each, ast.NamedExpr):  # which binds outside
                self.names.add(each.target.id)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815 - `ast` names them

    def visit_alias(self, node: ast.alias) -> None:
        if node.name != "*":
            self.names.add(node.asname or node.name.partition(".")[0])

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.names |= {node.name} if node.name else set()
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs  # noqa: N815 - `ast` names them

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.names |= {node.rest} if node.rest else set()
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Look into the code that a magic is given: `%time x = 1`, `%%capture`."""
        self.generic_visit(node)
        given = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        magic = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if magic in {"run_cell_magic", "run_line_magic"} and given[1:] and given[0] in _RUNS_ITS_BODY:
            self.names |= names_defined(given[-1])
