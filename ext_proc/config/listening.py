"""Where the gRPC service listens, and who may call it.

Whoever may open a stream can ask for the providers' keys, because the answer to a request holds one. So an
address that others than this machine reach is a problem unless the file says what keeps strangers out.
"""

from __future__ import annotations

from collections.abc import Mapping

from ext_proc.config.document import Path, Report
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.core.settings import Address, Pipe, ServerSettings, ServerTls
from ext_proc.core.types import Secret

MIN_TOKEN_CHARS = 16

_TOKEN: Path = ("server", "token")
_PROOF: Path = ("envoy", "ext_proc_tls")


def build_server(draft: Draft, environ: Mapping[str, str], report: Report) -> ServerSettings:
    """The gRPC side."""
    server = draft.config.server
    token, variable = _token(draft, environ, report)
    tls = None
    if server.tls is not None:
        names = tuple(name for name in server.tls.client_names or () if name is not None)
        tls = ServerTls(server.tls.certificate, server.tls.key, server.tls.client_ca, names)
    settings = ServerSettings(_listen(draft, report), server.drain, tls, token, variable, server.workers)
    if not draft.is_lost(("server",)):
        _check_exposure(settings, draft, report)
    _check_tls(settings, draft, report)
    return settings


def _listen(draft: Draft, report: Report) -> Address | Pipe:
    server = draft.config.server
    if server.socket is None:
        if draft.was_written(("server", "socket_mode")):
            mark = draft.document.mark(("server", "socket_mode"), of_key=True)
            report.add(mark, '"socket_mode" is for a socket', 'write "socket" too, or remove this')
        return Address(server.address, server.port)
    for key in ("address", "port"):
        if draft.was_written(("server", key)):
            mark = draft.document.mark(("server", key), of_key=True)
            report.add(mark, f'"{key}" and "socket" both say where to listen', "keep one of them")
    return Pipe(server.socket, server.socket_mode)


def _check_exposure(settings: ServerSettings, draft: Draft, report: Report) -> None:
    listen = settings.listen
    if isinstance(listen, Pipe) or listen.is_loopback:
        return
    server, document = draft.config.server, draft.document
    knows_callers = settings.token is not None or (settings.tls is not None and settings.tls.client_ca)
    if draft.is_lost(_TOKEN) or draft.is_lost(("server", "tls")) or server.token is not None:
        knows_callers = True  # what is wrong with it is reported by itself
    if not (knows_callers or server.trust_network):
        report.add(
            document.mark(("server", "address")),
            f"whoever reaches {listen.host} could ask this server for the providers' keys",
            'write "server.tls" with a "client_ca", or "server.token"; or, where only Envoy can connect,'
            ' "server.trust_network: true"',
        )
    elif settings.token is not None and settings.tls is None and not server.trust_network:
        text = '"token" crosses the network unencrypted, and so do the providers\' keys'
        report.add(document.mark(_TOKEN), text, 'write "server.tls" too', is_warning=True)


def _check_tls(settings: ServerSettings, draft: Draft, report: Report) -> None:
    server, proof, document = draft.config.server, draft.config.envoy.ext_proc_tls, draft.document
    if (proof.certificate is None) != (proof.key is None) and not draft.is_lost(_PROOF):
        given = "key" if proof.certificate is None else "certificate"
        mark = document.mark((*_PROOF, given))
        report.add(mark, '"certificate" and "key" go together', "write both, or neither")
    if proof.sds is not None and proof.certificate is not None:
        mark = document.mark((*_PROOF, "sds"))
        report.add(mark, '"sds" and "certificate" both say what Envoy shows', "keep one of them")
    if server.tls is None:
        if draft.was_written(_PROOF) and not draft.is_lost(("server", "tls")):
            mark = document.mark(_PROOF, of_key=True)
            report.add(mark, '"ext_proc_tls" is for a server with TLS', 'write "server.tls", or remove this')
        return
    if server.tls.client_names and server.tls.client_ca is None:
        mark = document.mark(("server", "tls", "client_names"), of_key=True)
        report.add(mark, '"client_names" needs a "client_ca"', "name the authority that vouches for them")
    if (
        server.tls.client_ca is not None
        and not (proof.certificate or proof.sds)
        and not draft.is_lost(_PROOF)
    ):
        report.add(
            document.mark(("server", "tls", "client_ca")),
            "callers need a certificate, and Envoy is told of none",
            'write "envoy.ext_proc_tls" with "certificate" and "key", or "sds": paths on Envoy\'s machine',
        )
    if isinstance(settings.listen, Pipe) and proof.name is None and not draft.is_lost(_PROOF):
        report.add(
            document.mark(("server", "tls"), of_key=True),
            "a socket has no name that Envoy could find in the certificate",
            'write "envoy.ext_proc_tls.name"',
        )


def _token(draft: Draft, environ: Mapping[str, str], report: Report) -> tuple[Secret | None, str | None]:
    document, written = draft.document, draft.config.server.token
    if written is None:
        return None, None
    value = read_secret(written, environ, document, _TOKEN, report)
    if value is None:
        return None, None
    mark = document.mark(_TOKEN)
    if value.variable is None:
        report.add(mark, '"token" must come from a variable', "write $VAR: Envoy reads it from its own too")
    elif len(value.text) < MIN_TOKEN_CHARS or not value.text.isascii() or not value.text.isprintable():
        text = f'"token" must have at least {MIN_TOKEN_CHARS} printable ASCII characters'
        report.add(mark, text, "write e.g. the output of: openssl rand -hex 32")
    elif value.text != value.text.strip():
        report.add(mark, '"token" has a space at an end', "remove it")
    return Secret(value.text), value.variable
