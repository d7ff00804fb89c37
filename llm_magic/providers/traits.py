"""The settings that every provider has, as traits; a wrong name or a key written out is refused as it is set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from traitlets import Dict, Enum, Float, Int, List, Unicode, Union, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import DeferredConfig

from llm_magic.errors import ConfigurationError
from llm_magic.providers import credentials

Number = TypeVar("Number", int, float)


class Reference(Unicode[str, str]):
    """`env:NAME` or `os.environ/NAME`, in the place of a number."""

    def validate(self, obj: Any, value: Any) -> str:
        """Refuse any other text."""
        text: str = super().validate(obj, value)
        if credentials.variable_of(text) is None:
            self.error(obj, value)
        return text


class ProviderTraits(Configurable):
    """A section of the configuration: the traits that all providers share."""

    kind: ClassVar[str] = ""
    """The class's name in the configuration."""
    standard_key: ClassVar[str] = ""
    """Environment variable of the key where `api_key_env` is empty."""
    standard_url: ClassVar[str] = ""
    """Base URL where `base_url` is empty."""
    sends_openai_values: ClassVar[bool] = False
    """Whether `OPENAI_*` variables may be read: only OpenAI itself gets them."""

    name = Unicode(help="Name of this instance.")
    base_url = Unicode(
        "", help="Base URL of the API, with its /v1. May be env:NAME, as every text here, read when it is used."
    ).tag(config=True)
    api_key_env = Unicode(
        "",
        help="Where the key is, never the key: the name of an environment variable, keyring:service/name, or "
        "module:function of a function that returns it (asked at each request, async or not).",
    ).tag(config=True)
    organization = Unicode("", help="Sent as OpenAI-Organization.").tag(config=True)
    project = Unicode("", help="Sent as OpenAI-Project.").tag(config=True)
    timeout = Union(
        [Float(120.0, min=0.001), Reference()],
        default_value=120.0,
        help="Seconds to wait for an answer, and between two pieces of one that streams.",
    ).tag(config=True)
    max_retries = Union(
        [Int(6, min=0), Reference()],
        default_value=6,
        help="Further attempts after a failed connection, 408, 409, 429 or 5xx, but for failures that last.",
    ).tag(config=True)
    default_headers = Dict(
        key_trait=Unicode(), value_trait=Unicode(), help="Headers of every request; secret ones belong in headers_env."
    ).tag(config=True)
    default_query = Dict(key_trait=Unicode(), help="Query parameters of every request.").tag(config=True)
    headers_env = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help='Secret headers: {"Helicone-Auth": "Bearer HELICONE_API_KEY"}; the last word names the variable.',
    ).tag(config=True)
    http_client_kwargs = Dict(
        key_trait=Unicode(),
        help="Settings of the HTTP client: proxy, verify (False or CA file), cert (file, or [certificate, key]), "
        "local_address, limits (dict), uds, trust_env, http2.",
    ).tag(config=True)
    http_client = Unicode(
        "", help='"aiohttp" for that transport, or module:name of an HTTP client or of a function that makes one.'
    ).tag(config=True)
    api: Enum[Any] = Enum(
        ["chat", "responses", "completions"], "chat", help="API that is used where a cell does not say --api."
    ).tag(config=True)
    models = List(Unicode(), help="Models to list without asking the server; the first is that of `provider:`.").tag(
        config=True
    )
    prices = Dict(
        key_trait=Unicode(),
        help='US dollars per million tokens: {"gpt-*": {"input": 2.5, "output": 10, "cached": 1.25}}. '
        "Exact names before globs, longer globs first.",
    ).tag(config=True)

    @classmethod
    def check_names(cls, given: Mapping[str, Any], where: str) -> None:
        """Refuse settings that this class has not.

        Raises
        ------
        ConfigurationError
            Names the close match, and for a key what to write instead.

        """
        known = cls.class_traits(config=True)
        for setting in given:
            if setting in known:
                continue
            if "key" in setting.lower() or "token" in setting.lower():
                hint = "Keys do not stand in configuration: set api_key_env to the name of an environment variable."
            else:
                close = difflib.get_close_matches(setting, known, 1)
                hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(sorted(known))}."
            raise ConfigurationError(f"{where or cls.__name__} has no setting {setting!r}.", hint)

    def configured(self, config: Config) -> dict[str, Any]:
        """Return what the sections of a configuration set for this instance."""
        found = self._find_my_config(config)
        return {name: value for name, value in found.items() if not isinstance(value, Config)}

    def _find_my_config(self, cfg: Config) -> Any:
        """Merge the sections of this class: the plain ones, then those below each parent, the nearest last."""
        parents: list[Any] = []
        parent: Any = self.parent
        while parent is not None:
            parents.insert(0, parent)
            parent = parent.parent
        found = Config()
        below = [parent._find_my_config(cfg) for parent in parents]  # noqa: SLF001 - as traitlets asks the one parent
        for place in (cfg, *below):
            for section in self.section_names():
                if section in place:
                    found.merge(place[section])
        return found

    def update_config(self, config: Config) -> None:
        """Take over what `%config` sets; where one value is wrong, none: a refused key must not stay behind.

        Raises
        ------
        ConfigurationError
            An unknown setting, or a key written out.
        TraitError
            A value that a trait does not take.

        """
        self.check_config(config)
        super().update_config(config)

    def check_config(self, config: Config) -> None:
        """Raise what `update_config` would, and change nothing: traitlets does not take back what our checks refuse."""
        found = self.configured(config)
        self.check_names(found, type(self).__name__)
        for name, value in found.items():
            if not isinstance(value, DeferredConfig):
                self.traits()[name]._validate(self, value)  # noqa: SLF001 - what setting it would do first

    def _load_config(self, cfg: Config, section_names: Any = None, traits: Any = None) -> None:
        self.check_names(self.configured(cfg), type(self).__name__)
        super()._load_config(cfg, section_names, traits)

    @validate("api_key_env")
    def _check_key_source(self, proposal: Any) -> str:
        return credentials.check_key_source(proposal["value"], f"{type(self).__name__}.api_key_env")

    @validate("default_headers")
    def _check_headers(self, proposal: Any) -> dict[str, str]:
        headers: dict[str, str] = proposal["value"]
        where = f"{type(self).__name__}.default_headers"
        for header, value in headers.items():
            if credentials.variable_of(value) is None:
                if credentials.is_secret_header(header):
                    raise ConfigurationError(
                        f"{where}: {header} carries a secret, and secrets do not stand in configuration.",
                        f'Use headers_env = {{"{header}": "NAME_OF_A_VARIABLE"}}.',
                    )
                credentials.check_header(header, value, where)
        return headers

    def number(self, trait: str, kind: Callable[[Any], Number]) -> Number:
        """Return the value of a trait that holds a number, or a reference to one."""
        value = self.read(trait)
        try:
            return kind(value)
        except ValueError:
            raise ConfigurationError(
                f"{type(self).__name__}.{trait}: {value!r} is no number.", "Correct the variable."
            ) from None

    def read(self, trait: str) -> Any:
        """Return a trait's value with its references to variables replaced."""
        return credentials.read(getattr(self, trait), f"{type(self).__name__}.{trait}", openai=self.sends_openai_values)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, secret ones included."""
        headers: dict[str, str] = dict(self.read("default_headers"))
        for header, source in self.headers_env.items():
            prefix, _, name = source.strip().rpartition(" ")
            where = f"{type(self).__name__}.headers_env[{header!r}]"
            name = credentials.variable_of(name) or name
            secret = credentials.variable(name, where, openai=self.sends_openai_values)
            headers[header] = credentials.Secret(f"{prefix} {secret}" if prefix else secret)
        for header, value in headers.items():
            credentials.check_header(header, value, f"{type(self).__name__} headers")
        return headers
