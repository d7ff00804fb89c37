"""`%llm_batch`: what names a batch, tables, and in a kernel each sub-command, with what it says where it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kept_batches import NOON, Record, Refusal
from kernels import Kernel
from rows_on_stage import EVIL, HOSTILE
from shown import failed, html, plain

from llm_magic.commands.batches import found, short_names
from llm_magic.display import batches
from llm_magic.display.batches import progress_of
from llm_magic.errors import OptionError

DONE = Record("20261129T090000Z-77aa0011", status="completed", completed=1_997, step="ended", batch_id="batch_old")
NEW = Record("20261201T080000Z-3fb99999", step="uploading", batch_id="", file_id="", status="", created=NOON + 72_000)
SEVERAL = [Record(), replace(DONE, created=NOON - 90_000), NEW]
TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("3fa1", Record()),
        ("3fa1b2c4", Record()),
        ("20261130", Record()),
        ("20261130T120000Z-3fa1b2c4", Record()),
        ("batch_a", Record()),
        ("batch_old", SEVERAL[1]),
        ("3fb", NEW),
        ("77", SEVERAL[1]),
    ],
)
def test_a_beginning_names_a_batch(name: str, expected: Record) -> None:
    assert found(SEVERAL, name) == expected


def test_a_whole_name_begins_no_other() -> None:
    other = replace(DONE, id="20261130T120000Z-3fa1b2c4-2", batch_id="batch_abc12")
    assert found([Record(), other], "batch_abc1") == Record()
    assert found([Record(), other], "batch_abc12") == other
    assert found([Record(), other], Record().id) == Record()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "3f",
            f"'3f' may be any of 2 batches: {Record().id} (batch_abc1), {NEW.id} (uploading).",
            "Write more of the id; %llm_batch lists them.",
        ),
        ("3fa1b2c5", "There is no batch '3fa1b2c5'.", "Did you mean 3fa1b2c4?"),
        ("batch_odl", "There is no batch 'batch_odl'.", "Did you mean batch_old or batch_abc1?"),
        ("zzz", "There is no batch 'zzz'.", "%llm_batch lists them."),
        ("\x1b[2J\ud800", "There is no batch '␛[2J\ufffd'.", "%llm_batch lists them."),
    ],
)
def test_what_names_none_or_several(name: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        found(SEVERAL, name)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_very_many_batches_of_a_beginning_are_not_all_named() -> None:
    many = [Record(f"2026-{number:08x}", batch_id=f"batch_{number}") for number in range(2_000)]
    with pytest.raises(OptionError, match=r"any of 2,000 batches: .*batch_4\) and 1,995 more\.") as caught:
        found(many, "2026")
    assert len(caught.value.message) < 300
    with pytest.raises(OptionError) as caught:
        found([], "2026")
    assert caught.value.hint == "None is kept here."


def test_two_batches_of_the_same_short_name_have_their_whole_one() -> None:
    twin = Record("20270101T000000Z-3fa1b2c4")
    assert list(short_names([Record(), twin, NEW]).values()) == [Record().id, twin.id, "3fb99999"]
    with pytest.raises(OptionError, match="2 batches"):
        found([Record(), twin], "3fa1b2c4")


def test_a_record_as_progress() -> None:
    assert (
        batches.described("x", "", [progress_of(Record(), NOON + 60)])
        == "<Batch x: in progress, 120 of 2,000, 3 failed>"
    )
    assert batches.since([progress_of(Record(), NOON + 60)]) == "submitted 1 min ago"
    assert progress_of(Record(), NOON - 60).seconds == 0  # the clock was set back
    assert progress_of(NEW, NOON + 99_999).seconds == 0
    steps = {"written": "written", "submitting": "submitting", "refused": "refused", "submitted": "in_progress"}
    for step, status in {**steps, "fetched": "in_progress", "read": "in_progress"}.items():
        assert progress_of(Record(step=step), NOON).status == status
    assert progress_of(Record(status=""), NOON).status == "submitted"


# In a kernel


class Kept:
    """Batches that a kernel keeps."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def set(self, *records: Any, **more: Any) -> None:
        self.kernel.run(
            "import math\n"
            "from kept_batches import KeptBatches, Record, Refusal\n"
            f"kept = KeptBatches([{', '.join(map(repr, records))}], **{more!r})\n"
            "batches.batch_commands = lambda session: kept"
        ).check()

    @property
    def done(self) -> str:
        return self.kernel.run("print(kept.done)").check().stdout.strip()


@pytest.fixture(scope="module")
def _batches(kernel: Kernel) -> None:
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom llm_magic.commands import batches"
    kernel.run(f"{code}\nimport os, time; os.environ['TZ'] = 'UTC'; time.tzset()").check()


@pytest.fixture
def kept(kernel: Kernel, _batches: None) -> Iterator[Kept]:
    kept = Kept(kernel)
    kept.set()
    return kept


def test_no_batches(kernel: Kernel, kept: Kept) -> None:
    said = "There are no batches. %%llm --each INPUTS --batch submits one, and its cell finds it again."
    assert plain(kernel.run("%llm_batch")) == said
    assert plain(kernel.run("%llm_batch list")) == said
    assert failed(kernel, "%llm_batch show 3f") == (
        "OptionError",
        "OptionError: There is no batch '3f'.\nNone is kept here.",
    )


def test_the_list(kernel: Kernel, kept: Kept) -> None:
    kept.set(*SEVERAL)
    lines = plain(kernel.run("%llm_batch")).splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["batch", "3fb99999", "3fa1b2c4", "77aa0011", lines[-1]]
    assert " ".join(lines[0].split()) == "batch made model rows status answered failed expires out prompt"
    assert " ".join(lines[2].split()) == (
        "3fa1b2c4 2026-11-30 12:00 openai:gpt-x 2,000 in progress 117 3 2026-12-01 12:00 "
        "labelled Is this review about price? {{ text }}"
    )
    assert lines[3].split()[5:9] == ["completed", "1,997", "3", "labelled"]
    assert lines[-1].startswith("As their servers said last. %llm_batch fetch ID asks now;")


def test_the_newest_fifty(kernel: Kernel, kept: Kept) -> None:
    many = "[Record(f'20261130T120000Z-{number:08x}', created=1e9 + number) for number in range(120)]"
    kernel.run(f"kept.records = {many}").check()
    lines = plain(kernel.run("%llm_batch")).splitlines()
    assert lines[1].startswith("00000077")
    assert (len(lines), lines[-2]) == (53, "The last 50 of 120.")


def test_all_of_one(kernel: Kernel, kept: Kept) -> None:
    kept.set(replace(Record(), base_url="http://b", output_file_id="file-out", error_file_id="file-err"))
    lines = plain(kernel.run("%llm_batch show 3fa1")).splitlines()
    shown = dict(line.split(None, 1) for line in lines[:-1])
    assert shown["batch"] == "20261130T120000Z-3fa1b2c4"
    assert shown["status"] == "in progress 120/2,000, 3 failed"
    assert shown["submitted"] == "as  batch_abc1"
    assert shown["server"] == "openai, https://api.example.org/v1"
    assert shown["API"] == "chat at /v1/chat/completions"
    assert shown["rows"] == "2,000 (3.1 MB)"
    assert shown["--base-url"] == "http://b"
    assert shown["kept"] == "in       /home/me/.local/state/llm_magic/batches"
    assert [line for line in lines if "file" in line] == [
        "input file    file-in",
        "output file   file-out",
        "error file    file-err",
    ]
    assert lines[-1] == (
        "Its cell, run again, waits for it; %llm_batch fetch 3fa1b2c4 asks its server now; "
        "cancel 3fa1b2c4 stops it there."
    )


def test_what_a_server_refused_is_told_by_line(kernel: Kernel, kept: Kept) -> None:
    refusals = tuple(Refusal(number, f"Not <b>{number}</b>", "bad_value") for number in range(1_733, 1_800))
    kept.set(
        Record(
            status="failed", step="ended", completed=None, failed=None, refusals=(Refusal(None, "Bad", ""), *refusals)
        )
    )
    ran = kernel.run("%llm_batch show 3fa1")
    lines = plain(ran).splitlines()
    at = lines.index("The server refused some of it:")
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["line", "code", "message"],
        ["Bad"],
        ["1,733", "bad_value", "Not", "<b>1733</b>"],
    ]
    assert lines[-2:] == [
        "… and 48 more lines",
        "%llm_batch fetch 3fa1b2c4 gets its answers; remove 3fa1b2c4 forgets it here.",
    ]
    assert "<b>" not in html(ran)


def test_what_has_ended_is_fetched_and_is_the_result(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), then={"status": "completed", "completed": 1, "failed": 1}, notes=("A note.", "A note."))
    said = plain(kernel.run("answers = %llm_batch fetch 3fa1"))
    assert said == "Batch 3fa1b2c4 of openai:gpt-x: completed · 2 rows\nA note."
    assert kept.done == "[('refresh', '20261130T120000Z-3fa1b2c4'), ('fetch', '20261130T120000Z-3fa1b2c4')]"
    assert plain(kernel.run("answers, answers.values")) == "(Answers of 2 rows, 1 failed, ['price', None])"
    assert plain(kernel.run("%llm_batch fetch batch_abc1")).endswith("\nAnswers of 2 rows, 1 failed")  # the result
    assert kept.done.count("refresh") == 1  # it has ended, and no server need be there


def test_what_expired_is_fetched(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), then={"status": "expired"})
    said = plain(kernel.run("answers = %llm_batch fetch 3fa1"))
    assert said == "Batch 3fa1b2c4 of openai:gpt-x: expired: 117 of 2,000 answered · 2 rows"


def test_what_is_under_way_is_not_fetched(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(created=math.floor(NOON) - 10**9), then={"completed": 997})
    kind, said = failed(kernel, "answers = %llm_batch fetch 3fa1")
    assert kind == "LLMError"
    assert said.startswith("LLMError: Batch 3fa1b2c4 of openai:gpt-x is in progress 1,000/2,000, 3 failed, submitted ")
    assert said.endswith(
        " ago: there is nothing to fetch yet.\nIts cell, run again, waits for it; %llm_batch fetch 3fa1 looks again."
    )
    assert "1,000/2,000" in plain(kernel.run("%llm_batch show 3fa1"))


@pytest.mark.parametrize(
    ("record", "why", "hint"),
    [
        (NEW, "was not submitted", "Its cell, run again, goes on where it stopped."),
        (
            replace(NEW, step="submitting", is_answered=True),
            "was not submitted",
            "Its cell, run again, goes on where it stopped.",
        ),
        (
            replace(NEW, step="submitting"),
            "may have been submitted, or not",
            "Its cell, run again, asks the server, and submits nothing twice.",
        ),
        (
            replace(NEW, step="refused", refusals=(Refusal(3, "No such model.", ""),)),
            "was refused (No such model.)",
            "%llm_batch show tells all that its server said.",
        ),
        (
            replace(NEW, step="written", file="rows.jsonl"),
            "is the file rows.jsonl, at no server",
            "%llm_batch fetch FILE reads what run_batch wrote of it.",
        ),
    ],
)
def test_what_no_server_has(kernel: Kernel, kept: Kept, record: Record, why: str, hint: str) -> None:
    kept.set(record)
    for action in ("fetch", "cancel"):
        said = f"LLMError: Batch 3fb99999 of openai:gpt-x {why}: there is nothing to {action}.\n{hint}"
        assert failed(kernel, f"%llm_batch {action} 3fb") == ("LLMError", said)
    assert plain(kernel.run("%llm_batch show 3fb")).endswith(f"\n{hint} %llm_batch remove 3fb99999 forgets it here.")
    assert kept.done == "[]"


def test_files_of_run_batch(kernel: Kernel, kept: Kept, folder: Path) -> None:
    kept.set(Record())
    (folder / "out.jsonl").write_text("{}\n")
    (folder / "3fa1b2c4").write_text("a file that has the name of a batch")
    (folder / "answers").write_text("{}\n")
    assert plain(kernel.run("x = %llm_batch fetch out.jsonl")) == "Answers of 2 rows, 1 failed, read from out.jsonl"
    assert plain(kernel.run("len(x)")) == "2"
    kernel.run("x = %llm_batch fetch answers").check()
    kernel.run("x = %llm_batch fetch ./3fa1b2c4").check()
    failed(kernel, "%llm_batch fetch 3fa1b2c4")
    files = ", ".join(f"('fetch', PosixPath({name!r}))" for name in ("out.jsonl", "answers", "3fa1b2c4"))
    assert kept.done == f"[{files}, ('refresh', '20261130T120000Z-3fa1b2c4')]"
    hint = "%llm_batch fetch takes the id of a batch, or the file that run_batch wrote."
    for name, what in (
        ("gone.jsonl", "there is no such file"),
        ("~nobody/a", "there is no such file"),
        (f"{folder}/", "it is no plain file"),
        ("/dev/zero", "it is no plain file"),
        (f"{'x' * 999}.jsonl", "there is no such file"),
        ("a\x00.jsonl", "there is no such file"),
    ):
        kind, said = failed(kernel, f"get_ipython().run_line_magic('llm_batch', {f'fetch {name}'!r})")
        assert (kind, said.endswith(f": {what}.\n{hint}")) == ("OptionError", True)


def test_a_server_that_is_away(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), away=True)
    for action in ("fetch", "cancel"):
        assert failed(kernel, f"%llm_batch {action} 3fa1")[1] == (
            "ConnectionFailedError: openai cannot be reached: connection refused.\nIs it running?"
        )


def test_an_interrupt_says_what_is_left(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), DONE, interrupts=True)
    for line, said in (
        ("fetch 77", "Nothing is lost; the same line asks again."),
        ("cancel 3fa1", "The batch may be cancelled all the same; the same line asks again."),
    ):
        kind, text = failed(kernel, f"%llm_batch {line}")
        assert (kind, text) == ("RowsInterrupted", f"KeyboardInterrupt: {said}")


def test_one_is_cancelled_at_its_server(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), DONE, then={"status": "cancelling"})
    assert plain(kernel.run("%llm_batch cancel 3fa1")) == (
        "Batch 3fa1b2c4 of openai:gpt-x: cancelling 120/2,000, 3 failed. Rows that are answered by then are paid, and "
        "stay: %llm_batch fetch 3fa1 gets them."
    )
    assert plain(kernel.run("%llm_batch cancel 77")) == (
        "Batch 77aa0011 of openai:gpt-x has ended: completed: 3 of 2,000 failed. There is nothing to cancel."
    )
    assert kept.done == "[('cancel', '20261130T120000Z-3fa1b2c4')]"


def test_one_is_forgotten_but_for_one_under_way(kernel: Kernel, kept: Kept) -> None:
    kept.set(Record(), DONE, replace(NEW, step="submitting"))
    assert failed(kernel, "%llm_batch remove 3fa1")[1] == (
        "OptionError: Batch 3fa1b2c4 of openai:gpt-x is in progress 120/2,000, 3 failed: once it is forgotten, "
        "its cell submits its rows, and pays for them, again.\n"
        "%llm_batch cancel 3fa1 first; or %llm_batch remove 3fa1 --force."
    )
    assert failed(kernel, "%llm_batch remove 3fb")[1] == (
        "OptionError: Batch 3fb99999 of openai:gpt-x may have been submitted: once it is forgotten, "
        "its cell submits its rows, and pays for them, again.\n"
        "Run its cell again first; or %llm_batch remove 3fb --force."
    )
    assert kept.done == "[]"
    assert plain(kernel.run("%llm_batch remove 77")) == (
        "Batch 77aa0011 of openai:gpt-x is forgotten here. At its server batch_old and file-in stay."
    )
    assert plain(kernel.run("%llm_batch remove --force 3fb")) == "Batch 3fb99999 of openai:gpt-x is forgotten here."
    assert plain(kernel.run("%llm_batch remove 3fa1 --force")).startswith("Batch 3fa1b2c4 of openai:gpt-x is forgotten")
    assert plain(kernel.run("%llm_batch")).startswith("There are no batches.")


def test_a_folder_that_cannot_be_read(kernel: Kernel, kept: Kept) -> None:
    kernel.run("kept.broken = PermissionError(13, 'Permission denied', '/state/batches')").check()
    for line in ("", "show 3f", "fetch 3f", "cancel 3f", "remove 3f"):
        assert failed(kernel, f"%llm_batch {line}")[1] == (
            "ConfigurationError: The batches that are kept cannot be reached: /state/batches: Permission denied."
        )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shwo 3f", "OptionError: %llm_batch has no command shwo.\nDid you mean show?"),
        ("show", "OptionError: %llm_batch show needs ID.\n%llm_batch show ID."),
        ("fetch", "OptionError: %llm_batch fetch needs ID|FILE.\n%llm_batch fetch ID|FILE."),
        ("fetch a b", "OptionError: %llm_batch takes 1 word besides options, not 2.\n%llm_batch fetch ID|FILE."),
        ("list 3f", "OptionError: %llm_batch takes no words besides options, not 1.\n%llm_batch list."),
        ("cancel 3f --force", "OptionError: %llm_batch has no option --force."),
    ],
)
def test_lines_that_are_wrong(kernel: Kernel, kept: Kept, line: str, said: str) -> None:
    assert failed(kernel, f"%llm_batch {line}")[1].startswith(said)


def test_the_help_page(kernel: Kernel) -> None:
    said = kernel.run("%llm_batch --help").check().stdout
    assert said.startswith("List, show, fetch, cancel and forget offline batches")
    assert max(map(len, said.splitlines())) <= 110


@pytest.mark.parametrize("text", [*HOSTILE, EVIL, "x" * 10**5])
def test_whatever_a_record_holds_is_text_and_short(kernel: Kernel, kept: Kept, text: str) -> None:
    evil = dict.fromkeys(("provider", "url", "model", "asked", "endpoint", "batch_id", "file_id", "prompt"), text)
    record = Record(**evil, status=text, out=text, refusals=(Refusal(None, text, text),))
    kept.set(replace(record, created=1e300, expires_at=1e300))
    for line in ("list", "show 3fa1"):
        ran = kernel.run(f"%llm_batch {line}")
        page, said = html(ran), plain(ran)
        assert len(page) < 12_000
        assert not any(tag in page for tag in ("<script", "<img", "<svg", "<b>"))
        assert "\x1b" not in said + page
        assert "\u202e" not in said + page
    kind, said = failed(kernel, "%llm_batch remove 3fa1")
    assert kind == "OptionError"
    assert len(said) < 1_000
