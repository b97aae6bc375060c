"""Kubernetes manifests against the published schemas of their kinds, where no unknown field is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_FILE = Path(__file__).parents[1] / "schemas" / "kubernetes.json"
_SCHEMAS: dict[str, Any] = json.loads(_FILE.read_text())
KINDS = frozenset(_SCHEMAS["kinds"])


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest, by where it is. Errors: KeyError for a kind without a schema."""
    schema = {**_SCHEMAS["kinds"][f"{manifest['apiVersion']}/{manifest['kind']}"], "$defs": _SCHEMAS["$defs"]}
    errors = Draft202012Validator(schema).iter_errors(manifest)
    name = f"{manifest['kind']}/{manifest['metadata']['name']}"
    return [f"{name}: {error.json_path}: {error.message[:200]}" for error in errors]
