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

    A conversation is at most `max_tokens_together` tokens: the newest user turn of at most
    `max_tokens`, then the answer before it and earlier user turns of at most `max_tokens_earlier`
    each; a longer text keeps its first `head_share` and its last tokens. `user_turns` counts the user
    turns that are read. `phrasings` are the texts whose mean stands for a policy; one that names its
    domain is left out where it has none.
    The logit of a policy is `scale` times a cosine, plus the encoder's bias; the one of "none of them" is
    `none_shift`, plus `none_growth` times the logarithm of the number of policies, for among many one is
    near by chance, plus what the encoder says of messages that ask for nothing. All are divided by
    `temperature` where there is one policy, and by less where there are more: beside many that are far, the
    best would look less likely than it is.
    """

    version: str
    max_tokens: int
    max_tokens_earlier: int
    max_tokens_together: int
    head_share: float
    user_turns: int
    phrasings: tuple[str, ...]
    scale: float
    none_shift: float
    none_growth: float
    temperature: float
    temperature_decline: float

    def temperature_among(self, policies: int) -> float:
        """What the logits are divided by where there are so many policies to choose from."""
        found: float = self.temperature * max(policies, 1) ** -self.temperature_decline
        return found


def read_tuning(directory: Path) -> Tuning:
    """Read the settings of the weights in `directory`.

    Errors: RouterError when a file is missing or the settings have another shape.
    """
    for name in (MODEL_FILE, TOKENIZER_FILE, SETTINGS_FILE):
        if not (directory / name).is_file():
            raise RouterError(Reason.ROUTER_ERROR, f"the embedded router's weights lack {directory / name}")
    return read_settings(directory / SETTINGS_FILE)


def read_settings(path: Path) -> Tuning:
    """Read the settings alone. Errors: RouterError when they have another shape."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Tuning(**fields | {"phrasings": tuple(fields["phrasings"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RouterError(Reason.ROUTER_ERROR, f"{path} is not readable: {error}") from error
