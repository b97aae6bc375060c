"""A small corpus on disk, as the training reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOPICS = ("garden", "kitchen", "travel", "banking", "school", "music")
ACTIONS = ("plan", "fix", "buy", "general")


def write_corpus(directory: Path) -> Path:
    """Write `train/` and `dev/` under `directory`, which is what the training commands take, and `ours/`."""
    train, dev = directory / "train", directory / "dev"
    train.mkdir(parents=True)
    dev.mkdir()
    for name in ("agents", "knowledge", "professional", "software", "writing"):
        rows = [_synthetic(f"{name} {topic}", action) for topic in TOPICS for action in ACTIONS]
        _write(train / f"synthetic-{name}.jsonl", rows)
    for name in ("banking77", "hwu64", "mmlu", "prompts", "tasks"):
        # Of the topics of `tasks`, the last is one that is held out.
        rows = [_public(name, topic, action) for topic in (*TOPICS, "running") for action in ACTIONS]
        _write(train / f"{name}.jsonl", rows)
    rows = [_dialogues(topic) for topic in ("Flights", "Hotels", "Music", "Services", "Events")]
    _write(train / "sgd.jsonl", rows)
    greetings = [{"messages": [_user(f"hello number {number}")]} for number in range(20)]
    _write(train / "synthetic-none.jsonl", greetings)
    overlaps = {"multi_label_within_group": ["kitchen"], "group_pairs": [["garden", "school"]]}
    (train / "tasks-overlaps.json").write_text(json.dumps(overlaps))
    case = {
        "policies": [{"name": "law", "description": "questions of law"}],
        "messages": [_user("may my landlord raise the rent in winter?")],
        "gold": "law",
    }
    _write(dev / "cases.jsonl", [case])
    ours = directory / "ours"
    ours.mkdir()
    (ours / "tasks-overlaps.json").write_text('{"multi_label_within_group": [], "group_pairs": []}')
    _write(ours / "tasks-more.jsonl", [_synthetic("port", action) for action in ACTIONS])
    _write(ours / "configurations-more.jsonl", [_configuration(topic) for topic in TOPICS])
    return directory


def _synthetic(domain: str, action: str) -> dict[str, Any]:
    return {
        "domain": domain,
        "action": action,
        "name": f"{domain.replace(' ', '_')}_{action}",
        "description": f"{action} something in the {domain}",
        "paraphrases": [f"help to {action} in {domain}"],
        "conversations": [
            [_user(f"please {action} my {domain}")],
            [_user(f"{domain}?"), {"role": "assistant", "content": "What of it?"}, _user(f"{action} it")],
        ],
    }


def _public(source: str, topic: str, action: str) -> dict[str, Any]:
    return {
        "source": source,
        "license": "CC0-1.0",
        "group": topic,
        "policy_texts": [f"{action} {topic}", f"{action}_{topic}: {action} in the {topic}"],
        "queries": [f"{action} the {topic} for {source}", f"how do I {action} a {topic} in {source}"],
    }


def _dialogues(topic: str) -> dict[str, Any]:
    return {
        "source": "sgd",
        "license": "CC-BY-SA-4.0",
        "group": topic,
        "policy_texts": [f"{topic} search: find {topic}"],
        "conversations": [[_user(f"find me {topic} number {number}")] for number in range(3)],
    }


def _configuration(topic: str) -> dict[str, Any]:
    asked = [
        [
            _user(f"{action} my {topic}, number {number}") | {"gold": action},
            {"role": "assistant", "content": "It is done."},
            _user(f"that was {topic} number {number}, bye") | {"gold": "other", "idle": number > 0},
        ]
        for action in ACTIONS
        for number in range(3)
    ]
    policies = [
        {
            "name": action,
            "description": f"{'anything else about' if action == 'general' else action} the {topic}",
            "paraphrases": [f"the {topic}: {action}"],
        }
        for action in ACTIONS
    ]
    return {"domain": topic, "policies": policies, "conversations": asked}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
