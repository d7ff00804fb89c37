"""What IPython's completer offers with the matcher in place: in a process, in a kernel, in a terminal."""

import datetime as dt
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.completer import IPCompleter, provisionalcompleter
from kernels import Kernel

from llm_magic import completion, embeddings
from llm_magic.completion.candidates import COMMANDS, WORDS
from llm_magic.completion.context import context_of, flags_of
from llm_magic.config.settings import Settings
from llm_magic.conversation import Turn
from llm_magic.messages import user
from llm_magic.options import BY_NAME, OPTIONS
from llm_magic.providers.model_info import ModelCard
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

PIXEL = bytes.fromhex("89504e470d0a1a0a")


class City:
    name = "Cairo"


def describe(city: str) -> str:
    return city


class Draws:
    """A picture by matplotlib's lights: its class says so, and nothing is imported for the question."""


Draws.__name__, Draws.__module__ = "Figure", "matplotlib.figure"


class Counts:
    """Something whose attributes nobody may look at uninvited."""

    looked = 0

    @property
    def costly(self) -> "Counts":
        Counts.looked += 1
        return self


class Typing:
    """A completer over a namespace, as a shell has it."""

    def __init__(self, **namespace: Any) -> None:
        self.namespace: dict[str, Any] = {"In": [], "exit": exit, **namespace}
        self.completer = IPCompleter(namespace=self.namespace, use_jedi=False)
        self.shell: Any = SimpleNamespace(
            Completer=self.completer, user_ns=self.namespace, user_ns_hidden={"In": 0, "exit": 0}
        )
        self.registry = ProviderRegistry()
        self.session = Session(Settings(), self.registry)
        completion.install(self.shell, self.session)

    def offers(self, before: str) -> list[str]:
        """Return what the text before the cursor becomes, where the matcher has an answer."""
        with provisionalcompleter():
            found = list(self.completer.completions(before, len(before)))
        return [f"{before[: item.start]}{item.text}" for item in found if item._origin == completion.IDENTIFIER]

    def words(self, before: str) -> list[str]:
        start = len(before) - len(before.rsplit(" ", maxsplit=1)[-1])
        return [text[start:] for text in self.offers(before)]


@pytest.fixture
def typing() -> Typing:
    return Typing(
        City=City,
        cities=[City()],
        data={"key": 1, "other key": 2},
        datetime=dt,
        describe=describe,
        figure=Draws(),
        odd=Counts(),
        picture=PIXEL,
        text="a",
        _hidden=1,
    )


def test_options(typing: Typing) -> None:
    assert typing.words("%%llm --mo") == ["--model"]
    assert typing.words("%%llm -t 0 --once --max-t") == ["--max-tokens", "--max-tool-rounds"]
    assert typing.words("x = %llm --mo") == ["--model"]
    assert typing.words("%%llm ") == [flag for option in OPTIONS for flag in option.flags if flag.startswith("--")]
    assert typing.words("%%llm -")[-1] == "-t"
    assert typing.words("%%llm --model a --mo") == []
    assert typing.words("%%llm --stop a --sto") == ["--stop"]
    assert typing.words("%%llm_embed --") == sorted(flag for flag in flags_of("llm_embed") if flag[:2] == "--")


def test_models_aliases_and_providers(typing: Typing) -> None:
    typing.registry.aliases = {"lively": "vllm:smollm2", "other": {"model": "local:smollm2"}}
    typing.session.settings.model_names = ["gpt-x"]
    assert typing.words("%%llm --model l") == ["lively", "local:"]
    assert typing.words("%%llm -m g") == ["gpt-x"]
    assert typing.words("%llm --model=l") == ["--model=lively", "--model=local:"]
    typing.registry.get("vllm")._cards = (ModelCard("Qwen/Qwen3-8B"), ModelCard("smollm2"))
    assert typing.words("%%llm --model vllm:") == ["vllm:", "vllm:Qwen/Qwen3-8B", "vllm:smollm2"]
    assert typing.words("%%llm --model qwen") == ["vllm:Qwen/Qwen3-8B"]
    assert typing.words("%%llm --model 3-8") == ["vllm:Qwen/Qwen3-8B"]
    assert typing.words("%%llm -m lively,l") == ["lively,local:"]
    assert typing.words("%%llm -m lively,local:,vllm:s") == ["lively,local:,vllm:smollm2"]
    assert typing.words("%llm_models l") == ["local"]


def test_types(typing: Typing) -> None:
    assert typing.words("%%llm --as Ci") == ["City"]
    assert typing.words("%%llm --as list[Ci") == ["list[City"]
    assert typing.offers("%%llm --as 'dict[str, Ci") == ["%%llm --as 'dict[str, City"]
    assert typing.words("%%llm --as Li") == ["Literal"]
    assert typing.words("%%llm --as d") == ["datetime", "dict", "date"]
    assert typing.words("%%llm --as datetime.datet") == ["datetime.datetime"]
    assert typing.words("%%llm --as Literal['Ci") == []


def test_values_of_other_options(typing: Typing) -> None:
    assert typing.words("%%llm --image ")[:2] == ["figure", "picture"]
    assert typing.words("%%llm --tools des") == ["describe"]
    assert typing.words("%%llm --tools describe,de") == ["describe,describe"]
    assert typing.words("%%llm --context a") == ["all"]
    assert typing.words("%%llm --context des") == ["describe"]
    assert typing.words("%%llm --context describe,fig") == ["describe,figure"]
    assert typing.words("%%llm --context describe,al") == []
    assert typing.words("%%llm --tool-choice ") == ["auto", "none", "required", "describe"]
    assert typing.words("%%llm --show ") == list(WORDS["show"])
    assert typing.words("%%llm --record ") == ["off", "once", "only", "new"]
    assert typing.words("%%llm_embed --record o") == ["off", "once", "only"]
    assert typing.offers("%%llm --record-") == ["%%llm --record-tools"]
    assert typing.words("%%llm --api c") == ["chat", "completions"]
    assert typing.words("%%llm --out ci") == ["cities"]
    assert typing.words("%%llm --schema da") == ["data"]
    assert typing.words("%%llm --chat ") == ["main"]
    assert typing.words("%%llm_embed --as n") == ["ndarray"]
    assert typing.words("%%llm_embed --each ci") == ["cities"]
    assert typing.words("%%llm -t ") == []


def test_many_rows(typing: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    typing.namespace |= {"comments": pd.DataFrame({"text": ["a"], "two words": [1], "stars": [5]}), "count": 3}
    typing.namespace |= {"calls": [{"name": "Ann", "no name": 1}], "code": "x"}
    assert typing.words("%%llm --each c") == ["comments", "cities", "calls", "count", "code"]
    assert typing.words("%llm --each=c")[0] == "--each=comments"
    assert typing.words("%%llm_embed --each c")[0] == "comments"
    assert typing.words("%%llm --each comments.gro") == ["comments.groupby"]
    assert typing.offers("%%llm --each comments[sta") == []
    assert typing.words("%%llm --each comments --concurrency ") == ["auto"]
    assert typing.words("%%llm --each comments --on-error ") == ["fail", "keep"]
    assert typing.words("%%llm --each comments --order ") == ["given", "prefix"]
    assert typing.words("%%llm --each comments --on ") == ["dask"]
    assert typing.words("%%llm --each comments --ba") == ["--background", "--base-url", "--batch", "--batch-file"]
    assert typing.words("%%llm --each comments --batch --wa") == ["--wait"]
    assert typing.words("%%llm --each comments --batch --po") == ["--poll"]
    assert typing.words("%%llm_embed --ba") == ["--base-url", "--batch", "--batch-api"]
    monkeypatch.setenv("KEY_OF_A_TEST", "sk-0123456789")
    assert typing.words("%%llm --forward-env A,KEY_OF_A_T") == ["A,KEY_OF_A_TEST"]
    assert typing.words("%%llm --each comments\n{{ te") == ["text"]
    assert typing.words("%%llm --each comments\n{{ st") == ["stars"]
    assert typing.words("%llm --each=comments -t 0 Rate {{ sta") == ["stars"]
    assert typing.words("%%llm --each calls\n{{ na") == ["name"]
    assert typing.words("%%llm --each nothing\n{{ i") == ["item", "index"]
    assert typing.words("%%llm --each nothing\n{{ ro") == ["row"]
    assert typing.words("%%llm\n{{ inde") == []


def test_files(typing: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("person.json", "photo.png", "notes.txt", "photos/a.jpg", ".dot.png"):
        (tmp_path / name).write_bytes(b"")
    assert typing.words("%%llm --image ph") == ["photo.png", "photos/"]
    assert typing.words("%%llm --image photos/") == ["photos/a.jpg"]
    assert typing.words("%%llm --schema pe") == ["person.json"]
    assert typing.words("%%llm --image nowhere/") == []
    (tmp_path / "photos" / "rows.jsonl").write_bytes(b"")
    assert typing.words("%%llm --each rows --batch-file ") == ["photos/"]
    assert typing.words("%%llm --each rows --batch-file photos/") == ["photos/rows.jsonl"]


def test_names_of_a_template(typing: Typing) -> None:
    assert typing.words("%%llm\nSay {{ d") == ["data", "datetime", "describe"]
    assert typing.words("%llm Say {{ te") == ["text"]
    assert typing.words("%%llm\n{{ data.k") == ["data.key", "data.keys"]
    assert typing.words("%%llm\n{{ City.na") == ["City.name"]
    assert typing.words("%%llm\n{{ _h") == ["_hidden"]
    assert typing.words("%%llm\n{% for city in cities %}{{ cit") == ["city", "cities"]
    assert typing.words("%%llm\n{{ text | capi") == ["capitalize"]
    assert typing.words("%%llm\nprose d") == []


def test_no_property_is_run(typing: Typing) -> None:
    assert typing.words("%%llm\n{{ odd.cos") == ["odd.costly"]
    assert typing.words("%%llm\n{{ odd.costly.f") == []
    assert Counts.looked == 0


def test_commands(typing: Typing) -> None:
    assert typing.words("%llm_chat s") == ["show", "switch"]
    assert typing.words("%llm_chat show m") == ["main"]
    assert typing.words("%llm_chat dr") == ["drop"]
    assert typing.words("%llm_chat drop ") == []
    for chat in ("main", "main", "talk"):
        typing.session.conversations.get(chat).record(Turn(None, (user("Hi"),)))
    assert typing.words("%llm_chat drop ") == ["1", "2"]
    assert typing.words("%llm_chat drop 2 ") == ["1", "main", "talk"]
    assert typing.words("%llm_chat drop 2 t") == ["talk"]
    assert typing.words("%llm_provider test az") == ["azure"]
    assert typing.words("%llm_config LLMMagics.mod") == [
        "LLMMagics.model",
        "LLMMagics.model_names",
        "LLMMagics.model_params",
    ]


def test_what_is_offered_is_taken() -> None:
    for name in ("api", "show", "record", "tool_choice", "reasoning_effort", "on_error", "order", "concurrency", "on"):
        read = BY_NAME[name].read
        assert read is not None
        assert [read(word) for word in WORDS[name]] == list(WORDS[name])
    for name in ("api", "show"):
        said = BY_NAME[name].help.replace(" or ", ", ").split(", ")
        assert sorted(said) == sorted(WORDS[name])
    for item in embeddings.OPTIONS:
        assert set(item.flags) <= set(flags_of("llm_embed"))
    from llm_magic.commands import LLMCommands

    for magic, words in COMMANDS.items():
        page = getattr(LLMCommands, magic).__doc__ if hasattr(LLMCommands, magic) else "--list --help"
        assert [word for word in words if word != "--help" and word not in page] == []


def test_a_wrong_configuration_is_no_news_while_typing(typing: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    typing.registry.litellm_config = "/nowhere/config.yaml"
    assert typing.words("%%llm --model l") == []
    assert "llm_magic" not in capsys.readouterr().err


def test_it_is_installed_once_and_taken_out(typing: Typing) -> None:
    completion.install(typing.shell, typing.session)
    assert len(typing.completer.custom_matchers) == 1
    completion.uninstall(typing.shell)
    assert typing.completer.custom_matchers == []
    assert typing.offers("%%llm --mo") == []


def test_it_is_quick_with_much_to_choose_from() -> None:
    typing = Typing(**{f"name_{number}": number for number in range(20_000)})
    typing.registry.get("vllm")._cards = tuple(ModelCard(f"org/model-{number}") for number in range(5_000))
    typing.words("%%llm --model v")
    for before in ("%%llm --model org/model-49", "%%llm\n{{ name_19", "%%llm --mo", "%%llm --as Ci", "%%llm --out n"):
        taken = []
        for _ in range(3):
            started = time.thread_time()  # of the processor: however much else runs
            place = context_of(before)
            assert place is not None
            typing.completer.custom_matchers[0]._candidates().at(place)
            taken.append(time.thread_time() - started)
        assert min(taken) < 0.1, before


def test_nothing_is_asked_of_a_server(typing: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    for name in typing.registry.names():
        provider = typing.registry.get(name)
        monkeypatch.setattr(provider, "list_models", refuse)
        monkeypatch.setattr(provider, "client", refuse)
    typing.words("%%llm --model vllm:")
    typing.words("%llm_models v")


def test_cards_are_told_by_the_static_list(typing: Typing) -> None:
    typing.registry.add("box", "compatible", base_url="http://127.0.0.1:1/v1", models=["a", "b"])
    assert typing.registry.get("box").cached_models == (ModelCard("a"), ModelCard("b"))
    assert typing.words("%%llm -m box:") == ["box:", "box:a", "box:b"]


# The whole way


def complete(kernel: Kernel, code: str) -> tuple[list[str], str]:
    request = kernel.client.complete(code)
    while True:
        reply = kernel.client.get_shell_msg(timeout=30)
        if reply["parent_header"].get("msg_id") == request:
            break
    content = reply["content"]
    return content["matches"], code[content["cursor_start"] : content["cursor_end"]]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%%llm --mo", (["--model"], "--mo")),
        ("%%llm --model l", (["local:"], "l")),
        ("%%llm --as Ci", (["City"], "Ci")),
        ("%%llm -t 0\nSay {{ d", (["data"], "d")),
        ("%%llm --as 'dict[str, Ci", (["City"], "Ci")),
        ("%%llm_em", (["%%llm_embed"], "%%llm_em")),
        ("%llm_pi", (["%llm_picker"], "%llm_pi")),
    ],
)
def test_in_a_kernel(kernel: Kernel, code: str, expected: tuple[list[str], str]) -> None:
    kernel.run("class City: pass\ndata = 1").check()
    assert complete(kernel, code) == expected


def test_unloading_takes_it_out_of_a_kernel(kernel: Kernel) -> None:
    kernel.run("%unload_ext llm_magic").check()
    assert kernel.value("len(get_ipython().Completer.custom_matchers)") == 0
    kernel.run("%load_ext llm_magic").check()
    kernel.run("%reload_ext llm_magic").check()
    assert kernel.value("len(get_ipython().Completer.custom_matchers)") == 1


def test_ids_of_batches(typing: Typing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kept_batches import KeptBatches, Record

    from llm_magic.commands import batches

    kept = KeptBatches([Record(), Record("20261201T080000Z-3fb99999", created=2e9, batch_id="batch_new1")])
    monkeypatch.setattr(batches, "batch_commands", lambda _: kept)
    monkeypatch.chdir(tmp_path)
    Path("3_out.jsonl").write_text("{}")
    assert typing.words("%llm_batch c") == ["cancel"]
    assert typing.words("%llm_batch show ") == ["3fb99999", "3fa1b2c4", "batch_new1", "batch_abc1"]
    assert typing.words("x = %llm_batch fetch 3") == ["3fb99999", "3fa1b2c4", "3_out.jsonl"]
    assert typing.words("%llm_batch remove 3fa") == ["3fa1b2c4"]
    assert typing.words("%llm_batch remove 3fa1b2c4 -") == ["--force"]
    assert typing.words("%llm_batch cancel 3fa1b2c4 ") == []
    kept.broken = PermissionError(13, "Permission denied")
    assert typing.words("%llm_batch show ") == []


def test_tools_of_mcp_servers(typing: Typing) -> None:
    """Servers by name, and the tools of one that runs; nothing is started for it."""
    assert typing.words("%%llm --tools mc") == []
    typing.session.settings.mcp_servers = {"time": {"command": "no-such-program"}, "docs": {"url": "https://h/mcp"}}
    assert typing.words("%%llm --tools mc") == ["mcp:time", "mcp:docs"]
    assert typing.words("%%llm --tools describe,mcp:t") == ["describe,mcp:time"]
    assert typing.words("%%llm --tools mcp:time.") == []
    assert typing.session.mcp_servers.running() == ()
    running = SimpleNamespace(is_open=True, offered=("now", "convert", "a b", "c,d", "\x1b[2J", ""))
    typing.session.mcp_servers._connections["time"] = running  # type: ignore[assignment] # a stand-in
    assert typing.words("%%llm --tools mcp:time.") == ["mcp:time.now", "mcp:time.convert"]
    assert typing.words("%%llm --tools describe,mcp:time.c") == ["describe,mcp:time.convert"]
    typing.session.mcp_servers._connections.clear()
