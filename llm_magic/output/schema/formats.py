"""Formats of strings: their patterns, for decoders that do not know them, and which are checked."""

from __future__ import annotations

from collections.abc import Mapping

_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_YEAR = "(0[0-9]{2}[1-9]|0[0-9][1-9]0|0[1-9]00|[1-9][0-9]{3})"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_FRACTION = r"(\.[0-9]{1,12})?"
_HOURS = "([0-9]{1,5}H([0-9]{1,5}M([0-9]{1,5}S)?)?|[0-9]{1,5}M([0-9]{1,5}S)?|[0-9]{1,5}S)"
_DAYS = "([0-9]{1,5}Y([0-9]{1,5}M([0-9]{1,5}D)?)?|[0-9]{1,5}M([0-9]{1,5}D)?|[0-9]{1,5}D)"
_LABEL = "[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,20}){0,2}"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,5}}"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,32}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_HEX = "[0-9A-Fa-f]"
_GROUP = f"{_HEX}{{1,4}}"
_IPV6 = "|".join(
    [
        f"({_GROUP}:){{6}}({_GROUP}:{_GROUP}|{_IPV4})",
        f"::({_GROUP}:){{0,5}}({_GROUP}:{_GROUP}|{_IPV4})",
        f"::({_GROUP})?",
        *(f"({_GROUP}:){{{before}}}(:{_GROUP}){{1,{7 - before}}}" for before in range(1, 7)),
        *(f"({_GROUP}:){{{before}}}(:{_GROUP}){{0,{5 - before}}}:{_IPV4}" for before in range(1, 6)),
        f"({_GROUP}:){{1,7}}:",
    ]
)
_OF_URI = f"([A-Za-z0-9._~!$&'()*+,;=@/?-]|%{_HEX}{{2}})"
_OF_FIRST = f"([A-Za-z0-9._~!$&'()*+,;=@-]|%{_HEX}{{2}})"
_REST = f"({_OF_URI}|:){{0,300}}(#({_OF_URI}|:){{0,100}})?"
_FRAGMENT = f"#({_OF_URI}|:){{0,100}}"
_BRACKETED = rf"//\[({_IPV6})\](:[0-9]{{0,5}})?(/{_REST})?"

NAIVE_DATETIME = f"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}$"
NAIVE_TIME = f"^{_CLOCK}$"

PATTERNS: Mapping[str, str] = {
    "date": f"^{_YEAR}-{_MONTH_DAY}$",
    "time": f"^{_CLOCK}{_FRACTION}{_ZONE}$",
    "date-time": f"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}{_FRACTION}{_ZONE}$",
    "duration": f"^P([0-9]{{1,5}}W|{_DAYS}(T{_HOURS})?|T{_HOURS})$",
    "email": rf"^{_ATOM}(\.{_ATOM}){{0,3}}@{_HOST}$",
    "hostname": f"^{_HOST}$",
    "uri": f"^[A-Za-z][A-Za-z0-9+.-]{{0,30}}:({_BRACKETED}|{_REST})$",
    "uri-reference": f"^([A-Za-z][A-Za-z0-9+.-]{{0,30}}:{_REST}|{_OF_FIRST}{{0,100}}([/?]{_REST}|{_FRAGMENT})?)$",
    "ipv4": f"^{_IPV4}$",
    "ipv6": f"^({_IPV6})$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "json-pointer": '^(/([^~/"\\\\\\x00-\\x1f]|~[01]){0,60}){0,12}$',
}
"""Of what a format allows only corners are left out that no model needs (quoted e-mail names, leap seconds, URLs of a
thousand characters: a weak model does not end by itself); what they allow beyond it are 29 February of every year, host
names that are too long as a whole, and ports that are none."""

CHECKED = frozenset(
    {"date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
     "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer", "regex"}
)  # fmt: skip
"""Formats that the check here asserts; any other name is a remark."""
