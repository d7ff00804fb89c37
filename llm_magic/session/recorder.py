"""The recorder of one run: which of its requests are answered from recordings, and which answers are recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import ConfigurationError, RecordingError
from llm_magic.events import ToolResult
from llm_magic.options import Record
from llm_magic.session.neutral_request import endpoint

if TYPE_CHECKING:
    from llm_magic.messages import ToolCall
    from llm_magic.recordings.recording import Recording

VARIABLE = "LLM_MAGIC_RECORD"
"""The environment variable that says what is recorded, over `LLMMagics.record`."""


def mode_in_force(given: Record | None, configured: Record) -> Record:
    """Return the mode of a cell: its option, else the variable, else the setting.

    `only` in the variable holds for every cell: whoever executes a notebook so may rely on it that nothing is sent.

    Raises
    ------
    ConfigurationError
        The variable says something else.

    """
    said = os.environ.get(VARIABLE, "").strip()
    modes = get_args(Record)
    if said and said not in modes:
        hint = did_you_mean(said, modes, f"It may be {', '.join(modes)}.")
        raise ConfigurationError(f"The variable {VARIABLE} is {said[:40]!r}, which is no mode.", hint)
    of_variable: Record | None = next((mode for mode in modes if mode == said), None)
    return "only" if of_variable == "only" else given or of_variable or configured


class Recordings(Protocol):
    """Answers by what was asked: those of `recordings`, or those that an earlier run over the same rows has left."""

    def known(
        self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Record, /
    ) -> Recording | None:
        """Return what answers a request; None where it is to be asked."""

    def has(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Record, /) -> bool:
        """Tell whether `known` would return something."""

    def latest(self, asked: Mapping[str, Any]) -> Recording | None:
        """Return the last answer to equal requests."""

    def nearest(self, asked: Mapping[str, Any], secrets: Iterable[str] = ()) -> str:
        """Return what differs from the nearest request."""

    def add(
        self,
        asked: Mapping[str, Any],
        answer: Mapping[str, Any],
        cell_id: str | None,
        run_number: int,
        mode: Record,
        /,
        *,
        secrets: Iterable[str] = (),
    ) -> str:
        """Keep an answer; return why it is not kept, empty where it is."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """What one run of a cell records, and is answered from.

    `cell_id` is the front end's name of the cell, None where it has none; `run` numbers the runs of cells. With
    `tools` the results of tools are recorded, too. `pace` is how many times as fast as recorded an answer comes, 0
    at once. `enforced` is whether the variable alone says `only`, over what the cell says. `is_told` is whether the
    user hears of an answer that is not recorded: whoever asked for no recording does not.
    """

    recordings: Recordings
    mode: Record
    cell_id: str | None = None
    run: int = 0
    tools: bool = False
    pace: float = 0.0
    enforced: bool = False
    is_told: bool = True
    keeps: bool = True
    """Whether lists of tools are recorded: a dry run looks only."""

    @property
    def replays(self) -> bool:
        """Whether what is recorded is not asked again."""
        return self.mode in {"once", "only"}

    @property
    def only(self) -> str:
        """What says that nothing is sent, as the user wrote it."""
        return f"{VARIABLE}=only" if self.enforced else "--record only"

    def known(
        self,
        asked: Mapping[str, Any],
        secrets: Callable[[], Iterable[str]] = tuple,
        *,
        explains: bool = True,
    ) -> Mapping[str, Any] | None:
        """Return the answer that is recorded, None where the request is to be sent.

        `secrets` returns what is not shown where it is asked and not recorded; `explains` what differs from what is
        recorded then, for which all of that is read.

        Raises
        ------
        RecordingError
            It is not recorded, and nothing may be sent.

        """
        found = self.recordings.known(asked, self.cell_id, self.run, self.mode)
        if found is not None:
            return found.answer
        if self.mode == "only":
            differs = f": {self.recordings.nearest(asked, secrets()).rstrip('.')}" if explains else ""
            raise RecordingError(f"Not recorded, and {self.only} sends nothing{differs}.", self._way_out(asked))
        return None

    def _way_out(self, asked: Mapping[str, Any]) -> str:
        """Return the next step where something is not recorded."""
        once = f"{VARIABLE}=once" if self.enforced else "--record once"
        if not self.tools and any(message.get("role") == "tool" for message in asked.get("messages", ())):
            return f"A tool may have said something else. Run it once with {once} and --record-tools."
        return f"Run it once with {once}."

    def has(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether a request would be answered from a recording."""
        return self.replays and self.recordings.has(asked, self.cell_id, self.run, self.mode)

    def model(self, provider: str, base_url: str | None) -> str:
        """Return the model that a provider alone led to; empty where that is not recorded."""
        if self.mode == "new":
            return ""
        found = self.recordings.latest({"kind": "model", **endpoint(provider, base_url)})
        model = found.answer.get("model") if found is not None else None
        return model if isinstance(model, str) else ""

    def keep_model(self, provider: str, base_url: str | None, model: str) -> str:
        """Record the model that a provider alone led to, and return why it is not, if so."""
        asked = {"kind": "model", **endpoint(provider, base_url)}
        latest = self.recordings.latest(asked)
        if latest is not None and latest.answer.get("model") == model:
            return ""
        return self.recordings.add(asked, {"model": model}, self.cell_id, self.run, "new")

    def server_tools(self, server: str, only: tuple[str, ...], after: str) -> list[dict[str, Any]] | None:
        """Return the tools of an MCP server as they are recorded; None where the server is to be asked.

        `after` is the key of the request whose calls have changed them; empty for those of a first request.
        """
        if not self.replays:
            return None
        found = self.recordings.latest(_server_tools(server, only, after))
        tools = None if found is None else found.answer.get("tools")
        return tools if isinstance(tools, list) else None

    def keep_server_tools(self, server: str, only: tuple[str, ...], after: str, tools: list[dict[str, Any]]) -> str:
        """Record the tools of an MCP server that a request had, and return why they are not recorded, if so."""
        if not self.keeps:
            return ""
        asked = _server_tools(server, only, after)
        latest = self.recordings.latest(asked)
        if latest is not None and latest.answer.get("tools") == tools:
            return ""
        return self.recordings.add(asked, {"tools": tools}, self.cell_id, self.run, "new")

    def keep(self, asked: Mapping[str, Any], answer: Mapping[str, Any], secrets: Iterable[str]) -> str:
        """Record an answer, and return why it is not recorded; empty where it is."""
        return self.recordings.add(asked, answer, self.cell_id, self.run, self.mode, secrets=secrets)


def _server_tools(server: str, only: tuple[str, ...], after: str) -> dict[str, Any]:
    told = {"only": sorted(only), "after": after}
    return {"kind": "server_tools", "server": server} | {name: value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True)
class RecordedResults:
    """Results of tools that are recorded: of the calls in the answer to what was `asked`."""

    recorder: Recorder
    asked: Mapping[str, Any]
    secrets: tuple[str, ...] = ()

    def known(self, call: ToolCall) -> ToolResult | None:
        """Return the result of a call as it was; None where it is to be carried out."""
        answer = self.recorder.known(self._data(call), lambda: self.secrets)
        if answer is None:
            return None
        from llm_magic.recordings.answers import images_of

        result, failed, seconds = answer.get("result"), answer.get("failed") is True, answer.get("seconds")
        return ToolResult(
            call.id,
            call.name,
            call.arguments,
            result if isinstance(result, str) else "",
            failed,
            float(seconds) if isinstance(seconds, int | float) else 0.0,
            images=images_of(answer),
        )

    def keep(self, call: ToolCall, result: ToolResult) -> str:
        """Record a result, and return why it is not recorded; empty where it is."""
        told: dict[str, Any] = {"result": result.result, "seconds": round(result.seconds, 6)}
        if result.failed:
            told["failed"] = True
        if result.images:
            from llm_magic.recordings.answers import image_data

            told["images"] = [image_data(image) for image in result.images]
        return self.recorder.keep(self._data(call), told, self.secrets)

    def _data(self, call: ToolCall) -> dict[str, Any]:
        from llm_magic.recordings.recording import key_of

        return {"kind": "tool", "name": call.name, "arguments": call.arguments, "asked": key_of(self.asked)}
