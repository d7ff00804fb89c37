"""The routes of the Files API and the Batch API: files sent and fetched, batches created and asked for.

Source: https://platform.openai.com/docs/api-reference/batch and https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llm_magic.errors import (
    ConfigurationError,
    ConnectionFailedError,
    EndpointNotFoundError,
    InputError,
    LLMError,
    Origin,
    ProtocolError,
    ProviderError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
    UnsupportedError,
)
from llm_magic.secrets import Secret, hide, holds, reveal
from llm_magic.wire.attempts import Fetched, HttpRequest, Renew, fetch
from llm_magic.wire.documents import ErrorDocument, count, error_in
from llm_magic.wire.error_body import one_line, read_error_body
from llm_magic.wire.errors import class_names, links, translate
from llm_magic.wire.file_download import download
from llm_magic.wire.file_upload import FileUpload
from llm_magic.wire.headers import asked_wait, check_headers
from llm_magic.wire.remote_batch import Refusal, RemoteBatch, read_batch

__all__ = ["BatchRoutes", "Refusal", "RemoteBatch", "is_ambiguous", "wait_asked"]

LONGEST_ID = 1024
"""Characters of an id; those of proxies that write the server's own into theirs have a few hundred."""

MOST_LISTED = 10_000
"""Batches of a server's list that are looked through, the newest first."""

_PAGE = 100

_NO_ROUTES = (
    "--batch-file F writes the file that a program such as vLLM's run_batch reads; or leave --batch out: --each asks "
    "now."
)
_MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"})
"""Classes of the HTTP library's exceptions before which nothing was sent."""

_UNKNOWN_FILE = re.compile(
    r"\bfiles?\b.*(?:not (?:be )?found|not exist|unknown|expired|deleted)|(?:no such|cannot find|unknown) file\b",
    re.IGNORECASE,
)


def is_ambiguous(error: BaseException) -> bool:
    """Return whether, after `BatchRoutes.create` failed like this, the server may have created the batch.

    Then its list says whether it did (`BatchRoutes.find`). So it is after a timeout, a connection lost once it stood,
    an error of the server or of a proxy before it (5xx), a redirect to elsewhere, and an answer that is no batch.
    """
    if isinstance(error, InputError) or not isinstance(error, ProviderError):
        return not isinstance(error, InputError)
    if class_names(error) & _UNSENT:
        return False
    if isinstance(error, ConnectionFailedError | ServerFailedError | TimedOutError | ProtocolError):
        return True
    status = error.status or HTTPStatus.INTERNAL_SERVER_ERROR
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return not refused or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)


def wait_asked(error: BaseException) -> float | None:
    """Return the seconds that a server asks to wait which turned a request away; None where it names none."""
    for link in links(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        if headers is not None and (seconds := asked_wait(headers)) is not None:
            return seconds
    return None


@dataclass(frozen=True, slots=True)
class BatchRoutes:
    """Files and batches at one server.

    All raise `LLMError`s only. A server that has no such routes is an `UnsupportedError` of `upload` and `create`; an
    id that it does not know (any more) a `RequestRefusedError` whose `status` is 404.

    Parameters
    ----------
    client
        A client of the SDK, which signs.
    origin
        What errors name.
    headers
        Further headers of each request.
    timeout
        Seconds of each attempt; of a file that is sent or fetched, seconds of silence.
    max_retries
        Further attempts; None: as the client.
    secrets, renew
        As of `wire.attempts.HttpRequest`.

    """

    client: Any
    origin: Origin
    _: KW_ONLY
    headers: Mapping[str, str] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    secrets: tuple[Secret, ...] = ()
    renew: Renew | None = None

    async def upload(self, path: Path, name: str) -> str:
        """Send a file of requests under a name, a little of it in memory at a time; return the id that it has there.

        Sent again from its start where that may help: then the server may keep one that nobody asks for.

        Raises
        ------
        ConfigurationError
            The file cannot be read.
        UnsupportedError
            The server has no such route.

        """
        file = FileUpload(path, name)
        try:
            file.check()
        except OSError as error:
            raise ConfigurationError(
                f"{path}, the file of the batch's requests, cannot be read: {error.strerror or error}.",
                "Run the cell again: the file is written anew.",
            ) from None
        request = self._request("/files", {"purpose": "batch"}, file=file)
        try:
            fetched = await self._fetch(request)
        except EndpointNotFoundError as error:
            raise self._no_routes(error) from error.__cause__
        except RequestRefusedError as error:
            if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                error.hint = "This server takes smaller files: ask for fewer rows at once."
            raise
        except ServerFailedError as error:
            if "files_settings is not set" not in error.message:  # the proxy LiteLLM
                raise
            raise self._no_routes(error) from error.__cause__
        document = fetched.document
        if isinstance(document, str) and read_error_body(document).page:
            raise self._no_routes(ProviderError("", status=HTTPStatus.OK, body=document))
        identity = document.get("id") if isinstance(document, dict) and not document.get("error") else None
        if not isinstance(identity, str) or not identity:
            raise self._no_answer(document, request)
        return self._checked(identity, request)

    async def create(
        self, file_id: str, endpoint: str, metadata: Mapping[str, str], *, window: str = "24h", key: str
    ) -> RemoteBatch:
        """Create a batch of the requests in a file that was sent. It is paid for, so this is asked once.

        Nothing repeats it, except that credentials that were refused (401) are renewed. Where it fails, `is_ambiguous`
        tells whether the batch may have been created nevertheless.

        Parameters
        ----------
        file_id
            As of `upload`.
        endpoint
            What its requests ask, such as `/v1/chat/completions`.
        metadata
            Kept with the batch: at most 16 texts of at most 512 characters.
        window
            In what time it is to be answered.
        key
            Sent as `Idempotency-Key`, by which some servers know a second request of the same.

        Raises
        ------
        UnsupportedError
            The server has no such route.

        """
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": window,
            **({"metadata": dict(metadata)} if metadata else {}),
        }
        request = self._request("/batches", body, headers={"Idempotency-Key": key}, max_retries=0, once=True)
        try:
            fetched = await self._fetch(request)
        except EndpointNotFoundError as error:
            said = read_error_body(error.body).message
            if error.status == HTTPStatus.NOT_FOUND and (file_id in said or _is_about_a_file(said)):
                raise self._gone("file", file_id, error) from error.__cause__
            raise self._no_routes(error) from error.__cause__
        return self._batch(fetched, request)

    async def retrieve(self, batch_id: str) -> RemoteBatch:
        """Return what the server tells of a batch now."""
        return await self._of_batch(self._request(f"/batches/{self._quoted(batch_id)}"), batch_id)

    async def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask for a batch to be cancelled; one that has ended is told of as it is. What is answered already stays."""
        path = f"/batches/{self._quoted(batch_id)}/cancel"
        try:
            return await self._of_batch(self._request(path, method="POST"), batch_id)
        except RequestRefusedError as error:
            if error.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
                raise
            batch = await self.retrieve(batch_id)
            if not batch.ended:
                raise
            return batch

    async def find(self, wanted: Callable[[RemoteBatch], bool], *, most: int = MOST_LISTED) -> RemoteBatch | None:
        """Return the first batch of the server's list that is wanted, all pages, as a rule the newest first.

        None where there is none among the first `most`. Servers that do not say whether there is more are asked on,
        until a page holds nothing new.
        """
        seen: set[str] = set()
        after = ""
        while len(seen) < most:
            params = {"limit": str(_PAGE), **({"after": after} if after else {})}
            request = self._request("/batches", params=params)
            try:
                fetched = await self._fetch(request)
            except EndpointNotFoundError as error:
                if error.status not in _MISSING:
                    raise
                raise self._unlisted(error) from error.__cause__
            page = fetched.document
            rows = page.get("data") if isinstance(page, dict) else page
            if rows is None and isinstance(page, dict) and "data" in page and not page.get("error"):
                rows = []  # an empty list, as some write it
            if not isinstance(rows, list):
                raise self._no_answer(page, request)
            read = (read_batch(row, headers=fetched.headers, secrets=request.known_secrets) for row in rows)
            new = [batch for batch in read if batch is not None and batch.id not in seen]
            for batch in new:
                if wanted(batch):
                    self._checked(batch.id, request)
                    return batch
            seen.update(batch.id for batch in new)
            told = page if isinstance(page, dict) else {}
            last = told.get("last_id")
            after = last if isinstance(last, str) and last else new[-1].id if new else ""
            if not new or told.get("has_more") is False or len(after) > LONGEST_ID:
                return None
        return None

    async def download(self, file_id: str, path: Path) -> int:
        """Fetch a file's content into a new file for the user alone, a little in memory at a time; return its bytes.

        `path` gets it once it is whole, in the place of what was there. One that broke off is fetched anew.

        Raises
        ------
        ConfigurationError
            It cannot be written.

        """
        route = f"/files/{self._quoted(file_id)}"

        async def known_size() -> int | None:
            with suppress(LLMError):  # a server without this route
                return count((await self._fetch(self._request(route, max_retries=0))).document, "bytes")
            return None

        try:
            return await download(self._request(f"{route}/content"), path, known_size)
        except EndpointNotFoundError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise _without_hint(error) from error.__cause__
            raise self._gone("file", file_id, error) from error.__cause__
        except LLMError as error:
            raise _without_hint(error) from error.__cause__

    async def delete_file(self, file_id: str) -> None:
        """Delete a file at the server; one that is not there is deleted."""
        try:
            await self._fetch(self._request(f"/files/{self._quoted(file_id)}", method="DELETE"))
        except EndpointNotFoundError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _request(self, path: str, body: Mapping[str, Any] | None = None, **known: Any) -> HttpRequest:
        headers = {**(self.headers or {}), **known.pop("headers", {})}
        check_headers(reveal(headers))
        known = {"timeout": self.timeout, "max_retries": self.max_retries, "secrets": self.secrets, **known}
        return HttpRequest(self.client, self.origin, path, body, headers, renew=self.renew, **known)

    async def _fetch(self, request: HttpRequest) -> Fetched:
        try:
            return await fetch(request)
        except LLMError as error:
            raise _without_hint(error) from error.__cause__

    async def _of_batch(self, request: HttpRequest, batch_id: str) -> RemoteBatch:
        try:
            fetched = await self._fetch(request)
        except EndpointNotFoundError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            raise self._gone("batch", batch_id, error) from error.__cause__
        return self._batch(fetched, request, batch_id)

    def _batch(self, fetched: Fetched, request: HttpRequest, asked: str = "") -> RemoteBatch:
        batch = read_batch(fetched.document, asked=asked, headers=fetched.headers, secrets=request.known_secrets)
        if batch is None:
            raise self._no_answer(fetched.document, request)
        self._checked(batch.id, request)
        return batch

    def _no_answer(self, document: object, request: HttpRequest) -> LLMError:
        is_error = isinstance(document, dict) and error_in(document)
        return _without_hint(
            translate(ErrorDocument(document, malformed=not is_error), self.origin, request.known_secrets)
        )

    def _checked(self, identity: str, request: HttpRequest) -> str:
        """Return an id that a server gave, where it can be kept and asked for."""
        self._quoted(identity)
        if holds(identity, request.known_secrets):
            raise ProtocolError(f"{self.origin} gave an id that holds a secret.", origin=self.origin)
        return identity

    def _quoted(self, identity: str) -> str:
        """Return an id as one step of a URL's path."""
        steps = {step.strip() for step in re.split(r"[/\\]", identity)}  # also quoted, some servers take them for steps
        if steps & {"", ".", ".."} or len(identity) > LONGEST_ID or not identity.isprintable():
            shown = f"{one_line(identity, 40)!r}, of {len(identity):,} characters" if identity else "an empty one"
            raise ProtocolError(
                f"{self.origin}: no file or batch can have this id: {hide(shown, self.secrets)}.",
                "The fault is the server's, or of a proxy before it.",
                origin=self.origin,
            )
        return quote(identity, safe="", errors="replace")

    def _no_routes(self, error: ProviderError) -> LLMError:
        """Return the error for a server without these routes; `error` itself where it says something else."""
        body = read_error_body(error.body)
        if error.status is None or HTTPStatus.MULTIPLE_CHOICES <= error.status < HTTPStatus.BAD_REQUEST:
            return error  # a redirect to elsewhere
        if body.message.lower().startswith("resource not found"):  # Azure: the endpoint or its version, said already
            return error
        said = f"{error.status}{f', {body.message}' if body.message else ''}"
        return UnsupportedError(
            one_line(f"{self.origin} has no Files and Batches routes: it answered {said}", 600).rstrip(".") + ".",
            _NO_ROUTES,
        )

    def _unlisted(self, error: ProviderError) -> LLMError:
        said = read_error_body(error.body).message or "nothing"
        return UnsupportedError(
            one_line(f"{self.origin} does not list its batches: it answered {error.status}, {said}", 600).rstrip(".")
            + ".",
            "Only the account at its provider shows whether a batch was created there.",
        )

    def _gone(self, what: str, identity: str, error: ProviderError) -> RequestRefusedError:
        said = read_error_body(error.body).message
        return RequestRefusedError(
            one_line(f"{self.origin} has no {what} {identity}: it answered {error.status}, {said or 'not found'}", 600),
            "It was deleted or has expired, or is of another account, project or key; or base_url is another server's.",
            origin=self.origin,
            status=error.status,
            request_id=error.request_id,
            body=error.body,
        )


def _is_about_a_file(said: str) -> bool:
    """Return whether a server's words are about a file that it does not know, and not about the URL.

    >>> _is_about_a_file("No such file: f"), _is_about_a_file("File Not Found")
    (True, False)
    """
    return said.lower().strip(" .") != "file not found" and bool(_UNKNOWN_FILE.search(said))


def _without_hint(error: LLMError) -> LLMError:
    """Take back a hint that is about cells that ask at once."""
    if "--dry-run" in error.hint or "--param" in error.hint:
        error.hint = ""
    elif "--api" in error.hint:
        error.hint = "Check base_url: it usually ends in /v1."
    return error
