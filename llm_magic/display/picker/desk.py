"""What the panel asks for and may change: facts as frozen data, and one protocol for whoever has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llm_magic.display import View
    from llm_magic.providers.cards import ModelCard

ALIASES = ":aliases"
"""What is browsed in place of a provider (whose name has no colon) to see the aliases."""

FIELDS = {
    "temperature": "Temperature",
    "max_tokens": "Max tokens",
    "top_p": "Top p",
    "seed": "Seed",
    "presence_penalty": "Presence penalty",
    "frequency_penalty": "Frequency penalty",
    "reasoning_effort": "Reasoning effort",
}
"""The parameters of the panel, by the name of their option; empty is unset, and nothing is sent then."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A request parameter as it is in force for the model, where something wins over what is set for all."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class InForce:
    """What cells without options ask for now.

    Attributes
    ----------
    asked
        The model as a cell would name it; empty where there is none.
    provider, model
        What that leads to; empty where it leads nowhere. An empty `model` is the first one listed.
    source
        Where the setting comes from: session, project (and its file), profile, default.
    params, system
        Parameters of every cell by option name, and the system prompt.
    overriding
        Parameters that the alias or `LLMMagics.model_params` set otherwise for this model.
    problem
        What is wrong with all this, or empty.
    code
        Lines that set the same.

    """

    asked: str = ""
    provider: str = ""
    model: str = ""
    source: str = "default"
    params: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    overriding: tuple[Fact, ...] = ()
    problem: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The models of one provider; `cards` is None where they cannot be told, and `problem` says why."""

    provider: str
    url: str = ""
    cards: tuple[ModelCard, ...] | None = None
    problem: str = ""


class Desk(Protocol):
    """Where the panel gets everything from; the magic makes one over its session."""

    def providers(self) -> list[str]:
        """Return the names of all providers."""

    def aliases(self) -> list[str]:
        """Return the names that stand for models."""

    def in_force(self) -> InForce:
        """Return what cells without options ask for now; nothing is sent for it."""

    def list_models(self, provider: str, tell: Callable[[Listing], None], *, refresh: bool) -> None:
        """Call `tell` with the provider's models: at once where they are known, else later, from another thread."""

    def choose(self, model: str) -> None:
        """Make a model the one of all cells that name none."""

    def set_parameter(self, name: str, text: str) -> None:
        """Set a request parameter of all cells, or unset it with an empty text.

        Raises
        ------
        OptionError
            The parameter does not take it; nothing is changed.

        """

    def unset_parameters(self, names: tuple[str, ...]) -> None:
        """Unset several."""

    def set_system(self, text: str) -> None:
        """Set the system prompt of all cells."""

    def ask(self, prompt: str, view: View) -> Callable[[], object]:
        """Send one prompt outside of any conversation and show the answer in `view`; the result stops it.

        Raises
        ------
        InputError
            Nothing can be sent.

        """

    def usage(self) -> str:
        """Return one line on what has been used so far."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever something of the above may be different, until `forget`."""

    def forget(self, changed: Callable[[], None]) -> None:
        """End `watch`."""
