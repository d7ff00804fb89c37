"""Every setting of the HTTP client, by what a server sees of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme
from asked import answer, ask
from recorder import Recorder

from llm_magic.errors import ConfigurationError, ConnectionFailedError, LLMError
from llm_magic.providers.compatible import CompatibleProvider


def provider(url: str, **traits: Any) -> CompatibleProvider:
    return CompatibleProvider(base_url=url, max_retries=0, **traits)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[Recorder]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Recorder(tls=context) as server:
        yield server


def test_a_private_ca_is_trusted_by_its_file(tls_server: Recorder, ca_file: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="verify"):
        ask(provider(tls_server.url), "m")
    assert tls_server.requests == []
    assert ask(provider(tls_server.url, http_client_kwargs={"verify": str(ca_file)}), "m").text == "Hello"


def test_a_private_ca_is_trusted_by_a_folder(tls_server: Recorder, ca_file: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command, which names files by their hashes")
    subprocess.run(["openssl", "rehash", str(ca_file.parent)], check=True, capture_output=True)  # noqa: S603, S607 - the system's own
    assert ask(provider(tls_server.url, http_client_kwargs={"verify": str(ca_file.parent)}), "m").text == "Hello"


def test_verification_can_be_switched_off(tls_server: Recorder) -> None:
    assert ask(provider(tls_server.url, http_client_kwargs={"verify": False}), "m").text == "Hello"


@pytest.mark.parametrize("transport", ["", "aiohttp"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_client_certificate_lets_in(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, parts: int, transport: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("me@example.org")
    whole, cert, key = tmp_path / "both.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.private_key_and_cert_chain_pem.write_to_path(whole)
    mine.cert_chain_pems[0].write_to_path(cert)
    mine.private_key_pem.write_to_path(key)
    with Recorder(tls=context) as server:
        with pytest.raises(ConnectionFailedError):
            ask(provider(server.url, http_client_kwargs={"verify": str(ca_file)}), "m")
        given = str(whole) if parts == 1 else [str(cert), str(key)]
        own = {"http_client_kwargs": {"verify": str(ca_file), "cert": given}, "http_client": transport}
        assert ask(provider(server.url, **own), "m").text == "Hello"
        assert len(server.requests) == 1


def test_a_proxy_sees_the_request_first(recorder: Recorder) -> None:
    with Recorder() as proxy:
        ask(provider(recorder.url, http_client_kwargs={"proxy": f"http://me:pass@{proxy.root[7:]}"}), "m", stream=False)
        assert [seen.target for seen in proxy.requests] == [f"{recorder.url}/chat/completions"]
        assert proxy.last.headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
        assert len(recorder.requests) == 1


def test_a_proxy_can_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    with Recorder() as proxy:
        monkeypatch.setenv("CORPORATE_PROXY", proxy.root)
        ask(provider(recorder.url, http_client_kwargs={"proxy": "env:CORPORATE_PROXY"}), "m", stream=False)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("by", ["http_client_kwargs", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_refuses_is_blamed_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder, by: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Recorder() as gone:
        address = gone.root
    there = address.replace("http://", "http://me:s3cret-pass@")
    if by == "http_client_kwargs":
        asked = provider(recorder.url, http_client_kwargs={"proxy": there})
    else:
        monkeypatch.setenv(by, there)
        asked = provider(recorder.url)
    with pytest.raises(ConnectionFailedError) as caught:
        ask(asked, "m", stream=False, max_retries=0)
    error = caught.value
    assert error.message.startswith(f"The proxy {address} on the way to ")
    assert error.message.endswith(" refused the connection.")
    assert "NO_PROXY" in error.hint
    assert "s3cret-pass" not in str(error)
    assert recorder.requests == []


def test_a_proxy_that_nobody_knows_is_named(recorder: Recorder) -> None:
    asked = provider(recorder.url, http_client_kwargs={"proxy": "http://no-such-proxy.invalid:3128"})
    with pytest.raises(
        ConnectionFailedError, match=r"The proxy http://no-such-proxy.invalid:3128 on the way to .* failed"
    ):
        ask(asked, "m", stream=False, max_retries=0)


def test_the_environments_proxy_is_used_unless_told_not_to(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Recorder() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.root)
        ask(provider(recorder.url), "m", stream=False)
        assert len(proxy.requests) == 1
        ask(provider(recorder.url, http_client_kwargs={"trust_env": False}), "m", stream=False)
        assert len(proxy.requests) == 1
    assert len(recorder.requests) == 2


def test_the_server_sees_the_local_address(recorder: Recorder) -> None:
    ask(provider(recorder.url), "m")
    ask(provider(recorder.url, http_client_kwargs={"local_address": "127.0.0.2"}), "m")
    assert [seen.peer for seen in recorder.requests] == ["127.0.0.1", "127.0.0.2"]


def test_a_local_address_goes_with_tls_and_limits(tls_server: Recorder, ca_file: Path) -> None:
    own = {"local_address": "127.0.0.3", "verify": str(ca_file), "limits": {"max_connections": 1}}
    assert ask(provider(tls_server.url, http_client_kwargs=own), "m").text == "Hello"
    assert tls_server.last.peer == "127.0.0.3"


def test_limits_bound_the_connections() -> None:
    from servers import ScriptedServer, document

    with ScriptedServer(document({"object": "list", "data": []})) as server:

        async def work(limit: int | None) -> int:
            before = server.connections
            own = {"limits": {"max_connections": limit}} if limit else {}
            one = provider(server.url, http_client_kwargs=own)
            client = one.client()
            await asyncio.gather(*(client.get("/models", cast_to=object) for _ in range(4)))
            await one.aclose()
            return server.connections - before

        assert asyncio.run(work(1)) == 1
        assert asyncio.run(work(None)) > 1


def test_a_unix_socket(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "over-a-socket"}]}')

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "socket"

    path = str(tmp_path / "s")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        one = provider("http://localhost/v1", http_client_kwargs={"uds": path})

        async def work() -> str:
            try:
                return await one.first_model()
            finally:
                await one.aclose()

        assert asyncio.run(work()) == "over-a-socket"
        server.shutdown()


def test_aiohttp(recorder: Recorder) -> None:
    one = provider(recorder.url, http_client="aiohttp", default_headers={"X-A": "1"})
    assert type(one.client()._client).__mro__[1].__name__.endswith("AiohttpClient")
    assert ask(one, "m").text == "Hello"
    assert "aiohttp" in recorder.last.headers["user-agent"] or recorder.last.headers["x-a"] == "1"


def test_a_client_of_the_users_making(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    given: list[Any] = []

    def make(**arguments: Any) -> Any:
        given.append(arguments)
        return openai.DefaultAsyncHttpxClient(headers={"X-Made-Here": "yes"}, **arguments)

    module = types.ModuleType("my_clients")
    module.make = make  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "my_clients", module)
    one = provider(recorder.url, http_client="my_clients:make", http_client_kwargs={"trust_env": False})
    response = ask(one, "m")
    assert response.text == "Hello"
    assert recorder.last.headers["x-made-here"] == "yes"
    assert given == [{"trust_env": False}]
    assert len(response.attempts) == 1


def test_a_ready_client_is_used_and_left_open(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    async def work() -> None:
        mine = openai.DefaultAsyncHttpxClient(headers={"X-Mine": "yes"})
        module = types.ModuleType("my_clients")
        module.client = mine  # type: ignore[attr-defined]  # a module made here
        monkeypatch.setitem(sys.modules, "my_clients", module)
        one = provider(recorder.url, http_client="my_clients:client")
        response = await answer(one, "m")
        assert len(response.attempts) == 1
        await one.aclose()
        assert not mine.is_closed
        await mine.aclose()

    asyncio.run(work())
    assert recorder.last.headers["x-mine"] == "yes"


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({"http_client_kwargs": {"prox": "http://p"}}, "Did you mean proxy?"),
        ({"http_client_kwargs": {"limits": {"max_conections": 1}}}, "Did you mean max_connections?"),
        ({"http_client_kwargs": {"verify": "/nowhere/ca.pem"}}, "there is no file"),
        ({"http_client_kwargs": {"cert": __file__}}, "certificates cannot be read"),
        ({"http_client_kwargs": {"local_address": "127.0.0.2", "proxy": "http://p:1"}}, "does not go with"),
        ({"http_client": "aiohttp", "http_client_kwargs": {"local_address": "127.0.0.2"}}, "does not go with"),
        ({"http_client_kwargs": {"proxy": "ftp://p"}}, "cannot be used"),
        ({"http_client": "no.such.module:client"}, "cannot be imported"),
        ({"http_client": "json:dumps"}, "failed: TypeError"),
        ({"http_client": "json"}, "import string"),
        ({"http_client_kwargs": {"proxy": "env:NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_what_cannot_be_is_said(traits: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        provider("http://127.0.0.1:1", **traits).client()
    assert re.search(said, str(caught.value))


def test_a_proxy_that_is_not_there_is_said(recorder: Recorder) -> None:
    with pytest.raises(LLMError):
        ask(provider(recorder.url, http_client_kwargs={"proxy": "http://127.0.0.1:9"}), "m")
    assert recorder.requests == []
