"""The default router: a small sentence encoder on the CPU, its weights in this package.

A conversation and the policies become unit vectors; a decision is the encoding of the newest turns
and one matrix product, however many policies there are. `weights/MODEL_CARD.md` says what the weights
are and what they reach.
"""

from ext_proc.router.embedded.router import EmbeddedRouter
from ext_proc.router.embedded.similarity import EmbeddedSimilarity

__all__ = ["EmbeddedRouter", "EmbeddedSimilarity"]
