"""`%llm_usage`: sums, costs that are known, what is not counted, and a chart of it."""

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, stream
from shown import failed, html, plain

from llm_magic.display.footer import money

PRICES = '{"dear*": {"input": 1000, "output": 10000}}'


def counted(given: int, taken: int) -> dict[str, object]:
    return {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": taken, "total_tokens": given + taken}}


def test_a_table_of_what_was_used(kernel: Kernel) -> None:
    assert plain(kernel.run("%llm_usage")) == "Nothing was used yet."
    script = [
        stream(chunk("Hello"), chunk(finish="stop"), counted(10, 2)),
        stream(chunk("Hello"), chunk(finish="stop"), counted(30, 4)),
        stream(chunk("Hello"), chunk(finish="stop")),
    ]
    with ScriptedServer(*script) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url} --prices {PRICES}").check()
        for model in ("dear<b>", "dear<b>", "free"):
            kernel.run(f"%%llm -m 'there:{model}' --once\nHi").check()
    ran = kernel.run("%llm_usage --reset")
    table = [line.split() for line in plain(ran).splitlines()]
    assert table[0] == ["provider", "model", "answers", "requests", "input", "output", "seconds", "cost"]
    assert table[1][:6] == ["there", "dear<b>", "2", "2", "40", "6"]
    assert table[1][7] == "$0.10"  # 40 and 6 tokens, at 1,000 and 10,000 dollars a million
    assert table[2][:6] == ["there", "free", "1", "1", "0", "0"]
    assert table[3][:5] == ["all", "3", "3", "40", "6"]
    assert "Of 1 request the server told no tokens: they are not in the sums." in plain(ran)
    assert "1 request without a price: not in the cost." in plain(ran)
    page = html(ran)
    assert '<figure style="margin: 0.6em 0" aria-label="Tokens">' in page
    assert "there:dear&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "width: 86.96%" in page  # 40 of 46
    assert plain(kernel.run("%llm_usage")) == "Nothing was used yet."


def test_usage_of_a_real_stream(kernel: Kernel, vllm_url: str) -> None:
    kernel.run("%llm_usage --reset").check()
    kernel.run(f"%llm_provider add gpu --class vllm --base-url {vllm_url}").check()
    kernel.run("%%llm -m gpu: --max-tokens 7 --once -t 0\nCount to twenty.").check()
    given, taken = kernel.value("(_llm.usage.input_tokens, _llm.usage.output_tokens)")
    assert taken == 7
    lines = plain(kernel.run("%llm_usage")).splitlines()
    assert lines[1].split()[:6] == ["gpu", "smollm2", "1", "1", str(given), "7"]
    assert lines[-1].startswith("No cost: no prices are configured")


@pytest.mark.parametrize(("code", "message"), [("--rest", "Did you mean --reset?"), ("now", "takes no words")])
def test_what_is_wrong(kernel: Kernel, code: str, message: str) -> None:
    name, text = failed(kernel, f"%llm_usage {code}")
    assert name == "OptionError"
    assert message in text


def test_money() -> None:
    assert [money(amount) for amount in (None, 0.0, 0.000123, 0.01, 12.3456)] == [
        "",
        "$0.00",
        "$0.00012",
        "$0.01",
        "$12.35",
    ]
