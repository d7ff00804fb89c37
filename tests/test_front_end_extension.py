"""The front-end extension is in what is built where npm is there; where it is not, the build succeeds without it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("hatchling", reason="needs hatchling: the extra `test`")
ROOT = Path(__file__).parent.parent
if not (ROOT / "hatch_build.py").is_file():
    pytest.skip("needs the sources of the package", allow_module_level=True)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
INSTALLED = f"llm_magic-{VERSION}.data/data/share/jupyter/labextensions/llm-magic"
NPM = """#!/bin/sh
echo "$@" >> calls
[ -z "$FAILS" ] || { echo "npm error code ENOTFOUND" >&2; exit 1; }
[ "$1" = run ] || exit 0
mkdir -p ../llm_magic/labextension && echo '{"built": 1}' > ../llm_magic/labextension/package.json
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of the package without what was built, and with a program `npm` that notes how it is called."""
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns("node_modules", "lib")
    shutil.copytree(ROOT / "labextension", clone / "labextension", ignore=ignored)
    (clone / "llm_magic").mkdir()
    for name in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore", "llm_magic/__init__.py"):
        shutil.copy(ROOT / name, clone / name)
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(NPM)
    npm.chmod(0o755)
    return clone


def hatchling(clone: Path, target: str, *, path: str, **environment: str) -> tuple[list[str], str]:
    """Build an sdist or a wheel; return the names of its files and what was said."""
    folder = clone.parent / "dist"
    done = subprocess.run(  # noqa: S603 - our own build
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=clone,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    [built] = folder.iterdir()
    if target == "wheel":
        with zipfile.ZipFile(built) as archive:
            names = archive.namelist()
    else:
        with tarfile.open(built) as archive:
            names = archive.getnames()
    shutil.rmtree(folder)
    said = (done.stdout + done.stderr).splitlines()
    return sorted(names), "\n".join(line for line in said if "dist/" not in line)


def in_labextension(names: list[str]) -> list[str]:
    return [name for name in names if "labextension" in name]


def test_a_wheel_holds_it_and_the_second_build_asks_npm_for_nothing(clone: Path) -> None:
    path = f"{clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    expected = [f"{INSTALLED}/{name}" for name in ("install.json", "package.json", "sources.sha256")]
    names, said = hatchling(clone, "wheel", path=path)
    assert in_labextension(names) == expected
    assert "could not" not in said
    calls = (clone / "labextension" / "calls").read_text().splitlines()
    assert calls == ["view typescript version", "ci --ignore-scripts", "run build"]
    names, _ = hatchling(clone, "wheel", path=path)
    assert in_labextension(names) == expected
    assert (clone / "labextension" / "calls").read_text().splitlines() == calls

    source = clone / "labextension" / "src" / "index.ts"
    source.write_text(source.read_text() + "// more\n")
    names, said = hatchling(clone, "wheel", path=path, FAILS="1")
    assert in_labextension(names) == expected
    assert said.splitlines()[-1].endswith(
        "the highlighting of %%llm cells could not be built (npm view failed: npm error code ENOTFOUND); "
        "the one built before is taken"
    )


def test_without_npm_or_a_network_all_else_is_built(clone: Path) -> None:
    names, said = hatchling(clone, "wheel", path="")
    assert in_labextension(names) == []
    assert "llm_magic/__init__.py" in names
    assert said.splitlines()[-1].endswith(
        "the highlighting of %%llm cells could not be built (npm is not installed); all else works without it"
    )
    names, said = hatchling(clone, "wheel", path=f"{clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}", FAILS="1")
    assert in_labextension(names) == []
    assert "(npm view failed: npm error code ENOTFOUND); all else works without it" in said


def test_an_sdist_holds_its_sources_and_what_was_built_for_those_without_npm(clone: Path, tmp_path: Path) -> None:
    names, _ = hatchling(clone, "sdist", path=f"{clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in (
        "hatch_build.py",
        "labextension/src/index.ts",
        "labextension/package-lock.json",
        "labextension/.npmrc",
    ):
        assert f"llm_magic-{VERSION}/{name}" in names
    assert f"llm_magic-{VERSION}/llm_magic/labextension/sources.sha256" in names
    names, said = hatchling(clone, "wheel", path="")  # the same files, without npm
    assert f"{INSTALLED}/package.json" in names
    assert "could not" not in said


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_was_built_here_is_small_and_stands_alone() -> None:
    built = ROOT / "llm_magic" / "labextension"
    if not (built / "sources.sha256").is_file():
        pytest.skip("needs the front-end extension: with npm there, pip install builds it")
    assert (built / "sources.sha256").read_text().strip() == hook().digest_of(ROOT / "labextension")
    metadata = json.loads((built / "package.json").read_text())
    assert metadata["version"] == VERSION
    assert metadata["jupyterlab"]["_build"]["extension"] == "./extension"
    assert (built / metadata["jupyterlab"]["_build"]["load"]).is_file()
    assert sum(file.stat().st_size for file in built.rglob("*") if file.is_file()) < 50_000
    assert json.loads((built / "static" / "third-party-licenses.json").read_text()) == {"packages": []}


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (ROOT / "labextension" / "package-lock.json").read_text(encoding="utf-8")
