"""A table of prices in a file: for models of named providers, or as LiteLLM has it, for the vendors' own hosts.

Our form names providers: `{"openai:gpt-5*": {"input": 2.5, "output": 10, "cached": 1.25}}`, US dollars per million
tokens; `batch_input`, `batch_output` and `batch_cached` beside these are those of offline batches. LiteLLM's
`model_prices_and_context_window.json` names vendors' models: a price of it holds only where the vendor itself is asked,
for a server of anybody else may call its models as it likes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llm_magic import private_files
from llm_magic.errors import ConfigurationError
from llm_magic.providers.model_info import (
    EXAMPLE_OF_PRICE,
    PRICES_OF_LITELLM,
    Price,
    is_price,
    read_price,
    without_partial_batch_prices,
)

LIMIT = 16 * 2**20
"""Bytes that a file may have; LiteLLM's has 2 MB."""
VENDORS: Mapping[str, str] = {"openai": "openai", "text-completion-openai": "openai", "azure": "azure"}
"""The vendors, by what LiteLLM calls them (`litellm_provider`); entries of others are passed over."""
_SETTING = "ProviderRegistry.price_file"
_NO_MODELS = frozenset({"fallback_generalizations"})
"""Entries of LiteLLM's table that are rules, and no models."""
_YAML = {".yaml", ".yml"}
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices: of `models` of named providers, of `globs` of such names, and of `vendors`, by vendor and model."""

    models: Mapping[str, Price] = field(default_factory=dict)
    globs: tuple[tuple[str, Price], ...] = ()
    vendors: Mapping[tuple[str, str], Price] = field(default_factory=dict)

    def price(self, provider: str, model: str, vendor: tuple[str, str] | None = None) -> Price | None:
        """Return the price of a model, None without one: the exact name, else the longest glob, else the vendor's.

        `vendor` is the vendor that is asked at its own host, and its name of the model; None for any other server.
        """
        name = f"{provider}:{model}"
        if (exact := self.models.get(name)) is not None:
            return exact
        found = next((price for glob, price in self.globs if fnmatchcase(name, glob)), None)
        return found if found is not None or vendor is None else self.vendors.get(vendor)


def read_prices(path: Path) -> PriceTable:
    """Return the prices of a file, JSON or (by its suffix) YAML.

    Raises
    ------
    ConfigurationError
        It is not there, no plain file, too large, no JSON or YAML; or an entry, which is named, is no price.

    """
    document = _document(path)
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{_SETTING}: {path} is no table of prices.", _EXAMPLE)
    models: dict[str, Price] = {}
    vendors: dict[tuple[str, str], Price] = {}
    for name, entry in document.items():
        if name in _NO_MODELS:
            continue
        if _is_of_litellm(entry):
            vendor = VENDORS.get(str(entry.get("litellm_provider")))
            if vendor is not None and (price := _price_of_litellm(entry, path, name)) is not None:
                vendors[vendor, str(name).removeprefix(f"{vendor}/")] = price
        elif not isinstance(name, str) or ":" not in name.strip(":"):
            raise ConfigurationError(
                f"{_SETTING}: {path} has an entry {name!r:.80}, which names no provider.", _EXAMPLE
            )
        elif not is_price(entry):
            raise ConfigurationError(f"{_SETTING}: {path}: the entry {name!r:.80} is no price.", _EXAMPLE)
        else:
            models[name] = read_price(entry)
    globs = sorted((name for name in models if _GLOB.intersection(name)), key=len, reverse=True)
    return PriceTable(models, tuple((glob, models[glob]) for glob in globs), vendors)


_EXAMPLE = f'Write US dollars per million tokens: {{"openai:gpt-5*": {EXAMPLE_OF_PRICE}}}.'


def _is_of_litellm(entry: object) -> bool:
    return isinstance(entry, Mapping) and "litellm_provider" in entry


def _price_of_litellm(entry: Mapping[str, Any], path: Path, name: object) -> Price | None:
    """Return what an entry of LiteLLM's says of tokens; None where it is paid by something else."""
    costs = {ours: entry[theirs] for ours, theirs in PRICES_OF_LITELLM.items() if entry.get(theirs) is not None}
    if "input" not in costs:
        return None
    costs.setdefault("output", 0.0)  # of embeddings
    if "batch_input" in costs and costs["output"] == 0:
        costs.setdefault("batch_output", 0.0)  # of what costs nothing, a batch costs nothing
    costs = without_partial_batch_prices(costs)
    if not is_price(costs):
        raise ConfigurationError(
            f"{_SETTING}: {path}: the entry {name!r:.80} has a cost of tokens that is none.",
            "LiteLLM writes US dollars per token, as numbers.",
        )
    return read_price({kind: cost * 1e6 for kind, cost in costs.items()})


def _document(path: Path) -> Any:
    try:
        data, _ = private_files.read(path, LIMIT + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"There is no file {path}.", f"Check {_SETTING}.") from None
    except private_files.NotPlainError:
        raise ConfigurationError(f"{_SETTING}: {path} is no plain file.", "Name a file of JSON or YAML.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{_SETTING}: {path} cannot be read: {reason}.", "Name another file.") from error
    if len(data) > LIMIT:
        raise ConfigurationError(f"{_SETTING}: {path} is larger than {LIMIT // 2**20} MB.", "Name a table of prices.")
    try:
        text = data.decode("utf-8-sig")
        return _yaml(text, path) if path.suffix.lower() in _YAML else json.loads(text)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ConfigurationError(f"{_SETTING}: {path} cannot be read: {said:.200}", "Correct the file.") from error


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            f"{_SETTING}: reading {path} needs PyYAML.", 'pip install "llm_magic[litellm]", or write JSON.'
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text would repeat what stands in the file
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{getattr(error, 'problem', None) or 'it is no YAML'}{where}") from error
