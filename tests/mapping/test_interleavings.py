"""However a run over rows was disturbed before it came to its end, its frame is that of one which nothing disturbed.

Rows fail, the loop over them is left, the run is cancelled, or its process is killed; then it is run again. A process
that is killed leaves its files as they were at that moment, its last line cut maybe: so the folder of runs is copied in
the midst of a run, and the next one goes on with the copy.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from servers import HANG, Answer, Received, ScriptedServer, document

from llm_magic import LLM
from llm_magic.capabilities import Capabilities
from llm_magic.config.settings import Settings
from llm_magic.errors import ServerFailedError
from llm_magic.events import Attempt, Event, Finished, TextDelta, Usage, UsageReport
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.call import AnswersToCome, MapCall
from llm_magic.mapping.rows import Outcome
from llm_magic.providers.base import Provider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


class Review(BaseModel):
    """A record, of which each field is a column."""

    tone: Literal["good", "bad"]
    stars: int


TYPES: dict[str, Any] = {"text": None, "int": int, "choice": Literal["good", "bad"], "record": Review}
TEMPLATE = "{{ text }}: {{ 6 // number }}"  # of a row whose number is 0 there is no prompt


@dataclass(frozen=True)
class Table:
    """The rows and what is asked for them."""

    texts: list[str]
    numbers: list[int]
    kind: str
    dedup: bool

    @property
    def frame(self) -> pd.DataFrame:
        labels = [f"row {place}" for place in range(len(self.texts))]
        return pd.DataFrame({"text": self.texts, "number": self.numbers}, index=labels)

    @property
    def options(self) -> dict[str, Any]:
        return {"output_type": TYPES[self.kind], "dedup": self.dedup, "on_error": "keep"}

    @property
    def prompts(self) -> list[str]:
        """The prompt of each row, empty where there is none."""
        pairs = zip(self.texts, self.numbers, strict=True)
        return [f"{text}: {6 // number}" if number else "" for text, number in pairs]

    @property
    def asked(self) -> Counter[str]:
        """How often each prompt is asked for where each row is."""
        return Counter(filter(None, self.prompts))


@dataclass(frozen=True)
class Disturbance:
    """A run that is disturbed: which of its requests fail, and how and when it ends before its time."""

    end: Literal["none", "retried", "left", "cancelled", "killed"]
    after: int
    """Outcomes that are taken, or requests that are answered, before it ends."""
    failing: frozenset[int] = frozenset()
    """Numbers of the requests that fail."""
    turns: tuple[int, ...] = (0,)
    """How long the answers take, one after the other."""
    concurrency: int = 3
    cut: int = 0
    """Bytes of its last line that a killed process did not write any more."""
    restarts: bool = False
    """Whether the next run is one of another process."""


UNDISTURBED = Disturbance("none", 0)

TABLES = st.integers(1, 9).flatmap(
    lambda length: st.builds(
        Table,
        st.lists(st.sampled_from("abcdef"), min_size=length, max_size=length),
        st.lists(st.sampled_from([1, 2, 3, 0]), min_size=length, max_size=length),
        st.sampled_from(list(TYPES)),
        st.booleans(),
    )
)
DISTURBANCES = st.lists(
    st.builds(
        Disturbance,
        st.sampled_from(["none", "retried", "left", "cancelled", "killed"]),
        st.integers(0, 9),
        st.one_of(st.frozensets(st.integers(0, 12), max_size=5), st.just(frozenset(range(50)))),
        st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple),
        st.integers(1, 5),
        st.sampled_from([0, 1, 7, 60]),
        st.booleans(),
    ),
    max_size=4,
)


def answer(kind: str, prompt: str, *, again: bool) -> str:
    """Return what is answered: it depends on the prompt alone; of some the first is not valid, of few none is."""
    number = sha256(prompt.encode()).digest()[0]
    if kind != "text" and (number % 7 == 0 or (number % 3 == 0 and not again)):
        return "I cannot say."
    tone = "good" if number % 2 else "bad"
    return {
        "text": f"you said {prompt}",
        "int": str(number),
        "choice": json.dumps({"value": tone}) if again else tone,
        "record": json.dumps({"tone": tone, "stars": number % 5}),
    }[kind]


class FailsError(Exception):
    """This request fails."""


class HangsError(Exception):
    """This request is not answered any more."""


@dataclass
class Script:
    """What becomes of the requests of one run."""

    kind: str
    disturbed: Disturbance = UNDISTURBED
    on_stop: Callable[[], None] = lambda: None
    """Called with the first request that is not answered any more."""
    asked: list[str] = field(default_factory=list)
    """The prompts that were asked; not those of values that were asked for again."""
    begun: int = 0

    def begin(self) -> tuple[int, int]:
        """Return the number of a request, and how long its answer takes."""
        number, turns = self.begun, self.disturbed.turns
        self.begun += 1
        return number, turns[number % len(turns)]

    def text(self, number: int, messages: list[str]) -> str:
        """Return the answer of a request."""
        prompt = messages[0].partition("\n")[0]
        if len(messages) == 1:
            self.asked.append(prompt)
        if self.disturbed.end in {"cancelled", "killed"} and number >= self.disturbed.after:
            on_stop, self.on_stop = self.on_stop, lambda: None
            on_stop()
            raise HangsError
        if number in self.disturbed.failing:
            raise FailsError
        return answer(self.kind, prompt, again=len(messages) > 1)


class ScriptedProvider(Provider):
    """A backend of an author's own."""

    kind = "scripted"
    script: Script

    async def exchange(self, request: Any, capabilities: Any, **_: Any) -> AsyncGenerator[list[Event], None]:  # type: ignore[override]
        """Answer as scripted."""
        del capabilities
        number, turns = self.script.begin()
        for _turn in range(turns):
            await asyncio.sleep(0)
        try:
            text = self.script.text(number, [each.text for each in request.messages])
        except HangsError:
            await asyncio.Event().wait()
            raise
        except FailsError:
            raise ServerFailedError("melted") from None
        yield [Attempt(self.name, request.model, 200, "", 0.0), TextDelta(text)]
        yield [UsageReport(Usage(7, 3)), Finished("stop")]

    def capabilities(self, model: str) -> Capabilities:
        """Return that it can do nothing but talk."""
        del model
        return Capabilities(tools=False)


def served(received: Received, script: Script) -> Answer:
    """Answer over HTTP as scripted."""
    number, turns = script.begin()
    try:
        text = script.text(number, [each["content"] for each in received.json["messages"]])
    except HangsError:
        return Answer([HANG])
    except FailsError:
        return document({"error": {"message": "melted"}}, status=500)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    answer.steps = [turns / 500, *answer.steps]
    return answer


class World:
    """Where runs take place: a folder of runs, a session, and a backend that is scripted."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch, server: ScriptedServer | None) -> None:
        self._place, self._patch, self._server = place, patch, server
        self._state = place / "0"
        self._scripts: dict[str, Script] = {}  # by a header of the requests of each
        self.kept: Counter[str] = Counter()
        """How many answers to each prompt there are on the disk, at least."""
        self._begin()

    def _begin(self) -> None:
        """Begin a process."""
        self._session = Session(Settings(), ProviderRegistry())
        if self._server is None:
            self._session.registry.register("s", provider=ScriptedProvider(name="s"))

    def close(self) -> None:
        self._session.close()

    def _call(self, table: Table, script: Script) -> MapCall:
        self._patch.setenv("XDG_STATE_HOME", str(self._state))
        if self._server is None:
            self._session.registry.get("s").script = script  # type: ignore[attr-defined]
        else:
            number = str(len(self._scripts))  # of its own: what an earlier run has sent last may arrive now
            self._scripts[number] = script
            self._server.script[:] = [lambda received: served(received, self._scripts[received.headers["x-run"]])]
            headers = {"X-Run": number}
            self._session.registry.add(
                "s", "compatible", base_url=self._server.url, max_retries=0, default_headers=headers
            )
        llm = LLM("s:m")
        llm._session = lambda: self._session  # type: ignore[method-assign]
        return llm._call(TEMPLATE, table.frame, {**table.options, "concurrency": script.disturbed.concurrency}, "map")

    def whole(self, table: Table) -> tuple[pd.DataFrame, Counter[str]]:
        """Return the frame of a run that nothing disturbs, and the prompts that it asked."""
        script = Script(table.kind)
        call = self._call(table, script)
        return bound(call, self._session.loop.run(call.answers())), Counter(script.asked)

    def disturb(self, table: Table, disturbed: Disturbance, expected: pd.DataFrame) -> None:
        """Run, and end as it is said; what came is what is expected."""
        before, copies = set(self._state.rglob("*.jsonl")), []
        script = Script(table.kind, disturbed)
        call = self._call(table, script)
        found: list[Outcome] = []

        async def take() -> bool:
            to_come = AnswersToCome(call)
            async for outcome in to_come:
                found.append(outcome)
                if disturbed.end == "left" and len(found) > disturbed.after:
                    await to_come.aclose()
                    return False
            return True

        async def run() -> bool:
            loop, task = asyncio.get_running_loop(), asyncio.ensure_future(take())

            def stop() -> None:
                try:
                    if disturbed.end == "killed":
                        copies.append(self._copied(before, disturbed.cut))
                finally:
                    loop.call_soon_threadsafe(task.cancel)

            script.on_stop = stop
            with suppress(asyncio.CancelledError):
                return await task
            return False

        has_ended = asyncio.run(run())
        numbers = [outcome.number for outcome in found]
        assert len(set(numbers)) == len(numbers)
        assert not has_ended or len(numbers) == len(table.texts)
        answered = [outcome for outcome in found if outcome.error is None]
        if disturbed.end == "retried":
            self._retry(table, call, found, expected)
        if copies or disturbed.restarts:
            self.close()
            self._state = copies[0] if copies else self._state
            self._begin()
        if len(answered) == len(table.texts):
            self.kept.clear()  # a run that ended whole is forgotten; this one may have, though it was left
        elif not copies:
            self.kept |= Counter(table.prompts[outcome.number] for outcome in answered)

    def _retry(self, table: Table, call: MapCall, found: list[Outcome], expected: pd.DataFrame) -> None:
        """Ask again for the rows that failed."""
        answers = call.judged(call.run.answers(found))
        if answers.failed:
            self._call(table, Script(table.kind))
            pd.testing.assert_frame_equal(bound(call, answers.retry()), expected)

    def _copied(self, before: set[Path], cut: int) -> Path:
        """Copy what a process that is killed now leaves."""
        copy = self._state.with_name(str(int(self._state.name) + 1))
        copy.mkdir()
        if self._state.exists():
            shutil.copytree(self._state, copy, dirs_exist_ok=True)
        for torn in copy.rglob("*.jsonl"):  # the run goes on meanwhile, and may have begun a file of which none is here
            if self._state / torn.relative_to(copy) not in before:
                torn.write_bytes(torn.read_bytes()[: -cut or None])
        return copy


def bound(call: MapCall, answers: Answers) -> pd.DataFrame:
    """Return the frame that a variable is bound to, its errors as texts; the answers must be the same."""
    frame: pd.DataFrame = call.run.bound(answers)
    assert len(answers) == len(frame)
    if "error" in frame:
        assert [error is None for error in answers.errors] == frame["error"].isna().tolist()
        frame["error"] = [None if error is None else f"{type(error).__name__}: {error}" for error in answers.errors]
    return frame


def check(table: Table, disturbances: list[Disturbance], world: World, undisturbed: World) -> None:
    try:
        expected, asked = undisturbed.whole(table)
        assert expected.index.tolist() == table.frame.index.tolist()
        assert asked == Counter(dict.fromkeys(table.asked, 1) if table.dedup else table.asked)
        for disturbed in disturbances:
            world.disturb(table, disturbed, expected)
        frame, asked = world.whole(table)
        pd.testing.assert_frame_equal(frame, expected)
        most = table.asked - world.kept
        assert asked <= (Counter(dict.fromkeys(most, 1)) if table.dedup else most)
    finally:
        world.close()
        undisturbed.close()


FEW: Any = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=150, **FEW)
@given(table=TABLES, disturbances=DISTURBANCES)
def test_any_interleaving_over_a_backend_of_an_author(
    table: Table,
    disturbances: list[Disturbance],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worlds = [World(tmp_path_factory.mktemp(name), monkeypatch, None) for name in ("disturbed", "undisturbed")]
    check(table, disturbances, *worlds)


@settings(max_examples=40, **FEW)
@given(table=TABLES, disturbances=DISTURBANCES)
def test_any_interleaving_over_a_server(
    table: Table,
    disturbances: list[Disturbance],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedServer() as server:
        worlds = [World(tmp_path_factory.mktemp(name), monkeypatch, server) for name in ("disturbed", "undisturbed")]
        check(table, disturbances, *worlds)
