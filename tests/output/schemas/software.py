"""Things of software projects that are described by JSON Schema, written anew: fields, and which are required."""

from __future__ import annotations

from typing import Any

from fields import FLAG, SEMVER, SHA, SLUG, formatted, matching, one_of, some, text, whole

SOFTWARE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "package": (
        {
            "name": matching(r"^(@[a-z0-9~-][a-z0-9._~-]{0,8}/)?[a-z0-9~-][a-z0-9._~-]{0,12}$"),
            "version": SEMVER,
            "private": FLAG,
            "license": one_of("MIT", "Apache-2.0", "BSD-3-Clause"),
        },
        ["name", "version"],
    ),
    "workflow_step": (
        {
            "id": matching(r"^[_a-zA-Z][\w-]{0,10}$"),
            "run": text(),
            "uses": matching(r"^[\w.-]{1,12}/[\w.-]{1,12}@v\d$"),
            "timeout-minutes": whole(1, 360),
            "continue-on-error": FLAG,
        },
        ["id"],
    ),
    "compose_service": (
        {
            "image": matching(r"^[a-z0-9]{2,10}(:[\w.-]{1,8})?$"),
            "ports": some(matching(r"^\d{2,5}:\d{2,5}$"), 2),
            "restart": one_of("no", "always", "on-failure", "unless-stopped"),
            "mem_limit": matching(r"^\d{1,4}[mg]$"),
        },
        ["image"],
    ),
    "k8s_container": (
        {
            "name": SLUG,
            "image": text(),
            "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
            "containerPort": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 65536},
        },
        ["name", "image"],
    ),
    "openapi_parameter": (
        {
            "name": SLUG,
            "in": one_of("query", "header", "path", "cookie"),
            "required": FLAG,
            "schema": {"type": "object", "properties": {"type": one_of("string", "integer")}, "required": ["type"]},
        },
        ["name", "in"],
    ),
    "tsconfig": (
        {
            "target": {"anyOf": [one_of("es5", "es2020", "esnext"), matching(r"^[Ee][Ss]20\d{2}$")]},
            "strict": FLAG,
            "lib": some(one_of("dom", "es2020", "webworker"), 3, uniqueItems=True),
            "outDir": matching(r"^\./\w{1,12}$"),
        },
        ["target"],
    ),
    "lint_rule": (
        {"level": {"anyOf": [one_of("off", "warn", "error"), whole(0, 2)]}, "max": whole(0, 200), "ignore": some(SLUG)},
        ["level"],
    ),
    "dependabot_update": (
        {
            "package-ecosystem": one_of("pip", "npm", "docker", "gomod"),
            "directory": matching(r"^/[\w/-]{0,16}$"),
            "interval": one_of("daily", "weekly", "monthly"),
            "open-pull-requests-limit": whole(0, 20),
        },
        ["package-ecosystem", "directory", "interval"],
    ),
    "precommit_hook": (
        {
            "id": SLUG,
            "args": some(matching(r"^--[a-z-]{2,12}$")),
            "language": one_of("python", "node", "system"),
            "always_run": FLAG,
        },
        ["id"],
    ),
    "sbom_component": (
        {
            "type": one_of("library", "application", "framework"),
            "name": SLUG,
            "version": SEMVER,
            "purl": matching(r"^pkg:(pypi|npm)/[a-z0-9-]{2,14}@\d+\.\d+$"),
            "hash": SHA,
        },
        ["type", "name"],
    ),
    "sarif_result": (
        {
            "ruleId": matching(r"^[A-Z]{1,3}\d{3,4}$"),
            "level": one_of("none", "note", "warning", "error"),
            "line": whole(1, 99999),
            "message": text(),
        },
        ["ruleId", "message"],
    ),
    "geo_point": (
        {
            "type": {"const": "Point"},
            "coordinates": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        },
        ["type", "coordinates"],
    ),
    "web_manifest_icon": (
        {
            "src": formatted("uri-reference"),
            "sizes": matching(r"^(\d{2,4}x\d{2,4}|any)$"),
            "purpose": one_of("any", "maskable", "monochrome"),
        },
        ["src", "sizes"],
    ),
    "extension_manifest": (
        {
            "manifest_version": {"const": 3},
            "name": text(1, 20),
            "version": matching(r"^\d{1,3}(\.\d{1,3}){0,3}$"),
            "permissions": some(one_of("tabs", "storage", "cookies"), 3),
        },
        ["manifest_version", "name", "version"],
    ),
    "editor_setting": (
        {
            "editor.tabSize": whole(1, 16),
            "editor.wordWrap": one_of("on", "off", "bounded"),
            "files.eol": one_of("\n", "\r\n", "auto"),
        },
        [],
    ),
}
"""Fields by name, and the names of those that are required."""
