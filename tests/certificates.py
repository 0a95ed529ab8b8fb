"""Certificates of every kind, made when a test needs them."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
HOUR = DAY / 24

# Of nine uses, those of an authority: to sign certificates and lists of revoked ones.
_SIGNS = x509.KeyUsage(*(use in (5, 6) for use in range(9)))


class Authority:
    """Signs certificates; its own is in a file ``NAME.pem``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        signed = (
            self._builder(self._name, self._key, 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(_SIGNS, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *names: x509.GeneralName,
        days: int = 10,
        passphrase: bytes | None = None,
    ) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key; 0 days have expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_common_name(name), key, days * DAY)
        usage = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if names:
            names_ = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(names_, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        certificate_file = self._folder / f"{name}.crt"
        key_file = self._folder / f"{name}.key"
        certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(_write(key, passphrase))
        key_file.chmod(0o600)
        return certificate_file, key_file

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        lifetime: datetime.timedelta,
    ) -> x509.CertificateBuilder:
        ours, theirs = self._key.public_key(), key.public_key()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ours)
        own = x509.SubjectKeyIdentifier.from_public_key(theirs)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(theirs)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 2 * DAY)
            .not_valid_after(NOW + lifetime - HOUR)
            .add_extension(issuer, critical=False)
            .add_extension(own, critical=False)
        )


def names_of_localhost() -> Sequence[x509.GeneralName]:
    """Return the names under which tests reach a server."""
    loopback = ipaddress.ip_address("127.0.0.1")
    return x509.DNSName("localhost"), x509.IPAddress(loopback)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)
