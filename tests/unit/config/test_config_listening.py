"""Where the gRPC service listens and who may call it: what the file says, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext_proc.config.load import check, load_text
from ext_proc.core.errors import ConfigError
from ext_proc.core.settings import Address, Configuration, ExtProcTls, Pipe, ServerTls
from ext_proc.core.types import Secret
from tests.support.certificates import Authority

BASE = "model_providers: [{model: openai/a, default: true}]\naffinity: {salt: 0123456789abcdef}\n"
TOKEN = "0123456789abcdef-the-token"
TLS = "certificate: c.crt, key: c.key"


def configuration(text: str) -> Configuration:
    result = load_text(BASE + text, "f", {"TOKEN": TOKEN}, lambda: b"")
    assert result.warnings == ()
    return result.configuration


def problems(text: str) -> list[str]:
    try:
        found = load_text(BASE + text, "f", {"TOKEN": TOKEN, "SHORT": "short"}, lambda: b"").warnings
    except ConfigError as error:
        found = error.problems
    return [f"{problem.line}:{problem.column}: {problem.text}" for problem in found]


def test_unless_written_only_this_machine_can_connect() -> None:
    server = configuration("").server
    assert server.listen == Address("127.0.0.1", 50_051)
    assert (server.tls, server.token) == (None, None)


def test_everything_written() -> None:
    found = configuration(
        """\
server:
  address: 0.0.0.0
  tls: {certificate: a.crt, key: a.key, client_ca: ca.crt, client_names: [envoy, spiffe://mesh/envoy]}
  token: $TOKEN
envoy:
  ext_proc_tls: {ca: e/ca.crt, certificate: e/tls.crt, key: e/tls.key, name: arch.internal}
"""
    )
    assert found.server.tls == ServerTls("a.crt", "a.key", "ca.crt", ("envoy", "spiffe://mesh/envoy"))
    assert (found.server.token, found.server.token_env) == (Secret(TOKEN), "TOKEN")
    assert found.envoy.ext_proc_tls == ExtProcTls("e/ca.crt", "e/tls.crt", "e/tls.key", "arch.internal")
    assert TOKEN not in repr(found)


def test_a_socket() -> None:
    assert configuration("server: {socket: /run/a.sock}").server.listen == Pipe("/run/a.sock", 0o660)
    written = configuration('server: {socket: /run/a.sock, socket_mode: "0600"}')
    assert written.server.listen == Pipe("/run/a.sock", 0o600)


@pytest.mark.parametrize("address", ["0.0.0.0", '"::"', "10.0.0.7", "arch.internal"])
@pytest.mark.parametrize("rest", ["", f", tls: {{{TLS}}}"])
def test_an_open_port_is_a_problem(address: str, rest: str) -> None:
    (found,) = problems(f"server: {{address: {address}{rest}}}")
    assert "could ask this server for the providers' keys" in found


@pytest.mark.parametrize("address", ["127.0.0.1", '"::1"', "localhost", "127.9.9.9"])
def test_a_loopback_port_is_none(address: str) -> None:
    assert problems(f"server: {{address: {address}}}") == []


@pytest.mark.parametrize(
    "rest",
    [
        f"server: {{address: 0.0.0.0, tls: {{{TLS}, client_ca: ca.crt}}}}\n"
        "envoy: {ext_proc_tls: {certificate: e.crt, key: e.key}}",
        f"server: {{address: 0.0.0.0, tls: {{{TLS}, client_ca: ca.crt}}}}\n"
        "envoy: {ext_proc_tls: {sds: sds.yaml}}",
        f"server: {{address: 0.0.0.0, tls: {{{TLS}}}, token: $TOKEN}}",
        "server: {address: 0.0.0.0, trust_network: true}",
        "server: {address: 0.0.0.0, trust_network: true, token: $TOKEN}",
    ],
)
def test_what_keeps_strangers_out_makes_an_open_port_none(rest: str) -> None:
    assert problems(rest) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "server: {address: 0.0.0.0, token: $TOKEN}",
            '3:35: "token" crosses the network unencrypted, and so do the providers\' keys',
        ),
        ("server: {token: 0123456789abcdef}", '3:17: "token" must come from a variable'),
        ("server: {token: $SHORT}", '3:17: "token" must have at least 16 printable ASCII characters'),
        ("server: {token: $NONE}", "3:17: the environment variable NONE is not set"),
        ("server: {socket: run/a.sock}", '3:18: "socket" must begin with a slash'),
        (
            f"server: {{socket: /{'x' * 100}}}",
            '3:18: "socket" is longer than the 100 bytes that a socket\'s path may have',
        ),
        (
            "server: {socket: /run/a.sock, port: 1}",
            '3:31: "port" and "socket" both say where to listen',
        ),
        ("server: {socket: /a, socket_mode: 0660}", '3:35: "socket_mode" is no file mode'),
        ('server: {socket: /a, socket_mode: "0888"}', '3:35: "socket_mode" is no file mode'),
        ('server: {socket_mode: "0660"}', '3:10: "socket_mode" is for a socket'),
        ("server: {tls: {certificate: a.crt}}", '3:15: this mapping has no "key"'),
        (
            f"server: {{tls: {{{TLS}, client_names: [a]}}}}",
            '3:48: "client_names" needs a "client_ca"',
        ),
        (
            f"server: {{tls: {{{TLS}, client_ca: ca.crt}}}}",
            "3:59: callers need a certificate, and Envoy is told of none",
        ),
        (
            f"server: {{socket: /a, tls: {{{TLS}}}}}",
            "3:22: a socket has no name that Envoy could find in the certificate",
        ),
        (
            f"server: {{tls: {{{TLS}}}}}\nenvoy: {{ext_proc_tls: {{certificate: a, key: b, sds: c}}}}",
            '4:53: "sds" and "certificate" both say what Envoy shows',
        ),
        ("envoy: {ext_proc_tls: {name: a}}", '3:9: "ext_proc_tls" is for a server with TLS'),
        (
            f"server: {{tls: {{{TLS}}}}}\nenvoy: {{ext_proc_tls: {{key: a}}}}",
            '4:29: "certificate" and "key" go together',
        ),
    ],
)
def test_what_is_wrong(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_the_files_are_looked_at_by_check_alone(tmp_path: Path) -> None:
    authority = Authority()
    for stem, days in (("good", 30), ("other", 30), ("old", -1), ("soon", 3)):
        authority.certify("arch.internal", days=days).write(tmp_path, stem)
    (tmp_path / "empty").write_bytes(b"")

    def checked(certificate: str, key: str, ca: str = "") -> list[str]:
        client = f", client_ca: {tmp_path / ca}" if ca else ""
        text = f"server: {{tls: {{certificate: {tmp_path / certificate}, key: {tmp_path / key}{client}}}}}\n"
        text += "envoy: {ext_proc_tls: {certificate: e.crt, key: e.key}}\n"
        assert configuration(text).server.tls is not None
        (tmp_path / "f.yaml").write_text(BASE + text)
        return [
            f"{problem.line}: {'warning: ' * problem.is_warning}{problem.text}"
            for problem in check(tmp_path / "f.yaml", {})
        ]

    assert checked("good.crt", "good.key") == []
    assert checked("gone.crt", "good.key") == ['3: "certificate" cannot be used: there is no such file']
    assert checked("good.crt", "gone.key") == ['3: "key" cannot be used: there is no such file']
    assert checked("good.crt", "other.key") == ['3: "key" does not belong to the certificate']
    assert checked("good.crt", "good.crt") == ['3: "key" holds no private key']
    assert checked("empty", "good.key") == ['3: "certificate" holds no certificate']
    assert checked("good.crt", "good.key", "empty") == ['3: "client_ca" holds no certificate']
    (old,) = checked("old.crt", "old.key")
    assert old.startswith("3: warning: the certificate expired on 20")
    (soon,) = checked("soon.crt", "soon.key")
    assert soon.startswith("3: warning: the certificate expires on 20")
