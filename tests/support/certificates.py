"""An authority and certificates, made anew for each test run, so that none ever expires in a repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Made:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, stem: str) -> None:
        """Replace the pair, each file at once, as mounted secrets are."""
        for suffix, content in ((".crt", self.certificate), (".key", self.key)):
            fresh = folder / f"{stem}{suffix}.new"
            fresh.write_bytes(content)
            os.replace(fresh, folder / f"{stem}{suffix}")

    def mount(self, folder: Path) -> None:
        """Put the pair there as `tls.crt` and `tls.key`, in the place of another: as Kubernetes does."""
        folder.mkdir(exist_ok=True)
        version = folder / f"..{len(list(folder.iterdir()))}"
        version.mkdir()
        (version / "tls.crt").write_bytes(self.certificate)
        (version / "tls.key").write_bytes(self.key)
        fresh = folder / "..data_tmp"
        fresh.symlink_to(version.name)
        os.replace(fresh, folder / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(Encoding.PEM)

    def certify(self, *names: str, days: float = 30) -> Made:
        """A certificate for these names (with `://` a URI) that is good for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [
            x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names
        ]
        now = datetime.now(UTC)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Made(made.public_bytes(Encoding.PEM), private)
