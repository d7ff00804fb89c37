"""The panel over real servers: what they list, and what they answer."""

from picker.backends import text, until

from llm_magic.config.settings import Settings
from llm_magic.picker.backend import PickerBackend
from llm_magic.picker.panel import Panel
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


def ask_once(kind: str, url: str) -> None:
    settings = Settings(params={"temperature": 0, "max_tokens": 12})
    registry = ProviderRegistry(parent=settings)
    session = Session(settings, registry)
    registry.add("real", kind, base_url=url)
    settings.model = "real:"
    backend = PickerBackend(session)
    panel = Panel(backend)
    try:
        until(lambda: "Loading" not in text(panel.status))
        (row,) = panel.models.options
        assert "tokens" in row[0]
        panel.models.value = row[1]
        seen: list[str] = []
        panel.answer.observe(lambda _: seen.append(text(panel.answer)), "value")
        panel.prompt.value = "Count from one to twenty."
        panel.try_it.click()
        until(lambda: not panel.try_it.disabled, 60)
        assert seen[-1].startswith(next(filter(None, seen)))
        assert "→ 12 tokens" in text(panel.said)
        assert "Cut off" in text(panel.said)
    finally:
        panel.end("")
        backend.close()
        session.close()


def test_vllm(vllm_url: str) -> None:
    ask_once("vllm", vllm_url)


def test_llamacpp(llamacpp_url: str) -> None:
    ask_once("compatible", llamacpp_url)
