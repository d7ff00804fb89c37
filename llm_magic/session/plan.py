"""From a cell to a plan, and from the plan to the request of one model: all is resolved and checked before sending."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llm_magic.config.references import mark_secrets, read
from llm_magic.errors import OptionError, PromptError
from llm_magic.events import Event, Finished, Note, Progress, ReasoningDelta, TextDelta, ToolCallDelta
from llm_magic.messages import Message, Part, Reasoning, Text, interned, system, user
from llm_magic.options import Options, exclude_each_other, from_mapping
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
    part: int = 0
    """Number of the prompt within one run of its cell, from 0."""
    run: CellRun | None = None
    """The run of the notebook's cell that it is a prompt of; None where there is no notebook."""
    notes: tuple[str, ...] = ()
    """What the user should know before anything else."""
    cannot_confirm: OptionError | None = None
    """What is raised where a call is to be confirmed: nobody can be asked here. None: somebody can."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that may answer, and the options as they are in force for it."""

    target: Target
    options: Options
    sources: Mapping[str, str] = field(default_factory=dict)
    """What sets each request parameter and further field: an alias or a setting; "" for the cell itself."""


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
    if not cell.body.strip() and not options.image:
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
    """Put the options together: the line's, over the alias's, over the model's, over everybody's."""
    sources = dict.fromkeys((*given.parameters, *given.param), "")

    def configured(values: Mapping[str, Any], where: str) -> Options:
        found = from_mapping(values, where)
        for name in (*found.parameters, *found.param):
            sources.setdefault(name, where)
        return found

    options = given.over(configured(target.defaults, f"alias {target.asked!r}"))
    globs = [
        glob
        for glob in settings.model_params
        if any(
            fnmatchcase(name, glob) for name in (target.asked, target.model, f"{target.provider.name}:{target.model}")
        )
    ]
    for glob in sorted(globs, key=len, reverse=True):
        options = options.over(configured(settings.model_params[glob], f"LLMMagics.model_params[{glob!r}]"))
    options = options.over(configured(settings.params, "LLMMagics.params"))
    of_traits = Options(
        system=settings.system or None,
        show=settings.show or None,
        no_stream=not settings.stream,
        retries_invalid=settings.retries_invalid,
        max_tool_rounds=settings.max_tool_rounds,
    )
    options = options.over(of_traits)
    if options.base_url:
        target = target.at(options.base_url)
    return PlannedModel(target, options, sources)


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
    if options.tools is None:
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
    if cell.template and not options.raw:
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
            parts = (*parts, Text(f"\n\n{structure.instruction}"))
        first = (system(options.system),) if options.system else ()
        prompt = user(*parts)
        turns = plan.turns and self._fitting(tuple(map(self._readable, plan.turns)), (*first, prompt))
        headers = {name: read(value, f"--header {name}") for name, value in mark_secrets(options.header).items()}
        forced = structure.tools if structure is not None else ()
        return Request(
            model=self.model,
            messages=(*first, *(message for turn in turns for message in turn.messages), prompt),
            parameters=Parameters(options.parameters, mark_secrets(options.param)),
            structure=structure.fields if structure is not None else {},
            tools=(*(tool.tool for tool in plan.tools.values()), *forced),
            tool_choice=forced[0].name if forced else options.tool_choice,
            stream=not options.no_stream,
            headers=headers,
        )

    @property
    def sender(self) -> str:
        """What reasoning is marked with that comes of this model, at this provider and URL, by this API."""
        url = self.planned.options.base_url
        at = f"@{hashlib.sha256(self.provider.origin().url.encode()).hexdigest()[:12]}" if url else ""
        return f"{self.provider.name}{at}:{self.model} {self.capabilities.api}"

    def reasoning(self, items: tuple[Mapping[str, Any], ...]) -> Reasoning | None:
        """Return what goes back with an answer of this model; None where nothing does."""
        return Reasoning(self.sender, items) if items and self.capabilities.send_reasoning else None

    def _readable(self, turn: Turn) -> Turn:
        """Return a turn without the reasoning that others sent: it is no business of this model's server."""
        ours = self.sender if self.capabilities.send_reasoning else None
        if all(message.reasoning is None or message.reasoning.sender == ours for message in turn.messages):
            return turn
        messages = (
            interned(replace(message, reasoning=None))
            if message.reasoning is not None and message.reasoning.sender != ours
            else message
            for message in turn.messages
        )
        return replace(turn, messages=tuple(messages))

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
    bound = _bind(plan, planned, model)
    if bound.structure is not None and bound.structure.notes:
        await emit([Note(note) for note in bound.structure.notes])
    return bound


async def preview(plan: Plan) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started or listed."""
    planned = plan.models[0]
    provider, options = planned.target.provider, planned.options
    listed = provider.cached_models or ()
    model = provider.listed_model(planned.target.model) or (listed[0].id if listed else "(the first model listed)")
    bound = _bind(plan, planned, model)
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
