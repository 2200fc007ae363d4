"""Every file we write against the openssl program: certificates, CRLs, requests, keys."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from esgf_gossip.trust import pem
from helpers.trust import FEDERATION, TestFederation, a_federation

HOST = "server.example.org"
DEADLINE_S = 20

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


def tool(*command: object) -> str:
    """Run openssl and return what it printed; it must succeed."""
    ran = subprocess.run(
        ["openssl", *(str(part) for part in command)], capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert (ran.returncode, ran.stderr.decode() if ran.returncode else "") == (0, "")
    return (ran.stdout + ran.stderr).decode()


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_certificates_verify_strictly(federation: TestFederation, tmp_path: Path, purpose: str) -> None:
    """What we issue passes openssl verify with strict rules, CRLs on all levels, and the host's name."""
    folder = federation.authority.directory
    crls = tmp_path / "crls.pem"
    crls.write_bytes(b"".join(path.read_bytes() for path in (folder / "crl").iterdir()))
    printed = tool(
        *(
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-CAfile",
            folder / "roots" / "root-g1.pem",
            "-CRLfile",
            crls,
        ),
        *("-untrusted", folder / "issuers" / "issuing-g1.pem", "-purpose", purpose, "-verify_hostname", HOST),
        federation.node(HOST) / "chain.pem",
    )
    assert printed.strip().endswith(": OK")


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_crls_are_good(federation: TestFederation, tmp_path: Path, count: int) -> None:
    """The CRLs we sign are good for openssl, with their number, whatever they revoke."""
    path = tmp_path / "crl.pem"
    path.write_bytes(pem.crl_pem(federation.crl(41, range(1, count + 1))))
    issuer = federation.authority.directory / "issuers" / "issuing-g1.pem"
    printed = tool("crl", "-in", path, "-CAfile", issuer, "-crlnumber", "-noout")
    assert (
        "crlNumber=0x29" in printed.lower().replace("crlnumber", "crlNumber"),
        "verify OK" in printed,
    ) == (True, True)


def test_requests_and_keys_are_good(federation: TestFederation) -> None:
    """Requests verify by their own key, keys are consistent."""
    directory = federation.node(HOST)
    assert "verify OK" in tool("req", "-in", directory / f"{HOST}.csr.pem", "-verify", "-noout")
    assert "Key is valid" in tool("pkey", "-in", directory / "node.key", "-check", "-noout")


def test_certificate_shows_all_that_admits(federation: TestFederation) -> None:
    """All that admits a peer is readable with openssl x509 -text."""
    printed = tool("x509", "-in", federation.node(HOST) / "chain.pem", "-text", "-noout")
    wanted = (
        f"URI:esgf://{FEDERATION}/node/{HOST}",
        f"DNS:{HOST}",
        "CA:FALSE",
        "TLS Web Client Authentication",
    )
    assert [text for text in wanted if text not in printed] == []
