"""`make bench-router`: a decision by a language model of Arch-Router's shape, as published and as here.

The weights are random (those of Arch-Router cannot be shipped), which changes no time: the same model, in
bfloat16 where the processor computes it, answers the same prompts by `transformers.generate` (the whole
prompt, 12 new tokens) and by the engine (the cached prefix, one pass). Contenders take turns within each
round, so that a machine whose speed drifts slows them alike; figures are medians, ratios are taken round
by round.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from ext_proc.core.prompt import BUDGET_TOKENS, Variant
from ext_proc.core.types import Message, Policy
from ext_proc.router.causal_lm.engine import Engine
from ext_proc.router.causal_lm.loading import default_dtype
from ext_proc.router.causal_lm.prompting import Asked, Prompter
from ext_proc.router.causal_lm.tree import AnswerTree
from tests.support.tiny_lm import corpus, make_tokenizer

NEW_TOKENS = 12
"""What published servers generate for one answer."""

VOCABULARY = 151_936
CONCURRENT = 8
DOMAINS = ("code", "legal", "travel", "finance", "health", "writing", "data", "support", "sales", "research")
ACTIONS = (
    "generation",
    "review",
    "summary",
    "translation",
    "planning",
    "analysis",
    "questions",
    "search",
    "design",
    "help",
)
WORDS = "please look at this and tell me how it works and what should change in it before we use it again "


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is the first contender's time by the second's, round by round."""

    what: str
    first_s: float
    second_s: float
    ratio: float
    spread: tuple[float, float]


def ordinary(count: int) -> tuple[Policy, ...]:
    """Names that differ from their first word on."""
    names = [f"{domain} {action}" for action in ACTIONS for domain in DOMAINS][:count]
    return tuple(Policy(name, f"everything about {name} that a user may want") for name in names)


def branching(count: int) -> tuple[Policy, ...]:
    """Names that share their first words."""
    names = [f"enterprise software engineering {domain} {action}" for action in ACTIONS for domain in DOMAINS]
    return tuple(Policy(name, f"everything about {name} that a user may want") for name in names[:count])


class Bench:
    """A model, and questions for it."""

    def __init__(self, *, is_small: bool, rounds: int, tokens: int, device: str) -> None:
        # Its words are single tokens, as they are to a vocabulary of 152,000.
        texts = [*corpus((*ordinary(100), *branching(100))), *[WORDS] * 50]
        self.tokenizer: Any = make_tokenizer(texts, vocabulary=4000)
        vocabulary = len(self.tokenizer) if is_small else VOCABULARY
        self.model: Any = _model(vocabulary, is_small=is_small, device=torch.device(device))
        self.prompter = Prompter(self.tokenizer, Variant.ARCHGW, BUDGET_TOKENS)
        self.rounds = rounds
        self.tokens = tokens
        self._asked = 0

    def prompts(self, asked: Asked, count: int = 1) -> list[list[int]]:
        """Prompts that no cache has seen."""
        made = []
        for _ in range(count):
            self._asked += 1
            words = f"{self._asked} " + " ".join((WORDS * 20).split()[: self.tokens - 8])
            made.append(self.prompter.prompt((Message("user", words),), asked))
        return made

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], asked: Asked) -> None:
        ids = torch.tensor([prompt[: -len(asked.tree.forced)]], device=self.model.device)
        self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
        )

    def compare(self, what: str, first: Callable[[], None], second: Callable[[], None]) -> Row:
        pairs = []
        first(), second()
        for _ in range(self.rounds):
            pairs.append((self._timed(first), self._timed(second)))
        ratios = [one / other for one, other in pairs]
        row = Row(
            what,
            statistics.median(one for one, _ in pairs),
            statistics.median(other for _, other in pairs),
            statistics.median(ratios),
            (min(ratios), max(ratios)),
        )
        print(
            f"| {row.what} | {row.first_s:.3f} | {row.second_s:.3f} | {row.ratio:.2f} |"
            f" {row.spread[0]:.2f}–{row.spread[1]:.2f} |",
            flush=True,
        )
        return row

    def _timed(self, job: Callable[[], None]) -> float:
        started = perf_counter()
        job()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - started

    def against_generate(self, name: str, policies: tuple[Policy, ...]) -> Row:
        engine, asked = Engine(self.model), self.prompter.ask_about(policies)
        engine.warm(asked)
        whole, tree = len(self.prompts(asked)[0]), len(asked.tree.tokens)
        what = (
            f"generate / engine: {len(policies)} policies, {name} names"
            f" ({whole} tokens, {len(asked.prefix)} cached, {tree} in the tree)"
        )
        return self.compare(
            what,
            lambda: self.generate(self.prompts(asked)[0], asked),
            lambda: _answer(engine, self.prompts(asked), asked),
        )

    def batching(self, policies: tuple[Policy, ...]) -> Row:
        engine, asked = Engine(self.model), self.prompter.ask_about(policies)
        engine.warm(asked)

        def one_by_one() -> None:
            for prompt in self.prompts(asked, CONCURRENT):
                _answer(engine, [prompt], asked)

        return self.compare(
            f"{CONCURRENT} one by one / in one pass: {len(policies)} policies",
            one_by_one,
            lambda: _answer(engine, self.prompts(asked, CONCURRENT), asked),
        )

    def more_policies(self, few: int, many: int) -> Row:
        """The pass without its tree: what the prefix's length alone costs."""
        engine = Engine(self.model)
        small, large = (self.prompter.ask_about(ordinary(count)) for count in (few, many))
        bare_small, bare_large = (
            Asked(asked.policies, _first_step_only(asked.tree), asked.prefix) for asked in (small, large)
        )
        for asked in (small, large):
            engine.warm(asked)
        return self.compare(
            f"prefill with {many} / with {few} policies ({len(large.prefix)} and {len(small.prefix)} cached)",
            lambda: _answer(engine, self.prompts(large), bare_large),
            lambda: _answer(engine, self.prompts(small), bare_small),
        )


def _answer(engine: Engine, prompts: Sequence[Sequence[int]], asked: Asked) -> None:
    engine.answer(prompts, asked)


def _first_step_only(tree: AnswerTree) -> AnswerTree:
    return AnswerTree(tree.forced, (), (), (), ((tree.answers[0][0],),))


def _model(vocabulary: int, *, is_small: bool, device: torch.device) -> Any:
    """Source of the sizes: `config.json` of Qwen2.5-1.5B, which Arch-Router 1.5B was tuned from."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=64 if is_small else 1536,
        intermediate_size=128 if is_small else 8960,
        num_hidden_layers=2 if is_small else 28,
        num_attention_heads=12 if not is_small else 4,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        eos_token_id=None,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(default_dtype(device))
    try:
        with device:
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=100, help="of the conversation")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a toy model, to see that this runs")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    options = parser.parse_args(arguments)
    if options.small:
        # Threads that wait for each other cost a toy more than they give.
        torch.set_num_threads(1)
    bench = Bench(is_small=options.small, rounds=options.rounds, tokens=options.tokens, device=options.device)
    parameters = sum(weight.numel() for weight in bench.model.parameters())
    print(
        f"{platform.processor() or platform.machine()}, {options.device}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}, {bench.model.dtype}, {parameters / 1e9:.2f} billion parameters,"
        f" {options.rounds} rounds\n"
    )
    print(
        "| first / second | first, s | second, s | ratio | ratios seen |\n|---|---|---|---|---|", flush=True
    )
    rows = [
        bench.against_generate("ordinary", ordinary(10)),
        bench.against_generate("branching", branching(10)),
        bench.against_generate("ordinary", ordinary(50)),
        bench.against_generate("branching", branching(50)),
        bench.batching(ordinary(10)),
        bench.more_policies(5, 20),
        bench.more_policies(5, 100),
    ]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([vars(row) for row in rows], file, indent=2)


if __name__ == "__main__":
    main()
