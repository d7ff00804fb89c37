"""Forty things that real projects describe by JSON Schema, written anew: their fields, and which of these are required."""

from __future__ import annotations

from typing import Any


def text(low: int = 1, high: int = 24, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": low, "maxLength": high, **more}


def matching(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def one_of(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def formatted(name: str) -> dict[str, Any]:
    return {"type": "string", "format": name}


def whole(low: int | None = None, high: int | None = None) -> dict[str, Any]:
    bounds = {"minimum": low, "maximum": high}
    return {"type": "integer", **{key: value for key, value in bounds.items() if value is not None}}


def some(items: dict[str, Any], high: int = 3, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": high, **more}


SEMVER = matching(r"^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})(-[0-9A-Za-z-]{1,8})?$")
FLAG = {"type": "boolean"}
SHA = matching(r"^[0-9a-f]{7,12}$")
SLUG = matching(r"^[a-z][a-z0-9-]{0,14}[a-z0-9]$")

# name: (fields, required)
ENTITIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "package": ({"name": matching(r"^(@[a-z0-9~-][a-z0-9._~-]{0,8}/)?[a-z0-9~-][a-z0-9._~-]{0,12}$"), "version": SEMVER,
                 "private": FLAG, "license": one_of("MIT", "Apache-2.0", "BSD-3-Clause")}, ["name", "version"]),
    "workflow_step": ({"id": matching(r"^[_a-zA-Z][\w-]{0,10}$"), "run": text(), "uses": matching(r"^[\w.-]{1,12}/[\w.-]{1,12}@v\d$"),
                       "timeout-minutes": whole(1, 360), "continue-on-error": FLAG}, ["id"]),
    "compose_service": ({"image": matching(r"^[a-z0-9]{2,10}(:[\w.-]{1,8})?$"), "ports": some(matching(r"^\d{2,5}:\d{2,5}$"), 2),
                         "restart": one_of("no", "always", "on-failure", "unless-stopped"), "mem_limit": matching(r"^\d{1,4}[mg]$")}, ["image"]),
    "k8s_container": ({"name": SLUG, "image": text(), "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
                       "containerPort": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 65536}}, ["name", "image"]),
    "openapi_parameter": ({"name": SLUG, "in": one_of("query", "header", "path", "cookie"), "required": FLAG,
                           "schema": {"type": "object", "properties": {"type": one_of("string", "integer")}, "required": ["type"]}}, ["name", "in"]),
    "tsconfig": ({"target": {"anyOf": [one_of("es5", "es2020", "esnext"), matching(r"^[Ee][Ss]20\d{2}$")]}, "strict": FLAG,
                  "lib": some(one_of("dom", "es2020", "webworker"), 3, uniqueItems=True), "outDir": matching(r"^\./\w{1,12}$")}, ["target"]),
    "lint_rule": ({"level": {"anyOf": [one_of("off", "warn", "error"), whole(0, 2)]}, "max": whole(0, 200), "ignore": some(SLUG)}, ["level"]),
    "dependabot_update": ({"package-ecosystem": one_of("pip", "npm", "docker", "gomod"), "directory": matching(r"^/[\w/-]{0,16}$"),
                           "interval": one_of("daily", "weekly", "monthly"), "open-pull-requests-limit": whole(0, 20)},
                          ["package-ecosystem", "directory", "interval"]),
    "precommit_hook": ({"id": SLUG, "args": some(matching(r"^--[a-z-]{2,12}$")), "language": one_of("python", "node", "system"),
                        "always_run": FLAG}, ["id"]),
    "sbom_component": ({"type": one_of("library", "application", "framework"), "name": SLUG, "version": SEMVER,
                        "purl": matching(r"^pkg:(pypi|npm)/[a-z0-9-]{2,14}@\d+\.\d+$"), "hash": SHA}, ["type", "name"]),
    "sarif_result": ({"ruleId": matching(r"^[A-Z]{1,3}\d{3,4}$"), "level": one_of("none", "note", "warning", "error"),
                      "line": whole(1, 99999), "message": text()}, ["ruleId", "message"]),
    "geo_point": ({"type": {"const": "Point"}, "coordinates": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}},
                  ["type", "coordinates"]),
    "web_manifest_icon": ({"src": formatted("uri-reference"), "sizes": matching(r"^(\d{2,4}x\d{2,4}|any)$"),
                           "purpose": one_of("any", "maskable", "monochrome")}, ["src", "sizes"]),
    "extension_manifest": ({"manifest_version": {"const": 3}, "name": text(1, 20), "version": matching(r"^\d{1,3}(\.\d{1,3}){0,3}$"),
                            "permissions": some(one_of("tabs", "storage", "cookies"), 3)}, ["manifest_version", "name", "version"]),
    "editor_setting": ({"editor.tabSize": whole(1, 16), "editor.wordWrap": one_of("on", "off", "bounded"), "files.eol": one_of("\n", "\r\n", "auto")}, []),
    "patient": ({"resourceType": {"const": "Patient"}, "id": matching(r"^[A-Za-z0-9\-.]{1,12}$"), "gender": one_of("male", "female", "other", "unknown"),
                 "birthDate": formatted("date"), "active": FLAG}, ["resourceType", "id"]),
    "observation": ({"code": matching(r"^\d{1,5}-\d$"), "value": {"type": "number"}, "unit": one_of("mg/dL", "mmHg", "kg"),
                     "taken": formatted("date-time")}, ["code", "value", "unit"]),
    "invoice_line": ({"sku": matching(r"^[A-Z]{2}-\d{4}$"), "quantity": whole(1, 999), "price": matching(r"^\d{1,5}\.\d{2}$"),
                      "taxed": {"type": ["boolean", "null"]}}, ["sku", "quantity", "price"]),
    "bank_transfer": ({"iban": matching(r"^[A-Z]{2}\d{2}[A-Z0-9]{11,14}$"), "amount": {"type": "number"}, "currency": matching(r"^[A-Z]{3}$"),
                       "reference": {"type": ["string", "null"], "maxLength": 20}}, ["iban", "amount", "currency"]),
    "cloud_event": ({"specversion": {"const": "1.0"}, "id": formatted("uuid"), "source": formatted("uri-reference"), "type": text(3, 20),
                     "time": formatted("date-time")}, ["specversion", "id", "source", "type"]),
    "jwk": ({"kty": one_of("RSA", "EC", "oct"), "use": one_of("sig", "enc"), "kid": matching(r"^[\w-]{4,16}$"), "alg": one_of("RS256", "ES256")},
            ["kty", "kid"]),
    "oauth_client": ({"client_id": formatted("uuid"), "redirect_uris": some(formatted("uri"), 2, minItems=1),
                      "grant_types": some(one_of("authorization_code", "refresh_token"), 2, uniqueItems=True)}, ["client_id", "redirect_uris"]),
    "resume_job": ({"company": text(), "position": text(), "startDate": matching(r"^([1-2][0-9]{3}-[0-1][0-9])$"), "url": formatted("uri"),
                    "highlights": some(text(1, 30), 2)}, ["company", "position"]),
    "person": ({"name": text(1, 20), "email": formatted("email"), "phone": matching(r"^\+?[0-9 ()-]{7,16}$"), "age": whole(0, 130)}, ["name", "email"]),
    "calendar_event": ({"summary": text(), "start": formatted("date-time"), "duration": formatted("duration"),
                        "status": one_of("confirmed", "tentative", "cancelled")}, ["summary", "start"]),
    "recipe_step": ({"order": whole(1, 30), "text": text(3, 40), "minutes": {"type": "number"}, "tools": some(text(2, 12), 2)}, ["order", "text"]),
    "movie": ({"title": text(1, 30), "year": whole(1888, 2100), "rating": {"enum": ["G", "PG", "PG-13", "R", None]}, "genres": some(one_of("drama", "comedy", "war"), 2)},
              ["title", "year"]),
    "flight": ({"number": matching(r"^[A-Z]{2}\s?\d{1,4}$"), "from": matching(r"^[A-Z]{3}$"), "to": matching(r"^[A-Z]{3}$"), "seat": matching(r"^\d{1,2}[A-K]$")},
               ["number", "from", "to"]),
    "sensor": ({"id": matching(r"^[0-9A-F]{2}(:[0-9A-F]{2}){5}$"), "ip": formatted("ipv4"), "celsius": {"type": "number"}, "battery": whole(0, 100)}, ["id", "ip"]),
    "dns_record": ({"name": formatted("hostname"), "type": one_of("A", "AAAA", "MX", "TXT"), "ttl": whole(60, 86400), "value": text()}, ["name", "type"]),
    "log_line": ({"level": one_of("debug", "info", "warn", "error"), "time": formatted("date-time"), "msg": text(), "pid": whole(1, 4194304)},
                 ["level", "msg"]),
    "commit": ({"sha": SHA, "message": text(3, 40), "parents": some(SHA, 2), "author": {"$ref": "#/$defs/person"}}, ["sha", "message", "author"]),
    "quiz_question": ({"question": text(5, 40), "options": some(text(1, 12), 4, minItems=2), "answer": whole(0, 3)}, ["question", "options", "answer"]),
    "chat_message": ({"role": one_of("system", "user", "assistant"), "content": {"anyOf": [text(), some({"type": "object",
                      "properties": {"type": {"const": "text"}, "text": text()}, "required": ["type", "text"]}, 2)]}}, ["role", "content"]),
    "chart_axis": ({"field": text(1, 12), "type": one_of("quantitative", "temporal", "nominal"), "scale": {"type": "object", "properties":
                    {"zero": FLAG, "domain": some({"type": "number"}, 2, minItems=2)}, "additionalProperties": False}}, ["field", "type"]),
    "terraform_variable": ({"type": one_of("string", "number", "bool"), "default": {"type": ["string", "number", "boolean", "null"], "maxLength": 12},
                            "sensitive": FLAG}, ["type"]),
    "pipeline_job": ({"stage": one_of("build", "test", "deploy"), "script": {"oneOf": [text(), some(text(), 2, minItems=1)]},
                      "retry": whole(0, 2), "when": one_of("on_success", "manual")}, ["script"]),
    "translation": ({"locale": matching(r"^[a-z]{2}(-[A-Z]{2})?$"), "text": text(), "plural": {"type": "object", "propertyNames":
                     {"enum": ["one", "few", "other"]}, "additionalProperties": text(1, 16)}}, ["locale", "text"]),
    "book": ({"isbn": matching(r"^97[89]-\d-\d{2}-\d{6}-\d$"), "title": text(1, 30), "pages": {"type": "integer", "exclusiveMinimum": 0, "maximum": 5000},
              "authors": some(text(1, 20), 2, minItems=1)}, ["isbn", "title", "authors"]),
    "citation": ({"cff-version": matching(r"^1\.2\.0$"), "doi": matching(r"^10\.\d{4,9}/[A-Za-z0-9._;()/:-]{1,12}$"), "date-released": formatted("date"),
                  "orcid": matching(r"^https://orcid\.org/[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]$")}, ["cff-version", "doi"]),
}  # fmt: skip
