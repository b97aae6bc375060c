"""Train the encoder: `python -m training.train DATASETS_DIR --out DIR [--seed N] [--steps N] [--workers N]`.

Each step draws its batches from its own number, so that a run that was cut off goes on from its last
checkpoint as if nothing had happened, and any number of workers learns the same. The sums of floating
point numbers may differ between processors.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional

from ext_proc.router.embedded.tokens import Tokens
from ext_proc.router.embedded.tuning import SHIPPED, TOKENIZER_FILE, Tuning
from training import leakage
from training.base import base_model
from training.batches import Batch, draw
from training.corpus import Corpus, read_corpus
from training.model import SCALE, Encoded, Encoder, joined, load_base, policy_logits
from training.tokenized import Tokenized

CHECKPOINT = "checkpoint.pt"
SEEDS = (20, 21)
"""Of the runs whose mean is shipped (arXiv 2203.05482)."""
_WARM_UP = 0.06
_LAST_RATE = 0.03
_SMOOTHING = 0.02
_IDLE_SHARE = 0.3
"""What messages that ask for nothing weigh beside the choice."""
_REPORT_EVERY, _SAVE_EVERY = 20, 20
_PARTS = 2
"""Batches of a step: as many as workers may share it."""
LIMITS = Tuning(
    version="training",
    max_tokens=38,
    max_tokens_earlier=20,
    max_tokens_together=68,
    head_share=0.6,
    user_turns=4,
    phrasings=(),
    scale=SCALE,
    none_shift=0.0,
    none_growth=0.0,
    temperature=1.0,
    temperature_decline=0.0,
)
"""As in service: what is left out is rarely what decides, and time goes with the length."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast: the rate of the encoder's layers, and of what is new.

    In each of the `cycles`, of so many steps, the rate goes up in a line, along a cosine, and down to nothing
    over the last `landing` of them. What stands at the end of a cycle may be used.
    """

    cycles: tuple[int, ...] = (1500, 1000)
    landing: int = 80
    rate: float = 1.2e-4
    new_rate: float = 1e-3
    seed: int = SEEDS[0]

    @property
    def steps(self) -> int:
        return sum(self.cycles)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/ and dev/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=SEEDS[0], help="of what each step draws")
    parser.add_argument("--steps", type=int, help="one cycle of so many, instead of the plan")
    parser.add_argument("--workers", type=int, default=2, choices=range(1, _PARTS + 1), help="processes")
    parser.add_argument("--base", type=Path, help="folder of the base weights, if not the package's")
    options = parser.parse_args(arguments)
    corpus = leakage.cleaned(read_corpus(options.datasets / "train"), options.datasets / "dev")
    options.out.mkdir(parents=True, exist_ok=True)
    plan, base = Plan(seed=options.seed), options.base or base_model()
    if options.steps:
        plan = replace(plan, cycles=(options.steps,))
    if options.workers == 1:
        train(corpus, options.out, plan, load_base(base))
    else:
        work = (options.workers, corpus, options.out, plan, base)
        multiprocessing.spawn(_work, work, nprocs=options.workers)
    return 0


def _work(worker: int, workers: int, corpus: Corpus, out: Path, plan: Plan, base: Path) -> None:
    store = distributed.FileStore(str(out / f"workers.{os.getppid()}"), workers)
    distributed.init_process_group("gloo", store=store, rank=worker, world_size=workers)
    train(corpus, out, plan, load_base(base), worker, workers)
    distributed.destroy_process_group()


def train(
    corpus: Corpus,
    out: Path,
    plan: Plan,
    model: Encoder,
    worker: int = 0,
    workers: int = 1,
    until: int | None = None,
) -> Encoder:
    """Train `model`, from the checkpoint in `out` on if there is one, to the end or a step before.

    Each of the workers runs this, with its own share of every step's batches; the first one writes
    checkpoints.
    """
    # One thread: two that wait for each other take longer than one where the machine is shared.
    torch.set_num_threads(1)
    tokenized = Tokenized(LIMITS, SHIPPED / TOKENIZER_FILE)
    optimiser = torch.optim.AdamW(_groups(model, plan), weight_decay=0.01, betas=(0.9, 0.98))
    path = out / CHECKPOINT
    first = _resume(path, model, optimiser) if path.exists() else 0
    model.train()
    last = plan.steps if until is None else until
    report = _Report(last, first)
    for step in range(first, last):
        for group in optimiser.param_groups:
            group["lr"] = group["full"] * _share(step, plan)
        optimiser.zero_grad(set_to_none=True)
        for part in range(worker, _PARTS, workers):
            batch = draw(corpus, random.Random(f"{plan.seed}/{step}/{part}"))
            loss = loss_of(model, batch, tokenized) / _PARTS
            loss.backward()
            report.add(loss.item() * workers)
        _share_gradients(model, workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if worker == 0:
            report.tell(step + 1)
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == last:
                _save(path, model, optimiser, step + 1)
    return model.eval()


class _Report:
    """A line of progress now and then."""

    def __init__(self, steps: int, first: int) -> None:
        self._steps, self._first = steps, first
        self._started = perf_counter()
        self._losses: list[float] = []

    def add(self, loss: float) -> None:
        self._losses.append(loss)

    def tell(self, done: int) -> None:
        if done % _REPORT_EVERY and done != self._steps:
            return
        rate_s = (perf_counter() - self._started) / (done - self._first)
        left_min = rate_s * (self._steps - done) / 60
        loss = sum(self._losses) / _REPORT_EVERY
        self._losses.clear()
        print(
            f"step {done}/{self._steps} loss {loss:.3f} {rate_s:.2f} s/step, {left_min:.0f} min left",
            flush=True,
        )


def _share_gradients(model: Encoder, workers: int) -> None:
    if workers == 1:
        return
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def loss_of(model: Encoder, batch: Batch, tokenized: Tokenized) -> Tensor:
    """Cross-entropy of the right choice among those that each conversation may choose from."""
    conversations = [tokenized.conversation(messages) for messages in batch.conversations]
    policies = [tokenized.policy(text) for text in batch.policies]
    items = [tokenized.policy(text) for listed in batch.items for text in listed]
    items_of = [number for number, listed in enumerate(batch.items) for _ in listed]
    with torch.autocast("cpu", torch.bfloat16):
        encoded, order = _in_buckets(model, conversations)
        asked = model(policies)
        found = model(items).vectors if items else asked.vectors[:0]
    allowed = torch.from_numpy(batch.allowed)[order]
    scores = policy_logits(encoded, asked, found, torch.tensor(items_of, dtype=torch.long))
    none = model.logit_of_none(encoded.heads, allowed.sum(1) - 1)
    scores = torch.cat([scores, none[:, None]], dim=1).masked_fill(~allowed, -1e4)
    gold = torch.from_numpy(batch.gold)[order]
    logs = functional.log_softmax(scores, dim=1)
    right = logs.gather(1, gold[:, None])[:, 0]
    even = (logs * allowed).sum(1) / allowed.sum(1)
    chosen = -((1 - _SMOOTHING) * right + _SMOOTHING * even).mean()
    return chosen + _IDLE_SHARE * _loss_of_idle(encoded.heads[:, 0], torch.from_numpy(batch.idle)[order])


def _loss_of_idle(logits: Tensor, idle: Tensor) -> Tensor:
    """Both kinds weigh the same, however few there are of one."""
    losses = [
        functional.softplus(logits[rows] * sign).mean()
        for rows, sign in ((idle, -1.0), (~idle, 1.0))
        if rows.any()
    ]
    return torch.stack(losses).mean()


def _in_buckets(model: Encoder, batch: Sequence[Tokens]) -> tuple[Encoded, Tensor]:
    """Encode in two halves of like lengths, because attention pads; and where each row went."""
    order = sorted(range(len(batch)), key=lambda index: len(batch[index].ids))
    half = len(order) // 2
    halves = [model([batch[index] for index in part]) for part in (order[:half], order[half:]) if part]
    return joined(halves), torch.tensor(order)


def _groups(model: Encoder, plan: Plan) -> list[dict[str, object]]:
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    base = [value for name, value in named if name.startswith("bert.")]
    new = [value for name, value in named if not name.startswith("bert.")]
    return [{"params": base, "full": plan.rate}, {"params": new, "full": plan.new_rate}]


def _share(step: int, plan: Plan) -> float:
    """Of the full rate: up in a line, along a cosine, and down in a line at the end of each cycle."""
    first = 0
    for length in plan.cycles:
        if step < first + length:
            break
        first += length
    step -= first
    warm = max(1, round(_WARM_UP * length))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, length - warm))
    along = _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
    return along * min(1.0, (length - step) / max(1, plan.landing))


def _save(path: Path, model: Encoder, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.replace(path)


def _resume(path: Path, model: Encoder, optimiser: torch.optim.Optimizer) -> int:
    kept = torch.load(path, weights_only=True)
    model.load_state_dict(kept["model"])
    optimiser.load_state_dict(kept["optimiser"])
    print(f"going on after step {kept['step']}")
    step: int = kept["step"]
    return step


if __name__ == "__main__":
    sys.exit(main())
