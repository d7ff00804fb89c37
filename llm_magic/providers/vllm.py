"""vLLM: constrained by `structured_outputs`; with a tokenizer, the chat template is applied on this side."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Unicode, Union

from llm_magic.capabilities import Capabilities
from llm_magic.config.references import is_dry_run
from llm_magic.errors import ConfigurationError, ContextOverflowError, LLMError, PromptError, UnsupportedError
from llm_magic.messages import Image, Message, user
from llm_magic.providers import model_info
from llm_magic.providers.base import Provider
from llm_magic.request import Parameters, Request
from llm_magic.secrets import reveal, secret_url
from llm_magic.urls import with_v1

_LISTING_SECONDS = 5.0
_TEMPLATE_TOKENS = 64  # of one message, more than any template adds


class VLLMProvider(Provider):
    """A vLLM server.

    Adapters (LoRA) are models of their own names; `vllm:` is the first model that the server lists.
    """

    kind = "vllm"
    standard_url = "http://localhost:8000/v1"
    has_batches = False
    instead_of_batches = (
        "--batch-file FILE writes the file that `vllm run-batch` reads, and %llm_batch fetch FILE reads what it wrote; "
        "or leave --batch out: --each asks now."
    )

    tokenizer = Unicode(
        "",
        help="Hugging Face name or path of a tokenizer: its chat template is then applied here, and the prompt goes "
        'to /v1/completions. Needs pip install "llm_magic[tokenizer]".',
    ).tag(config=True, trusted_only=True, could="run")
    tokenizer_revision = Unicode("", help="Branch, tag or commit of the tokenizer.").tag(
        config=True, trusted_only=True, could="run"
    )
    chat_template_kwargs = Dict(
        key_trait=Unicode(), help='Arguments of the chat template: {"enable_thinking": False}.'
    ).tag(config=True, trusted_only=False)
    structured_outputs = Union(
        [Bool(), Dict()],
        default_value=True,
        help="Whether output types are sent as structured_outputs; a dict adds fields to them, such as "
        '{"disable_any_whitespace": True}; False sends response_format, for servers that are older.',
    ).tag(config=True, trusted_only=False)

    def __init__(self, *, name: str = "", **traits: Any) -> None:
        self._template: ChatTemplate | None = None
        super().__init__(name=name, **traits)

    def url(self) -> str:
        """Return the base URL, with `/v1` where it has no version."""
        return secret_url(with_v1(reveal(super().url())))

    def capabilities(self, model: str) -> Capabilities:
        """Return what vLLM can do."""
        dialects = model_info.VLLM if self.structured_outputs is not False else model_info.OPENAI
        common = replace(super().capabilities(model), dialects=dict(dialects))
        return replace(common, api="completions", tools=False) if self.tokenizer else common

    async def prepare(self, report: Callable[[str], None]) -> None:
        """Learn the models' contexts, and load the tokenizer where there is one."""
        if self.tokenizer:
            await self.template().load(report)
        if self._cards is None:
            with suppress(LLMError):  # the request itself will say what is wrong
                await self.ask_for_models(_LISTING_SECONDS, 0)

    def template(self) -> ChatTemplate:
        """Return the chat template of the tokenizer."""
        names = str(reveal(self.read("tokenizer"))), str(reveal(self.read("tokenizer_revision")))
        if self._template is None or self._template.names != names:
            self._template = ChatTemplate(*names)
        return self._template

    async def adapt(self, request: Request, capabilities: Capabilities) -> Request:
        """Add the settings of the template and of constraints, or apply the template here."""
        structure, extra = dict(request.structure), dict(request.parameters.extra)
        constraint = structure.get("structured_outputs")
        if isinstance(self.structured_outputs, dict) and isinstance(constraint, dict):
            structure["structured_outputs"] = {**self.structured_outputs, **constraint}
        if self.tokenizer and capabilities.api == "completions":
            extra.pop("chat_template_kwargs", None)
            prompt, tokens = await self._templated(request)
            extra.setdefault("add_special_tokens", False)  # the template has written them
            parameters = replace(request.parameters, extra=extra)
            if parameters.max_tokens is None and capabilities.context is not None and tokens < capabilities.context:
                # the server's default is 16
                parameters = Parameters(parameters.given, extra, max_tokens=capabilities.context - tokens)
            return replace(request, messages=(user(prompt),), structure=structure, parameters=parameters)
        if capabilities.api == "chat" and self.chat_template_kwargs:
            extra["chat_template_kwargs"] = self._template_arguments(request)
        return replace(request, structure=structure, parameters=replace(request.parameters, extra=extra))

    def _template_arguments(self, request: Request) -> dict[str, Any]:
        return {**self.read("chat_template_kwargs"), **(request.parameters.extra.get("chat_template_kwargs") or {})}

    async def _templated(self, request: Request) -> tuple[str, int]:
        """Return the conversation as one prompt, and its number of tokens."""
        if any(isinstance(part, Image) for message in request.messages for part in message.parts):
            raise UnsupportedError(
                "Images cannot go through a chat template that is applied here.",
                f"Leave --image out, or unset {self.section}.tokenizer.",
            )
        return await self.template().apply(request.messages, reveal(self._template_arguments(request)))

    async def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse several answers without sampling, and a prompt that does not fit, naming its tokens and the context.

        It is counted, by the server or the tokenizer here, but only where the characters leave it open.
        """
        if (request.parameters.n or 1) > 1 and request.parameters.temperature == 0:
            raise UnsupportedError(
                f"vLLM gives one answer at --temperature 0, not --n {request.parameters.n}: all would be the same.",
                "Leave --n out, or raise --temperature.",
            )
        context, wanted = capabilities.context, request.parameters.max_tokens or 1
        length = sum(len(message.text.encode("utf-8", "replace")) for message in request.messages)
        if context is None or length + _TEMPLATE_TOKENS * len(request.messages) + wanted <= context:
            return
        tokens = await self._count(request, capabilities)
        if tokens is not None and tokens + wanted > context:
            origin = self.origin(request.model)
            asked = f" and --max-tokens asks for {wanted:,} more" if request.parameters.max_tokens else ""
            raise ContextOverflowError(
                f"The prompt has {tokens:,} tokens{asked}, but the context of {origin} is {context:,} tokens.",
                "Shorten the prompt or --max-tokens." if asked else "Shorten the prompt, or send less history.",
                origin=origin,
            )

    async def _count(self, request: Request, capabilities: Capabilities) -> int | None:
        """Return the tokens of the prompt; None where the server does not tell."""
        if self.tokenizer and capabilities.api == "completions":
            return (await self._templated(request))[1]
        from llm_magic.wire import chat, completions
        from llm_magic.wire.attempts import HttpRequest, fetch

        body: dict[str, Any] = {"model": request.model}
        if capabilities.api == "completions":
            body["prompt"] = completions.prompt(request.messages)
        else:
            plain = replace(request, parameters=Parameters(), structure={})
            written = chat.body(plain, replace(capabilities, api="chat"))
            body |= {name: written[name] for name in ("messages", "tools") if name in written}
            arguments = self._template_arguments(request)
            body |= {"chat_template_kwargs": arguments} if arguments else {}
        url = str(reveal(self.url())).rstrip("/").removesuffix("/v1") + "/tokenize"
        origin = self.origin(request.model)
        try:
            client = self.client()
            asked = HttpRequest(
                client,
                origin,
                url,
                body,
                timeout=_LISTING_SECONDS,
                max_retries=0,
                secrets=self.secrets(),
                renew=self.renewed,
            )
            found = (await fetch(asked)).document
        except LLMError:
            return None
        count = found.get("count") if isinstance(found, dict) else None
        return count if isinstance(count, int) else None


class ChatTemplate:
    """A model's chat template, applied on this side by `transformers`; the tokenizer is loaded at first use, and kept.

    `names` are the Hugging Face name, or the path of a folder, and the branch, tag or commit; empty for the default.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._lock = threading.Lock()
        self._loaded: Any = None

    async def load(self, report: Callable[[str], None]) -> None:
        """Load the tokenizer on a thread; raises ConfigurationError where there is none, or it has no template."""
        if self._loaded is None:
            report(f"loading the tokenizer {self.names[0]}…")
            await asyncio.to_thread(self._tokenizer)

    def _tokenizer(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(*self.names)
            return self._loaded

    async def apply(self, messages: tuple[Message, ...], arguments: Mapping[str, Any]) -> tuple[str, int]:
        """Return the prompt for a conversation, ending where the assistant begins, and its number of tokens."""
        return await asyncio.to_thread(self._apply, messages, arguments)

    def _apply(self, messages: tuple[Message, ...], arguments: Mapping[str, Any]) -> tuple[str, int]:
        turns = [{"role": message.role, "content": message.text} for message in messages]
        tokenizer = self._tokenizer()
        try:
            prompt = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments))
        except Exception as error:
            raise PromptError(
                f"The chat template of {self.names[0]} refuses this conversation: {error}",
                "Leave the system prompt or the history out (--once), or unset the tokenizer.",
            ) from error
        return prompt, self.count(prompt)

    def count(self, prompt: str) -> int:
        """Return the number of tokens of a prompt that a template has written."""
        return len(self._tokenizer().encode(prompt, add_special_tokens=False))


def _load(name: str, revision: str) -> Any:
    try:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it misses PyTorch, which is not needed here
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise ConfigurationError(
            "VLLMProvider.tokenizer needs the package transformers.", 'pip install "llm_magic[tokenizer]"'
        ) from None
    try:
        arguments: dict[str, Any] = {"revision": revision} if revision else {}
        arguments |= {"local_files_only": True} if is_dry_run() else {}
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **arguments)
    except Exception as error:
        if is_dry_run() and not Path(name).exists():
            raise ConfigurationError(
                f"The tokenizer {name} is not on this machine, and --dry-run downloads nothing.",
                "Ask once without --dry-run, or give the path of a folder with tokenizer.json.",
            ) from error
        at = f" at revision {revision}" if revision else ""
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ConfigurationError(
            f"The tokenizer {name}{at} cannot be loaded: {reason}",
            "Give a Hugging Face name, or the path of a folder with tokenizer.json.",
        ) from error
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError(
            f"The tokenizer {name} has no chat template.", "Unset the tokenizer: the server applies its own."
        )
    return tokenizer
