"""Which names the code of a cell defines."""

from __future__ import annotations

import pytest

from llm_magic.context.definitions import names_defined


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a = b = 1; c: int = 2; d: int", "a b c"),
        ("(a, *b), [c] = x", "a b c"),
        ("a += 1", "a"),
        ("if (n := len(x)) > 2: pass", "n"),
        ("def f(a, b=2):\n    inner = 1", "f"),
        ("async def f(): pass", "f"),
        ("class C:\n    x = 1", "C"),
        ("import numpy as np, os.path\nfrom math import pi, e as euler\nfrom x import *", "np os pi euler"),
        ("for i, (j, _) in x:\n    k = i", "i j _ k"),
        ("async with a() as b: pass", "b"),
        ("with open('f') as file, g() as h.x: pass", "file h"),
        ("df['a'] = 1\nmodel.rate = 2\nf(y)[0] = 3", "df model"),
        ("try:\n    a = 1\nexcept E as error:\n    b = 2\nelse:\n    c = 3", "a b c"),
        ("match x:\n    case {'a': a, **rest}: pass\n    case [b, *c]: pass\n    case P() as d: pass", "a rest b c d"),
        ("squares = [i * i for i in range(3) if (last := i)]", "squares last"),
        ("f = lambda x: (y := x)", "f"),
        ("global g\ng = 1", "g"),
        ("del a\nprint(b)", ""),
        ("%matplotlib inline\n!ls\nfiles = !ls\nx = %pwd", "files x"),
        ("%%time\nmodel = fit()", "model"),
        ("%time y = 1", "y"),
        ("%%capture\nz = 1", "z"),
        ("%%bash\nx=1", ""),
        ("%%timeit\nq = 1", ""),
        ("await g()\nr = await h()", "r"),
        ("x = (", ""),
        ("x = 1\0", ""),
        ("(" * 5000, ""),
        ("", ""),
    ],
)
def test_names(source: str, names: str) -> None:
    assert names_defined(source) == frozenset(names.split())
