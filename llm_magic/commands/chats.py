"""`%llm_chat`: conversations by name; `switch` sets the current one, `LLMMagics.chat`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from llm_magic.commands.line import Command, Line, said
from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError
from llm_magic.options import Option

if TYPE_CHECKING:
    from llm_magic.conversation import Conversation, Conversations
    from llm_magic.messages import Message

_DAY = 86_400.0
_SPEAKERS = {"user": "You", "assistant": "Model", "tool": "Tool", "system": "System"}


def run(command: Command) -> None:
    """Carry out a sub-command."""
    subject, rest = command.subject(_SUBJECTS)
    work, least, most, usage, options = _SUBJECTS[subject or "list"]
    usage = f"{subject} {usage}".strip()
    line = command.read(options, most=most, usage=usage, text=rest)
    if len(line.words) < least:
        raise OptionError(f"{command.magic} {subject} needs {usage.split()[1]}.", f"{command.magic} {usage}.")
    chats = command.session.conversations
    command.show(work(command, chats, line))


def _find(command: Command, chats: Conversations, *words: str) -> Conversation:
    """Return the conversation that the words name, without any the current one, which may have no turns yet."""
    current = command.session.settings.chat
    return chats.find(*(words or (current,)), current)


def _list(command: Command, chats: Conversations, line: Line) -> Bundle:  # noqa: ARG001 - one signature for all
    current = command.session.settings.chat
    rows = [
        {
            "": "→" if chat.name == current else "",
            "conversation": chat.name,
            "turns": chat.turns,
            "tokens, about": chat.tokens,
            "last model": chat.model,
            "last turn": _when(chat.last),
        }
        for chat in chats.list(current)
    ]
    kept = f"Kept in {chats.file}." if chats.file else "In memory only: LLMMagics.chat_file names a file to keep them."
    return markup.joined([table.shown(rows), markup.quiet(kept)])


def _show(command: Command, chats: Conversations, line: Line) -> Bundle:
    chat = _find(command, chats, *line.words)
    turns = chat.turns()
    if not turns:
        return said(f"The conversation {chat.name} has no turns yet.")
    bundles = []
    for number, turn in enumerate(turns, 1):
        facts = [f"{chat.name}, turn {number} of {len(turns)}", turn.model, _when(turn.when)]
        bundles.append(markup.quiet(" · ".join(fact for fact in facts if fact)))
        bundles += [_message(message) for message in turn.messages]
    return markup.joined(bundles)


def _reset(command: Command, chats: Conversations, line: Line) -> Bundle:
    chat = _find(command, chats, *line.words)
    count = chat.reset()
    return said(f"{chat.name}: {_turns(count)} forgotten.")


def _fork(command: Command, chats: Conversations, line: Line) -> Bundle:
    new, source = line.words[0], _find(command, chats, *line.words[1:])
    chat = source.fork(new)
    return said(
        f"{new} is a copy of {source.name} now ({_turns(len(chat))}). %llm_chat switch {new} goes on there, "
        f"and so does a cell with -c {new}."
    )


def _switch(command: Command, chats: Conversations, line: Line) -> Bundle:
    name = line.words[0]
    new = bool(line.values.get("new"))
    if new and name in chats.names(command.session.settings.chat):
        raise OptionError(f"There is a conversation {name!r} already.", f"%llm_chat switch {name} goes on there.")
    chat = chats.get(name) if new else _find(command, chats, name)
    command.session.settings.chat = chat.name
    return said(f"Cells without -c belong to {chat.name} from now on ({_turns(len(chat))}).")


def _export(command: Command, chats: Conversations, line: Line) -> Bundle:
    chat = _find(command, chats, *line.words[1:])
    path = chat.export(line.words[0])
    return said(f"{_turns(len(chat))} of {chat.name} written to {path}.")


def _import(command: Command, chats: Conversations, line: Line) -> Bundle:  # noqa: ARG001 - one signature for all
    chat = chats.load(*line.words)
    return said(f"{_turns(len(chat))} read as {chat.name}. %llm_chat switch {chat.name} goes on there.")


_NEW = Option("new", ("--new",), "", "start one that is empty")
_Work = Callable[[Command, "Conversations", Line], Bundle]
_SUBJECTS: dict[str, tuple[_Work, int, int, str, tuple[Option, ...]]] = {
    "list": (_list, 0, 0, "", ()),
    "show": (_show, 0, 1, "[NAME]", ()),
    "reset": (_reset, 0, 1, "[NAME]", ()),
    "fork": (_fork, 1, 2, "NEW [NAME]", ()),
    "switch": (_switch, 1, 1, "NAME [--new]", (_NEW,)),
    "export": (_export, 1, 2, "FILE [NAME]", ()),
    "import": (_import, 1, 2, "FILE [NAME]", ()),
}
"""By sub-command: its work, the fewest and the most words, how it is written, its options."""


def _turns(count: int) -> str:
    return f"{count:,} turn{'s' * (count != 1)}"


def _when(seconds: float | None) -> str:
    if not seconds:
        return ""
    shape = "%H:%M" if time.time() - seconds < _DAY else "%Y-%m-%d %H:%M"
    return datetime.fromtimestamp(seconds).astimezone().strftime(shape)


def _message(message: Message) -> Bundle:
    """Return a message: who says it, and its text as it stands."""
    from llm_magic.messages import Text

    pieces = [part.text if isinstance(part, Text) else "[image]" for part in message.parts]
    pieces += [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    text = "\n".join(piece for piece in pieces if piece)
    speaker = _SPEAKERS.get(message.role, message.role)
    html = f"<div><strong>{speaker}</strong>{markup.prewrapped(text)}</div>"
    indented = text.replace("\n", "\n    ")
    return {"text/plain": f"{speaker}:\n    {indented}", "text/html": html}
