"""The one model that the tests of the causal language model share: teaching it takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ext_proc.router.causal_lm.loading import load
from tests.support import tiny_lm


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """What the untrained models of these tests read with."""
    return tiny_lm.make_tokenizer(tiny_lm.corpus(tiny_lm.POLICIES))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.taught_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def taught(folder: Path) -> tuple[Any, Any]:
    """A tokenizer and a model, loaded as a user's are."""
    return load(str(folder), "cpu", "float32")
