"""What several models answered to one prompt: a response or an error by the name of each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from llm_magic.close_matches import did_you_mean
from llm_magic.display.footer import counted
from llm_magic.errors import InputError, LLMError, ModelsFailedError
from llm_magic.model_names import led_by, shown_models
from llm_magic.response import Response

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_magic.metadata import Usage

_OF_ONE = frozenset({field.name for field in fields(Response)} | {"rate_limits", "frame", "to_frame"})
"""What a response has; what a comparison has, too, is found before."""
_LONGEST = 300
"""Characters of one model's error in that of them all."""
_MOST_NAMED = 5
"""Models whose errors the error of them all says."""


class NoSuchAttributeError(InputError, AttributeError):
    """A comparison has no such attribute; one response may have it."""


@dataclass(repr=False)
class Comparison:
    """What several models answered to one prompt.

    `LLM.compare` returns it, and `_llm` is it after a cell with `-m a,b`.

    Attributes
    ----------
    responses
        What each model answered, by its name as it was asked for; of a model that failed what had arrived.
    errors
        Why models failed, by their names; empty where none did.
    names
        All names, in the order in which they were asked for.

    Examples
    --------
    >>> comparison = Comparison({"a": Response("Yes.", "Yes."), "b": Response()}, {"b": LLMError("No server.")})
    >>> comparison.value["a"], comparison.errors["b"].message, comparison
    ('Yes.', 'No server.', Comparison of 2 models, 1 failed)

    """

    responses: dict[str, Response]
    errors: dict[str, LLMError] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.names = self.names or tuple(dict.fromkeys((*self.responses, *self.errors)))

    @property
    def value(self) -> dict[str, Any]:
        """The value of each model by its name: of the output type, else the text; the error where there is none."""
        found: dict[str, Any] = {}
        for name in self.names:
            if name in self.errors:
                found[name] = self.errors[name]
            elif name in self.responses:
                found[name] = self.responses[name].value
        return found

    @property
    def usage(self) -> Usage | None:
        """Tokens of all models, failed ones included; None where no server told."""
        found = [response.usage for response in self.responses.values() if response.usage is not None]
        return sum(found[1:], start=found[0]) if found else None

    @property
    def cost(self) -> float | None:
        """US dollars of all models, failed ones included; None where no price is known."""
        found = [response.cost for response in self.responses.values() if response.cost is not None]
        return math.fsum(found) if found else None

    @property
    def seconds(self) -> float:
        """Seconds until the last model had answered: they were asked at the same time."""
        return max((response.seconds for response in self.responses.values()), default=0.0)

    @property
    def recorded(self) -> bool:
        """Whether all of it comes from a recording."""
        return bool(self.responses) and all(response.recorded for response in self.responses.values())

    def _in_prompt_(self) -> dict[str, Any]:
        """Return what stands for it in a prompt: the values, and of a model that failed the error in a line."""
        return {
            name: f"{type(value).__name__}: {value.message}" if isinstance(value, LLMError) else value
            for name, value in self.value.items()
        }

    def __getattr__(self, name: str) -> Any:
        """Say that there is no such attribute, and of what one response has, where that is."""
        if name.startswith("_") or name in {"responses", "errors", "names"}:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        what = f"These are the answers of {counted(len(self.names), 'model')}, and have no {name}"
        if name in _OF_ONE:
            first = next(iter(self.names), "")
            raise NoSuchAttributeError(
                f"{what}: each response has its own.", f"Of the first model: .responses[{first!r}].{name}."
            )
        public = [each for each in (*vars(self), *dir(type(self))) if not each.startswith("_")]
        raise NoSuchAttributeError(f"{what}.", did_you_mean(name, public, f"They have {', '.join(sorted(public))}."))

    def __repr__(self) -> str:
        failed = len(self.errors)
        return f"Comparison of {counted(len(self.names), 'model')}{f', {failed:,} failed' if failed else ''}"

    def _repr_markdown_(self) -> str:
        """Return the answers below each other, each under the name of its model."""
        from llm_magic.markdown import for_notebook

        parts, titles = [], shown_models(self.names)
        for name in self.names:
            response, error = self.responses.get(name), self.errors.get(name)
            text = response.text if response is not None else ""
            said = f"{type(error).__name__}: {error.message}" if error is not None else ""
            parts += [f"**{_plain(titles[name])}**", *filter(None, (text, _plain(said)))]
        return for_notebook("\n\n".join(parts))


def models_failed(comparison: Comparison, keep: Collection[str] = ()) -> LLMError | None:
    """Return the error of a comparison of which models failed; None where none did.

    Where those that failed are to be kept as values (`keep` names them), it is none either, unless all failed. Where
    all failed for the same reason, it says that once.
    """
    errors = comparison.errors
    if not errors or (errors.keys() <= {*keep} and len(errors) < len(comparison.names)):
        return None
    first, *others = errors.values()
    titles = shown_models(comparison.names)
    said = [led_by(titles[name], _in_words(error)) for name, error in list(errors.items())[:_MOST_NAMED]]
    said += [f"and {len(errors) - _MOST_NAMED:,} more"] if len(errors) > _MOST_NAMED else []
    if others and all(type(each) is type(first) and str(each) == str(first) for each in others):
        said = [f"all: {_in_words(first)}"]
    hints = [hint_of(name, error) for name, error in errors.items()]
    hint = hints[0] if len(set(hints)) == 1 else ""
    failed = ModelsFailedError(
        f"{len(errors):,} of {counted(len(comparison.names), 'model')} failed. {'; '.join(said)}",
        f"{hint} _llm.errors has the errors by model, _llm.responses what came.".lstrip(),
    )
    failed.response = comparison
    return failed


def hint_of(name: str, error: LLMError) -> str:
    """Return what to do next about the error of one model of several, whose response is one of several, too."""
    return re.sub(r"\b(_llm|error\.response)\.text\b", lambda found: f"{found[1]}.responses[{name!r}].text", error.hint)


def _in_words(error: LLMError) -> str:
    words = f"{type(error).__name__}: {error.message}"
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def _plain(text: str) -> str:
    """Return a text with nothing in it that markdown has a meaning for."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>#|~$" else each for each in " ".join(text.split()))
