"""Who may ask: keys at the handshake, certificates, and files that cannot be used."""

from __future__ import annotations

import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from policy_protocol.errors import ServerUnavailable, Unauthenticated
from policy_server.transports.access import AccessInvalid, ApiKeys, tls_context
from sim_client.policy_client import PolicyClient

from .certificates import Certificate
from .conftest import REHEARSED
from .rehearsed_policy import state
from .talking import dial, eventually, rehearsed

KEY = "a-key-of-the-lab#1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"# the robots\nanother-key\n\n  {KEY}  \n")
    return path


@pytest.fixture(scope="module")
def server(rehearse, keys):
    with rehearse("--api-key-file", keys) as process:
        yield process.wait_ready()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_server(rehearse, certificate, keys):
    with rehearse(*certificate.flags, "--api-key-file", keys) as process:
        process.wait_listening()
        yield process


def get(url, authorization=None, context=None):
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10, context=context) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("authorization", [f"Api-Key {KEY}", f"Bearer {KEY}", f"bearer {KEY}", "Api-Key another-key"])
def test_a_right_key_lets_in(server, authorization):
    with dial(server, additional_headers={"Authorization": authorization}):
        pass


def test_openpi_clients_send_their_key_as_they_always_did(server, observation):
    client = WebsocketClientPolicy("127.0.0.1", server.port, api_key=KEY)
    assert client.infer({**observation, "observation/state": state()})["actions"].shape == (20, 7)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "unauthenticated: This server needs an API key. Send the header 'Authorization: Api-Key KEY'"),
        ({"Authorization": "Api-Key wrong"}, "unauthenticated: The API key is wrong."),
        ({"Authorization": "Api-Key "}, "must be 'Api-Key KEY' or 'Bearer KEY'"),
        ({"Authorization": f"Basic {KEY}"}, "must be 'Api-Key KEY' or 'Bearer KEY'"),
    ],
)
def test_without_a_right_key_the_handshake_is_refused_with_401_and_why(server, headers, message):
    with pytest.raises(InvalidStatus) as refused, connect(server.url, additional_headers=headers):
        pass
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Api-Key"
    assert message in response.body.decode()


def test_health_is_everybodys_and_the_rest_needs_the_key(server):
    base = f"http://127.0.0.1:{server.port}"
    assert get(f"{base}/healthz") == (200, "OK\n")
    assert get(f"{base}/readyz") == (200, "OK\n")
    for path in ("/metrics", "/spec", "/nothing"):
        assert get(base + path)[0] == 401
    for path in ("/metrics", "/spec"):
        assert get(base + path, f"Bearer {KEY}")[0] == 200


def test_our_client_says_that_the_key_was_refused(server):
    with pytest.raises(Unauthenticated, match=r"refused the API key \(HTTP 401\)"):
        PolicyClient(server.url, api_key="wrong")


def test_a_key_never_reaches_the_log(server):
    with dial(server, additional_headers={"Authorization": f"Api-Key {KEY}"}):
        pass
    with pytest.raises(InvalidStatus), connect(server.url, additional_headers={"Authorization": "Api-Key guess-7"}):
        pass
    eventually(lambda: "was turned away: The API key is wrong" in server.log)
    assert KEY not in server.log
    assert "guess-7" not in server.log


def test_a_key_is_compared_whole(keys):
    known = ApiKeys(keys)
    known.check(f"Api-Key {KEY}")
    for key in (KEY[:-1], KEY + "x", KEY.upper(), "# the robots", "ä", "\udcff"):
        with pytest.raises(Unauthenticated):
            known.check(f"Api-Key {key}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "holds no key. Write one key a line"),
        (b"fine\ntwo words\n", "Line 2 of"),
        ("schlüssel".encode(), "Line 1 of"),
        (b"\xff\xfe", "is not text. Check --api-key-file."),
        (None, "cannot be read: No such file or directory. Check --api-key-file."),
    ],
)
def test_a_key_file_that_cannot_be_used_is_said_so(tmp_path, content, message):
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessInvalid) as refused:
        ApiKeys(path)
    assert message in refused.value.message
    assert "words" not in refused.value.message


def test_tls_and_keys_work_together(tls_server, certificate):
    url = f"wss://127.0.0.1:{tls_server.port}"
    assert get(f"https://127.0.0.1:{tls_server.port}/healthz", context=certificate.trust) == (200, "OK\n")
    with PolicyClient(url, api_key=KEY, tls_ca=certificate.certificate) as client:
        assert client.infer(rehearsed(mark=3).observation).actions[0, 0] == 3
    eventually(lambda: "ready on wss://" in tls_server.log)


def test_a_certificate_that_nobody_vouches_for_is_refused_by_our_client(tls_server):
    with pytest.raises(ServerUnavailable, match="is not trusted: self-signed certificate. Pass --tls-ca"):
        PolicyClient(f"wss://127.0.0.1:{tls_server.port}", api_key=KEY)


def test_a_client_without_tls_gets_nowhere_and_harms_nobody(tls_server, certificate):
    with pytest.raises(ServerUnavailable, match="No policy server answers"):
        PolicyClient(f"ws://127.0.0.1:{tls_server.port}", api_key=KEY, connect_timeout=0.5)
    assert get(f"https://127.0.0.1:{tls_server.port}/healthz", context=certificate.trust) == (200, "OK\n")


def test_an_expired_certificate_is_refused_by_our_client(rehearse, tmp_path):
    expired = Certificate(tmp_path / "expired", days=-1)
    with rehearse(*expired.flags) as server:
        server.wait_listening()
        with pytest.raises(ServerUnavailable, match="is not trusted: certificate has expired"):
            PolicyClient(f"wss://127.0.0.1:{server.port}", tls_ca=expired.certificate)


def test_a_right_pair_of_files_is_a_context(certificate):
    assert tls_context(certificate.certificate, certificate.key).minimum_version >= ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_for_tls_are_said_so(certificate, tmp_path):
    other = Certificate(tmp_path / "other")
    sealed = Certificate(tmp_path / "sealed", password=b"secret")
    empty, broken = tmp_path / "empty.pem", tmp_path / "broken.pem"
    empty.write_text("")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    pairs = {
        "cannot be read: No such file or directory. Check --tls-cert.": (tmp_path / "none.pem", certificate.key),
        "cannot be read: Is a directory. Check --tls-key.": (certificate.certificate, tmp_path),
        "is not the private key of": (certificate.certificate, other.key),
        "holds no certificate in PEM form. Check --tls-cert.": (empty, certificate.key),
        "holds no private key in PEM form. Check --tls-key.": (certificate.certificate, certificate.certificate),
        "is encrypted, and nobody can type its password here": (sealed.certificate, sealed.key),
        "cannot be used for TLS": (broken, certificate.key),
    }
    for message, pair in pairs.items():
        with pytest.raises(AccessInvalid) as refused:
            tls_context(*pair)
        assert message in refused.value.message


def test_an_unusable_file_ends_the_command_in_one_line(environment, spec_file, certificate, tmp_path):
    base = [sys.executable, REHEARSED, "--policy", "rehearsed", "--spec", spec_file, "--port", "0"]
    for flags, status, message in [
        (["--tls-cert", certificate.certificate], 2, "serve: --tls-cert needs --tls-key: TLS takes a certificate"),
        (["--tls-key", certificate.key], 2, "serve: --tls-key needs --tls-cert: TLS takes a certificate"),
        (["--api-key-file", tmp_path / "none"], 1, f"serve: {tmp_path}/none cannot be read: No such file"),
    ]:
        done = subprocess.run([*base, *flags], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == status
        assert done.stderr.startswith(message)
        assert len(done.stderr.splitlines()) == 1


def test_a_server_open_to_others_without_a_key_warns_once(rehearse, keys):
    warning = "bound to 0.0.0.0 without a key: anyone who reaches this port can use the policy"
    with rehearse("--host", "0.0.0.0") as server:
        assert server.wait_ready().log.count(warning) == 1
    with rehearse("--host", "0.0.0.0", "--api-key-file", keys) as server:
        assert warning not in server.wait_ready().log
