"""The prompt of a row: which names it has, what fails before anything is sent, and what is one row's failure."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image as Pictures

from llm_magic.config.settings import Settings
from llm_magic.errors import PromptError
from llm_magic.mapping.inputs.inputs import Inputs, read_inputs
from llm_magic.mapping.inputs.row_prompt import RowPrompt
from llm_magic.messages import Image, Text

LITERALLY = "Braces that are meant literally: --raw, or {% raw %}…{% endraw %} around them."
FRAME = pd.DataFrame({"text": ["good", "bad"], "stars": [5, 1], "my col": ["x", "y"]}, index=["a", "b"])


@pytest.fixture(autouse=True)
def _no_last_error() -> None:
    """Hide what pytest itself leaves in `sys` when a test fails."""
    sys.last_value = None


def prompt(
    template: str | Callable[[Any], Any], namespace: Mapping[str, Any] | None = None, **settings: Any
) -> RowPrompt:
    return RowPrompt(template, {"glossary": "G"} if namespace is None else namespace, Settings(**settings))


def texts(template: str | Callable[[Any], Any], value: Any, namespace: Mapping[str, Any] | None = None) -> list[str]:
    rendering = prompt(template, namespace)
    found = []
    for row in read_inputs(value):
        (part,) = rendering.render(row).parts
        assert isinstance(part, Text)
        found.append(part.text)
    return found


def checked(template: str, value: Any, namespace: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    return prompt(template, namespace).check(value if isinstance(value, Inputs) else read_inputs(value, "reviews"))


def refused(template: str, value: Any, namespace: Mapping[str, Any] | None = None) -> tuple[str, str]:
    with pytest.raises(PromptError) as caught:
        checked(template, value, namespace)
    return caught.value.message, caught.value.hint


def failed(template: str | Callable[[Any], Any], value: Any, namespace: Mapping[str, Any] | None = None) -> PromptError:
    with pytest.raises(PromptError) as caught:
        texts(template, value, namespace)
    return caught.value


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("Is this good? {{ text }}", "Is this good? good"),
        ("{{ row.text }}, {{ row['my col'] }}, {{ row['text'] }}", "good, x, good"),
        ("{{ item.text }} {{ index }} {{ stars + 1 }}", "good a 6"),
        ("{% for name, value in row.items() %}{{ name }}={{ value }};{% endfor %}", "text=good;stars=5;my col=x;"),
        ("{{ row | tojson }}", '{"text":"good","stars":5,"my col":"x"}'),
        ("{{ row }}", "{'text': 'good', 'stars': 5, 'my col': 'x'}"),
        ("{{ glossary }}: {{ text | upper }} {{ len(text) }}", "G: GOOD 4"),
        ("{% if stars > 3 %}{{ text }}{% else %}no{% endif %}", "good"),
        ("{{ note | default('none') }} {{ text }}", "none good"),
        ("{% raw %}{{ text }}{% endraw %} {{ text }}", "{{ text }} good"),
    ],
)
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "dicts"])
def test_what_a_template_can_say_of_a_row(template: str, first: str, library: str) -> None:
    columns = FRAME.to_dict("list")
    value = {
        "pandas": FRAME,
        "polars": pl.DataFrame(columns),
        "pyarrow": pl.DataFrame(columns).to_arrow(),
        "dicts": FRAME.to_dict("records"),
    }[library]
    assert checked(template, value) == ()
    assert texts(template, value)[0] == (first if library == "pandas" else first.replace(" a ", " 0 "))


def test_items_without_names() -> None:
    assert texts("{{ index }}: {{ item }}", ["a", 1, None, 2.5]) == ["0: a", "1: 1", "2: None", "3: 2.5"]
    assert texts("{{ index }}: {{ item[0] }}{{ row[1] }}", [("a", 1)]) == ["0: a1"]
    assert texts("{{ index }}: {{ item }}", {"x": "a"}) == ["x: a"]
    assert texts("{{ item }}", np.array([0.1], "float32")) == ["0.1"]


def test_a_text_of_a_row_is_no_template() -> None:
    hostile = ["{{ secret }}", "{% raw %}", "{% for x in y %}", "{{", "\0" + "0.0\0", "\ud800", "", "{#", "\r\n"]
    assert texts("a {{ item }}\r\nb", hostile, {"secret": "key"}) == [f"a {text}\r\nb" for text in hostile]
    assert texts("{{ text }}", [{"text": "{{ secret }}"}], {"secret": "key"}) == ["{{ secret }}"]


def test_a_row_is_over_the_notebook_and_that_over_builtins() -> None:
    namespace = {"text": "notebook's", "len": lambda _: "ours", "index": "i", "item": "it", "row": "r"}
    template = "{{ text }} {{ len(text) }} {{ max(1, 2) }} {{ index }}"
    assert texts(template, FRAME, namespace) == ["good ours 2 a", "bad ours 2 b"]
    assert checked(template, FRAME, namespace) == ("{{ text }} is that of reviews, not the notebook's variable.",)
    assert checked("{{ stars }}", FRAME, namespace) == ()
    assert texts("{{ range }} {{ error }}", [{"range": 1, "error": "e"}]) == ["1 e"]


def test_a_name_that_is_nowhere_fails_before_anything_is_sent() -> None:
    assert refused("Hello\n{{ txt }}", FRAME) == (
        "The prompt names 'txt' on line 2, column 4 of the prompt, but neither the rows nor the notebook have it.",
        "Did you mean text?",
    )
    assert refused("{{ text }} {{ glosary }}", FRAME)[1] == "Did you mean glossary?"
    message, hint = refused("{{ text }} {{ glosary }}", FRAME, {})
    assert message.endswith("'glosary' on line 1, column 15 of the prompt, but the rows do not have it.")
    assert (
        hint == f"The rows have text, stars and my col. {LITERALLY.replace('--raw, or ', '')}"
    )  # Python has no options
    assert refused("{% if text %}{{ zzz }}{% endif %}", FRAME)[0].startswith(
        "The prompt names 'zzz' on line 1, column 17"
    )
    assert refused("{{ zzz }}", ["a"])[1] == f"{{{{ item }}}} is the input, {{{{ index }}}} its label. {LITERALLY}"
    assert refused("{{ id }} {{ item }}", ["a"])[1].endswith("It is Python's own: {{ id(…) }} calls it.")
    assert refused("{{ error }} {{ item }}", ["a"])[1].endswith(
        "It stands for the last exception, and no cell has failed yet."
    )
    assert checked("{% if zzz is defined %}{{ zzz }}{% endif %}{{ yyy | default('') }}{{ text }}", FRAME) == ()


def test_columns_whose_names_are_no_names_of_a_template() -> None:
    frame = FRAME.rename(columns={"stars": "stars-given"})
    hint = 'Did you mean {{ row["stars-given"] }}?'
    assert refused("{{ stars-given }}", frame)[1] == hint
    assert refused("{{ stars_given }}", frame)[1] == hint
    assert texts("{{ row['stars-given'] }}", frame) == ["5", "1"]
    with pytest.raises(PromptError) as caught:
        prompt("{{ my col }}")
    assert caught.value.hint == 'A column of that name is {{ row["my col"] }}.'


@pytest.mark.parametrize(
    "template", ["{{ row.txt }}", "{{ row['txt'] }}", "{{ item.txt }}", "{% if row.txt %}x{% endif %}"]
)
def test_a_column_that_a_frame_has_not_fails_before_anything_is_sent(template: str) -> None:
    tag = template.partition("x{%")[0]
    assert refused(template, FRAME) == (
        f"{tag} on line 1, column 1 of the prompt: this row has no attribute or item 'txt'.",
        "Did you mean text?",
    )


def test_members_that_a_row_may_have() -> None:
    assert checked("{{ row.txt | default('') }}{{ row.get('txt', '') }}{{ row[text] is defined }}", FRAME) == ()
    assert checked("{{ row[0] }} {{ row['a', 'b'] }}", pd.DataFrame([[1, 2]], columns=[0, ("a", "b")])) == ()
    assert refused("{{ row[1] }}", pd.DataFrame([[1]]))[0].endswith("of the prompt: this row has no item 1.")
    assert checked("{{ item.text }} {{ text }}", pd.DataFrame({"item": [{"text": "a"}], "text": ["b"]})) == (
        "{{ item }} is the column of that name; the whole row is {{ row }}.",
    )
    error = failed("{{ row.txt }}", [{"text": "a"}])
    assert (
        error.message
        == "Row 0: {{ row.txt }} on line 1, column 1 of the prompt: this row has no attribute or item 'txt'."
    )


def test_a_dict_of_columns_is_told_how_to_be_a_frame() -> None:
    message, hint = refused("{{ text }}", {"text": ["a", "b"], "stars": [1, 2]})
    assert message.endswith("but neither the rows nor the notebook have it.")
    assert hint == "reviews has a row for each of its keys. For columns: pandas.DataFrame(reviews)"


def test_a_key_that_only_some_rows_have() -> None:
    rows = [{"text": "a"}, {"text": "b", "note": "n"}]
    assert checked("{{ text }} {{ note }}", rows) == ()
    error = failed("{{ text }} {{ note }}", rows)
    assert error.message == (
        "Row 0: The prompt names 'note' on line 1, column 12 of the prompt, "
        "but neither this row nor the notebook has it."
    )
    assert texts("{{ note | default('-') }}", rows) == ["-", "n"]
    assert refused("{{ note }}", iter(rows))[0].endswith("but neither the rows nor the notebook have it.")


@pytest.mark.parametrize("template", ["Tell me a joke.", "{{ glossary }}", "{{ 1 + 1 }} {{ len('a') }}"])
def test_a_prompt_that_is_the_same_for_all_rows(template: str) -> None:
    assert refused(template, FRAME) == (
        "The prompt names nothing of the rows: all 2 rows of reviews would ask the same.",
        "Name what differs: {{ text }}, {{ stars }} and {{ item }}.",
    )
    assert checked(template, FRAME[:1]) == ()
    assert checked(template, FRAME[:0]) == ()
    assert refused(template, iter("ab")) == (
        "The prompt names nothing of the rows: all rows of reviews would ask the same.",
        "Name what differs: {{ item }}.",
    )
    assert prompt(template).check(read_inputs(FRAME), may_be_the_same=True) == ()


def test_single_braces_and_raw() -> None:
    assert refused("Is this good? {text}", FRAME)[1] == "{text} is sent as it is: did you mean {{ text }}?"
    assert checked("{{ text }} {stars}", FRAME) == ("{stars} is sent as it is: did you mean {{ stars }}?",)
    raw = RowPrompt("{{ text }} {stars}", {}, Settings(), raw=True)
    with pytest.raises(PromptError) as caught:
        raw.check(read_inputs(FRAME, "reviews"))
    assert caught.value.hint == "--raw sends the text as it is; without it, {{ … }} is what differs."
    assert raw.check(read_inputs(FRAME), may_be_the_same=True) == ()
    assert raw.render(next(iter(read_inputs(FRAME)))).parts == (Text("{{ text }} {stars}"),)


def test_columns_with_names_of_the_language() -> None:
    frame = pd.DataFrame({"item": ["tea"], "row": ["r"], "index": ["i"], "None": ["n"], "self": ["s"], "a": [1]})
    template = "{{ item }} {{ row.row }} {{ index }} {{ row['index'] }} {{ row['None'] }} {{ row['self'] }} {{ row.a }}"
    assert texts(template, frame) == ["tea r 0 i n s 1"]
    assert checked("{{ item }} {{ row.a }} {{ index }} {{ None }}", frame) == (
        "{{ item }} is the column of that name; the whole row is {{ row }}.",
        '{{ row }} is the whole row; the column of that name is {{ row["row"] }}.',
        '{{ index }} is the row\'s label; the column of that name is {{ row["index"] }}.',
        'None is a word of the template\'s language; the column is {{ row["None"] }}.',
    )


def test_fields_with_names_of_the_language() -> None:
    assert checked("{{ index }} {{ self }} {{ item }}", [{"index": "i", "self": "s", "item": "tea"}]) == (
        '{{ index }} is the row\'s label; the field of that name is {{ row["index"] }}.',
        "{{ item }} is the field of that name; the whole row is {{ row }}.",
        'self is a word of the template\'s language; the field is {{ row["self"] }}.',
    )


@pytest.mark.parametrize("empty", [[], iter([]), {}, np.array([]), pd.Series([], dtype="str"), FRAME[:0]])
def test_without_rows_nothing_is_missing(empty: Any) -> None:
    assert checked("{{ text }}", empty) == ()


def test_a_frame_without_the_column_is_wrong_without_rows_too() -> None:
    assert refused("{{ txt }}", FRAME[:0])[1] == "Did you mean text?"


def test_rows_without_a_value_are_said_before() -> None:
    frame = pd.DataFrame({"text": ["a", None, None], "stars": [1, np.nan, 3.0]})
    said = "2 of 3 rows have no value for {{ text }}: the prompt says None there."
    assert checked("{{ text }}", frame) == (said,)
    assert checked("{{ text }} {{ stars }}", frame) == (
        said,
        "1 of 3 rows has no value for {{ stars }}: the prompt says None there.",
    )
    assert checked("{{ text or '' }}{% if stars %}{{ stars }}{% endif %}", frame) == ()
    assert checked("{{ item }}", ["a", None]) == (
        "1 of 2 rows has no value for {{ item }}: the prompt says None there.",
    )
    assert texts("{{ text }} {{ stars }}", frame) == ["a 1.0", "None None", "None 3.0"]


def test_dates_and_decimals_are_as_in_a_table() -> None:
    frame = pd.DataFrame(
        {"when": pd.to_datetime(["2024-01-02"]), "took": pd.to_timedelta(["1D"]), "m": [Decimal("1.50")]}
    )
    assert texts("{{ when }}, {{ took }}, {{ m }}", frame) == ["2024-01-02 00:00:00, 1 days 00:00:00, 1.50"]
    polars = pl.DataFrame({"day": [date(2024, 1, 2)], "at": [time(9, 30)]})
    assert texts("{{ day }} {{ at }}", polars) == ["2024-01-02 09:30:00"]


def test_two_columns_of_one_name() -> None:
    frame = pd.DataFrame([["a", "b", 1]], columns=["text", "text", "stars"])
    assert refused("{{ text }}", frame) == (
        "The prompt names 'text', and 2 columns of reviews are called so.",
        "Give one of them another name.",
    )
    assert checked("{{ stars }}", frame) == ()


def test_a_row_that_fails_fails_alone() -> None:
    frame = pd.DataFrame({"n": [2, 0, 1]}, index=["a", "b", "c"])
    template = prompt("{{ 1 / n }}")
    inputs = read_inputs(frame)
    template.check(inputs)
    outcomes: list[Any] = []
    for row in inputs:
        try:
            outcomes.append(template.render(row).parts)
        except PromptError as error:
            outcomes.append((error.message, type(error.__cause__)))
    assert outcomes == [
        (Text("0.5"),),
        (
            "Row 1 ('b'): {{ 1 / n }} failed on line 1, column 1 of the prompt: ZeroDivisionError: division by zero",
            ZeroDivisionError,
        ),
        (Text("1.0"),),
    ]
    assert failed("{{ item / 1 }}", [1] * 1_733 + ["x"]).message.startswith("Row 1,733: {{ item / 1 }} failed on")


def test_labels_that_cannot_be_said() -> None:
    class Label:
        def __repr__(self) -> str:
            raise RuntimeError

    assert failed("{{ 1 / item }}", {Label(): 0}).message.startswith("Row 0: {{ 1 / item }} failed")
    assert failed("{{ 1 / item }}", {"x" * 99: 0}).message.startswith(
        f"Row 0 ('{'x' * 59}…): {{{{ 1 / item }}}} failed"
    )


def test_values_that_lie() -> None:
    class Liar:
        def __getattr__(self, name: str) -> Any:
            raise OSError(name)

    assert failed("{{ item.text }}", [Liar()]).message.endswith("of the prompt: OSError: text")


def test_images_in_rows() -> None:
    pictures = [Pictures.new("RGB", (size, size)) for size in (2, 3)]
    template = prompt("What is this? {{ picture }} It is named {{ name }}.")
    inputs = read_inputs(pd.DataFrame({"picture": pd.Series(pictures, dtype="object"), "name": ["a", "b"]}))
    assert template.check(inputs) == ()
    for row, name in zip(inputs, "ab", strict=True):
        before, image, after = template.render(row).parts
        assert (before, after) == (Text("What is this? "), Text(f" It is named {name}."))
        assert isinstance(image, Image)
    (image,) = prompt("{{ item }}").render(next(iter(read_inputs(pictures)))).parts
    assert isinstance(image, Image)


def test_a_variable_of_the_notebook_is_shown_once_for_all_rows() -> None:
    class Counted:
        count = 0

        def _repr_markdown_(self) -> str:
            self.count += 1
            return f"shown {self.count}"

    counted = Counted()
    assert texts("{{ counted }} {{ item }}", ["a", "b"], {"counted": counted}) == ["shown 1 a", "shown 1 b"]
    assert texts("{{ item }}", [counted, counted]) == ["shown 2", "shown 3"]


def test_variables_are_taken_when_the_prompt_is_made() -> None:
    namespace = {"glossary": "G"}
    template = prompt("{{ glossary }} {{ item }}", namespace)
    namespace["glossary"] = "changed"
    assert template.render(next(iter(read_inputs(["a"])))).parts == (Text("G a"),)
    assert template.used_names == {"glossary", "item"}


def test_a_prompt_travels_with_the_variables_that_it_names() -> None:
    template = prompt("{{ glossary }} {{ item }}", {"glossary": "G", "lock": threading.Lock()})
    travelled = pickle.loads(pickle.dumps(template))  # noqa: S301 - our own
    assert travelled.render(next(iter(read_inputs(["a"])))).parts == (Text("G a"),)


def test_a_generator_of_the_notebook_would_be_empty_for_the_second_row() -> None:
    examples: Iterator[int] = iter([1])
    assert refused("{% for e in examples %}{{ e }}{% endfor %}{{ item }}", ["a", "b"], {"examples": examples}) == (
        "'examples' is a list_iterator: the first row would leave nothing of it for the others.",
        "Make a list of it first: examples = list(examples)",
    )


def test_cuts_are_said_once() -> None:
    template = prompt("{{ item }} {{ item }}", max_value_chars=1_000)
    parts = [template.render(row).parts for row in read_inputs(["x" * 1_001, "short", "y" * 2_000, "z" * 3_000])]
    assert parts[1] == (Text("short short"),)
    assert parts[0] == (Text(" ".join([f"{'x' * 1_000}\n… [cut: the first 1,000 of 1,001 characters]"] * 2)),)
    (note,) = template.notes
    assert note == (
        "{{ item }}: the first 1,000 of 1,001 characters are in the prompt (LLMMagics.max_value_chars). "
        "So it is in 2 more rows."
    )
    assert all(template.render(row).notes == () for row in read_inputs(["x" * 1_001]))


def test_a_function_as_the_prompt() -> None:
    def ask(row: Any) -> str:
        return f"Is {row['text']} good?"

    assert texts(ask, FRAME) == ["Is good good?", "Is bad good?"]
    assert texts(str.upper, ["a"]) == ["A"]
    assert prompt(ask).check(read_inputs(FRAME)) == ()
    picture = Pictures.new("RGB", (2, 2))
    text, image = prompt(lambda item: ["What?", item]).render(next(iter(read_inputs([picture])))).parts
    assert (text, type(image)) == (Text("What?"), Image)
    error = failed(ask, ["a"])
    assert (
        error.message
        == "Row 0: the function of the prompt raised TypeError: string indices must be integers, not 'str'"
    )
    assert failed(lambda item: {"role": item}, ["a"]).message == "Row 0: the function of the prompt returned dict."

    async def later(row: Any) -> str:
        return str(row)

    with pytest.raises(PromptError, match="asynchronous"):
        prompt(later)


def test_a_template_that_does_not_parse_fails_at_once() -> None:
    with pytest.raises(PromptError, match="does not parse, line 1, column 11 of the prompt"):
        prompt("{{ item }}{{ ")
