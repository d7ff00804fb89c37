"""Recordings of two branches, merged by git: with the union of their lines, and with the marks of a conflict."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from offline import environment
from servers import Answer, Received, ScriptedServer, chunk, stream

ROOT = Path(__file__).parents[2]
RULE = (ROOT / ".gitattributes").read_text(encoding="utf-8")
OF_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"} | {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.org"))
}
ASK = """
import json, sys
from llm_magic import LLM, LLMError, registry
url, mode, *prompts = sys.argv[1:]
registry().add("s", "compatible", base_url=url, max_retries=0)
for prompt in prompts:
    try:
        response = LLM("s:m").ask(prompt, record=mode)
        print(json.dumps([response.text, response.recorded]))
    except LLMError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
Ask = Callable[..., list[list[object]]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Each answer is another one."""
    count = itertools.count(1)

    def numbered(request: Received) -> Answer:
        return stream(chunk(f"{request.json['messages'][-1]['content']} {next(count)}"), chunk(finish="stop"))

    with ScriptedServer(numbered) as server:
        yield server


@pytest.fixture
def ask(tmp_path: Path, server: ScriptedServer) -> Ask:
    """Asks prompts from a new process, as in a notebook `analysis.ipynb`; each answer, and whether it was recorded."""

    def run(mode: str, *prompts: str) -> list[list[object]]:
        ran = subprocess.run(  # noqa: S603 - our own Python
            [sys.executable, "-c", ASK, server.url, mode, *prompts],
            cwd=tmp_path,
            env=environment(JPY_SESSION_NAME=str(tmp_path / "analysis.ipynb")),
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(ran.stderr)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    return run


said: list[str] = []
"""What was said beside the answers, by each process."""


def git(folder: Path, *words: str, succeeds: bool = True) -> str:
    done = subprocess.run(  # noqa: S603 - our own words
        ["git", *words],  # noqa: S607 - the machine's own
        cwd=folder,
        env=environment(**OF_GIT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


def two_branches(folder: Path, ask: Ask, *, rule: str, mode: str = "once") -> None:
    """Make a repository in which two people have recorded from the same state on."""
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitattributes").write_text(rule, encoding="utf-8")
    ask("once", "before")
    commit(folder, "before")
    for branch, prompts in (("one", ("of one", "both")), ("other", ("of other", "both"))):
        git(folder, "switch", "-qc", branch, "main")
        ask(mode, "before", *prompts)
        commit(folder, branch)
    git(folder, "switch", "-q", "one")


EVERYTHING = ("before", "of one", "of other", "both", "both")
REPLAYED = [["before 1", True], ["of one 2", True], ["of other 4", True], ["both 3", True], ["both 5", True]]


def test_the_answers_of_both_branches_are_replayed(tmp_path: Path, ask: Ask, server: ScriptedServer) -> None:
    two_branches(tmp_path, ask, rule=RULE)
    git(tmp_path, "merge", "-q", "--no-edit", "other")
    lines = (tmp_path / "analysis.llm.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in lines]) == 5
    sent = len(server.requests)
    assert ask("only", *EVERYTHING) == REPLAYED
    assert said[-1] == ""
    assert len(server.requests) == sent == 5


def test_the_sides_of_a_conflict_are_both_replayed(tmp_path: Path, ask: Ask, server: ScriptedServer) -> None:
    two_branches(tmp_path, ask, rule="")
    git(tmp_path, "merge", "-q", "--no-edit", "other", succeeds=False)
    text = (tmp_path / "analysis.llm.jsonl").read_text(encoding="utf-8")
    assert [line[:7] for line in text.splitlines() if line[0] in "<=>"] == ["<<<<<<<", "=======", ">>>>>>>"]
    assert ask("only", *EVERYTHING) == REPLAYED
    assert len(server.requests) == 5
    assert "holds the marks of a merge conflict" in said[-1]
    assert (tmp_path / "analysis.llm.jsonl").read_text(encoding="utf-8") == text
    assert ask("once", "after") == [["after 6", False]]
    assert ask("only", *EVERYTHING, "after") == [*REPLAYED, ["after 6", True]]


def test_of_an_answer_that_both_renewed_one_is_replayed(tmp_path: Path, ask: Ask) -> None:
    two_branches(tmp_path, ask, rule=RULE, mode="new")
    git(tmp_path, "merge", "-q", "--no-edit", "other")
    (answer,) = ask("only", "before")
    assert answer in (["before 2", True], ["before 5", True])
    assert ask("only", "before") == [answer]


def test_the_rule_is_of_files_of_notebooks(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text(RULE, encoding="utf-8")
    names = ("analysis.llm.jsonl", "notebooks/analysis.llm.jsonl", "notes.jsonl")
    told = git(tmp_path, "check-attr", "merge", *names).splitlines()
    assert [line.rpartition(" ")[2] for line in told] == ["union", "union", "unspecified"]
