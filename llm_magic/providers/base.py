"""`Provider`: an endpoint of the OpenAI protocol as traits, or a backend of an author's own."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from traitlets import Bool, Dict, Enum, Float, Int, List, TraitError, Unicode, Union, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import DeferredConfig

from llm_magic.capabilities import Capabilities
from llm_magic.close_matches import did_you_mean
from llm_magic.config import references
from llm_magic.config.precedence import configured
from llm_magic.config.references import Reference, mark_secrets
from llm_magic.config.settings import BudgetDict
from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    LLMError,
    ModelNotFoundError,
    Origin,
    RequestRefusedError,
    UnsupportedError,
)
from llm_magic.events import Event
from llm_magic.model_names import shown_model
from llm_magic.providers import credentials, model_info
from llm_magic.providers.credentials import SecretCallable
from llm_magic.providers.model_info import ModelCard, Price, card, price_in
from llm_magic.secrets import Secret, query_secrets, reveal, secret_url, secrets_in
from llm_magic.urls import checked, same_host, without_secrets

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from llm_magic.providers.price_file import PriceTable
    from llm_magic.request import Request
    from llm_magic.wire.call import Call, Preview
    from llm_magic.wire.prepared import PreparedRequest

__all__ = ["ModelCard", "Price", "Provider"]

Number = TypeVar("Number", int, float)

_OF_REASONING = re.compile(
    r"reasoning_(content|details)|thinking_blocks|thought_signature|encrypted.content", re.IGNORECASE
)
"""Words of a server that refuses reasoning that goes back to it."""


class Provider(Configurable):
    """An endpoint that answers, as one section of the configuration. Subclasses override defaults.

    A backend that is no server of the OpenAI protocol overrides `exchange`, `capabilities` and `list_models`, and
    needs neither URL nor client nor key:

    >>> from llm_magic.events import Finished, TextDelta
    >>> class Echo(Provider):
    ...     kind = "echo"
    ...     async def exchange(self, request, capabilities, *, timeout=None, max_retries=None):
    ...         yield [TextDelta(request.messages[-1].text), Finished("stop")]
    ...     async def list_models(self, refresh=False, *, patience=None):
    ...         return [ModelCard("echo")]

    Parameters
    ----------
    name
        The instance's name: what stands before the colon in `provider:model`.
    parent, config
        As for every `Configurable`.
    traits
        Values of the traits below.

    Raises
    ------
    ConfigurationError
        A value that a trait does not take, an unknown trait, or a key written out.

    """

    kind: ClassVar[str] = ""
    """The class's name in the configuration."""
    standard_key: ClassVar[str] = ""
    """Environment variable of the key where `api_key_env` is empty."""
    is_free: ClassVar[bool] = False
    """Whether its requests cost nothing, so that a budget of cost needs no price."""
    standard_url: ClassVar[str] = ""
    """Base URL where `base_url` is empty."""
    has_batches: ClassVar[bool | None] = None
    """Whether such servers take offline batches, where `batches` does not say; None where nobody knows."""
    instead_of_batches: ClassVar[str] = "Leave --batch out: --each asks now."
    """What to do where it takes none."""
    sends_openai_values: ClassVar[bool] = False
    """Whether `OPENAI_*` variables may be read: only OpenAI itself gets them."""
    of_its_host: ClassVar[set[str]] = {
        "api_key_env", "organization", "project", "default_headers", "default_query", "headers_env", "http_client",
        "models", "prices", "batches",
    }  # fmt: skip
    """Settings that stay behind when another host is asked."""

    name = Unicode(help="Name of this instance.")
    base_url = Unicode(
        "", help="Base URL of the API, with its /v1. May be env:NAME, as every text here, read when it is used."
    ).tag(config=True, trusted_only=True, could="send")
    api_key_env = Unicode(
        "",
        help="Where the key is, never the key: the name of an environment variable, keyring:service/name, or "
        "module:function of a function that returns it (asked at each request, async or not).",
    ).tag(config=True, trusted_only=True, could="send")
    organization = Unicode("", help="Sent as OpenAI-Organization.").tag(config=True, trusted_only=True, could="send")
    project = Unicode("", help="Sent as OpenAI-Project.").tag(config=True, trusted_only=True, could="send")
    timeout = Union(
        [Float(120.0, min=0.001), Reference()],
        default_value=120.0,
        help="Seconds to wait for an answer to begin, and of silence between two pieces of one. A server that only "
        "shows that it is alive (comments, empty pieces) is given up after three times as long.",
    ).tag(config=True, trusted_only=False)
    max_retries = Union(
        [Int(6, min=0), Reference()],
        default_value=6,
        help="Further attempts after a failed connection, 408, 409, 429 or 5xx, or an answer that broke off before "
        "anything of it came; but for failures that last, and one where this machine refuses the connection.",
    ).tag(config=True, trusted_only=False)
    concurrency = Union(
        [Int(16, min=1), Enum(["auto"])],
        default_value=16,
        help='Requests in flight at most where one prompt is asked over many inputs; "auto" finds the number at which '
        "answers come fastest, by the time that they take and by what the server refuses.",
    ).tag(config=True, trusted_only=False)
    requests_per_minute = Int(
        0,
        min=0,
        help="Requests that the server allows a minute, further attempts included; those that are too early wait. All "
        "of this kernel to this provider count together. 0: no limit is known; what the server says is obeyed.",
    ).tag(config=True, trusted_only=False)
    tokens_per_minute = Int(
        0,
        min=0,
        help="Tokens of prompts and answers that the server allows a minute, as requests_per_minute. A request counts "
        "with its prompt and --max-tokens until the server tells what it took.",
    ).tag(config=True, trusted_only=False)
    default_headers = Dict(
        key_trait=Unicode(), value_trait=Unicode(), help="Headers of every request; secret ones belong in headers_env."
    ).tag(config=True, trusted_only=True, could="send")
    default_query = Dict(key_trait=Unicode(), help="Query parameters of every request.").tag(
        config=True, trusted_only=True, could="send"
    )
    headers_env = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help='Secret headers: {"Helicone-Auth": "Bearer HELICONE_API_KEY"}; the last word names the variable.',
    ).tag(config=True, trusted_only=True, could="send")
    http_client_kwargs = Dict(
        key_trait=Unicode(),
        help="Settings of the HTTP client: proxy, verify (False or CA file), cert (file, or [certificate, key]), "
        "local_address, limits (dict), uds, trust_env, http2.",
    ).tag(config=True, trusted_only=True, could="send")
    http_client = Unicode(
        "", help='"aiohttp" for that transport, or module:name of an HTTP client or of a function that makes one.'
    ).tag(config=True, trusted_only=True, could="run")
    api: Enum[Any] = Enum(
        ["chat", "responses", "completions"], "chat", help="API that is used where a cell does not say --api."
    ).tag(config=True, trusted_only=False)
    send_reasoning = Bool(
        True,
        help="Whether a model gets the reasoning back that it gave in earlier rounds and turns, where the API takes "
        "it. Turn it off for a server that refuses it.",
    ).tag(config=True, trusted_only=False)
    batches = Bool(
        None,
        allow_none=True,
        help="Whether the server takes offline batches (--batch): whether it has the routes /files and /batches. None: "
        "OpenAI and Azure have them, vLLM has none, and any other server is tried.",
    ).tag(config=True, trusted_only=False)
    models = List(Unicode(), help="Models to list without asking the server; the first is that of `provider:`.").tag(
        config=True, trusted_only=False
    )
    prices = Dict(
        key_trait=Unicode(),
        help='US dollars per million tokens: {"gpt-*": {"input": 2.5, "output": 10, "cached": 1.25}}. '
        "Exact names before globs, longer globs first. Those of offline batches stand beside them: batch_input, "
        "batch_output and perhaps batch_cached; without them the cost of a batch is not known, and never guessed.",
    ).tag(config=True, trusted_only=True, could="spend")

    budget = BudgetDict(
        help='What the requests to this provider may use at most, beside LLMMagics.budget: {"cost": 5.0, "tokens": '
        '2_000_000, "requests": 100}. Empty: no limit of its own.',
    ).tag(config=True, trusted_only=True, could="spend")

    keyless = False
    """Set for a copy that asks another host: no key is looked for."""
    price_table: Callable[[], PriceTable] | None = None
    """Set by the registry: returns the prices of a file. They do not go along to another host."""
    vouched = False
    """Set for a copy at a host that the environment's values are for."""

    def __init__(self, *, name: str = "", **traits: Any) -> None:
        given = {key: value for key, value in traits.items() if key not in {"parent", "config"}}
        self.check_names(given, self.name or name)
        self._recipe: dict[str, Any] = {}
        self._client: AsyncOpenAI | None = None
        self._open: list[AsyncOpenAI] = []
        self._inherited: list[AsyncOpenAI] = []
        self._cards: tuple[ModelCard, ...] | None = None
        self._copies: list[tuple[str, dict[str, Any], Provider]] = []
        try:
            super().__init__(name=name or self.kind, **traits)
        except TraitError as error:
            raise ConfigurationError(f"{self.section}: {error}") from error

    @property
    def section(self) -> str:
        """What the configuration calls it, for errors: the class where it is that's own instance, else its name."""
        return type(self).__name__ if self.name in ("", self.kind) else self.name

    def line_that_sets(self, trait: str, value: str) -> str:
        """Return the line of a cell that sets a trait of this instance to a value, given as Python writes it."""
        if self.section == type(self).__name__:
            return f"%config {self.section}.{trait} = {value}"
        return f"%llm_config {self.section}.{trait} = {value}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {without_secrets(self.base_url or self.standard_url)}>"

    @classmethod
    def check_names(cls, given: Mapping[str, Any], where: str) -> None:
        """Refuse settings that this class has not: ConfigurationError names the close match."""
        known = cls.class_traits(config=True)
        for setting in given:
            if setting in known:
                continue
            if "key" in setting.lower() or "token" in setting.lower():
                hint = "Keys do not stand in configuration: set api_key_env to the name of an environment variable."
            else:
                hint = did_you_mean(setting, known, f"There are {', '.join(sorted(known))}.", 1)
            raise ConfigurationError(f"{where or cls.__name__} has no setting {setting!r}.", hint)

    def _find_my_config(self, cfg: Config) -> Any:
        """Merge the sections of this class: the plain ones, then those below each parent, the nearest last."""
        places, parent = [cfg], self.parent
        while parent is not None:
            places.insert(1, parent._find_my_config(cfg))  # noqa: SLF001 - as traitlets asks the one parent
            parent = parent.parent
        found = Config()
        for place in places:
            for section in self.section_names():
                if section in place:
                    found.merge(place[section])
        return found

    def check_config(self, config: Config) -> None:
        """Raise what is wrong in a configuration, and change nothing: traitlets would keep a key that is refused."""
        found = configured(self, config)
        self.check_names(found, self.section)
        for name, value in found.items():
            if not isinstance(value, DeferredConfig):
                self.traits()[name]._validate(self, value)  # noqa: SLF001 - what setting it would do first

    def _load_config(self, cfg: Config, section_names: Any = None, traits: Any = None) -> None:
        self.check_config(cfg)
        super()._load_config(cfg, section_names, traits)

    @validate("api_key_env")
    def _check_key_source(self, proposal: Any) -> str:
        return credentials.check_key_source(proposal["value"], f"{self.section}.api_key_env")

    @validate("default_headers")
    def _check_headers(self, proposal: Any) -> dict[str, str]:
        headers: dict[str, str] = proposal["value"]
        references.check_headers(headers, f"{self.section}.default_headers", written=True)
        return dict(mark_secrets(headers))

    @validate("base_url", "default_query", "http_client_kwargs")
    def _mark_secrets(self, proposal: Any) -> Any:
        return mark_secrets(proposal["value"], proposal["trait"].name)

    def read(self, trait: str) -> Any:
        """Return a trait's value with its references to variables replaced."""
        return references.read(getattr(self, trait), f"{self.section}.{trait}", openai=self.sends_openai_values)

    def number(self, trait: str, kind: Callable[[Any], Number]) -> Number:
        """Return the value of a trait that holds a number, or a reference to one."""
        try:
            return kind(reveal(self.read(trait)))
        except ValueError:
            raise ConfigurationError(
                f"{self.section}.{trait}: what {getattr(self, trait)} gives is no number.",
                "Correct the variable.",
            ) from None

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, secret ones included."""
        headers: dict[str, str] = dict(self.read("default_headers"))
        for header, source in self.headers_env.items():
            prefix, _, name = source.strip().rpartition(" ")
            where = f"{self.section}.headers_env[{header!r}]"
            name = references.variable_of(name) or name
            secret = references.variable(name, where, openai=self.sends_openai_values)
            headers[header] = Secret(f"{prefix} {secret.reveal()}" if prefix else secret, key=True)
        if headers:
            references.check_headers(headers, f"{self.section} headers")
        return headers

    def from_environment(self) -> Mapping[str, Any]:
        """Return settings that are empty and taken from this process's environment, secrets apart: where to ask."""
        return {}

    @property
    def at_home(self) -> bool:
        """Whether the environment's `OPENAI_*` values may be sent: never, but for OpenAI's own class."""
        return False

    def url(self) -> str:
        """Return the base URL in force; raises ConfigurationError where there is none, or it is no URL."""
        url = str(reveal(self.read("base_url")) or self.standard_url).strip()
        if not url:
            raise ConfigurationError(
                f"{self.name} has no base_url.",
                "Set one: " + self.line_that_sets("base_url", '"http://host:port/v1"'),
            )
        return secret_url(checked(url, f"{self.section}.base_url"))

    def key(self) -> Secret | credentials.SecretCallable | None:
        """Return the key, or what asks for it; None where the endpoint needs none."""
        source = self.api_key_env or self.standard_key
        if self.keyless or not source:
            return None
        return credentials.key(source, f"{self.section}.api_key_env", openai=self.sends_openai_values)

    def key_hint(self) -> str:
        """Say what to do about a refused key, where the provider knows more than the server; else nothing."""
        if self.keyless:
            return (
                "No key goes with --base-url to another host. Make that host a provider, with a key of its own: "
                f"%llm_provider add NAME --class {self.kind} --base-url {without_secrets(self.url())} --api-key-env VAR"
            )
        if self.api_key_env or self.standard_key:
            return ""
        return (
            f"No key was sent: set {self.section}.api_key_env to the name of the environment variable that "
            f"holds the key of {self.name}."
        )

    def price_hint(self, example: str) -> str:
        """Return how a price is set; `example` is one for `prices`, as Python writes it."""
        if self.keyless:
            return (
                "Prices do not go with --base-url to another host. Make that host a provider, with prices of its own: "
                f"%llm_provider add NAME --class {self.kind} --base-url {without_secrets(self.url())}."
            )
        return f"Set it, in US dollars per million tokens: {self.line_that_sets('prices', example)}."

    def recipe(self) -> dict[str, Any]:
        """Return all that the client is made from; one that differs from the last makes a new client."""
        return {
            "base_url": self.url(),
            "api_key": self.key(),
            "organization": self.read("organization"),
            "project": self.read("project"),
            "timeout": self.number("timeout", float),
            "max_retries": self.number("max_retries", int),
            "default_headers": self.headers(),
            "default_query": query_secrets(self.read("default_query")),
            "http_client_kwargs": self.read("http_client_kwargs"),
            "http_client": self.http_client,
            "at_home": self.at_home,
        }

    def construct(self, arguments: dict[str, Any], recipe: Mapping[str, Any]) -> AsyncOpenAI:  # noqa: ARG002 - Azure's
        """Return the SDK's client; `arguments` are those of `AsyncOpenAI`."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(**arguments)

    def client(self) -> AsyncOpenAI:
        """Return the client, made at first use and made anew when a setting or a variable has changed.

        It belongs to the event loop that uses it first, and to its process. Clients that were replaced stay open until
        `aclose`: cells in the background may still use them. Raises ConfigurationError where a setting or a variable is
        wrong.
        """
        recipe = self.recipe() | {"process": os.getpid()}
        if self._client is None or recipe != self._recipe:
            from llm_magic.providers.client_factory import make_client

            if self._recipe.get("process", recipe["process"]) != recipe["process"]:
                self._inherited += self._open  # neither used nor closed: their connections are the parent's
                self._open = []
            client, ours = make_client(self.construct, recipe, self.name, self.section)
            if self._client is not None:
                self._cards = None
            self._client, self._recipe = client, recipe
            if ours:
                self._open.append(client)
        return self._client

    async def renewed(self, refused: AsyncOpenAI) -> AsyncOpenAI | None:
        """Return the client to ask once more where the credentials of another were refused (401).

        It asks a function for its key anew, or a variable holds another one by now. None where the same would be sent.
        """
        client = self.client()
        if client is not refused:
            from llm_magic.wire import logs

            for secret in secrets_in(self._recipe.get("api_key"), self._recipe.get("token")):
                logs.learn(secret)  # who sent the request knows the refused ones only
            return client
        key = self.key()
        return client if isinstance(key, SecretCallable) and key.renews else None

    def secrets(self) -> tuple[Secret, ...]:
        """Return what `client` was made with and nothing may show; keys that a callable gives are not known yet."""
        return secrets_in(self._recipe, credentials.environment_proxies())

    async def aclose(self) -> None:
        """Close all clients that this provider made, on the loop that used them."""
        clients, copies = self._open, self._copies
        self._client, self._cards, self._open, self._copies = None, None, [], []
        for client in clients:
            await client.close()
        for _, _, provider in copies:
            await provider.aclose()

    def close(self) -> None:
        """Stop what the provider started besides clients; nothing here."""

    def origin(self, model: str = "") -> Origin:
        """Return where a request goes, for errors: no secrets, and of a model that is a file only its name."""
        try:
            url = without_secrets(self.url())
        except ConfigurationError:
            url = ""
        return Origin(self.name, shown_model(model), url)

    def capabilities(self, model: str) -> Capabilities:
        """Return what a model can do here."""
        return Capabilities(
            api=self.api,
            store=False,
            context=self.context(model),
            send_reasoning=self.send_reasoning,
            encrypted_reasoning=self.send_reasoning and model_info.is_reasoning(model),
            batches=self.has_batches if self.batches is None else self.batches,
        )

    def context(self, model: str) -> int | None:
        """Return the model's context in tokens, where the server's list told it."""
        cards = {item.id: item for item in self._cards or ()}
        found = cards.get(model)
        if found is not None and found.context is None:  # an adapter has its base model's
            found = cards.get(found.parent)
        return found.context if found is not None else None

    async def prepare(self, report: Callable[[str], None]) -> None:
        """Get ready to answer; `report` shows a line of progress."""

    async def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse, before `adapt`, what the server is sure to refuse, where that can be told better here."""

    async def adapt(self, request: Request, capabilities: Capabilities) -> Request:  # noqa: ARG002 - for providers that need it
        """Return the request as it goes to the wire; a dry run calls this, too: nothing may be sent."""
        return request

    @property
    def own_backend(self) -> bool:
        """Whether an author's own code sends the requests, in place of the OpenAI protocol."""
        return type(self).exchange is not Provider.exchange

    async def exchange(
        self,
        request: Request,
        capabilities: Capabilities,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of each network read, not of the whole
        max_retries: int | None = None,
    ) -> AsyncGenerator[list[Event], None]:
        """Send a request and yield what comes, in batches of events (`llm_magic.events`).

        An `Attempt` for each request sent is what `%llm_usage` counts, the last `UsageReport` what it adds up, and
        `Finished` ends an answer: without it, the answer broke off and counts as failed. Closing the iterator ends the
        request.

        Parameters
        ----------
        request
            What is asked; its `structure` is written in the dialects of `capabilities`.
        capabilities
            What `capabilities` returned, with the API that the cell asks for.
        timeout
            Seconds to wait for an answer, and between two pieces of one; None takes the provider's.
        max_retries
            Further attempts after a failure; None takes the provider's.

        Raises
        ------
        LLMError
            What an author raises besides is shown as any other exception.

        """
        from llm_magic.wire import call as wire

        await self.check(request, capabilities)
        call = await self._call(request, capabilities, timeout, max_retries)
        try:
            async with aclosing(wire.exchange(call)) as stream:
                async for batch in stream:
                    yield batch
        except LLMError as error:
            self._explain(error, request)
            raise

    def _explain(self, error: LLMError, request: Request) -> None:
        """Say the next step, where it is known better here."""
        if isinstance(error, AuthenticationError):
            error.hint = self.key_hint() or error.hint
        elif isinstance(error, ModelNotFoundError):
            error.hint = f"{self.close_models(request.model)} {error.hint}".lstrip()
        elif (
            isinstance(error, RequestRefusedError)
            and any(message.reasoning for message in request.messages)
            and _OF_REASONING.search(error.message)
        ):
            error.hint = f"If it takes no reasoning back: {self.line_that_sets('send_reasoning', 'False')}"

    async def prepare_request(
        self,
        request: Request,
        capabilities: Capabilities,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as of `exchange`
        max_retries: int | None = None,
    ) -> PreparedRequest | None:
        """Return a request that is sent many times with other bodies; None where `exchange` is code of an author's own.

        Parameters and errors as of `exchange`, but nothing is sent yet. What is sure to be refused in this request is
        refused here; `check` and `adapt` are not asked for each further body.
        """
        if self.own_backend:
            return None
        from llm_magic.wire.prepared import PreparedRequest, why_the_sdk_sends

        await self.check(request, capabilities)
        call = await self._call(replace(request, stream=False), capabilities, timeout, max_retries)
        client = call.client
        why = why_the_sdk_sends(
            client,
            ours=client is self._client and client in self._open,
            http_client=self.http_client,
            settings=self.read("http_client_kwargs"),
            proxy=call.http_request().proxy,
        )
        return PreparedRequest(call, why, self._explain)

    async def preview(
        self,
        request: Request,
        capabilities: Capabilities,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - shown, not waited for
        max_retries: int | None = None,
    ) -> Preview:
        """Return the request as `exchange` would send it; nothing is sent, and a key that is missing is said in words.

        Raises UnsupportedError where the provider sends by code of its own.
        """
        if self.own_backend:
            raise UnsupportedError(
                f"{self.name} sends its requests by code of its own, so --dry-run cannot show them.",
                f"Leave --dry-run out; an author can write {type(self).__name__}.preview.",
            )
        from llm_magic.wire import call as wire

        self.url()  # what is wrong with it is an error here, too
        with references.dry_run():
            return await wire.preview(await self._call(request, capabilities, timeout, max_retries))

    async def _call(
        self, request: Request, capabilities: Capabilities, seconds: float | None, max_retries: int | None
    ) -> Call:
        """Address a request."""
        from llm_magic.wire.call import Call

        origin = self.origin(request.model)  # the name that was asked for: `adapt` may put a deployment in its place
        client = self.client()
        asked = await self.adapt(request, capabilities)
        return Call(client, origin, capabilities, asked, seconds, max_retries, self.secrets(), self.renewed)

    async def list_models(self, refresh: bool = False, *, patience: float | None = None) -> list[ModelCard]:
        """Return the models there are, asked for once and then kept; raises ProviderError.

        Parameters
        ----------
        refresh
            Whether to ask, although they are known.
        patience
            Seconds for a list that must come at once or not at all: then no attempt is repeated. None takes the
            provider's own timeout and retries.

        """
        if static := self.static_models():
            return static
        self.client()  # which forgets the models where it is made anew
        if self._cards is None or refresh:
            return list(await self.ask_for_models(patience, None if patience is None else 0))
        return list(self._cards)

    def static_models(self) -> list[ModelCard]:
        """Return the models that are listed without asking; empty where the server is to be asked."""
        return [ModelCard(name) for name in self.models]

    async def ask_for_models(self, timeout: float | None, max_retries: int | None) -> tuple[ModelCard, ...]:  # noqa: ASYNC109 - of each page
        """Ask the server for its models, whatever the configuration says, and keep them; arguments as of `exchange`."""
        from llm_magic.wire import models

        client = self.client()
        found = await models.list_models(
            client,
            self.origin(),
            timeout=timeout,
            max_retries=max_retries,
            secrets=self.secrets(),
            renew=self.renewed,
        )
        self._cards = cards = tuple(map(card, found))
        return cards

    @property
    def cached_models(self) -> tuple[ModelCard, ...] | None:
        """The models as last listed; None where they never were."""
        return tuple(self.static_models()) or self._cards

    def close_models(self, model: str) -> str:
        """Return the hint that names the listed models close to one that the server does not know; else nothing."""
        return did_you_mean(shown_model(model), [shown_model(item.id) for item in self.cached_models or ()])

    def listed_model(self, name: str) -> str:
        """Return a listed model that is a file, by the file's name, as which it is shown; else the name as it is."""
        ids = [item.id for item in self.cached_models or ()]
        return name if name in ids else next((each for each in ids if shown_model(each) == name), name)

    async def first_model(self) -> str:
        """Return the first model listed: that of `provider:`; raises ModelNotFoundError where there is none."""
        cards = await self.list_models()
        if not cards:
            raise ModelNotFoundError(f"{self.origin()} lists no model.", f"Name one: -m {self.name}:MODEL")
        return cards[0].id

    def at(self, base_url: str) -> Provider:
        """Return this provider for another URL: with the key only where scheme, host and port are the same.

        Elsewhere go no key, no headers, no query, no organization, no client certificate and no ready client.
        """
        values = {name: deepcopy(getattr(self, name)) for name in self.trait_names(config=True)}
        for url, known, there in self._copies:
            if (url, known) == (base_url, values):
                return there
        home, kept = same_host(base_url, self.origin().url), values
        if not home:
            http = {name: value for name, value in self.http_client_kwargs.items() if name not in {"cert", "uds"}}
            kept = {name: value for name, value in values.items() if name not in self.of_its_host}
            kept |= {"http_client_kwargs": http}
        there = self.copy_at(base_url, kept)
        there.price_table = self.price_table if home else None
        there.keyless, there.vouched = self.keyless or not home, self.at_home and home
        self._copies.append((base_url, values, there))
        return there

    def copy_at(self, base_url: str, values: dict[str, Any]) -> Provider:
        """Return a provider like this one with these settings, for `base_url`."""
        return type(self)(name=self.name, **(values | {"base_url": base_url}))

    def price(self, model: str) -> Price | None:
        """Return what a model costs, where `prices` or the file of prices says it; None where neither does.

        Raises
        ------
        ConfigurationError
            The entry is no price, or the file cannot be read.

        """
        own = price_in(self.prices, model, f"{self.section}.prices") if self.prices else None
        if own is not None or self.price_table is None:
            return own
        table = self.price_table()
        return table.price(self.name, model, self.vendor_model(model) if table.vendors else None)

    def vendor_model(self, model: str) -> tuple[str, str] | None:  # noqa: ARG002 - for vendors
        """Return the vendor that is asked at its own host, and its own name of a model; None for any other server."""
        return None
