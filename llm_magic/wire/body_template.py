"""JSON bodies that differ in one text: made once, by the SDK, and filled in as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from json.encoder import encode_basestring

from llm_magic.wire.errors import half_of_a_pair


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    r"""A body, in bytes, with a place for one text.

    >>> template = BodyTemplate.split(b'{"model":"m","content":"Say MARK."}', "MARK")
    >>> template.body('"a"\n')
    b'{"model":"m","content":"Say \\"a\\"\\n."}'
    """

    before: bytes
    after: bytes

    @classmethod
    def split(cls, body: bytes, marker: str) -> BodyTemplate | None:
        """Return the template of a body that holds `marker`; None where it does not hold it exactly once."""
        parts = body.split(escaped(marker))
        return cls(*parts) if len(parts) == 2 else None  # noqa: PLR2004 - before and after

    def body(self, text: str) -> bytes:
        """Return the body with this text, as the SDK writes it; raises PromptError for half of a surrogate pair."""
        return b"".join((self.before, escaped(text), self.after))


def escaped(text: str) -> bytes:
    """Return a text as it stands between the quotes of JSON; raises PromptError for half of a surrogate pair."""
    try:
        return encode_basestring(text)[1:-1].encode()
    except UnicodeEncodeError:
        raise half_of_a_pair() from None
