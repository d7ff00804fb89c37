"""What a tool returned, read: each kind of content, what lies or is too much, and structured content said once."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the package mcp")

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from mcp_server import PNG, SVG

from llm_magic.mcp.results import MAX_CHARS, MAX_IMAGE_BYTES, MAX_IMAGES, ToolOutput, read_result
from llm_magic.messages import Image
from llm_magic.session.tool_runner import MAX_RESULT_CHARS, _cut


def text(*texts: str, structured: Any = None, failed: bool = False) -> ToolOutput:
    blocks: list[Any] = [TextContent(text=each) for each in texts]
    return read_result(CallToolResult(content=blocks, structured_content=structured, is_error=failed))


def blocks(*content: Any) -> ToolOutput:
    return read_result(CallToolResult(content=list(content)))


def image(data: bytes | str, said: str = "image/png") -> ImageContent:
    encoded = data if isinstance(data, str) else base64.b64encode(data).decode()
    return ImageContent(data=encoded, mime_type=said)


def test_texts() -> None:
    assert text("one", "two") == ToolOutput("one\ntwo")
    assert text("no", failed=True) == ToolOutput("no", failed=True)
    assert text() == ToolOutput("[nothing was returned]")
    assert text(" \n", failed=True) == ToolOutput("[it failed, and does not say why]", failed=True)


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (['{\n  "x": 1.0,\n  "y": [null, "é"]\n}'], {"x": 1.0, "y": [None, "é"]}),
        (["5"], {"result": 5}),
        (["5"], {"result": "5"}),
        (["five"], {"result": "five"}),
        (["1", "2"], {"result": [1, 2]}),
        (["[1, 2]"], {"result": [1, 2]}),
        (["a", "b"], {"result": ["a", "b"]}),
        (["Here it is:", '{"a": 1}'], {"a": 1}),
        (["[1, 2]"], [1, 2]),
        (["true"], {"result": True}),
    ],
)
def test_structured_content_that_the_texts_say_stands_there_once(texts: list[str], structured: Any) -> None:
    assert text(*texts, structured=structured).text == "\n".join(texts)


@pytest.mark.parametrize(
    ("texts", "structured", "said"),
    [
        ([], {"x": 1}, '{"x":1}'),
        (["1 row"], {"rows": [1]}, '1 row\n{"rows":[1]}'),
        (["1"], {"result": True}, '1\n{"result":true}'),
        (["1"], {"result": [1, 2]}, '1\n{"result":[1,2]}'),
        (["a", "c"], {"result": ["a", "b"]}, 'a\nc\n{"result":["a","b"]}'),
        (['{"a": 1'], {"a": 1}, '{"a": 1\n{"a":1}'),
        ([], 0, "0"),
        ([], {}, "{}"),
        ([], {"x": float("nan")}, '{"x":"NaN"}'),
    ],
)
def test_structured_content_that_no_text_says_is_added(texts: list[str], structured: Any, said: str) -> None:
    assert text(*texts, structured=structured).text == said


def test_an_image_is_what_its_bytes_are() -> None:
    output = blocks(TextContent(text="See:"), image(PNG, "image/svg+xml"), image(PNG))
    assert output.images == (Image(PNG, "image/png"), Image(PNG, "image/png"))
    assert output.text == "See:\n[image 1: image/png, 1 × 1 pixels]\n[image 2: image/png, 1 × 1 pixels]"
    wrapped = base64.b64encode(PNG).decode()
    assert blocks(image(f"{wrapped[:20]}\n {wrapped[20:]}\n")).images == (Image(PNG, "image/png"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (image(SVG, "image/png"), "[image, image/png, 71 bytes: damaged, or none of PNG, JPEG, GIF and WebP]"),
        (image(PNG[:-20]), f"[image, image/png, {len(PNG) - 20} bytes: damaged or cut off]"),
        (image(b""), "[image, image/png, 0 bytes: damaged, or none of PNG, JPEG, GIF and WebP]"),
        (image("%%%"), "[image, image/png: damaged, for it is no base64]"),
        (image("é"), "[image, image/png: damaged, for it is no base64]"),
        (image("abc"), "[image, image/png: damaged, for it is no base64]"),
        (image("A" * (MAX_IMAGE_BYTES * 2)), "[image, 31,457,280 bytes: too large, 20 MB are taken at most]"),
        (
            image(PNG[:16] + (20_000).to_bytes(4, "big") * 2 + PNG[24:]),
            "[image, 20,000 × 20,000 pixels: too large]",
        ),
        (AudioContent(data="UklGRg==", mime_type="audio/wav"), "[audio, audio/wav, 4 bytes: not passed on]"),
        (
            ResourceLink(uri="file:///r.pdf", name="r", title="Report", mime_type="application/pdf", description="Q\n"),
            "[link to file:///r.pdf: Report (Q, application/pdf)]",
        ),
        (ResourceLink(uri="file:///r.pdf", name="r"), "[link to file:///r.pdf: r]"),
        (EmbeddedResource(resource=TextResourceContents(uri="note://1", text="A\nB")), "[resource note://1]\nA\nB"),
        (
            EmbeddedResource(resource=BlobResourceContents(uri="a://2", blob="AAE=")),
            "[resource a://2, application/octet-stream, 2 bytes: not passed on]",
        ),
    ],
)  # fmt: skip
def test_what_is_no_text_or_picture_is_named(content: Any, said: str) -> None:
    assert blocks(content) == ToolOutput(said)


def test_a_picture_in_a_resource() -> None:
    blob = BlobResourceContents(uri="a://1", blob=base64.b64encode(PNG).decode(), mime_type="image/png")
    output = blocks(EmbeddedResource(resource=blob))
    assert output == ToolOutput("[resource a://1 1: image/png, 1 × 1 pixels]", (Image(PNG, "image/png"),))


def test_names_are_short_and_on_one_line() -> None:
    link = ResourceLink(uri="data:" + "x" * 10**7, name="\n".join("y" * 10**6))
    assert len(blocks(link).text) < 1_100
    assert "\n" not in blocks(link).text


def test_too_many_pictures() -> None:
    output = blocks(*[image(PNG)] * (MAX_IMAGES + 2))
    assert len(output.images) == MAX_IMAGES
    assert output.text.endswith("\n[image: one of too many, 16 are taken]" * 2)


def test_a_huge_text_is_cut_once() -> None:
    started = time.perf_counter()
    output = text("é" * 20_000_000, structured={"result": "é" * 20_000_000})
    assert time.perf_counter() - started < 5
    assert MAX_CHARS == MAX_RESULT_CHARS
    assert len(output.text) <= MAX_CHARS
    assert output.text.endswith("é\n[cut: the first 19900 of 40000014 characters]")
    assert _cut(output.text) == output.text


def test_structured_content_of_any_size_and_depth() -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": deep}
    output = read_result(CallToolResult.model_construct(content=[], structured_content=deep, is_error=False))
    assert output.text == "[structured content that is nested too deeply to be written]"
    nested = "[" * 5_000 + "]" * 5_000
    assert text(nested, structured={"a": 1}).text == f'{nested}\n{{"a":1}}'
    wide = {str(number): number for number in range(10**5)}
    assert text(structured=wide).text.endswith(f"of {len(json.dumps(wide, separators=(',', ':')))} characters]")


def test_halves_of_characters_do_not_leave() -> None:
    halves = TextContent.model_construct(type="text", text="a\ud83d\ude00\ud800b")
    output = read_result(CallToolResult.model_construct(content=[halves]))
    assert output.text == "a😀�b"
    assert text("x", structured={"a": "\ud800"}).text.startswith("x\n")
