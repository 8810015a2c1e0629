"""Certificates for 127.0.0.1, signed by themselves."""

from __future__ import annotations

import datetime
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Certificate:
    """Its files `certificate` and `key`, valid until `days` from now."""

    def __init__(self, folder, days=1, password=None):
        folder.mkdir(exist_ok=True)
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        self.certificate.write_bytes(_signed(key, days).public_bytes(serialization.Encoding.PEM))
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, hidden))

    @property
    def flags(self):
        return "--tls-cert", self.certificate, "--tls-key", self.key

    @property
    def trust(self):
        """The context of a client that trusts it."""
        return ssl.create_default_context(cafile=self.certificate)


def _signed(key, days):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_after(until)
    builder = builder.not_valid_before(until - datetime.timedelta(days=30)).add_extension(address, critical=False)
    return builder.sign(key, hashes.SHA256())
