"""`--batch-file`: rows written for another program, its results fetched, and found by the same cell, on any day."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from kernels import Kernel
from servers import document

from llm_magic import LLM, api
from llm_magic.batches.batch_file.fetched_file import fetch
from llm_magic.batches.batch_file.rows_in_file import RowsInFile
from llm_magic.batches.jsonl import input_file
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.config.settings import Settings
from llm_magic.errors import ConnectionFailedError, LLMError, OptionError, RowsFailedError, UnsupportedError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

NOWHERE = "http://127.0.0.1:1/v1"
PROMPT = "How many legs has {{ item }}? Answer with one number."
ANIMALS = ["a dog", "a bird", "a spider", "x " * 5000, "a snake"]
TYPED: dict[str, Any] = {"output_type": int, "max_tokens": 20, "temperature": 0}
OF_RUN_BATCH = Path(__file__).with_name("vllm_run_batch.out.jsonl")
"""What vLLM's `run_batch` wrote of `PROMPT` over `ANIMALS`, as `TYPED` asks for it."""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield
    session.close()
    api.activate(None)


@pytest.fixture
def llm() -> LLM:
    return LLM("vllm:smollm2", base_url=NOWHERE)


def written(llm: LLM, inputs: Any = ("1", "2", "3"), name: str = "rows.jsonl", **options: Any) -> RowsInFile:
    batch = llm.batch("Say {{ item }}", inputs, batch_file=name, **options)
    assert isinstance(batch, RowsInFile)
    return batch


def lines(name: str = "rows.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def said(line: dict[str, Any]) -> str:
    text: str = line["body"]["messages"][-1]["content"]
    return text.partition("\n")[0].removeprefix("Say ")


def result(custom_id: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = {"id": "c", "object": "chat.completion", "model": "smollm2", "choices": [choice], "usage": usage}
    return {"id": "r", "custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def refused(custom_id: str, message: str = "too long") -> dict[str, Any]:
    response = {"status_code": 400, "request_id": "r", "body": None}
    return {"id": "r", "custom_id": custom_id, "response": response, "error": {"error": {"message": message}}}


def answer(of: Callable[[str], str | None] = str, name: str = "rows.jsonl", output: str = "rows.out.jsonl") -> Path:
    """Write the results of a file in another order; None is refused, and what raises KeyError is left out."""
    made = []
    for line in reversed(lines(name)):
        try:
            text = of(said(line))
        except KeyError:
            continue
        made.append(refused(line["custom_id"]) if text is None else result(line["custom_id"], text))
    Path(output).write_text("".join(f"{json.dumps(each)}\n" for each in made))
    return Path(output)


def only(texts: dict[str, str | None]) -> Callable[[str], str | None]:
    return texts.__getitem__


def test_rows_are_written_for_another_program_and_nothing_is_sent(llm: LLM, tmp_path: Path) -> None:
    batch = written(llm, output_type=int)
    assert [said(line) for line in lines()] == ["1", "2", "3"]
    assert {(line["method"], line["url"], line["body"]["model"]) for line in lines()} == {
        ("POST", "/v1/chat/completions", "smollm2")
    }
    assert all("structured_outputs" in line["body"] and "stream" not in line["body"] for line in lines())
    assert (batch.status, batch.rows, batch.file, batch.counts) == ("written", 3, tmp_path / "rows.jsonl", (0, 0, 3))
    assert (batch.id, batch.ids, batch.cancel(), batch.done()) == ("", (), False, True)
    assert repr(batch) == "<RowsInFile rows.jsonl of vllm:smollm2: 3 rows written>"
    assert batch._repr_mimebundle_() == {"text/plain": repr(batch)}
    assert batch.command == "vllm run-batch -i rows.jsonl -o rows.out.jsonl --model MODEL --served-model-name smollm2"
    with pytest.raises(LLMError, match=r"rows.jsonl has 3 rows. Nothing was sent.\n.*batch.fetch"):
        batch.result()
    (record,) = BatchFolder().all()
    assert (record.step, record.file, record.rows, record.provider) == ("written", str(batch.file), 3, "vllm")
    names = sorted(path.name for path in BatchFolder().place.iterdir() if not path.name.endswith(".lock"))
    assert names == [f"{record.id}.ids", f"{record.id}.json"]
    assert files(tmp_path) == ["rows.jsonl", "state"]


def test_it_is_as_readable_as_other_files_of_the_user(llm: LLM) -> None:
    umask = os.umask(0o027)
    try:
        written(llm)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(Path("rows.jsonl").stat().st_mode) == 0o640
    written(llm, ("1", "2"))
    assert len(lines()) == 2
    assert stat.S_IMODE(Path("rows.jsonl").stat().st_mode) == 0o640


def test_a_name_as_in_a_hub_is_the_model_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my rows").mkdir()
    batch = written(LLM("vllm:org/model", base_url=NOWHERE), name="~/my rows/a.jsonl")
    place = tmp_path / "my rows"
    assert batch.command == f"vllm run-batch -i '{place}/a.jsonl' -o '{place}/a.out.jsonl' --model org/model"


@pytest.mark.parametrize("model", ["openai:gpt-x", "compatible:m", "azure:deployment"])
def test_no_key_and_no_address_is_needed_for_what_is_not_sent(model: str) -> None:
    options = {"base_url": NOWHERE} if not model.startswith("openai") else {}
    batch = written(LLM(model, **options))  # type: ignore[arg-type]  # an option of all calls
    assert (batch.rows, batch.command) == (3, "")


def test_what_was_fetched_is_found_by_the_same_call(llm: LLM) -> None:
    batch = written(llm, output_type=int)
    texts = fetch(answer())
    assert texts.values == ["1", "2", "3"]
    assert texts.notes == ("These are texts; the cell that wrote the rows, run again, has them as values of its type.",)
    assert [each.step for each in BatchFolder().all()] == ["fetched"]
    again = written(llm, output_type=int)
    assert (again.status, again.result().values, again.counts, again.file) == ("completed", [1, 2, 3], (3, 0, 3), None)
    assert again.result().statistics.known == 0
    assert batch.fetch("rows.out.jsonl").values == [1, 2, 3]


def test_a_call_without_a_file_finds_it_as_well_and_asks_for_nothing(llm: LLM) -> None:
    written(llm, output_type=int)
    fetch(answer(only({"1": "1", "2": None, "3": "many"})))
    answers = llm.map("Say {{ item }}", ("1", "2", "3"), output_type=int, on_error="keep")
    assert answers.values == [1, None, None]
    assert [type(each).__name__ for each in answers.errors] == ["NoneType", "RequestRefusedError", "InvalidValueError"]
    assert [each.step for each in BatchFolder().all()] == ["read"]
    written(llm, output_type=int, name="rest.jsonl")
    assert [said(line) for line in lines("rest.jsonl")] == ["2", "3"]


def test_typed_answers_come_with_their_failures_and_only_these_are_written_again(llm: LLM) -> None:
    batch = written(llm, output_type=int)
    answer(only({"1": "1", "2": None, "3": "many"}))
    with pytest.raises(RowsFailedError, match="2 of 3 failed: 1 RequestRefusedError, 1 InvalidValueError"):
        batch.fetch("rows.out.jsonl")
    rest = written(llm, output_type=int)
    assert (rest.rows, [said(line) for line in lines()]) == (2, ["2", "3"])
    assert rest.fetch(answer()).values == [1, 2, 3]


def test_a_program_that_ended_early_leaves_rows_that_are_written_again(llm: LLM) -> None:
    written(llm)
    fetch(answer(only({"2": "two"})))
    with pytest.raises(RowsFailedError, match="2 of 3 failed: 2 NotAskedError"):
        written(llm)
    assert written(llm).rows == 2
    fetch(answer())
    assert written(llm).result().values == ["1", "two", "3"]


def test_results_that_come_in_several_files_are_put_together(llm: LLM) -> None:
    written(llm)
    assert fetch(answer(only({"2": "two", "1": None}))).values == [None, "two", None]
    assert fetch(answer(only({"1": "one", "2": None}))).values == ["one", "two", None]
    assert fetch(answer(only({"3": "three"}))).values == ["one", "two", "three"]
    assert written(llm).result().values == ["one", "two", "three"]


def test_new_rows_are_written_beside_answers_which_stay(llm: LLM) -> None:
    written(llm)
    fetch(answer())
    more = written(llm, ("1", "2", "3", "4"))
    assert (more.rows, [said(line) for line in lines()]) == (1, ["4"])
    fetch(answer())
    assert written(llm, ("1", "2", "3", "4")).result().values == ["1", "2", "3", "4"]


def test_the_same_rows_are_not_remembered_twice_and_fewer_are_forgotten_for_more(llm: LLM) -> None:
    first = written(llm)
    data = Path("rows.jsonl").read_bytes()
    assert (written(llm).rows, Path("rows.jsonl").read_bytes(), len(BatchFolder().all())) == (3, data, 1)
    written(llm, ("1", "2", "3", "4"))
    assert [each.rows for each in BatchFolder().all()] == [4]
    Path("rows.jsonl").unlink()
    written(llm, ("1", "2", "3", "4"))
    assert [each.rows for each in BatchFolder().all()] == [4]
    assert first.rows == 3


def test_again_writes_all_rows(llm: LLM) -> None:
    written(llm)
    fetch(answer())
    batch = written(llm, again=True)
    assert batch.rows == 3
    assert batch.fetch(answer(lambda text: f"{text}{text}")).values == ["11", "22", "33"]


def test_equal_rows_have_answers_each_and_are_written_once_at_temperature_0(llm: LLM) -> None:
    batch = written(llm, ("1", "1", "2"))
    assert batch.rows == 3
    assert batch.fetch(answer()).values == ["1", "1", "2"]
    once = written(llm, ("1", "1", "2"), name="once.jsonl", temperature=0)
    assert once.rows == 2
    assert once.fetch(answer(name="once.jsonl")).values == ["1", "1", "2"]


def test_rows_that_cannot_be_asked_are_told_and_the_others_written(llm: LLM) -> None:
    batch = llm.batch("{{ item }}", ["a", "", "b\ud800"], batch_file="rows.jsonl")
    assert isinstance(batch, RowsInFile)
    assert batch.rows == 1
    with pytest.raises(LLMError, match=r"has 1 row \(2 rows that cannot be asked for, the first: .+\). Nothing"):
        batch.result()


def test_all_that_vllm_wrote_is_read(llm: LLM) -> None:
    batch = llm.batch(PROMPT, ANIMALS, batch_file="rows.jsonl", **TYPED)
    assert isinstance(batch, RowsInFile)
    assert {line["custom_id"] for line in lines()} == {
        json.loads(line)["custom_id"] for line in OF_RUN_BATCH.read_text().splitlines()
    }
    texts = fetch(OF_RUN_BATCH)
    assert [isinstance(json.loads(text)["value"], int) for text in texts.values if text] == [True] * 4
    with pytest.raises(RowsFailedError) as failed:
        batch.fetch(OF_RUN_BATCH)
    answers = failed.value.answers
    assert [type(each) for each in answers.values] == [int, int, int, type(None), int]
    assert answers.failed == [3]
    assert str(answers.errors[3]).startswith("The prompt has at least 4,097 tokens, and the context of vllm:smollm2")
    assert llm.batch(PROMPT, ANIMALS, batch_file="rest.jsonl", **TYPED).counts.total == 1


def test_vllm_reads_what_is_written_and_its_results_are_read(llm: LLM) -> None:
    python = os.environ.get("LLM_MAGIC_TEST_VLLM_PYTHON", "")
    model = os.environ.get("LLM_MAGIC_TEST_VLLM_MODEL", "")
    if not python or not model:
        pytest.skip("needs vLLM's Python and a folder of weights: set LLM_MAGIC_TEST_VLLM_PYTHON and …_VLLM_MODEL")
    batch = llm.batch(PROMPT, ANIMALS, batch_file="rows.jsonl", **TYPED)
    assert isinstance(batch, RowsInFile)
    command = [python, "-m", "vllm.entrypoints.launchers.run_batch", *batch.command.split()[2:]]
    command[command.index("MODEL")] = model
    command += ["--max-model-len", "4096", "--dtype", "bfloat16", "--enforce-eager"]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    ran = subprocess.run(  # noqa: S603 - the program that the file is for
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    with pytest.raises(RowsFailedError) as failed:
        batch.fetch("rows.out.jsonl")
    assert [type(each) for each in failed.value.answers.values] == [int, int, int, type(None), int]


# What is there already


def test_a_file_that_the_cell_did_not_write_stays(llm: LLM) -> None:
    Path("rows.jsonl").write_text("mine\n")
    with pytest.raises(OptionError, match=r"it is there, is not as this cell has written it.*\n.*another file"):
        written(llm)
    assert Path("rows.jsonl").read_text() == "mine\n"
    assert BatchFolder().all() == []
    Path("rows.jsonl").unlink()
    written(llm)
    with pytest.raises(OptionError, match="it has the rows of another cell"):
        llm.batch("Shout {{ item }}", ["1"], batch_file="rows.jsonl")
    with Path("rows.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(OptionError, match="is not as this cell has written it"):
        written(llm, ("5",))
    Path("rows.jsonl").unlink()
    written(llm)
    output = answer()
    with pytest.raises(OptionError, match=r"it has results, and stays as it is.\n%llm_batch fetch rows.out.jsonl"):
        written(llm, ("5",), name=str(output))


@pytest.mark.parametrize(
    ("make", "name", "what"),
    [
        (None, "none/rows.jsonl", "there is no folder .*none"),
        (lambda: Path("rows.jsonl").mkdir(), "rows.jsonl", r"it is a folder.\n.*rows.jsonl/rows.jsonl"),
        (lambda: Path("rows.jsonl").symlink_to("elsewhere"), "rows.jsonl", "it is a link, which is not followed"),
        (lambda: os.mkfifo("rows.jsonl"), "rows.jsonl", "it is no plain file"),
        (lambda: Path("file").touch(), "file/rows.jsonl", "file"),
        (None, "/dev/full", "it is no plain file"),
        (None, "rows\0.jsonl", "names no file"),
        (None, "rows/", "names no file"),
        (None, "r" * 300, "too long"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_said_before_anything_is_done(
    llm: LLM, make: Callable[[], object] | None, name: str, what: str
) -> None:
    if make is not None:
        make()
    with pytest.raises(OptionError, match=what):
        written(llm, name=name)
    assert BatchFolder().all() == []


def test_a_full_disk_leaves_nothing(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(input_file.os, "fsync", full)
    with pytest.raises(OptionError, match=r"rows.jsonl'?: it cannot be written: No space left on device"):
        written(llm)
    assert files(tmp_path) == ["state"]
    assert BatchFolder().all() == []


# Who takes none


def test_the_model_is_to_be_named_where_no_server_is_asked() -> None:
    with pytest.raises(OptionError, match=r"needs the name of the model.*\n.*vllm:MODEL"):
        written(LLM("vllm:", base_url=NOWHERE))


@pytest.mark.parametrize(("model", "options"), [("vllm:m", {"api": "responses"}), ("local:smollm2", {})])
def test_a_file_that_nothing_could_read_is_refused(model: str, options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        written(LLM(model), **options)
    assert not Path("rows.jsonl").exists()


# What is fetched


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"\xff\xfe{}\n", "is no file of results: line 1: it is no JSON"),
        (b"[1]\n", "is no file of results: line 1: it is no JSON object"),
        (b"[" * 100_000, "is no file of results"),
        (b'{"custom_id": null, "response": {}}\n', "it names no row"),
        (b'{"custom_id": "request-1", "response": {"body": {}}}\n', "has no row of a cell; its 1 line are called 'req"),
    ],
)
def test_what_is_no_file_of_results_is_said(data: bytes, what: str) -> None:
    Path("rows.out.jsonl").write_bytes(data)
    with pytest.raises(OptionError, match=what):
        fetch(Path("rows.out.jsonl"))


def test_what_is_no_file_is_said(llm: LLM) -> None:
    with pytest.raises(OptionError, match="none cannot be read: No such file"):
        fetch(Path("none"))
    with pytest.raises(OptionError, match="it is no plain file"):
        fetch(Path())
    written(llm)
    with pytest.raises(OptionError, match=r"rows.jsonl has the rows that are to be asked, no results"):
        fetch(Path("rows.jsonl"))


def test_results_of_a_batch_that_is_not_known_here_are_texts(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    written(llm)
    output = answer(only({"1": "one", "2": None, "3": "three"}))
    with output.open("ab") as file:
        file.write(b"{\n")
    monkeypatch.setenv("XDG_STATE_HOME", "elsewhere")
    answers = fetch(output)
    assert answers.values == ["one", None, "three"]
    assert str(answers.errors[1]).startswith("rows.out.jsonl")
    assert answers.notes[0].startswith("No batch that is kept here has asked for these rows: they are texts")
    assert answers.notes[1] == "1 line is no result, the first line 4: it is no JSON."
    with pytest.raises(ConnectionFailedError):
        llm.ask("alive?", retries=0)


def test_lines_of_others_are_left_out_and_that_is_said(llm: LLM) -> None:
    written(llm)
    output = answer()
    with output.open("a") as file:
        file.write(json.dumps(result(f"9-{'ab' * 16}", "nine")) + "\n")
    answers = fetch(output)
    assert answers.values == ["1", "2", "3"]
    assert answers.notes[1] == "1 line of rows that no batch here has asked is left out."


def test_results_as_other_systems_write_them_are_read(llm: LLM) -> None:
    written(llm)
    output = answer()
    output.write_bytes(b"\xef\xbb\xbf" + output.read_bytes().replace(b"\n", b"\r\n"))
    assert fetch(output).values == ["1", "2", "3"]
    assert fetch(output).values == ["1", "2", "3"]
    assert written(llm).result().values == ["1", "2", "3"]


def test_hostile_results_are_failures_in_place(llm: LLM) -> None:
    written(llm, ("1", "2", "3", "4", "5"), output_type=int)
    names = [line["custom_id"] for line in lines()]
    deep = "[" * 5000 + "]" * 5000
    made = [
        f'{{"custom_id": "{names[0]}", "response": {{"status_code": 200, "body": {{"choices": {deep}}}}}}}',
        f'{{"custom_id": "{names[1]}", "response": null, "error": "\\ud800"}}',
        f'{{"custom_id": "{names[2]}", "response": {{"status_code": NaN, "body": "{{\\"a\\": 1}}"}}, "error": null}}',
        json.dumps(result(names[3], "\ud800")),
        json.dumps(result(names[4], "5")),
        json.dumps(result(names[4], "6")),
    ]
    Path("rows.out.jsonl").write_text("\n".join(made), "utf-8")
    texts = fetch(Path("rows.out.jsonl"))
    assert texts.values[4] == "5"
    assert texts.failed[:3] == [0, 1, 2]
    with pytest.raises(RowsFailedError, match="4 of 5 failed"):
        written(llm, ("1", "2", "3", "4", "5"), output_type=int)


def test_no_secret_that_a_program_wrote_is_shown(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "gsk_4f9a7c21d8e3b6f0a5c4d2e1")
    written(llm, ("1",))
    name = lines()[0]["custom_id"]
    Path("rows.out.jsonl").write_text(json.dumps(refused(name, "the key gsk_4f9a7c21d8e3b6f0a5c4d2e1 is wrong")) + "\n")
    assert "gsk_4f9a" not in str(fetch(Path("rows.out.jsonl")).errors[0])
    with pytest.raises(RowsFailedError) as failed:
        written(llm, ("1",))
    assert "gsk_4f9a" not in str(failed.value)


def test_what_cannot_be_noted_costs_no_answer(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written(llm)
    fetch(answer())
    with monkeypatch.context() as patch:
        patch.setattr(BatchFolder, "update", full)
        answers = written(llm).result()
        assert answers.values == ["1", "2", "3"]
        assert answers.notes == (
            "It cannot be noted that this was read, and the next run has it once more: No space left on device.",
        )
        assert llm.map("Say {{ item }}", ("1", "2", "3")).values == ["1", "2", "3"]
        with pytest.raises(LLMError, match="The results cannot be kept: No space left"):
            fetch(answer())
    assert written(llm).result().values == ["1", "2", "3"]


def test_fetched_answers_are_found_beside_new_rows_which_are_asked(llm: LLM) -> None:
    with BatchServer(validating=0, in_progress=0) as server:
        server.direct = lambda received: document(
            server.answer({"custom_id": "0", "url": "/v1/chat/completions", "body": received.json})
        )
        there = LLM("compatible:m", base_url=server.url)
        written(there)
        fetch(answer(lambda text: f"fetched {text}"))
        answers = there.map("Say {{ item }}", ["1", "4", "3"])
        assert answers.values == ["fetched 1", "Say 4", "fetched 3"]
        assert there.map("Say {{ item }}", ["1"]).values == ["Say 1"]


def test_rows_of_a_recording_are_not_written(llm: LLM) -> None:
    answers = written(llm, record="once").fetch(answer())
    assert answers.values == ["1", "2", "3"]
    BatchFolder().remove(BatchFolder().all()[0])
    assert llm.map("Say {{ item }}", ("1", "2", "3"), record="only").values == ["1", "2", "3"]


@pytest.mark.parametrize("ending", [".ids", ".output.jsonl"])
def test_what_somebody_has_removed_is_written_again(llm: LLM, ending: str) -> None:
    written(llm)
    fetch(answer())
    (gone,) = (path for path in BatchFolder().place.iterdir() if path.name.endswith(ending))
    gone.unlink()
    if ending != ".ids":
        with pytest.raises(RowsFailedError, match="3 of 3 failed: 3 NotAskedError"):
            written(llm)
    assert written(llm).rows == 3


def test_a_folder_that_others_may_write_to_is_not_trusted(llm: LLM) -> None:
    written(llm)
    BatchFolder().place.chmod(0o777)
    for call in (lambda: written(llm), lambda: fetch(answer())):
        with pytest.raises(LLMError, match="other users may write to it"):
            call()


def test_two_cells_may_be_answered_by_one_file(llm: LLM) -> None:
    written(llm, ("1", "2"), name="a.jsonl")
    written(llm, ("3", "4"), name="b.jsonl", temperature=0.5)
    Path("rows.jsonl").write_bytes(Path("a.jsonl").read_bytes() + Path("b.jsonl").read_bytes())
    assert len(fetch(answer())) == 4
    assert written(llm, ("1", "2")).result().values == ["1", "2"]
    assert written(llm, ("3", "4"), temperature=0.5).result().values == ["3", "4"]


def test_an_offline_batch_does_not_wait_for_a_file(llm: LLM) -> None:
    with BatchServer() as server:
        there = LLM("compatible:m", base_url=server.url)
        written(there)
        assert there.batch("Say {{ item }}", ["1", "2", "3"], poll=0.05).result(20).values == [
            "Say 1",
            "Say 2",
            "Say 3",
        ]
        assert len(server.created) == 1
        there.batch("Say {{ item }}", ["1", "2", "3"], poll=0.05, again=True).result(20)
        assert sorted(each.step for each in BatchFolder().all()) == ["read", "read", "written"]


def test_rows_that_a_server_has_are_not_written(llm: LLM) -> None:
    with BatchServer(validating=10**6) as server:
        there = LLM("compatible:m", base_url=server.url)
        there.batch("Say {{ item }}", ["1", "2", "3"], poll=60)
        rows = written(there, ["1", "2", "3", "4"])
        assert [said(line) for line in lines()] == ["4"]
        with pytest.raises(LLMError, match=r"has 1 row \(3 rows in a batch that goes on at its server\)\."):
            rows.result()


# Cells

SETUP = """
import os; os.chdir({folder!r}); os.environ["XDG_STATE_HOME"] = {folder!r}
get_ipython()._llm_magic.registry.add("s", "vllm", base_url="http://127.0.0.1:1/v1", max_retries=0)
import pandas as pd; reviews = pd.DataFrame({{"text": ["1", "2", "x"]}}, index=["a", "b", "c"])
"""
CELL = (
    "%%llm -m s:smollm2 --each reviews --as int --on-error keep -o stars --batch-file 'my rows.jsonl'\nSay {{ text }}"
)
ASKS_NOW = CELL.replace(" --batch-file 'my rows.jsonl'", "")
WRITTEN = """my rows.jsonl has 3 rows. Nothing was sent, and stars is not bound.
vllm run-batch -i 'my rows.jsonl' -o 'my rows.out.jsonl' --model MODEL --served-model-name smollm2
MODEL is the folder, or the name, of the weights. Then %llm_batch fetch 'my rows.out.jsonl', and run this cell again: \
it has the answers."""


@pytest.mark.parametrize("again", [CELL, ASKS_NOW], ids=["with the file", "without"])
def test_a_cell_writes_its_rows_and_has_their_answers_when_these_are_fetched(
    kernel: Kernel, tmp_path: Path, again: str
) -> None:
    kernel.run("%reset -f").check()
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    assert kernel.run(CELL).check().of_type("text/plain") == [WRITTEN]
    assert kernel.value("'stars' in globals()") is False
    answer(name="my rows.jsonl", output="my rows.out.jsonl")
    ran = kernel.run("texts = %llm_batch fetch 'my rows.out.jsonl'").check()
    assert kernel.value("texts.values") == ["1", "2", "x"]
    shown = "".join(ran.of_type("text/plain"))
    assert "run again, has them as values of its type and binds stars" in shown
    assert "completed" in "".join(kernel.run("%llm_batch").check().of_type("text/plain"))
    kernel.run("same = %llm_batch fetch 20").check()
    assert kernel.value("same.values") == ["1", "2", "x"]
    ran = kernel.run(again).check()
    assert kernel.value("stars.stars.tolist()[:2]") == [1, 2]
    assert kernel.value("(list(stars.index), type(_llm.errors[2]).__name__)") == (["a", "b", "c"], "InvalidValueError")
    assert "3 rows" in ran.of_type("text/plain")[0]
    assert kernel.run(CELL).check().of_type("text/plain")[0].splitlines()[-3:] == [
        WRITTEN.splitlines()[0].replace("3 rows", "1 row (2 rows answered before)"),
        *WRITTEN.splitlines()[1:],
    ]


def test_answers_are_found_where_no_others_are_kept(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    kernel.run("%config LLMMagics.resume = False").check()
    kernel.run(CELL).check()
    answer(name="my rows.jsonl", output="my rows.out.jsonl")
    kernel.run("%llm_batch fetch 'my rows.out.jsonl'").check()
    kernel.run(ASKS_NOW).check()
    kernel.run("%config LLMMagics.resume = True").check()
    assert kernel.value("stars.stars.tolist()[:2]") == [1, 2]


def test_a_line_writes_as_a_cell_does(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    line = "%llm -m s:smollm2 --each reviews --batch-file rows.jsonl Say {{ text }}"
    ran = kernel.run(line).check()
    assert ran.of_type("text/plain")[0].startswith("rows.jsonl has 3 rows. Nothing was sent.\n")
    assert [said(each) for each in lines()] == ["1", "2", "x"]
    assert kernel.run(line.replace("rows.jsonl", "other.jsonl --show none")).check().outputs == []
    assert len(lines("other.jsonl")) == 3
    kernel.run("get_ipython()._llm_magic.registry.add('t', 'vllm', models=['org/m'], base_url='http://127.0.0.1:1/v1')")
    ran = kernel.run(line.replace("s:smollm2", "t:").replace("rows.jsonl", "listed.jsonl")).check()
    assert "--model org/m\nThen %llm_batch fetch listed.out.jsonl" in ran.of_type("text/plain")[0]


def test_a_dry_run_writes_nothing(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    ran = kernel.run(CELL.replace("--each", "--dry-run --each")).check()
    shown = "".join(ran.of_type("text/plain"))
    assert "With --batch-file, its body is one line of my rows.jsonl, which a dry run does not write." in shown
    assert "Nothing was sent, stars is not bound." in shown
    assert files(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    begun = threading.Timer(0.5, kernel.interrupt)
    begun.start()
    ran = kernel.run("%llm -m s:m --each range(10**7) --batch-file rows.jsonl Say {{ item }}")
    begun.join()
    assert (ran.error_name, len(ran.outputs)) == ("RowsInterrupted", 1)
    told = "KeyboardInterrupt: stopped; rows.jsonl is as it was, and nothing was sent."
    assert ran.outputs[0]["traceback"] == [told]
    assert [name for name in files(tmp_path) if "rows" in name] == []


def test_mistakes_are_told_in_two_lines(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP.format(folder=str(tmp_path))).check()
    for code, name, what in (
        (CELL.replace("s:smollm2", "s:"), "OptionError", "--batch-file needs the name of the model"),
        (
            CELL.replace("'my rows.jsonl'", "no/rows.jsonl"),
            "OptionError",
            "--batch-file no/rows.jsonl: there is no folder",
        ),
        (CELL.replace("--each reviews", "--wait --each reviews"), "OptionError", "--batch-file"),
        ("%llm_batch fetch no.jsonl", "OptionError", "no.jsonl: there is no such file"),
    ):
        ran = kernel.run(code)
        assert (ran.error_name, ran.error[: len(what)]) == (name, what)
        assert len(ran.error.splitlines()) <= 2
    assert files(tmp_path) == []


def test_a_notebook_that_a_program_executes_goes_on_with_what_another_kernel_wrote(
    kernel: Kernel, tmp_path: Path
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")

    def executed(*sources: str) -> list[Any]:
        cells = [nbformat.v4.new_code_cell(each) for each in ("%load_ext llm_magic", setup, *sources)]
        book = nbformat.v4.new_notebook(cells=cells)
        nbclient.NotebookClient(book, kernel_name="python3", timeout=60).execute()
        return [cell.outputs for cell in book.cells[2:]]

    setup = SETUP.format(folder=str(tmp_path))
    kernel.run(setup).check()
    kernel.run(CELL).check()
    answer(name="my rows.jsonl", output="my rows.out.jsonl")
    _, bound, (printed,), (output,) = executed(
        "%llm_batch fetch 'my rows.out.jsonl'", CELL, "print(stars.stars.tolist())", CELL
    )
    assert [each["output_type"] for each in bound] == ["display_data"]
    assert printed["text"] == "[1, 2, <NA>]\n"
    assert output["data"]["text/plain"].endswith(WRITTEN.partition("\n")[2])


def test_a_project_does_not_name_the_file() -> None:
    from llm_magic.options.mapping import from_mapping

    with pytest.raises(LLMError, match="batch_file"):
        from_mapping({"batch_file": "rows.jsonl"}, "LLMMagics.params")
