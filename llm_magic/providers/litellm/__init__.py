"""A LiteLLM `config.yaml` as aliases, routes and providers; what cannot be taken over is an error when it is used.

https://docs.litellm.ai/docs/proxy/configs: `model_list` with `model_name` and `litellm_params`, `model_info`, and
the `fallbacks` of `router_settings` and `litellm_settings`. Several entries of one name are LiteLLM's load balancing:
here the first is asked, and the others are its fallbacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from llm_magic.close_matches import did_you_mean
from llm_magic.config.references import variable_of
from llm_magic.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Imported:
    """What a configuration gives: aliases by name, routes by pattern, settings of providers by name."""

    aliases: Mapping[str, Any] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_KEYLESS = {"", "none", "empty", "na", "n/a", "null", "dummy", "fake", "fake-key", "not-needed", "anything"}
"""What people write for a server that wants no key."""


class _Kind(NamedTuple):
    """A provider of LiteLLM's that speaks the OpenAI protocol: our class, its address, the variable of its key."""

    cls: str
    url: str = ""
    key: str = ""


_KINDS = {
    "openai": _Kind("openai"),
    "text-completion-openai": _Kind("openai"),
    "azure": _Kind("azure"),
    "hosted_vllm": _Kind("vllm", "http://localhost:8000/v1"),
    "vllm": _Kind("vllm", "http://localhost:8000/v1"),
    "ollama": _Kind("compatible", "http://localhost:11434/v1"),
    "ollama_chat": _Kind("compatible", "http://localhost:11434/v1"),
    "lm_studio": _Kind("compatible", "http://localhost:1234/v1"),
    "llamafile": _Kind("compatible", "http://localhost:8080/v1"),
    "openrouter": _Kind("compatible", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": _Kind("compatible", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "deepseek": _Kind("compatible", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "mistral": _Kind("compatible", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "together_ai": _Kind("compatible", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": _Kind("compatible", "https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "xai": _Kind("compatible", "https://api.x.ai/v1", "XAI_API_KEY"),
    "gemini": _Kind("compatible", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "litellm_proxy": _Kind("compatible"),
}

_TRAITS = {name: name for name in ("organization", "timeout", "max_retries", "api_version")}
_TRAITS |= dict.fromkeys(("extra_headers", "headers"), "default_headers")
_OF_THE_PROXY = {
    "rpm", "tpm", "weight", "order", "max_parallel_requests", "stream_timeout", "drop_params", "tags", "mock_response",
    "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost", "use_in_pass_through",
    "input_cost_per_token_batches", "output_cost_per_token_batches", "cache_read_input_token_cost_batches",
    "additional_drop_params", "merge_reasoning_content_in_choices", "cooldown_time", "max_budget", "budget_duration",
}  # fmt: skip
"""Settings of LiteLLM's own router and accounts, without meaning for a client."""

_KNOWN = {"model", "api_base", "base_url", "api_key", "custom_llm_provider", "extra_body", "base_model"}


def read_config(path: Path) -> Imported:
    """Return what a LiteLLM configuration gives.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or has no `model_list`. Errors of single entries are raised when these are used.

    """
    document = _document(path)
    entries = document.get("model_list")
    if not isinstance(entries, list):
        raise ConfigurationError(f"{path} has no model_list.", "Give a LiteLLM config.yaml.")
    aliases: dict[str, Any] = {}
    routes: dict[str, str] = {}
    providers: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: model_list[{number}]"
        name = entry.get("model_name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not isinstance(entry.get("litellm_params"), Mapping):
            raise ConfigurationError(f"{where} lacks model_name or litellm_params.", "Correct the entry.")
        try:
            spec, model, defaults = _entry(entry, where)
        except ConfigurationError as error:
            _put(aliases, name, {"problem": error})
            continue
        provider = _named(providers, spec, str(entry["litellm_params"]["model"]))
        if "*" in name:
            routes.setdefault(name, f"{provider}:{model}")
        else:
            _put(aliases, name, {"model": f"{provider}:{model}", **defaults})
    for name, fallbacks in _fallbacks(document).items():
        if isinstance(aliases.get(name), dict):
            aliases[name]["fallbacks"] = [*aliases[name].get("fallbacks", []), *fallbacks]
    return Imported(aliases, routes, providers)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            "Reading a LiteLLM configuration needs PyYAML.", 'pip install "llm_magic[litellm]"'
        ) from None
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no LiteLLM configuration {path}.", "Check ProviderRegistry.litellm_config."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigurationError(f"{path} cannot be read: {said}", "Correct the YAML.") from error
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{path} is no LiteLLM configuration.", "It has a model_list.")
    return document


def _put(aliases: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    """Add an alias; a second entry of the same name becomes a fallback of the first."""
    if name not in aliases:
        aliases[name] = entry
        return
    second = f"{name}#{sum(1 for known in aliases if known.partition('#')[0] == name) + 1}"
    aliases[second] = entry
    aliases[name].setdefault("fallbacks", []).append(second)


def _named(providers: dict[str, dict[str, Any]], spec: dict[str, Any], model: str) -> str:
    """Return the name of the provider with these settings, adding it where it is new."""
    for name, known in providers.items():
        if known == spec:
            return name
    kind = model.partition("/")[0] if "/" in model else spec["class"]
    names = chain([f"litellm-{kind}"], (f"litellm-{kind}-{number}" for number in count(2)))
    name = next(name for name in names if name not in providers)
    providers[name] = spec
    return name


def _entry(entry: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return the provider's settings, the model's name there, and the defaults of the alias."""
    params, info = entry["litellm_params"], entry.get("model_info") or {}
    model = str(params.get("model") or "")
    kind, slash, rest = model.partition("/")
    base = params.get("api_base") or params.get("base_url")
    named = params.get("custom_llm_provider")
    if named:
        kind, rest = str(named), rest if slash and kind == named else model
    elif not slash:
        kind, rest = "openai", model
    if kind not in _KINDS:
        raise ConfigurationError(
            f"{where}: LiteLLM reaches {kind} by an adapter of its own, and llm_magic speaks the OpenAI protocol only.",
            "Run the LiteLLM proxy and use it as a provider of class compatible.",
        )
    key = _key(params.get("api_key", _KINDS[kind].key), where)
    spec = _spec(kind, base, key, where)
    from llm_magic.options.parameters import PARAMETERS

    options = {item.litellm or name: name for name, item in PARAMETERS.items() if item.litellm is not None}
    defaults: dict[str, Any] = {}
    for name, value in params.items():
        if name in options:
            defaults[options[name]] = value
        elif name in _TRAITS:
            spec[_TRAITS[name]] = value
        elif name == "extra_body" and isinstance(value, Mapping):
            defaults["param"] = dict(value)
        elif name not in _KNOWN | _OF_THE_PROXY:
            meant = did_you_mean(str(name), [*options, *_TRAITS, *_KNOWN])
            raise ConfigurationError(
                f"{where}: litellm_params has {name!r}, which is not taken over.",
                f"{meant} Leave it out; a further field of the body stands in extra_body.".lstrip(),
            )
    base_model = info.get("base_model") or params.get("base_model")
    if kind == "azure" and base_model:
        spec["deployments"] = {rest: str(base_model).removeprefix("azure/")}
    if kind == "text-completion-openai":
        spec["api"] = "completions"
    costs = {**info, **params}
    from llm_magic.providers.model_info import PRICES_OF_LITELLM, without_partial_batch_prices

    price = {
        ours: _dollars(costs[theirs], f"{where}: {theirs}")
        for ours, theirs in PRICES_OF_LITELLM.items()
        if costs.get(theirs) is not None
    }
    if {"input", "output"} <= set(price):
        spec["prices"] = {rest: without_partial_batch_prices(price)}
    return spec, rest, defaults


def _dollars(cost: object, where: str) -> float:
    """Return US dollars per million tokens, of those per token."""
    try:
        dollars = float(str(cost)) * 1e6
    except ValueError:
        dollars = -1.0
    if isinstance(cost, bool) or not 0 <= dollars < float("inf"):
        raise ConfigurationError(f"{where} is no cost.", "Write US dollars per token: 0.0000025.")
    return dollars


def _spec(kind: str, base: object, key: str, where: str) -> dict[str, Any]:
    """Return the settings that say where a provider is and how it lets one in."""
    cls, url = _KINDS[kind].cls, str(base or _KINDS[kind].url)
    if cls == "openai" and base and not (variable_of(key) or "").startswith("OPENAI_"):
        cls = "compatible"  # LiteLLM calls every server of the protocol "openai"
    if cls == "compatible" and not url:
        raise ConfigurationError(f"{where} has no api_base.", "Add the address of the server.")
    spec = {"class": cls, "azure_endpoint" if cls == "azure" else "base_url": url, "api_key_env": key}
    return {name: value for name, value in spec.items() if value}


def _key(key: object, where: str) -> str:
    """Return where the key is; one that stands in the file is refused, without repeating it."""
    text = str(key or "").strip()
    if text.lower() in _KEYLESS:
        return ""
    if variable_of(text) is not None or text in {kind.key for kind in _KINDS.values()}:
        return text
    raise ConfigurationError(
        f"{where} has a key written out, and keys are not taken from files.",
        "Put it into a variable, and write os.environ/NAME in its place.",
    )


def _fallbacks(document: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for section in ("router_settings", "litellm_settings"):
        settings = document.get(section)
        for item in settings.get("fallbacks") or [] if isinstance(settings, Mapping) else []:
            for name, models in item.items() if isinstance(item, Mapping) else ():
                found.setdefault(str(name), []).extend(str(model) for model in models)
    return found
