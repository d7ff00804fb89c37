"""Cells in a real kernel with the embedded model: what they bind, show, and leave behind."""

import time

import pytest
from kernels import Kernel

pytest.importorskip("xllamacpp", reason="needs the extra `local`")

TYPES = """
from dataclasses import dataclass
from pydantic import BaseModel

class City(BaseModel):
    name: str
    population: int

@dataclass
class Point:
    x: int
    y: int
"""
TEXT = "Tokyo has 37000000 people. Cairo has 21000000 people."

CPU_SECONDS = (
    "(lambda time: (lambda before: (time.sleep(0.5), time.process_time() - before)[1])(time.process_time()))"
    "(__import__('time'))"
)


@pytest.fixture(scope="module", autouse=True)
def _types(kernel: Kernel) -> None:
    kernel.run(TYPES).check()


def test_an_answer_is_bound_shown_once_and_kept(kernel: Kernel) -> None:
    ran = kernel.run("%%llm -m local -o answer -t 0 --max-tokens 40 --once\nWhy is the sky blue?").check()
    answer = kernel.value("answer")
    assert isinstance(answer, str)
    assert answer
    assert ran.of_type("text/markdown") == [answer]
    (output,) = [output for output in ran.outputs if "text/markdown" in output.get("data", {})]
    assert output["data"]["text/plain"] == answer
    metadata = output["metadata"]["llm_magic"]
    assert metadata["model"] == "local:smollm2"  # the provider's first
    assert metadata["finish_reason"] == kernel.value("_llm.finish_reason")
    assert set(metadata) == {"model", "provider", "finish_reason", "usage", "seconds", "request_id"}
    assert kernel.value("_llm.text == answer == _llm.value")
    assert not [output for output in ran.outputs if output["output_type"] == "execute_result"]


def test_the_result_of_the_cell_is_the_response(kernel: Kernel) -> None:
    kernel.run("%%llm -t 0 --max-tokens 5 --once\nSay hi.").check()
    assert kernel.value("(_ is _llm, type(_).__name__)") == (True, "Response")
    shown_again = kernel.run("_llm").check()
    assert shown_again.of_type("text/markdown") == [kernel.value("_llm.text")]


def test_usage_is_what_the_server_counts(kernel: Kernel) -> None:
    kernel.run("%%llm -m local -t 0 --max-tokens 12 --once\nCount to twenty.").check()
    counted = kernel.value(
        "(lambda client: (lambda u: (u.prompt_tokens, u.completion_tokens))(client.chat.completions.create("
        "model='smollm2', messages=[{'role': 'user', 'content': 'Count to twenty.'}], "
        "temperature=0, max_tokens=12).usage))"
        "(__import__('openai').OpenAI(base_url=str(get_ipython()._llm_magic.registry.get('local').client().base_url), "
        "api_key=get_ipython()._llm_magic.registry.get('local').client().api_key))"
    )
    assert kernel.value("(_llm.usage.input_tokens, _llm.usage.output_tokens)") == counted
    assert counted[1] == 12


@pytest.mark.parametrize(
    ("line", "prompt", "check"),
    [
        ("--as City", f"Extract the first city: {TEXT}", "type(value) is City and value.name"),
        (
            '--as "list[City]"',
            f"Extract every city: {TEXT}",
            "type(value) is list and value and all(type(city) is City for city in value)",
        ),
        ("--as int", "What is two plus two?", "type(value) is int"),
        ('--as Literal["yes","no"]', "Is the sky blue?", "value in ('yes', 'no')"),
        ("--as Point", "Give a point.", "type(value) is Point and type(value.x) is int"),
    ],
)
def test_typed_values(kernel: Kernel, line: str, prompt: str, check: str) -> None:
    ran = kernel.run(f"%%llm {line} -o value -t 0 --max-tokens 200 --once\n{prompt}").check()
    assert kernel.value(f"bool({check})")
    (shown,) = ran.of_type("text/markdown")
    said = kernel.value("__import__('llm_magic.display.answer', fromlist=['said']).said(_llm.text, _llm.value)")
    assert shown == said
    assert '"value"' not in shown


@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        ("%%llm\n", "PromptError", "The cell is empty."),
        ("%%llm --modle x\nHi", "OptionError", "%%llm has no option --modle."),
        ("%%llm -m nothing-like-it\nHi", "ModelNotFoundError", "nothing-like-it"),
        ("%%llm\n{{ unknown_name }}", "PromptError", "unknown_name"),
        ("%%llm --as Citty\nHi", "OutputTypeError", "Citty"),
        ("%%llm --as type(kernel)\nHi", "OutputTypeError", ""),
        ('%%llm --as "list[City]" --max-tokens 8 -o cut --once\nList cities.', "IncompleteAnswerError", "--max-tokens"),
    ],
)
def test_what_is_wrong_fails_the_cell_in_a_line_or_two(kernel: Kernel, cell: str, error: str, message: str) -> None:
    ran = kernel.run(cell)
    assert ran.status == "error"
    assert ran.error_name == error
    assert message in ran.error
    (shown,) = [output for output in ran.outputs if output["output_type"] == "error"]
    assert len(shown["traceback"]) <= 2
    assert "Traceback" not in "".join(shown["traceback"])
    assert kernel.value("'cut' in globals()") is False


def test_the_whole_traceback_is_there_for_who_asks(kernel: Kernel) -> None:
    kernel.run("%%llm --modle x\nHi")
    shown = kernel.run("%tb")
    assert "reader.py" in str(shown.outputs)


def test_what_was_cut_is_kept(kernel: Kernel) -> None:
    kernel.run('%%llm --as "list[City]" --max-tokens 8 --once -t 0\nList cities.')
    assert kernel.value("(_llm.finish_reason, bool(_llm.text))") == ("length", True)


def test_interrupting_ends_the_cell_and_the_request(kernel: Kernel) -> None:
    seen: list[float] = []

    def interrupt(message: dict[str, object]) -> None:
        if not seen and message["msg_type"] in {"display_data", "update_display_data"}:
            seen.append(time.perf_counter())
            kernel.interrupt()

    ran = kernel.run("%%llm -m local -o never -t 0 --once\nWrite a very long story.", on_message=interrupt)
    took = time.perf_counter() - seen[0]
    assert ran.status == "error"
    assert ran.error_name in {"Interrupted", "KeyboardInterrupt"}
    assert took < 0.5
    assert kernel.value("(_llm.finish_reason, bool(_llm.text), 'never' in globals())") == ("interrupted", True, False)
    assert kernel.value(CPU_SECONDS) < 0.15  # the embedded server, which is in this process, generates no more
    kernel.run("%%llm -m local -o after -t 0 --max-tokens 3 --once\nHi").check()
    assert kernel.value("bool(after)")


def test_line_magic_questions_and_assignment(kernel: Kernel) -> None:
    kernel.run("x = %llm -t 0 --max-tokens 5 --once Why is the sky blue?").check()
    assert kernel.value("(type(x).__name__, x is _llm)") == ("Response", True)
    kernel.run("%llm -t 0 --max-tokens 5 --once What's up?").check()


def test_dry_run_sends_nothing(kernel: Kernel) -> None:
    ran = kernel.run('%%llm -m local --dry-run -t 0.5 --once\n{"a": 1} \\frac{a}{b} {{ 1 + 1 }}').check()
    shown = ran.stdout + "".join(ran.of_type("text/plain"))
    assert '"temperature": 0.5' in shown
    assert '{\\"a\\": 1} \\\\frac{a}{b} 2' in shown
    assert "/chat/completions" in shown
