"""Recordings as the cells of a session share them: which answer each request gets, and what is not written."""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from llm_magic.errors import RecordingError
from llm_magic.options import Record
from llm_magic.recordings import Recordings
from llm_magic.recordings.answers import answer_of_vectors
from llm_magic.recordings.recording import Recording
from llm_magic.recordings.secrecy import secret_in
from llm_magic.secrets import Secret


def asked(prompt: str, **parameters: Any) -> dict[str, Any]:
    return {
        "kind": "answer",
        "provider": "vllm",
        "messages": [{"role": "user", "content": prompt}],
        "parameters": parameters,
    }


def answer(text: str) -> dict[str, Any]:
    return {"attempts": [], "choices": [{"text": text, "finish_reason": "stop"}], "seconds": 1}


class Kernel:
    """One session: it asks a model that says 1, 2, 3, …, and counts what is asked."""

    def __init__(
        self, folder: Path, *others: str, file: str = "notes.llm.jsonl", model: Iterable[int] | None = None
    ) -> None:
        self.said: list[str] = []
        self.recordings = Recordings(
            lambda: (folder / file, tuple(folder / other for other in others)), self.said.append
        )
        self.path = folder / file
        self.model = iter(range(1, 1_000) if model is None else model)
        self.runs = 0
        self.requests = 0

    def cell(self, *prompts: Any, cell: str | None = "c", mode: Record = "once") -> list[str]:
        """Run a cell that asks; return what it got."""
        self.runs += 1
        return [self.ask(prompt, cell, self.runs, mode) for prompt in prompts]

    def ask(self, prompt: Any, cell: str | None, run: int, mode: Record) -> str:
        wanted = asked(prompt) if isinstance(prompt, str) else prompt
        known = self.recordings.known(wanted, cell, run, mode)
        if known is not None:
            return str(known.answer["choices"][0]["text"])
        if mode == "only":
            return "not recorded"
        self.requests += 1
        text = str(next(self.model))
        assert self.recordings.add(wanted, answer(text), cell, run, mode) == ""
        return text


def test_equal_requests_of_one_cell_keep_their_answers_in_order(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    assert first.cell(*["Hi"] * 5) == ["1", "2", "3", "4", "5"]
    again = Kernel(tmp_path)
    assert again.cell(*["Hi"] * 5) == ["1", "2", "3", "4", "5"]
    assert again.requests == 0


def test_equal_requests_of_five_cells_keep_theirs(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    assert [first.cell("Hi", cell=cell) for cell in "abcde"] == [["1"], ["2"], ["3"], ["4"], ["5"]]
    again = Kernel(tmp_path)
    assert [again.cell("Hi", cell=cell) for cell in "edcba"] == [["5"], ["4"], ["3"], ["2"], ["1"]]
    assert again.requests == 0


def test_a_cell_that_runs_again_gets_what_it_had(tmp_path: Path) -> None:
    for kernel in (Kernel(tmp_path), Kernel(tmp_path)):
        for _ in range(3):
            assert kernel.cell("Hi", "Hi", cell="a") == ["1", "2"]
            assert kernel.cell("Hi", cell="b") == ["3"]
    assert kernel.requests == 0


def test_two_runs_of_one_cell_go_on_side_by_side(tmp_path: Path) -> None:
    Kernel(tmp_path).cell(*["Hi"] * 3)
    kernel = Kernel(tmp_path)
    assert [kernel.ask("Hi", "c", run, "only") for run in (1, 2, 1, 2, 2, 1)] == ["1", "1", "2", "2", "3", "3"]


def test_where_nobody_tells_the_cell_answers_go_by_their_order(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    for cell in "abc":
        first.cell("Hi", cell=cell)
    executed = Kernel(tmp_path)
    assert [executed.cell("Hi", cell=None, mode="only") for _ in range(4)] == [["1"], ["2"], ["3"], ["3"]]


def test_what_was_recorded_without_cells_is_given_to_cells_in_order(tmp_path: Path) -> None:
    assert [Kernel(tmp_path).cell("Hi", "Hi", "Hi", cell=None)] == [["1", "2", "3"]]
    kernel = Kernel(tmp_path)
    assert [kernel.cell("Hi", cell=cell) for cell in "bab"] == [["1"], ["2"], ["1"]]
    assert kernel.cell("Hi", "Hi", cell="a") == ["2", "3"]
    assert kernel.requests == 0


def test_a_cell_that_was_copied_gets_the_first_that_nobody_had(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi", "Hi", cell="a")
    kernel = Kernel(tmp_path)
    assert kernel.cell("Hi", cell="copy") == ["1"]
    assert kernel.cell("Hi", "Hi", "Hi", cell="a") == ["1", "2", "3"]


def test_past_the_last_only_gives_the_last(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi")
    kernel = Kernel(tmp_path)
    assert kernel.cell("Hi", "Hi", "Hi", "Hi", mode="only") == ["1", "2", "2", "2"]
    assert kernel.cell("Ho", mode="only") == ["not recorded"]
    assert kernel.cell("Hi", "Hi", "Hi", mode="only") == ["1", "2", "2"]
    assert kernel.requests == 0


def test_past_the_last_once_asks_and_records(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi")
    kernel = Kernel(tmp_path, model=[10, 11])
    assert kernel.cell("Hi", "Hi", "Hi") == ["1", "2", "10"]
    assert kernel.cell("Hi", "Hi", "Hi") == ["1", "2", "10"]
    assert Kernel(tmp_path).cell("Hi", "Hi", "Hi") == ["1", "2", "10"]
    assert kernel.requests == 1


@pytest.mark.parametrize("parameters", [{"temperature": 0}, {"temperature": 0.0}, {"temperature": 1, "seed": 0}])
def test_what_is_deterministic_is_asked_once(tmp_path: Path, parameters: dict[str, Any]) -> None:
    kernel, wanted = Kernel(tmp_path), asked("Hi", **parameters)
    assert kernel.cell(wanted, wanted, wanted) == ["1", "1", "1"]
    assert kernel.cell(wanted, cell="other") == ["1"]
    assert kernel.requests == 1


def test_new_asks_again_and_replaces(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi", "Ho")
    kernel = Kernel(tmp_path, model=range(10, 20))
    assert kernel.cell("Hi", mode="new") == ["10"]
    assert kernel.cell("Hi", "Hi", "Hi", mode="new") == ["11", "12", "13"]
    assert kernel.cell("Hi", "Hi", "Hi", "Ho") == ["11", "12", "13", "3"]
    again = Kernel(tmp_path)
    assert again.cell("Hi", "Hi", "Hi", "Ho") == ["11", "12", "13", "3"]
    assert again.requests == 0


def test_new_of_one_cell_leaves_the_others(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    for cell in "abc":
        first.cell("Hi", cell=cell)
    assert Kernel(tmp_path, model=[10]).cell("Hi", cell="b", mode="new") == ["10"]
    kernel = Kernel(tmp_path)
    assert [kernel.cell("Hi", cell=cell) for cell in "abc"] == [["1"], ["10"], ["3"]]


def test_a_request_that_fails_leaves_its_place(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert kernel.recordings.known(asked("Hi"), "c", 1, "once") is None  # and fails
    assert kernel.recordings.known(asked("Hi"), "c", 2, "once") is None
    assert kernel.recordings.add(asked("Hi"), answer("one"), "c", 2, "once") == ""
    kernel.runs = 2
    assert kernel.cell("Hi", "Hi") == ["one", "1"]
    assert Kernel(tmp_path).cell("Hi", "Hi") == ["one", "1"]


def test_requests_that_run_at_once_keep_the_order_in_which_they_were_asked(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    found = [kernel.recordings.look_up(asked("Hi"), "c", 1, "once") for _ in range(4)]
    for number in (2, 0, 3, 1):
        assert kernel.recordings.keep(found[number], answer(str(number))) == ""
    for again in (kernel, Kernel(tmp_path)):
        again.runs = 1
        assert again.cell("Hi", "Hi", "Hi", "Hi", cell="c") == ["0", "1", "2", "3"]
        assert again.requests == 0


def test_requests_that_run_at_once_are_known_by_what_they_ask_with(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    wanted = [asked("Hi") for _ in range(4)]
    assert [kernel.recordings.known(each, "c", 1, "once") for each in wanted] == [None] * 4
    for number in (2, 0, 3):  # one fails
        assert kernel.recordings.add(wanted[number], answer(str(number)), "c", 1, "once") == ""
    again = Kernel(tmp_path)
    assert again.cell("Hi", "Hi", "Hi", mode="only") == ["0", "2", "3"]
    kernel.runs = 1
    assert kernel.cell("Hi", "Hi", "Hi", "Hi") == ["0", "1", "2", "3"]


def test_of_those_that_run_at_once_one_may_fail(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    found = [kernel.recordings.look_up(asked("Hi"), None, 1, "once") for _ in range(3)]
    for number in (2, 0):
        assert kernel.recordings.keep(found[number], answer(str(number))) == ""
    again = Kernel(tmp_path, model=[7])
    assert again.cell("Hi", "Hi", "Hi", cell=None) == ["0", "2", "7"]


def test_two_kernels_record_the_same_at_once(tmp_path: Path) -> None:
    one, two = Kernel(tmp_path), Kernel(tmp_path)
    first = one.recordings.look_up(asked("Hi"), "a", 1, "once")
    second = two.recordings.look_up(asked("Hi"), "b", 1, "once")
    assert two.recordings.keep(second, answer("two's")) == ""
    assert one.recordings.keep(first, answer("one's")) == ""
    one.runs = two.runs = 1
    assert one.cell("Hi", cell="a") == ["one's"]
    assert two.cell("Hi", cell="b") == ["two's"]
    assert (one.requests, two.requests) == (0, 0)
    fresh = Kernel(tmp_path)
    assert [fresh.cell("Hi", cell=cell) for cell in "ab"] == [["one's"], ["two's"]]


def test_further_files_come_first_and_are_not_written(tmp_path: Path) -> None:
    Kernel(tmp_path, file="a.llm.jsonl", model=[1, 2]).cell("Hi", "Hi", cell=None)
    Kernel(tmp_path, file="b.llm.jsonl", model=[3]).cell("Hi", cell=None)
    before = {name: (tmp_path / name).read_bytes() for name in ("a.llm.jsonl", "b.llm.jsonl")}
    kernel = Kernel(tmp_path, "a.llm.jsonl", "b.llm.jsonl", file="llm.jsonl", model=[4, 5])
    assert kernel.cell("Hi", "Hi", "Hi", "Hi", cell=None) == ["1", "2", "3", "4"]
    replacing = Kernel(tmp_path, "a.llm.jsonl", "b.llm.jsonl", file="llm.jsonl", model=[5])
    assert replacing.cell("Hi", cell=None, mode="new") == ["5"]
    again = Kernel(tmp_path, "a.llm.jsonl", "b.llm.jsonl", file="llm.jsonl")
    assert again.cell("Hi", "Hi", "Hi", "Hi", cell=None) == ["5", "2", "3", "4"]
    assert again.requests == 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_what_is_found_and_none_is_passed_over_and_said_once(tmp_path: Path) -> None:
    (tmp_path / "a.llm.jsonl").write_text("a diary\n")
    kernel = Kernel(tmp_path, "a.llm.jsonl", "gone.llm.jsonl")
    assert kernel.cell("Hi") == ["1"]
    assert kernel.cell("Ho") == ["2"]
    assert kernel.said == [f"{tmp_path / 'a.llm.jsonl'} is no file of recordings. It is passed over."]


def test_the_file_to_write_has_to_be_one(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.path.write_text("a diary\n")
    with pytest.raises(RecordingError, match=r"notes\.llm\.jsonl is no file of recordings"):
        kernel.cell("Hi")
    assert kernel.recordings.add(asked("Hi"), answer("x"), "c", 1, "once").startswith("Not recorded: ")
    assert kernel.path.read_text() == "a diary\n"


def test_the_file_may_be_another_for_each_request(tmp_path: Path) -> None:
    paths = [tmp_path / "a.llm.jsonl"]
    recordings = Recordings(lambda: (paths[0], ()), print)
    recordings.add(asked("Hi"), answer("one"), "c", 1, "once")
    paths[0] = tmp_path / "b.llm.jsonl"
    assert recordings.known(asked("Hi"), "c", 2, "only") is None
    paths[0] = tmp_path / "a.llm.jsonl"
    assert recordings.known(asked("Hi"), "c", 3, "only") is not None


def test_damage_is_passed_over_and_the_next_is_given(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    first.cell("Hi", "Hi")
    data = first.path.read_bytes()
    first.path.write_bytes(data.replace(b'"content": "Hi"', b'"content": "Ho"', 1))
    kernel = Kernel(tmp_path)
    assert kernel.cell("Hi", mode="only") == ["2"]
    (said,) = kernel.said
    assert "line 1 is passed over" in said


def test_an_answer_that_is_none_names_its_line(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    first.cell("Hi")
    first.path.write_bytes(first.path.read_bytes().replace(b'"text": "1"', b'"text": 1'))
    for mode in ("once", "only"):
        with pytest.raises(RecordingError, match=r"line 1: answer\.choices\[0\]\.text is no text"):
            Kernel(tmp_path).cell("Hi", mode=mode)  # type: ignore[arg-type]  # a mode


def test_whoever_had_it(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert not kernel.recordings.has(asked("Hi"), None, 0, "only")
    assert kernel.recordings.latest(asked("Hi")) is None
    kernel.cell("Hi", "Hi")
    assert kernel.recordings.has(asked("Hi"), None, 0, "only")
    latest = kernel.recordings.latest(asked("Hi"))
    assert latest is not None
    assert latest.answer["choices"][0]["text"] == "2"


def test_threads_record_and_are_answered_at_once(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    got: dict[str, list[str]] = {}

    def work(cell: str) -> None:
        for number in range(20):
            wanted = asked(f"Hi {number % 4}")
            assert kernel.recordings.known(wanted, cell, 1, "once") is None
            assert kernel.recordings.add(wanted, answer(f"{cell}{number}"), cell, 1, "once") == ""

    def again(cell: str) -> None:
        known = [kernel.recordings.known(asked(f"Hi {number % 4}"), cell, 2, "only") for number in range(20)]
        got[cell] = [each.answer["choices"][0]["text"] for each in known if each is not None]

    for target in (work, again):
        threads = [threading.Thread(target=target, args=(cell,)) for cell in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {cell: [f"{cell}{number}" for number in range(20)] for cell in "abcd"}


def test_memory_does_not_grow_with_what_fails(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    for number in range(12_000):
        kernel.recordings.known(asked(f"Hi {number}"), None, number, "once")
    assert len(kernel.recordings._asking) == 10_000


# --- listed and cleared


def test_what_was_used_is_known(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi", "Ho")
    kernel = Kernel(tmp_path, model=[7])
    kernel.cell("Ho", "Ha")
    listed = kernel.recordings.listed()
    assert [each.used for each in listed] == [False, False, True, True]
    read = [each.read() for each in listed]
    assert [each.answer["choices"][0]["text"] for each in read if each is not None] == ["1", "2", "3", "7"]
    assert {each.file for each in listed} == {kernel.path}


def test_unused_ones_are_cleared(tmp_path: Path) -> None:
    Kernel(tmp_path).cell("Hi", "Hi", "Ho", "Ha")
    kernel = Kernel(tmp_path)
    with pytest.raises(RecordingError, match="No recording was used in this session yet"):
        kernel.recordings.clear(unused=True)
    kernel.cell("Ho", "Hi")
    assert kernel.recordings.clear(unused=True) == (kernel.path, 2, 2)
    assert kernel.recordings.clear(unused=True) == (kernel.path, 0, 2)
    assert kernel.cell("Ho", "Hi") == ["3", "1"]
    assert Kernel(tmp_path).cell("Hi", "Ho", "Hi", mode="only") == ["1", "3", "1"]
    assert kernel.requests == 0


def test_all_are_cleared(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert kernel.recordings.clear() == (kernel.path, 0, 0)
    assert not kernel.path.exists()
    kernel.cell("Hi", "Ho")
    assert kernel.recordings.clear() == (kernel.path, 2, 0)
    assert kernel.path.read_bytes() == b""
    assert kernel.cell("Hi") == ["3"]


# --- what is not written

KEY = "sk-Zx8vPqLm2Rt5Yw9K"
PLAIN = "tiger/lily & rose"


@pytest.mark.parametrize("secret", [KEY, PLAIN, Secret(KEY), Secret(PLAIN, key=True), Secret("a-b", key=True)])
@pytest.mark.parametrize(
    "spelled", [str, quote, lambda text: b64encode(text.encode()).decode(), lambda text: text.replace("/", "\\/")]
)
@pytest.mark.parametrize("where", ["prompt", "answer", "field"])
def test_a_line_with_a_known_secret_is_not_written(tmp_path: Path, secret: str, spelled: Any, where: str) -> None:
    value = secret.reveal() if isinstance(secret, Secret) else secret
    text = f"It is {spelled(value)} so it is"
    wanted = asked(text if where == "prompt" else "Hi", **({"user": text} if where == "field" else {}))
    given = answer(text if where == "answer" else "Hello")
    kernel = Kernel(tmp_path)
    if len(value) < 8 and spelled is not str:
        pytest.skip("a short key is looked for as it is")
    assert kernel.recordings.known(wanted, "c", 1, "once") is None
    said = kernel.recordings.add(wanted, given, "c", 1, "once", secrets=(secret, "other-s3cret"))
    assert said == "Not recorded: the answer, or what was asked, holds a key."
    assert not kernel.path.exists()
    assert value not in said


def test_a_secret_of_the_environment_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_API_KEY", PLAIN)
    monkeypatch.setenv("HOUSE_URL", "https://house.example")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    kernel = Kernel(tmp_path)
    said = kernel.recordings.add(asked(f"Use {PLAIN}"), answer("x"), "c", 1, "once")
    assert said == (
        "Not recorded: the answer, or what was asked, holds the value of the environment variable HOUSE_API_KEY."
    )
    assert not kernel.path.exists()
    assert kernel.recordings.add(asked("abc https://house.example"), answer("x"), "c", 1, "once") == ""


def test_what_merely_looks_like_a_key_is_written(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    text = "from huggingface_hub import hf_hub_download; pk_column_name; Authorization: Bearer TOKEN_HERE_123"
    assert kernel.recordings.add(asked(text), answer(text), "c", 1, "once", secrets=(KEY,)) == ""


def test_vectors_are_not_searched() -> None:
    vectors = answer_of_vectors([[0.5] * 1_000] * 200)
    held = secret_in(Recording({"kind": "embeddings", "input": []}, vectors), (vectors["vectors"][:40],), {})
    assert held == ""


# --- where it cannot be written


def test_a_folder_that_is_gone_gives_the_answer_and_says_so(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "gone")
    assert kernel.recordings.known(asked("Hi"), "c", 1, "once") is None
    said = kernel.recordings.add(asked("Hi"), answer("x"), "c", 1, "once")
    assert said == f"Not recorded: {kernel.path} cannot be written: No such file or directory."


def test_a_working_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    def files() -> tuple[Path, tuple[Path, ...]]:
        raise FileNotFoundError(2, os.strerror(2))

    recordings = Recordings(files, print)
    assert recordings.add(asked("Hi"), answer("x"), "c", 1, "once") == (
        "Not recorded: There is no file of recordings: No such file or directory."
    )


def test_what_cannot_be_data_says_so(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    said = kernel.recordings.add(asked("Hi", stop=object()), answer("x"), "c", 1, "once")
    assert said.startswith("Not recorded: What was asked cannot be recorded")
    said = kernel.recordings.add(asked("Hi"), {"choices": [object()]}, "c", 1, "once")
    assert said.startswith("Not recorded: The answer cannot be recorded")


def test_what_is_nearest_is_said(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert kernel.recordings.nearest(asked("Hi")) == f"{kernel.path} holds no recordings."
    kernel.cell(asked("Hi", temperature=0))
    assert kernel.recordings.nearest(asked("Hi", temperature=0.2)) == "recorded with temperature 0, asked with 0.2."


def test_whether_it_would_be_answered_now(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.cell("Hi", "Hi")
    assert kernel.recordings.has(asked("Hi"), None, 0, "only")
    assert not kernel.recordings.has(asked("Hi"), None, 0, "once")  # an equal request of another cell is asked
    assert not kernel.recordings.has(asked("Hi"), None, 0, "new")
    assert Kernel(tmp_path).recordings.has(asked("Hi"), None, 0, "once")
