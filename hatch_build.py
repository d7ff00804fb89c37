"""The build hook: builds the front-end extension where npm is there, for the wheel; without it, all else is installed.

`HATCH_BUILD_NO_HOOKS=true` in the environment leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SECONDS = 180  # for each of these; the first finds out whether there is a network at all, which the second does slowly
COMMANDS = (["view", "typescript", "version"], ["ci", "--ignore-scripts"], ["run", "build"])
SOURCES = ("package.json", "package-lock.json", "tsconfig.json", ".npmrc", "core/package.json", "src/*.ts")
MARK = "sources.sha256"  # beside what was built, written last: what it was built of
INSTALLED = "share/jupyter/labextensions/llm-magic"  # where JupyterLab and Notebook look
QUICK_TO_GIVE_UP = {"npm_config_fetch_retries": "1", "npm_config_fetch_retry_mintimeout": "1000"}


class LabextensionBuildHook(BuildHookInterface[Any]):
    """Builds `labextension/` into `llm_magic/labextension/`, and names what is there as shared data of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build the extension, if that is needed and possible."""
        source, built = Path(self.root, "labextension"), Path(self.root, "llm_magic", "labextension")
        missing = build(source, built)
        if missing is not None:
            self.app.display_warning(missing)
        if self.target_name == "wheel" and (built / MARK).is_file():
            build_data["shared_data"][str(built)] = INSTALLED
            build_data["shared_data"][str(source / "install.json")] = f"{INSTALLED}/install.json"


def build(source: Path, built: Path) -> str | None:
    """Bring the built extension up to date; where that is not possible, say in one line why, and what follows."""
    mark, digest = built / MARK, digest_of(source)
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == digest:
        return None
    npm = shutil.which("npm")
    reason = "npm is not installed" if npm is None else _failure(npm, source)
    if reason is None:
        mark.write_text(digest + "\n", encoding="utf-8")
        return None
    follows = "the one built before is taken" if mark.is_file() else "all else works without it"
    return f"the highlighting of %%llm cells could not be built ({reason}); {follows}"


def digest_of(source: Path) -> str:
    """Return the digest of all that the built extension depends on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in source.glob(pattern)):
        digest.update(path.relative_to(source).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _failure(npm: str, source: Path) -> str | None:
    """Build with npm; return why that failed, or None."""
    for command in COMMANDS:
        try:
            done = subprocess.run(  # noqa: S603 - npm, with our own package.json
                [npm, *command],
                cwd=source,
                env={**os.environ, **QUICK_TO_GIVE_UP},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"npm {command[0]} took more than {SECONDS} s"
        except OSError as error:
            return f"npm cannot be started: {error.strerror}"
        if done.returncode != 0:
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
            return f"npm {command[0]} failed: {told[:200]}"
    return None
