"""Addresses that cannot be listened at, said in the same words whichever library finds out."""

from __future__ import annotations

import errno
import os
import socket

from ext_proc.core.settings import Address


def cannot_listen(address: Address, reason: int | None) -> OSError:
    """The error to raise. `reason` is an errno."""
    why = "" if reason is None else f": {os.strerror(reason)}"
    return OSError(f"cannot listen at {address}{why}")


def check_free(address: Address) -> None:
    """For a library that does not say why it cannot listen. Errors: OSError when somebody else does there."""
    if address.port == 0:
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return  # the library's to say
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise cannot_listen(address, error.errno) from None
