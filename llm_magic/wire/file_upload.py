"""A file sent as `multipart/form-data`, read from disk while it is sent.

Source: https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_magic.private_files import require_plain

SLOWEST = 1 << 15
"""Bytes a second of the slowest line over which a file is still sent: what takes longer is given up."""


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A file and the name under which it is sent; opened anew for each attempt, so that each begins at its start."""

    path: Path
    name: str

    @property
    def longest(self) -> float:
        """Seconds that sending it may take."""
        return self.path.stat().st_size / SLOWEST

    def check(self) -> None:
        """Raise OSError where it cannot be read, or is no plain file."""
        require_plain(self.path, self.path.stat())  # opening a pipe would wait
        with self.path.open("rb"):
            pass

    def post(self, client: Any, path: str, fields: Mapping[str, Any], arguments: dict[str, Any]) -> Any:
        """Send it over a client of the SDK, beside other fields of the form; return what the SDK does."""
        from openai import OpenAI

        options = arguments["options"]
        form = {"Content-Type": "multipart/form-data"}  # the HTTP client adds the boundary
        arguments = {**arguments, "body": fields, "options": {**options, "headers": {**options["headers"], **form}}}
        return (self._post if isinstance(client, OpenAI) else self._post_async)(client, path, arguments)

    def _post(self, client: Any, path: str, arguments: dict[str, Any]) -> Any:
        with self.path.open("rb") as opened:
            return client.post(path, files=[("file", (self.name, opened, "application/jsonl"))], **arguments)

    async def _post_async(self, client: Any, path: str, arguments: dict[str, Any]) -> Any:
        with self.path.open("rb") as opened:
            return await client.post(path, files=[("file", (self.name, opened, "application/jsonl"))], **arguments)
