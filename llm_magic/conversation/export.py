"""A conversation as a file: JSON messages, Markdown, a notebook; and JSON read back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from llm_magic import exports, private_files
from llm_magic.control_characters import visible
from llm_magic.conversation.turns import Turn, from_document, to_document
from llm_magic.errors import HistoryError
from llm_magic.markdown import for_notebook
from llm_magic.markdown.fences import fence_for
from llm_magic.markdown.links import as_markdown, sources
from llm_magic.markdown.sanitize import sanitize
from llm_magic.messages import Image, Message, Text
from llm_magic.model_names import shown_model

_MAX_IMPORT = 256 * 2**20  # bytes
_EXPORTED = "Name a .json file that was exported."


def write(path: Path, name: str, turns: Sequence[Turn]) -> Path:
    """Write turns as the file's ending says, for the user alone; the file appears whole or not at all.

    It goes in the place of an earlier export that nobody has changed since, and of no other file.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise HistoryError(
            f"Conversations are not written as {path.suffix or path.name!r}.", "End it in .json, .md or .ipynb."
        )
    if not turns:
        raise HistoryError(f"The conversation {name!r} has no turns to export.")
    data = kind.marked(kind.written(name, turns)).encode("utf-8", "backslashreplace")
    try:
        exports.put(path, data, kind.is_marked)
    except FileExistsError:
        raise HistoryError(
            f"{path} is there already, and is no export, or was changed since.",
            "Name another file, or remove that one first.",
        ) from None
    except OSError as error:
        raise HistoryError(
            f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours."
        ) from None
    return path


def read(path: Path) -> tuple[Turn, ...]:
    """Read exported JSON, or messages of the chat API, as a list or in an object.

    Nothing that they name is opened, now or later: an image of which only the address is there becomes text.
    """
    try:
        data, _ = private_files.read(path, _MAX_IMPORT + 1)
        if len(data) > _MAX_IMPORT:
            raise HistoryError(f"{path} is larger than {_MAX_IMPORT // 2**20} MB.", "Import a part of it.")
        document = json.loads(data)
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror or 'it is no plain file'}.", _EXPORTED) from None
    except (ValueError, RecursionError):
        raise HistoryError(f"{path} is not JSON.", _EXPORTED) from None
    document = document if isinstance(document, dict) else {"messages": document}
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise HistoryError(f"{path} holds no messages.", _EXPORTED)
    return _turns([_without_addresses(from_document(message)) for message in messages], document.get("turns"))


def _without_addresses(message: Message) -> Message:
    """Replace images by URL: the server that is asked next would fetch them."""
    parts = tuple(
        Text(f"[an image that was not imported: {part.url}]") if isinstance(part, Image) and part.data is None else part
        for part in message.parts
    )
    return replace(message, parts=parts)


def _turns(messages: list[Message], told: Any) -> tuple[Turn, ...]:
    """Divide messages into turns: as the file tells, else at each question after an answer."""
    try:
        rest = iter(messages)
        turns = tuple(
            Turn(
                None if turn.get("cell_id") is None else str(turn["cell_id"]),
                tuple(islice(rest, turn["messages"])),
                str(turn.get("model", "")),
                float(turn.get("when", 0)),
                int(turn.get("part", 0)),
            )
            for turn in told
        )
        if all(turn.messages for turn in turns) and sum(turn["messages"] for turn in told) == len(messages):
            return turns
    except (TypeError, KeyError, ValueError, AttributeError):
        pass  # hand-made: the messages are what counts
    groups: list[list[Message]] = []
    for message in messages:
        if not groups or (message.role == "user" and groups[-1][-1].role in {"assistant", "tool"}):
            groups.append([])
        groups[-1].append(message)
    return tuple(Turn(None, tuple(group)) for group in groups)


def _as_json(name: str, turns: Sequence[Turn]) -> str:
    document = {
        "name": name,
        "messages": [to_document(message) for turn in turns for message in turn.messages],
        "turns": [
            {name: getattr(turn, name) for name in ("cell_id", "part", "model", "when")}
            | {"messages": len(turn.messages)}
            for turn in turns
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def _as_markdown(name: str, turns: Sequence[Turn]) -> str:
    lines = [_line(f"# {name}"), ""]
    for number, turn in enumerate(turns, 1):
        when = f", {datetime.fromtimestamp(turn.when).astimezone():%Y-%m-%d %H:%M}" if turn.when else ""
        lines += [_line(f"## {number}. {shown_model(turn.model)}{when}"), ""]
        for message in turn.messages:
            lines += [f"**{_WHO[message.role]}**", "", _readable(message), ""]
    return sanitize("\n".join(lines), bounded=False).encode("utf-8", "replace").decode()


def _line(text: str) -> str:
    """Return text on one line: a name may be of a file that may be anybody's."""
    return " ".join(text.split())


_WHO = {"user": "You", "assistant": "Model", "tool": "Tool", "system": "System"}


def _readable(message: Message) -> str:
    """Return a message as Markdown: images in place, reasoning, calls and results as code."""
    pieces = [part.text if isinstance(part, Text) else f"![image]({part.as_url})" for part in message.parts]
    text = "\n\n".join(piece for piece in pieces if piece)
    thought = message.reasoning.text if message.reasoning is not None else ""
    reasoning = [f"Reasoning\n\n{_fenced(thought)}"] if thought else []
    if message.role == "tool":
        return _fenced(text)
    calls = [f"Calls\n\n{_fenced(f'{call.name}({call.arguments})')}" for call in message.tool_calls]
    found = sources(message.citations)
    cited = [f"Sources\n\n{as_markdown(found)}"] if found else []
    return "\n\n".join([*reasoning, *([text] if text else []), *calls, *cited])


def _fenced(text: str) -> str:
    fence = fence_for(text)
    return f"{fence}\n{text}\n{fence}"


def _as_notebook(name: str, turns: Sequence[Turn]) -> str:
    """Write a notebook (nbformat 4.5): a turn is a cell that asks again, the answer its output."""
    cells: list[dict[str, Any]] = [_cell("markdown", "title", sanitize(_line(f"# {name}")))]
    used = {"title"}
    for number, turn in enumerate(turns, 1):
        wanted = turn.cell_id or ""
        cell_id = wanted if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", wanted) and wanted not in used else f"turn-{number}"
        used.add(cell_id)
        cells.append(_asking(cell_id, turn))
    document = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def _asking(cell_id: str, turn: Turn) -> dict[str, Any]:
    prompt = next((message for message in turn.messages if message.role == "user"), None)
    parts = prompt.parts if prompt is not None else ()
    model = f"-m {turn.model} " if re.fullmatch(r"[^\s'\"{}$]+", turn.model) else ""
    source = f"%%llm {model}--raw\n" + "".join(part.text for part in parts if isinstance(part, Text))
    outputs = [
        _output({part.media_type: base64.b64encode(part.data).decode()})
        for part in parts
        if isinstance(part, Image) and part.data is not None
    ]
    outputs += [
        _output({"text/markdown": for_notebook(text), "text/plain": visible(text)})
        for message in turn.messages
        if message is not prompt and (text := _readable(message))
    ]
    return _cell("code", cell_id, source) | {"execution_count": None, "outputs": outputs}


def _cell(kind: str, cell_id: str, source: str) -> dict[str, Any]:
    return {"cell_type": kind, "id": cell_id, "metadata": {}, "source": source}


def _output(data: dict[str, str]) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


# An export carries the hash of what it holds, so that it is known again, and known to be as it was written.


def _mark_document(text: str) -> str:
    document = json.loads(text)
    place = document.get("metadata", document)
    place["llm_magic"] = {"exported": exports.hash_of(_canonical(document))}
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def _is_marked_document(text: str) -> bool:
    document = json.loads(text)
    if not isinstance(document, dict):
        return False
    place = document.get("metadata", document)
    mark = place.pop("llm_magic", None) if isinstance(place, dict) else None
    return isinstance(mark, dict) and mark.get("exported") == exports.hash_of(_canonical(document))


def _canonical(document: dict[str, Any]) -> str:
    """Return what an export holds, however it is indented; of a notebook the cells: Jupyter writes the rest anew."""
    cells = document.get("cells")
    if cells is None:
        return json.dumps(document, sort_keys=True)
    held = [(cell["id"], cell["source"], [output["data"] for output in cell.get("outputs", ())]) for cell in cells]
    joined = json.loads(json.dumps(held), object_hook=_with_joined_lines)
    return json.dumps([(name, "".join(source), outputs) for name, source, outputs in joined], sort_keys=True)


def _with_joined_lines(data: dict[str, Any]) -> dict[str, Any]:
    return {name: "".join(item) if isinstance(item, list) else item for name, item in data.items()}


class _Kind(NamedTuple):
    """A kind of file: how turns are written, how an export is marked, and known by that."""

    written: Callable[[str, Sequence[Turn]], str]
    marked: Callable[[str], str]
    is_marked: Callable[[str], bool]


_KINDS: dict[str, _Kind] = {
    ".json": _Kind(_as_json, _mark_document, _is_marked_document),
    ".md": _Kind(_as_markdown, exports.mark_text, exports.is_marked_text),
    ".ipynb": _Kind(_as_notebook, _mark_document, _is_marked_document),
}
