"""Options by name, from keyword arguments and configured mappings: names are checked, values read as a line's are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import OptionError
from llm_magic.options import BY_NAME, OF_ROWS, OPTIONS, Option, Options
from llm_magic.options.batches import refused_by_batch, refused_elsewhere, said_in_the_cell
from llm_magic.options.option import HEADER_NAME, HEADER_VALUE, limits, names_only, no_json, refuse_keys
from llm_magic.secrets import Secret, reveal

_OF_ONE_CELL = frozenset(
    {"model", "base_url", "out", "each", "again", "sample", "batch", "wait", "batch_file", "dry_run", "help"}
)
"""Options of which a default would change what a cell says."""

_OF_ONE_RUN = ("again", "sample")
"""Of the options of many rows, those that are said of each run anew."""

Rows = Literal["none", "defaults", "all", "batch", "models"]
"""Which options of many rows are taken: none, those that all runs may share, those of a run, those of a batch.

`models` are those of several models, of which some may fail, too.
"""

_INPUTS = "LLM.map asks one prompt over many inputs, which are its second argument: llm.map(prompt, inputs)."

OF_CELLS_ONLY = {
    "out": "It returns the answer: x = llm.ask(…).value.",
    "show": "Nothing is shown here: print(response.text), or display(response.value).",
    "code": "response.text has the code of the answer.",
    "background": "aask and stream are awaited while other code runs.",
    "raw": "A prompt is sent as it stands here, {{ }} included.",
    "dry_run": "%%llm --dry-run shows the request.",
    "help": "help(LLM.ask) describes the options.",
    **dict.fromkeys(("each", "inputs"), _INPUTS),
    **dict.fromkeys(("model", "model_name", "model_id"), 'LLM("provider:model").ask(…) names the model.'),
    "models": "LLM.compare(prompt, models=[…]) and LLM.map(prompt, inputs, models=[…]) ask several; a batch is of one.",
    "fallbacks": 'They stand in an alias: {"model": …, "fallbacks": […]}.',
    **dict.fromkeys(
        ("stream", "streaming"),
        "LLM.stream(…) iterates over the answer as it arrives; no_stream=True asks for it as one document.",
    ),
    **dict.fromkeys(
        ("prompt", "messages", "input"), "The prompt, a text or a list of messages, is the first argument."
    ),
}
"""What is no keyword argument, and what is done in its place."""

PYTHON_NAMES = {"image": "images"}
"""Keyword arguments that are named otherwise than the option."""

_ELSEWHERE = {
    "base_url": ("api_base", "openai_api_base", "endpoint", "url", "host"),
    "header": ("extra_headers", "headers", "default_headers"),
    "param": ("extra_body", "params", "body", "model_kwargs", "extra_params", "sampling_params", "generation_kwargs"),
    "max_tokens": (
        "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "max_length",
        "n_predict", "num_predict",
    ),
    "temperature": ("temp",),
    "stop": ("stop_sequences", "stop_sequence", "stop_strings", "stop_words"),
    "n": ("num_return_sequences", "num_generations", "candidate_count", "best_of"),
    "seed": ("random_seed", "random_state"),
    "logprobs": ("top_logprobs",),
    "reasoning_effort": ("reasoning", "effort", "thinking"),
    "context": ("cells", "notebook", "notebook_context", "context_cells"),
    "system": ("system_prompt", "system_message", "system_instruction", "instructions", "developer"),
    "image": ("images", "image_url", "image_urls"),
    "output_type": (
        *("response_format", "response_model", "result_type", "text_format", "output_format"),
        *("format", "as", "as_", "type"),
    ),
    "schema": ("json_schema", "guided_json", "response_schema", "output_schema"),
    "choices": ("guided_choice", "choice", "options", "enum"),
    "regex": ("guided_regex", "pattern"),
    "grammar": ("guided_grammar",),
    "retries_invalid": ("max_reasks",),
    "tools": ("functions", "function"),
    "tool_choice": ("function_call",),
    "max_tool_rounds": ("max_turns", "max_iterations", "max_steps"),
    "timeout": ("request_timeout",),
    "retries": ("max_retries", "num_retries"),
    "record": ("cache", "caching", "use_cache", "replay", "recording", "record_mode"),
    "chat": ("conversation", "history", "thread", "session_id"),
    "dimensions": ("dimension", "dim", "output_dimensionality"),
    "each": ("inputs", "rows", "data", "dataset", "items", "prompts"),
    "concurrency": (
        "max_workers", "num_workers", "workers", "n_workers", "max_concurrency", "max_concurrent", "n_jobs", "jobs",
        "max_parallel_requests", "max_concurrent_requests", "num_threads", "threads", "num_proc", "parallel",
        "parallelism", "semaphore", "batch_size", "chunk_size", "max_batch_size",
    ),
    "batch": ("batch_size", "chunk_size", "embed_batch_size"),  # of embeddings: the number of texts in one request
    "poll": (
        "poll_interval", "polling_interval", "poll_seconds", "poll_every", "polling", "check_interval",
        "offline_batch_generation_polling_wait",
    ),
    "batch_file": ("batch_input_file", "input_jsonl", "jsonl_file", "jsonl"),
    "patience": ("max_wait", "max_wait_time"),
    "on_error": ("return_exceptions", "raise_on_error", "raise_errors", "errors", "ignore_errors", "raise_exception"),
    "again": ("force", "overwrite", "rerun", "restart"),
    "sample": ("limit", "num_samples", "n_samples", "nrows", "head", "max_rows", "num_rows"),
    "dedup": ("deduplicate", "unique", "drop_duplicates"),
    "order": ("sort", "order_by", "sort_by"),
    "budget": ("max_cost", "max_budget", "cost_limit", "cost"),
    "on": ("client", "cluster", "scheduler", "executor", "backend"),
    "forward_env": ("env", "env_vars", "environment", "forward_environment"),
    "on_progress": (
        "show_progress", "progress", "progress_bar", "show_progress_bar", "tqdm", "use_tqdm", "callback", "verbose",
    ),
}  # fmt: skip
"""Our options, and what other libraries call the same."""

_NO_FIELDS = frozenset(
    {"base_url", "header", "param", "timeout", "retries", "on_progress", "each", *OF_ROWS, "wait", "poll", "batch_file"}
)
"""Options that are no field of the body by any name."""

_CALLED: dict[str, tuple[str, ...]] = {}
for _ours, _names in _ELSEWHERE.items():
    for _theirs in _names:
        _CALLED[_theirs] = (*_CALLED.get(_theirs, ()), _ours)

_LONGEST = 60
"""Characters of a value that an error repeats."""


def from_mapping(values: Mapping[str, Any], source: str, also: Iterable[str] = ()) -> Options:
    """Return the options that a configured mapping stands for.

    Parameters
    ----------
    values
        Long names of options, with `-` or `_`, to values as text or of their own type; None is an option that is not
        given. Further fields of the body stand in `param`.
    source
        What to name in an error: `LLMMagics.params`.
    also
        Names that the caller takes besides, for close matches.

    Raises
    ------
    OptionError
        An unknown name, a value that the option does not take, or a key.

    >>> from_mapping({"max-tokens": 5, "param": {"min_p": 0.1}}, "LLMMagics.params").param
    {'min_p': 0.1}

    """
    names = [option.name for option in OPTIONS if option.name not in _OF_ONE_CELL]

    def find(key: str) -> Option:
        option = BY_NAME.get(key.replace("-", "_"))
        if option is None:
            refuse_unknown(key, source, [*names, *also], said_in_the_cell())
        if option.name in _OF_ONE_CELL:
            raise OptionError(f"{source} cannot set {key!r}.", f"Say {option.flags[-1]} in the cell.")
        return option

    return _options(values, source, find, keywords=False)


def from_keywords(values: Mapping[str, Any], source: str, rows: Rows = "none") -> Options:
    """Return the options that keyword arguments of `LLM` stand for; as `from_mapping`.

    Texts with commas are no lists here, and a function or an image may stand alone. `rows` says which options of many
    rows are taken: all those of `LLM.map`, those that may be said once for many calls, those of `LLM.batch`, or none.
    Those of `LLM.batch` come with `batch`, unless there is a `batch_file`.

    >>> from_keywords({"temperature": 0, "images": "a.png", "seed": None}, "ask").image
    ('a.png',)

    """
    options = {PYTHON_NAMES.get(option.name, option.name): option for option in OPTIONS}
    refused = _refused(rows)
    names = [name for name in options if name not in OF_CELLS_ONLY and name not in refused]
    names += [name for name in ("on_confirm", "on_progress") if name not in refused]

    def find(key: str) -> Option:
        name = key.replace("-", "_")
        if (hint := OF_CELLS_ONLY.get(name) or refused.get(name)) is not None:
            raise OptionError(f"{source} has no option {key}.", hint)
        option = options.get(name)
        if option is None:
            refuse_unknown(key, source, names, {"each": _INPUTS, **refused})
        return option

    found = _options(values, source, find, keywords=True)
    if rows == "batch" and found.batch_file is None:
        found.batch = True
    return found


def _refused(rows: Rows) -> dict[str, str]:
    """Return the keyword arguments that a call does not take, since another one does, and what to say of each."""
    if rows == "batch":
        return refused_by_batch()
    of_runs = tuple(name for name in OF_ROWS if name not in _OF_ONE_RUN)
    taken = {"all": OF_ROWS, "defaults": of_runs, "models": ("on_error",)}.get(rows, ())
    names = [*(name for name in OF_ROWS if name not in taken), *([] if rows == "all" else ["on_progress"])]
    found = {name: f"LLM.map takes it: llm.map(prompt, inputs, {name}=…)." for name in names}
    return found | refused_elsewhere(rows=rows == "all", poll=rows == "defaults")


def from_alias(defaults: Mapping[str, Any], alias: str) -> Options:
    """Return the options that an alias sets besides `model` and `fallbacks`; as `from_mapping`."""
    return from_mapping(defaults, f"The alias {alias}", ("model", "fallbacks"))


def refuse_unknown(
    name: object, source: str, known: Iterable[str], meaningless: Mapping[str, str] = MappingProxyType({})
) -> NoReturn:
    """Raise the error of a name that is none of the `known` options, with those that may be meant.

    `meaningless` are names that no field of the body stands for, and what to say of them.
    """
    if not isinstance(name, str):
        raise OptionError(f"{source}: {_said(name)} is no name of an option.", "Names are text.")
    known = list(known)
    called = _CALLED.get(name.replace("-", "_").lower(), (name,))
    taken = (each if each in known else PYTHON_NAMES.get(each, each) for each in called)
    ours = next((each for each in taken if each in known and each != name), "")
    meant = f"It is called {ours} here{_words(ours)}." if ours else did_you_mean(name, known)
    said = () if ours else (*called, name)
    if (nowhere := next((meaningless[each] for each in said if each in meaningless), None)) is not None:
        raise OptionError(f"{source} has no option {name:.{_LONGEST}}.", nowhere)
    further = f'A further field of the body stands in param: {{"{name:.{_LONGEST}}": …}}.'
    if ours in _NO_FIELDS:
        further = ""
    raise OptionError(f"{source} has no option {name:.{_LONGEST}}.", f"{meant} {further}".strip())


def _words(name: str) -> str:
    """Return what an option of few words takes, where the name elsewhere was that of a switch or a number."""
    option = BY_NAME.get(name)
    return f": {' or '.join(map(repr, option.words))}" if option is not None and name in {"on_error", "order"} else ""


def _options(values: Mapping[str, Any], source: str, find: Callable[[str], Option], *, keywords: bool) -> Options:
    if not isinstance(values, Mapping):
        raise OptionError(f"{source} must be a dict of options, not {_said(values)}.")
    refuse_keys((name for name in values if isinstance(name, str)), source)
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            refuse_unknown(key, source, ())
        option = find(key)
        if value is None:
            continue
        if option.name in found:
            raise OptionError(
                f"{source} gives {option.name} twice: {said[option.name]} and {key}.", "Keep one of them."
            )
        said[option.name] = key
        found[option.name] = _Reader(option, key, source, keywords=keywords).read(value)
    refuse_keys(found.get("param", ()), f"{source}: param")
    for switch, opposite in (("stream", "no_stream"), ("no_stream", "stream")):
        if found.get(switch) is False:
            found[opposite] = True
    return Options.of(found)


class _Reader:
    """What reads the value of one option, given under the name `key`."""

    def __init__(self, option: Option, key: str, source: str, *, keywords: bool) -> None:
        self._option = option
        self._key = key
        self._source = source
        self._keywords = keywords

    def read(self, value: Any) -> Any:
        """Return the value as the line's text would give it, objects that are no text as they are."""
        option = self._option
        if option.pairs:
            return self._pairs(value)
        if option.read is None:
            return value if isinstance(value, bool) else self._refuse("True or False", value)
        if (own := getattr(self, f"_{option.name}", None)) is not None:
            return own(value)
        if option.repeats:
            items = value if isinstance(value, (list, tuple)) else (value,)
            return tuple(self._one(item) for item in items)
        return self._one(value)

    def _one(self, value: Any) -> Any:
        """Return a number or a text."""
        if isinstance(value, str):
            return self._text(value)
        takes_numbers = _takes_numbers(self._option)
        if takes_numbers and not isinstance(value, bool) and isinstance(value, Real):
            try:
                return self._text(str(value), value)  # int("1.5") is an error where int(1.5) is none
            except ValueError:  # more digits than Python writes
                self._refuse("a number that a server takes", value)
        return self._refuse(_expected(self._option) if takes_numbers else "a text", value)

    def _text(self, text: str, value: Any = None) -> Any:
        assert self._option.read is not None  # noqa: S101 - a switch has been read
        try:
            return self._option.read(str(reveal(text)))  # of a URL in a text, the configuration hides the query
        except ValueError as error:
            return self._refuse(str(error), text if value is None else value)

    def _pairs(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            self._refuse("a dict", value, shown=type(value).__name__)
        for name, item in value.items():
            place = f"{self._key}[{_said(name)}]"
            if not isinstance(name, str):
                self._refuse("text", name, f"the name {_said(name)} in {self._key}")
            if self._option.name == "header":
                if not HEADER_NAME.fullmatch(name):
                    self._refuse("a name of letters, digits and hyphens", name, place, shown="this")
                if not isinstance(item, str):
                    self._refuse("text", item, place, shown=type(item).__name__)
                if not isinstance(item, Secret) and not HEADER_VALUE.fullmatch(item):
                    self._refuse("printable ASCII characters", item, place, shown="this text")
            elif (wrong := no_json(item)) is not None:
                self._refuse("JSON", item, place, shown=wrong)
        return dict(value)

    def _image(self, value: Any) -> tuple[Any, ...]:
        """Return images as they are: what none can be is said before it is opened."""
        items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        for item in items:
            if item is None or isinstance(item, (bool, int, float, Mapping)):
                self._refuse("paths, URLs or images", item)
        return tuple(self._text(item) if isinstance(item, str) else item for item in items)

    def _tools(self, value: Any) -> Any:
        if isinstance(value, str) and not self._keywords:
            return self._text(value)
        items = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
        for item in items:
            named = isinstance(item, str) and (not self._keywords or item.startswith("mcp:"))
            if not callable(item) and not named:
                self._refuse("functions, or MCP servers as 'mcp:NAME'", item)
        return items

    def _context(self, value: Any) -> Any:
        """Return a number of cells, `all`, or names, of which one may stand alone."""
        if not isinstance(value, list | tuple | set | frozenset):
            return self._one(value)
        if not value or not all(isinstance(name, str) and name.isidentifier() for name in value):
            self._refuse("a number of cells, all, or names of variables", value)
        return tuple(sorted(value) if isinstance(value, set | frozenset) else value)

    def _choices(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, str) and not self._keywords:
            return tuple(self._text(value))
        expected = 'a list of texts, such as ["yes", "no"]'
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(type(value), "__iter__"):
            self._refuse(expected, value)
        words = tuple(value)
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            self._refuse(expected, value)
        return tuple(map(str, words))

    def _schema(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        if isinstance(value, type):
            self._refuse("a JSON Schema, and a type stands in output_type", value)
        return self._path("a JSON Schema: a dict, the path of a .json file or a text such as 'name, age int'", value)

    def _grammar(self, value: Any) -> Any:
        return self._path("a text or the path of a file", value)

    def _budget(self, value: Any) -> dict[str, float]:
        if isinstance(value, str):
            return dict(self._text(value))
        try:
            return limits(value if isinstance(value, Mapping) else {"cost": value})
        except ValueError as error:
            return self._refuse(str(error), value)

    def _on(self, value: Any) -> Any:
        """Return the name or the address of a cluster, or a client of one."""
        if isinstance(value, str):
            return self._text(value)
        if not any(
            base.__name__ == "Client" and base.__module__.partition(".")[0] == "distributed"
            for base in type(value).__mro__
        ):
            self._refuse('"dask", the address of a scheduler, or a distributed.Client', value)
        return value

    def _forward_env(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            return names_only([value]) if self._keywords else tuple(self._text(value))
        if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in value):
            self._refuse("a list of names of environment variables", value, shown=type(value).__name__)
        return names_only(sorted(value) if isinstance(value, set | frozenset) else value)

    def _batch_file(self, value: Any) -> Any:
        return self._path("the path of a file", value)

    def _path(self, expected: str, value: Any) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        return self._text(value) if isinstance(value, str) else self._refuse(expected, value)

    def _output_type(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float, bytes)):
            self._refuse("a type, or an expression of one", value)
        return self._text(value) if isinstance(value, str) else value

    def _refuse(self, expected: str, value: Any, what: str = "", *, shown: str = "") -> NoReturn:
        raise OptionError(f"{self._source}: {what or self._key} must be {expected}, not {shown or _said(value)}.")


def _takes_numbers(option: Option) -> bool:
    """Whether an option reads numbers: then "1" is one for it, as it is within the bounds of each."""
    try:
        return option.read is not None and isinstance(option.read("1"), (int, float))
    except ValueError:
        return False


def _expected(option: Option) -> str:
    try:
        return str(option.read("") if option.read else "")
    except ValueError as error:
        return str(error)


def _said(value: Any) -> str:
    """Return a value as an error repeats it: cut, on one line."""
    try:
        said = re.sub(r"\s+", " ", repr(value))
    except Exception:  # noqa: BLE001 - a repr may raise anything, an int of many digits a ValueError
        said = f"this {type(value).__name__}"
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
