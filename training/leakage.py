"""No training on what is evaluated: `python -m training.leakage DATASETS_DIR`.

Compares what the user says in every conversation that may be trained on with the evaluation files, by
the cosine of character 4- and 5-grams, weighted by rarity: 1 for the same text. What is too near is
left out. A few such are chance, because people say the same things; many are a leak, and the program
ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ext_proc.core.types import Message
from ext_proc.evaluation.cases import read_cases
from training.corpus import Corpus, read_corpus

_NEAR = 0.8
_CHANCE = 0.005
"""Of the conversations: more of them that are near to evaluated ones are no chance."""
_SHORTEST = 28
"""Characters. "No, that's all, thanks" is anybody's, and in every set of dialogues."""
_ROWS = 2000
_SHOWN = 5


@dataclass(frozen=True)
class Leak:
    """A message that is trained on, the evaluated one that it is too near to, and how near: 1 is equal."""

    trained: str
    evaluated: str
    cosine: float


def cleaned(corpus: Corpus, evaluation: Path) -> Corpus:
    """The corpus without what is evaluated. Ends the program when that is more than chance."""
    files = sorted(evaluation.glob("*.jsonl"))
    if not files:
        sys.exit(f"{evaluation} holds no evaluation files to check against")
    evaluated = {_said(case.messages) for file in files for case in read_cases(file).cases}
    trained = [
        conversation
        for tasks in corpus.tasks.values()
        for task in tasks
        for conversation in task.conversations
    ]
    leaks = find({_said(conversation) for conversation in (*trained, *corpus.nones)}, evaluated)
    texts = {leak.trained for leak in leaks}
    print(f"leakage: {len(texts)} of {len(trained)} conversations are near evaluated ones and left out")
    if len(texts) > _CHANCE * len(trained):
        shown = "\n".join(f"  {leak.cosine:.2f} {leak.trained[:100]!r}" for leak in leaks[:_SHOWN])
        sys.exit(f"that is no chance: is evaluation data in the training data?\n{shown}")
    return corpus.without(lambda conversation: _normal(_said(conversation)) in texts)


def find(trained: set[str], evaluated: set[str]) -> list[Leak]:
    """The leaks, the nearest first."""
    ours, theirs = _long(trained), _long(evaluated)
    if not ours or not theirs:
        return []
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5), dtype=np.float32, sublinear_tf=True)
    rows = vectorizer.fit_transform([*ours, *theirs])
    right = rows[len(ours) :].T.tocsc()
    leaks = []
    for start in range(0, len(ours), _ROWS):
        products = (rows[start : min(start + _ROWS, len(ours))] @ right).tocoo()
        for row, column, cosine in zip(products.row, products.col, products.data, strict=True):
            if cosine >= _NEAR:
                leaks.append(Leak(ours[start + row], theirs[column], float(cosine)))
    return sorted(leaks, key=lambda leak: (-leak.cosine, leak.trained))


def _said(messages: Sequence[Message]) -> str:
    return "\n".join(message.text for message in messages if message.role == "user")


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _long(texts: set[str]) -> list[str]:
    return sorted({_normal(text) for text in texts if len(text) >= _SHORTEST})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/ and dev/")
    options = parser.parse_args(arguments)
    cleaned(read_corpus(options.datasets / "train"), options.datasets / "dev")
    return 0


if __name__ == "__main__":
    sys.exit(main())
