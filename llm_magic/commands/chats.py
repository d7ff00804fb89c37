"""`%llm_chat`: conversations by name; `switch` sets the current one, `LLMMagics.chat`."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from llm_magic.commands.line import Command, Subcommand
from llm_magic.display import markup, table
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError
from llm_magic.model_names import shown_model
from llm_magic.options import Option
from llm_magic.options.reader import Line

if TYPE_CHECKING:
    from llm_magic.conversation import Conversation
    from llm_magic.messages import Message

_DAY = 86_400.0
_SPEAKERS = {"user": "You", "assistant": "Model", "tool": "Tool", "system": "System"}


def run(command: Command) -> None:
    """Carry out a sub-command."""
    command.run(_SUBCOMMANDS)


def _find(command: Command, *words: str) -> Conversation:
    """Return the conversation that the words name, without any the current one, which may have no turns yet."""
    current = command.session.settings.chat
    return command.session.conversations.find(*(words or (current,)), current)


def _list(command: Command, _line: Line) -> Bundle:
    chats, current = command.session.conversations, command.session.settings.chat
    rows = [
        {
            "": "→" if chat.name == current else "",
            "conversation": chat.name,
            "turns": chat.turns,
            "tokens, about": chat.tokens,
            "last model": shown_model(chat.model),
            "last turn": _when(chat.last),
        }
        for chat in chats.list(current)
    ]
    kept = f"Kept in {chats.file}." if chats.file else "In memory only: LLMMagics.chat_file names a file to keep them."
    return markup.joined([table.shown(rows), markup.quiet(kept)])


def _show(command: Command, line: Line) -> Bundle | str:
    chat = _find(command, *line.words)
    turns = chat.turns()
    if not turns:
        return f"The conversation {chat.name} has no turns yet."
    bundles = []
    for number, turn in enumerate(turns, 1):
        facts = [f"{chat.name}, turn {number} of {len(turns)}", shown_model(turn.model), _when(turn.when)]
        bundles.append(markup.quiet(" · ".join(fact for fact in facts if fact)))
        bundles += [_message(message) for message in turn.messages]
    return markup.joined(bundles)


def _drop(command: Command, line: Line) -> str:
    *before, last = line.words
    words, named = (before, (last,)) if _TURNS.fullmatch(last) is None else (line.words, ())
    for word in words or named:
        if _TURNS.fullmatch(word) is None:
            raise OptionError(f"{word[:_DIGITS]!r} is no number of a turn.", _NUMBERS)
    chat = _find(command, *named)
    count = len(chat)
    numbers = {number for word in words for piece in word.split(",") for number in _range(piece, chat.name, count)}
    chat.drop(numbers)
    dropped = f"turn {min(numbers)}" if len(numbers) == 1 else counted(len(numbers), "turn")
    return f"{chat.name}: {dropped} dropped; it has {counted(count - len(numbers), 'turn')} now."


def _range(piece: str, chat: str, count: int) -> range:
    """Return the numbers that a piece stands for, all of which are turns."""
    first, _, last = piece.partition("-")
    begin, end = (int(number[:_DIGITS]) for number in (first, last or first))
    if begin > end:
        raise OptionError(f"{begin}-{end} is no range of turns.", _NUMBERS)
    if begin < 1 or end > count:
        there = f"It has {counted(count, 'turn')}; %llm_chat show {chat} numbers them." if count else "It has no turns."
        raise OptionError(f"The conversation {chat} has no turn {end if 1 <= begin <= count else begin}.", there)
    return range(begin, end + 1)


_TURNS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
_DIGITS = 18  # of a number that count: no conversation has more turns
_NUMBERS = "%llm_chat drop 2 3 forgets two turns, drop 2-5 a range; %llm_chat show numbers them."


def _reset(command: Command, line: Line) -> str:
    chat = _find(command, *line.words)
    return f"{chat.name}: {counted(chat.reset(), 'turn')} forgotten."


def _fork(command: Command, line: Line) -> str:
    new, source = line.words[0], _find(command, *line.words[1:])
    chat = source.fork(new)
    return (
        f"{new} is a copy of {source.name} now ({counted(len(chat), 'turn')}). %llm_chat switch {new} goes on there, "
        f"and so does a cell with -c {new}."
    )


def _switch(command: Command, line: Line) -> str:
    name, settings, chats = line.words[0], command.session.settings, command.session.conversations
    new = line.values.get("new")
    if new and name in chats.names(settings.chat):
        raise OptionError(f"There is a conversation {name!r} already.", f"%llm_chat switch {name} goes on there.")
    chat = chats.get(name) if new else _find(command, name)
    settings.chat = chat.name
    return f"Cells without -c belong to {chat.name} from now on ({counted(len(chat), 'turn')})."


def _export(command: Command, line: Line) -> str:
    chat = _find(command, *line.words[1:])
    path = chat.export(line.words[0])
    return f"{counted(len(chat), 'turn')} of {chat.name} written to {path}."


def _import(command: Command, line: Line) -> str:
    chat = command.session.conversations.load(*line.words)
    return f"{counted(len(chat), 'turn')} read as {chat.name}. %llm_chat switch {chat.name} goes on there."


_NEW = Option("new", ("--new",), "", "start one that is empty")
_SUBCOMMANDS = {
    "list": Subcommand(_list),
    "show": Subcommand(_show, "[NAME]", most=1),
    "drop": Subcommand(_drop, "N [N …] [NAME]", 1, 1_000),
    "reset": Subcommand(_reset, "[NAME]", most=1),
    "fork": Subcommand(_fork, "NEW [NAME]", 1, 2),
    "switch": Subcommand(_switch, "NAME [--new]", 1, 1, (_NEW,)),
    "export": Subcommand(_export, "FILE [NAME]", 1, 2),
    "import": Subcommand(_import, "FILE [NAME]", 1, 2),
}


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
    html = f"<div><strong>{markup.escaped(speaker)}</strong>{markup.prewrapped(text)}</div>"
    indented = text.replace("\n", "\n    ")
    shown = {"text/plain": f"{speaker}:\n    {indented}", "text/html": html}
    thought = message.reasoning.text if message.reasoning is not None else ""
    return markup.joined([markup.reasoning(thought), shown]) if thought else shown
