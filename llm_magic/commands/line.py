"""The line of a command: sub-commands, words and options by tables; what these lack is an error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llm_magic.close_matches import did_you_mean
from llm_magic.display import markup
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError
from llm_magic.options import Option
from llm_magic.options.reader import Line, read, words

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.background_loop import Emit
    from llm_magic.display.outputs import ProgressLine
    from llm_magic.session import Session

T = TypeVar("T")


class Subcommand(NamedTuple):
    """A sub-command: its work, what is written behind it, and which words and options it takes.

    `work` returns what is to be shown; `least` and `most` count words; `options` may depend on the
    text that follows the sub-command.
    """

    work: Callable[[Command, Line], Bundle | str]
    usage: str = ""
    least: int = 0
    most: int = 0
    options: Sequence[Option] | Callable[[Command, str], Sequence[Option]] = ()


@dataclass(slots=True)
class Command:
    """A command as it was typed: the magic's name, what stands behind it, and what it works on."""

    magic: str
    text: str
    session: Session
    shell: InteractiveShell
    cell: str | None = None
    _progress: ProgressLine | None = None

    def asks_for_help(self) -> bool:
        """Tell whether the line asks for its help page."""
        return any(word.text in {"-h", "--help"} and not word.quoted for word in words(self.text))

    def read(self, options: Sequence[Option] = (), *, most: int, usage: str, text: str | None = None) -> Line:
        """Read the line, or the part of it that is `text`, with `most` words at most besides the options.

        `usage` is what to write behind the magic's name, for errors.

        Raises
        ------
        OptionError
            An unknown option, a wrong value, one given twice, or a word too many.

        """
        by_flag = {flag: option for option in options for flag in option.flags}
        line = read(self.text if text is None else text, by_flag, self.magic, expand=self.expanded)
        if len(line.words) > most:
            what = f"{most or 'no'} word{'s' * (most != 1)} besides options"
            hint = f"{self.magic} {usage}".rstrip() + "."
            raise OptionError(f"{self.magic} takes {what}, not {len(line.words)}.", hint)
        return line

    def expanded(self, text: str) -> str:
        """Return a word with IPython's `$name` and `{expression}` replaced."""
        from llm_magic.prompt import expand_option

        return expand_option(text, self.shell.user_ns)

    def run(self, subcommands: Mapping[str, Subcommand]) -> None:
        """Carry out the sub-command that the line begins with, `list` where it is empty.

        Raises
        ------
        OptionError
            There is no such sub-command, or it needs a word that is missing; else as `read`.

        """
        first = next(words(self.text), None)
        name, rest = (first.text, self.text[first.end :]) if first else ("list", "")
        if name not in subcommands:
            kind = "option" if name.startswith("-") else "command"
            others = f"There are {', '.join(subcommands)}; {self.magic} --help shows them all."
            raise OptionError(f"{self.magic} has no {kind} {name}.", did_you_mean(name, subcommands, others))
        work, usage, least, most, options = subcommands[name]
        if callable(options):
            options = options(self, rest)
        line = self.read(options, most=most, usage=f"{name} {usage}".rstrip(), text=rest)
        if len(line.words) < least:
            raise OptionError(f"{self.magic} {name} needs {usage.split()[0]}.", f"{self.magic} {name} {usage}.")
        self.show(work(self, line))

    def wait(self, work: Callable[[Emit[str]], Coroutine[Any, Any, T]], what: str) -> T:
        """Run `work` on the loop for its result; a line tells what it emits, or of the wait."""
        from llm_magic.background_loop import Channel
        from llm_magic.display.outputs import ProgressLine

        found: list[T] = []

        async def producer(emit: Emit[str]) -> None:
            found.append(await work(emit))

        channel: Channel[str] = Channel(self.session.loop, producer)
        self._progress, seconds = ProgressLine(self.shell), 0
        try:
            while (lines := channel.receive(1.0)) is not None:
                seconds = 0 if lines else seconds + 1
                self._progress.say(lines[-1] if lines else f"{what}: {seconds} s")
        except BaseException:
            channel.cancel()
            self._progress.end()
            raise
        return found[0]

    def show(self, shown: Bundle | str) -> None:
        """Show a sentence or an output, in the place of what was said of the wait for it."""
        from llm_magic.display.outputs import publish

        if isinstance(shown, str):
            shown = {"text/plain": shown, "text/html": markup.prewrapped(shown)}
        if self._progress is None:
            publish(shown)
        else:
            self._progress.end(shown)
