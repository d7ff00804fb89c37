"""The words of an error as Python needs them: keywords of `LLM` in the place of flags, `response` in that of `_llm`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from llm_magic.errors import LLMError, ModelsFailedError, ProviderError
from llm_magic.options import BY_FLAG
from llm_magic.options.mapping import OF_CELLS_ONLY, PYTHON_NAMES

_PHRASES: Mapping[str, str] = {
    "The cell's text is": "The first argument is",
    "the cell sets this field itself": "the call sets this field itself",
    "Say --stream or --no-stream.": "LLM.stream(…) streams; no_stream=True asks for one document.",
    "--header NAME=env:VARIABLE": 'header={"NAME": "env:VARIABLE"}',
    "Say -m NAME.": 'LLM("provider:model") names the model.',
    "--tools F,G names the Python functions.": "tools=[f, g] gives the Python functions.",
    "Name functions: --tools weather,add.": "Give functions: tools=[weather, add].",
    "--tools takes the names of functions.": "tools= takes functions.",
    "Run the cell again": "Call it again",
    "run the cell again": "call it again",
    "or leave --batch out: --each asks now.": "or LLM.map asks now.",
    "Leave --batch out: --each asks now.": "LLM.map asks now.",
    "Leave --batch-file out: --each asks now.": "LLM.map asks now.",
    "--batch waits for it instead": "LLM.batch waits for it instead",
    "--batch reads them": "LLM.batch reads them",
    "--batch looks for it": "LLM.batch looks for it",
    "Leave --batch-api out: the texts are embedded now.": "LLM.embed embeds now.",
    "--each EXPR": "inputs",
    "--forward-env A,B": 'forward_env=["A", "B"]',
    "such as OPENAI_API_KEY,HF_TOKEN": 'such as ["OPENAI_API_KEY", "HF_TOKEN"]',
    "--budget USD": "budget=USD",
    "--budget tokens=N": 'budget={"tokens": N}',
}
"""What stands otherwise as a whole."""

_FLAG = re.compile(
    r"(?<![\w-])(?<!%%llm )(?P<flag>--[a-z](?:[a-z-]*[a-z])?|-[psit]|-c(?= ))(?![\w-])"
    r"(?:(?P<value> (?=['\"\[{<(\d]))|(?: (?P<word>[A-Za-z_][\w.]*)(?=(?::(?:\s|$)| is (?:not one of|refused)))))?"
)
"""A flag, and what tells that its value follows: the beginning of one, or a word before a colon or a verb."""

_COMMAND = re.compile(r"(%llm_provider add .*?(?=\. [A-Z]|\.?$))")

_IN_CELLS = frozenset({"model", "stream"})
_OF_EMBEDDINGS = frozenset({"--dimensions", "--batch"})


@lru_cache(maxsize=256)  # of rows that were not asked all say the same
def in_python(text: str, response: str = "error.response") -> str:
    """Return a text for who calls `LLM`: each flag as the keyword that it is there, `_llm` as `response`.

    >>> in_python("--as and --tool-choice exclude each other.")
    'output_type= and tool_choice= exclude each other.'
    >>> in_python("Say --api chat, or leave -p n out. _llm.text has what came.")
    'Say api="chat", or leave param={"n": …} out. error.response.text has what came.'
    >>> in_python("--schema nope: this is no file. Allow more with --timeout SECONDS, or --once.")
    "schema='nope': this is no file. Allow more with timeout=SECONDS, or once=True."
    >>> in_python("--base-url has no key: %llm_provider add NAME --base-url http://host/v1.")
    'base_url= has no key: %llm_provider add NAME --base-url http://host/v1.'

    """
    if "-" not in text and "_llm" not in text and "the cell again" not in text:
        return text
    parts = _COMMAND.split(text)  # of which every second one is a command, whose flags stay
    return "".join(part if number % 2 else _in_python(part, response) for number, part in enumerate(parts))


def _in_python(text: str, response: str) -> str:
    for theirs, ours in _PHRASES.items():
        text = text.replace(theirs, ours)
    text = re.sub(r"(?<![\w%.])_llm(?=[. ])", response, text)
    text = re.sub(r"(?<![\w-])(?:-p|--param) ([A-Za-z_]\w*)", r'param={"\1": …}', text)
    text = re.sub(r"(?<![\w-])--header ([A-Za-z][\w-]*)(?!=)\b(?!=)", r'header={"\1": …}', text)
    text = re.sub(r"(?<![\w-])--api (chat|responses|completions)\b", r'api="\1"', text)
    text = re.sub(r"(?<![\w-])--record (off|once|only|new)\b", r'record="\1"', text)
    text = re.sub(r"(?<![\w-])--on-error (fail|keep)\b", r'on_error="\1"', text)
    text = re.sub(r"(?<![\w-])--order (given|prefix)\b", r'order="\1"', text)
    text = re.sub(r"(?<![\w-])--concurrency auto\b", r'concurrency="auto"', text)
    text = re.sub(r"(?<![\w-])--on (dask\b|[a-z]+://[^\s,;]+[^\s,;.:])", r'on="\1"', text)
    text = re.sub(r"(?<![\w-])(?:-m (?=\S+:|[A-Z]{2})|--model )([^\s,]+[^\s,.;])", r'LLM("\1")', text)
    text = re.sub(r"(?<![\w-])(--[a-z-]+) ([A-Z]+)(?!\w|,\w)", r"\1=\2", text)
    return _FLAG.sub(_keyword, text)


def _keyword(found: re.Match[str]) -> str:
    option = BY_FLAG.get(found["flag"])
    if option is None:
        return f"{found['flag'][2:]}=" if found[0] in _OF_EMBEDDINGS else found[0]
    if option.name == "each":
        return f"inputs{found['value'] or ''}"
    if option.name == "batch":  # with a number it is that of embeddings
        return "batch" if found.string[found.end() :].startswith("=") else "LLM.batch"
    if option.name == "wait":
        return "batch.result()"
    if option.name in OF_CELLS_ONLY and option.name not in _IN_CELLS:
        return f"%%llm {found[0]}" if option.name == "dry_run" else found[0]
    name = PYTHON_NAMES.get(option.name, option.name)
    if option.read is None:
        return f"{name}=True"
    if found["word"]:
        return f"{name}={found['word']!r}"
    follows = found.string[found.end() :]
    return name if follows.startswith(("=", ":")) else f"{name}="


@contextmanager
def naming_keywords() -> Iterator[None]:
    """Let errors pass that name keywords in the place of flags; what a server says is left as it is.

    >>> with naming_keywords():
    ...     raise LLMError("--tool-choice needs --tools.")
    Traceback (most recent call last):
    llm_magic.errors.LLMError: tool_choice= needs tools=.

    """
    try:
        yield
    except LLMError as error:
        name_keywords(error)
        raise


def name_keywords(error: LLMError) -> None:
    """Let an error name keywords in the place of flags; what a server says is left as it is."""
    if not isinstance(error, (ProviderError, ModelsFailedError)):  # of models that failed each error has been here
        error.message = in_python(error.message)
    error.hint = in_python(error.hint)
    error.args = (error.message, error.hint)
