import pytest

from llm_magic.errors import OptionError
from llm_magic.options import Options
from llm_magic.options.mapping import from_mapping


def test_the_nearer_options_win_and_pairs_add_up() -> None:
    near = Options(parameters={"temperature": 0.0}, param={"a": 1, "b": 2})
    far = Options(parameters={"temperature": 1.0, "max_tokens": 5}, param={"a": 9, "c": 3})
    merged = near.over(far)
    assert merged.parameters == {"temperature": 0.0, "max_tokens": 5}
    assert merged.param == {"a": 1, "b": 2, "c": 3}


def test_configured_options_are_read_as_the_line_is() -> None:
    options = from_mapping(
        {
            "max-tokens": 5,
            "temperature": "0.5",
            "stop": ["a", "b"],
            "as": int,
            "raw": True,
            "n": None,
            "param": {"min_p": 0.1},
        },
        "x",
    )
    assert options == Options(
        parameters={"max_tokens": 5, "temperature": 0.5, "stop": ("a", "b")},
        output_type=int,
        raw=True,
        param={"min_p": 0.1},
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": "warm"}, "LLMMagics.params: temperature must be a number, not 'warm'."),
        ({"temperature": True}, "LLMMagics.params: temperature must be a number, not True."),
        ({"raw": "yes"}, "LLMMagics.params: raw must be True or False, not 'yes'."),
        ({"header": "a=b"}, "LLMMagics.params: header must be a dict, not str."),
        ({"out": "x"}, "LLMMagics.params cannot set 'out'."),
    ],
)
def test_wrong_configuration_is_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        from_mapping(values, "LLMMagics.params")
    assert caught.value.message == message
