"""`%llm_config` in a kernel: every setting with its source, and the change of one."""

from pathlib import Path

import pytest
from kernels import Kernel
from shown import failed, html, plain

KEY = "sk-12345678901234567890abcd"


def test_every_setting_is_listed(kernel: Kernel) -> None:
    ran = kernel.run("%llm_config")
    names = kernel.value(
        "[s.name for s in __import__('llm_magic.config.effective').config.effective.settings_in_force("
        "get_ipython()._llm_magic.session.settings, get_ipython()._llm_magic.registry)]"
    )
    assert len(names) > 80
    text, page = plain(ran), html(ran)
    for name in names:
        assert f"{name} = " in text
        assert f">{name}</td>" in page
    assert "LLMMagics.footer = True (default)\n      Whether a quiet line with model" in text


def test_a_change_is_in_force_and_known_to_be_of_the_session(kernel: Kernel) -> None:
    assert plain(kernel.run("%llm_config max_rows = 7")) == "LLMMagics.max_rows = 7 (session)"
    assert kernel.value("get_ipython()._llm_magic.magics.max_rows") == 7
    assert "LLMMagics.max_rows = 7 (session)" in plain(kernel.run("%llm_config"))
    assert plain(kernel.run("%llm_config LLMMagics.model=vllm:smollm2")) == "LLMMagics.model = 'vllm:smollm2' (session)"
    assert (
        plain(kernel.run('%llm_config params={"temperature": 0}')) == "LLMMagics.params = {'temperature': 0} (session)"
    )
    kernel.run("name = 'openai:gpt-5'").check()
    assert plain(kernel.run("%llm_config model=$name")) == "LLMMagics.model = 'openai:gpt-5' (session)"
    for reset in ("max_rows=20", "model=''", "params={}"):
        kernel.run(f"%llm_config {reset}").check()


def test_a_class_a_name_a_trait(kernel: Kernel) -> None:
    kernel.run("%llm_provider add gpu --class vllm --timeout 9").check()
    assert plain(kernel.run("%llm_config VLLMProvider.max_retries=2")) == "VLLMProvider.max_retries = 2 (session)"
    assert kernel.value("get_ipython()._llm_magic.registry.get('gpu').max_retries") == 2
    assert plain(kernel.run("%llm_config gpu.timeout=5.5")) == "gpu.timeout = 5.5 (session)"
    timeouts = plain(kernel.run("%llm_config timeout")).splitlines()[::2]
    assert timeouts[0] == "gpu.timeout = 5.5 (session)"
    assert "VLLMProvider.timeout = 120.0 (default)" in timeouts
    own = plain(kernel.run("%llm_config vllm"))
    assert own.startswith("VLLMProvider.api = 'chat' (default)")
    assert plain(kernel.run("%llm_config VLLMProvider")) == own
    kernel.run("%llm_provider remove gpu").check()


def test_one_setting_with_its_whole_help(kernel: Kernel) -> None:
    text = plain(kernel.run("%llm_config OpenAIProvider.timeout"))
    *facts, how = text.splitlines()
    assert facts == [
        "OpenAIProvider.timeout  120.0",
        "from                    default",
        (
            "help                    Seconds to wait for an answer to begin, and of silence between two pieces of one. "
            "A server that only shows that it is alive (comments, empty pieces) is given up after three times as long."
        ),
    ]
    assert how == (
        "%llm_config OpenAIProvider.timeout=VALUE sets it for this session, timeout under "
        "[tool.llm_magic.OpenAIProvider] in pyproject.toml for a project, c.OpenAIProvider.timeout in "
        "ipython_config.py for all."
    )


def test_a_project_file_is_named_as_the_source(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.llm_magic]\nmax_rows = 9\n[tool.llm_magic.VLLMProvider]\ntimeout = 4\n"
    )
    with Kernel() as kernel:
        kernel.run(f"import os; os.chdir({str(tmp_path)!r})").check()
        kernel.run("%load_ext llm_magic").check()
        text = plain(kernel.run("%llm_config"))
    source = f"(project ({tmp_path / 'pyproject.toml'}))"
    assert f"LLMMagics.max_rows = 9 {source}" in text
    assert f"VLLMProvider.timeout = 4.0 {source}" in text


def test_what_is_wrong_with_the_project_is_said_above_all(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.llm_magic]\nmodle = 'x'\n")
    with Kernel() as kernel:
        kernel.run(f"import os; os.chdir({str(tmp_path)!r})").check()
        kernel.run("%load_ext llm_magic").check()
        text = plain(kernel.run("%llm_config"))
    assert "unknown setting modle.\nDid you mean model?" in text.partition("LLMMagics")[0]


def test_secrets_are_masked(kernel: Kernel) -> None:
    proxy = "http://me:top-secret@proxy:3128"
    ran = kernel.run(f'%llm_config OpenAIProvider.http_client_kwargs={{"proxy": "{proxy}"}}')
    assert plain(ran) == "OpenAIProvider.http_client_kwargs = {'proxy': 'http://proxy:3128'} (session)"
    shown = kernel.run("%llm_config")
    assert "top-secret" not in plain(shown) + html(shown)
    kernel.run("%llm_config OpenAIProvider.http_client_kwargs={}").check()


@pytest.mark.parametrize(
    "code", ["%llm_config OpenAIProvider.api_key_env={}", '%config OpenAIProvider.api_key_env = "{}"']
)
def test_a_key_that_was_refused_is_nowhere(kernel: Kernel, code: str) -> None:
    ran = kernel.run(code.format(KEY))
    assert "looks like a key itself" in ran.error + ran.stdout
    assert KEY not in str(ran.outputs)
    kernel.run("%llm_config openai.timeout=9").check()
    for command in ("%llm_config", "%llm_provider", "%llm_models openai:x", "%config OpenAIProvider"):
        assert KEY not in str(kernel.run(command).outputs)
    state = "(lambda r: repr((r.get('openai').api_key_env, r.layers['session'], r.config, r.get('openai').config)))"
    assert KEY not in kernel.value(f"{state}(get_ipython()._llm_magic.registry)")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("%llm_config modle", "There is no setting modle.\nDid you mean model"),
        ("%llm_config modle=3", "There is no setting modle.\nDid you mean model"),
        ("%llm_config nothing.like=3", "There is no setting nothing.like."),
        ("%llm_config OpenAIProvider.timeuot=3", "OpenAIProvider has no setting 'timeuot'.\nDid you mean timeout?"),
        ("%llm_config LLMMagics.history_turns=-1", "LLMMagics.history_turns does not take that value"),
        ("%llm_config LLMMagics.footer=perhaps", "expected a boolean"),
        (f"%llm_config OpenAIProvider.api_key={KEY}", "Keys do not stand in configuration"),
    ],
)
def test_what_is_wrong(kernel: Kernel, code: str, message: str) -> None:
    name, text = failed(kernel, code)
    assert name == "ConfigurationError"
    assert message in text
    assert KEY not in text
