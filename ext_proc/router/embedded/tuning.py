"""What belongs to a set of weights besides the weights: `weights/settings.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ext_proc.core.errors import Reason, RouterError

SHIPPED = Path(__file__).parent / "weights"
MODEL_FILE = "model.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Tuning:
    """How these weights are to be used. The values were measured: see the model card.

    `max_tokens` bounds the newest user turn, `max_tokens_earlier` each turn before it, the special
    tokens included; a longer text keeps its first `head_share` and its last tokens. `user_turns`
    counts the user turns that are read. Each earlier one weighs `turn_decay` of the next, the
    assistant's answer before the newest one `assistant_weight`; a turn of n tokens is worth
    n / (n + `short_turn_tokens`) of that, because "yes please" says little.
    `phrasings` are the texts whose mean stands for a policy; one that names its domain is left out
    where it has none.
    A cosine divided by `temperature` is a logit. "None of them" has the cosine `none_point` plus
    `topic_slope` times that of the nearest of `topics`, those left out that are nearer than
    `topic_overlap` to one of the policies.
    """

    version: str
    max_tokens: int
    max_tokens_earlier: int
    head_share: float
    user_turns: int
    turn_decay: float
    assistant_weight: float
    short_turn_tokens: int
    phrasings: tuple[str, ...]
    temperature: float
    none_point: float
    topic_slope: float
    topic_overlap: float
    topics: tuple[str, ...]


def read_tuning(directory: Path) -> Tuning:
    """Read the settings of the weights in `directory`.

    Errors: RouterError when a file is missing or the settings have another shape.
    """
    for name in (MODEL_FILE, TOKENIZER_FILE, SETTINGS_FILE):
        if not (directory / name).is_file():
            raise RouterError(Reason.ROUTER_ERROR, f"the embedded router's weights lack {directory / name}")
    path = directory / SETTINGS_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        phrasings, topics = tuple(fields.pop("phrasings")), tuple(fields.pop("topics"))
        return Tuning(**fields, phrasings=phrasings, topics=topics)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RouterError(Reason.ROUTER_ERROR, f"{path} is not readable: {error}") from error
