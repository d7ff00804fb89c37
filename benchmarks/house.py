"""The size and the shape of the house: lines, modules, what one cell enters, circles: `python benchmarks/house.py`.

Counts the lines and modules of `llm_magic/`, the modules and functions that a warm cell enters (profiled in a real
kernel, comprehensions not counted, against the vLLM server of `LLM_MAGIC_TEST_VLLM`), and the circles among imports
at every level, those for the type checker included.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "llm_magic"

PROFILE = """
import sys, threading
_entered = set()
def _note(frame, event, argument):
    if event == "call":
        code = frame.f_code
        if "/llm_magic/" in code.co_filename and not code.co_name.startswith("<"):
            _entered.add((code.co_filename, code.co_qualname))
async def _on_loop(on):
    sys.setprofile(_note if on else None)
_session = get_ipython()._llm_magic.session
def _profile(on):
    if not on:
        sys.setprofile(None)
    threading.setprofile(_note if on else None)
    _session.loop.run(_on_loop(on))
    if on:
        sys.setprofile(_note)
"""
"""What a kernel runs to take note of every function of the package that is entered, on every thread."""


def modules() -> dict[str, Path]:
    """Return the modules of the package by name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a file imports anywhere, for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == PACKAGE.name:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            group, stack[place:] = stack[place:], []
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def all_circles() -> list[list[str]]:
    """Return the circles among modules, and among the children of each package."""
    known = modules()
    direct = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    found = circles(direct)
    for package in (name for name, path in known.items() if path.name == "__init__.py"):
        depth = package.count(".") + 2

        def child(name: str, package: str = package, depth: int = depth) -> str | None:
            inside = name.startswith(f"{package}.")
            return ".".join(name.split(".")[:depth]) if inside else None

        edges: dict[str, set[str]] = {}
        for name, targets in direct.items():
            here = child(name)
            if here is not None:
                edges.setdefault(here, set()).update(
                    there for there in map(child, targets) if there is not None and there != here
                )
        found += [group for group in circles(edges) if group not in found]
    return found


def entered(url: str) -> list[tuple[str, str]]:
    """Return the functions of the package, by file and name, that a warm cell enters in a real kernel."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from kernels import Kernel

    cell = "%%llm -m vllm: --stop . -t 0 --once\nSay {{ x }}."
    with Kernel() as kernel:
        kernel.run("%load_ext llm_magic").check()
        kernel.run(f"%config VLLMProvider.base_url = {url!r}\nx = 'hello'").check()
        for _ in range(2):
            kernel.run(cell).check()
        kernel.run(PROFILE).check()
        kernel.run("_profile(True)").check()
        kernel.run(cell).check()
        kernel.run("_profile(False)").check()
        ran = kernel.run("import json; print(json.dumps(sorted(_entered)))").check()
    text = "".join(output.get("text", "") for output in ran.outputs)
    return [(file, name) for file, name in json.loads(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", action="store_true", help="list the functions that a warm cell enters")
    asked = parser.parse_args()
    paths = modules().values()
    lines = sum(len(path.read_text().splitlines()) for path in paths)
    print(f"lines of llm_magic/: {lines:,}")
    print(f"modules: {len(paths)}")
    found = all_circles()
    print(f"circles of imports: {len(found)}")
    for group in found:
        print("   ", " <-> ".join(group))
    url = os.environ.get("LLM_MAGIC_TEST_VLLM")
    if not url:
        print("what a warm cell enters: set LLM_MAGIC_TEST_VLLM to the URL of a vLLM server")
        return
    functions = entered(url)
    print(f"a warm cell enters: {len({file for file, _ in functions})} modules, {len(functions)} functions")
    if asked.functions:
        for file, name in functions:
            print("   ", file.rpartition("/llm_magic/")[2], name)


if __name__ == "__main__":
    main()
