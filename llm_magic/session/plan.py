"""From a cell to a plan, and from the plan to the request of one model: all is resolved and checked before sending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llm_magic.config.precedence import nearness, sources_of
from llm_magic.config.references import guarded, read
from llm_magic.errors import OptionError, PromptError
from llm_magic.events import Event, Note, Progress, TextDelta, ToolCallDelta
from llm_magic.messages import Message, Part, Text, system, user
from llm_magic.options import Options, exclude_each_other
from llm_magic.options.mapping import from_alias, from_mapping
from llm_magic.request import Parameters, Request

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.capabilities import Capabilities
    from llm_magic.config.settings import Settings
    from llm_magic.conversation import Turn
    from llm_magic.output.dialects import Structure
    from llm_magic.output.spec import OutputSpec
    from llm_magic.providers.base import Provider
    from llm_magic.providers.registry import ProviderRegistry, Target
    from llm_magic.tools import FunctionTool
    from llm_magic.wire.call import Preview


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
    part: int = 0
    """Number of the prompt within one run of its cell, from 0."""
    messages: tuple[Message, ...] = ()
    """A conversation in the place of the body: its last message is the prompt, where that is a user's."""
    notes: tuple[str, ...] = ()
    """What the user should know before anything else."""
    cannot_confirm: OptionError | None = None
    """What is raised where a call is to be confirmed: nobody can be asked here. None: somebody can."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that may answer, and the options as they are in force for it."""

    target: Target
    options: Options


@dataclass(frozen=True, slots=True)
class Plan:
    """A cell, resolved: what will be asked of whom. The first of `models` is asked, the others are its fallbacks."""

    cell: Cell
    models: tuple[PlannedModel, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    spec: OutputSpec | None = None
    tools: Mapping[str, FunctionTool] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    tool_timeout: float = 60.0

    @property
    def before(self) -> tuple[Message, ...]:
        """The messages that were given ahead of the prompt."""
        messages = self.cell.messages
        return messages[:-1] if messages and messages[-1].role == "user" else messages

    @property
    def options(self) -> Options:
        """The options in force for the model asked first."""
        return self.models[0].options


def plan(cell: Cell, settings: Settings, registry: ProviderRegistry, turns: tuple[Turn, ...] = ()) -> Plan:
    """Resolve a cell.

    Raises
    ------
    InputError
        Whatever is wrong with the cell; nothing was sent.

    """
    models = choose(cell.options, settings, registry)
    options = models[0].options
    if not cell.body.strip() and not options.image and not cell.messages:
        raise PromptError("The cell is empty.", "Write the prompt on the lines below %%llm.")
    if cell.cannot_confirm is not None and any(planned.options.confirm for planned in models):
        raise cell.cannot_confirm
    parts, notes = _parts(cell, options, settings)
    return Plan(
        cell=cell,
        models=models,
        parts=parts,
        notes=(*cell.notes, *notes),
        spec=_output(options, cell.namespace),
        tools=_tools(options, cell.namespace),
        turns=() if options.once else turns,
        tool_timeout=settings.tool_timeout,
    )


def choose(given: Options, settings: Settings, registry: ProviderRegistry) -> tuple[PlannedModel, ...]:
    """Return the model asked for and its fallbacks, each with its options."""
    name = given.model or registry.default_model(settings.model)
    target = registry.resolve(name)
    models = [_planned(given, target, settings)]
    models += [_planned(given, registry.resolve(fallback), settings) for fallback in target.fallbacks]
    return tuple(models)


def _planned(given: Options, target: Target, settings: Settings) -> PlannedModel:
    """Put the options together: those of the call, over those of the session, over the project's, over the profile's.

    Of one source, an alias is over `model_params`, a longer glob of these over a shorter one, these over `params`, and
    `params` over the setting of the same name, such as `LLMMagics.system`.
    """
    options = given
    for _, layer in sorted(_layers(target, settings), key=lambda layer: -nearness(layer[0])):
        options = options.over(layer)
    if options.base_url:
        target = target.at(options.base_url)
    return PlannedModel(target, options)


def _layers(target: Target, settings: Settings) -> Iterator[tuple[str, Options]]:
    """Yield what is configured for a model, each with its source; of one source, the nearest first."""
    sources = sources_of(settings)
    for source, entries in _by_source(target.defaults, target.source_of):
        yield source, from_alias(entries, target.asked)
    names = (target.asked, target.model, f"{target.provider.name}:{target.model}")
    for glob in sorted(settings.model_params, key=len, reverse=True):
        options = from_mapping(settings.model_params[glob], f"LLMMagics.model_params[{glob!r}]")
        if any(fnmatchcase(name, glob) for name in names):
            yield sources.of_entry(settings, "model_params", glob), options
    for source, entries in _by_source(settings.params, lambda key: sources.of_entry(settings, "params", key)):
        yield source, from_mapping(entries, "LLMMagics.params")
    yield sources.of("system"), Options(system=settings.system or None)
    yield sources.of("show"), Options(show=settings.show or None)
    yield sources.of("stream"), Options(no_stream=not settings.stream)
    yield sources.of("retries_invalid"), Options(retries_invalid=settings.retries_invalid)
    yield sources.of("max_tool_rounds"), Options(max_tool_rounds=settings.max_tool_rounds)


def _by_source(values: Mapping[str, Any], source_of: Callable[[str], str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a mapping by their sources."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        found.setdefault(source_of(key), {})[key] = value
    yield from found.items()


def with_defaults(given: Options, settings: Settings, registry: ProviderRegistry) -> Options:
    """Return the options of a cell with what is configured of the cell itself, whichever model may answer.

    That is its conversation, and how it runs and is shown.
    """
    chosen = choose(given, settings, registry)[0].options
    named = given.chat is not None or given.once is not None
    return replace(
        given,
        chat=given.chat if named else chosen.chat,
        once=bool(given.once) if named else chosen.once,
        code=chosen.code,
        background=chosen.background,
        show=chosen.show,
    )


def _output(options: Options, namespace: Mapping[str, Any]) -> OutputSpec | None:
    asked = {
        "as_": options.output_type,
        "schema": options.schema,
        "choices": options.choices,
        "regex": options.regex,
        "grammar": options.grammar,
    }
    if all(value is None for value in asked.values()):
        return None
    exclude_each_other({"--as" if name == "as_" else f"--{name}": value for name, value in asked.items()})
    from llm_magic.output.spec import spec_from

    return spec_from(**asked, namespace=namespace)


def _tools(options: Options, namespace: Mapping[str, Any]) -> Mapping[str, FunctionTool]:
    if not options.tools:
        for flag, value in (("--tool-choice", options.tool_choice), ("--confirm", options.confirm)):
            if value is not None:
                raise OptionError(f"{flag} needs --tools.", "--tools F,G names the Python functions.")
        return {}
    from llm_magic.tools import tools_from

    tools = {tool.name: tool for tool in tools_from(options.tools, namespace)}
    choice = options.tool_choice
    if choice is not None and choice not in {"auto", "none", "required", *tools}:
        raise OptionError(
            f"--tool-choice {choice} is not one of the tools.",
            f"Say auto, none, required or {', '.join(tools)}.",
        )
    return tools


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
    for image in options.image or ():
        from llm_magic import images

        value = _image_value(image, cell.namespace)
        part, note = images.part(value, max_side=settings.max_image_pixels)
        parts.append(part)
        notes += [note] if note else []
    return tuple(part for part in parts if part != Text("")), tuple(notes)


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

    def compose(self, plan: Plan) -> Request:
        """Return the request of the first round: system prompt, as much of the conversation as fits, prompt."""
        options, structure = self.planned.options, self.structure
        parts = plan.parts
        if structure is not None and structure.instruction:
            parts = (*parts, Text(f"\n\n{structure.instruction}" if parts else structure.instruction))
        first = (system(options.system),) if options.system else ()
        prompt = (*plan.before, *((user(*parts),) if parts else ()))
        turns = plan.turns and self._fitting(plan.turns, (*first, *prompt))
        headers = {name: read(value, f"--header {name}") for name, value in guarded(options.header).items()}
        further = {name: read(value, f"--param {name}") for name, value in guarded(options.param).items()}
        forced = structure.tools if structure is not None else ()
        return Request(
            model=self.model,
            messages=(*first, *(message for turn in turns for message in turn.messages), *prompt),
            parameters=Parameters(options.parameters, further),
            structure=structure.fields if structure is not None else {},
            tools=(*(tool.tool for tool in plan.tools.values()), *forced),
            tool_choice=forced[0].name if forced else options.tool_choice,
            stream=not options.no_stream,
            headers=headers,
        )

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
        forced = self.structure is not None and self.structure.dialect == "tool_call"
        return _as_text(stream) if forced else stream


async def _as_text(stream: AsyncGenerator[list[Event], None]) -> AsyncGenerator[list[Event], None]:
    """Turn the arguments of a forced tool call, which are the answer, into its text."""
    async with aclosing(stream):
        async for batch in stream:
            yield [
                TextDelta(event.arguments, event.index) if isinstance(event, ToolCallDelta) else event
                for event in batch
            ]


async def prepare(plan: Plan, planned: PlannedModel, emit: Emit[Event]) -> BoundModel:
    """Get a model ready and learn what it can do; `emit` gets the progress."""
    target, provider = planned.target, planned.target.provider
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:  # from any thread
        asyncio.run_coroutine_threadsafe(emit([Progress(text)]), loop)

    await provider.prepare(report)
    bound = _bind(plan, planned, target.model or await provider.first_model())
    if bound.structure is not None and bound.structure.notes:
        await emit([Note(note) for note in bound.structure.notes])
    return bound


async def preview(plan: Plan) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started or listed."""
    planned = plan.models[0]
    provider, options = planned.target.provider, planned.options
    listed = provider.cached_models or ()
    bound = _bind(plan, planned, planned.target.model or (listed[0].id if listed else "(the first model listed)"))
    request = bound.compose(plan)
    return await provider.preview(request, bound.capabilities, timeout=options.timeout, max_retries=options.retries)


def _bind(plan: Plan, planned: PlannedModel, model: str) -> BoundModel:
    """Put together what is known of one model."""
    provider = planned.target.provider
    capabilities = provider.capabilities(model)
    if planned.options.api is not None:
        capabilities = replace(capabilities, api=planned.options.api)
    structure = None
    if plan.spec is not None:
        from llm_magic.output.dialects import apply

        structure = apply(plan.spec, capabilities)
    return BoundModel(planned, provider, model, capabilities, structure)
