"""Each block of `docs/offline_batches.md` runs in a kernel, one after the other, and does what the page says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer, Failure, said
from kernels import Kernel, Ran
from servers import Answer, Received, document

from llm_magic.batches.jsonl import input_file
from llm_magic.batches.kept import kept_batches, record
from llm_magic.batches.remote import polling

pytest.importorskip("pandas")

PAGE = (Path(__file__).parents[1] / "docs" / "offline_batches.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LABELS = {"expensive": "price", "broke": "quality", "pieces": "quality"}
KEY = "sk-of-this-page-1234567890"


def answered(line: dict[str, Any]) -> Any:
    """Answer a row of the page as a model would."""
    if "messages" not in line["body"]:
        return said(line)
    prompt = line["body"]["messages"][-1]["content"]
    text = next((label for word, label in LABELS.items() if word in prompt), "service")
    if "Is this review" not in prompt and not line["body"].get("tools"):
        text = "yes" if text == "price" else "no"
    value = f'{{"value": "{text}"}}' if "response_format" in line["body"] else text
    line = {**line, "body": {**line["body"], "messages": [{"role": "user", "content": f"SAY {value}"}]}}
    return said(line)


def answered_in_a_batch(line: dict[str, Any]) -> Any:
    """Answer a row of a batch: one that the page says to fail fails."""
    if "messages" in line["body"] and line["body"]["messages"][-1]["content"].endswith("service? ?"):
        return Failure(status=500, type="server_error")
    return answered(line)


def answered_now(received: Received) -> Answer:
    """Answer a request that is no batch's in the same way."""
    return document(answered({"custom_id": "direct", "url": received.path, "body": received.json}))


@dataclass
class Page:
    """What became of the page."""

    kernel: Kernel
    server: BatchServer
    folder: Path
    ran: list[tuple[str, Ran]] = field(default_factory=list)
    created: dict[str, int] = field(default_factory=dict)
    """The batches that were there when each block had ended."""

    @property
    def kept(self) -> Path:
        """The folder of batches."""
        return self.folder / "state" / "llm_magic" / "batches"

    def shown(self, words: str) -> str:
        """Return what the only block shows that has these words."""
        (ran,) = (ran for block, ran in self.ran if words in block)
        return "\n".join([*ran.of_type("text/plain"), ran.stdout])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    with (
        BatchServer(
            answer=answered_in_a_batch, direct=answered_now, validating=0, in_progress=0, finalizing=0
        ) as server,
        Kernel(XDG_STATE_HOME=str(folder / "state"), OPENAI_BASE_URL=server.url, OPENAI_API_KEY=KEY) as kernel,
    ):
        found = Page(kernel, server, folder)
        kernel.run(f"import os; os.chdir({str(folder)!r})").check()
        for language, block in BLOCKS:
            if language == "python":
                _run(found, block)
            elif language == "sh":
                run_batch(found, block)
            elif "%llm_batch" in block:
                for line in block.splitlines():
                    _run(found, line.replace("ID", server.created[0].id))
        yield found


def run_batch(page: Page, command: str) -> None:
    """Do what a command of the page does, which has vLLM's program read a file and write another one."""
    source, target = (page.folder / re.findall(rf"-{flag} (\S+)", command)[0] for flag in "io")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    written = [
        {
            "id": f"vllm-{row['custom_id']}",
            "custom_id": row["custom_id"],
            "response": {"status_code": 200, "request_id": f"vllm-batch-{row['custom_id']}", "body": answered(row)},
            "error": None,
        }
        for row in rows
    ]
    target.write_text("".join(json.dumps(each) + "\n" for each in written), encoding="utf-8")


def _run(page: Page, block: str) -> None:
    page.ran.append((block, page.kernel.run(block).check()))
    if "load_ext" in block:
        page.kernel.run("%config LLMMagics.params = {'poll': 0.02}").check()
    if "--batch " in block and "--wait" not in block:
        page.kernel.run("_.result(20)").check()
    page.created[block] = len(page.server.created)


def created(page: Page, words: str) -> int:
    """Return how many batches the only block made that has these words."""
    before = 0
    for block, count in page.created.items():
        if words in block:
            return count - before
        before = count
    raise AssertionError(words)


def test_a_frame_comes_back(page: Page) -> None:
    assert page.kernel.value("(topic.columns.tolist(), topic.index.tolist()[:3])") == (
        ["text", "topic"],
        ["ann", "bob", "cem"],
    )


def test_the_same_cell_finds_its_batch(page: Page) -> None:
    assert created(page, "--batch -o topic") == 1
    assert created(page, "--batch --wait -o topic") == 0
    (told,) = (block.strip() for language, block in BLOCKS if language == "text" and "3 rows are" in block)
    assert told in page.shown("--batch --wait -o topic")


def test_only_new_rows_are_submitted_and_a_failed_one_is_asked_for_at_once(page: Page) -> None:
    first, second = page.server.created[:2]
    assert [len(page.server.rows(each.id)) for each in (first, second)] == [3, 2]
    assert created(page, "--on-error keep -o topic") == 1
    assert "ServerFailedError" in page.shown("--on-error keep -o topic")
    begins = "%%llm --each reviews --choices price,quality,service -o"
    (block,) = (block for block, _ in page.ran if block.startswith(begins))
    assert created(page, block) == 0
    assert page.server.asked.count("direct") == 1
    assert page.kernel.value("topic.topic.tolist()") == ["price", "quality", "service", "quality", "service"]


def test_batches_are_listed_shown_fetched_and_forgotten(page: Page) -> None:
    first, second = (each.body["metadata"]["llm_magic_id"] for each in page.server.created[:2])
    (listed,) = (ran for block, ran in page.ran if block.strip() == "%llm_batch")
    text = "\n".join(listed.of_type("text/plain"))
    assert [name.rpartition("-")[2] in text for name in (first, second)] == [True, True]
    assert page.server.created[0].id in page.shown("%llm_batch show")
    assert "is forgotten here" in page.shown("%llm_batch remove")
    kept = {path.name.partition(".")[0] for path in page.kept.glob("*.json")}
    assert first not in kept
    assert second in kept


def test_a_batch_from_python(page: Page) -> None:
    assert page.kernel.value("(batch.status, tuple(batch.counts), len(batch.ids))") == ("completed", (5, 0, 5), 1)


def test_embeddings(page: Page) -> None:
    assert created(page, "--batch-api") == 1
    assert created(page, "embed_batch") == 0
    assert page.kernel.value("(len(vectors), list(later.result()) == list(vectors))") == (5, True)


def test_a_file_for_another_program(page: Page) -> None:
    first, again = (ran for block, ran in page.ran if "--batch-file" in block)
    (command,) = (block.strip() for language, block in BLOCKS if language == "sh")
    assert command in "\n".join([*first.of_type("text/plain"), first.stdout])
    assert "Nothing was sent" in "\n".join([*first.of_type("text/plain"), first.stdout])
    assert page.kernel.value("kind.kind.tolist()") == ["price", "quality", "service", "quality", "service"]
    assert again.status == "ok"


def test_tools_come_back_as_calls(page: Page) -> None:
    assert page.kernel.value("[each.tool_calls[0].name for each in calls.responses]") == ["complain"] * 5
    assert "not carried out in a batch" in page.shown("--tools complain")


def test_the_cost_is_that_of_batches(page: Page) -> None:
    assert page.kernel.value("round(_llm.cost * 1e6, 6)") == 5 * (3 * 0.125 + 2 * 1)


def test_what_is_kept(page: Page) -> None:
    folder = page.kept
    assert folder.stat().st_mode & 0o077 == 0
    files = [path for path in folder.iterdir() if path.is_file()]
    assert [path.name for path in files if path.name.endswith(".input.jsonl")] == []
    assert [path.name for path in files if KEY in path.read_text(encoding="utf-8")] == []


def test_the_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"Beyond {input_file.MOST_ROWS:,} rows, or {input_file.MOST_BYTES // 10**6} MB" in text
    assert f"the beginning of the template is left, {record.MAX_EXCERPT} characters" in text
    days, gigabytes = kept_batches.MAX_AGE // 86_400, kept_batches.MAX_BYTES / 1e9
    assert f"stay for {days} days after they were read, up to {gigabytes:g} GB" in text
    assert f"remembered for {kept_batches.UNREAD_AGE // 86_400} days at least" in text
    assert f"between two looks at the batch: {polling.INTERVAL:g}" in text
    assert (polling.LONGEST_INTERVAL, polling.WINDOW, polling.GRACE) == (600, 86_400, 3_600)
