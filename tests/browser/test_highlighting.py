"""The editor of a `%%llm` cell in JupyterLab and Notebook: Markdown with Jinja; other cells stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_magic

BUILT = Path(llm_magic.__path__[0]) / "labextension"
pytestmark = pytest.mark.skipif(
    not (BUILT / "sources.sha256").is_file(),
    reason="needs the front-end extension: with npm there, pip install builds it",
)
THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}  # in this order: the front end keeps the last

PROMPT = """# what follows asks a model
%%llm --as "list[str]" -t 0.5
# About {{ name }}
a **bold** and an *easy* word, `code`; $5 or $6
{# not sent #}
{% for row in rows if row.price > 3 %}
- {{ row["title"] | upper }}
{% endfor %}
```python
def f(x): return {{ value }}  # so
```
{% raw %}{{ no tag }}{% endraw %} {{{ braces }}} {{ {'a': {}} }} {{ open"""
BASH = "%%bash\n# no heading {{ name }}\nfor x in 1 2; do echo $x; done"
TIMEIT = "%%timeit\n# no heading\nx = {'a': 1}"
PYTHON = "# no heading\ndef f(x): return '**no**'"
EMBED = "%%llm_embed -o v\n# no heading\nfor"
EMPTY = ""
OTHERS = {2: BASH, 3: TIMEIT, 4: PYTHON, 5: EMBED}
CELLS = [
    "%load_ext llm_magic\nquantity = 3",
    PROMPT,
    BASH,
    TIMEIT,
    PYTHON,
    EMBED,
    EMPTY,
]  # numbered from 1, after that of `Page`
PROMPT_CELL, TYPED = 2, 7
OF_NOTEBOOK_ITSELF = ("'schema'", "Command 'filebrowser:open-path' not registered")  # 7.6's faults at its start

# What is coloured, bold or italic in an editor: each text with the names of the colours that it may have.
TOKENS = """number => {
    const names = ['keyword', 'header', 'string', 'string-2', 'comment', 'variable-2', 'builtin', 'property',
        'number', 'atom', 'operator', 'attribute', 'def', 'meta', 'quote', 'link', 'bracket', 'punctuation'];
    const content = cellAt(number).editor.editor.contentDOM;
    const probe = content.appendChild(document.createElement('span'));
    const colours = names.map(name => {
        probe.style.color = `var(--jp-mirror-editor-${name}-color)`;
        return [name, getComputedStyle(probe).color];
    });
    probe.remove();
    const found = [];
    const walker = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const style = getComputedStyle(walker.currentNode.parentElement);
        const line = walker.currentNode.parentElement.classList.contains('cm-line');
        found.push([
            walker.currentNode.data,
            line ? [] : colours.filter(([_, colour]) => colour === style.color).map(([name]) => name),
            Number(style.fontWeight) > 500, style.fontStyle === 'italic',
        ]);
    }
    return found;
}"""
LANGUAGE = "number => cellAt(number).editor.editor.contentDOM.dataset.language"
TEXT = "number => cellAt(number).model.sharedModel.getSource()"
MARKUP = "number => cellAt(number).editor.editor.contentDOM.innerHTML"
SET = """([number, text]) => {
    const cell = cellAt(number);
    cell.model.sharedModel.setSource(text);
    return cell.editor.editor.contentDOM.dataset.language;
}"""

EXPECTED = [  # a text, its colour, whether it is bold, whether it is italic
    ("# what follows asks a model", "comment", False, True),
    ("%%llm", "keyword", True, False),
    ("--as", "attribute", False, False),
    ('"list[str]"', "string", False, False),
    ("-t", "attribute", False, False),
    ("0.5", "number", False, False),
    (" About ", "header", True, False),
    ("{{", "string-2", False, False),
    ("name", "variable-2", False, False),
    ("}}", "string-2", False, False),
    ("bold", None, True, False),
    ("easy", None, False, True),
    ("code", "string-2", False, False),
    ("{# not sent #}", "comment", False, True),
    ("for", "keyword", True, False),
    ("row", "variable-2", False, False),
    ("in", "keyword", True, False),
    ("rows", "variable-2", False, False),
    ("if", "keyword", True, False),
    (".", "punctuation", False, False),
    ("price", "property", False, False),
    (">", "operator", True, False),
    ("3", "number", False, False),
    ('"title"', "string", False, False),
    ("|", "operator", True, False),
    ("upper", "builtin", False, False),
    ("endfor", "keyword", True, False),
    ("python", "string-2", False, False),
    ("def", "keyword", True, False),
    ("return", "keyword", True, False),
    ("value", "variable-2", False, False),
    ("# so", "comment", False, True),
    ("raw", "keyword", True, False),
    ("endraw", "keyword", True, False),
    ("braces", "variable-2", False, False),
    ("'a'", "string", False, False),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for notebooks, in whose `.home` the extension is as it was built here."""
    root = tmp_path_factory.mktemp("highlighting")
    shared = root / ".home" / "jupyter" / "labextensions"
    shared.mkdir(parents=True)
    (shared / "llm-magic").symlink_to(BUILT, target_is_directory=True)
    return root


@pytest.fixture(scope="module")
def url(root: Path, browser: Any) -> Iterator[str]:
    """Return the URL of one server for both front ends."""
    import lab

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(root / ".home" / "jupyter"))
        with lab.server(root) as url:
            yield url


@pytest.fixture(scope="module", params=["lab", "notebook"])
def page(request: pytest.FixtureRequest, browser: Any, url: str, root: Path) -> Iterator[Any]:
    """Return a notebook in a front end that has the extension."""
    import lab

    if request.param == "notebook":
        pytest.importorskip("notebook", reason="needs Notebook 7: the extra `demo`")
    with lab.Page(browser, url, root, CELLS, app=request.param) as page:
        page.app = request.param
        page.page.evaluate("window.cellAt = number => jupyterapp.shell.currentWidget.content.widgets[number]")
        page.run(1)
        page.page.wait_for_function(f"({LANGUAGE})({PROMPT_CELL}) === 'llm'")
        yield page


def tokens(page: Any, number: int) -> list[tuple[str, list[str], bool, bool]]:
    return [tuple(token) for token in page.page.evaluate(TOKENS, number)]


def edit(page: Any, number: int, text: str) -> None:
    """Give a cell a text, and put the cursor at its end, as a click there would."""
    page.page.evaluate(SET, [number, text])
    page.page.evaluate(
        """number => {
            const notebook = jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = number;
            notebook.mode = 'edit';
            const view = notebook.widgets[number].editor.editor;
            view.focus();
            view.dispatch({selection: {anchor: view.state.doc.length}});
        }""",
        number,
    )


def press_until(page: Any, keys: str, text: str) -> None:
    """Press keys until a cell has a text: how many edits are one step depends on how quickly they were made."""
    for _ in range(20):
        page.page.keyboard.press(keys)
        if page.page.evaluate(TEXT, TYPED) == text:
            return
    pytest.fail(f"{keys} does not lead to {text!r}")


@pytest.mark.parametrize("theme", THEMES)
def test_a_prompt_is_markdown_with_jinja(page: Any, pictures: Path, theme: str) -> None:
    page.command("apputils:change-theme", {"theme": THEMES[theme]})
    page.page.wait_for_function(f"document.body.dataset.jpThemeName === '{THEMES[theme]}'")
    page.page.wait_for_function(  # the parser of the fenced code is loaded when it is first seen
        f"({TOKENS})({PROMPT_CELL}).some(([text]) => text === 'def')"
    )
    seen = tokens(page, PROMPT_CELL)
    page.page.wait_for_selector("#jupyterlab-splash", state="detached")  # shown while a theme is loaded
    page.page.screenshot(path=pictures / f"highlighting-{page.app}-{theme}.png")
    assert "".join(text for text, *_ in seen) == PROMPT.replace("\n", "")
    at = 0  # in order: each of these comes after the one before
    for text, colour, bold, italic in EXPECTED:
        while at < len(seen) and seen[at][0].strip() != text.strip():
            at += 1
        assert at < len(seen), f"{text!r} is no token, or not where it should be, in {seen}"
        assert seen[at][2:] == (bold, italic), seen[at]
        assert (colour in seen[at][1]) if colour else not seen[at][1], seen[at]
    plain = {text for text, colours, bold, italic in seen if not colours and not bold and not italic}
    assert {"; $5 or $6", "{{ no tag }}"} <= plain
    assert any(text.endswith(" {{ open") for text in plain)


def test_other_cells_are_left_alone(page: Any) -> None:
    assert {number + 1: page.page.evaluate(LANGUAGE, number + 1) for number in OTHERS} == {
        number + 1: "python" for number in OTHERS
    }
    for number, text in OTHERS.items():
        comment = next(line for line in text.splitlines() if line.startswith("#"))
        [seen] = [token for token in tokens(page, number + 1) if token[0] == comment]
        assert "comment" in seen[1]
        assert seen[3]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("%%llm", "llm"),
        ("%%llm\n", "llm"),
        ("%%llm\t-t 0\nx", "llm"),
        ("\n\n  %%llm -t 0\nx", "llm"),
        ("# one\n  # two\n\n%%llm\nx", "llm"),
        ("x = 1\n%%llm\nx", "python"),
        ("%%llm_embed\nx", "python"),
        ("%%llms\nx", "python"),
        ("# %%llm\nx", "python"),
        ("%llm x", "python"),
        ("%%llm-x", "python"),
        pytest.param("%%llm\n" + "{{ x }}" * 20_000, "python", id="too long to be read at each key"),
        ("'''\n%%llm\n'''", "python"),
    ],
)
def test_what_a_prompt_is(page: Any, text: str, language: str) -> None:
    assert page.page.evaluate(SET, [TYPED, text]) == language  # as one who shares the notebook would change it


def test_typing_the_magic_switches_at_once_and_back(page: Any) -> None:
    edit(page, TYPED, "x = 1")
    before = page.page.evaluate(MARKUP, TYPED)
    page.page.evaluate(f"cellAt({TYPED}).model.sharedModel.undoManager.stopCapturing()")
    keyboard = page.page.keyboard
    keyboard.press("Home")
    for character in "%%llm":
        assert page.page.evaluate(LANGUAGE, TYPED) == "python"
        keyboard.type(character)
        if character != "m":
            continue
        assert page.page.evaluate(LANGUAGE, TYPED) == "python"  # for `%%llmx` is no magic of ours
        keyboard.press("Enter")
    assert page.page.evaluate(LANGUAGE, TYPED) == "llm"
    keyboard.type("# Title")
    keyboard.press("Enter")
    assert page.page.evaluate(TEXT, TYPED) == "%%llm\n# Title\nx = 1"
    assert any("Title" in text and "header" in colours for text, colours, *_ in tokens(page, TYPED))
    press_until(page, "Control+z", "x = 1")
    assert page.page.evaluate(MARKUP, TYPED) == before
    press_until(page, "Control+Shift+z", "%%llm\n# Title\nx = 1")
    assert page.page.evaluate(LANGUAGE, TYPED) == "llm"
    keyboard.press("Control+Home")
    keyboard.press("Delete")
    assert page.page.evaluate(LANGUAGE, TYPED) == "python"


def test_one_types_prompts_as_text(page: Any) -> None:
    keyboard = page.page.keyboard
    edit(page, TYPED, "%%llm\nWrite this:")
    keyboard.press("Enter")  # in Python, what follows a colon would be indented
    keyboard.type("  it's a (b")
    keyboard.press("Enter")
    keyboard.type("so")
    assert page.page.evaluate(TEXT, TYPED) == "%%llm\nWrite this:\n  it's a (b\n  so"
    keyboard.press("Shift+Home")
    keyboard.press("Control+/")
    assert page.page.evaluate(TEXT, TYPED) == "%%llm\nWrite this:\n  it's a (b\n  {# so #}"
    keyboard.press("Control+/")
    assert page.page.evaluate(TEXT, TYPED) == "%%llm\nWrite this:\n  it's a (b\n  so"


@pytest.mark.parametrize(
    ("text", "whole"),
    [("%%llm --max-tok", "%%llm --max-tokens"), ("%%llm\nAbout {{ quanti", "%%llm\nAbout {{ quantity")],
)
def test_the_kernel_completes_options_and_names(page: Any, text: str, whole: str) -> None:
    edit(page, TYPED, text[:-1])
    page.page.keyboard.type(text[-1])
    page.page.keyboard.press("Tab")
    shown = "document.querySelector('.jp-Completer:not(.lm-mod-hidden) .jp-Completer-item')"
    page.page.wait_for_function(f"whole => ({TEXT})({TYPED}) === whole || {shown}", arg=whole, timeout=10_000)
    if page.page.evaluate(TEXT, TYPED) != whole:
        page.page.keyboard.press("Enter")
        page.page.wait_for_function(f"whole => ({TEXT})({TYPED}) === whole", arg=whole, timeout=10_000)


def test_shift_enter_runs_it(page: Any) -> None:
    edit(page, TYPED, "%%llm --help\n")
    page.page.keyboard.press("Shift+Enter")
    page.page.wait_for_function(
        f"document.querySelectorAll('.jp-Notebook .jp-Cell')[{TYPED}].innerText.includes('--max-tokens')"
    )
    assert page.page.evaluate(LANGUAGE, TYPED) == "llm"
    assert [fault for fault in page.faults if not any(part in fault for part in OF_NOTEBOOK_ITSELF)] == []
