"""The spellings of a secret: as it is, in base64, and escaped for URLs, JSON and HTML, once or several times."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache

SHORTEST = 8
"""Characters from which on a value that is no key is looked for in texts; a shorter key is, as a word of its own."""


@lru_cache(maxsize=64)
def patterns(looked_for: frozenset[str]) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """Return what finds secrets as they are and in base64, and what finds them escaped; None where there are none."""
    texts = sorted(looked_for, key=len, reverse=True)
    if not texts:
        return None, None
    plain = [_alone(text, re.escape(text)) for text in texts] + [part for text in texts for part in _in_base64(text)]
    encoded = [_alone(text, "".join(map(_escaped, text))) for text in texts]
    return re.compile("|".join(plain)), re.compile("|".join(encoded))


def _alone(text: str, pattern: str) -> str:
    return rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if len(text) < SHORTEST else pattern


def _in_base64(text: str) -> Iterator[str]:
    """Yield what base64 makes of a text, wherever in the encoded bytes it begins; what follows belongs to it."""
    data = text.encode("utf-8", "surrogatepass")
    for before, unsure in enumerate((0, 2, 3)):
        known = b64encode(b"\0" * before + data).decode()[unsure : (before + len(data)) * 8 // 6]
        if len(known) >= SHORTEST:
            for spelled in {known, known.replace("+", "-").replace("/", "_")}:
                yield rf"{re.escape(spelled)}[A-Za-z0-9+/_=-]*"
    for whole in (text, f"Bearer {text}"):
        yield re.escape(b64encode(whole.encode("utf-8", "surrogatepass")).decode().rstrip("=")) + "=*"


_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_JSON = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f"}


def _escaped(character: str) -> str:
    """Return a pattern of one character: as it is, or escaped in URLs, JSON or HTML, once or several times."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    code, utf8 = ord(character), character.encode("utf-8", "surrogatepass").hex()
    ways = [
        re.escape(character),
        "".join(rf"\\+u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)),
        "".join(rf"%(?:25)*(?i:{utf8[at : at + 2]})" for at in range(0, len(utf8), 2)),
        rf"&(?:amp;)*#(?:0*{code}|[xX]0*(?i:{code:x}));",
    ]
    if character in _ENTITIES:
        ways.insert(0, rf"&(?:amp;)*{_ENTITIES[character]};")
    if character in _JSON:
        ways.append(rf"\\+{_JSON[character]}")
    if character == " ":
        ways.append(r"\+")
    before = "" if character.isalnum() else r"(?:\\|%(?:25)*5[cC])*"
    return f"{before}(?:{'|'.join(ways)})"
