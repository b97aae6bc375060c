"""Make the shipped weights, from the data to the figures: `python -m training.run DATASETS_DIR`.

Checks for leaks, trains twice, exports the mean of both in int8, fits "none of them" and the temperature on
what training held out, measures on the evaluation files, and writes the figures into the model card. Cut
off, it goes on from its last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ext_proc.router.embedded.tuning import SHIPPED
from training import calibrate, evaluate, export, train


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/ and dev/")
    parser.add_argument("--work", type=Path, default=Path("build/training"), help="folder for checkpoints")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="folder to write to")
    parser.add_argument("--steps", type=int, help="fewer or more than planned")
    parser.add_argument("--base", type=Path, help="folder of the base weights, if not the package's")
    parser.add_argument("--try-out", metavar="SET", help="two steps, a few batches and one set, in a minute")
    options = parser.parse_args(arguments)
    datasets, weights = str(options.datasets), ["--weights", str(options.weights)]
    base = ["--base", str(options.base)] if options.base else []
    quick: list[str] = []
    sets: list[str] = []
    steps = ["--steps", str(options.steps)] if options.steps else []
    if options.try_out:
        steps, quick, sets = (
            ["--steps", "2", "--workers", "1"],
            ["--batches", "1"],
            ["--sets", options.try_out],
        )
    folders = {seed: options.work / f"seed-{seed}" for seed in train.SEEDS}
    for seed, folder in folders.items():
        train.main([datasets, "--out", str(folder), "--seed", str(seed), *steps, *base])
    checkpoints = [str(folder / train.CHECKPOINT) for folder in folders.values()]
    if export.main([*checkpoints, "--out", str(options.weights), *base]):
        return 1
    calibrate.main([datasets, *weights, *quick])
    return evaluate.main([str(options.datasets / "dev"), *weights, *sets, "--card"])


if __name__ == "__main__":
    sys.exit(main())
