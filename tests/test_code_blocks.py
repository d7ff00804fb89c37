import pytest

from llm_magic.code_blocks import Snippet, snippet


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\nx = 1\n```", Snippet("x = 1")),
        ("Text\n\n~~~python\n%matplotlib inline\nx = !ls\n~~~\n", Snippet("%matplotlib inline\nx = !ls")),
        ("- a list\n\n  ```python\n  x = 1\n  ```\n", Snippet("x = 1")),
        ("```python\nx\n```\n```bash\nls\n```", Snippet("x", ("Left out: code in bash.",))),
        ("```python\nx =\n```", Snippet("x =", ("The code is not valid Python: line 1: invalid syntax.",))),
        ("```pycon\n>>> x = 1\n>>> for i in x:\n...     pass\n1\n```", Snippet("x = 1\nfor i in x:\n    pass")),
        ("````markdown\n```python\nx\n```\n````", Snippet("%%markdown\n```python\nx\n```")),
        ("```html\n<b>\n```\n```html\n<i>\n```", Snippet("%%html\n<b>", ("Only the first of 2 blocks is taken.",))),
        (
            "```rust\nfn main() {}\n```",
            Snippet("", ("The answer's code is rust, which a cell cannot run; copy it from above.",)),
        ),
        ("x = 1\nprint(x)\n", Snippet("x = 1\nprint(x)")),
        ("I cannot do that.", Snippet("", ("The answer has no code.",))),
        ("", Snippet("", ("The answer has no code.",))),
        ("```python\nx = 1", Snippet("x = 1")),
    ],
)
def test_snippet(text: str, expected: Snippet) -> None:
    assert snippet(text) == expected
