"""The line of a command: words and options by a table; what the table does not hold is an error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llm_magic.close_matches import did_you_mean
from llm_magic.display import markup
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError
from llm_magic.options import Option
from llm_magic.options.reader import Word, words

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
    """Read a line by a table of options.

    `expand` is applied to each word that stands unquoted. Behind `--` there are only words.

    >>> from llm_magic.options import BY_FLAG
    >>> read("%llm_x", "add eu -m a", [BY_FLAG["--model"]])
    Line(words=('add', 'eu'), values={'model': 'a'})

    """

    def content(word: Word) -> str:
        return word.text if word.quoted else expand(word.text)

    by_flag = {flag: option for option in options for flag in option.flags}
    found: list[str] = []
    values: dict[str, Any] = {}
    stream = words(text)
    for word in stream:
        if word.text == "--" and not word.quoted:
            found += map(content, stream)
            break
        if not word.text.startswith("-") or word.text == "-" or (word.quoted and not word.text.startswith("--")):
            found.append(content(word))
            continue
        flag, equals, value = word.text.partition("=")
        option = by_flag.get(flag)
        if option is None:
            hint = did_you_mean(flag, by_flag, f"{magic} --help lists the options.")
            raise OptionError(f"{magic} has no option {flag}.", hint)
        if option.read is None:
            if equals:
                raise OptionError(f"{flag} takes no value.", f"Write {flag} alone.")
            values[option.name] = True
            continue
        if not equals:
            following = next(stream, None)
            if following is None or (not following.quoted and following.text.partition("=")[0] in by_flag):
                hint = f"{option.help[:1].upper()}{option.help[1:]}."
                raise OptionError(f"{flag} needs a value: {flag} {option.metavar}.", hint)
            value = content(following)
        elif not word.quoted:
            value = expand(value)
        try:
            given = option.read(value)
        except ValueError as error:
            hint = f"{option.flags[-1]} {option.metavar}: {option.help}."
            raise OptionError(f"{flag} takes {error}.", hint) from None
        if option.pairs:
            values.setdefault(option.name, {}).update([given])
        elif option.name in values:
            raise OptionError(f"{flag} is given twice.", "Keep one of them.")
        else:
            values[option.name] = given
    return Line(tuple(found), values)
