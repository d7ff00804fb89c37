"""Things of records and messages that are described by JSON Schema, written anew: fields, and which are required."""

from __future__ import annotations

from typing import Any

from fields import FLAG, SHA, formatted, matching, one_of, some, text, whole

RECORDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "patient": (
        {
            "resourceType": {"const": "Patient"},
            "id": matching(r"^[A-Za-z0-9\-.]{1,12}$"),
            "gender": one_of("male", "female", "other", "unknown"),
            "birthDate": formatted("date"),
            "active": FLAG,
        },
        ["resourceType", "id"],
    ),
    "observation": (
        {
            "code": matching(r"^\d{1,5}-\d$"),
            "value": {"type": "number"},
            "unit": one_of("mg/dL", "mmHg", "kg"),
            "taken": formatted("date-time"),
        },
        ["code", "value", "unit"],
    ),
    "invoice_line": (
        {
            "sku": matching(r"^[A-Z]{2}-\d{4}$"),
            "quantity": whole(1, 999),
            "price": matching(r"^\d{1,5}\.\d{2}$"),
            "taxed": {"type": ["boolean", "null"]},
        },
        ["sku", "quantity", "price"],
    ),
    "bank_transfer": (
        {
            "iban": matching(r"^[A-Z]{2}\d{2}[A-Z0-9]{11,14}$"),
            "amount": {"type": "number"},
            "currency": matching(r"^[A-Z]{3}$"),
            "reference": {"type": ["string", "null"], "maxLength": 20},
        },
        ["iban", "amount", "currency"],
    ),
    "cloud_event": (
        {
            "specversion": {"const": "1.0"},
            "id": formatted("uuid"),
            "source": formatted("uri-reference"),
            "type": text(3, 20),
            "time": formatted("date-time"),
        },
        ["specversion", "id", "source", "type"],
    ),
    "jwk": (
        {
            "kty": one_of("RSA", "EC", "oct"),
            "use": one_of("sig", "enc"),
            "kid": matching(r"^[\w-]{4,16}$"),
            "alg": one_of("RS256", "ES256"),
        },
        ["kty", "kid"],
    ),
    "oauth_client": (
        {
            "client_id": formatted("uuid"),
            "redirect_uris": some(formatted("uri"), 2, minItems=1),
            "grant_types": some(one_of("authorization_code", "refresh_token"), 2, uniqueItems=True),
        },
        ["client_id", "redirect_uris"],
    ),
    "resume_job": (
        {
            "company": text(),
            "position": text(),
            "startDate": matching(r"^([1-2][0-9]{3}-[0-1][0-9])$"),
            "url": formatted("uri"),
            "highlights": some(text(1, 30), 2),
        },
        ["company", "position"],
    ),
    "person": (
        {
            "name": text(1, 20),
            "email": formatted("email"),
            "phone": matching(r"^\+?[0-9 ()-]{7,16}$"),
            "age": whole(0, 130),
        },
        ["name", "email"],
    ),
    "calendar_event": (
        {
            "summary": text(),
            "start": formatted("date-time"),
            "duration": formatted("duration"),
            "status": one_of("confirmed", "tentative", "cancelled"),
        },
        ["summary", "start"],
    ),
    "recipe_step": (
        {"order": whole(1, 30), "text": text(3, 40), "minutes": {"type": "number"}, "tools": some(text(2, 12), 2)},
        ["order", "text"],
    ),
    "movie": (
        {
            "title": text(1, 30),
            "year": whole(1888, 2100),
            "rating": {"enum": ["G", "PG", "PG-13", "R", None]},
            "genres": some(one_of("drama", "comedy", "war"), 2),
        },
        ["title", "year"],
    ),
    "flight": (
        {
            "number": matching(r"^[A-Z]{2}\s?\d{1,4}$"),
            "from": matching(r"^[A-Z]{3}$"),
            "to": matching(r"^[A-Z]{3}$"),
            "seat": matching(r"^\d{1,2}[A-K]$"),
        },
        ["number", "from", "to"],
    ),
    "sensor": (
        {
            "id": matching(r"^[0-9A-F]{2}(:[0-9A-F]{2}){5}$"),
            "ip": formatted("ipv4"),
            "celsius": {"type": "number"},
            "battery": whole(0, 100),
        },
        ["id", "ip"],
    ),
    "dns_record": (
        {
            "name": formatted("hostname"),
            "type": one_of("A", "AAAA", "MX", "TXT"),
            "ttl": whole(60, 86400),
            "value": text(),
        },
        ["name", "type"],
    ),
    "log_line": (
        {
            "level": one_of("debug", "info", "warn", "error"),
            "time": formatted("date-time"),
            "msg": text(),
            "pid": whole(1, 4194304),
        },
        ["level", "msg"],
    ),
    "commit": (
        {"sha": SHA, "message": text(3, 40), "parents": some(SHA, 2), "author": {"$ref": "#/$defs/person"}},
        ["sha", "message", "author"],
    ),
    "quiz_question": (
        {"question": text(5, 40), "options": some(text(1, 12), 4, minItems=2), "answer": whole(0, 3)},
        ["question", "options", "answer"],
    ),
    "chat_message": (
        {
            "role": one_of("system", "user", "assistant"),
            "content": {
                "anyOf": [
                    text(),
                    some(
                        {
                            "type": "object",
                            "properties": {"type": {"const": "text"}, "text": text()},
                            "required": ["type", "text"],
                        },
                        2,
                    ),
                ]
            },
        },
        ["role", "content"],
    ),
    "chart_axis": (
        {
            "field": text(1, 12),
            "type": one_of("quantitative", "temporal", "nominal"),
            "scale": {
                "type": "object",
                "properties": {"zero": FLAG, "domain": some({"type": "number"}, 2, minItems=2)},
                "additionalProperties": False,
            },
        },
        ["field", "type"],
    ),
    "terraform_variable": (
        {
            "type": one_of("string", "number", "bool"),
            "default": {"type": ["string", "number", "boolean", "null"], "maxLength": 12},
            "sensitive": FLAG,
        },
        ["type"],
    ),
    "pipeline_job": (
        {
            "stage": one_of("build", "test", "deploy"),
            "script": {"oneOf": [text(), some(text(), 2, minItems=1)]},
            "retry": whole(0, 2),
            "when": one_of("on_success", "manual"),
        },
        ["script"],
    ),
    "translation": (
        {
            "locale": matching(r"^[a-z]{2}(-[A-Z]{2})?$"),
            "text": text(),
            "plural": {
                "type": "object",
                "propertyNames": {"enum": ["one", "few", "other"]},
                "additionalProperties": text(1, 16),
            },
        },
        ["locale", "text"],
    ),
    "book": (
        {
            "isbn": matching(r"^97[89]-\d-\d{2}-\d{6}-\d$"),
            "title": text(1, 30),
            "pages": {"type": "integer", "exclusiveMinimum": 0, "maximum": 5000},
            "authors": some(text(1, 20), 2, minItems=1),
        },
        ["isbn", "title", "authors"],
    ),
    "citation": (
        {
            "cff-version": matching(r"^1\.2\.0$"),
            "doi": matching(r"^10\.\d{4,9}/[A-Za-z0-9._;()/:-]{1,12}$"),
            "date-released": formatted("date"),
            "orcid": matching(r"^https://orcid\.org/[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]$"),
        },
        ["cff-version", "doi"],
    ),
}
"""Fields by name, and the names of those that are required."""
