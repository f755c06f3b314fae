"""The JSON schema of the answer of `verify --json`."""

from __future__ import annotations

from typing import Any

from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.explain import RULES


def answer_schema() -> dict[str, Any]:
    """Schema (draft 2020-12) of `verify --json`: one folder's answer, or one of several."""
    text = {"type": "string"}
    check = _closed(
        {
            "rule": {"enum": list(RULES), "description": "verify --explain RULE says what it asks"},
            "verdict": {"enum": [verdict.value for verdict in CheckVerdict]},
            "observed": text,
            "limit": text,
            "detail": text,
        }
    )
    ok = {"type": "boolean", "description": "The exit code is 0; with --strict, every rule passes"}
    folder = _closed(
        {
            "folder": {"type": "string", "description": "As it was named"},
            "rules": {"type": "string", "description": "Name of the preset or file"},
            "strict": {"type": "boolean"},
            "ok": ok,
            "checks": {"type": "array", "items": {"$ref": "#/$defs/check"}, "minItems": 1},
        }
    )
    text_or_none = {"type": ["string", "null"]}
    unread = _closed(
        {
            "folder": {"type": "string", "description": "As it was named; it could not be checked"},
            "ok": {"const": False},
            "error": _closed(
                {
                    "what": text,
                    "where": text_or_none,
                    "got": text_or_none,
                    "expected": text_or_none,
                    "next_step": text_or_none,
                    "exit_code": {"type": "integer"},
                }
            ),
        }
    )
    each = {"oneOf": [{"$ref": "#/$defs/folder"}, {"$ref": "#/$defs/unread"}]}
    several = _closed({"ok": ok, "folders": {"type": "array", "items": each}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgolf-sweep verify --json",
        "oneOf": [{"$ref": "#/$defs/folder"}, {"$ref": "#/$defs/several"}],
        "$defs": {"check": check, "folder": folder, "unread": unread, "several": several},
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with all of these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
