"""A figure in a prompt arrives in each API's own shape, as a PNG that decodes; braces arrive untouched."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from llm_magic.capabilities import Capabilities
from llm_magic.config.settings import Settings
from llm_magic.messages import user
from llm_magic.prompt import render
from llm_magic.request import Request
from llm_magic.wire import chat, responses


def content(api: Any, name: str) -> list[dict[str, Any]]:
    """Return the parts of the user's message as one API has them."""
    figure = Figure(figsize=(4, 3), dpi=50)
    figure.subplots().plot([1, 2])
    parts = render('See {{ fig }}: {"a": 1}', {"fig": figure}, settings=Settings()).parts
    body = api.body(Request("m", (user(*parts),)), Capabilities(api=name, images=True))  # type: ignore[arg-type] # a literal
    (message,) = body["messages"] if name == "chat" else body["input"]
    assert isinstance(message["content"], list)
    return message["content"]


@pytest.mark.parametrize("name", ["chat", "responses"])
def test_a_figure_arrives_as_png(name: str) -> None:
    before, image, after = content({"chat": chat, "responses": responses}[name], name)
    assert (before["text"], after["text"]) == ("See ", ': {"a": 1}')
    url = image["image_url"]["url"] if name == "chat" else image["image_url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    decoded = Image.open(BytesIO(base64.b64decode(data, validate=True)))
    decoded.load()
    assert (decoded.format, decoded.size) == ("PNG", (200, 150))
