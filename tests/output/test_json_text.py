"""The value so far of a JSON text that is being written: the same however the text is cut, and cheap."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.output.json_text import PartialJSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(
    JSON.filter(lambda value: isinstance(value, (dict, list, str))), st.booleans(), st.randoms(use_true_random=False)
)
@settings(max_examples=300, deadline=None)
def test_the_whole_document_arrives_however_it_is_cut(document: Any, ascii_only: bool, rng: random.Random) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=rng.choice([None, 1]))
    partial = PartialJSON()
    at = 0
    while at < len(text):
        step = rng.randint(1, 7)
        partial.feed(text[at : at + step])
        if rng.random() < 0.7:
            partial.value  # noqa: B018 - reading is what advances it
        at += step
    assert partial.value == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ('{"a', {}),
        ('{"a":', {}),
        ('{"a": "b', {"a": "b"}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b\\u00', {"a": "b"}),
        ('{"a": "\\ud83d', {"a": ""}),
        ('{"a": "\\ud83d\\ude00', {"a": "\U0001f600"}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": tru', {}),
        ('[1, [2, {"b": [', [1, [2, {"b": []}]]),
        ('```json\n{"a": 1', {}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is: {"a": "x', {"a": "x"}),
        ("no JSON at all", None),
        ('{"a": 1} and more {"b": 2}', {"a": 1}),
        ('{"a": oops, "b": 1}', {}),
        ('"text', "text"),
        ('{"a": 1, "b\ud800": 2, "c', {"a": 1, "b?": 2}),
        ('{"a": "b",\n"c": d', {"a": "b"}),
    ],
)
def test_the_value_so_far(text: str, value: Any) -> None:
    whole, single = PartialJSON(), PartialJSON()
    whole.feed(text)
    for character in text:
        single.feed(character)
        single.value  # noqa: B018 - reading is what advances it
    assert whole.value == value
    assert single.value == value


def test_deep_nesting_ends_quietly() -> None:
    partial = PartialJSON()
    for _ in range(100):
        partial.feed("[" * 1000)
        assert isinstance(partial.value, list)


def test_a_megabyte_is_not_read_again_and_again() -> None:
    """20 repaints a second over 50 s are 1000; at most 10% of a core is 5 s for them. Far less is needed."""
    records = [
        {"name": f"city {n} \u00e9", "people": n, "tags": ["a", None, True], "geo": {"lat": 1.5}} for n in range(14_000)
    ]
    text = json.dumps(records)
    assert len(text) > 1_000_000
    partial = PartialJSON()
    started = time.process_time()
    step = len(text) // 20_000
    for number, at in enumerate(range(0, len(text), step)):
        partial.feed(text[at : at + step])
        if number % 20 == 0:
            partial.value  # noqa: B018 - reading is what advances it
    assert partial.value == records
    assert time.process_time() - started < 1.0
