"""Tab in a real IPython terminal: what it completes to is what runs when Enter is pressed."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect", reason="needs pexpect")
pytest.importorskip("xllamacpp", reason="needs the extra `local`")

Type = Callable[[str, str], str]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x1b\][^\x07]*\x07")


@pytest.fixture(scope="module")
def enter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Type]:
    """Return a function that types a line, presses Enter, and returns what is on screen until the given words."""
    folder: Path = tmp_path_factory.mktemp("ipython")
    environment = {**os.environ, "IPYTHONDIR": str(folder), "TERM": "xterm", "NO_COLOR": "1"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--no-banner", "--colors=nocolor"],
        env=environment,
        encoding="utf-8",
        dimensions=(50, 200),
        timeout=40,
    )

    def enter(line: str, until: str) -> str:
        for part in re.split(r"(\t)", line):
            child.send(part)
            if part == "\t":  # it is completed on a thread: what is typed before that would end it
                child.expect(pexpect.TIMEOUT, timeout=1)
        child.send("\r")
        child.expect(until)
        return str(_ESCAPE.sub("", child.before + child.after))

    child.expect(r"In .*\[.*1")
    enter("%load_ext llm_magic", r"In .*\[.*2")
    enter("import typing; City = typing.TypedDict('City', {'population': int})", r"In .*\[.*3")
    enter("unmistakable = 42", r"In .*\[.*4")
    yield enter
    child.close(force=True)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("%llm --mo\t local:smollm2 --dry-run Say.", '"model": "smollm2"'),
        ("%llm --dry-run --model l\tsmollm2 Say.", '"model": "smollm2"'),
        ("%llm --dry-run -m local:smollm2 --as Ci\t Say.", "json_schema"),
        ("%llm --dry-run -m local:smollm2 Say {{ unm\t }} times.", "Say 42 times"),
    ],
)
def test_tab(enter: Type, typed: str, shown: str) -> None:
    enter(typed, re.escape(shown))


def test_the_picker_is_a_plain_list(enter: Type) -> None:
    enter("%llm_picker local", r"1  local:smollm2")
    enter("%llm_picker 1", r"LLMMagics\.model = 'local:smollm2'")
