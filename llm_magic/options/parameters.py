"""The request parameters, each said once: what its option takes, and where each API's body has it.

The parser, `--help`, completion, the keywords of `LLM.ask`, capabilities, the wire, the import from
LiteLLM and the picker follow the fields of `RequestParameters`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args, get_type_hints

from llm_magic.options.option import Option, escaped, nonempty, number, whole

Api = Literal["chat", "responses", "completions"]

BodyField = str | tuple[str, ...] | Mapping[str, Callable[[Any], Any]] | None
"""A field of a body: its name; several names, of which the endpoint takes one, else the first; or
several fields, each a function of the value (None leaves it out). None: the API has none for it."""

OWN_NAME = ""


class Parameter(NamedTuple):
    """A request parameter: what its option is for and takes, and what the APIs call it.

    `short` is a flag beside its own, `litellm` is LiteLLM's name for it (None: it is not taken over),
    and `picker` says whether the picker offers it.
    """

    help: str
    metavar: str
    read: Callable[[str], Any]
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

    def option(self, group: str) -> Option:
        """Return the option that sets it."""
        flags = (self.short, self.flag) if self.short else (self.flag,)
        return Option(
            self.name, flags, group, self.help, self.metavar, self.read, self.repeats, words=self.words,
            trusted_only=False,  # numbers and words to a model that the user has chosen: they lead nowhere else
        )  # fmt: skip

    def fields(self, api: Api) -> tuple[str, ...]:
        """Return the names that it may have in the body of an API; none where the API lacks it."""
        where: BodyField = getattr(self, api)
        if where is None:
            return ()
        return (where or self.name,) if isinstance(where, str) else tuple(where)

    @property
    def all_fields(self) -> tuple[str, ...]:
        """The names that it may have in the body of any API."""
        return tuple(dict.fromkeys(field for api in get_args(Api) for field in self.fields(api)))

    def body(self, api: Api, value: Any, taken: str) -> dict[str, Any]:
        """Return the fields of a value; of several names, `taken` is the endpoint's."""
        where: BodyField = getattr(self, api)
        if isinstance(where, Mapping):
            return {name: field for name, write in where.items() if (field := write(value)) is not None}
        names = self.fields(api)
        return {taken if taken in names else names[0]: list(value) if isinstance(value, tuple) else value}


class RequestParameters(TypedDict, total=False):
    """Request parameters by the names of their options; one that is absent is not sent.

    Sources of the fields: https://platform.openai.com/docs/api-reference/chat/create,
    …/responses/create, …/completions/create
    """

    temperature: Annotated[
        float, Parameter("0 is the most likely answer", "T", number(0), short="-t", responses=OWN_NAME)
    ]
    top_p: Annotated[
        float, Parameter("keep the most likely tokens of this probability", "P", number(0, 1), responses=OWN_NAME)
    ]
    max_tokens: Annotated[
        int, Parameter(
            "tokens of the answer at most", "N", whole(1),
            chat=("max_tokens", "max_completion_tokens"), responses="max_output_tokens",
        ),
    ]  # fmt: skip
    seed: Annotated[int, Parameter("the same seed, the same answer, where the server can", "N", whole())]
    stop: Annotated[
        str | Sequence[str],
        Parameter(r"end before this text (\n is a line end); repeatable", "TEXT", escaped, repeats=True, picker=False),
    ]
    presence_penalty: Annotated[float, Parameter("-2 to 2", "X", number(-2, 2))]
    frequency_penalty: Annotated[float, Parameter("-2 to 2", "X", number(-2, 2))]
    n: Annotated[int, Parameter("several answers, bound as a list", "N", whole(1), picker=False)]
    logprobs: Annotated[
        int, Parameter(
            "log probabilities, with this many alternatives a token", "N", whole(0),
            chat={"logprobs": lambda _: True, "top_logprobs": lambda count: count or None},
            responses={"include": lambda _: ["message.output_text.logprobs"], "top_logprobs": lambda n: n or None},
            litellm=None, picker=False,
        ),
    ]  # fmt: skip
    reasoning_effort: Annotated[
        str, Parameter(
            "minimal, low, medium, high, …", "LEVEL", nonempty, words=("minimal", "low", "medium", "high"),
            responses={"reasoning": lambda effort: {"effort": effort}}, completions=None,
        ),
    ]  # fmt: skip


PARAMETERS: Mapping[str, Parameter] = {
    name: hint.__metadata__[0]._replace(name=name)
    for name, hint in get_type_hints(RequestParameters, include_extras=True).items()
}
