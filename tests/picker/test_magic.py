"""`%llm_picker` in a kernel: the panel as an output, the plain list, and what unloading leaves of them."""

import pytest
from kernels import Kernel
from servers import ScriptedServer, document

pytest.importorskip("ipywidgets", reason="needs ipywidgets")

MODELS = {"data": [{"id": "small", "max_model_len": 8192}, {"id": "large"}]}
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def box(kernel: Kernel) -> str:
    """Make a provider `box` in the kernel, and the only one that answers."""
    with ScriptedServer(document(MODELS)) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('box', base_url={server.url!r}, max_retries=0)").check()
        kernel.run("%config LLMMagics.model = 'box:small'").check()
        yield server.url


def test_the_panel_is_one_output(kernel: Kernel, box: str) -> None:
    ran = kernel.run("%llm_picker").check()
    (output,) = ran.outputs
    assert set(output["data"]) == {"text/plain", VIEW}
    assert output["data"]["text/plain"] == (
        "Model picker: box:small. It works in JupyterLab and Notebook while the kernel runs."
    )
    panels = "get_ipython()._llm_magic.picker._panels"
    assert kernel.value(f"{panels}[-1].provider.value") == "box"
    kernel.run("%config LLMMagics.model = 'box:large'").check()
    assert kernel.value(f"{panels}[-1]._force.name") == "box:large"


def test_words_search_the_list(kernel: Kernel, box: str) -> None:
    kernel.run("%llm_picker lar").check()
    assert kernel.value("get_ipython()._llm_magic.picker._panels[-1].search.value") == "lar"
    listed = "'Loading' not in get_ipython()._llm_magic.picker._panels[-1].status.value"
    kernel.run(f"import time\nwhile not ({listed}): time.sleep(0.01)").check()  # or its connection outlives the server


def test_the_plain_list(kernel: Kernel, box: str) -> None:
    lines = kernel.run("%llm_picker --list").check().stdout.splitlines()
    assert lines[:2] == ["   1  box:large", "*  2  box:small  (8,192 tokens)"]
    assert any(line.startswith("   azure: azure has no azure_endpoint") for line in lines)
    assert lines[-1] == (
        "In force: box:small. %llm_picker NUMBER changes it for this session, several NUMBERS compare."
    )
    assert kernel.run("%llm_picker 1").check().stdout == "LLMMagics.model = 'box:large'\n"
    assert kernel.value("get_ipython()._llm_magic.magics.model") == "box:large"
    assert kernel.run("%llm_picker 2, 1").check().stdout == "LLMMagics.model = 'box:small,box:large'\n"
    lines = kernel.run("%llm_picker --list").check().stdout.splitlines()
    assert [line[0] for line in lines[:2]] == ["*", "*"]
    assert lines[-1].startswith("In force: box:small, box:large. ")
    found = kernel.run("%llm_picker --list box sma").check().stdout.splitlines()
    assert found[0] == "*  1  box:small  (8,192 tokens)"
    assert len(found) == 2
    nothing = kernel.run("%llm_picker --list xyz").check().stdout.splitlines()
    assert nothing[0] == "No model's name holds 'xyz'."


def test_numbers_that_cannot_be_compared(kernel: Kernel, box: str) -> None:
    kernel.run("get_ipython()._llm_magic.registry.aliases = {'x,y': 'box:small'}").check()
    kernel.run("%llm_picker --list x").check()
    assert kernel.run("%llm_picker 3").check().stdout == "LLMMagics.model = 'x,y'\n"
    twice = kernel.run("%llm_picker 1 1")
    assert twice.error.splitlines()[0] == "box:large stands twice in 'box:large,box:large'."
    comma = kernel.run("%llm_picker 1 3")
    assert comma.error.splitlines()[0] == "The comma of 'x,y' would separate models."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%llm_picker 99", "There is no model number 99."),
        ("%llm_picker 1 0", "There is no model number 1."),
        ("%llm_picker --modle x", "%llm_picker has no option --modle."),
    ],
)
def test_what_is_wrong(kernel: Kernel, box: str, line: str, message: str) -> None:
    ran = kernel.run(line)
    assert (ran.error_name, ran.error.splitlines()[0]) == ("OptionError", message)


def test_help(kernel: Kernel) -> None:
    page = kernel.run("%llm_picker --help").check().stdout
    assert page.startswith("Pick the model and the parameters of all cells that name none.")
    assert max(map(len, page.splitlines())) <= 110


def test_loading_again_ends_the_panels_of_before(kernel: Kernel, box: str) -> None:
    kernel.run("%llm_picker").check()
    kernel.run("old = get_ipython()._llm_magic.picker._panels[-1]").check()
    kernel.run("%reload_ext llm_magic").check()
    assert kernel.value("old.try_it.disabled")
    assert "run %llm_picker again" in kernel.value("old.trouble.value")
    assert (
        kernel.value(
            "[f for f in get_ipython().events.callbacks['post_run_cell'] if 'llm_magic.picker' in f.__module__]"
        )
        == []
    )
    kernel.run("%llm_picker").check()
    kernel.run("%unload_ext llm_magic").check()
    assert kernel.value("'llm_picker' in get_ipython().magics_manager.magics['line']") is False
    kernel.run("%load_ext llm_magic").check()


def test_loading_imports_no_widgets() -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext llm_magic").check()
        assert kernel.value("'ipywidgets' in __import__('sys').modules") is False
