"""Python's garbage collector, kept from looking at what a server has from its start to its end."""

from __future__ import annotations

import gc


def keep_what_is_there() -> None:
    """Collect once, and never look at what is left again.

    The libraries, the configuration and the router are some 80,000 objects. A full collection walks them all
    and holds up every request for tens of milliseconds; without them it takes a fraction of one. What is
    kept still goes when its last reference does.
    """
    gc.collect()
    gc.freeze()
