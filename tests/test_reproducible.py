"""Each command of `docs/reproducible.md` does what the page says, in a shell; what replays has no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from offline import environment, without_network

pytest.importorskip("xllamacpp", reason="needs the extra `local`")
pytest.importorskip("papermill", reason="needs the extra `test`")
pytest.importorskip("jupyter_cache", reason="needs the extra `test`")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reproducible.md").read_text(encoding="utf-8")
OF_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"} | {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.org"))
}

ANALYSIS = (
    "%load_ext llm_magic",
    '%config LLMMagics.model = "local:smollm2"\n%config LLMMagics.record = "once"',
    "%%llm -t 0 --max-tokens 40 --once\nSuggest one name for a small black cat.",
    "%%llm --as int -o legs -t 0 --once\nHow many legs does a cat have?",
    "legs * 2",
    """from llm_magic import LLM

[LLM("local:smollm2").ask("Toss a coin.", choices=["heads", "tails"], temperature=1).value for toss in range(5)]""",
)
REPORT = (
    "%load_ext llm_magic",
    'city = "Paris"',
    '%%llm --choices "Paris,Lima,Tokyo" -t 0 --once\nWe go to {{ city }}. Where do we go?',
)


def write_notebook(path: Path, cells: tuple[str, ...]) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in book.cells:
        if cell.source.startswith("city"):
            cell.metadata.tags = ["parameters"]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(book, path)


def outputs(path: Path) -> list[Any]:
    """Return what the cells show, without what says that an answer was recorded."""
    cells = nbformat.read(path, as_version=4).cells
    shown = json.loads(json.dumps([cell.outputs for cell in cells if cell.cell_type == "code"]))
    for output in [each for cell in shown for each in cell]:
        output.get("metadata", {}).get("llm_magic", {}).pop("recorded", None)
    return [cell for cell in shown if cell]


def sections() -> dict[str, list[list[str]]]:
    """Return the commands of the page: the lines of each block, by heading."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    blocks = {
        heading: [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: found for heading, found in blocks.items() if found}


def run(folder: Path, line: str, /, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the page in a folder; without a network, unless it asks a model."""
    asks = "LLM_MAGIC_RECORD=once" in line or "LLM_MAGIC_RECORD=new" in line
    command = ["bash", "-c", line]
    return subprocess.run(  # noqa: S603 - the page's words
        command if asks else without_network(command, loopback=True),
        cwd=folder,
        env=environment(**OF_GIT, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def follow(folder: Path, heading: str, block: int = 0, /, **variables: str) -> list[subprocess.CompletedProcess[str]]:
    """Run a block of commands; each must succeed. What it installs is there."""
    exported: dict[str, str] = variables
    done = []
    for line in sections()[heading][block]:
        if line.startswith("pip install "):
            continue
        if line.startswith("export "):
            exported |= dict([line.removeprefix("export ").split("=")])
            continue
        done.append(run(folder, line, **exported))
        assert done[-1].returncode == 0, f"{line}\n{done[-1].stdout}\n{done[-1].stderr}"
    return done


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the notebook of the page, which was executed and recorded as the page says."""
    folder = tmp_path_factory.mktemp("page")
    write_notebook(folder / "analysis.ipynb", ANALYSIS)
    write_notebook(folder / "report.ipynb", REPORT)
    follow(folder, "Record")
    return folder


@pytest.fixture
def page(recorded: Path, tmp_path: Path) -> Path:
    """A copy of this folder."""
    return Path(shutil.copytree(recorded, tmp_path / "page"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "llm.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_section_with_commands_is_tested() -> None:
    assert list(sections()) == [
        "Record",
        "What to commit",
        "On a server that has no model",
        "Renew an answer",
        "pytest: nbval",
        "papermill",
        "jupyter-cache",
    ]


@pytest.mark.parametrize("page", [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_what_is_installed_is_in_the_extra_for_tests() -> None:
    installed = re.findall(r"^pip install (.*)$", PAGE, re.MULTILINE)
    assert installed == ["nbval", "papermill", "jupyter-cache"]
    (extra,) = re.findall(r"^test = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(f'"{each}>=' in extra for each in installed)


def test_record(recorded: Path) -> None:
    assert [each["asked"]["kind"] for each in lines(recorded)] == ["answer"] * 7
    shown = outputs(recorded / "analysis.ipynb")
    assert shown[0][0]["data"]["text/plain"] == "A small black cat named Luna."
    assert shown[2][0]["data"]["text/plain"] == "8"
    tosses = [each["answer"]["choices"][0]["text"] for each in lines(recorded)[2:]]
    assert shown[3][0]["data"]["text/plain"] == str(tosses)


def test_a_file_that_is_renamed_is_found(page: Path) -> None:
    (page / "llm.jsonl").rename(page / "analysis.llm.jsonl")
    before = outputs(page / "analysis.ipynb")
    ran = run(page, "LLM_MAGIC_RECORD=only jupyter execute --inplace analysis.ipynb")
    assert ran.returncode == 0, ran.stderr
    assert outputs(page / "analysis.ipynb") == before
    assert not (page / "llm.jsonl").exists()


def test_what_to_commit(page: Path) -> None:
    assert run(page, "git init -q").returncode == 0
    follow(page, "What to commit")
    assert run(page, "git ls-files").stdout.split() == [".gitattributes", "analysis.ipynb", "llm.jsonl"]
    attributes = run(page, "git check-attr merge llm.jsonl analysis.llm.jsonl notes.jsonl").stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in attributes] == ["union", "union", "unspecified"]


def test_on_a_server_that_has_no_model(page: Path) -> None:
    without_extra = page / "without_extra"
    without_extra.mkdir()
    (without_extra / "sitecustomize.py").write_text("import sys\nsys.modules['xllamacpp'] = None\n")
    follow(page, "On a server that has no model", PYTHONPATH=f"{without_extra}{os.pathsep}{ROOT}")
    write_notebook(page / "analysis.ipynb", (ANALYSIS[0], ANALYSIS[2].replace("-t 0", "-t 0.5")))
    ran = run(page, "jupyter execute analysis.ipynb", LLM_MAGIC_RECORD="only")
    assert ran.returncode != 0
    assert "RecordingError: Not recorded, and LLM_MAGIC_RECORD=only sends nothing: " in ran.stderr
    assert "temperature" in ran.stderr


def test_renew_an_answer(page: Path) -> None:
    before = lines(page)
    follow(page, "Renew an answer")
    assert lines(page)[:7] == before
    assert [(each["key"], each["replaces"]) for each in lines(page)[7:]] == [
        (each["key"], place) for each, place in zip(before, [0, 0, 0, 1, 2, 3, 4], strict=True)
    ]
    renewed = outputs(page / "analysis.ipynb")
    assert run(page, "LLM_MAGIC_RECORD=only jupyter execute --inplace analysis.ipynb").returncode == 0
    assert outputs(page / "analysis.ipynb") == renewed


def test_what_is_not_needed_any_more_is_removed(page: Path) -> None:
    follow(page, "Renew an answer")
    renewed = outputs(page / "analysis.ipynb")
    write_notebook(page / "analysis.ipynb", (*ANALYSIS[:3], *ANALYSIS[5:], "%llm_recordings clear --unused"))
    ran = run(page, "LLM_MAGIC_RECORD=only jupyter execute --inplace analysis.ipynb")
    assert ran.returncode == 0, ran.stderr
    assert outputs(page / "analysis.ipynb")[:2] == [renewed[0], [renewed[3][0] | {"execution_count": 4}]]
    assert [each["asked"]["messages"][0]["content"][:7] for each in lines(page)] == ["Suggest", *["Toss a "] * 5]
    write_notebook(page / "analysis.ipynb", (*ANALYSIS[:3], *ANALYSIS[5:]))
    assert run(page, "LLM_MAGIC_RECORD=only jupyter execute --inplace analysis.ipynb").returncode == 0
    assert outputs(page / "analysis.ipynb") == [renewed[0], [renewed[3][0] | {"execution_count": 4}]]


def test_an_answer_of_a_renamed_file_is_renewed(page: Path) -> None:
    (page / "llm.jsonl").rename(page / "analysis.llm.jsonl")
    follow(page, "Renew an answer")
    assert [each["replaces"] for each in lines(page)] == [0, 0, 0, 1, 2, 3, 4]
    renewed = outputs(page / "analysis.ipynb")
    assert run(page, "LLM_MAGIC_RECORD=only jupyter execute --inplace analysis.ipynb").returncode == 0
    assert outputs(page / "analysis.ipynb") == renewed


def test_nbval(page: Path) -> None:
    (ran,) = follow(page, "pytest: nbval")
    assert "6 passed" in ran.stdout


def test_nbval_sees_an_answer_that_changed(page: Path) -> None:
    text = (page / "llm.jsonl").read_text(encoding="utf-8")
    assert "Luna" in text
    (page / "llm.jsonl").write_text(text.replace("Luna", "Nero"), encoding="utf-8")
    ran = run(page, sections()["pytest: nbval"][0][1])
    assert "1 failed, 5 passed" in ran.stdout
    assert ran.returncode == 1


def test_nbval_without_recordings(page: Path) -> None:
    (page / "llm.jsonl").unlink()
    ran = run(page, sections()["pytest: nbval"][0][1])
    assert ran.returncode == 1
    assert "RecordingError: Not recorded, and LLM_MAGIC_RECORD=only sends nothing: " in ran.stdout


def test_papermill(page: Path) -> None:
    install, record, replay = sections()["papermill"][0]
    assert install == "pip install papermill"
    assert run(page, record).returncode == 0
    asked = outputs(page / "report-lima.ipynb")
    assert asked[0][0]["data"]["text/plain"] == "Lima"
    assert len(lines(page)) == 8
    ran = run(page, replay)
    assert ran.returncode == 0, ran.stderr
    assert outputs(page / "report-lima.ipynb") == asked
    assert len(lines(page)) == 8
    other = run(page, replay.replace("Lima", "Tokyo"))
    assert other.returncode != 0
    assert "RecordingError: Not recorded, and LLM_MAGIC_RECORD=only sends nothing: " in other.stderr
    reports = page / "reports"
    write_notebook(reports / "report.ipynb", REPORT)
    (page / "llm.jsonl").rename(reports / "report.llm.jsonl")
    follow(page, "papermill", 1)
    assert outputs(reports / "lima.ipynb") == asked


def test_jupyter_cache(page: Path) -> None:
    before = outputs(page / "analysis.ipynb")
    write_notebook(page / "analysis.ipynb", ANALYSIS)
    follow(page, "jupyter-cache")
    assert outputs(page / "analysis-with-outputs.ipynb") == before
    (page / "analysis-with-outputs.ipynb").unlink()
    follow(page, "jupyter-cache", 1)
    merged = run(page, sections()["jupyter-cache"][0][-1])
    assert merged.returncode == 0, merged.stderr
    assert outputs(page / "analysis-with-outputs.ipynb") == before


def test_jupyter_cache_with_a_prompt_that_is_not_recorded(page: Path) -> None:
    (page / "llm.jsonl").unlink()
    _, add, execute, merge = sections()["jupyter-cache"][0]
    assert run(page, add).returncode == 0
    ran = run(page, execute)
    assert (ran.returncode, "RecordingError" in ran.stderr) == (0, True)
    assert run(page, merge).returncode != 0
