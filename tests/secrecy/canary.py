"""A canary: a secret that is easy to find again, however it is spelled; and a server that repeats it everywhere."""

from __future__ import annotations

import html
import json
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from urllib.parse import quote

from servers import HANG, Answer, Received, chunk


class Canary:
    """A secret with characters that URLs, JSON and HTML escape, around a core that none of them does."""

    def __init__(self) -> None:
        self.core = secrets.token_hex(8)
        self.value = f'Cn&"{self.core}+%~<y'

    def spellings(self) -> list[str]:
        """Return how servers repeat it."""
        value = self.value
        pair = f"me:{value}"
        return [
            value,
            f"Bearer {value}",
            quote(value, safe=""),
            quote(value),
            quote(quote(value, safe=""), safe=""),
            json.dumps(value),
            json.dumps(json.dumps(value)),
            json.dumps(value).replace("/", r"\/"),
            html.escape(value),
            "".join(f"&#{ord(character)};" for character in value),
            "".join(f"\\u{ord(character):04X}" for character in value),
            b64encode(f"Bearer {value}".encode()).decode(),
            b64encode(pair.encode()).decode(),
            b64encode(value.encode()).decode().replace("+", "-").replace("/", "_"),
        ]

    def found_in(self, text: str) -> list[str]:
        """Return where it stands in a text, in whatever spelling: 40 characters around."""
        parts = [re.escape(self.core), "".join(f"&#{ord(character)};" for character in self.core)]
        parts += [rf"(?i:{''.join(f'u{ord(character):04x}.{{0,4}}?' for character in self.core)})"]
        for before in range(3):
            spelled = b64encode(b"\0" * before + self.core.encode()).decode()
            parts.append(re.escape(spelled[(0, 2, 3)[before] : (before + len(self.core)) * 8 // 6]))
        return [text[max(0, match.start() - 60) : match.end() + 20] for match in re.finditer("|".join(parts), text)]

    def arrived_in(self, received: Received) -> bool:
        """Return whether a request carries it, other than in a cookie that the server has set."""
        sent = [line for line in received.header_lines if not line.lower().startswith("cookie:")]
        lines = "\n".join((received.path, *sent, received.body.decode()))
        for match in re.finditer(r"Basic ([A-Za-z0-9+/]+=*)\n", lines):
            lines += b64decode(match[1]).decode("utf-8", "replace")
        return self.core in lines


OUTCOMES = ("success", "refused", "redirected", "broken", "silent")


def echo(canary: Canary, outcome: Callable[[], str]) -> Callable[[Received], Answer]:
    """Return what answers each request as `outcome` says, repeating the canary wherever it can."""
    said = " ".join(canary.spellings())
    headers = {f"x-echo-{number}": spelled for number, spelled in enumerate(canary.spellings())}
    headers |= {"x-request-id": f"req-{canary.value}", "set-cookie": f"session={canary.value}"}

    def answer(received: Received) -> Answer:
        what = outcome()
        if what == "silent":
            return Answer([HANG])
        if what == "redirected":
            location = f"http://me:{quote(canary.value)}@127.0.0.1:9/{quote(canary.value)}?k={quote(canary.value)}"
            return Answer([], 307, headers | {"location": location})
        if what == "refused":
            document = {"error": {"message": f"no: {said}", "code": canary.value, "param": canary.value}}
            return Answer([json.dumps(document).encode()], 401, headers | {"content-type": "application/json"})
        if what == "success" and received.method == "GET":
            listed = b'{"data": [{"id": "m", "object": "model"}]}'
            return Answer([listed], 200, headers | {"content-type": "application/json"})
        steps = [f"data: {json.dumps(chunk('Hello'))}\n\n".encode()]
        if what == "broken":
            steps.append(f"data: {json.dumps({'error': {'message': said, 'code': canary.value}})}\n\n".encode())
        else:
            steps += [f"data: {json.dumps(chunk(finish='stop'))}\n\n".encode(), b"data: [DONE]\n\n"]
        return Answer(steps, 200, headers | {"content-type": "text/event-stream"})

    return answer
