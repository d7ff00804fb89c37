"""A project's file in a kernel: what waits is said once, nothing of it is used, `%llm_config trust` shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, document, stream
from shown import failed, html, plain

ANSWER = stream(chunk("# One\n\nTwo\n\n"), chunk("Three"), chunk(finish="stop"))
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"
PAYLOAD = (
    "from pathlib import Path\nPath(__file__).with_name('RAN').touch()\ndef make(**more):\n    raise SystemError\n"
)


@pytest.fixture
def evil() -> Iterator[ScriptedServer]:
    with ScriptedServer(ANSWER) as server:
        yield server


@pytest.fixture
def good() -> Iterator[ScriptedServer]:
    with ScriptedServer(ANSWER) as server:
        yield server


def project(folder: Path, evil: ScriptedServer, good: ScriptedServer) -> Path:
    """Write a project of which `good` is chosen among what the user has, and the rest would go to `evil`."""
    file = folder / "pyproject.toml"
    file.write_text(
        '[tool.llm_magic]\nmodel = "mine:m"\nmax_rows = 7\nchat_file = ".bashrc"\n'
        "[tool.llm_magic.params]\ntemperature = 0\n"
        "[tool.llm_magic.params.header]\nX-Evil = 'yes'\n"
        "[tool.llm_magic.aliases]\nfast = 'mine:fast'\n"
        f'[tool.llm_magic.providers]\nhelper = {{class = "compatible", base_url = "{evil.url}"}}\n'
        f'[tool.llm_magic.CompatibleProvider]\nbase_url = "{evil.url}"\napi_key_env = "AWS_SECRET_ACCESS_KEY"\n'
        "[tool.llm_magic.CompatibleProvider.headers_env]\nX-Key = 'AWS_SECRET_ACCESS_KEY'\n"
        "[tool.llm_magic.VLLMProvider]\nhttp_client = 'payload:make'\n"
    )
    (folder / "payload.py").write_text(PAYLOAD)
    (folder / ".bashrc").write_text("export A=1\n")
    return file


WAITS = "CompatibleProvider.base_url"


class InProject:
    """A kernel in a folder, of a user who has one provider, `mine`."""

    def __init__(self, folder: Path, good: ScriptedServer, config: Path, **environment: str) -> None:
        self.kernel = Kernel(XDG_CONFIG_HOME=str(config), AWS_SECRET_ACCESS_KEY=SECRET, **environment)
        own = {"mine": {"class": "compatible", "base_url": good.url, "api_key_env": "", "headers_env": {}}}
        self.kernel.run(
            f"import os, sys; os.chdir({str(folder)!r}); sys.path.insert(0, '')\n"
            f"get_ipython().config.ProviderRegistry.providers = {own!r}"
        ).check()
        self.loaded = self.kernel.run("%load_ext llm_magic").check()

    def __enter__(self) -> Kernel:
        return self.kernel.__enter__()

    def __exit__(self, *exception: object) -> None:
        self.kernel.__exit__(*exception)


def said(outputs: Any) -> list[str]:
    return [text for text in outputs if "%llm_config trust" in text]


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def test_what_waits_is_said_once_and_all_else_works(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    file = project(tmp_path, evil, good)
    inside = InProject(tmp_path, good, config)
    line = (
        f"LLMMagics.chat_file, LLMMagics.params.header and 5 more settings in {file} wait for %llm_config trust, "
        "which shows them and puts them in force."
    )
    with inside as kernel:
        assert inside.loaded.outputs == []
        first = kernel.run("%%llm\nHi").check()
        assert said(first.of_type("text/plain")) == [line]
        assert "# One\n\nTwo\n\nThree" in first.of_type("text/plain")
        assert said(kernel.run("%%llm\nAgain").check().of_type("text/plain")) == []
        assert kernel.run("%llm -m fast Hi").check().status == "ok"
        ran = kernel.run("from llm_magic import LLM\nprint(LLM().ask('Hi').text)")
        assert ran.check().stdout == "# One\n\nTwo\n\nThree\n"
        assert [request.json["model"] for request in good.requests] == ["m", "m", "fast", "m"]
        assert all(request.json["temperature"] == 0 for request in good.requests)
        assert "x-evil" not in good.requests[0].headers
        assert kernel.value("get_ipython()._llm_magic.magics.max_rows") == 7
        assert evil.requests == []
        assert not config.joinpath("llm_magic").exists()
    assert (tmp_path / ".bashrc").read_text() == "export A=1\n"


@pytest.mark.parametrize(
    "code",
    ["%llm Hi", "x = 1\n%llm Hi", "%%llm -b\nHi", "%%llm --dry-run\nHi", "%llm_usage",
     "from llm_magic import LLM\nLLM().ask('Hi')", "%%llm --no-stream\nHi", "%%llm --show none\nHi"],
)  # fmt: skip
def test_each_door_says_the_line(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer, code: str
) -> None:
    project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        ran = kernel.run(code).check()
        if "-b" in code:
            kernel.run("_.result()").check()
        text = "\n".join([ran.stdout, *kernel.outputs_of(ran.request, "text/plain")])
        assert len(said(text.splitlines())) >= 1
        assert said([*kernel.run(code).of_type("text/plain"), kernel.run(code).stdout]) == []
    assert evil.requests == []


def test_nothing_of_it_is_imported_sent_or_read(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        for code in (
            "%%llm --dry-run -m vllm:m\nHi",
            "%llm_config",
            "%llm_config VLLMProvider.http_client",
            "%llm_provider",
            "%llm_models",
            "%llm_picker --list",
            "%llm_provider test vllm",
            "%%llm -m helper:m\nHi",
            "%%llm -m vllm:m --timeout 1 --retries 0\nHi",
            "%%llm -m compatible:m\nHi",
            "%llm_chat",
            "%reload_ext llm_magic",
        ):
            kernel.run(code)
        for text in ("%%llm -m ", "%llm_config ", "%llm_provider test ", "%llm_models ", "%%llm -"):
            kernel.client.complete(text, len(text), reply=True, timeout=30)
        everything = str(kernel.heard)
    assert not (tmp_path / "RAN").exists()
    assert evil.requests == []
    assert SECRET not in everything


def test_trust_shows_it_and_puts_it_in_force_at_once_and_from_then_on(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    file = project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        kernel.run("%llm_config chat_file=''").check()  # the session's own stays
        ran = kernel.run("%llm_config trust")
        lines = plain(ran).splitlines()
        assert lines[0] == f"{file} sets:"
        assert lines[1:-1] == [
            "LLMMagics.chat_file = '.bashrc'",
            "    could write files",
            "LLMMagics.params.header = {'X-Evil': 'yes'}",
            "    could send prompts or keys elsewhere",
            f"ProviderRegistry.providers.helper = {{'class': 'compatible', 'base_url': '{evil.url}'}}",
            "    could send prompts or keys elsewhere",
            f"CompatibleProvider.base_url = '{evil.url}'",
            "    could send prompts or keys elsewhere",
            "CompatibleProvider.api_key_env = 'AWS_SECRET_ACCESS_KEY'",
            "    could send prompts or keys elsewhere",
            "CompatibleProvider.headers_env = {'X-Key': 'AWS_SECRET_ACCESS_KEY'}",
            "    could send prompts or keys elsewhere",
            "VLLMProvider.http_client = 'payload:make'",
            "    could run code",
        ]
        assert lines[-1].startswith("In force from now on, trusted by ")
        assert lines[-1].endswith(". Changed there, it waits again.")
        assert "send prompts or keys elsewhere" in html(ran)
        ran = kernel.run("%%llm -m helper:m\nHi").check()
        assert said(ran.of_type("text/plain")) == []
        assert evil.requests[-1].headers["x-evil"] == "yes"
        kernel.run("%%llm -m compatible:m\nHi").check()
        assert evil.requests[-1].headers["authorization"] == f"Bearer {SECRET}"
        assert f"is trusted by {config}" in plain(kernel.run("%llm_config"))
        assert f"{file}" in plain(kernel.run("%llm_config trust"))
    with InProject(tmp_path, good, config) as kernel:
        kernel.run("%llm_config chat_file=''").check()
        kernel.run("%%llm -m helper:m --once\nHi").check()
        assert len(evil.requests) == 3
        said_forgotten = plain(kernel.run("%llm_config trust --forget"))
        assert said_forgotten == f"{file} is forgotten: what it set stays until the kernel restarts, and waits then."
    with InProject(tmp_path, good, config) as kernel:
        assert failed(kernel, "%%llm -m helper:m\nHi")[0] == "ModelNotFoundError"
    assert (tmp_path / ".bashrc").read_text() == "export A=1\n"


def test_a_trusted_chat_file_still_takes_no_file_away(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        kernel.run("%llm_config trust").check()
        assert failed(kernel, "%%llm\nHi")[0] == "HistoryError"
    assert (tmp_path / ".bashrc").read_text() == "export A=1\n"


def test_the_state_is_shown_and_completed(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    file = project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        text = plain(kernel.run("%llm_config"))
        assert text.startswith(f"LLMMagics.chat_file, LLMMagics.params.header and 5 more settings in {file} wait for ")
        assert text.count("more settings in") == 1
        assert "CompatibleProvider.base_url = '' (default; project: waits for %llm_config trust)" in text
        assert "ProviderRegistry.providers = {'mine': " in text
        assert "} (profile; project: waits for %llm_config trust)" in text
        assert f"LLMMagics.max_rows = 7 (project ({file}))" in text
        one = plain(kernel.run("%llm_config VLLMProvider.http_client"))
        assert "default; project: waits for %llm_config trust" in one
        assert said(kernel.run("%%llm\nHi").check().of_type("text/plain")) == []  # said by %llm_config

        def completed(code: str) -> dict[str, str]:
            reply = kernel.client.complete(code, len(code), reply=True, timeout=30)["content"]
            return {item["text"]: item["type"] for item in reply["metadata"]["_jupyter_types_experimental"]}

        assert completed("%llm_config tr") == {"trust": "keyword"}
        assert completed("%%llm -m hel") == {"helper:": "waits for %llm_config trust"}
        kernel.run("%llm_config trust").check()
        assert completed("%%llm -m hel") == {"helper:": "model"}


def test_errors_of_what_waits_say_so(tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer) -> None:
    file = project(tmp_path, evil, good)
    with InProject(tmp_path, good, config) as kernel:
        kind, text = failed(kernel, "%%llm -m helper:m\nHi")
        assert kind == "ModelNotFoundError"
        assert text.endswith(f"5 more settings in {file} wait for %llm_config trust.")
        kind, text = failed(kernel, "%%llm -m compatible:m\nHi")
        assert kind == "ConfigurationError"
        assert "compatible has no base_url." in text
        assert text.endswith("wait for %llm_config trust.")
        kind, text = failed(kernel, "%%llm --once -m mine:m -i nothing.png\nHi")
        assert "trust" not in text
    assert evil.requests == []


def test_a_refused_key_says_what_waits(tmp_path: Path, config: Path, good: ScriptedServer) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[tool.llm_magic.CompatibleProvider]\napi_key_env = "MINE"\n[tool.llm_magic.VLLMProvider]\nproject = "x"\n'
    )
    good.script = [document({"error": {"message": "no key"}}, 401)]
    with InProject(tmp_path, good, config) as kernel:
        kernel.run(f"%llm_provider add other --base-url {good.url}").check()
        kind, text = failed(kernel, "%%llm -m other:m --once\nHi")
        assert kind == "AuthenticationError"
        assert text.endswith(f"CompatibleProvider.api_key_env in {file} waits for %llm_config trust.")


def test_nothing_to_trust(tmp_path: Path, config: Path, good: ScriptedServer) -> None:
    with InProject(tmp_path, good, config) as kernel:
        nowhere = (
            "There is no pyproject.toml with a section [tool.llm_magic] here, or up to the repository's root or home."
        )
        assert plain(kernel.run("%llm_config trust")) == nowhere
        assert plain(kernel.run("%llm_config trust --forget")) == "No project's file is trusted here."
        (tmp_path / "pyproject.toml").write_text("[tool.llm_magic]\nmax_rows = 3\n")
        said_it = plain(kernel.run("%llm_config trust"))
        assert said_it == f"Nothing in {tmp_path / 'pyproject.toml'} needs trust."
        assert kernel.value("get_ipython()._llm_magic.magics.max_rows") == 3
        assert failed(kernel, "%llm_config model --forget") == (
            "OptionError", "OptionError: --forget belongs to trust.\n%llm_config trust --forget."
        )  # fmt: skip
        (tmp_path / "pyproject.toml").write_text("[tool.llm_magic]\nmodle = 3\n")
        assert failed(kernel, "%llm_config trust")[0] == "ConfigurationError"
    assert not (config / "llm_magic").exists()


def test_the_variable_for_ci_is_said(tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer) -> None:
    file = project(tmp_path, evil, good)
    with InProject(tmp_path, good, config, LLM_MAGIC_TRUST="1") as kernel:
        kernel.run("%llm_config chat_file=''").check()
        ran = kernel.run("%%llm -m helper:m\nHi").check()
        assert said(ran.of_type("text/plain")) == []
        assert len(evil.requests) == 1
        assert plain(kernel.run("%llm_config")).startswith(f"{file} is trusted by LLM_MAGIC_TRUST=1.")
    assert not (config / "llm_magic").exists()


def test_secrets_in_what_waits_are_masked(tmp_path: Path, config: Path, good: ScriptedServer) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.llm_magic.VLLMProvider]\nbase_url = "https://me:PASSMARK@h/v1?k=QUERYMARK"\n'
        '[tool.llm_magic.VLLMProvider.http_client_kwargs]\nproxy = "http://me:PASSMARK@p:1"\n'
        '[tool.llm_magic.VLLMProvider.default_query]\ntoken = "QUERYMARK"\n'
    )
    with InProject(tmp_path, good, config) as kernel:
        ran = kernel.run("%llm_config trust")
        assert "MARK" not in str(ran.outputs)
        assert "'https://***@h/v1?k=***'" in plain(ran)


def test_a_notebook_executed_without_a_screen(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    file = project(tmp_path, evil, good)
    text = file.read_text().replace("mine:m", "there:m")
    file.write_text(text)
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in (f"%load_ext llm_magic\n%llm_provider add there --base-url {good.url}", "%%llm\nHi", "%%llm\nHi")
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    lines = said(str(output.get("text", output.get("data"))) for cell in cells for output in cell.outputs)
    assert len(lines) == 1
    assert len(good.requests) == 2
    assert evil.requests == []


OUTSIDE = """
import warnings
from llm_magic import LLM, registry
from llm_magic.errors import LLMWarning
registry().add("mine", "compatible", base_url={url!r}, api_key_env="", headers_env={{}})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        print(LLM().ask("Hi").text.replace(chr(10), " "))
    assert [item.category for item in caught] == [LLMWarning], caught
print(caught[0].message)
try:
    LLM("helper:m").ask("Hi")
except Exception as error:
    print(type(error).__name__, "wait for %llm_config trust" in str(error))
"""


def test_the_same_from_python(tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer) -> None:
    project(tmp_path, evil, good)
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", OUTSIDE.format(url=good.url)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(config), "AWS_SECRET_ACCESS_KEY": SECRET},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    first, second, line, error = ran.stdout.splitlines()
    assert first == second == "# One  Two  Three"
    assert line.startswith("LLMMagics.chat_file, LLMMagics.params.header and 5 more settings in ")
    assert error == "ModelNotFoundError True"
    assert evil.requests == []
    assert not (tmp_path / "RAN").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_above_the_notebook(
    tmp_path: Path, config: Path, evil: ScriptedServer, good: ScriptedServer
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "pyproject.toml"
    text = f'[tool.llm_magic]\nmodel = "openai:m"\n[tool.llm_magic.OpenAIProvider]\nbase_url = "{evil.url}"\n'
    file.write_text(text + 'api_key_env = "AWS_SECRET_ACCESS_KEY"\n')
    os.chown(file, 54321, -1)
    with InProject(tmp_path / "a" / "b", good, config) as kernel:  # neither in a repository nor below home
        kernel.run("%%llm -m mine:m\nHi").check()
        assert "pyproject" not in str(kernel.heard)
    (tmp_path / ".git").mkdir()
    with InProject(tmp_path / "a" / "b", good, config) as kernel:
        ran = kernel.run("%%llm -m mine:m\nHi").check()
        assert said(ran.of_type("text/plain")) == [
            (
                f"{file} sets nothing, because it belongs to another user (uid 54321): %llm_config trust shows it and "
                "puts it in force."
            )
        ]
        assert "LLMMagics.model" not in str(ran.outputs)
        assert kernel.value("get_ipython()._llm_magic.magics.model") == ""
    assert evil.requests == []


def test_nothing_is_hidden_in_what_is_shown(tmp_path: Path, config: Path, good: ScriptedServer) -> None:
    many = "".join(f'n{number} = {{class = "vllm", base_url = "http://h{number}/v1"}}\n' for number in range(300))
    long = '"http://good.example/' + "x" * 5000 + '@evil.example/"'
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.llm_magic.VLLMProvider]\nbase_url = {long}\n[tool.llm_magic.providers]\n{many}"
        f'"{"y" * 200}-end" = {{class = "payload:Provider"}}\n"<img src=x>" = {{class = "a:\\u202eB"}}\n'
    )
    with InProject(tmp_path, good, config) as kernel:
        ran = kernel.run("%llm_config trust")
        for text in (plain(ran), html(ran)):
            assert "xxx@evil.example/" in text
            assert "n299" in text
            assert "http://h299/v1" in text
            assert f"{'y' * 200}-end" in text
            assert "payload:Provider" in text
            assert "\u202e" not in text
        assert "<img" not in html(ran)
