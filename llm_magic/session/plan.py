"""From a cell to a plan, and from the plan to the request of one model: all is resolved and checked before sending."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magic.config.precedence import nearness, sources_of
from llm_magic.config.references import mark_secrets, read
from llm_magic.errors import OptionError, PromptError, UnsupportedError
from llm_magic.events import Event, Finished, Note, Progress, ReasoningDelta, TextDelta, ToolCallDelta
from llm_magic.messages import Image, Message, Part, Reasoning, Text, interned, system, user
from llm_magic.options import PARAMETERS, Options, combinations
from llm_magic.options.mapping import from_alias, from_mapping
from llm_magic.request import Parameters, Request
from llm_magic.secrets import secrets_in

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.capabilities import Capabilities
    from llm_magic.config.settings import Settings
    from llm_magic.conversation import Turn
    from llm_magic.output.dialects import Structure
    from llm_magic.output.spec import OutputSpec
    from llm_magic.providers.base import Provider
    from llm_magic.providers.registry import ProviderRegistry, Target
    from llm_magic.request import Tool
    from llm_magic.tools import CallableTool


@dataclass(slots=True)
class CellRun:
    """One run of a cell of the notebook, which may hold several prompts.

    A later run has a higher `number`. `seen` says whether somebody sits before it, `code` is the cell's whole source.
    """

    number: int = 0
    code: str = ""
    seen: bool = False
    prompts: int = 0
    """Prompts so far, those that cannot be asked, too."""
    begun: int = 0
    """Prompts that were asked so far."""
    chats: set[str] = field(default_factory=set)
    """The conversations that these belong to."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a user asks: a body with options, and the variables that both may name.

    `cell_id` is the front end's name of the cell, None where it has none. `template` is False where the body
    stands as it is.
    """

    body: str
    options: Options
    namespace: Mapping[str, Any] = field(default_factory=dict)
    cell_id: str | None = None
    template: bool = True
    defaults: Options = field(default_factory=Options)
    """Options of many calls, below those of this one: what an `LLM` was made with."""
    part: int = 0
    """Number of the prompt within one run of its cell, from 0."""
    run: CellRun | None = None
    """The run of the notebook's cell that it is a prompt of; None where there is no notebook."""
    messages: tuple[Message, ...] = ()
    """A conversation in the place of the body: its last message is the prompt, where that is a user's."""
    notes: tuple[str, ...] = ()
    """What the user should know before anything else."""
    cannot_confirm: OptionError | None = None
    """What is raised where a call is to be confirmed: nobody can be asked here. None: somebody can."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that may answer, and the options as they are in force for it; `given` are those of this call alone."""

    target: Target
    options: Options
    given: Options = field(default_factory=Options)
    sources: Mapping[str, str] = field(default_factory=dict)
    """What sets each request parameter and further field: an alias or a setting; "" for the cell itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A cell, resolved: what will be asked of whom. The first of `models` is asked, the others are its fallbacks."""

    cell: Cell
    models: tuple[PlannedModel, ...]
    parts: tuple[Part, ...]
    context: tuple[Part, ...] = ()
    """Executed cells, as `--context` says: they stand before the prompt, and are no part of the conversation."""
    notes: tuple[str, ...] = ()
    spec: OutputSpec | None = None
    tools: Mapping[str, CallableTool] = field(default_factory=dict)
    mcp: tuple[str, ...] = ()
    """MCP servers whose tools are offered, `NAME`, or `NAME.tool`: `with_server_tools` puts them to `tools`."""
    turns: tuple[Turn, ...] = ()
    tool_timeout: float = 60.0
    returns_calls: bool = False
    """Whether calls of tools are the answer: nobody is there to carry them out."""

    @property
    def before(self) -> tuple[Message, ...]:
        """The messages that were given ahead of the prompt."""
        messages = self.cell.messages
        return messages[:-1] if messages and messages[-1].role == "user" else messages

    @property
    def options(self) -> Options:
        """The options in force for the model asked first."""
        return self.models[0].options


def plan(
    cell: Cell,
    models: tuple[PlannedModel, ...],
    settings: Settings,
    turns: tuple[Turn, ...] = (),
    *,
    rows: bool = False,
) -> Plan:
    """Resolve a cell for the models that `choose` gave.

    Of one that is asked for many `rows`, the prompt is left to be rendered for each: it has no parts yet.

    Raises
    ------
    InputError
        Whatever is wrong with the cell; nothing was sent.

    """
    options = models[0].options
    if not cell.body.strip() and not options.image and not cell.messages:
        raise PromptError("The cell is empty.", "Write the prompt on the lines below %%llm.")
    combinations.need_tools(cell.options, options)
    if cell.cannot_confirm is not None and options.tools and any(planned.options.confirm for planned in models):
        raise cell.cannot_confirm
    spec = _output(options, cell.namespace)
    if spec is None:
        combinations.need_type(cell.options)
    parts, notes = ((), ()) if rows else _parts(cell, options, settings)
    tools, servers = _tools(cell.options, options, cell.namespace, settings.mcp_servers)
    return Plan(
        cell=cell,
        models=models,
        parts=parts,
        notes=(*cell.notes, *notes),
        spec=spec,
        tools=tools,
        mcp=servers,
        turns=() if options.once else turns,
        tool_timeout=settings.tool_timeout,
    )


def choose(
    given: Options, settings: Settings, registry: ProviderRegistry, defaults: Options | None = None
) -> tuple[PlannedModel, ...]:
    """Return the model asked for and its fallbacks, each with its options.

    Of two options that exclude each other the nearer one holds: those `given`, then the `defaults` of many calls,
    then those of the alias, of the model, of everybody.
    """
    defaults = defaults or Options()
    combinations.check(defaults, "LLM")
    called = combinations.put_over(given, defaults)
    name = called.model or registry.default_model(settings.model)
    target = registry.resolve(name, called.base_url or "")
    models = [_planned(given, called, target, settings)]
    for fallback in target.fallbacks:
        try:
            models.append(_planned(given, called, registry.resolve(fallback, called.base_url or ""), settings))
        except UnsupportedError:  # it cannot be asked at --base-url, which the alias knows nothing of
            if not called.base_url:
                raise
    return tuple(models)


def _planned(given: Options, called: Options, target: Target, settings: Settings) -> PlannedModel:
    """Put the options together: those of the call, over the session's, over the project's, over the profile's.

    Of one source, an alias is over `model_params`, a longer glob of these over a shorter one, these over `params`, and
    `params` over the setting of the same name, such as `LLMMagics.system`.
    """
    options = called
    sources = dict.fromkeys((*called.parameters, *called.param), "")
    for layer in sorted(_layers(target, settings), key=lambda layer: -nearness(layer.source)):
        combinations.check(layer.options, layer.name)
        options = combinations.put_over(options, layer.options)
        for name in (*layer.options.parameters, *layer.options.param):
            sources.setdefault(name, layer.name.replace("The alias", "the alias"))
    if options.base_url:
        target = target.at(options.base_url)
    return PlannedModel(target, options, given, sources)


class _Layer(NamedTuple):
    """Options that are configured: where they come from, what they are called in errors, and they themselves."""

    source: str
    name: str
    options: Options


def _layers(target: Target, settings: Settings) -> Iterator[_Layer]:
    """Yield what is configured for a model; of one source, the nearest first."""
    sources = sources_of(settings)
    for source, entries in _by_source(target.defaults, target.source_of):
        yield _Layer(source, f"The alias {target.asked}", from_alias(entries, target.asked))
    names = (target.asked, target.model, f"{target.provider.name}:{target.model}")
    for glob in sorted(settings.model_params, key=len, reverse=True):
        name = f"LLMMagics.model_params[{glob!r}]"
        options = from_mapping(settings.model_params[glob], name)
        if any(fnmatchcase(asked, glob) for asked in names):
            yield _Layer(sources.of_entry(settings, "model_params", glob), name, options)
    for source, entries in _by_source(settings.params, lambda key: sources.of_entry(settings, "params", key)):
        yield _Layer(source, "LLMMagics.params", from_mapping(entries, "LLMMagics.params"))
    of_traits = {
        "system": Options(system=settings.system or None),
        "show": Options(show=settings.show or None),
        "stream": Options(no_stream=not settings.stream),
        "retries_invalid": Options(retries_invalid=settings.retries_invalid),
        "max_tool_rounds": Options(max_tool_rounds=settings.max_tool_rounds),
    }
    for trait, options in of_traits.items():
        yield _Layer(sources.of(trait), f"LLMMagics.{trait}", options)


def _by_source(values: Mapping[str, Any], source_of: Callable[[str], str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a mapping by their sources."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        found.setdefault(source_of(key), {})[key] = value
    yield from found.items()


def _output(options: Options, namespace: Mapping[str, Any]) -> OutputSpec | None:
    asked = {"as_" if name == "output_type" else name: getattr(options, name) for name in combinations.TYPED}
    if all(value is None for value in asked.values()):
        return None
    from llm_magic.output.spec import spec_from

    return spec_from(**asked, namespace=namespace)


def _tools(
    given: Options, options: Options, namespace: Mapping[str, Any], configured: Collection[str]
) -> tuple[Mapping[str, CallableTool], tuple[str, ...]]:
    """Return the functions that a model may call, and the MCP servers, or tools of these."""
    if not options.tools:
        return {}, ()
    from llm_magic.tools import split_servers, tools_from

    functions, servers = split_servers(options.tools)
    tools = (
        {tool.name: tool for tool in tools_from(functions, namespace, configured)} if functions or not servers else {}
    )
    choice = given.tool_choice
    if not servers and choice is not None and choice not in {"auto", "none", "required", *tools}:
        raise OptionError(
            f"--tool-choice {choice} is not one of the tools.",
            f"Say auto, none, required or {', '.join(tools)}.",
        )
    return tools, servers


def _parts(cell: Cell, options: Options, settings: Settings) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Render the body and the images."""
    notes: list[str] = []
    if cell.messages:
        parts = list(cell.messages[-1].parts) if cell.messages[-1].role == "user" else []
    elif cell.template and not options.raw:
        from llm_magic import prompt

        rendered = prompt.render(cell.body, cell.namespace, settings=settings)
        parts, notes = list(rendered.parts), list(rendered.notes)
    else:
        parts = [Text(cell.body)]
    pictures, of_pictures = images(options, cell.namespace, settings)
    return tuple(part for part in (*parts, *pictures) if part != Text("")), (*notes, *of_pictures)


def images(
    options: Options, namespace: Mapping[str, Any], settings: Settings
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Return the images that the options name, and what the user should know of them."""
    parts: list[Part] = []
    notes: list[str] = []
    for image in options.image or ():
        from llm_magic.images import part

        found, note = part(_image_value(image, namespace), max_side=settings.max_image_pixels)
        parts.append(found)
        notes += [note] if note else []
    return tuple(parts), tuple(notes)


def _image_value(image: Any, namespace: Mapping[str, Any]) -> Any:
    """Return the variable of that name, else the path or URL itself."""
    return namespace[image] if isinstance(image, str) and image in namespace else image


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and its endpoint: all that the rounds of one cell share."""

    planned: PlannedModel
    provider: Provider
    model: str
    capabilities: Capabilities
    structure: Structure | None
    tools: tuple[Tool, ...] = ()
    notes: tuple[str, ...] = ()
    """What the user should know: of the constraint, and of defaults that this endpoint cannot honour."""

    def compose(self, plan: Plan) -> Request:
        """Return the request of the first round: system prompt, as much of the conversation as fits, prompt."""
        options, structure = self.planned.options, self.structure
        parts = (*self._context(plan), *plan.parts)
        if structure is not None and structure.instruction:
            parts = (*parts, Text(f"\n\n{structure.instruction}" if parts else structure.instruction))
        first = (system(options.system),) if options.system else ()
        prompt = (*map(self._given, plan.before), *((user(*parts),) if parts else ()))
        turns = plan.turns and self._fitting(tuple(map(self._readable, plan.turns)), (*first, *prompt))
        headers = {name: read(value, f"--header {name}") for name, value in mark_secrets(options.header).items()}
        further = {name: read(value, f"--param {name}") for name, value in mark_secrets(options.param).items()}
        forced = structure.tools if structure is not None else ()
        return Request(
            model=self.model,
            messages=(*first, *(message for turn in turns for message in turn.messages), *prompt),
            parameters=Parameters(options.parameters, further),
            structure=structure.fields if structure is not None else {},
            tools=(*self.tools, *forced),
            tool_choice=forced[0].name if forced else self._choice(options.tool_choice),
            stream=not options.no_stream,
            headers=headers,
        )

    def _context(self, plan: Plan) -> tuple[Part, ...]:
        """Return the executed cells that go along: no images, where the model takes none."""
        if self.capabilities.images is not False or not any(isinstance(part, Image) for part in plan.context):
            return plan.context
        from llm_magic.context.serialization import without_images

        return without_images(plan.context)

    @property
    def sender(self) -> str:
        """What reasoning is marked with that comes of this model, at this provider and URL, by this API."""
        url = self.planned.options.base_url
        at = f"@{hashlib.sha256(self.provider.origin().url.encode()).hexdigest()[:12]}" if url else ""
        return f"{self.provider.name}{at}:{self.model} {self.capabilities.api}"

    def secrets(self, request: Request) -> tuple[str, ...]:
        """Return what was sent with a request and may stand nowhere else: keys, and headers that hold them."""
        from llm_magic.wire import logs

        return (*self.provider.secrets(), *secrets_in(request.headers, request.parameters.extra), *logs.learned())

    def reasoning(self, items: tuple[Mapping[str, Any], ...]) -> Reasoning | None:
        """Return what goes back with an answer of this model; None where nothing does."""
        return Reasoning(self.sender, items) if items and self.capabilities.send_reasoning else None

    def _readable(self, turn: Turn) -> Turn:
        """Return a turn without the reasoning that others sent: it is no business of this model's server."""
        messages = tuple(map(self._without_foreign, turn.messages))
        same = all(ours is theirs for ours, theirs in zip(messages, turn.messages, strict=True))
        return turn if same else replace(turn, messages=messages)

    def _given(self, message: Message) -> Message:
        """Return a message that the user gave: what reasoning was written out in it is sent, or cannot be."""
        if message.reasoning is None or message.reasoning.sender:
            return self._without_foreign(message)
        if self.capabilities.api != "chat" or not self.capabilities.send_reasoning:
            raise UnsupportedError(
                f"A message has reasoning, and {self.provider.origin(self.model)} takes none back by this API.",
                "Leave it out of the message.",
            )
        return message

    def _without_foreign(self, message: Message) -> Message:
        """Return a message without its reasoning where that is not of this model."""
        ours = self.sender if self.capabilities.send_reasoning else None
        if message.reasoning is None or message.reasoning.sender == ours:
            return message
        return interned(replace(message, reasoning=None))

    def _choice(self, choice: str | None) -> str | None:
        """Return the choice among the tools that are offered; a default may name one that is not."""
        known = ("auto", "none", "required", *(tool.name for tool in self.tools))
        return choice if self.tools and choice in known else None

    def _fitting(self, turns: tuple[Turn, ...], needed: tuple[Message, ...]) -> tuple[Turn, ...]:
        """Return the latest turns that leave room for prompt and answer, where the context is known."""
        context = self.capabilities.context
        if context is None:
            return turns
        from llm_magic.conversation import estimate, window

        answer = self.planned.options.parameters.get("max_tokens", context // 4)
        return window(turns, context - estimate(needed) - answer)

    def exchange(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """Send a request and yield what comes; what a server would surely refuse is refused here, in better words."""
        options = self.planned.options
        stream = self.provider.exchange(
            request, self.capabilities, timeout=options.timeout, max_retries=options.retries
        )
        return self.as_text(stream, request)

    def as_text(self, stream: AsyncGenerator[list[Event], None], request: Request) -> AsyncGenerator[list[Event], None]:
        """Return what came of a request with the value as its text, where the call of a tool holds it."""
        forced = self.structure.tools if self.structure is not None else ()
        alone = len(request.tools) == len(forced)
        return _as_text(stream, "" if alone else forced[0].name) if forced else stream


async def _as_text(stream: AsyncGenerator[list[Event], None], forced: str) -> AsyncGenerator[list[Event], None]:
    """Turn the arguments of a call of the tool `forced` (empty: of any), which are the answer, into its text.

    Only the first such call of an answer is its text, others stay calls. What the model says beside it is no part of
    the value: it comes as reasoning.
    """
    answering: dict[int, int] = {}  # the number of an answer → position of the call
    beside: dict[int, str] = {}

    def read(event: Event) -> list[Event]:
        if isinstance(event, TextDelta):
            beside[event.index] = beside.get(event.index, "") + event.text
            return []
        if isinstance(event, ToolCallDelta):
            if forced in ("", event.name):
                answering.setdefault(event.index, event.position)
            is_answer = answering.get(event.index) == event.position
            return [TextDelta(event.arguments, event.index) if is_answer else event]
        return [*said(event.index), event] if isinstance(event, Finished) else [event]

    def said(index: int) -> list[Event]:
        text = beside.pop(index, "")
        return [(ReasoningDelta if index in answering else TextDelta)(text, index)] if text else []

    async with aclosing(stream):
        try:
            async for batch in stream:
                yield [ours for event in batch for ours in read(event)]
        except Exception:
            yield [event for index in list(beside) for event in said(index)]
            raise
    yield [event for index in list(beside) for event in said(index)]


async def prepare(plan: Plan, planned: PlannedModel, emit: Emit[Event]) -> BoundModel:
    """Get a model ready and learn what it can do; `emit` gets the progress."""
    target, provider = planned.target, planned.target.provider
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:  # from any thread
        asyncio.run_coroutine_threadsafe(emit([Progress(text)]), loop)

    await provider.prepare(report)
    model = provider.listed_model(target.model) if target.model else await provider.first_model()
    bound = bind(plan, planned, model)
    if bound.notes:
        await emit([Note(note) for note in bound.notes])
    return bound


def bind(plan: Plan, planned: PlannedModel, model: str) -> BoundModel:
    """Put together what is known of one model."""
    provider = planned.target.provider
    capabilities = provider.capabilities(model)
    if planned.options.api is not None:
        capabilities = replace(capabilities, api=planned.options.api)
    planned, notes = _honoured(planned, capabilities)
    tools = tuple(tool.tool for tool in plan.tools.values())
    meant = planned.given.tools or planned.given.tool_choice or planned.given.max_tool_rounds or planned.given.confirm
    if tools and not meant and (not capabilities.tools or capabilities.api == "completions"):
        tools, notes = (), [*notes, f"--tools, which is a default, is left out: {_MISSING}."]
    if capabilities.images is False and any(isinstance(part, Image) for part in plan.context):
        notes = [*notes, "--context: images are left out, since this model takes none."]
    structure = None
    if plan.spec is not None:
        from llm_magic.output.dialects import apply

        try:
            structure = apply(plan.spec, capabilities)
        except UnsupportedError as error:
            asked = next(name for name in combinations.TYPED if getattr(planned.options, name) is not None)
            error.message = f"{combinations.flag(asked)}: {error.message}"
            raise
        notes += structure.notes
    return BoundModel(planned, provider, model, capabilities, structure, tools, tuple(notes))


_MISSING = "this endpoint does not take it"


def _honoured(planned: PlannedModel, capabilities: Capabilities) -> tuple[PlannedModel, list[str]]:
    """Return a model without those defaults that its endpoint cannot honour, and notes that say so.

    What this call gives is kept: that it cannot be honoured is an error.
    """
    options, given = planned.options, planned.given.parameters
    parameters: Any = dict(options.parameters)
    for name in options.parameters:
        able = name in capabilities.parameters and PARAMETERS[name].fields(capabilities.api)
        if name not in given and not able:
            del parameters[name]
    gone = [PARAMETERS[name].flag for name in options.parameters if name not in parameters]
    if not gone:
        return planned, []
    notes = [f"{flag}, which is a default, is left out: {_MISSING}." for flag in gone]
    return replace(planned, options=replace(options, parameters=parameters)), notes
