"""TLS towards programs that are no nodes: the host's own certificate, and services that must be who they are; web TLS."""

import subprocess

import pytest

from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.loopback_certificate import write_loopback_certificate
from esgf_gossip.trust.web_tls import HostCertificate, ServicePolicy, ServiceRefused
from helpers.handshakes import handshake


def a_certificate(
    folder, *, names="", subject="/CN=nobody", days=2, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
):
    """Make a self-signed certificate by the openssl tool; return its file and that of its key."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "host.pem", folder / "host.key.pem"
    extensions = ["-addext", f"subjectAltName={names}"] if names else []
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        *kind,
        "-nodes",
        "-days",
        str(days),
        "-subj",
        subject,
        *extensions,
    ]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    key.chmod(0o640)
    return certificate, key


def shake(certificate, key, host, roots):
    """Let a client that wants a host speak with a server that shows a certificate."""
    creator = ServicePolicy(roots).creatorForNetloc(host, 443)
    server, client, _ = handshake(HostCertificate(certificate, key), creator)
    return server, client


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1"])
def test_a_service_that_is_who_it_should_be_is_spoken_with(tmp_path, host):
    """By name and by address; the certificate of the demo is such a one."""
    certificate, key = write_loopback_certificate(tmp_path)
    _, client = shake(certificate, key, host, certificate)
    assert client.received == b"admitted"


def test_rsa_keys_are_what_sites_have(tmp_path):
    """Most certificates of hosts are."""
    certificate, key = a_certificate(tmp_path / "a", names="DNS:index.example.org", kind=("rsa:2048",))
    _, client = shake(certificate, key, b"index.example.org", certificate)
    assert client.received == b"admitted"


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ("DNS:other.example.org", b"index.example.org"),
        ("DNS:*", b"index.example.org"),
        ("DNS:*.org", b"index.example.org"),
        ("DNS:127.0.0.1", b"127.0.0.1"),
        ("IP:127.0.0.2", b"127.0.0.1"),
        ("URI:urn:a:b", b"index.example.org"),
        ("URI:esgf://h:8443/x", b"index.example.org"),
        ("", b"index.example.org"),
    ],
)
def test_a_certificate_of_another_is_refused(tmp_path, names, host):
    """Some of these names make the library raise something else than a refusal; they are refused all the same."""
    certificate, key = a_certificate(tmp_path / "a", names=names, subject="/CN=index.example.org")
    _, client = shake(certificate, key, host, certificate)
    assert client.received == b""
    assert isinstance(client.lost, ServiceRefused)
    assert str(client.lost) == f"its certificate is not one of {host.decode()}"


def test_an_issuer_that_is_not_ours_is_refused(tmp_path):
    """The right name, signed by somebody; with the CAs of the system too."""
    certificate, key = a_certificate(tmp_path / "a", names="DNS:index.example.org")
    other, _ = a_certificate(tmp_path / "b", names="DNS:index.example.org")
    for roots in (other, None):
        _, client = shake(certificate, key, b"index.example.org", roots)
        assert client.received == b""
        assert "not good here" in str(client.lost)


def test_a_renewed_certificate_is_shown_after_a_reload(tmp_path):
    """Where the new files are wrong the old ones stay in use."""
    certificate, key = a_certificate(tmp_path / "a", names="DNS:index.example.org")
    shown = HostCertificate(certificate, key)
    a_certificate(tmp_path / "a", names="DNS:index.example.org")
    shown.reload()
    creator = ServicePolicy(certificate).creatorForNetloc(b"index.example.org", 443)
    assert handshake(shown, creator)[1].received == b"admitted"
    certificate_text = certificate.read_bytes()
    certificate.write_text("nonsense")
    with pytest.raises(TrustError):
        shown.reload()
    certificate.write_bytes(certificate_text)
    assert handshake(shown, creator)[1].received == b"admitted"


def test_files_that_are_wrong_are_named_in_one_line(tmp_path):
    """What is wrong, where, what to do."""
    certificate, key = a_certificate(tmp_path / "a", names="DNS:a.example.org")
    _, other = a_certificate(tmp_path / "b", names="DNS:a.example.org")
    encrypted = tmp_path / "encrypted.pem"
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted],
        check=True,
        capture_output=True,
    )
    encrypted.chmod(0o600)
    public = tmp_path / "public.pem"
    public.write_bytes(key.read_bytes())
    public.chmod(0o644)
    for wrong, said in (
        ((certificate, other), "is not the key of the first certificate"),
        ((certificate, encrypted), "holds no private key without a passphrase"),
        ((certificate, public), "can be read by everybody"),
        ((certificate, tmp_path / "none"), "does not exist"),
        ((certificate, tmp_path), "not a regular file"),
        ((tmp_path / "none", key), "does not exist"),
    ):
        with pytest.raises(TrustError, match=said) as caught:
            HostCertificate(*wrong)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(TrustError):
        ServicePolicy(key)
