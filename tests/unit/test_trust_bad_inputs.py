"""What comes from outside to trust-admin and is no good: names, requests, policies; one code for each."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.trust import issue, keys, names, pem, policy, requests
from esgf_gossip.trust.errors import TrustError
from helpers.trust import TestFederation, a_federation
from helpers.trust_admin import run

HOST = "node.example.org"
NAME = "federation.example.org"
PASSPHRASE = b"six random words of a list"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation."""
    return a_federation(tmp_path / "federation")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\x00.org", "E-NAME"),
        ("a b.org", "E-NAME"),
        ("*.example.org", "E-NAME"),
        ("A.example.org", "E-NAME"),
        ("127.0.0.1", "E-NAME"),
        ("näh.example.org", "E-NAME"),
        ("a..org", "E-NAME"),
        ("a.org.", "E-NAME"),
        ("", "E-NAME"),
        ("-a.org", "E-NAME"),
        ("a" * 64 + ".org", "E-NAME"),
        ("xn--nh-yia.example.org", ""),
    ],
)
def test_dns_names_are_strict(text: str, code: str) -> None:
    """Everything but a lower-case DNS name in ASCII is refused, with the position of the first bad character."""
    found = ""
    try:
        names.check_dns(text)
    except TrustError as error:
        found = error.code
    assert found == code


def test_forbidden_character_is_shown_escaped() -> None:
    """The refusal shows the name without sending its control characters to the terminal."""
    with pytest.raises(TrustError) as caught:
        names.check_dns("a\x00.org")
    assert str(caught.value).startswith(
        "E-NAME: DNS name 'a\\x00.org' has a forbidden character at position 1"
    )


def bad_files(federation: TestFederation, tmp_path: Path) -> dict[str, tuple[bytes, str, int]]:
    """Return files that are no request: content, code, exit code."""
    made = requests.make_request(tmp_path / "r", HOST, federation.name, [HOST], [], [])
    key = keys.new_key()
    wanted = names.Names(federation.name, HOST, (HOST,), (), ())
    csr = issue.request(wanted, key)
    der = csr.public_bytes(Encoding.DER)
    damaged = der[:-4] + bytes(byte ^ 1 for byte in der[-4:])
    ca = (
        issue.x509.CertificateSigningRequestBuilder()
        .subject_name(issue.x509.Name([]))
        .add_extension(issue.x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(issue.alternative_names(wanted), critical=False)
        .sign(key, hashes.SHA256())
    )
    foreign = issue.request(attrs.evolve(wanted, federation="other.example.org"), key)
    return {
        "private key": ((made.path.parent / "node.key").read_bytes(), "E-TYPE", 3),
        "certificate": ((federation.authority.directory / "roots/root-g1.pem").read_bytes(), "E-TYPE", 3),
        "empty": (b"", "E-PEM", 3),
        "truncated": (made.pem[:200], "E-PEM", 3),
        "garbage": (b"\x30\x82garbage", "E-PEM", 3),
        "two": (made.pem * 2, "E-MANY", 3),
        "broken signature": (damaged, "E-CSR-SIG", 3),
        "asks to be a CA": (pem.request_pem(ca), "E-POLICY", 4),
        "other federation": (pem.request_pem(foreign), "E-POLICY", 4),
        "DER": (der, "", 0),
    }


def test_bad_requests_are_named(federation: TestFederation, tmp_path: Path) -> None:
    """Each file that is no good request is refused with its own code, in one line, and nothing is pending."""
    found, expected = {}, {}
    for kind, (content, code, exit_code) in bad_files(federation, tmp_path).items():
        path = tmp_path / "request.pem"
        path.write_bytes(content)
        ran = run("cert", "import", path, "--dir", federation.authority.directory)
        found[kind] = (ran.error, ran.code, ran.err.count("\n"))
        expected[kind] = (code, exit_code, 1 if code else 0)
    assert found == expected
    assert run("cert", "import", tmp_path / "nothing.pem", "--dir", federation.authority.directory).code == 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("federation = 1\ngroups=['a']", "federation must be"),
        ("federation = 'f.org'\nrolls = []", "unknown key 'rolls'"),
        ("federation = 'f.org'\ngroups = []", "at least one group"),
        ("federation = 'f.org'\nmax_days = 0", "max_days"),
        ("federation = 'f.org'\nroles = 'a'", "roles must be a list"),
        ("federation = 'F.org'", "forbidden character"),
        ("federation", "is not TOML"),
    ],
)
def test_bad_policy_is_named(content: str, says: str) -> None:
    """A policy that is not in form is refused with file and key: nothing is guessed."""
    with pytest.raises(TrustError) as caught:
        policy.parse(content.encode(), "policy.toml")
    assert says in str(caught.value)


def test_example_policy_is_good() -> None:
    """The example in certs/ is what init writes, and reads."""
    path = Path(__file__).parents[2] / "certs" / "policy.example.toml"
    assert policy.load(path) == policy.parse(policy.template(NAME).encode(), "template")


def test_words_tell_fingerprints_apart() -> None:
    """The words of a fingerprint are sixteen, and stand for it alone."""
    told = requests.words("00" * 31 + "ff")
    assert told == " ".join(["babab"] * 15 + ["baguz"])
    assert requests.same_fingerprint(told, "00" * 31 + "ff")
    assert not requests.same_fingerprint(told, "00" * 32)
