"""Secrets: a value that never shows itself, and the masking of texts, URLs and errors."""

from __future__ import annotations

import copy
import html
import json
import logging
import pickle
import pprint
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from llm_magic.secrets import (
    MASK,
    Secret,
    hidden,
    hide,
    holds,
    is_secret_name,
    masked_headers,
    masked_url,
    reveal,
    secret_url,
    secrets_in,
)
from llm_magic.secrets.exceptions import scrub

VALUE = 'odd "key"&of/<mine>+%~é'
ASCII = 'odd-"key"&of/<mine>+%~x'


class Held(BaseModel):
    key: str


@dataclass
class Kept:
    key: str


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        format,
        lambda key: f"{key}",
        lambda key: f"{key!r:>10}",
        lambda key: "%s %r" % (key, key),  # noqa: UP031 - as logging does it
        "{}".format,
        lambda key: "-".join(iter([key])),
        lambda key: key + "x",
        lambda key: "x" + key,
        lambda key: key.upper() + key.strip() + key[:],
        lambda key: json.dumps({"a": [key], key: 1}),
        lambda key: pprint.pformat({"a": {"b": (key,)}}),
        lambda key: repr(Kept(key)) + repr([key]) + repr({"a": {"b": {key}}}),
        lambda key: TypeAdapter(dict[str, str]).dump_json({"a": key}).decode(),
        lambda key: Held(key=key).model_dump_json() + repr(Held(key=key)),
        lambda key: repr(copy.copy(key)) + repr(copy.deepcopy([key])),
        lambda key: str(key.encode()) + str(list(key)),
        lambda key: logging.LogRecord("n", 10, "f", 1, "%s", (key,), None).getMessage(),
        lambda key: str(ValueError(key)) + repr(ValueError(key)),
    ],
)
def test_a_secret_shows_its_mask(show: object) -> None:
    shown = show(Secret(VALUE))  # type: ignore[operator]
    assert "mine" not in shown
    assert "*" in shown


def test_what_sends_a_secret_gets_its_value() -> None:
    assert reveal({"a": [Secret(VALUE)], "b": (Secret("x"), 1, None)}) == {"a": [VALUE], "b": ("x", 1, None)}
    assert Secret(Secret(VALUE)).reveal() == VALUE
    assert reveal(copy.deepcopy([Secret(VALUE)])) == [VALUE]


def test_secrets_are_equal_by_their_values_and_equal_to_no_text() -> None:
    assert Secret("a") == Secret("a", "shown", key=True)
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a") != MASK
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert not Secret("")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(pickle.PicklingError, match="env:NAME"):
        pickle.dumps({"a": [Secret(VALUE)]}, protocol)


def test_secrets_are_found_in_what_holds_them() -> None:
    assert secrets_in({"a": [Secret("x")], "b": {"c": (Secret("y"),)}}, Secret("x"), 3) == (Secret("x"), Secret("y"))


@pytest.mark.parametrize(
    "spelled",
    [
        ASCII,
        quote(ASCII, safe=""),
        quote(ASCII),
        quote(ASCII, safe="").lower(),
        quote_plus(ASCII),
        urlencode({"k": ASCII}),
        quote(quote(ASCII, safe=""), safe=""),
        json.dumps(ASCII),
        json.dumps({"a": json.dumps(ASCII)}),
        json.dumps(json.dumps(json.dumps(ASCII))),
        json.dumps(ASCII).replace("/", "\\/"),
        "".join(f"\\u{ord(character):04x}" for character in ASCII),
        "".join(f"\\u{ord(character):04X}" for character in ASCII),
        "".join(f"%{ord(character):02X}" for character in ASCII),
        html.escape(ASCII),
        html.escape(html.escape(ASCII)),
        "".join(f"&#{ord(character)};" for character in ASCII),
        "".join(f"&#x{ord(character):X};" for character in ASCII),
        html.escape(json.dumps(ASCII)),
        quote(json.dumps(ASCII)),
        quote(json.dumps(json.dumps(ASCII)), safe=""),
        repr(ASCII),
        repr(ASCII.encode()),
        repr({"a": repr(ASCII)}),
        b64encode(ASCII.encode()).decode(),
        b64encode(f"Bearer {ASCII}".encode()).decode(),
        b64encode(f"me:{ASCII}".encode()).decode(),
        b64encode(f"you:{ASCII}".encode()).decode(),
        urlsafe_b64encode(f"someone:{ASCII}".encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_found_however_a_server_spells_it(spelled: str) -> None:
    core = ["mine", "%6D%69%6E%65", *(b64encode(b"\0" * n + b"mine")[2:5].decode() for n in range(3))]
    masked = hide(f"before {spelled} after", [Secret(ASCII)])
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    assert "mine" not in masked
    assert len(masked) < len("before  after") + max(12, len(spelled) // 2), (masked, core)


WAYS = (
    str,
    lambda letter: "".join(f"%{byte:02x}" for byte in letter.encode()),
    lambda letter: "".join(f"%25{byte:02X}" for byte in letter.encode()),
    lambda letter: json.dumps(letter)[1:-1],
    lambda letter: f"\\u{ord(letter):04x}",
    lambda letter: f"\\\\u{ord(letter):04X}",
    lambda letter: f"&#{ord(letter)};",
    lambda letter: f"&amp;#x{ord(letter):x};",
    html.escape,
    lambda letter: f"\\{letter}" if not letter.isalnum() else letter,
    lambda letter: "+" if letter == " " else letter,
    lambda letter: f"\\{letter}" if letter in '/"' else letter,
)


@given(
    st.text(st.sampled_from('abcXYZ0189-_/+=&%\\ "\n\té.u'), min_size=8, max_size=20),
    st.lists(st.sampled_from(WAYS), min_size=20, max_size=20),
    st.text(max_size=5),
)
def test_what_is_masked_is_held(secret: str, ways: list[Callable[[str], str]], around: str) -> None:
    spelled = "".join(way(letter) for way, letter in zip(ways, secret, strict=False))
    for text in (f"{around}{spelled}{around}", json.dumps(spelled), around + b64encode(secret.encode()).decode()):
        assert holds(text, [secret]) or hide(text, [secret]) == hide(text)


@pytest.mark.parametrize("text", ["", "50% & more", "\\n\\u00e9", "a" * 1_000, "s3cret", "%73%33cret"])
def test_what_is_not_there_is_not_held(text: str) -> None:
    assert not holds(text, ["s3cret-value", Secret("another-s3cret")])
    assert not holds(text, [])


def test_letters_outside_ascii() -> None:
    for spelled in (VALUE, quote(VALUE), json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), html.escape(VALUE)):
        assert "mine" not in hide(spelled, [Secret(VALUE)])
    assert "😀" not in hide(json.dumps("key-😀-key-😀"), [Secret("key-😀-key-😀")])


def test_a_short_value_is_looked_for_only_where_it_is_a_key() -> None:
    assert hide("prod and production", [Secret("prod")]) == "prod and production"
    assert hide("prod and production", [Secret("prod", key=True)]) == f"{MASK} and production"
    assert hide("12345678", [Secret("12345678")]) == MASK
    assert hide("1234567", [Secret("1234567")]) == "1234567"
    assert hide("status 401", [Secret("1", key=True)]) == "status 401"


def test_what_an_authorization_is_made_of_is_found_by_itself() -> None:
    basic = "Basic " + b64encode(b"me:pass-word").decode()
    assert hide("token abc.def, pass-word", [Secret("Bearer abc.def"), Secret(basic)]) == f"token {MASK}, {MASK}"


def test_of_a_url_only_what_is_secret_is_masked() -> None:
    url = secret_url("https://me:p%40ss-word@h.example:8443/v1?sub=query-value&api-version=2024-10-21")
    assert repr(url) == "'https://***@h.example:8443/v1?sub=***&api-version=2024-10-21'"
    assert reveal(url).startswith("https://me:p%40ss-word@")
    said = "h.example:8443 refused p@ss-word (p%40ss-word) with query-value at 2024-10-21"
    assert hide(said, [url]) == f"h.example:8443 refused {MASK} ({MASK}) with {MASK} at 2024-10-21"
    assert type(secret_url("https://h.example/v1")) is str


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example/v1", "https://h.example/v1"),
        ("https://token@h.example/v1", "https://***@h.example/v1"),
        ("https://a:b@c:d@h.example/v1", "https://***@h.example/v1"),
        ("https://h.example/openai/deployments/gpt-4o?api-version=2024-10-21&key=1", "https://h.example/openai/deployments/gpt-4o?api-version=2024-10-21&key=***"),
        ("https://h.example/?model=m&deployment=d&v=1&empty=&a=1&a=2", "https://h.example/?model=m&deployment=d&v=1&empty=&a=***&a=***"),
        ("http://[::1", "http://[::1"),
        ("http://me:pw@[::1/v1?k=secret", "http://***@[::1/v1"),
        ("", ""),
    ],
)  # fmt: skip
def test_urls(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_credentials_in_urls_are_masked_in_any_text() -> None:
    assert hide("proxy http://me:pass@p:3128 said no") == "proxy http://***@p:3128 said no"
    assert (
        hide("see https://example.org/@name and me@example.org") == "see https://example.org/@name and me@example.org"
    )


def test_headers_are_masked_by_name_and_by_value() -> None:
    shown = masked_headers(
        {"Authorization": "Bearer a", "X-T": VALUE, "X-Author": "me", "Accept": "b"}, [Secret(VALUE)]
    )
    assert shown == {"Authorization": "Bearer ***", "X-T": MASK, "X-Author": "me", "Accept": "b"}


@pytest.mark.parametrize("name", ["api_key", "X-Api-Key", "Helicone-Auth", "access_token", "Cookie", "sig", "PASSWORD"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "author", "keywords", "prompt_cache_key", "api_key_env"])
def test_names_of_none(name: str) -> None:
    assert not is_secret_name(name)


def test_a_long_text_is_searched_fast() -> None:
    picture = b64encode(bytes(range(256)) * 8192).decode()  # 2.8 MB: nothing quadratic may happen
    assert hide(picture, [Secret(ASCII), Secret("sk-0123456789", key=True)]) == picture


def test_documents_are_masked_whole() -> None:
    known = [Secret(ASCII)]
    document = {"a": [ASCII, {ASCII: (1, None, ASCII.encode())}], "b": Secret("x")}
    assert hidden(document, known) == {"a": [MASK, {MASK: (1, None, MASK.encode())}], "b": MASK}


def _raised() -> BaseException:
    def inner(key: str) -> None:
        raise ValueError(key, {"a": key})

    try:
        try:
            inner(ASCII)
        except ValueError as error:
            error.add_note(f"with {ASCII}")
            raise ExceptionGroup(f"group {ASCII}", [OSError(f"in it {ASCII}")]) from None
    except ExceptionGroup as group:
        return group


def test_an_exception_is_masked_with_all_that_led_to_it() -> None:
    import traceback

    error = _raised()
    scrub(error, [Secret(ASCII)])
    assert isinstance(error, ExceptionGroup)
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    for link in (error, error.exceptions[0], error.__context__):
        told += f"{link} {link!r} {vars(link)} {link.args}"  # type: ignore[union-attr]
    assert "mine" not in told.replace(str(error.message), "")
    assert "with ***" in told


def test_an_exception_that_leads_to_itself_ends() -> None:
    error = ValueError(ASCII)
    error.__cause__ = error
    scrub(error, [Secret(ASCII)])
    assert error.args == (MASK,)


def test_a_header_that_cannot_be_encoded_does_not_show_itself() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "key-é-key".encode("ascii")
    scrub(caught.value, [])
    assert "key" not in f"{caught.value.object!r}{caught.value.args}"
