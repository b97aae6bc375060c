"""A baseline without a model: `python -m training.baseline DATASETS_DIR`.

Character and word n-grams, weighted by rarity over the policies and the training messages; a
conversation is its user turns, each older one worth half; a policy is the cosine of its name and
description. "None of them" is one cosine for all sets, fitted like the router's on what training held
out. Prints the table of `training.evaluate`.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from ext_proc.core.types import Message, Policy, Scores
from training.batches import draw_from
from training.calibrate import BATCHES, Answers, Fitted, Numbers, least
from training.corpus import Corpus, read_corpus
from training.evaluate import SETS, read_set, report

_DECAY = 0.5
_TURNS = 4
_SCALE = 20.0


class TfidfRouter:
    """Implements `core.ports.Router`."""

    def __init__(self, corpus: Corpus) -> None:
        texts = [
            conversation[-1].text
            for tasks in corpus.tasks.values()
            for task in tasks
            for conversation in task.conversations[:20]
        ]
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
        self._vectorizer.fit(texts)
        self.none, self.temperature = 0.0, 1.0
        self._policies: tuple[tuple[Policy, ...], csr_matrix] | None = None

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        texts = [f"{policy.name.replace('_', ' ')} {policy.description}" for policy in policies]
        self._policies = policies, self.vectors(texts)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        if self._policies is None or self._policies[0] is not policies:
            await self.prepare(policies)
        assert self._policies is not None
        cosines = (self._policies[1] @ self.conversation(messages).T).toarray()[:, 0]
        logits = np.append(cosines * _SCALE, self.none) / self.temperature
        odds = np.exp(logits - logits.max())
        *per_policy, none = (odds / odds.sum()).tolist()
        return Scores(tuple(per_policy), none)

    async def close(self) -> None:
        """Nothing is held."""

    def vectors(self, texts: Sequence[str]) -> csr_matrix:
        return self._vectorizer.transform(texts)

    def conversation(self, messages: Sequence[Message]) -> csr_matrix:
        turns = [message.text for message in reversed(messages) if message.role == "user"][:_TURNS]
        weights = [[_DECAY**age for age in range(len(turns))]]
        return normalize(csr_matrix(weights) @ self.vectors(turns))

    def calibrate(self, corpus: Corpus) -> None:
        """Fit the point of none and the temperature, together."""
        sets = self._answers(corpus)

        def loss(values: Numbers) -> float:
            return fmean(each.loss(Fitted(values[0], 0.0, math.exp(values[1]))) for each in sets)

        shift, log_temperature = least(loss, (0.0, 0.0))
        self.none, self.temperature = 3.0 + shift, math.exp(log_temperature)

    def _answers(self, corpus: Corpus) -> list[Answers]:
        sets = []
        for source, count in BATCHES.items():
            logits, gold = [], []
            for number in range(count):
                rng = random.Random(f"calibrate/{source}/{number}")
                batch = draw_from(corpus, source, rng, held_out=True)
                policies = vstack([self.vectors([" ".join(texts)]) for texts in batch.all_texts])
                for row, messages in enumerate(batch.conversations):
                    keep = batch.allowed[row]
                    cosines = (policies @ self.conversation(messages).T).toarray()[:, 0]
                    logits.append(np.append(cosines * _SCALE, 3.0)[keep].astype(np.float64))
                    gold.append(int(keep[: batch.gold[row]].sum()))
            sets.append(Answers(logits, gold))
        return sets


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/ and dev/")
    options = parser.parse_args(arguments)
    corpus = read_corpus(options.datasets / "train")
    router = TfidfRouter(corpus)
    router.calibrate(corpus)
    report(router, {name: read_set(options.datasets / "dev", name) for name in SETS})
    return 0


if __name__ == "__main__":
    sys.exit(main())
