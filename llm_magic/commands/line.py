"""The line of a command: words and options by a table; what the table does not hold is an error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llm_magic.close_matches import did_you_mean
from llm_magic.display import markup
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError
from llm_magic.options import Option, reader
from llm_magic.options.reader import words

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.background_loop import Emit
    from llm_magic.display.outputs import ProgressLine
    from llm_magic.session import Session

T = TypeVar("T")

HELP = ("-h", "--help")


@dataclass(frozen=True, slots=True)
class Line:
    """What a line says: its words in order, and the values of its options by their names."""

    words: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass(slots=True)
class Command:
    """A command as it was typed: the magic's name, what stands behind it, and what it works on."""

    magic: str
    text: str
    session: Session
    shell: InteractiveShell
    _progress: ProgressLine | None = None

    def asks_for_help(self) -> bool:
        """Tell whether the line asks for its help page."""
        return any(word.text in HELP and not word.quoted for word in words(self.text))

    def read(self, options: Sequence[Option] = (), *, most: int, usage: str, text: str | None = None) -> Line:
        """Read the line.

        Parameters
        ----------
        options
            Those that the command takes.
        most
            Words that it takes at most, besides options.
        usage
            What to write behind the magic's name, for errors.
        text
            What to read instead of the whole line.

        Raises
        ------
        OptionError
            An unknown option, a wrong value, one given twice, or a word too many.

        """
        line = read(self.magic, self.text if text is None else text, options, self.expanded)
        if len(line.words) > most:
            what = f"{most or 'no'} word{'s' * (most != 1)} besides options"
            hint = f"{self.magic} {usage}".rstrip() + "."
            raise OptionError(f"{self.magic} takes {what}, not {len(line.words)}.", hint)
        return line

    def expanded(self, text: str) -> str:
        """Return a word with IPython's `$name` and `{expression}` replaced."""
        if "$" not in text and "{" not in text:
            return text
        from llm_magic.prompt import expand_option

        return expand_option(text, self.shell.user_ns)

    def subject(self, subjects: Iterable[str]) -> tuple[str, str]:
        """Return the sub-command of the line and what follows it; empty where there is none.

        Raises
        ------
        OptionError
            There is no such sub-command.

        """
        first = next(words(self.text), None)
        if first is None:
            return "", ""
        known = tuple(subjects)
        if first.text not in known:
            kind = "option" if first.text.startswith("-") else "command"
            others = f"There are {', '.join(known)}; {self.magic} --help shows them all."
            raise OptionError(f"{self.magic} has no {kind} {first.text}.", did_you_mean(first.text, known, others))
        return first.text, self.text[first.end :]

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

    def show(self, bundle: Bundle) -> None:
        """Show what the command gives, in the place of what was said of the wait for it."""
        from llm_magic.display.outputs import publish

        if self._progress is None:
            publish(bundle)
        else:
            self._progress.end(bundle)


def said(text: str) -> Bundle:
    """Return what a command says in words."""
    return {"text/plain": text, "text/html": markup.prewrapped(text)}


def read(magic: str, text: str, options: Sequence[Option], expand: Callable[[str], str] = str) -> Line:
    """Read a line by a table of options; `expand` is applied to each word that stands unquoted.

    >>> from llm_magic.options import BY_FLAG
    >>> read("%llm_x", "add eu -m a", [BY_FLAG["--model"]])
    Line(words=('add', 'eu'), values={'model': 'a'})

    """
    by_flag = {flag: option for option in options for flag in option.flags}
    values, found = reader.read(text, by_flag, magic, expand=expand)
    return Line(tuple(found), values)
