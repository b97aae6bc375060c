"""What `check` and `serve` see of the files that a configuration names, on the machine where they run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ext_proc.config.document import Document, Report
from ext_proc.core.settings import Configuration

SOON = timedelta(days=7)


def examine(configuration: Configuration, document: Document, report: Report) -> None:
    """Report certificates that cannot serve, have expired or are about to."""
    tls = configuration.server.tls
    if tls is None:
        return
    # Its library is large, and most servers have no TLS of their own.
    from ext_proc.transport import certificates  # noqa: PLC0415

    try:
        pair = certificates.read(tls)
    except certificates.BadCertificate as error:
        mark = document.mark(("server", "tls", error.key))
        report.add(mark, f'"{error.key}" {_joined(error.problem)}', error.hint)
        return
    left = pair.not_after - datetime.now(UTC)
    if left < SOON:
        mark = document.mark(("server", "tls", "certificate"))
        when = "expired on" if left < timedelta() else "expires on"
        text = f"the certificate {when} {pair.not_after:%Y-%m-%d}"
        report.add(mark, text, "renew it: a running server takes the new one", is_warning=True)


def _joined(problem: str) -> str:
    return f"cannot be used: {problem}" if problem.startswith("the") else problem
