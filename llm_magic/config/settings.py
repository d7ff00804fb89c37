"""What a user may set for all cells, as traits of `LLMMagics`: `%config LLMMagics.model = "…"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traitlets import Bool, Dict, Enum, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from llm_magic.close_matches import did_you_mean
from llm_magic.config.references import SettingsDict
from llm_magic.errors import ConfigurationError


class BudgetDict(Dict):
    """The trait of a budget: what may be used at most, as `cost` (US dollars), `tokens` and `requests`."""

    def __init__(self, **metadata: Any) -> None:
        super().__init__(key_trait=Unicode(), **metadata)

    def validate(self, obj: Any, value: Any) -> dict[str, Any]:
        """Refuse what is no limit: ConfigurationError names it."""
        where = f"{getattr(obj, 'section', 'LLMMagics')}.{self.name}"
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where} is a dict, not this {type(value).__name__}.", _EXAMPLE)
        for kind, limit in value.items():
            if kind not in _LIMITS:
                hint = did_you_mean(str(kind), _LIMITS, f"There are {', '.join(_LIMITS)}.", 1)
                raise ConfigurationError(f"{where} has no limit {str(kind)!r:.60}.", hint)
            whole = kind == "cost" or (isinstance(limit, int | float) and limit % 1 == 0)
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < _MOST or not whole:
                what = "US dollars" if kind == "cost" else f"a whole number of {kind}"
                raise ConfigurationError(f"{where}[{kind!r}] is {what}, from 0, and not {limit!r:.60}.", _EXAMPLE)
        return dict(value)


_LIMITS = ("cost", "tokens", "requests")
_MOST = 1e15
_EXAMPLE = 'Example: {"cost": 5.0, "tokens": 2_000_000, "requests": 100}; {} sets no limit.'


class Settings(Configurable):
    """Settings of every cell. The magics inherit them, so that their section in a configuration file is `LLMMagics`."""

    model = Unicode(
        "",
        help='Model of cells without --model: an alias, "provider:model", or a name that a route sends to a provider. '
        "Empty: the embedded local:smollm2 where the extra named local is installed.",
    ).tag(config=True, trusted_only=False)
    embedding_model = Unicode(
        "", help="Model of %%llm_embed and llm.embed where none is named, as for `model`; empty takes that one."
    ).tag(config=True, trusted_only=False)
    params = SettingsDict(
        help="Options of every cell, by their long names: "
        '{"temperature": 0, "max_tokens": 500, "param": {"min_p": 0.1}}. Further fields of the body stand in `param`; '
        "an unknown name is an error. Set in the session, they win over an alias of the project or the profile; of one "
        "source, aliases and `model_params` win over these.",
    ).tag(config=True, trusted_only=False, entries="options")
    model_params = SettingsDict(
        help='Options by model: {"gpt-5*": {"reasoning_effort": "low"}}. Globs match the whole name asked for; a '
        "longer glob wins over a shorter one, and all of these over `params` of the same source: session, project or "
        "profile.",
    ).tag(config=True, trusted_only=False, entries="options by model")
    system = Unicode("", help="System prompt of cells without --system; -s '' sends none.").tag(
        config=True, trusted_only=False
    )
    show: Enum[Any] = Enum(
        ["", "markdown", "text", "code", "json", "none"],
        "",
        help="How answers are shown without --show: markdown, text, code, json or none; empty is markdown.",
    ).tag(config=True, trusted_only=False)
    footer = Bool(True, help="Whether a quiet line with model, tokens, time and cost follows the answer.").tag(
        config=True, trusted_only=False
    )
    external_images = Bool(
        False,
        help="Whether images and diagrams in answers may load what they name. False: an image of another place is "
        "shown as a link, and a mermaid diagram as its source, so that no answer tells a server that it is read.",
    ).tag(config=True, trusted_only=True)
    stream = Bool(
        True, help="Whether answers are shown while they arrive; False is --no-stream for cells without --stream."
    ).tag(config=True, trusted_only=False)
    retries_invalid = Int(
        1, min=0, help="How often a value that does not validate is asked for again, with the reason."
    ).tag(config=True, trusted_only=False)
    max_rows = Int(20, min=1, help="Rows of a DataFrame or Series in a prompt; the true shape is said.").tag(
        config=True, trusted_only=False
    )
    max_value_chars = Int(20_000, min=1, help="Characters that one value may take in a prompt; cutting is said.").tag(
        config=True, trusted_only=False
    )
    max_image_pixels = Int(
        2048, min=16, help="Longest side of an image in pixels; a larger one is scaled down, which is said."
    ).tag(config=True, trusted_only=False)
    context_chars = Int(
        40_000, min=1, help="Characters that the cells of --context may take in a prompt; what is left out is said."
    ).tag(config=True, trusted_only=False)
    mcp_servers = SettingsDict(
        help="MCP servers whose tools --tools mcp:NAME offers: "
        '{"files": {"command": "npx", "args": ["-y", "…"], "env": {"TOKEN": "env:TOKEN"}}, "docs": {"url": '
        '"https://…/mcp", "headers": {"Authorization": "env:DOCS_KEY"}}}. One is started at its first use, and stopped '
        "with the kernel. Keys do not stand here: env:NAME names a variable, which is read then; Bearer env:NAME too.",
    ).tag(config=True, trusted_only=True, could="run", entries="mcp servers")
    chat = Unicode("main", help="Conversation that cells belong to without --chat.").tag(
        config=True, trusted_only=False
    )
    history_turns = Int(
        20, min=0, help="Turns of the conversation that are sent with a prompt at most; 0 sends none."
    ).tag(config=True, trusted_only=False)
    chat_file = Unicode(
        "",
        help="File in which conversations are kept across kernel restarts; empty keeps them in memory only.",
    ).tag(config=True, trusted_only=True, could="write")
    record: Enum[Any] = Enum(
        ["off", "once", "only", "new"],
        "off",
        help="Whether answers are recorded, for cells without --record. once: a request that is recorded is answered "
        "from the recording, any other is asked and recorded; only: nothing is ever sent; new: everything is asked "
        "again, and replaces what was recorded. The variable LLM_MAGIC_RECORD stands over this.",
    ).tag(config=True, trusted_only=True, could="write")
    record_file = Unicode(
        "",
        help="File of recordings, JSON Lines. Empty: NAME.llm.jsonl beside the notebook NAME.ipynb; where its name is "
        "not known (nbclient, nbval, papermill) every *.llm.jsonl of the working folder is read and llm.jsonl written.",
    ).tag(config=True, trusted_only=True, could="write")
    resume = Bool(
        True,
        help="Whether the answers of a run over many rows are kept on the disk until it has ended whole, so that a run "
        "that was interrupted, killed, or had failures is gone on with when it is run again. Prompts are not kept. "
        "What nobody went on with goes after 30 days, or beyond 1 GB; %llm_recordings clear --rows removes it now.",
    ).tag(config=True, trusted_only=True, could="write")
    replay_pace = Float(
        0.0,
        min=0.0,
        max=1e6,
        help="How many times as fast as it was recorded an answer of a recording is shown: 1 as it came, 2 twice as "
        "fast, 0 at once.",
    ).tag(config=True, trusted_only=False)
    max_tool_rounds = Int(8, min=1, help="Rounds of tool calls that one cell may take.").tag(
        config=True, trusted_only=False
    )
    tool_timeout = Float(60.0, min=0.0, help="Seconds that one tool call may take.").tag(
        config=True, trusted_only=False
    )
    repaints = Float(20.0, min=0.5, max=60.0, help="Repaints a second of an answer that streams, at most.").tag(
        config=True, trusted_only=False
    )
    budget = BudgetDict(
        help='What all requests of a session may use at most: {"cost": 5.0, "tokens": 2_000_000, "requests": 100}, the '
        "cost in US dollars. A request that might exceed it is not sent. Empty: no limit. %llm_usage shows what is "
        "left, and %llm_usage --reset counts anew.",
    ).tag(config=True, trusted_only=True, could="spend")
    budget_tokens_per_request = Int(
        4096, min=1, help="Tokens that a budget expects of an answer where --max-tokens bounds none."
    ).tag(config=True, trusted_only=True, could="spend")
    model_names = List(Unicode(), help="Further model names that completion offers after --model.").tag(
        config=True, trusted_only=False
    )

    @validate("replay_pace")
    def _check_pace(self, proposal: Any) -> Any:
        if proposal["value"] != proposal["value"]:  # of what is no number
            raise TraitError("replay_pace is no number: 0 shows an answer at once, 1 as it came.")
        return proposal["value"]

    @validate("params", "model_params")
    def _mark_secrets(self, proposal: Any) -> Any:
        from llm_magic.config.references import mark_secrets

        return mark_secrets(proposal["value"])

    @validate("mcp_servers")
    def _check_servers(self, proposal: Any) -> Any:  # the magics check more
        return self._mark_secrets(proposal)
