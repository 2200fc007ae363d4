"""
Trust for tests: a federation on disk, certificates that are wrong in one way each.

Bad certificates are built with cryptography directly, unchecked by the code under test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from esgf_gossip.trust import issue, keys, pem, revocation
from esgf_gossip.trust.authority import ISSUING_NAME, ROOT_NAME, Authority
from esgf_gossip.trust.founding import create_authority
from esgf_gossip.trust.install import install
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.requests import make_request
from esgf_gossip.trust.signing import NodeSigner

FEDERATION = "federation.example.org"
DAY_MS = 24 * 3600 * 1000
BAD_HOST = "bad.example.org"


def real_now_ms() -> int:
    """Return the real time, for tests that talk to tools with a clock of their own."""
    return int(time.time() * 1000)


@attrs.frozen
class TestFederation:
    """A federation on disk: its administration in ``trust``, one trust directory per node in ``nodes``."""

    __test__ = False

    directory: Path
    name: str
    authority: Authority
    now_ms: int

    @property
    def issuing(self) -> CertificateAuthority:
        """The issuing CA with its key."""
        key = keys.read_key(self.authority.private / f"{ISSUING_NAME}.key")
        return CertificateAuthority(self.authority.issuing_certificate, key)

    @property
    def root(self) -> CertificateAuthority:
        """The root with its key."""
        key = keys.read_key(self.authority.private / f"{ROOT_NAME}.key")
        return CertificateAuthority(self.authority.roots()[0], key)

    def node(self, host: str, groups: Sequence[str] = (), roles: Sequence[str] = ()) -> Path:
        """Return the ready trust directory of a node, made on the first call."""
        directory = self.directory / "nodes" / host / "trust"
        if not directory.exists():
            request = make_request(directory, host, self.name, [host], groups, roles)
            approved = self.authority.approve(
                request.pem, fingerprint=request.fingerprint, now_ms=self.now_ms
            )
            install(
                directory,
                approved.chain_pem,
                self.authority.roots(),
                self.authority.crls(),
                host=host,
                federation=self.name,
                now_ms=self.now_ms,
                bundles=self.authority.bundles(),
            )
        return directory

    def material(self, host: str, now_ms: int | None = None) -> TrustMaterial:
        """Load the trust of a node."""
        now_ms = self.now_ms if now_ms is None else now_ms
        return TrustMaterial.load(self.node(host), host=host, federation=self.name, now_ms=now_ms)

    def serial(self, host: str) -> int:
        """Return the serial number of a node's certificate."""
        return pem.certificates((self.node(host) / "chain.pem").read_bytes(), host)[0].serial_number

    def crl(
        self, number: int, serials: Sequence[int] = (), *, at_ms: int | None = None, days: int = 14
    ) -> Any:
        """Sign a CRL of the issuing CA, without storing it."""
        at_ms = self.now_ms if at_ms is None else at_ms
        return issue.crl(self.issuing, number, dict.fromkeys(serials, issue.moment(at_ms)), at_ms, days)

    def publish(self, crl: Any, *hosts: str) -> None:
        """Put a CRL of the issuing CA in force at the administration and at some nodes."""
        content = pem.crl_pem(crl)
        (self.authority.directory / "crl" / f"{ISSUING_NAME}.crl.pem").write_bytes(content)
        for host in hosts:
            for path in (self.node(host) / "crl").iterdir():
                if pem.revocation_lists(path.read_bytes(), path.name)[0].issuer == crl.issuer:
                    path.write_bytes(content)

    def revoke(self, serials: Sequence[int], *hosts: str) -> None:
        """Revoke certificates by a CRL with the next number, held by some nodes."""
        held = revocation.CrlSet.choose(self.authority.crls()).of_issuer(
            self.authority.issuing_certificate.subject
        )
        number = revocation.number(held) + 1
        self.publish(self.crl(number, [*revocation.serials(held), *serials]), *hosts)


def a_federation(
    directory: Path, name: str = FEDERATION, now_ms: int | None = None, roles: Sequence[str] = ()
) -> TestFederation:
    """Found a federation in a folder, which grants these roles; its keys are not encrypted."""
    now_ms = real_now_ms() if now_ms is None else now_ms
    authority = create_authority(directory / "trust", directory / "private", name, now_ms, None)
    authority = attrs.evolve(authority, policy=attrs.evolve(authority.policy, roles=tuple(roles)))
    return TestFederation(directory, name, authority, now_ms)


# --------------------------------------------------------------------- certificates wrong in one way


@attrs.define
class Draft:
    """A certificate before it is signed; every field can be wrong."""

    host: str
    names: list[x509.GeneralName]
    key: Any
    issuer: CertificateAuthority
    start: datetime
    end: datetime
    ca: bool | None = False
    usage: x509.KeyUsage | None = attrs.field(factory=lambda: issue.key_usage(ca=False))
    purposes: list[x509.ObjectIdentifier] | None = attrs.field(
        factory=lambda: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    more: list[tuple[x509.ExtensionType, bool]] = attrs.field(factory=list)
    serial: int = attrs.field(factory=issue.serial_number)

    def sign(self) -> x509.Certificate:
        """Sign it."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.host)]))
            .issuer_name(self.issuer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.start)
            .not_valid_after(self.end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(issue.authority_key(self.issuer.certificate), critical=False)
        )
        if self.ca is not None:
            builder = builder.add_extension(
                x509.BasicConstraints(ca=self.ca, path_length=None), critical=True
            )
        if self.usage is not None:
            builder = builder.add_extension(self.usage, critical=True)
        if self.purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=False)
        for extension, critical in self.more:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.issuer.key, hashes.SHA256())


def a_draft(federation: TestFederation, host: str = BAD_HOST) -> Draft:
    """Return the draft of a good certificate, to be spoiled in one way."""
    moment = issue.moment(federation.now_ms)
    return Draft(
        host=host,
        names=[
            x509.DNSName(host),
            x509.UniformResourceIdentifier(f"esgf://{federation.name}/node/{host}"),
            x509.UniformResourceIdentifier(f"esgf://{federation.name}/group/member"),
        ],
        key=keys.new_key(),
        issuer=federation.issuing,
        start=moment - timedelta(minutes=5),
        end=moment + timedelta(days=30),
    )


def with_names(*names: str) -> Callable[[Draft], None]:
    """Spoil the names: ``dns:`` or ``uri:`` before each."""

    def spoil(draft: Draft) -> None:
        kinds = {"dns": x509.DNSName, "uri": x509.UniformResourceIdentifier}
        draft.names = [kinds[name.partition(":")[0]](name.partition(":")[2]) for name in names]

    return spoil


def _with(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: [setattr(draft, name, value) for name, value in changes.items()] and None


_NODE = f"uri:esgf://{FEDERATION}/node/{BAD_HOST}"
_GROUP = f"uri:esgf://{FEDERATION}/group/member"
_DNS = f"dns:{BAD_HOST}"

# What is wrong: (how to spoil a good draft, what the refusal must say).
BAD_LEAVES: dict[str, tuple[Callable[[Draft], None], str]] = {
    "no SAN": (with_names(), "subject alternative name is missing"),
    "urn URI": (with_names(_DNS, _NODE, _GROUP, "uri:urn:a:b"), "'urn:a:b' is not of the form"),
    "port URI": (
        with_names(_DNS, f"uri:esgf://{FEDERATION}:8443/node/{BAD_HOST}", _GROUP),
        "a port is not allowed in a node URI",
    ),
    "user URI": (
        with_names(_DNS, f"uri:esgf://me@{FEDERATION}/node/{BAD_HOST}", _GROUP),
        "a user is not allowed",
    ),
    "query URI": (with_names(_DNS, _NODE + "?a", _GROUP), "forbidden character"),
    "deep URI": (with_names(_DNS, _NODE + "/more", _GROUP), "is not of the form"),
    "escaped URI": (
        with_names(_DNS, f"uri:esgf://{FEDERATION}/node/bad%2eexample.org", _GROUP),
        "forbidden character",
    ),
    "upper-case scheme": (
        with_names(_DNS, f"uri:ESGF://{FEDERATION}/node/{BAD_HOST}", _GROUP),
        "is not of the form",
    ),
    "two node URIs": (
        with_names(
            _DNS, "dns:other.example.org", _NODE, f"uri:esgf://{FEDERATION}/node/other.example.org", _GROUP
        ),
        "exactly one node URI is needed",
    ),
    "no node URI": (with_names(_DNS, _GROUP), "exactly one node URI is needed, found none"),
    "no group URI": (with_names(_DNS, _NODE), "no group URI"),
    "other federation": (
        with_names(
            _DNS, f"uri:esgf://other.example.org/node/{BAD_HOST}", "uri:esgf://other.example.org/group/member"
        ),
        "is of federation 'other.example.org'",
    ),
    "two federations": (
        with_names(_DNS, _NODE, "uri:esgf://other.example.org/group/member"),
        "several federations",
    ),
    "wildcard": (with_names(_DNS, "dns:*", _NODE, _GROUP), "'*' has a forbidden character at position 0"),
    "address as DNS": (with_names(_DNS, "dns:127.0.0.1", _NODE, _GROUP), "is an address, not a DNS name"),
    "NUL in DNS": (
        with_names(_DNS, "dns:a\x00.example.org", _NODE, _GROUP),
        "forbidden character at position 1",
    ),
    "upper-case DNS": (
        with_names(_DNS, "dns:Bad.example.org", _NODE, _GROUP),
        "forbidden character at position 0",
    ),
    "node not in DNS": (with_names("dns:other.example.org", _NODE, _GROUP), "is not among the DNS names"),
    "too many names": (
        with_names(_DNS, _NODE, _GROUP, *(f"dns:n{i}.example.org" for i in range(14))),
        "17 names, at most 16",
    ),
    "no EKU": (_with(purposes=None), "extended key usage is missing"),
    "no key usage": (_with(usage=None), "key usage is missing"),
    "no basic constraints": (_with(ca=None), "basic constraints is missing"),
    "any EKU too": (
        _with(
            purposes=[
                ExtendedKeyUsageOID.SERVER_AUTH,
                ExtendedKeyUsageOID.CLIENT_AUTH,
                ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
            ]
        ),
        "must be serverAuth and clientAuth",
    ),
    "CA as leaf": (_with(ca=True, usage=None), "a CA certificate is not a node's"),
    "unknown critical extension": (
        _with(
            more=[
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
            ]
        ),
        "critical extension",
    ),
    "P-384 key": (
        lambda draft: setattr(draft, "key", ec.generate_private_key(ec.SECP384R1())),
        "not a P-256 key",
    ),
}


@attrs.frozen
class Credentials:
    """A key, its leaf and what is sent behind it."""

    key: Any
    leaf: x509.Certificate
    issuers: tuple[x509.Certificate, ...]

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The chain as digests come with it."""
        return tuple(map(pem.certificate_der, (self.leaf, *self.issuers)))

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write key and chain for the openssl tool: (key file, chain file)."""
        directory.mkdir(parents=True, exist_ok=True)
        key, chain = directory / "key.pem", directory / "chain.pem"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key.write_bytes(self.key.private_bytes(encoding, form, serialization.NoEncryption()))
        chain.write_bytes(b"".join(map(pem.certificate_pem, (self.leaf, *self.issuers))))
        return key, chain

    def material(self, federation: TestFederation) -> TrustMaterial:
        """Make trust of these credentials that nobody checked: a hostile member's."""
        good = federation.material("attacker-helper.example.org")
        names = Names(federation.name, BAD_HOST, (BAD_HOST,), ("member",), ())
        signer = NodeSigner.make(self.key, self.leaf, names, self.chain)
        return TrustMaterial(names, self.leaf, self.issuers, good.anchors, signer, self.key)


def signed_draft(draft: Draft) -> Credentials:
    """Sign a draft."""
    return Credentials(draft.key, draft.sign(), (draft.issuer.certificate,))


def bad_leaf(federation: TestFederation, kind: str) -> Credentials:
    """Return credentials that are wrong in one way: a key of BAD_LEAVES, or one of those below."""
    draft = a_draft(federation)
    moment = issue.moment(federation.now_ms)
    if kind in BAD_LEAVES:
        BAD_LEAVES[kind][0](draft)
    elif kind == "expired":
        draft.start, draft.end = moment - timedelta(days=9), moment - timedelta(days=1)
    elif kind == "not yet valid":
        draft.start = moment + timedelta(days=1)
    elif kind in ("serverAuth only", "clientAuth only"):
        oid = ExtendedKeyUsageOID
        draft.purposes = [oid.SERVER_AUTH if kind == "serverAuth only" else oid.CLIENT_AUTH]
    elif kind == "foreign root":
        draft.issuer = foreign_issuer(federation.name, federation.now_ms)
    elif kind == "version 1":
        good = signed_draft(draft)
        return attrs.evolve(good, leaf=as_version_1(good.leaf, draft.issuer.key))
    else:
        raise ValueError(kind)
    return signed_draft(draft)


def foreign_issuer(federation: str, now_ms: int) -> CertificateAuthority:
    """Make an issuing CA with the right names under a root nobody knows."""
    key = keys.new_key()
    root = CertificateAuthority(issue.root(federation, key, now_ms, 100), key)
    key = keys.new_key()
    return CertificateAuthority(issue.issuing_ca(federation, key, root, now_ms, 50), key)


def as_version_1(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Sign a certificate anew as X.509 v1: without version and extensions, which no library builds any more."""
    fields = _der_fields(_der_fields(certificate.tbs_certificate_bytes)[0][1])
    body = b"".join(whole for whole, _ in fields if whole[0] not in (0xA0, 0xA3))
    tbs = _der(0x30, body)
    algorithm = next(whole for whole, _ in fields[2:3])
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return x509.load_der_x509_certificate(_der(0x30, tbs + algorithm + _der(0x03, b"\0" + signature)))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _der_fields(content: bytes) -> list[tuple[bytes, bytes]]:
    fields, start = [], 0
    while start < len(content):
        size, head = content[start + 1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(content[start + 2 : start + head], "big")
        end = start + head + size
        fields.append((content[start:end], content[start + head : end]))
        start = end
    return fields
