"""The one model that the tests of the causal language model share: teaching it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ext_proc.router.causal_lm.loading import load
from tests.support import tiny_lm


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Threads that wait for each other cost small models more than they give, most of all on a busy machine.
    torch.set_num_threads(1)
    return tiny_lm.taught_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def taught(folder: Path) -> tuple[Any, Any]:
    """A tokenizer and a model, loaded as a user's are."""
    return load(str(folder), "cpu", "float32")
