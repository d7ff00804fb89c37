"""Formats of JSON Schema as patterns, for servers that know patterns but not the format."""

from __future__ import annotations

from collections.abc import Mapping

_YEAR = "(0[0-9]{2}[1-9]|0[0-9][1-9]0|0[1-9]00|[1-9][0-9]{3})"
_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = r"(Z|[+-](0[0-9]|1[0-4]):(00|15|30|45))"
_TIME_PARTS = "([0-9]{1,4}H([0-9]{1,2}M)?([0-9]{1,2}S)?|[0-9]{1,4}M([0-9]{1,2}S)?|[0-9]{1,5}S)"
_LABEL = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

NAIVE_DATETIME = f"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}$"
NAIVE_TIME = f"^{_CLOCK}$"

_PATTERNS: Mapping[str, str] = {
    "date": f"^{_YEAR}-{_MONTH_DAY}$",
    "time": rf"^{_CLOCK}(\.[0-9]{{1,6}})?{_ZONE}$",
    "date-time": rf"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}(\.[0-9]{{1,6}})?{_ZONE}$",
    "duration": f"^P([0-9]{{1,4}}D(T{_TIME_PARTS})?|T{_TIME_PARTS})$",
    "email": rf"^[A-Za-z0-9][A-Za-z0-9_+-]{{0,30}}(\.[A-Za-z0-9_+-]{{1,30}}){{0,2}}@({_LABEL}\.){{1,3}}[a-z]{{2,12}}$",
    "hostname": rf"^({_LABEL}\.){{0,4}}[a-z]([a-z0-9-]{{0,20}}[a-z0-9])?$",
    "ipv4": rf"^({_BYTE}\.){{3}}{_BYTE}$",
    "ipv6": "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "uri": r"^[a-z][a-z0-9+-]{1,15}://[A-Za-z0-9-]{1,40}(\.[A-Za-z0-9-]{1,40}){0,4}(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{0,60}){0,8}$",
    "json-pointer": "^(/[A-Za-z0-9_-]{1,40}){0,8}$",
}
PATTERNS: Mapping[str, str] = {
    **_PATTERNS,
    "idn-email": _PATTERNS["email"],
    "idn-hostname": _PATTERNS["hostname"],
    **dict.fromkeys(("uri-reference", "iri", "iri-reference"), _PATTERNS["uri"]),
}
"""Narrower than the formats in corners that no model needs (quoted e-mail names, `::` in
addresses), and never wider, but for 29 February."""
