"""Who may ask: API keys and TLS, the same for every transport."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from pathlib import Path

from policy_protocol.errors import ChunkwireError, Unauthenticated

__all__ = ["AccessInvalid", "ApiKeys", "tls_context"]

_SCHEMES = ("api-key", "bearer")


class AccessInvalid(ChunkwireError):
    """A key file or a certificate that cannot be used."""

    code = "access_invalid"


class ApiKeys:
    """The keys of `--api-key-file`: one a line, `#` begins a line of comment. Only their digests are kept."""

    def __init__(self, path: Path) -> None:
        """Raises `AccessInvalid` when the file cannot be read or holds no usable key."""
        lines = enumerate(map(str.strip, _lines(path, "--api-key-file")), 1)
        keys = [(number, line) for number, line in lines if line and not line.startswith("#")]
        if not keys:
            raise AccessInvalid(f"{path} holds no key. Write one key a line, or leave --api-key-file out.")
        for number, key in keys:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise AccessInvalid(
                    f"Line {number} of {path} is no key: a header cannot carry its characters. "
                    "Use letters, digits and punctuation without spaces."
                )
        self._digests = [_digest(key) for _, key in keys]

    def check(self, authorization: str | None) -> None:
        """Accept `Api-Key KEY` or `Bearer KEY`.

        Raises:
            Unauthenticated: the header is missing, has another form or holds a wrong key.
        """
        if authorization is None:
            raise Unauthenticated(
                "This server needs an API key. Send the header 'Authorization: Api-Key KEY' with a key of its "
                "--api-key-file."
            )
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() not in _SCHEMES or not key.strip():
            raise Unauthenticated("The Authorization header must be 'Api-Key KEY' or 'Bearer KEY'.")
        digest = _digest(key.strip())
        # Every key is compared, in constant time: the time taken tells nothing about how near a guess was.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise Unauthenticated("The API key is wrong. Use one of the server's --api-key-file.")


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What `wss://` needs, TLS 1.2 or newer.

    Raises:
        AccessInvalid: a file cannot be read or is no PEM, the two do not belong together, or the key is encrypted.
    """
    _pem(certificate, "--tls-cert", "CERTIFICATE")
    if "ENCRYPTED" in _pem(key, "--tls-key", "PRIVATE KEY"):
        raise AccessInvalid(
            f"{key} is encrypted, and nobody can type its password here. Pass a plain key as --tls-key."
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error) or "KEY_TYPE_MISMATCH" in str(error):
            raise AccessInvalid(
                f"{key} is not the private key of {certificate}. Pass the two files that belong together."
            ) from None
        raise AccessInvalid(f"{certificate} and {key} cannot be used for TLS: {error.reason or error}.") from None
    return context


def _pem(path: Path, flag: str, kind: str) -> str:
    text = "\n".join(_lines(path, flag))
    if f"{kind}-----" not in text:
        raise AccessInvalid(f"{path} holds no {kind.lower()} in PEM form. Check {flag}.")
    return text


def _lines(path: Path, flag: str) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise AccessInvalid(f"{path} cannot be read: {error.strerror or error}. Check {flag}.") from None
    except UnicodeDecodeError:
        raise AccessInvalid(f"{path} is not text. Check {flag}.") from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
