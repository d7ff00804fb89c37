"""Characters that a terminal obeys or that turn the direction of text: a model's are shown, not sent on."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PICTURES = 0x2400  # ␀, and those of the other control characters of ASCII after it
_DELETE = 0x7F


def visible(text: str) -> str:
    r"""Return text in which control characters are seen: ␛ for ESC, {U+202E} for one that has no picture.

    Line ends and tabs stay; `\r\n` is a line end. All else is the same, byte for byte.

    >>> visible("\x1b[31mred\x07"), visible("a\u202eb"), visible("a\r\nb\tc")
    ('␛[31mred␇', 'a{U+202E}b', 'a\nb\tc')

    """
    if _CONTROL.search(text) is None:
        return text
    return _CONTROL.sub(_shown, text.replace("\r\n", "\n"))


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < ord(" "):
        return chr(_PICTURES + code)
    return "\u2421" if code == _DELETE else f"{{U+{code:04X}}}"
