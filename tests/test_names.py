"""Names in cells of a real kernel: of options in the configuration, of variables to bind, of sections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel
from servers import Answer, Received, ScriptedServer, chunk, document, stream


def answer(request: Received) -> Answer:
    if request.path.endswith("/embeddings"):
        return document({"data": [{"index": 0, "embedding": [1.0, 2.0]}], "model": "m"})
    return stream(chunk("Take `x = 1`:\n\n```python\nx = 1\n```\n"), chunk(finish="stop"))


@pytest.fixture
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        kernel.run(f"%llm_provider add s --base-url {server.url} --max-retries 0").check()
        yield server
        kernel.run("%config LLMMagics.params = {}\n%config LLMMagics.model_params = {}").check()
        kernel.run("%config ProviderRegistry.aliases = {}").check()
        kernel.run("%llm_provider remove s").check()


UNKNOWN = (
    "{} has no option temprature.\n"
    'Did you mean temperature? A further field of the body stands in param: {{"temprature": …}}.'
)


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("LLMMagics.params = {'temprature': 0}", "LLMMagics.params"),
        ("LLMMagics.model_params = {'gpt-*': {'temprature': 0}}", "LLMMagics.model_params['gpt-*']"),
        ("ProviderRegistry.aliases = {'s:m': {'model': 's:m', 'temprature': 0}}", "The alias s:m"),
    ],
)
def test_an_unknown_name_in_the_configuration(kernel: Kernel, server: ScriptedServer, setting: str, where: str) -> None:
    kernel.run(f"%config {setting}").check()
    for cell in ("%%llm -m s:m\nHi", "%llm -m s:m Hi", "%%llm -m s:m --dry-run\nHi"):
        ran = kernel.run(cell)
        assert ran.status == "error"
        assert ran.error == UNKNOWN.format(where)
    assert server.requests == []


def test_an_unknown_name_of_llm_is_two_lines(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("from llm_magic import LLM\nLLM('s:m').ask('Hi', temprature=0)")
    assert ran.error == UNKNOWN.format("ask")
    assert server.requests == []


def test_what_is_configured_of_the_cell_itself(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("%config LLMMagics.params = {'show': 'text', 'chat': 'talk', 'code': True}").check()
    ran = kernel.run("%%llm -m s:m\nHi", cell_id="a").check()
    assert ran.of_type("text/markdown") == []
    assert kernel.last_reply["payload"][0]["text"] == "x = 1"
    kernel.run("%%llm -m s:m --show markdown\nMore", cell_id="b").check()
    assert [len(request.json["messages"]) for request in server.requests] == [1, 3]
    assert "talk" in kernel.run("%llm_chat").check().of_type("text/plain")[0]
    kernel.run("%config LLMMagics.params = {'once': True}").check()
    kernel.run("%%llm -m s:m\nAlone", cell_id="c").check()
    kernel.run("%%llm -m s:m -c talk\nAgain", cell_id="d").check()
    assert [len(request.json["messages"]) for request in server.requests[2:]] == [1, 5]


def test_the_session_wins_over_an_alias_of_the_profile(server: ScriptedServer, tmp_path: Path) -> None:
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_config.py").write_text(
        "c.ProviderRegistry.aliases = {'mine': {'model': 's:m', 'temperature': 0.1}}\n"
        f"c.ProviderRegistry.providers = {{'s': {{'class': 'compatible', 'base_url': {server.url!r}}}}}\n"
        "c.LLMMagics.params = {'temperature': 0.2, 'seed': 1}\n"
    )
    with Kernel(IPYTHONDIR=str(tmp_path)) as other:
        other.run("%load_ext llm_magic").check()
        other.run("%%llm -m mine --once\nHi").check()
        other.run("%config LLMMagics.params = {'temperature': 0.9}").check()
        other.run("%%llm -m mine --once\nHi").check()
        other.run("%%llm -m mine --once -t 0.3\nHi").check()
    assert [(request.json["temperature"], request.json.get("seed")) for request in server.requests] == [
        (0.1, 1),
        (0.9, None),
        (0.3, None),
    ]


@pytest.mark.parametrize("name", ["In", "Out", "_", "__", "_3", "_i", "_ih", "get_ipython", "_llm", "exit", "__name__"])
@pytest.mark.parametrize("magic", ["%%llm -m s:m", "%%llm_embed -m s:m"])
def test_names_that_are_not_the_users(kernel: Kernel, server: ScriptedServer, magic: str, name: str) -> None:
    ran = kernel.run(f"{magic} -o {name}\nHi")
    assert ran.error.startswith(
        f"-o takes the name of a variable that neither IPython nor llm_magic sets, not {name!r}."
        if magic.startswith("%%llm ")
        else "-o takes the name of a variable that neither IPython nor llm_magic sets."
    )
    assert server.requests == []


@pytest.mark.parametrize("name", ["list", "str", "open"])
def test_a_builtin_is_bound_with_a_note(kernel: Kernel, server: ScriptedServer, name: str) -> None:
    note = f"-o {name}: hides the builtin {name} from the cells below; del {name} brings it back."
    ran = kernel.run(f"%%llm -m s:m --once -o {name}\nHi").check()
    assert note in "\n".join(ran.of_type("text/plain"))
    assert kernel.value(f"isinstance({name}, __builtins__.str)")
    kernel.run(f"del {name}").check()
    ran = kernel.run(f"%%llm_embed -m s:m -o {name}\nHi").check()
    assert note in "\n".join(ran.of_type("text/plain"))
    kernel.run(f"del {name}").check()
    ran = kernel.run("%%llm -m s:m --once -o mine\nHi").check()
    assert "hides the builtin" not in "\n".join(ran.of_type("text/plain"))


def test_a_further_field_from_the_environment(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("import os\nos.environ['TENANT'] = 'tenant-0123456789'").check()
    kernel.run("%%llm -m s:m --once -p tenant=env:TENANT\nHi").check()
    kernel.run("%%llm_embed -m s:m -p tenant=env:TENANT\nHi").check()
    assert [request.json["tenant"] for request in server.requests] == ["tenant-0123456789"] * 2
    ran = kernel.run("%%llm -m s:m --once --dry-run -p tenant=env:TENANT\nHi").check()
    assert "***" in "\n".join(ran.of_type("text/plain"))
    assert "tenant-0123456789" not in str(ran)
    kernel.run("del os.environ['TENANT']").check()
    ran = kernel.run("%%llm -m s:m --once -p tenant=env:TENANT\nHi")
    assert "--param tenant: the environment variable TENANT is not set." in ran.error


def test_a_setting_of_the_wrong_type_is_not_repeated(kernel: Kernel) -> None:
    ran = kernel.run("%llm_config params=sk-live-0123456789")
    assert ran.error.startswith("params does not take that value: params expected a dict")
    assert "sk-live" not in ran.error
    for setting in ("LLMMagics.params", "LLMMagics.model_params", "ProviderRegistry.aliases"):
        said = str(kernel.run(f"%config {setting} = 'sk-live-0123456789'").outputs)
        assert f"{setting} expected a dict" in said
        assert ", not this str." in said
        assert "sk-live" not in said


def test_a_misspelled_section_in_a_notebook_without_a_screen(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.llm-magic]\nmodel = 's:m'\n")
    with ScriptedServer(answer) as server:
        add = f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)"
        sources = ["%load_ext llm_magic", add, "%%llm -m s:m -o list\nHi", "%%llm -m s:m\nHi"]
        book: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
        nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, second = (str(cell.outputs) for cell in book.cells[2:])
    said = f"[tool.llm-magic] in {file} sets nothing: the section of llm_magic is [tool.llm_magic]."
    assert said in first
    assert "-o list: hides the builtin list" in first
    assert said not in second
