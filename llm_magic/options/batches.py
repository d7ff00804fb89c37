"""Offline batches, as options: what has no meaning in one and why, and what other libraries call one."""

from __future__ import annotations

from collections.abc import Mapping

from llm_magic.options import Options

_FROM_HERE = "the server asks for the rows of a batch, and no worker does"
_NOBODY = "nobody is there to carry out what a batch's answers call; the calls come back"

NOT_IN_BATCHES: Mapping[str, str] = {
    "background": "--batch returns at once by itself",
    "concurrency": "the server decides how many rows of a batch it asks for at once",
    "patience": "a batch waits at the server, for as long as that takes",
    "sample": "a batch is of all rows; ask for the sample first, without --batch",
    "order": "the server decides in which order it asks for the rows of a batch",
    "on": _FROM_HERE,
    "forward_env": _FROM_HERE,
    "retries_invalid": "nothing is asked again within a batch; the next run asks again for invalid rows",
    "max_tool_rounds": _NOBODY,
    "confirm": _NOBODY,
    "record_tools": _NOBODY,
    "stream": "the answers of a batch are shown when they are complete",
    "code": "each row has an answer of its own",
}
"""Options that have no meaning where rows are sent as an offline batch, and why."""

_NOTHING_SENT = "nothing is sent, so there is nothing to wait for"
_OF_THE_READER = "the program that reads the file sends its requests, in its own way"
NOT_IN_BATCH_FILES: Mapping[str, str] = {
    **NOT_IN_BATCHES,
    "background": "the file is written at once, and nothing is sent",
    "wait": _NOTHING_SENT,
    "poll": _NOTHING_SENT,
    **dict.fromkeys(("header", "timeout", "retries", "budget"), _OF_THE_READER),
}
"""Options that have no meaning where the file of a batch is written, and why."""

SWITCH_ELSEWHERE = (
    "batch_api", "use_batch", "use_batch_api", "batch_mode", "offline_batch", "offline", "batched",
    "use_offline_batch", "use_offline_batch_generation",
)  # fmt: skip
"""What other libraries call the switch of an offline batch, which from Python is a call of its own here."""
_WAIT_ELSEWHERE = ("block", "blocking", "wait_for_completion", "wait_for_batch", "wait_until_done")
_WINDOW = {"completion_window": "A batch is asked for within 24 hours: the Batch API has no other window."}
_SENDS = "LLM.batch(prompt, inputs) sends an offline batch"


def is_batch(options: Options) -> bool:
    """Return whether rows become an offline batch: one that is sent, or one that is written to a file.

    >>> is_batch(Options(batch=True)), is_batch(Options(batch_file="rows.jsonl")), is_batch(Options(each="rows"))
    (True, True, False)

    """
    return bool(options.batch) or options.batch_file is not None


def refused_by_batch() -> dict[str, str]:
    """Return the keyword arguments that `LLM.batch` does not take, and what to say of each."""
    found = {name: f"{why[0].upper()}{why[1:]}." for name, why in NOT_IN_BATCHES.items()}
    found["on_confirm"] = found["confirm"]
    found["sample"] = "A batch is of all rows: llm.map(prompt, inputs, sample=…) asks for a few of them first."
    found |= dict.fromkeys(("batch", *SWITCH_ELSEWHERE), "LLM.batch sends an offline batch in any case.")
    return found | dict.fromkeys(("wait", *_WAIT_ELSEWHERE), "batch.result() waits for it.") | _WINDOW


def refused_elsewhere(*, rows: bool, poll: bool) -> dict[str, str]:
    """Return the keyword arguments of a batch that another call does not take, and what to say of each.

    `rows` says whether the call asks for many rows, `poll` whether it takes that as a default of all calls.
    """
    found = dict.fromkeys(("batch", *SWITCH_ELSEWHERE), f"{_SENDS}.")
    if rows:
        found["batch"] = f"{_SENDS}; concurrency is how many rows are asked for at once."
    found |= dict.fromkeys(("wait", *_WAIT_ELSEWHERE), f"{_SENDS}; its result() waits for it.") | _WINDOW
    names = ("batch_file",) if poll else ("batch_file", "poll")
    return found | {name: f"LLM.batch takes it: llm.batch(prompt, inputs, {name}=…)." for name in names}


def said_in_the_cell() -> dict[str, str]:
    """Return what other libraries call options of a batch that no configuration sets, and what to say of each."""
    found = dict.fromkeys(SWITCH_ELSEWHERE, "Say --batch in the cell.")
    return found | dict.fromkeys(_WAIT_ELSEWHERE, "Say --wait in the cell.") | _WINDOW
