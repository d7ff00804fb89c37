"""`%llm_provider`: the providers of this session; settings are options, a key is refused."""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import TraitError, TraitType, Unicode

from llm_magic.close_matches import close_matches
from llm_magic.commands.line import Command, Subcommand
from llm_magic.commands.models import PATIENCE, why
from llm_magic.config.precedence import sources_of
from llm_magic.config.references import is_secret_header
from llm_magic.display import markup, table
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.errors import AuthenticationError, ConfigurationError, LLMError, OptionError
from llm_magic.model_names import shown_model
from llm_magic.options import Option
from llm_magic.options.reader import Line, words
from llm_magic.providers import plugins
from llm_magic.providers.credentials import SecretCallable

if TYPE_CHECKING:
    from llm_magic.providers.base import Provider

_WIDEST = 80
_SHOWN = 5  # names of models in the report of a test


def run(command: Command) -> None:
    """Carry out a sub-command."""
    command.run(_SUBCOMMANDS)


def _list(command: Command, _line: Line) -> Bundle:
    registry = command.session.registry
    rows, lines = [], []
    for name in registry.names():
        row = {"provider": name, "class": "", "URL": "", "key": ""}
        try:
            provider = registry.get(name)
            row |= {"class": provider.kind, "URL": _url(provider) or "not set", "key": _key(provider)}
        except LLMError as error:
            lines.append(why(name, error))
        rows.append(row)
    return markup.joined([table.shown(rows, widest=_WIDEST), *map(markup.quiet, lines)])


def _add(command: Command, line: Line) -> str:
    values = dict(line.values)
    file = values.pop("litellm", None)
    if file is not None:
        if line.words or values:
            raise OptionError(
                "--litellm stands alone: the file names the providers.", "%llm_provider add --litellm config.yaml."
            )
        return _add_litellm(command, file)
    name = _name(command, line, "add", f"{command.magic} add {_USAGE}.")
    if re.search(r"[\s:/]", name):
        raise OptionError(f"{name!r} cannot be the name of a provider.", "Take letters, digits, - and _.")
    cls = values.pop("class", None) or _class_of(name)
    provider = command.session.registry.add(name, cls, **values)
    return (
        f"{name} is a provider of class {cls} now, at {_url(provider) or 'no URL yet'}. "
        f"Ask it with -m {name}:MODEL; %llm_provider test {name} tries it."
    )


def _class_of(name: str) -> str:
    """Return the class of a provider added without --class."""
    return name if name in plugins.entries() else "compatible"


def _add_options(command: Command, rest: str) -> list[Option]:
    """Return the options of `add`: two of its own, and the settings of the class.

    Raises
    ------
    OptionError
        The line has one that would be a key.

    """
    found = [word.text for word in words(rest)]
    name = next((text for text in found if not text.startswith("-")), "")
    pairs = [text.partition("=")[::2] if "=" in text else (text, after) for text, after in pairwise([*found, ""])]
    cls = next((value for flag, value in pairs if flag == "--class"), "")
    traits = plugins.load(command.expanded(cls) or _class_of(name)).class_traits(config=True)
    for flag, _ in pairs:
        _refuse_key(command, flag, traits)
    return [
        Option("class", ("--class",), "", "the kind of provider", "CLASS", str),
        Option("litellm", ("--litellm",), "", "a LiteLLM config.yaml", "FILE", str),
        *(_option_of(trait, kind) for trait, kind in traits.items()),
    ]


def _option_of(trait: str, kind: TraitType[Any, Any]) -> Option:
    """Return the option that sets a trait: text as it stands, other values as JSON or Python."""

    def read(text: str) -> Any:
        if "://" in text and re.match(r"[a-z]+://[^/@]*@", text, re.IGNORECASE):
            raise ValueError("a URL without user name or password: a cell is saved as it stands; env:NAME reads one")
        if isinstance(kind, Unicode):
            return text
        for reads in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return reads(text)
        try:
            return kind.from_string(text)
        except (ValueError, TraitError):
            raise ValueError(f"a value of {trait}, which {text!r} is not") from None

    first_sentence = " ".join(kind.help.split()).partition(". ")[0].rstrip(".")
    return Option(trait, (f"--{trait.replace('_', '-')}",), "", first_sentence, "VALUE", read)


def _refuse_key(command: Command, flag: str, traits: Mapping[str, Any]) -> None:
    """Refuse an option that would be a key, without repeating its value."""
    trait = flag.removeprefix("--").replace("-", "_")
    if not flag.startswith("--") or trait in traits or not is_secret_header(trait.replace("_", "-")):
        return
    env = f"{trait}_env"
    others = [name for name in traits if not name.endswith("_env")]
    if env not in traits and close_matches(trait, others, cutoff=0.8):
        return  # a slip of the pen; farther than that, `token` would be one for `tokenizer`
    instead = (env if env in traits else "api_key_env").replace("_", "-")
    raise OptionError(
        f"{command.magic} add takes no {flag}: what stands in a cell is saved in the notebook.",
        f"Put it into an environment variable: --{instead} VARIABLE.",
    )


def _add_litellm(command: Command, file: str) -> str:
    """Take over a LiteLLM configuration; one that cannot be read leaves everything as it was."""
    registry = command.session.registry
    before, sources = registry.litellm_config, sources_of(registry)
    source = sources.of("litellm_config")
    known = set(registry.names()), set(registry.all_aliases())
    registry.litellm_config = str(Path(file).expanduser().absolute())
    try:
        names, aliases = registry.names(), registry.all_aliases()
    except LLMError:
        sources.load(registry, {"litellm_config": before}, source)
        raise
    lines = []
    for what, found, before_it in (("Aliases", aliases, known[1]), ("Providers", names, known[0])):
        new = ", ".join(name for name in found if name not in before_it)
        lines.append(f"{what} from {Path(file).name}: {new or 'no new ones'}.")
    for name, alias in aliases.items():
        problem = alias.get("problem") if isinstance(alias, Mapping) else None
        if isinstance(problem, LLMError):
            lines.append(f"{name} cannot be used: {problem.message}")
    return "\n".join(lines)


def _remove(command: Command, line: Line) -> str:
    name = _name(command, line, "remove")
    command.session.registry.remove(name)
    return f"{name} is no provider of this session any more."


def _test(command: Command, line: Line) -> str:
    """Ask a provider for its models: address, key and answer are right, or an error says why."""
    name = _name(command, line, "test")
    provider = command.session.registry.get(name)
    if provider.kind == "local":
        if find_spec("xllamacpp") is None:
            raise ConfigurationError(f"{name} needs xllamacpp.", 'pip install "llm_magic[local]"')
        model = provider.cached_models[0].id if provider.cached_models else ""
        return f"{name} serves {model} inside this kernel, from the first cell on that asks it."
    started = time.perf_counter()
    try:
        models = command.wait(lambda _: _listed(provider), f"asking {name}")
    except AuthenticationError as error:
        error.hint = provider.key_hint() or error.hint
        raise
    seconds = time.perf_counter() - started
    shown = ", ".join(map(shown_model, models[:_SHOWN])) + (", …" if len(models) > _SHOWN else "")
    return (
        f"{name} answers: {_url(provider) or 'it'} lists {counted(len(models), 'model')} in {seconds:.2f} s"
        f"{': ' if models else ''}{shown}. Key: {_key(provider) or 'none'}. No model was asked."
    )


async def _listed(provider: Provider) -> list[str]:
    """Return the models that the server itself lists, whatever the configuration says."""
    await provider.prepare(lambda _: None)
    if provider.own_backend:
        return [card.id for card in await provider.list_models(refresh=True, patience=PATIENCE)]
    return [card.id for card in await provider.ask_for_models(PATIENCE, 0)]


_USAGE = "NAME --class C --base-url URL --api-key-env VAR"
_SUBCOMMANDS = {
    "list": Subcommand(_list),
    "add": Subcommand(_add, _USAGE, most=1, options=_add_options),
    "remove": Subcommand(_remove, "NAME", most=1),
    "test": Subcommand(_test, "NAME", most=1),
}


def _name(command: Command, line: Line, subcommand: str, hint: str = "") -> str:
    """Return the name on the line; where it lacks, the hint of the error are the names that there are."""
    if not line.words:
        hint = hint or f"There are {', '.join(command.session.registry.names())}."
        raise OptionError(f"{command.magic} {subcommand} needs a NAME.", hint)
    return line.words[0]


def _url(provider: Provider) -> str:
    """Return a provider's address without secrets; empty where it has none yet."""
    return "in this kernel" if provider.kind == "local" else provider.origin().url


def _key(provider: Provider) -> str:
    """Return where a provider's key comes from, and whether it is there; never the key."""
    if provider.kind == "local":
        return "none needed"
    named = getattr(provider, "azure_ad_token_env", "") or getattr(provider, "azure_ad_token_provider", "")
    source = named or provider.api_key_env or provider.standard_key
    source = str(source or ("OPENAI_API_KEY" if provider.at_home else ""))
    try:
        recipe = provider.recipe()
    except LLMError as error:  # which may be about something else than the key
        missing = source in error.message or (source.isidentifier() and not os.environ.get(source))
        return f"{source} (not set)" if source and missing else source or "none"
    secret = recipe["api_key"] if recipe["api_key"] is not None else recipe.get("token")
    if secret is None:
        return "the client's own" if provider.kind == "ready" else "none"
    return f"{source} (asked at each request)" if isinstance(secret, SecretCallable) else source
