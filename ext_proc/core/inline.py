"""Policies that a request brings along, in the forms that archgw (2025) and Plano (2026) published.

    "metadata": {"archgw_preference_config": "- name: …\\n  model: …\\n  usage: …"}      (2025)
    "metadata": {"archgw_preference_config": "- model: …\\n  routing_preferences: [{name, description}]"}
    "routing_preferences": [{"name": …, "description": …, "models": [a, b]}]            (2026)

A client writes these, so they are bounded in size, number and depth, and what is not in one of the
forms counts as absent: the file's own policies apply.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from ext_proc.core import spans
from ext_proc.core.spans import Edit
from ext_proc.core.types import InlinePolicy, Policy

MAX_TEXT_CHARS = 16_384
MAX_POLICIES = 64
MAX_NAME_CHARS = 128
MAX_DESCRIPTION_CHARS = 1_024
MAX_MODELS = 8
_MAX_YAML_DEPTH = 6
_MAX_YAML_EVENTS = 2_000
"""Room for 64 policies of ten fields. Reading 16 kB of nothing but brackets would take 40 ms."""
_FIELD = "routing_preferences"
_METADATA = "metadata"
_METADATA_KEY = "archgw_preference_config"


def read(fields: dict[str, Any]) -> tuple[InlinePolicy, ...] | None:
    """The policies in a parsed body; None if it has none, an empty tuple if none of them is usable."""
    metadata = fields.get(_METADATA)
    if _FIELD in fields:
        given = fields[_FIELD]
    elif isinstance(metadata, dict) and _METADATA_KEY in metadata:
        given = _from_yaml(metadata[_METADATA_KEY])
    else:
        return None
    if not isinstance(given, list):
        return ()
    policies: dict[str, InlinePolicy] = {}
    for item in given[:MAX_POLICIES]:
        for policy in _policies_of(item):
            policies.setdefault(policy.policy.name, policy)
    return tuple(policies.values())[:MAX_POLICIES]


def removals(body: bytes) -> list[Edit]:
    """The edits that take both forms out of a body: no provider knows these fields."""
    edits = spans.removals(body, _FIELD)
    for metadata in spans.find(body, _METADATA):
        if body[metadata.value_start : metadata.value_start + 1] == b"{":
            edits += spans.removals(body, _METADATA_KEY, metadata.value_start)
    return edits


def _policies_of(item: object) -> Iterable[InlinePolicy]:
    if not isinstance(item, dict):
        return
    models = item.get("models", [item.get("model")])
    if not isinstance(models, list):
        return
    names = tuple(model for model in models[:MAX_MODELS] if isinstance(model, str))
    nested = item.get(_FIELD)
    for entry in nested[:MAX_POLICIES] if isinstance(nested, list) else [item]:
        policy = _policy(entry)
        if policy and names:
            yield InlinePolicy(policy, names)


def _policy(entry: object) -> Policy | None:
    if not isinstance(entry, dict):
        return None
    name, description = entry.get("name"), entry.get("description", entry.get("usage", ""))
    if not isinstance(name, str) or not isinstance(description, str):
        return None
    # The name becomes a header value: nothing in it may end the header, and HTTP/2 allows no space
    # around it (RFC 9113, 8.2.1).
    name = name.strip()
    if not name or not name.isprintable() or len(name) > MAX_NAME_CHARS:
        return None
    return Policy(name, description[:MAX_DESCRIPTION_CHARS])


def _from_yaml(text: object) -> object:
    if not isinstance(text, str) or len(text) > MAX_TEXT_CHARS:
        return None
    try:
        depth = 0
        # Events come without recursion; the loader below recurses, so the depth is checked first. It
        # makes strings, lists and mappings only: all that is wanted here.
        for number, event in enumerate(yaml.parse(text, Loader=yaml.CBaseLoader)):
            if isinstance(event, yaml.AliasEvent):
                return None
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_YAML_DEPTH or number > _MAX_YAML_EVENTS:
                return None
        return yaml.load(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError:
        return None
