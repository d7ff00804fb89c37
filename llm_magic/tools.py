"""Function tools: Python functions, described by their signatures, hints and docstrings."""

from __future__ import annotations

import builtins
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pydantic
import typing_extensions

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import InputError, ToolError
from llm_magic.output.schema.keywords import without_nulls
from llm_magic.output.schema.python_types import taken
from llm_magic.output.schema.shape import Shape
from llm_magic.output.schema.strict import strict
from llm_magic.output.type_expression import evaluate
from llm_magic.output.validate import validation_message
from llm_magic.request import Tool

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

SERVER = "mcp:"
_MCP_HINT = "Say mcp:NAME, or mcp:NAME.TOOL for one of its tools."
"""What stands before the name of an MCP server in `--tools`."""


async def _nowhere(_batch: list[Any]) -> None:
    """Let events pass by."""


telling: ContextVar[Emit[Any]] = ContextVar("telling", default=_nowhere)
"""What takes the progress of the call that is carried out."""


class CallableTool(Protocol):
    """What a model may call: a function of the user's, or a tool of an MCP server."""

    @property
    def tool(self) -> Tool:
        """What the model sees."""

    @property
    def name(self) -> str:
        """The name that the model calls it by."""

    @property
    def function(self) -> Callable[..., Any]:
        """What is called, with keyword arguments; plain or async."""

    @property
    def timeout(self) -> float | None:
        """Seconds for each call; None where the limit of all tools holds."""

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the validated arguments of a call; what does not fit is a `ValueError`, with a message for a model."""


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function that a model may call."""

    tool: Tool
    """What the model sees."""
    function: Callable[..., Any]
    """What is called, with keyword arguments."""
    shape: Shape
    """The type of the arguments, as a typed dict."""
    timeout: float | None = None
    """Seconds for each call; None where the limit of all tools holds."""

    @property
    def name(self) -> str:
        """The name that the model calls it by."""
        return self.tool.name

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the validated keyword arguments of a call.

        A text that is no JSON object of these parameters is a `ValueError`, with a message for the
        model.
        """
        data = read_arguments(text, self.tool.parameters)
        written = json.dumps(without_nulls(data, self.shape.schema))
        try:
            return dict(self.shape.adapter.validate_json(written))
        except pydantic.ValidationError as error:
            raise ValueError(f"the arguments do not fit: {validation_message(error)}") from None


def read_arguments(text: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call as a model wrote them; `parameters` is the schema, for what is said otherwise.

    A text that is no JSON object is a `ValueError`, with a message for the model.
    """
    try:
        data = json.loads(text) if text.strip() else {}
        if isinstance(data, str) and data.lstrip().startswith("{"):
            data = json.loads(data)  # an object that was encoded twice
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the arguments are not JSON: {error}") from None
    if not isinstance(data, dict):
        names = ", ".join(parameters.get("properties", {})) or "no keys"
        raise ValueError(  # noqa: TRY004 - one class for all that the model got wrong
            f"the arguments must be a JSON object with {names}, not {json.dumps(data)[:80]}"
        )
    return data


def describe(function: Callable[..., Any]) -> FunctionTool:
    """Return a function, method, partial or callable object, plain or async, as a tool.

    Each parameter needs a type hint and must be one that can be passed by name; one with a default
    may be left out by the model. Descriptions are taken from the docstring (numpydoc, Google or
    Sphinx style) and from `Annotated[…, Field(description=…)]`. What is not callable, has no usable
    name, a parameter without a hint or one that no JSON Schema can say, is a `ToolError`.
    """
    if not callable(function) or isinstance(function, type):
        raise ToolError(f"{function!r:.80} is no function.", "--tools takes the names of functions.")
    inner = getattr(function, "func", function)
    name = str(getattr(inner, "__name__", "") or type(function).__name__)
    if not _NAME.fullmatch(name):
        hint = "Define it with `def name(…)`: letters, digits and _."
        raise ToolError(f"A function named {name!r} cannot be a tool.", hint)
    documentation = inspect.getdoc(inner) or ""
    arguments = _arguments_type(function, name, parameter_descriptions(documentation))
    try:
        shape = Shape(arguments, name)
    except InputError as error:
        reason = error.message.removeprefix(f"--as {name}: ")
        raise ToolError(f"The tool {name}: a type of its parameters cannot be used: {reason}", error.hint) from error
    schema = {key: value for key, value in shape.schema.items() if key not in ("title", "description")}
    closed = strict(schema, of_type=True).schema
    tool = Tool(name, summary(documentation), closed or schema, strict=closed is not None)
    return FunctionTool(tool, function, shape)


def _arguments_type(function: Callable[..., Any], name: str, descriptions: Mapping[str, str]) -> Any:
    """Return a typed dict of the parameters of a function."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, SyntaxError, TypeError, ValueError) as error:
        advice = "Are all its type hints defined?"
        raise ToolError(f"The tool {name}: its signature cannot be read: {error}.", advice) from None
    fields: dict[str, Any] = {}
    for key, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            advice = "Give it parameters with names and types."
            raise ToolError(f"The tool {name}: {parameter} cannot be passed by name.", advice)
        if parameter.annotation is parameter.empty:
            advice = f"Write def {name}({key}: str, …)."
            raise ToolError(f"The tool {name}: its parameter {key!r} has no type hint.", advice)
        hint = taken(parameter.annotation)
        if key in descriptions:
            hint = Annotated[hint, pydantic.Field(description=descriptions[key])]
        fields[key] = hint if parameter.default is parameter.empty else typing_extensions.NotRequired[hint]
    arguments = typing_extensions.TypedDict(name, fields)  # type: ignore[misc]  # the functional form, with names known only now
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # where pydantic looks for it
    return arguments


def split_servers(wanted: str | Sequence[Any]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return what `--tools` names: functions, and tools of MCP servers without `mcp:`.

    >>> split_servers("weather,mcp:files,mcp:docs.search")
    (('weather',), ('files', 'docs.search'))

    """
    items: Sequence[Any] = wanted.split(",") if isinstance(wanted, str) else wanted
    items = [each.strip() if isinstance(each, str) else each for each in items]
    servers = [each[len(SERVER) :].strip() for each in items if isinstance(each, str) and each.startswith(SERVER)]
    for each in servers:
        server, dot, tool = each.partition(".")
        if not server or (dot and not tool):
            missing = "tool" if server else "server"
            raise ToolError(f"--tools: {SERVER}{each:.80} names no {missing}.", _MCP_HINT)
    functions = tuple(each for each in items if not (isinstance(each, str) and each.startswith(SERVER)))
    return functions, tuple(dict.fromkeys(servers))


def tools_from(
    names: str | Sequence[str | Callable[..., Any]], namespace: Mapping[str, Any], servers: Collection[str] = ()
) -> tuple[FunctionTool, ...]:
    """Return the tools that `--tools` names: text with commas, or a sequence of names and functions.

    `object.method` is a name, too. A name that is not among the user's variables (close ones are
    named), not callable or given twice, or a function that cannot be a tool, is a `ToolError`. `servers` are the names
    of MCP servers, for a hint where `mcp:` was left out.
    """
    wanted: Sequence[Any] = names.split(",") if isinstance(names, str) else names
    tools: dict[str, FunctionTool] = {}
    for each in wanted:
        tool = describe(_function(each.strip(), namespace, servers) if isinstance(each, str) else each)
        if tool.name in tools:
            raise ToolError(f"--tools has two functions named {tool.name!r}.", "Keep one, or rename one.")
        tools[tool.name] = tool
    if not tools:
        raise ToolError("--tools is empty.", "Name functions: --tools weather,add.")
    return tuple(tools.values())


def _function(name: str, namespace: Mapping[str, Any], servers: Collection[str]) -> Any:
    if name.partition(".")[0] in {"mcp", *servers} - set(namespace):
        server = name.removeprefix("mcp").lstrip(".")
        hint = f"For the MCP server, say mcp:{server}." if server.partition(".")[0] in servers else _MCP_HINT
        raise ToolError(f"--tools: no function {name!r} in this notebook.", hint)
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise ToolError(f"--tools: {name!r} is no name of a function.", "Name functions: --tools weather,add.")
    if name.partition(".")[0] not in namespace:
        # IPython puts an `open` of its own among the user's variables
        own = (key for key in namespace if not key.startswith("_") and not hasattr(builtins, key))
        known = [key for key in own if callable(namespace[key])]
        hint = did_you_mean(name, known, "Define it in a cell before this one.")
        raise ToolError(f"--tools: no function {name!r} in this notebook.", hint)
    try:
        found = evaluate(name, namespace, "--tools")
    except InputError as error:
        raise ToolError(error.message, error.hint) from None
    if not callable(found):
        kind = type(found).__name__
        raise ToolError(f"--tools: {name} is a {kind}, not a function.", "--tools takes the names of functions.")
    return found


_HEADING = re.compile(
    "^(Parameters|Other Parameters|Args|Arguments|Keyword Args|Attributes|Returns|Yields|Raises|Warns|Notes|See Also"
    "|Examples?|References):?[ \t]*$",
    re.MULTILINE,
)
_SPHINX = re.compile(r"^:param\s+(?:[^:\n]*\s)?(\w+):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_FIELD = re.compile(r"^:\w+[^:\n]*:", re.MULTILINE)


def summary(docstring: str) -> str:
    r"""Return what stands before the first section, as paragraphs.

    >>> summary("Add two numbers.\n\nParameters\n----------\na\n    One.")
    'Add two numbers.'

    """
    text = _FIELD.split(_HEADING.split(docstring)[0])[0]
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def parameter_descriptions(docstring: str) -> dict[str, str]:
    r"""Return the descriptions of parameters by name; of those that are described.

    >>> parameter_descriptions("Add.\n\nArgs:\n    a (int): One number.\n    b: Another.")
    {'a': 'One number.', 'b': 'Another.'}

    """
    found = {name: " ".join(text.split()) for name, text in _SPHINX.findall(docstring)}
    sections = _HEADING.split(docstring)[1:]
    for heading, section in zip(sections[::2], sections[1::2], strict=True):
        if heading in ("Parameters", "Other Parameters", "Args", "Arguments", "Keyword Args"):
            body = section.strip("\n")
            first, _, rest = body.partition("\n")
            found.update(_described(rest, typed=True) if set(first.strip()) == {"-"} else _described(body))
    return {name: text for name, text in found.items() if text}


def _described(body: str, *, typed: bool = False) -> dict[str, str]:
    """Read `name (type): description`, or `name : type` if `typed`, and indented lines."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(body).splitlines():
        head = re.match(r"([\w*, ]+)(?:\([^)]*\))?\s*:?\s*(.*)", line)
        if head and not line[0].isspace():
            names = [name.strip().lstrip("*") for name in head[1].split(",")]
            found.update(dict.fromkeys(names, "" if typed else head[2].strip()))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}".strip() for name in names})
    return found
