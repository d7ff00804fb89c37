"""Each cell of `docs/many_rows.md` runs in a kernel, one after the other, and does what the page says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Ran

pytest.importorskip("xllamacpp", reason="needs the extra `local`")

PAGE = (Path(__file__).parents[1] / "docs" / "many_rows.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, dict[str, Ran]]]:
    """A kernel in which the page was run, and what became of each cell."""
    folder = tmp_path_factory.mktemp("page")
    with Kernel(XDG_STATE_HOME=str(folder / "state")) as kernel:
        kernel.run(f"import os; os.chdir({str(folder)!r})").check()
        yield kernel, {cell: kernel.run(cell).check() for cell in CELLS}


def shown(page: tuple[Kernel, dict[str, Ran]], words: str) -> str:
    """Return what the only cell shows that has these words."""
    (ran,) = (ran for cell, ran in page[1].items() if words in cell)
    return "\n".join([*ran.of_type("text/plain"), ran.stdout])


def test_a_frame_comes_back(page: tuple[Kernel, dict[str, Ran]]) -> None:
    kernel, _ = page
    assert kernel.value("(topic.columns.tolist(), topic.index.tolist())") == (
        ["text", "stars", "topic"],
        ["ann", "bob", "cem"],
    )
    assert kernel.value("topic.topic.isin(['price', 'quality', 'service']).all().item()")


def test_other_inputs_give_answers(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("(type(angry).__name__, len(angry), angry.failed)") == ("Answers", 2, [])


def test_fields_are_columns_with_dtypes(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("labelled.dtypes.map(str).to_dict()") == {
        "text": "str",
        "stars": "int64",
        "topic": "category",
        "urgent": "bool",
    }


def test_a_row_that_fails_is_an_error(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("parts.error.notna().to_dict()") == {"ann": False, "bob": False, "cem": True}


def test_a_dry_run_sends_nothing(page: tuple[Kernel, dict[str, Ran]]) -> None:
    text = shown(page, "--dry-run")
    assert "3 rows, 3 different prompts: 3 requests to send." in text
    assert "Nothing was sent" in text


def test_a_sample_tells_of_all(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert "A sample of 2 rows" in shown(page, "--sample 2")
    assert "all 3: about" in shown(page, "--sample 2")


def test_a_budget_ends_it(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("[value is None for value in some]") == [False, False, True]
    assert page[0].value("type(some.errors[2]).__name__") == "BudgetError"


def test_the_background_and_python(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("(len(later), len(answers), answers.failed)") == (3, 3, [])
    assert sorted(line.split()[0] for line in shown(page, "async for").splitlines()) == ["0", "1", "2"]


def test_recordings_are_beside_the_notebook(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert page[0].value("len(open('llm.jsonl').read().splitlines())") == 3


def test_what_was_kept_is_removed(page: tuple[Kernel, dict[str, Ran]]) -> None:
    assert "removed" in shown(page, "clear --rows").lower()
    assert page[0].value("[*__import__('pathlib').Path(os.environ['XDG_STATE_HOME']).rglob('*.jsonl')]") == []


def test_whole_numbers_with_gaps(page: tuple[Kernel, dict[str, Ran]]) -> None:
    kernel, _ = page
    asks = "llm.map('How many legs has a cat? {{ 4 // item }}', [%s], output_type=int, on_error='keep')"
    kernel.run(f"whole, gaps = {asks % '1, 1'}.to_frame(), {asks % '1, 0'}.to_frame()").check()
    assert kernel.value("(str(whole.value.dtype), str(gaps.value.dtype))") == ("int64", "Int64")


def test_the_extras_are_there() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'pip install "llm_magic\[(\w+)\]"', PAGE)
    assert named == ["dask", "many"]
    assert '\ndask = ["dask[distributed]' in project
    assert '\nmany = ["openai[aiohttp]"' in project
