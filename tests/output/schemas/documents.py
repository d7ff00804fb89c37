"""Random JSON documents and schemas, small enough that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "yes"]) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "value"]), inner, max_size=2)
    ),
    max_leaves=6,
)
NODES = st.recursive(
    st.sampled_from(
        [
            {"type": "integer"}, {"type": "string"}, {"minimum": 1},
            {"maxLength": 1}, {"const": 1},
            {"enum": ["a", True]},
            {"type": ["integer", "null"]}, {"not": {"type": "object"}}, {"required": ["a"]}, {"maxProperties": 0},
            {"uniqueItems": True}, {"multipleOf": 2}, {"items": {"type": "integer"}}, {},
        ]
    ),
    lambda inner: (
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from(["a", "value"]), inner, max_size=2)})
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"properties": st.fixed_dictionaries({"a": inner}), "additionalProperties": inner})
    ),
    max_leaves=4,
)  # fmt: skip
