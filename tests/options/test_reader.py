import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import OptionError
from llm_magic.options import BY_FLAG, OPTIONS, Option
from llm_magic.options.reader import Line, help_text, parse, read, words


def texts(line: str) -> list[str]:
    return [word.text for word in words(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('--as "list[City]"', ["--as", "list[City]"]),
        ('--as Literal["yes", "no"] -t 0', ["--as", 'Literal["yes", "no"]', "-t", "0"]),
        ("--as dict[str, int]", ["--as", "dict[str, int]"]),
        (r'--regex "\d+\"x"', ["--regex", r'\d+"x']),
        ("--regex [^'x]+ -t 0", ["--regex", "[^'x]+", "-t", "0"]),
        ("--regex :( -t 0", ["--regex", ":(", "-t", "0"]),
        ('-p stop=["a b", "c"]', ["-p", 'stop=["a b", "c"]']),
        ("-p '{\"a\": 1}'", ["-p", '{"a": 1}']),
        ('--system="Be brief."', ["--system=Be brief."]),
        ("-s it's", ["-s", "it's"]),
        ("   ", []),
    ],
)
def test_words(line: str, expected: list[str]) -> None:
    assert texts(line) == expected


@given(st.lists(st.text(st.characters(exclude_characters="'\\", exclude_categories=["Cc", "Cs"]), min_size=1)))
def test_quoted_words_arrive_as_they_are(values: list[str]) -> None:
    assert texts(" ".join(f"'{value}'" for value in values)) == values


def test_every_option_is_read() -> None:
    options, rest = parse(
        "-m local -o answer --as int -t 0.5 --top-p 0.9 --max-tokens 40 --seed -1 --stop a --stop \\n "
        "--presence-penalty -1 --frequency-penalty 2 --n 3 --logprobs 0 --reasoning-effort low "
        '-p min_p=0.1 -p name=x --header A=b -s "Be brief." -i a.png -i b --raw -c other --once '
        "--tools f,g --tool-choice f --max-tool-rounds 2 --confirm --code -b --no-stream --show text --dry-run "
        "--base-url http://x/v1 --api chat --timeout 3 --retries 0 --retries-invalid 2"
    )
    assert rest == ""
    assert (options.model, options.out, options.output_type) == ("local", "answer", "int")
    assert options.parameters == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 40, "seed": -1, "stop": ("a", "\n"), "presence_penalty": -1,
        "frequency_penalty": 2, "n": 3, "logprobs": 0, "reasoning_effort": "low",
    }  # fmt: skip
    assert options.param == {"min_p": 0.1, "name": "x"}
    assert options.header == {"A": "b"}
    assert (options.system, options.image) == ("Be brief.", ("a.png", "b"))
    assert options.raw is options.once is options.confirm is options.code is options.background is True
    assert options.no_stream is options.dry_run is True
    assert (options.chat, options.tools, options.tool_choice, options.max_tool_rounds) == ("other", ("f", "g"), "f", 2)
    assert (options.show, options.base_url, options.api) == ("text", "http://x/v1", "chat")
    assert (options.timeout, options.retries, options.retries_invalid) == (3, 0, 2)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--modle x", "%%llm has no option --modle.", "Did you mean --model"),
        ("--stop", "--stop needs a value: --stop TEXT.", "End before this text"),
        ("-o -t 0", "-o needs a value: -o NAME.", "Variable to bind"),
        ("-t warm", "-t takes a number, not 'warm'.", "--temperature T"),
        ("-t -1", "-t takes a number of at least 0, not '-1'.", ""),
        ("-t nan", "-t takes a number of at least 0, not 'nan'.", ""),
        ("--n 0", "--n takes a whole number of at least 1, not '0'.", ""),
        ("-o 1x", "-o takes the name of a variable, not '1x'.", ""),
        ("-o class", "-o takes the name of a variable, not 'class'.", ""),
        ("--show pretty", "--show takes one of markdown, text, code, json, none, not 'pretty'.", ""),
        ("--raw=yes", "--raw takes no value.", "Write --raw alone."),
        ("-c a -c b", "-c is given twice.", "Keep one of them."),
        (
            "hello",
            "%%llm does not know what to do with 'hello' on its first line.",
            "The prompt goes on the lines below",
        ),
        ("--header Authorization", "--header takes NAME=VALUE.", ""),
        ("--header 'a b=c'", "--header takes NAME=VALUE, the name of letters", ""),
        ("--header a=ü", "--header takes NAME=VALUE, the value of printable", ""),
        ("--base-url ftp://x", "--base-url takes a URL that starts with http", ""),
        ("--base-url http://u:p@x", "--base-url takes a URL without user name", ""),
        ("--choices a,,b", "--choices takes a list with commas and no empty item", ""),
    ],
)
def test_what_is_wrong_is_said(line: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(line)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("What's up?", "What's up?"),
        ("-t 0 What's {this}  up?", "What's {this}  up?"),
        ("-- -1 or 1?", "-1 or 1?"),
        ('"quoted" prompt', '"quoted" prompt'),
        ("", ""),
    ],
)
def test_a_prompt_follows_the_options_of_a_line(line: str, prompt: str) -> None:
    assert parse(line, magic="%llm", prompt=True)[1] == prompt


def test_only_bare_values_are_expanded() -> None:
    options, _ = parse("-m $name -s '$name' --regex=$name", expand=lambda text: text.replace("$name", "value"))
    assert (options.model, options.system, options.regex) == ("value", "$name", "value")


def test_help_names_every_flag() -> None:
    page = help_text()
    assert all(flag in page for option in OPTIONS for flag in option.flags)


MODEL_HELP = "An alias, provider:model, or a name that a route knows; a,b asks several side by side."

SOME = {
    flag: option
    for option in (
        BY_FLAG["--model"],
        BY_FLAG["--chat"],
        BY_FLAG["--param"],
        Option("new", ("--new",), "", "start one"),
    )
    for flag in option.flags
}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line((), {})),
        ("switch idea --new", Line(("switch", "idea"), {"new": True})),
        ("-m a b", Line(("b",), {"model": "a"})),
        ("--model='a b'", Line((), {"model": "a b"})),
        ("-p a=1 -p b=x", Line((), {"param": {"a": 1, "b": "x"}})),
        ("-- --new", Line(("--new",), {})),
        ("'a b' -", Line(("a b", "-"), {})),
    ],
)
def test_words_and_options_of_a_command(text: str, line: Line) -> None:
    assert read(text, SOME, "%llm_x") == line


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("--modle a", "%llm_x has no option --modle.", "Did you mean --model?"),
        ("--zzz", "%llm_x has no option --zzz.", "%llm_x --help lists the options."),
        ("-m", "-m needs a value: -m NAME.", MODEL_HELP),
        ("-m --new", "-m needs a value: -m NAME.", MODEL_HELP),
        ("-c a -c b", "-c is given twice.", "Keep one of them."),
        ("--new=1", "--new takes no value.", "Write --new alone."),
        ("-p a", "-p takes NAME=VALUE.", "--param NAME=VALUE: any other field of the body, read as JSON; repeatable."),
    ],
)
def test_what_is_wrong_with_a_command(text: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(text, SOME, "%llm_x")
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_only_unquoted_words_are_expanded() -> None:
    line = read("$a '$a' --model=$a", SOME, "%llm_x", expand=str.upper)
    assert line == Line(("$A", "$a"), {"model": "$A"})


def test_what_python_reads_as_json_and_is_none_is_a_text() -> None:
    options, _ = parse("-p a=NaN -p b=1e999 -p c=[Infinity] -p d=1e9")
    assert options.param == {"a": "NaN", "b": "1e999", "c": "[Infinity]", "d": 1e9}
