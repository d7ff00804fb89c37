"""What an answer holds beside its text: images, calls of the server's own tools, whatever else it sends, as data."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from llm_magic.events import Event, ImageReceived, ItemReceived, TextDelta
from llm_magic.images.formats import media_type
from llm_magic.messages import DISPLAYED, Image
from llm_magic.wire.citations import Citations, flattened, read_citation
from llm_magic.wire.documents import says
from llm_magic.wire.reasoning import CHAT_FIELDS

_DEEPEST = 8
"""Levels of an item in which images are looked for."""
_MEDIA_TYPE = re.compile(r"image/[\w.+-]{1,40}")
_DATA = re.compile(r"data:", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)


def image_of(value: str) -> Image | None:
    """Return the image that a data URL, the URL of one, or base64 is; None for what is none of these.

    The media type is what the bytes tell. Where they tell none, it is that of the URL, but none of those that are
    shown as images.

    >>> image_of("data:image/png;base64,R0lGODlh"), image_of("https://a.example/i.png"), image_of("R0lGODlh")
    (Image(image/gif, 6 bytes), Image(url='https://a.example/i.png'), Image(image/gif, 6 bytes))
    >>> image_of("data:image/svg+xml;utf8,<svg/>"), image_of("file:///etc/passwd")
    (Image(image/svg+xml, 6 bytes), None)

    """
    if _WEB.match(value):
        return Image(url=value)
    declared, described, data = "", "base64", value
    if _DATA.match(value):
        described, _, data = value[len("data:") :].partition(",")
        declared = described.partition(";")[0].strip().lower()
    try:
        if "base64" in described.lower():
            packed = b"".join(data.encode("ascii").split()).rstrip(b"=")
            content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        else:
            content = unquote_to_bytes(data)
    except ValueError:
        return None
    told = media_type(content[:16])
    if told is None and (not _MEDIA_TYPE.fullmatch(declared) or not content):
        return None
    return Image(content, told or (declared if declared not in DISPLAYED else "image/x-unknown"))


class Items:
    """The images and items of one answer: each image told once, each item when it comes and when it has changed."""

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._images: set[int] = set()  # hashes of their texts
        self._places: dict[object, int] = {}
        self._told: list[Mapping[str, Any]] = []

    def image(self, value: object, out: list[Event]) -> bool:
        """Take an image as a server writes it, and tell whether it is one."""
        if isinstance(value, dict):
            inner = next((value[name] for name in _IMAGE_NAMES if value.get(name)), None)
            return self.image(inner, out)
        if not isinstance(value, str):
            return False
        known = hash(value)
        if known not in self._images:
            image = image_of(value)
            if image is None:
                return False
            self._images.add(known)
            out.append(ImageReceived(image, self._index))
        return True

    def item(self, item: Mapping[str, Any], out: list[Event], *names: object) -> None:
        """Take an item, known by any of its `names` when it comes again; its images are told by themselves."""
        names = tuple(name for name in names if isinstance(name, (str, int)))
        place = next((self._places[name] for name in names if name in self._places), len(self._told))
        for name in names:
            self._places.setdefault(name, place)
        item = self._without_images(item, out, _DEEPEST)
        if place == len(self._told):
            self._told.append(item)
        elif self._told[place] == item:
            return
        self._told[place] = item
        out.append(ItemReceived(place, item, self._index))

    def _without_images(self, value: Any, out: list[Event], depth: int) -> Any:
        """Return a value without the texts that are images of their own, which are told."""
        if depth and isinstance(value, list):
            return [self._without_images(each, out, depth - 1) for each in value]
        if not depth or not isinstance(value, dict):
            return value
        made = value.get("result") if value.get("type") == "image_generation_call" else None
        return {
            name: self._without_images(each, out, depth - 1)
            for name, each in value.items()
            if not (
                isinstance(each, str) and (each is made or each[:11].lower() == "data:image/") and self.image(each, out)
            )
        }


_IMAGE_NAMES = ("image_url", "url", "b64_json", "image", "data")
"""Fields that hold an image, or an object that does."""

_READ_ELSEWHERE = frozenset(
    {"content", "role", "refusal", "tool_calls", "function_call", "name", "parsed", "token_ids", "prompt_token_ids"}
    | {"thinking", "signature", "thought_signatures"}
    | (CHAT_FIELDS - {"provider_specific_fields"})  # which may hold citations, too
)
"""Fields of a delta that are text, reasoning or calls, or say nothing to a reader."""
_CITED = ("annotations", "citations", "references", "search_results", "web_search")
"""Fields that hold citations, of a delta or of the whole document."""
_DOCUMENT_ITEMS = (
    *("images", "videos", "related_questions", "moderation"),
    *("grounding_metadata", "vertex_ai_grounding_metadata"),
)
"""Fields of a whole document that are items."""
IN_DOCUMENT = frozenset([*_CITED, *_DOCUMENT_ITEMS])
"""Fields of a whole document beside its choices that say something of an answer."""


class Beside:
    """What one answer of the Chat Completions API holds beside its text: fields of its deltas, or of its message."""

    def __init__(self, index: int = 0) -> None:
        self._citations = Citations(index)
        self._items = Items(index)
        self._index = index
        self._gathered: dict[str, Any] = {}  # fields that come in pieces
        self._new: set[str] = set()  # those that have grown since they were told
        self._parts = 0

    def read(self, delta: Mapping[str, Any], out: list[Event]) -> None:
        """Take a delta or message."""
        for name, value in delta.items():
            if name in _READ_ELSEWHERE or not value or not isinstance(value, (dict, list)):
                continue
            if name == "audio" and isinstance(value, dict):
                self._audio(value, delta, out)
            elif name in _CITED:
                self._gather(name, self._citations.add_all(value, out))
            elif name == "images":
                images = value if isinstance(value, list) else [value]
                self._gather(name, [each for each in images if not self._items.image(each, out)])
            elif isinstance(value, dict):
                self._gather(name, self._without_citations(value, out))
            else:
                self._gather(name, value)
        if isinstance(delta.get("content"), list):
            self._content(delta["content"], out)

    def read_document(self, document: Mapping[str, Any], out: list[Event]) -> None:
        """Take what stands beside the choices."""
        if IN_DOCUMENT.isdisjoint(document):
            return
        lists = {name: document.get(name) for name in _CITED if name != "citations"}
        self._citations.add_results(document.get("citations"), list(lists.values()), out)
        for name, found in lists.items():
            others = [each for each in flattened(found) if isinstance(each, dict) and not read_citation(each)]
            if others := list(filter(says, others)):  # a file of the prompt's own has a title, and no address
                self._items.item({"type": name, name: others}, out, name)
        for name in _DOCUMENT_ITEMS:
            value = document.get(name)
            if isinstance(value, (dict, list)) and says(value):
                self._items.item({"type": name, name: value}, out, name)

    def _audio(self, audio: Mapping[str, Any], delta: Mapping[str, Any], out: list[Event]) -> None:
        """Take audio, whose transcript is the text of an answer that has no other."""
        said = audio.get("transcript")
        if isinstance(said, str) and said and not delta.get("content"):
            out.append(TextDelta(said, self._index))
        self._gather("audio", dict(audio))

    def _without_citations(self, fields: Mapping[str, Any], out: list[Event]) -> dict[str, Any]:
        """Take the citations of an object that a server adds of its own (Azure's context, LiteLLM's fields)."""
        rest = {name: value for name, value in fields.items() if name not in _READ_ELSEWHERE and name not in _CITED}
        for name in _CITED:
            if others := self._citations.add_all(fields.get(name), out):
                rest[name] = others
        return rest

    def _content(self, parts: list[Any], out: list[Event]) -> None:
        """Take the parts of a content that are no text."""
        for part in parts:
            if not isinstance(part, dict) or part.get("thinking"):
                continue
            if isinstance(part.get("text"), str):
                self._gather("annotations", self._citations.add_all(part.get("annotations"), out))
            elif "image" in str(part.get("type")) and self._items.image(part, out):
                pass
            elif "reference" in str(part.get("type")) and (cited := read_citation(part)) is not None:
                self._citations.add(cited, out)
            elif says(part):
                self._parts += 1
                self._items.item(part, out, ("content", self._parts))

    def _gather(self, name: str, value: Any) -> None:
        if says(value):
            self._gathered[name] = joined(self._gathered.get(name), value)
            self._new.add(name)

    def end(self, out: list[Event]) -> None:
        """Tell of the fields that have been gathered: the answer ended here."""
        for name in [name for name in self._gathered if name in self._new]:
            self._items.item({"type": name, name: settled(self._gathered[name])}, out, name)
        self._new.clear()


class _Pieces(list[str]):
    """A text that comes in pieces."""


def joined(known: Any, more: Any) -> Any:
    """Return a value that comes in pieces with one more: texts are joined, lists go on, of objects each member does.

    Ids and the like are not joined.

    >>> settled(joined({"id": "a", "data": "Ukl"}, {"id": "a", "data": "GR", "expires_at": 1}))
    {'id': 'a', 'data': 'UklGR', 'expires_at': 1}

    """
    if isinstance(more, str):
        pieces = known if isinstance(known, _Pieces) else _Pieces([known] if isinstance(known, str) else [])
        pieces.append(more)
        return pieces
    if isinstance(more, dict):
        members = dict(known) if isinstance(known, dict) else {}
        for name, value in more.items():
            if value is not None or name not in members:
                members[name] = value if name in _WHOLE else joined(members.get(name), value)
        return members
    if isinstance(more, list):
        entries = list(known) if isinstance(known, list) and not isinstance(known, _Pieces) else []
        for each in more:
            _go_on(entries, each)
        return entries
    return more


def _go_on(entries: list[Any], more: Any) -> None:
    """Add an entry to a list, unless it is there; one of the same `index` is the same, further on."""
    number = more.get("index") if isinstance(more, dict) else None
    for place in range(max(0, len(entries) - _COMPARED), len(entries)):
        known = entries[place]
        if isinstance(number, int) and isinstance(known, dict) and known.get("index") == number:
            entries[place] = known | {name: value for name, value in more.items() if value is not None}
            return
        if known == more:
            return
    entries.append(more)


_COMPARED = 100
"""Entries of a list, from its end, that a further one is compared with."""


def settled(value: Any) -> Any:
    """Return a value whose texts are whole."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: settled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [settled(each) for each in value]
    return value


_WHOLE = frozenset({"id", "type", "role", "name", "format", "object", "status", "index"})
"""Members that are never a piece of a text."""
