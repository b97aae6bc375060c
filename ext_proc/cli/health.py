"""Whether a running server is ready, for those who can only run a command: containers, init systems."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException

from ext_proc.core.settings import Address

ANSWER_LIMIT_S = 5.0


def is_ready(admin: Address) -> bool:
    """Ask `/readyz` of a server on this machine. Errors: none; one that does not answer is not ready."""
    connection = HTTPConnection(admin.reached_locally.host, admin.port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
