"""The parameters of a request under the names of each API; what an endpoint does not take is refused before sending."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.messages import Image, Text
from llm_magic.profile import ALL_PARAMETERS, Api, Profile
from llm_magic.request import Request

API_NAMES: dict[Api, str] = {
    "chat": "the Chat Completions API",
    "responses": "the Responses API",
    "completions": "the Completions API",
}

TAKEN: dict[Api, frozenset[str]] = {
    "chat": ALL_PARAMETERS,
    "responses": frozenset({"temperature", "top_p", "max_tokens", "logprobs", "reasoning_effort"}),
    "completions": ALL_PARAMETERS - {"reasoning_effort"},
}
"""The parameters that each API has.

Sources: https://platform.openai.com/docs/api-reference/chat/create, …/responses/create, …/completions/create
"""


def option(parameter: str) -> str:
    """Return the option of a cell that sets a parameter."""
    return "--" + parameter.replace("_", "-")


def check(request: Request, profile: Profile, api: Api) -> None:
    """Raise UnsupportedError for the first thing asked for that the endpoint cannot honour."""
    for name in request.parameters.given():
        if name not in TAKEN[api]:
            raise UnsupportedError(
                f"{option(name)} does not exist in {API_NAMES[api]}, by which {request.model} is asked.",
                f"Leave {option(name)} out, or choose another API with --api.",
            )
        if name not in profile.parameters:
            raise UnsupportedError(
                f"{request.model or 'This model'} does not take {option(name)}.", f"Leave {option(name)} out."
            )
    if request.tools and not profile.tools:
        raise UnsupportedError(
            f"{request.model or 'This model'} cannot call tools at this endpoint.", "Leave --tools out."
        )
    if request.tool_choice not in (None, "auto", "none") and not request.tools:
        raise UnsupportedError("--tool-choice needs tools to choose from.", "Give functions with --tools.")
    if profile.images is False and any(isinstance(part, Image) for m in request.messages for part in m.parts):
        raise UnsupportedError(
            f"{request.model or 'This model'} does not take images.", "Leave --image out, or choose another --model."
        )


def merge(body: dict[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` with the fields of `others` over it; two objects of one name are joined, not replaced."""
    for other in others:
        for name, value in other.items():
            ours = body.get(name)
            both = isinstance(ours, dict) and isinstance(value, Mapping)
            body[name] = {**ours, **value} if both and ours else value
    return body


def image_url(image: Image) -> str:
    """Return the URL of an image: its own, or a data URL of its bytes."""
    if image.url is not None:
        return image.url
    return f"data:{image.media_type};base64,{base64.b64encode(image.data or b'').decode('ascii')}"


def joined_text(parts: tuple[Text | Image, ...]) -> str | None:
    """Return the text of the parts, or None where an image is among them."""
    texts = [part.text for part in parts if isinstance(part, Text)]
    return "".join(texts) if len(texts) == len(parts) else None
