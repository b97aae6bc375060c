"""Certificates that change under a running server."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ext_proc.core.settings import ServerTls
from ext_proc.transport.certificates import BadCertificate, Watched, read
from tests.support.certificates import Authority

AUTHORITY = Authority()


def files_in(folder: Path) -> ServerTls:
    return ServerTls(str(folder / "s.crt"), str(folder / "s.key"))


def test_a_key_shows_itself_nowhere(tmp_path: Path) -> None:
    made = AUTHORITY.certify("a")
    made.write(tmp_path, "s")
    assert made.key.decode().splitlines()[1] not in repr(read(files_in(tmp_path)))


def test_a_key_with_a_passphrase_is_no_use(tmp_path: Path) -> None:
    made = AUTHORITY.certify("a")
    made.write(tmp_path, "s")
    locked = load_pem_private_key(made.key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "s.key").write_bytes(locked)
    with pytest.raises(BadCertificate, match="passphrase"):
        read(files_in(tmp_path))


def test_a_certificate_with_an_unknown_kind_of_key_is_no_use(tmp_path: Path) -> None:
    made = AUTHORITY.certify("a")
    made.write(tmp_path, "s")
    der = x509.load_pem_x509_certificate(made.certificate).public_bytes(Encoding.DER)
    ec_public_key = bytes.fromhex("06072a8648ce3d0201")
    unknown = der.replace(ec_public_key, ec_public_key[:-1] + b"\x63")
    assert unknown != der
    pem = b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(unknown)
    (tmp_path / "s.crt").write_bytes(pem)
    with pytest.raises(BadCertificate, match="certificate: has a key or a date"):
        read(files_in(tmp_path))


def test_each_change_is_taken_once_and_what_does_not_fit_never(tmp_path: Path) -> None:
    told: list[datetime] = []
    failures: list[str] = []
    first, second = AUTHORITY.certify("a"), AUTHORITY.certify("a")
    first.write(tmp_path, "s")
    watched = Watched(files_in(tmp_path), told.append, lambda error: failures.append(error.key))
    assert watched.first().chain == first.certificate
    assert watched.fresh() is None
    # Half of a change: the certificate is new, its key is not there yet.
    (tmp_path / "s.crt").write_bytes(second.certificate)
    assert [watched.fresh(), watched.fresh()] == [None, None]
    assert failures == ["key"]
    (tmp_path / "s.key").write_bytes(second.key)
    fresh = watched.fresh()
    assert fresh is not None
    assert fresh.chain == second.certificate
    assert watched.fresh() is None
    assert (len(told), len(failures)) == (2, 1)
    (tmp_path / "s.key").unlink()
    assert [watched.fresh(), watched.fresh()] == [None, None]
    assert failures == ["key", "key"]


def test_a_mounts_links_are_followed(tmp_path: Path) -> None:
    """Kubernetes swaps one link, `..data`, under which all files are."""
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        AUTHORITY.certify(f"name-{number}").write(tmp_path / folder, "s")
    for name in ("s.crt", "s.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    (tmp_path / "..data").symlink_to("one")
    watched = Watched(files_in(tmp_path), lambda _: None, lambda _: None)
    before = watched.first()
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    after = watched.fresh()
    assert after is not None
    assert after.chain != before.chain
