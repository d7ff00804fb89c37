"""The spellings of a secret: as it is, in base64, and escaped for URLs, JSON and HTML, once or several times."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

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


_NO_LETTERS = bytes(
    code for code in range(256) if not chr(code).isascii() or not chr(code).isalnum() or code in b"ntrbf"
)
"""What is left out where texts are compared by letters: some of these are line ends and such after a backslash."""
_FEW_LETTERS = 4
_LEVELS = 6
_ESCAPES = re.compile(r"[%\\&]")
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_UNICODE = re.compile(r"\\+u([0-9A-Fa-f]{4})")


def may_hold(text: str, looked_for: Iterable[str]) -> bool:
    r"""Return False where no secret is in a text, however it is escaped: letters and digits alone tell it, and fast.

    >>> may_hold(r"see s\u00333cret&#45;value", ["s33cret-value"]), may_hold("50% & more", ["s3cret-value"])
    (True, False)

    """
    wanted = [b"" if _ESCAPES.search(secret) else _letters(secret) for secret in looked_for]
    if any(len(letters) < _FEW_LETTERS for letters in wanted):
        return True  # what looks escaped by itself, or has hardly any letters, is not told apart here
    for _ in range(_LEVELS):
        found = _letters(text)
        if any(letters in found for letters in wanted):
            return True
        before, text = text, _unescaped(text)
        if text == before:
            return False
    return True


def _letters(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").translate(None, _NO_LETTERS)


def _unescaped(text: str) -> str:
    """Return a text with one level of escapes taken away."""
    if _PERCENT.search(text):
        text = unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    if "\\" in text:
        text = _UNICODE.sub(lambda found: chr(int(found[1], 16)), text)
    return html.unescape(text) if "&" in text else text
