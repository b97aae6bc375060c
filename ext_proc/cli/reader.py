"""What a command does when whoever reads its output has read enough, as `head` does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

EXIT_NOT_READ = 128 + signal.SIGPIPE
"""What a shell shows for a tool that the closed pipe has ended."""


def ending_with_its_reader(run: Callable[[], int]) -> int:
    """The exit status of `run`, whose output is written when this returns.

    Only the output can be the broken pipe: connections have their own errors by the time they come here.
    """
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python writes what is left once more when it ends, and would say that it cannot.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return EXIT_NOT_READ
