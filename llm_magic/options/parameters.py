"""The request parameters, each said once: how a cell gives it, and where the body of each API has it.

Whatever knows parameters by name follows the fields of `RequestParameters`: the parser, `--help`, completion, the
keywords of `LLM.ask`, capabilities, the wire, the import from LiteLLM, the picker. One more parameter is one more
field.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from llm_magic.options.option import Option, escaped, integer, nonempty, number, whole

Api = Literal["chat", "responses", "completions"]

BodyField = str | tuple[str, ...] | Mapping[str, Callable[[Any], Any]] | None
"""Where a body has a parameter: in the field of this name; in that of these names which the endpoint takes, else in the
first; in several fields, each a function of the value (None leaves it out). None: the API does not have it."""

OWN_NAME = ""
GROUP = "Request parameters"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A request parameter.

    `metavar`, `read`, `help`, `short` (a flag beside its own), `repeats` and `words` are those of its option; `chat`,
    `responses` and `completions` say where the bodies have it, `litellm` how LiteLLM calls it (None: it is not taken
    over), and `picker` whether the picker offers it.
    """

    metavar: str
    read: Callable[[str], Any]
    help: str
    short: str = ""
    repeats: bool = False
    words: tuple[str, ...] = ()
    chat: BodyField = OWN_NAME
    responses: BodyField = None
    completions: BodyField = OWN_NAME
    litellm: str | None = OWN_NAME
    picker: bool = True
    name: str = ""

    @property
    def flag(self) -> str:
        """The long flag of its option."""
        return "--" + self.name.replace("_", "-")

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ").capitalize()

    @property
    def option(self) -> Option:
        """The option that sets it."""
        flags = (self.short, self.flag) if self.short else (self.flag,)
        return Option(self.name, flags, GROUP, self.help, self.metavar, self.read, self.repeats, words=self.words)

    def fields(self, api: Api) -> tuple[str, ...]:
        """Return the names of the fields that the body of an API may have it in; none where the API lacks it."""
        where: BodyField = getattr(self, api)
        if where is None:
            return ()
        return (where or self.name,) if isinstance(where, str) else tuple(where)

    def body(self, api: Api, value: Any, taken: str) -> dict[str, Any]:
        """Return the fields that say a value; `taken` is the name that the endpoint takes where there are several."""
        where: BodyField = getattr(self, api)
        if isinstance(where, Mapping):
            written = {name: write(value) for name, write in where.items()}
            return {name: item for name, item in written.items() if item is not None}
        names = self.fields(api)
        listed = self.repeats and not isinstance(value, str)
        return {taken if taken in names else names[0]: list(value) if listed else value}


class RequestParameters(TypedDict, total=False):
    """Request parameters, by the names of their options; one that is absent is not sent.

    Sources of the fields: https://platform.openai.com/docs/api-reference/chat/create, …/responses/create,
    …/completions/create
    """

    temperature: Annotated[
        float, Parameter("T", number(0), "0 is the most likely answer", short="-t", responses=OWN_NAME)
    ]
    top_p: Annotated[
        float, Parameter("P", number(0, 1), "keep the most likely tokens of this probability", responses=OWN_NAME)
    ]
    max_tokens: Annotated[
        int,
        Parameter(
            "N",
            whole(1),
            "tokens of the answer at most",
            chat=("max_tokens", "max_completion_tokens"),
            responses="max_output_tokens",
        ),
    ]
    seed: Annotated[int, Parameter("N", integer, "the same seed, the same answer, where the server can")]
    stop: Annotated[
        str | Sequence[str],
        Parameter("TEXT", escaped, r"end before this text (\n is a line end); repeatable", repeats=True, picker=False),
    ]
    presence_penalty: Annotated[float, Parameter("X", number(-2, 2), "-2 to 2")]
    frequency_penalty: Annotated[float, Parameter("X", number(-2, 2), "-2 to 2")]
    n: Annotated[int, Parameter("N", whole(1), "several answers, bound as a list", picker=False)]
    logprobs: Annotated[
        int,
        Parameter(
            "N",
            whole(0),
            "log probabilities, with this many alternatives a token",
            chat={"logprobs": lambda _: True, "top_logprobs": lambda count: count or None},
            responses={"include": lambda _: ["message.output_text.logprobs"], "top_logprobs": lambda n: n or None},
            litellm=None,
            picker=False,
        ),
    ]
    reasoning_effort: Annotated[
        str,
        Parameter(
            "LEVEL",
            nonempty,
            "minimal, low, medium, high, …",
            words=("minimal", "low", "medium", "high"),
            responses={"reasoning": lambda effort: {"effort": effort}},
            completions=None,
        ),
    ]


PARAMETERS: Mapping[str, Parameter] = {
    name: replace(hint.__metadata__[0], name=name)
    for name, hint in get_type_hints(RequestParameters, include_extras=True).items()
}
