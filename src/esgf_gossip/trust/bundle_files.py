"""
Trust bundles on disk: ``bundle/<version>.bundle`` in a trust directory and in an administration, and as PEM blocks.

All versions are kept: whoever was away walks forward through them. What may follow what is bundle_rules.py's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from esgf_gossip.trust import bundle_rules, pem
from esgf_gossip.trust.bundle import Bundle, parse
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import public_folder, write_public

BUNDLE_FOLDER: Final = "bundle"
SUFFIX: Final = ".bundle"
LABEL: Final = "ESGF TRUST BUNDLE"
_LINE: Final = 64
_BASE64: Final = re.compile(rb"-----BEGIN [A-Z ]+-----\s(.*?)-----END [A-Z ]+-----", re.DOTALL)


def file_name(version: int) -> str:
    """Name the file of a version."""
    return f"{version:06}{SUFFIX}"


def bundle_files(directory: Path) -> list[Path]:
    """Return the bundle files of a trust directory or administration, by version."""
    folder = directory / BUNDLE_FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")
    )


def read_bundles(directory: Path) -> tuple[Bundle, ...]:
    """
    Read all bundles of a trust directory or administration; none where it has none.

    Raises:
        TrustError: E-BUNDLE-FORM, E-FILE; as ``bundle_rules.walk``.
    """
    return bundle_rules.walk([parse(pem.read(path), str(path)) for path in bundle_files(directory)])


def write_bundles(directory: Path, bundles: Sequence[Bundle]) -> list[Path]:
    """
    Write the bundles that are not there yet, the oldest first, so that the history has never a hole.

    Raises:
        TrustError: E-FILE.
    """
    folder = directory / BUNDLE_FOLDER
    public_folder(folder)
    written = []
    for one in bundles:
        path = folder / file_name(one.version)
        if not path.exists() or path.read_bytes() != one.body:
            write_public(path, one.body)
            written.append(path)
    return written


def blocks(bundles: Iterable[Bundle]) -> bytes:
    """Write bundles as PEM blocks, beside certificates and CRLs in one file."""
    return b"".join(_block(one.body) for one in bundles)


def read_blocks(content: bytes, where: str) -> list[Bundle]:
    """
    Read the bundles among other PEM blocks, if any.

    Raises:
        TrustError: E-BUNDLE-FORM.
    """
    found = []
    for match in _BASE64.finditer(pem.blocks(content, LABEL)):
        try:
            body = base64.b64decode(b"".join(match[1].split()), validate=True)
        except ValueError:
            raise TrustError("E-BUNDLE-FORM", "a damaged bundle block", where) from None
        found.append(parse(body, where))
    return found


def read_file(path: Path) -> list[Bundle]:
    """
    Read the bundles of one file: a bundle as it is kept, or PEM blocks.

    Raises:
        TrustError: E-BUNDLE-FORM, E-NOTFOUND, E-FILE.
    """
    content = pem.read(path)
    return read_blocks(content, str(path)) or [parse(content, str(path))]


def same_roots(one: Iterable[x509.Certificate], other: Iterable[x509.Certificate]) -> bool:
    """Tell whether two sets of roots are equal."""
    return {pem.fingerprint(root) for root in one} == {pem.fingerprint(root) for root in other}


def _block(body: bytes) -> bytes:
    text = base64.b64encode(body).decode()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([f"-----BEGIN {LABEL}-----", *lines, f"-----END {LABEL}-----", ""]).encode()
